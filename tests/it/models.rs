//! Back ends against a model server that speaks real server-sent events, well and badly, and against real processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use openclaw_gateway::{
    backend::{
        Backend, BackendAnswer, BackendError, BackendErrorKind, BackendRequest, Meter, TextSink, Turn,
        TurnAuthor,
        router::Router,
        settings::{
            Api, CliInput, CliOutput, CliSettings, Deadlines, Effort, ModelChoice, ModelEntry, ModelRow,
            ModelSettings, Prices, ProviderSettings, Retry,
        },
    },
    settings::Agent,
};
use openclaw_schema::methods::{
    agent::AgentMethod,
    models::{ModelsMethod, ModelsView, ThinkingLevel},
    sessions::SessionsMethod,
};
use openclaw_tests::{
    harness::{TestGateway, soon},
    model_server::{HELLO, MANY_LANGUAGES, ModelServer},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A key in the shape of none that masks know.
const KEY: &str = "hush-hush-4711";

fn provider(api: Api, url: String) -> ProviderSettings {
    ProviderSettings {
        key: Some(KEY.into()),
        deadlines: Deadlines {
            connect: Duration::from_secs(5),
            idle: Duration::from_millis(400),
            total: Duration::from_secs(20),
        },
        retry: Retry { times: 2, pause: Duration::from_millis(1), max_pause: Duration::from_secs(1) },
        ..ProviderSettings::new(api, url)
    }
}

/// The providers `o` and `a` speak to `server` as OpenAI and as Anthropic.
fn both(server: &ModelServer) -> ModelSettings {
    let providers = [
        ("o".to_owned(), provider(Api::OpenAiCompletions, server.openai_url())),
        ("a".to_owned(), provider(Api::AnthropicMessages, server.anthropic_url())),
    ];
    ModelSettings { providers: providers.into(), ..ModelSettings::default() }
}

fn router(settings: ModelSettings) -> Router {
    Router::new(settings, Duration::ZERO)
}

fn request(router: &Router, model: &str, workspace: &Path) -> BackendRequest {
    BackendRequest {
        run_id: "k1".to_owned(),
        session_key: "agent:main:main".to_owned(),
        agent: Agent { id: "main".to_owned(), name: None, workspace: workspace.to_owned(), model: None },
        model: router.find(model).expect("the model is known"),
        history: Vec::new(),
        message: "How are you?".to_owned(),
        extra_system_prompt: None,
        thinking: None,
        fast_mode: None,
        meter: Meter::default(),
        cancel: Default::default(),
    }
}

/// A sink, and what comes there.
fn collector() -> (TextSink, Arc<Mutex<String>>) {
    let text = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&text);
    (TextSink::new(move |piece| kept.lock().expect("no push panics").push_str(piece)), text)
}

async fn run(router: &Router, request: BackendRequest) -> (Result<BackendAnswer, BackendError>, String) {
    let (sink, text) = collector();
    let answer = soon(router.run(request, sink)).await;
    let text = text.lock().expect("no push panics").clone();
    (answer, text)
}

async fn ask(router: &Router, model: &str) -> (Result<BackendAnswer, BackendError>, String) {
    run(router, request(router, model, Path::new(""))).await
}

/// Waits until something holds.
async fn until(what: impl Fn() -> bool) {
    soon(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn both_apis_stream_text_and_count_tokens_and_cost() {
    let server = ModelServer::start().await;
    let mut settings = both(&server);
    let prices = Prices { input: 1.0, output: 10.0, cache_read: 0.5, cache_write: 2.0 };
    for provider in settings.providers.values_mut() {
        provider.models =
            vec![ModelRow { id: "hello".to_owned(), prices: Some(prices), ..ModelRow::default() }];
    }
    let router = router(settings);
    for model in ["o/hello", "a/hello"] {
        let (answer, text) = ask(&router, model).await;
        let answer = answer.expect("it answers");
        assert_eq!(text, HELLO.concat(), "{model}");
        let usage = answer.usage;
        assert_eq!((usage.input, usage.output, usage.cache_read, usage.total), (11, 5, 4, 20), "{model}");
        let cost = answer.cost_usd.expect("there are prices");
        assert!((cost - 63e-6).abs() < 1e-12, "{model}: {cost}");
        assert_eq!((answer.stop_reason.as_str(), answer.model), ("stop", None), "{model}");
    }
    let requests = server.requests();
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(requests[1].headers["x-api-key"], KEY);
    assert!(!requests[1].headers.contains_key("authorization"));
    assert_eq!(requests[1].headers["anthropic-version"], "2023-06-01");
}

#[tokio::test]
async fn a_model_is_told_what_was_said_before_and_the_system_prompt() {
    let server = ModelServer::start().await;
    let router = router(both(&server));
    for (model, expected) in [
        (
            "o/echo",
            json!({ "system": null, "messages": [
                { "role": "system", "content": "Be kind." }, { "role": "user", "content": "Hi" },
                { "role": "assistant", "content": "Ho" }, { "role": "user", "content": "How are you?" },
            ] }),
        ),
        (
            "a/echo",
            json!({ "system": "Be kind.", "messages": [
                { "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Ho" },
                { "role": "user", "content": "How are you?" },
            ] }),
        ),
    ] {
        let turn = |author, text: &str| Turn { author, text: text.to_owned() };
        let request = BackendRequest {
            history: vec![turn(TurnAuthor::User, "Hi"), turn(TurnAuthor::Assistant, "Ho")],
            extra_system_prompt: Some("Be kind.".to_owned()),
            ..request(&router, model, Path::new(""))
        };
        let (answer, text) = run(&router, request).await;
        answer.expect("it answers");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("it repeats JSON"), expected, "{model}");
    }
}

#[tokio::test]
async fn a_stream_may_be_cut_anywhere() {
    let server = ModelServer::start().await;
    let router = router(both(&server));
    for api in ["o", "a"] {
        for (model, expected) in [("bytes", MANY_LANGUAGES), ("crlf", "Hello"), ("no-usage", "Hello")] {
            let (answer, text) = ask(&router, &format!("{api}/{model}")).await;
            assert_eq!(answer.map(|answer| answer.stop_reason), Ok("stop".to_owned()), "{api}/{model}");
            assert_eq!(text, expected, "{api}/{model}");
        }
    }
}

#[tokio::test]
async fn a_failure_has_a_kind_and_a_sentence_and_is_repeated_only_before_the_first_word() {
    use BackendErrorKind::{Auth, ContextLength, RateLimit, Refusal, Timeout, Unknown};

    // The model, the kind, the text up to there, how many requests are made.
    let cases = [
        ("status-401", Auth, "", 1),
        ("status-403", Auth, "", 1),
        ("status-400", Unknown, "", 1),
        ("status-404", Unknown, "", 1),
        ("status-429", RateLimit, "", 3),
        ("status-500", Unknown, "", 3),
        ("status-529", Unknown, "", 3),
        ("status-302", Unknown, "", 1),
        ("too-long", ContextLength, "", 1),
        ("refuse", Refusal, "", 1),
        ("garbage", Unknown, "", 1),
        ("garbage-events", Unknown, "", 1),
        ("cut-first", Unknown, "", 3),
        ("cut-midway", Unknown, "Hello", 1),
        ("fail-midway", Unknown, "Hello", 1),
        ("hang-first", Timeout, "", 1),
        ("hang-midway", Timeout, "Hello", 1),
        ("limited-1-3600", RateLimit, "", 1),
    ];
    for api in ["o", "a"] {
        let server = ModelServer::start().await;
        let router = router(both(&server));
        for (model, kind, text, requests) in cases {
            let before = server.requests().len();
            let (answer, told) = ask(&router, &format!("{api}/{model}")).await;
            let error = answer.expect_err("it fails");
            assert_eq!((error.kind, told.as_str()), (kind, text), "{api}/{model}: {error}");
            assert_eq!(server.requests().len() - before, requests, "{api}/{model}: {error}");
            let message = error.message;
            assert!(
                message.contains(&format!("`{api}`")) || message.contains(&format!("`{api}/")),
                "{message}"
            );
            assert!(!message.contains("hush") && !message.contains("your words"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_wants_a_pause_gets_it() {
    let server = ModelServer::start().await;
    let router = router(both(&server));
    for model in ["o/limited-2-0", "a/limited-1-1", "o/dated-2"] {
        let (answer, text) = ask(&router, model).await;
        answer.expect("the last repeat succeeds");
        assert_eq!(text, HELLO.concat(), "{model}");
    }
    let (answer, _) = ask(&router, "o/limited-1-90").await;
    let message = answer.expect_err("it asks for more than is waited").message;
    assert!(message.contains("try again in 90 s"), "{message}");
}

#[tokio::test]
async fn an_answer_without_an_end_meets_the_total_deadline() {
    let server = ModelServer::start().await;
    let mut settings = both(&server);
    for provider in settings.providers.values_mut() {
        provider.deadlines.total = Duration::from_millis(300);
    }
    let router = router(settings);
    for api in ["o", "a"] {
        let (answer, text) = ask(&router, &format!("{api}/count-100000-5")).await;
        assert_eq!(answer.expect_err("it takes too long").kind, BackendErrorKind::Timeout);
        assert!(!text.is_empty(), "what came before stays");
    }
}

#[tokio::test]
async fn a_cancelled_answer_ends_at_once_and_so_does_its_connection() {
    let server = ModelServer::start().await;
    let mut settings = both(&server);
    for provider in settings.providers.values_mut() {
        provider.deadlines.idle = Duration::from_secs(3600);
    }
    let router = router(settings);
    for model in ["o/hang-first", "o/hang-midway", "a/count-100000-5"] {
        let request = request(&router, model, Path::new(""));
        let (cancel, before) = (request.cancel.clone(), server.requests().len());
        let (sink, _) = collector();
        let answer = tokio::spawn(router.run(request, sink));
        until(|| server.requests().len() > before).await;
        cancel.cancel();
        soon(answer).await.expect("it does not panic").expect_err("nobody wants it");
        until(|| server.open_connections() == 0).await;
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_named_with_its_address() {
    let address = {
        let gone = ModelServer::start().await;
        gone.openai_url()
    };
    let settings = provider(Api::OpenAiCompletions, address.clone());
    let providers = [("gone".to_owned(), settings)].into();
    let router = router(ModelSettings { providers, ..ModelSettings::default() });
    let message = ask(&router, "gone/m").await.0.expect_err("nobody listens").message;
    assert!(message.contains("`gone`") && message.contains(&address), "{message}");
    assert!(message.contains("refused") && message.contains("models.providers.gone.baseUrl"), "{message}");
}

#[tokio::test]
async fn fallbacks_follow_in_their_order_and_only_before_the_first_word() {
    let server = ModelServer::start().await;
    let with = |primary: &str| ModelSettings {
        default: ModelChoice {
            primary: Some(primary.to_owned()),
            fallbacks: ["o/status-401", "nobody/x", "a/hello", "o/hello"].map(str::to_owned).to_vec(),
        },
        ..both(&server)
    };
    let answering = router(with("o/status-500"));
    let (answer, text) = ask(&answering, "o/status-500").await;
    let model = answer.expect("a fallback answers").model.expect("it is told which");
    assert_eq!((model.provider.as_str(), model.id.as_str()), ("a", "hello"));
    assert_eq!(text, HELLO.concat());

    let begun = router(with("o/cut-midway"));
    let (answer, text) = ask(&begun, "o/cut-midway").await;
    answer.expect_err("an answer that has begun is not given again");
    assert_eq!(text, "Hello");

    // Fallbacks belong to the agent's model, not to one that the caller names.
    let (answer, _) = ask(&begun, "o/status-500").await;
    answer.expect_err("it stands alone");

    let refusing = router(with("o/refuse"));
    let (answer, _) = ask(&refusing, "o/refuse").await;
    assert_eq!(answer.expect_err("a refusal is an answer").kind, BackendErrorKind::Refusal);
}

#[tokio::test]
async fn when_every_model_fails_each_reason_is_told() {
    let server = ModelServer::start().await;
    let default = ModelChoice {
        primary: Some("o/too-long".to_owned()),
        fallbacks: vec!["o/status-401".to_owned(), "nobody/x".to_owned()],
    };
    let router = router(ModelSettings { default, ..both(&server) });
    let error = ask(&router, "o/too-long").await.0.expect_err("all fail");
    assert_eq!(error.kind, BackendErrorKind::ContextLength);
    for part in ["context window", "`o/status-401`", "credential", "`nobody/x`"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[tokio::test]
async fn the_raw_stream_holds_every_event_and_no_key() {
    let server = ModelServer::start().await;
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("logs/raw.jsonl");
    let router = router(ModelSettings { raw_stream: Some(path.clone()), ..both(&server) });
    let (answer, _) = ask(&router, "o/hello").await;
    answer.expect("it answers");
    let (answer, _) = ask(&router, "o/status-401").await;
    answer.expect_err("it fails");
    let text = || fs::read_to_string(&path).unwrap_or_default();
    until(|| text().contains("your words")).await;
    let lines: Vec<Value> =
        text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let events = lines.iter().filter(|line| line["event"] == "event" && line["model"] == "o/hello").count();
    assert_eq!(events, HELLO.len() + 3, "the pieces, the reason, the usage, the last word");
    assert!(lines.iter().all(|line| line["runId"] == "k1" && line["ts"].is_u64()));
    assert!(!text().contains(KEY), "{}", text());
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_catalogue_tells_what_is_ready_and_learns_from_the_endpoints() {
    let server = ModelServer::start().await;
    let gone = ModelServer::start().await.openai_url();
    let mut settings = both(&server);
    let row = |id: &str| ModelRow { id: id.to_owned(), ..ModelRow::default() };
    settings.providers.get_mut("o").expect("it is there").models = vec![row("hello")];
    settings.providers.insert("gone".to_owned(), {
        let mut gone = provider(Api::OpenAiCompletions, gone);
        gone.models = vec![row("m")];
        gone
    });
    settings.providers.insert("broken".to_owned(), {
        let mut broken = provider(Api::OpenAiCompletions, server.openai_url());
        broken.models = vec![row("m")];
        broken.problem = Some("it has no key".to_owned());
        broken
    });
    settings.default.primary = Some("o/hello".to_owned());
    settings.entries.insert(
        "a/named".to_owned(),
        ModelEntry { alias: Some("short".to_owned()), ..ModelEntry::default() },
    );
    let router = router(settings);
    let names = |view| {
        let models = router.catalogue(view);
        let mut names: Vec<String> =
            models.into_iter().map(|model| format!("{}/{}", model.provider, model.id)).collect();
        names.sort();
        names
    };
    assert_eq!(names(ModelsView::Default), ["a/named", "gone/m", "o/hello"]);
    assert_eq!(names(ModelsView::ProviderConfig), ["broken/m", "gone/m", "o/hello"]);
    assert_eq!(names(ModelsView::Configured), ["a/named", "broken/m", "gone/m", "o/hello"]);
    assert_eq!(router.find("short").map(|model| model.id).as_deref(), Some("named"));
    assert_eq!(router.find("o/other"), None, "it declares what it has");
    assert_eq!(router.find("a/other").map(|model| model.id).as_deref(), Some("other"));
    let default =
        router.models().iter().find(|model| model.tags == ["default"]).map(|model| model.id.clone());
    assert_eq!(default.as_deref(), Some("hello"));
    let message = ask(&router, "broken/m").await.0.expect_err("it cannot be used").message;
    assert_eq!(message, "it has no key");

    soon(router.refresh()).await;
    assert_eq!(names(ModelsView::Default), ["a/echo", "a/hello", "a/named", "o/echo", "o/hello"]);
    let window = router.find("o/hello").and_then(|model| model.context_window);
    assert_eq!(window, Some(4096), "what the endpoint tells completes what is declared");
}

#[tokio::test]
async fn models_are_told_how_much_to_think() {
    let server = ModelServer::start().await;
    let mut settings = both(&server);
    let row = |id: &str, reasoning| ModelRow { id: id.to_owned(), reasoning, ..ModelRow::default() };
    let efforts = Some(["none", "low", "xhigh"].map(str::to_owned).to_vec());
    let known = ModelRow { efforts, ..row("hello", Some(true)) };
    settings.providers.get_mut("o").expect("it is there").models = vec![known, row("plain", Some(false))];
    let entry = ModelEntry {
        effort: Effort { thinking: Some(ThinkingLevel::High), fast_mode: None },
        params: [("temperature".to_owned(), json!(0.5))].into_iter().collect(),
        ..ModelEntry::default()
    };
    settings.entries.insert("a/claude-sonnet-4-5".to_owned(), entry);
    let router = router(settings);
    let sent = async |model: &str, thinking| {
        let request = BackendRequest { thinking, ..request(&router, model, Path::new("")) };
        // Some of them are no models of the server; what they are asked is seen all the same.
        let _ = run(&router, request).await;
        server.requests().pop().expect("there was a request").body
    };
    for (thinking, effort) in [
        (None, json!(null)),
        (Some(ThinkingLevel::Low), json!("low")),
        (Some(ThinkingLevel::High), json!("low")),
        (Some(ThinkingLevel::Max), json!("xhigh")),
        (Some(ThinkingLevel::Off), json!("none")),
    ] {
        assert_eq!(sent("o/hello", thinking).await["reasoning_effort"], effort, "{thinking:?}");
    }
    assert_eq!(sent("o/plain", Some(ThinkingLevel::High)).await["reasoning_effort"], json!(null));
    let body = sent("a/claude-opus-5", Some(ThinkingLevel::Xhigh)).await;
    assert_eq!(
        (&body["thinking"]["type"], &body["output_config"]["effort"]),
        (&json!("adaptive"), &json!("xhigh"))
    );
    // The entry of the model holds where nobody is nearer.
    let body = sent("a/claude-sonnet-4-5", None).await;
    assert_eq!(body["thinking"], json!({ "type": "enabled", "budget_tokens": 16_384 }));
    assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(24_576), &json!(null)));
    let body = sent("a/claude-sonnet-4-5", Some(ThinkingLevel::Off)).await;
    assert_eq!((&body["thinking"]["type"], &body["temperature"]), (&json!("disabled"), &json!(0.5)));
    let listed = router.catalogue(ModelsView::All);
    let hello = listed.iter().find(|model| model.id == "hello").expect("it is listed");
    let levels: Vec<&str> = hello.thinking_levels.iter().map(|level| level.label.as_str()).collect();
    assert_eq!((levels, hello.reasoning), (vec!["off", "low", "xhigh"], true));
}

#[tokio::test]
async fn what_a_model_thinks_aloud_is_no_part_of_its_answer() {
    let server = ModelServer::start().await;
    let router = router(both(&server));
    for model in ["o/thinks", "a/thinks", "o/thinks-aloud"] {
        let (answer, text) = ask(&router, model).await;
        answer.expect("it answers");
        assert_eq!(text, HELLO.concat(), "{model}");
    }
}

#[tokio::test]
async fn what_is_counted_of_an_answer_that_breaks_off_is_known() {
    let server = ModelServer::start().await;
    let router = router(both(&server));
    let request = request(&router, "a/fail-midway", Path::new(""));
    let meter = request.meter.clone();
    run(&router, request).await.0.expect_err("it breaks off");
    let so_far = meter.so_far().expect("the provider has counted what it read");
    assert_eq!((so_far.usage.input, so_far.usage.cache_read), (11, 4));
    assert_eq!(so_far.model.map(|model| model.id).as_deref(), Some("fail-midway"));
}

#[tokio::test]
async fn a_level_that_a_model_lacks_is_refused_and_named_ones_reach_it() {
    let server = ModelServer::start().await;
    let mut models = both(&server);
    let row = |id: &str, reasoning| ModelRow { id: id.to_owned(), reasoning, ..ModelRow::default() };
    models.providers.get_mut("o").expect("it is there").models =
        vec![row("hello", Some(false)), row("echo", Some(true))];
    models.default.primary = Some("o/hello".to_owned());
    let gateway = TestGateway::start_with(|settings| settings.models = models, |builder| builder).await;
    let refused = |key: &str, thinking: &str| {
        let params =
            json!({ "message": "hi", "idempotencyKey": key, "sessionKey": "main", "thinking": thinking });
        gateway.call(AgentMethod::Agent.name(), params)
    };
    let answer = refused("k1", "high").await;
    assert_eq!(answer["error"]["data"]["path"], "/thinking", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("`o/hello` has no level `high`; it has off"), "{answer}");
    let answer = refused("k1", "hard").await;
    assert!(
        answer["error"]["message"].as_str().is_some_and(|text| text.contains("minimal, low")),
        "{answer}"
    );

    let patch = |params| gateway.call(SessionsMethod::SessionsPatch.name(), params);
    let answer = patch(json!({ "key": "main", "thinkingLevel": "low" })).await;
    assert_eq!(answer["error"]["data"]["path"], "/thinkingLevel", "{answer}");
    let answer = patch(json!({ "key": "main", "model": "o/echo", "thinkingLevel": "LOW" })).await;
    assert_eq!(answer["result"]["entry"]["thinkingLevel"], "low", "{answer}");
    for (key, thinking, effort) in [("k2", "", "low"), ("k3", "high", "high")] {
        let ack = refused(key, thinking).await;
        assert_eq!(ack["result"]["status"], "accepted", "{ack}");
        let wait = json!({ "runId": key, "timeoutMs": 20_000 });
        gateway.call(AgentMethod::AgentWait.name(), wait).await;
        let body = server.requests().pop().expect("there was a request").body;
        assert_eq!(body["reasoning_effort"], effort, "{key}");
    }
    gateway.shutdown().await;
}

#[tokio::test]
async fn without_models_the_echo_answers() {
    let router = router(ModelSettings::default());
    let listed = router.catalogue(ModelsView::Default);
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].provider.as_str(), &listed[0].tags[..]), ("echo", &["default".to_owned()][..]));
    let (answer, text) = ask(&router, "echo/echo-1").await;
    answer.expect("it answers");
    assert_eq!(text, "You said: How are you?");
}

#[tokio::test]
async fn a_run_of_a_gateway_is_answered_by_a_model() {
    let server = ModelServer::start().await;
    let mut models = both(&server);
    models.default.primary = Some("o/hello".to_owned());
    let gateway = TestGateway::start_with(|settings| settings.models = models, |builder| builder).await;
    for (key, model, expected) in [("k1", None, "ok"), ("k2", Some("a/status-401"), "error")] {
        let mut params = json!({ "message": "hi", "idempotencyKey": key });
        if let Some(model) = model {
            params["model"] = json!(model);
        }
        let ack = gateway.call(AgentMethod::Agent.name(), params).await;
        assert_eq!(ack["result"]["status"], "accepted", "{ack}");
        let waited =
            gateway.call(AgentMethod::AgentWait.name(), json!({ "runId": key, "timeoutMs": 20_000 })).await;
        assert_eq!(waited["result"]["status"], expected, "{waited}");
        let outcome = &waited["result"]["final"];
        if expected == "ok" {
            assert_eq!(outcome["result"]["payloads"][0]["text"], HELLO.concat(), "{waited}");
            let meta = &outcome["result"]["meta"]["agentMeta"];
            assert_eq!((&meta["provider"], &meta["usage"]["total"]), (&json!("o"), &json!(20)), "{waited}");
        } else {
            assert!(
                waited.to_string().contains("credential") && !waited.to_string().contains(KEY),
                "{waited}"
            );
        }
    }
    let unknown = gateway
        .call(
            AgentMethod::Agent.name(),
            json!({ "message": "hi", "idempotencyKey": "k3", "model": "nobody/x" }),
        )
        .await;
    assert!(unknown["error"]["message"].as_str().is_some_and(|text| text.contains("nobody/x")), "{unknown}");
    let refreshed =
        gateway.call(ModelsMethod::ModelsList.name(), json!({ "refresh": true, "view": "all" })).await;
    let models = refreshed["result"]["models"].as_array().map_or(0, Vec::len);
    assert_eq!(models, 5, "{refreshed}");
    let both =
        gateway.call(ModelsMethod::ModelsList.name(), json!({ "refresh": true, "preparedOnly": true })).await;
    assert_eq!(both["error"]["data"]["path"], "/preparedOnly", "{both}");
    gateway.shutdown().await;
}

/// A program that is run as a command-line back end, in a directory of its own.
struct Program {
    directory: TempDir,
    settings: CliSettings,
}

impl Program {
    /// A shell script. It writes its process id to the file `pid` first.
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("program");
        let pid = directory.path().join("pid");
        let text = format!("#!/bin/sh\necho $$ > {}\n{script}\n", pid.display());
        fs::write(&path, text).expect("the script can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        // `sh` is named, as a file that was just written may still be busy in a process forked meanwhile.
        let settings = CliSettings {
            args: vec![path.display().to_string()],
            silence: Duration::from_secs(10),
            ..CliSettings::new("/bin/sh")
        };
        Self { directory, settings }
    }

    fn with(mut self, change: impl FnOnce(&mut CliSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    fn router(&self) -> Router {
        let clis = [("prog".to_owned(), self.settings.clone())].into();
        router(ModelSettings { clis, ..ModelSettings::default() })
    }

    fn request(&self, router: &Router) -> BackendRequest {
        request(router, "prog/m-1", &self.file("workspace"))
    }

    async fn ask(&self) -> (Result<BackendAnswer, BackendError>, String) {
        let router = self.router();
        run(&router, self.request(&router)).await
    }

    /// Whether the process whose id is in the file `name` is gone: neither running nor a zombie.
    fn is_gone(&self, name: &str) -> bool {
        let pid = self.read(name);
        !pid.trim().is_empty() && !Path::new("/proc").join(pid.trim()).exists()
    }
}

/// A script's line that writes a JSON line.
fn says(line: &Value) -> String {
    format!("echo '{line}'\n")
}

fn streamed() -> String {
    let piece = |text: &str| {
        says(&json!({ "type": "stream_event", "event": {
            "type": "content_block_delta", "delta": { "type": "text_delta", "text": text } } }))
    };
    let message = json!({ "content": [{ "type": "text", "text": "Hello you" }] });
    says(&json!({ "type": "system", "subtype": "init" }))
        + &piece("Hello ")
        + &piece("you")
        + &says(&json!({ "type": "assistant", "message": message }))
        + &says(&json!({
            "type": "result", "subtype": "success", "is_error": false, "result": "Hello you",
            "total_cost_usd": 0.25, "usage": { "input_tokens": 3, "output_tokens": 2 },
        }))
}

#[tokio::test]
async fn a_program_gets_the_message_and_streams_its_answer() {
    let script =
        "cat > input\nprintf '%s\\n' \"$@\" > args\nenv > env\npwd > where\n".to_owned() + &streamed();
    let program = Program::new(&script).with(|settings| {
        settings.output = CliOutput::JsonLines;
        settings.model_arg = Some("--model".to_owned());
        settings.model_aliases = [("m-1".to_owned(), "short".to_owned())].into();
        settings.system_prompt_arg = Some("--system".to_owned());
        settings.env = vec![("SECRET".to_owned(), KEY.into())];
        settings.clear_env = vec!["PATH_TO_NOTHING".to_owned()];
        settings.thinking_args = ["--effort", "{level}"].map(str::to_owned).to_vec();
    });
    let router = program.router();
    let mut request = program.request(&router);
    request.history = vec![Turn { author: TurnAuthor::Assistant, text: "Earlier".to_owned() }];
    request.extra_system_prompt = Some("Be kind.".to_owned());
    request.thinking = Some(ThinkingLevel::High);
    let (answer, text) = run(&router, request).await;
    let answer = answer.expect("it answers");
    assert_eq!(text, "Hello you");
    assert_eq!((answer.usage.total, answer.cost_usd), (5, Some(0.25)));
    let read = |name: &str| program.read(&format!("workspace/{name}"));
    assert!(read("input").contains("Assistant: Earlier") && read("input").ends_with("How are you?"));
    assert_eq!(read("args"), "--effort\nhigh\n--model\nshort\n--system\nBe kind.\n");
    assert!(read("env").contains(&format!("SECRET={KEY}")));
    assert!(read("where").trim().ends_with("/workspace"));
    assert!(program.is_gone("pid"));
}

#[tokio::test]
async fn a_program_may_write_plain_text_or_one_document() {
    let plain = Program::new("printf 'Gr\\303'; sleep 0.05; printf '\\274\\303\\237e'")
        .with(|settings| settings.input = CliInput::Argument);
    let (answer, text) = plain.ask().await;
    answer.expect("it answers");
    assert_eq!(text, "Grüße");
    let document = Program::new("echo '{ \"result\":'; echo '\"Hello\", \"total_cost_usd\": 1 }'")
        .with(|settings| settings.output = CliOutput::Json);
    let (answer, text) = document.ask().await;
    assert_eq!(answer.expect("it answers").cost_usd, Some(1.0));
    assert_eq!(text, "Hello");
}

#[tokio::test]
async fn a_program_that_fails_says_why() {
    let cases = [
        ("echo first >&2; echo 'disk full' >&2; exit 3", "exit code 3 and said: disk full"),
        ("echo \"my key is $SECRET\" >&2; exit 1", "my key is ***"),
        ("kill -9 $$", "ended by a signal"),
        ("exit 0", "without an answer"),
    ];
    for (script, part) in cases {
        let program =
            Program::new(script).with(|settings| settings.env = vec![("SECRET".to_owned(), KEY.into())]);
        let message = program.ask().await.0.expect_err("it fails").message;
        assert!(message.contains(part) && message.contains("`prog`"), "{message}");
        assert!(!message.contains(KEY), "{message}");
        assert!(program.is_gone("pid"));
    }
    let result =
        json!({ "type": "result", "is_error": true, "result": "Invalid API key · Please run /login" });
    let program = Program::new(&says(&result)).with(|settings| settings.output = CliOutput::JsonLines);
    let error = program.ask().await.0.expect_err("it says so");
    assert_eq!(error.kind, BackendErrorKind::Auth, "{error}");
    let missing = Program::new("").with(|settings| settings.command = "no-such-program".to_owned());
    let message = missing.ask().await.0.expect_err("it is not there").message;
    assert!(message.contains("agents.defaults.cliBackends.prog.command"), "{message}");
}

#[tokio::test]
async fn nothing_is_left_of_a_program_that_is_cancelled_or_dropped_or_silent() {
    // It waits for a child of its own; the second kind ignores the request to end, and so does its child.
    let waits = "sleep 1000 & echo $! > child\nwait";
    let stubborn = "trap '' TERM\nsleep 1000 & echo $! > child\nwhile true; do wait; done";
    for script in [waits, stubborn] {
        for how in ["cancel", "drop", "silence"] {
            let script = script.replace("> child", "> ../child");
            let program = Program::new(&script).with(|settings| {
                if how == "silence" {
                    settings.silence = Duration::from_millis(300);
                }
            });
            let router = program.router();
            let request = program.request(&router);
            let cancel = request.cancel.clone();
            let (sink, _) = collector();
            let answer = tokio::spawn(router.run(request, sink));
            until(|| !program.read("child").trim().is_empty()).await;
            match how {
                "cancel" => {
                    cancel.cancel();
                    soon(answer).await.expect("it does not panic").expect_err("nobody wants it");
                }
                "drop" => {
                    answer.abort();
                    soon(answer).await.expect_err("it was dropped");
                }
                _ => {
                    let error = soon(answer).await.expect("it does not panic").expect_err("it is silent");
                    assert_eq!(error.kind, BackendErrorKind::Timeout);
                }
            }
            until(|| program.is_gone("pid")).await;
            until(|| program.is_gone("child")).await;
        }
    }
}

#[tokio::test]
async fn a_program_whose_child_stays_has_answered_all_the_same() {
    let program = Program::new("sleep 1000 & echo $! > ../child\necho Hello");
    let (answer, text) = program.ask().await;
    answer.expect("it answers");
    assert_eq!(text, "Hello\n");
    until(|| program.is_gone("child")).await;
}
