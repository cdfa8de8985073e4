//! `gateway probe` and `gateway status`: facts, warnings, shapes and exit codes; and that they agree with `health`.

use std::{collections::BTreeSet, net::TcpListener};

use serde_json::{Value, json};

use crate::{
    fake::{Answer, Fake, TOKEN},
    gateway::Gateway,
    process::{Home, Outcome},
    stock::Stock,
};

/// A port of this machine where nobody listens.
const CLOSED: &str = "1";

/// Every path of a recorded `gateway probe --json` (cli.md section 5), `[]` for an item of a list.
const PROBE_PATHS: &str = "
    ok degraded capability ts durationMs timeoutMs primaryTargetId warnings
    network.localLoopbackUrl network.localTailnetUrl network.tailnetIPv4
    discovery.timeoutMs discovery.count discovery.beacons
    targets[].id targets[].kind targets[].url targets[].active targets[].tunnel
    targets[].connect.ok targets[].connect.rpcOk targets[].connect.scopeLimited targets[].connect.latencyMs
    targets[].connect.error targets[].connect.close
    targets[].auth.role targets[].auth.scopes targets[].auth.capability
    targets[].server.version targets[].server.buildId targets[].server.connId
    targets[].self.host targets[].self.ip targets[].self.version targets[].self.platform targets[].self.instanceId
    targets[].config.path targets[].config.exists targets[].config.valid targets[].config.issues
    targets[].config.legacyIssues targets[].config.gateway.mode targets[].config.gateway.bind
    targets[].config.gateway.port targets[].config.gateway.controlUiEnabled
    targets[].config.gateway.controlUiBasePath targets[].config.gateway.authMode
    targets[].config.gateway.authTokenConfigured targets[].config.gateway.authPasswordConfigured
    targets[].config.gateway.remoteUrl targets[].config.gateway.remoteTokenConfigured
    targets[].config.gateway.remotePasswordConfigured targets[].config.gateway.tailscaleMode
    targets[].config.discovery.wideAreaEnabled
    targets[].health targets[].summary targets[].presence";

/// Every path of a recorded `gateway status --json` (cli.md section 4) that is there on any machine.
const STATUS_PATHS: &str = "
    cli.version cli.entrypoint logFile
    service.label service.systemdInstallation.kind service.loaded service.loadState.status service.loadedText
    service.notLoadedText service.targetRole service.command service.runtime.status
    service.configAudit.ok service.configAudit.issues
    config.cli.path config.cli.exists config.cli.valid config.daemon.path config.daemon.exists config.daemon.valid
    gateway.bindMode gateway.bindHost gateway.port gateway.portSource gateway.probeUrl
    gateway.controlUiLinks.httpUrl gateway.controlUiLinks.wsUrl gateway.probeNote gateway.version
    hostDesktop.enabled hostDesktop.state hostDesktop.port
    port.port port.status port.listeners[].pid port.listeners[].command port.listeners[].address
    port.listeners[].user port.listeners[].commandLine port.listeners[].ppid port.hints
    rpc.ok rpc.kind rpc.capability rpc.auth.role rpc.auth.scopes rpc.auth.capability
    rpc.server.version rpc.server.buildId rpc.server.connId rpc.version rpc.url
    extraServices pluginVersionDrift.gatewayVersion pluginVersionDrift.drifts";

fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    found.insert(path.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                paths(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[track_caller]
fn assert_has(document: &Value, recorded: &str) {
    let mut found = BTreeSet::new();
    paths(document, "", &mut found);
    let missing: Vec<_> = recorded.split_whitespace().filter(|path| !found.contains(*path)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {document:#}");
}

fn codes(probe: &Value) -> Vec<&str> {
    let warnings = probe["warnings"].as_array().expect("a list");
    warnings.iter().map(|warning| warning["code"].as_str().expect("a text")).collect()
}

/// The target of this kind.
fn target<'a>(probe: &'a Value, kind: &str) -> &'a Value {
    let targets = probe["targets"].as_array().expect("a list");
    targets.iter().find(|target| target["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {probe:#}"))
}

/// Answers `health` with `ok` and every other method as a gateway might.
fn fake(ok: bool) -> Fake {
    Fake::new(move |method, _| match method {
        "health" => Answer::Result(json!({ "ok": ok, "ts": 1 })),
        "connect" => Answer::Result(json!({
            "server": { "version": "0.1.0", "connId": "c" },
            "auth": { "method": "token", "role": "operator", "scopes": ["operator.read", "operator.write"] },
            "policy": { "maxPayload": 1, "maxBufferedBytes": 1, "tickIntervalMs": 1 },
        })),
        "system-presence" => Answer::Result(json!([])),
        "gateway.identity.get" => Answer::Result(json!({ "deviceId": "d", "publicKey": "k" })),
        _ => Answer::Result(json!({})),
    })
}

#[test]
fn the_running_gateway_is_found_and_every_recorded_field_is_there() {
    let home = Home::new();
    let gateway = Gateway::start(&home);
    let probe = home.run(["gateway", "probe", "--token", TOKEN, "--json"]).json(0);
    assert_has(&probe, PROBE_PATHS);
    assert_eq!(
        (&probe["ok"], &probe["degraded"], &probe["gateways"]),
        (&json!(true), &json!(false), &json!(1))
    );
    assert_eq!((&probe["capability"], codes(&probe)), (&json!("admin_capable"), vec![]));
    assert_eq!(probe["primaryTargetId"], "localLoopback");
    let local = target(&probe, "localLoopback");
    assert_eq!(local["url"], gateway.url());
    for fact in ["reachable", "authenticated", "authorised"] {
        assert_eq!(local[fact], true, "{fact}");
    }
    assert_eq!(local["identity"].as_str().map(str::len), Some(64));
    assert!(local["connect"]["latencyMs"].is_f64() && local["connect"]["callMs"].is_f64());
    assert_eq!(
        (&local["health"]["ok"], &local["summary"]["runtimeVersion"]),
        (&json!(true), &local["server"]["version"])
    );

    let status = home.run(["gateway", "status", "--token", TOKEN, "--json"]).json(0);
    assert_has(&status, STATUS_PATHS);
    assert_eq!((&status["rpc"]["ok"], &status["rpc"]["kind"]), (&json!(true), &json!("connect")));
    assert_eq!((&status["port"]["port"], &status["port"]["status"]), (&json!(gateway.port), &json!("busy")));
    assert_eq!(status["port"]["listeners"][0]["pid"], gateway.pid());
    assert!(!status.to_string().contains(&format!("--token {TOKEN}")), "no secret is shown: {status:#}");
    assert!(!home.path().join(".openclaw/gateway/device").exists(), "no device is made");
}

#[test]
fn the_words_say_what_works_and_what_to_do() {
    let home = Home::new();
    let _gateway = Gateway::start(&home);
    let words = home.run(["gateway", "probe", "--token", TOKEN]);
    for part in
        ["OK: the gateway answers", "Local loopback  ws://127.0.0.1:", "everything (role operator)", "Health"]
    {
        assert!(words.ok().contains(part), "{words:?}");
    }
    let words = home.run(["gateway", "status", "--token", TOKEN]);
    for part in ["Gateway Status\nOK: the gateway answers", "Service", "Config", "(running gateway)"] {
        assert!(words.ok().contains(part), "{words:?}");
    }
    let refused = home.run(["gateway", "status", "--token", "wrong"]);
    assert!(refused.ok().contains("REFUSED") && refused.stdout.contains("`--token`"), "{refused:?}");

    let nobody = Home::new();
    let words = nobody.run(["gateway", "probe", "--port", CLOSED]);
    assert_eq!(words.code, Some(3), "{words:?}");
    assert!(
        words.stdout.contains("UNREACHABLE") && words.stdout.contains("`openclaw gateway run`"),
        "{words:?}"
    );
    let words = nobody.run(["gateway", "status", "--port", CLOSED]);
    assert!(words.ok().contains("1 is free: nobody listens there"), "{words:?}");
    assert!(!nobody.path().join(".openclaw").exists(), "nothing is written");
}

/// How `health`, `probe` and `status --require-rpc` end, and what `probe` and `status` say, of one gateway.
fn of_all(home: &Home, args: &[&str]) -> ([Option<i32>; 3], [Value; 2]) {
    let run = |command: &[&str]| home.run([&["gateway"], command, args, &["--json"]].concat());
    let (health, probe) = (run(&["health"]), run(&["probe", "--require-rpc"]));
    let status = run(&["status", "--require-rpc"]);
    let read = |outcome: &Outcome| serde_json::from_str(&outcome.stdout).expect("one document");
    ([health.code, probe.code, status.code], [read(&probe), read(&status)])
}

#[test]
fn health_probe_and_status_agree() {
    let home = Home::new();
    let gateway = Gateway::start(&home);
    let url = gateway.url();
    let bad = fake(false);
    let not_http = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let silent = format!("ws://{}", not_http.local_addr().expect("it is bound"));
    for (args, exits, ok, reached) in [
        (vec!["--url", &url, "--token", TOKEN], [0, 0, 0], true, true),
        (vec!["--url", &url, "--token", "wrong"], [4, 4, 4], false, true),
        (vec!["--url", &bad.url, "--token", TOKEN], [7, 7, 7], true, true),
        (vec!["--url", "ws://127.0.0.1:1", "--token", TOKEN], [3, 3, 3], false, false),
        (vec!["--url", &silent, "--token", TOKEN, "--timeout", "400"], [5, 3, 3], false, false),
    ] {
        // The gateway on this machine is another one, and not there.
        let elsewhere = Home::new().with("OPENCLAW_GATEWAY_PORT", CLOSED);
        let (found, [probe, status]) = of_all(&elsewhere, &args);
        assert_eq!(found, exits.map(Some), "{args:?}: {probe:#} {status:#}");
        let target = target(&probe, "explicit");
        assert_eq!((&target["authenticated"], &status["rpc"]["ok"]), (&json!(ok), &json!(ok)), "{args:?}");
        assert_eq!(
            (&target["reachable"], &status["rpc"]["gatewayReached"]),
            (&json!(reached), &json!(reached)),
            "{args:?}"
        );
        assert_eq!(target["degraded"], status["rpc"]["degraded"], "{args:?}");
    }
}

#[test]
fn a_rejected_credential_is_told_apart_from_an_absence() {
    let home = Home::new();
    let _gateway = Gateway::start(&home);
    let probe = home.run(["gateway", "probe", "--token", "wrong", "--json"]).json(4);
    assert_eq!((&probe["ok"], codes(&probe)), (&json!(false), vec!["credential_rejected"]));
    let local = target(&probe, "localLoopback");
    assert_eq!((&local["reachable"], &local["authenticated"]), (&json!(true), &json!(false)));
    // Without any credential the gateway lets a caller connect, and refuses its calls.
    let none = home.run(["gateway", "probe", "--json"]).json(4);
    assert_eq!(codes(&none), ["credential_rejected"]);
    let probe = Home::new().run(["gateway", "probe", "--port", CLOSED, "--json"]).json(3);
    assert_eq!((&probe["exit"], codes(&probe)), (&json!("unreachable"), vec!["no_gateway_reachable"]));
}

#[test]
fn one_gateway_at_two_addresses_is_one_and_two_are_two() {
    let (home, other) = (Home::new(), Home::new());
    let gateway = Gateway::start(&home);
    let same = format!("ws://localhost:{}", gateway.port);
    let probe = home.run(["gateway", "probe", "--url", &same, "--token", TOKEN, "--json"]).json(0);
    assert_eq!((&probe["gateways"], codes(&probe)), (&json!(1), vec![]));
    assert_eq!(target(&probe, "explicit")["identity"], target(&probe, "localLoopback")["identity"]);

    let second = Gateway::start(&other);
    let probe = home.run(["gateway", "probe", "--url", &second.url(), "--token", TOKEN, "--json"]).json(0);
    assert_eq!((&probe["gateways"], codes(&probe)), (&json!(2), vec!["multiple_gateways"]));
    assert_eq!(probe["warnings"][0]["targetIds"], json!(["explicit", "localLoopback"]));

    // The same address is looked at once.
    let probe = home.run(["gateway", "probe", "--url", &gateway.url(), "--token", TOKEN, "--json"]).json(0);
    assert_eq!(probe["targets"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_configured_remote_is_looked_at_beside_this_machine() {
    let remote = fake(true);
    let home = Home::new();
    for (mode, active) in [("local", false), ("remote", true)] {
        let config = json!({ "gateway": {
            "mode": mode, "port": 1, "remote": { "url": remote.url, "token": TOKEN, "transport": "direct" },
        } });
        home.write(".openclaw/openclaw.json", &config.to_string());
        let probe = home.run(["gateway", "probe", "--json"]).json(0);
        assert_eq!(probe["primaryTargetId"], "configRemote");
        let found = target(&probe, "configRemote");
        assert_eq!((&found["active"], &found["authenticated"]), (&json!(active), &json!(true)));
        assert_eq!(probe["capability"], "write_capable");
        assert_eq!(target(&probe, "localLoopback")["reachable"], false);
    }
    // A port means this machine alone.
    let probe = home.run(["gateway", "probe", "--port", CLOSED, "--json"]).json(3);
    assert_eq!(probe["targets"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_is_wrong_with_the_configuration_is_told_and_does_not_stop_the_probe() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{ gateway: { port: , } }");
    let home = home.with("OPENCLAW_GATEWAY_PORT", CLOSED);
    let probe = home.run(["gateway", "probe", "--json"]).json(3);
    assert_eq!(codes(&probe), ["config_invalid", "no_gateway_reachable"]);
    let status = home.run(["gateway", "status", "--json"]).json(0);
    assert_eq!((&status["config"]["cli"]["valid"], &status["rpc"]["ok"]), (&json!(false), &json!(false)));

    home.write(".openclaw/openclaw.json", "{ gateway: { auth: { token: '${NOT_SET}' } } }");
    let probe = home.run(["gateway", "probe", "--json"]).json(3);
    assert_eq!(codes(&probe), ["no_gateway_reachable", "auth_secretref_unresolved"]);
}

#[test]
fn a_gateway_of_frames_that_grants_nothing_is_limited() {
    let stock = Stock::new(|method, _| match method {
        "connect" => vec![json!({ "ok": true, "payload": {
            "type": "hello-ok", "protocol": 4, "server": { "version": "2026.9.6", "connId": "c", "buildId": "b" },
            "auth": { "role": "operator", "scopes": [] }, "policy": { "tickIntervalMs": 30_000 },
        } })],
        "health" => vec![json!({ "ok": true, "payload": { "ok": true, "ts": 1 } })],
        _ => vec![json!({ "ok": false, "error": {
            "code": "FORBIDDEN", "message": "missing scope: operator.read", "retryable": false,
        } })],
    });
    let home = Home::new();
    let port = stock.port.to_string();
    let probe = home.run(["gateway", "probe", "--port", &port, "--token", "secret", "--json"]).json(0);
    assert_eq!((&probe["degraded"], codes(&probe)), (&json!(true), vec!["probe_scope_limited"]));
    assert_eq!(probe["capability"], "connected_no_operator_scope");
    let local = target(&probe, "localLoopback");
    assert_eq!((&local["connect"]["scopeLimited"], &local["authorised"]), (&json!(true), &json!(false)));
    assert_eq!((&local["server"]["buildId"], &local["server"]["version"]), (&json!("b"), &json!("2026.9.6")));
    assert_eq!(stock.connect()["scopes"], json!(["operator.read"]));
    let strict = home.run(["gateway", "probe", "--port", &port, "--token", "secret", "--require-rpc"]);
    assert_eq!(strict.code, Some(7), "{strict:?}");
}

#[test]
fn a_probe_shows_the_device_only_where_it_is_paired() {
    let stock = Stock::new(|method, params| match (method, &params["device"]) {
        ("connect", Value::Null) => vec![json!({ "ok": false, "error": {
            "code": "NOT_PAIRED", "message": "device identity required",
            "details": { "code": "DEVICE_IDENTITY_REQUIRED" },
        } })],
        ("connect", _) => vec![json!({ "ok": true, "payload": {
            "type": "hello-ok", "protocol": 4, "server": { "version": "2026.9.6", "connId": "c" },
            "auth": { "role": "operator", "scopes": ["operator.read"], "deviceToken": "given" },
            "policy": { "tickIntervalMs": 30_000 },
        } })],
        ("system-presence", _) => vec![json!({ "ok": true, "payload": [] })],
        _ => vec![json!({ "ok": true, "payload": { "ok": true, "ts": 1 } })],
    });
    let home = Home::new();
    let port = stock.port.to_string();
    let probe = home.run(["gateway", "probe", "--port", &port, "--json"]).json(4);
    assert_eq!((codes(&probe), &probe["capability"]), (vec!["pairing_pending"], &json!("pairing_pending")));
    assert!(!home.path().join(".openclaw").exists(), "no device is made");
    // Any other command makes one, and is paired.
    home.run(["gateway", "call", "health", "--port", &port]).ok();
    let probe = home.run(["gateway", "probe", "--port", &port, "--json"]).json(0);
    assert_eq!((codes(&probe), &probe["capability"]), (vec![], &json!("read_only")));
    assert_eq!(stock.connect()["auth"]["token"], "given");
}

#[test]
fn a_certificate_is_trusted_by_record_flag_or_configuration_alone() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'local', tls: { enabled: true } } }");
    let gateway = Gateway::start(&home);
    let probe = home.run(["gateway", "probe", "--token", TOKEN, "--json"]).json(0);
    assert_eq!(target(&probe, "localLoopback")["url"], format!("wss://127.0.0.1:{}", gateway.port));

    let record =
        std::fs::read(home.path().join(".openclaw/gateway/runtime.json")).expect("there is a record");
    let record: Value = serde_json::from_slice(&record).expect("the record is JSON");
    let fingerprint = record["tlsFingerprint"].as_str().expect("the record names the certificate");
    let url = format!("wss://127.0.0.1:{}", gateway.port);
    let elsewhere = Home::new().with("OPENCLAW_GATEWAY_PORT", CLOSED);
    let probe = elsewhere.run(["gateway", "probe", "--url", &url, "--token", TOKEN, "--json"]).json(4);
    assert_eq!(codes(&probe), ["no_gateway_reachable", "certificate_untrusted"]);
    let pinned =
        ["gateway", "probe", "--url", &url, "--token", TOKEN, "--tls-fingerprint", fingerprint, "--json"];
    assert_eq!(elsewhere.run(pinned).json(0)["primaryTargetId"], "explicit");
    let config =
        json!({ "gateway": { "remote": { "url": url, "token": TOKEN, "tlsFingerprint": fingerprint } } });
    elsewhere.write(".openclaw/openclaw.json", &config.to_string());
    assert_eq!(elsewhere.run(["gateway", "probe", "--json"]).json(0)["primaryTargetId"], "configRemote");
}

#[test]
fn a_program_that_is_no_gateway_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let status = Home::new().run(["gateway", "status", "--port", &port, "--timeout", "300"]);
    let this = format!("has pid {}", std::process::id());
    assert!(status.ok().contains(&this) && status.stdout.contains("stop that program"), "{status:?}");
}

#[test]
fn where_no_gateway_announces_itself_there_is_no_host_for_ssh() {
    // A domain that no name server has, and no network to ask: the deny list takes in every interface.
    let home = Home::new().with("OPENCLAW_GATEWAY_PORT", CLOSED);
    home.write(".openclaw/openclaw.json", "{ discovery: { mdns: { interfaces: { deny: ['*'] } } } }");
    let probe = home.run(["gateway", "probe", "--ssh-auto", "--json"]).json(3);
    assert_eq!(codes(&probe), ["no_gateway_reachable", "ssh_tunnel_failed"]);
    assert_eq!(probe["discovery"]["count"], 0);
    home.run(["gateway", "probe", "--ssh-auto", "--ssh", "ada@host", "--json"]).json(2);
}

#[test]
fn status_without_a_probe_calls_nobody() {
    let fake = fake(true);
    let args = ["gateway", "status", "--no-probe", "--url", &fake.url, "--token", TOKEN, "--json"];
    let status = Home::new().run(args).json(0);
    assert_eq!((&status["rpc"], fake.calls().len()), (&Value::Null, 0));
    Home::new().run(["gateway", "status", "--no-probe", "--require-rpc", "--json"]).json(2);
}
