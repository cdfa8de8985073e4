//! A configuration that changes under a running gateway: by its file, and by callers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_gateway::{
    config::{Config, Env, LocationFlags, Locations, ServeOptions, resolve_settings},
    reload::{Refused, Reloader},
};
use openclaw_schema::methods::{
    config::{CONFIG_CHANGED, ConfigMethod, REDACTED},
    gateway::GatewayMethod,
};
use openclaw_tests::{
    harness::{PATIENCE, TOKEN, TestGateway, soon},
    load::{Load, Shape},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A gateway that watches its configuration file.
struct Watched {
    gateway: TestGateway,
    file: PathBuf,
    reloader: Reloader,
    watch: JoinHandle<()>,
    _home: TempDir,
}

fn config(rest: &str) -> String {
    format!("// mine\n{{ gateway: {{ mode: 'local', auth: {{ token: '{TOKEN}' }} }}, {rest} }}\n")
}

impl Watched {
    async fn start(text: &str) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let directory = home.path().to_str().expect("a text").to_owned();
        let variables = [("HOME", directory), ("OPENCLAW_DISABLE_BONJOUR", "1".to_owned())];
        let env: Env = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let locations = Locations::resolve(&LocationFlags::default(), &env).expect("there is a home");
        let file = locations.config_file().to_owned();
        fs::create_dir_all(file.parent().expect("it lies in a directory")).expect("it is made");
        fs::write(&file, text).expect("it writes");
        let options = ServeOptions { port: Some(0), ..ServeOptions::default() };
        let resolve = move |config: &Config| {
            resolve_settings(&locations, config, &env, &options).map_err(|error| Refused::from(&error))
        };
        let resolved = resolve(&Config::load(&file).expect("it reads")).expect("it starts");
        let reloader = Reloader::new(&file, Vec::new(), &resolved, None, resolve);
        let watch = tokio::spawn(reloader.clone().watch());
        let for_builder = reloader.clone();
        let gateway = TestGateway::start_with(
            |settings| *settings = resolved.settings,
            |builder| builder.reloader(for_builder),
        )
        .await;
        Self { gateway, file, reloader, watch, _home: home }
    }

    /// As an editor writes that puts a new file in the place of the old one.
    fn write(&self, text: &str) {
        replace(&self.file, text);
    }

    /// Waits until the gateway says so of its configuration.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        let told = async {
            loop {
                let status = self.reloader.status();
                let status = serde_json::to_value(status).expect("it serialises");
                if is_so(&status) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("{what}"));
    }

    async fn asks_with(&self, token: &str) -> u16 {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": GatewayMethod::Status.name() });
        self.gateway.post_with(text.to_string(), &[("authorization", &format!("Bearer {token}"))]).await.0
    }

    async fn change(&self, method: ConfigMethod, params: Value) -> Value {
        self.gateway.call(method.name(), params).await
    }

    async fn hash(&self) -> Value {
        self.gateway.call(ConfigMethod::ConfigGet.name(), json!({})).await["result"]["hash"].clone()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file).expect("it reads")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn replace(file: &Path, text: &str) {
    let temporary = file.with_extension("new");
    fs::write(&temporary, text).expect("it writes");
    fs::rename(&temporary, file).expect("it moves");
}

#[tokio::test]
async fn another_secret_counts_at_the_next_handshake_and_who_had_the_old_one_is_told() {
    let watched = Watched::start(&config("")).await;
    let mut socket = watched.gateway.websocket().await;
    let health = json!({ "jsonrpc": "2.0", "id": 7, "method": GatewayMethod::Health.name() }).to_string();
    assert_eq!(socket.ask(health.as_str()).await["id"], 7);
    watched.write(&config("").replace(TOKEN, "another-token"));
    let close = socket.closed().await.expect("it is closed with a word");
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "gateway auth changed"));
    assert_eq!((watched.asks_with(TOKEN).await, watched.asks_with("another-token").await), (401, 200));
    // A mode is taken over too.
    watched.write(&config("").replace("token:", "password:").replace(TOKEN, "a-password-now"));
    watched.until("it is not taken over", |status| status["reloads"] == 2).await;
    assert_eq!(
        (watched.asks_with("another-token").await, watched.asks_with("a-password-now").await),
        (401, 200)
    );
}

#[tokio::test]
async fn the_caller_that_changes_the_secret_is_answered_first() {
    let watched = Watched::start(&config("")).await;
    let mut socket = watched.gateway.websocket().await;
    let params =
        json!({ "raw": "{gateway: {auth: {token: 'another-token'}}}", "baseHash": watched.hash().await });
    let method = ConfigMethod::ConfigPatch.name();
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = socket.ask(call.to_string()).await;
    assert_eq!(answer["result"]["applied"], json!(["gateway.auth"]), "{answer}");
    assert_eq!(answer["result"]["config"]["gateway"]["auth"]["token"], REDACTED);
    assert_eq!(socket.closed().await.map(|close| u16::from(close.code)), Some(4001));
    assert!(watched.text().starts_with("// mine\n{ gateway: {"), "{}", watched.text());
    assert_eq!(watched.asks_with("another-token").await, 200);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_told() {
    let watched = Watched::start(&config("")).await;
    watched.write("// mine\n{ gateway: { mode: 'local', auth: { token: 'hush-hush-hush' } oops");
    watched.until("it is not told", |status| status["problem"].is_string()).await;
    let status =
        watched.gateway.call(GatewayMethod::Status.name(), json!({})).await["result"]["config"].clone();
    assert!(
        status["problem"].as_str().is_some_and(|problem| problem.contains("openclaw.json:2:")),
        "{status}"
    );
    let seen = watched.gateway.call(ConfigMethod::ConfigGet.name(), json!({})).await["result"].clone();
    assert_eq!((&seen["valid"], seen["issues"].as_array().map(Vec::len)), (&json!(false), Some(1)));
    watched.write(&config("logging: { level: 'loud', file: 'hush-hush-hush' }"));
    let is_level =
        |status: &Value| status["problem"].as_str().is_some_and(|problem| problem.contains("logging.level"));
    watched.until("the other problem is not told", is_level).await;
    watched.write(&config("gatewayx: 1"));
    watched.until("it is not mended", |status| status["problem"].is_null()).await;
    assert_eq!(watched.asks_with(TOKEN).await, 200);
}

#[tokio::test]
async fn whom_it_trusts_and_when_guessers_are_kept_out_changes_without_a_restart() {
    let watched = Watched::start(&config("")).await;
    let page = async || {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": GatewayMethod::Health.name() });
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("origin", "https://ui.example.com")];
        watched.gateway.post_with(text.to_string(), &headers).await.0
    };
    assert_eq!(page().await, 403);
    let trusting = config("").replace(
        "mode: 'local',",
        "mode: 'local', controlUi: { allowedOrigins: ['https://ui.example.com'] }, ",
    );
    watched.write(&trusting);
    watched.until("it is not taken over", |status| status["reloads"] == 1).await;
    assert_eq!(page().await, 200);
    watched
        .write(&trusting.replace("auth: {", "auth: { rateLimit: { maxAttempts: 2, exemptLoopback: false },"));
    watched.until("it is not taken over", |status| status["reloads"] == 2).await;
    assert_eq!((watched.asks_with("wrong").await, watched.asks_with("wrong").await), (401, 401));
    assert_eq!(watched.asks_with(TOKEN).await, 429);
}

#[tokio::test]
async fn what_waits_for_a_restart_is_told_and_apply_asks_for_one() {
    let watched = Watched::start(&config("")).await;
    watched.write(&config("agents: { entries: { other: {} } }"));
    watched.until("it is not told", |status| status["waitsForRestart"][0] == "agents").await;
    let raw = config("agents: { entries: { third: {} } }");
    let params = |hash: Value| json!({ "raw": raw, "baseHash": hash, "note": "another agent" });
    let answer = watched
        .change(ConfigMethod::ConfigSet, json!({ "raw": raw, "baseHash": watched.hash().await }))
        .await;
    assert_eq!(answer["result"]["waitsForRestart"][0], "agents", "{answer}");
    assert!(answer["result"].get("restart").is_none(), "{answer}");
    let answer = watched.change(ConfigMethod::ConfigApply, params(watched.hash().await)).await;
    assert_eq!(answer["result"]["changedPaths"], json!([]), "{answer}");
    assert_eq!(answer["result"]["restart"]["ok"], true, "{answer}");
    let forbidding = config("agents: { entries: { third: {} } }, commands: { restart: false }");
    let params = json!({ "raw": forbidding, "baseHash": watched.hash().await });
    let answer = watched.change(ConfigMethod::ConfigApply, params).await;
    assert_eq!(answer["result"]["applied"], json!(["commands.restart"]), "{answer}");
    assert!(answer["result"]["restartRefused"].as_str().is_some_and(|why| why.contains("commands.restart")));
}

#[tokio::test]
async fn a_change_of_what_is_not_there_any_more_is_a_conflict_and_writes_nothing() {
    let watched = Watched::start(&config("")).await;
    let old = watched.hash().await;
    watched.write(&config("logging: { level: 'warn' }"));
    for method in [ConfigMethod::ConfigSet, ConfigMethod::ConfigPatch, ConfigMethod::ConfigApply] {
        let answer = watched.change(method, json!({ "raw": "{}", "baseHash": old })).await;
        assert_eq!(answer["error"]["data"]["reason"], CONFIG_CHANGED, "{answer}");
        let answer = watched.change(method, json!({ "raw": "{}" })).await;
        assert_eq!(answer["error"]["data"]["path"], "/baseHash", "{answer}");
    }
    // What would be refused at a start is refused.
    let params = json!({ "raw": "{gateway: {bind: 'lan', auth: {token: 'short'}}}", "baseHash": watched.hash().await });
    let answer = watched.change(ConfigMethod::ConfigPatch, params).await;
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("has 5 characters; beyond loopback"), "{answer}");
    assert_eq!(watched.text(), config("logging: { level: 'warn' }"));
}

#[tokio::test]
async fn with_reload_off_nothing_is_taken_over() {
    let off = |token: &str| {
        config("").replace(TOKEN, token).replace("mode: 'local',", "mode: 'local', reload: { mode: 'off' },")
    };
    let watched = Watched::start(&off(TOKEN)).await;
    watched.write(&off("another-token"));
    watched.until("it is not told", |status| status["waitsForRestart"] == json!(["gateway.auth"])).await;
    assert_eq!((watched.asks_with(TOKEN).await, watched.asks_with("another-token").await), (200, 401));
}

#[tokio::test]
async fn no_call_fails_while_the_configuration_changes() {
    let watched = Watched::start(&config("")).await;
    let shape = Shape { sockets: 10, calls_per_second: 200, reconnects_per_second: 0 };
    let load = Load::start(&format!("{}/rpc", watched.gateway.url()), TOKEN, shape);
    watched.write("{ broken");
    watched.until("it is not told", |status| status["problem"].is_string()).await;
    watched.write(&config("commands: { restart: false }"));
    watched.until("it is not taken over", |status| status["reloads"] == 1).await;
    load.change_token("another-token");
    watched.write(&config("").replace(TOKEN, "another-token"));
    watched.until("it is not taken over", |status| status["reloads"] == 2).await;
    let answered = || load.counts().answered.load(std::sync::atomic::Ordering::Relaxed);
    let before = answered();
    soon(async {
        while answered() < before + 50 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let counts = load.finish().await;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    let bad =
        [&counts.failed, &counts.told_to_retry, &counts.cut, &counts.hanging, &counts.refused_connections];
    assert_eq!(bad.map(count), [0; 5], "{counts:?}");
    assert_eq!(count(&counts.answered) + count(&counts.sent_again), count(&counts.sent), "{counts:?}");
}
