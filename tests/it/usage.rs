//! What answers cost: in their outcomes, in conversations and sessions, and summed up over a restart.

use openclaw_gateway::{
    backend::settings::{Api, ModelChoice, ModelRow, ModelSettings, Prices, ProviderSettings},
    settings::Settings,
    state::StateDir,
};
use openclaw_schema::methods::{
    agent::AgentMethod, chat::ChatMethod, sessions::SessionsMethod, usage::UsageMethod,
};
use openclaw_tests::{harness::TestGateway, model_server::ModelServer};
use serde_json::{Value, json};

/// What `hello` costs: 11 tokens read, 5 written, 4 from the cache.
const HELLO_COST: f64 = 63e-6;

/// The provider `o` has prices and a model that fails before it says a word; `free` has the same model, without a price.
fn models(server: &ModelServer) -> ModelSettings {
    let prices = Prices { input: 1.0, output: 10.0, cache_read: 0.5, cache_write: 2.0 };
    let row = |id: &str, prices| ModelRow { id: id.to_owned(), prices, ..ModelRow::default() };
    let provider = |models| ProviderSettings {
        key: Some("hush".into()),
        models,
        ..ProviderSettings::new(Api::OpenAiCompletions, server.openai_url())
    };
    let priced = vec![
        row("status-401", Some(prices)),
        row("hello", Some(prices)),
        row("no-usage", Some(prices)),
        row("refuse", Some(prices)),
    ];
    ModelSettings {
        providers: [
            ("o".to_owned(), provider(priced)),
            ("free".to_owned(), provider(vec![row("hello", None)])),
        ]
        .into(),
        default: ModelChoice {
            primary: Some("o/status-401".to_owned()),
            fallbacks: vec!["o/hello".to_owned()],
        },
        ..ModelSettings::default()
    }
}

fn near(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() < 1e-12)
}

/// Has a message answered in the session `main`, by the default model or by another, and gives the outcome.
async fn ask(gateway: &TestGateway, key: &str, model: Option<&str>) -> Value {
    let mut params = json!({ "message": "hi", "idempotencyKey": key, "sessionKey": "main" });
    if let Some(model) = model {
        params["model"] = json!(model);
    }
    let ack = gateway.call(AgentMethod::Agent.name(), params).await;
    assert_eq!(ack["result"]["status"], "accepted", "{ack}");
    outcome(gateway, key).await
}

async fn outcome(gateway: &TestGateway, key: &str) -> Value {
    let wait = json!({ "runId": key, "timeoutMs": 20_000 });
    let waited = gateway.call(AgentMethod::AgentWait.name(), wait).await;
    waited["result"]["final"].clone()
}

async fn cost(gateway: &TestGateway, params: Value) -> Value {
    gateway.call(UsageMethod::UsageCost.name(), params).await["result"].clone()
}

#[tokio::test]
async fn the_model_that_answered_and_its_cost_are_told_stored_and_summed_up() {
    let server = ModelServer::start().await;
    let directory = tempfile::tempdir().expect("a directory can be made");
    let change = |settings: &mut Settings| {
        settings.state = StateDir::new(directory.path().join("state"));
        settings.models = models(&server);
    };
    let gateway = TestGateway::start_with(change, |builder| builder).await;
    let nothing = cost(&gateway, json!({})).await;
    assert_eq!(
        (&nothing["days"], &nothing["daily"], &nothing["totals"]["runs"]),
        (&json!(30), &json!([]), &json!(0))
    );

    let answered = ask(&gateway, "k1", None).await;
    let meta = &answered["result"]["meta"]["agentMeta"];
    assert_eq!((&meta["provider"], &meta["model"]), (&json!("o"), &json!("hello")), "{answered}");
    assert!(near(&meta["usage"]["cost"]["total"], HELLO_COST), "{answered}");
    let listed = gateway.call(SessionsMethod::SessionsList.name(), json!({})).await;
    let row = &listed["result"]["sessions"][0];
    assert_eq!((&row["modelProvider"], &row["model"]), (&json!("o"), &json!("hello")), "{listed}");
    assert!(near(&row["estimatedCostUsd"], HELLO_COST), "{listed}");

    let unpriced = ask(&gateway, "k2", Some("free/hello")).await;
    assert_eq!(unpriced["result"]["meta"]["agentMeta"]["usage"].get("cost"), None, "{unpriced}");
    // Prices of tokens that nobody counted are no cost.
    let uncounted = ask(&gateway, "k3", Some("o/no-usage")).await;
    assert_eq!(uncounted["result"]["meta"]["agentMeta"]["usage"].get("cost"), None, "{uncounted}");
    // It is to be paid for what was counted of a failure.
    let failed = ask(&gateway, "k4", Some("o/refuse")).await;
    assert_eq!(failed["status"], "error", "{failed}");
    gateway.shutdown().await;

    let gateway = TestGateway::start_with(change, |builder| builder).await;
    assert_eq!(outcome(&gateway, "k1").await, answered, "the stored outcome is the one that was told");
    let history = gateway.call(ChatMethod::ChatHistory.name(), json!({ "sessionKey": "main" })).await;
    let message = &history["result"]["messages"][1];
    assert_eq!((&message["provider"], &message["model"]), (&json!("o"), &json!("hello")), "{history}");
    assert!(near(&message["usage"]["cost"]["total"], HELLO_COST), "{history}");

    let usage = cost(&gateway, json!({ "days": 2, "agentId": "main" })).await;
    let names = ["runs", "input", "output", "cacheRead", "cacheWrite", "totalTokens", "missingCostEntries"];
    let counts = |sums: &Value| names.map(|name| sums[name].as_u64());
    let expected = [4, 33, 15, 12, 0, 60, 2].map(Some);
    assert_eq!(counts(&usage["totals"]), expected, "{usage}");
    assert!(near(&usage["totals"]["totalCost"], 2.0 * HELLO_COST), "{usage}");
    let of_days = usage["daily"].as_array().expect("there are days");
    let runs: u64 = of_days.iter().filter_map(|day| day["runs"].as_u64()).sum();
    assert_eq!((runs, &of_days[of_days.len() - 1]["date"]), (4, &usage["endDate"]), "{usage}");
    let rows = usage["models"].as_array().expect("there are models").iter();
    let of_models: Vec<_> = rows
        .map(|row| {
            let name =
                format!("{}/{}", row["provider"].as_str().unwrap_or(""), row["model"].as_str().unwrap_or(""));
            (name, row["missingCostEntries"].as_u64())
        })
        .collect();
    let expected = [("free/hello", 1), ("o/hello", 0), ("o/no-usage", 1), ("o/refuse", 0)];
    assert_eq!(of_models, expected.map(|(name, missing)| (name.to_owned(), Some(missing))), "{usage}");
    let before = cost(&gateway, json!({ "startDate": "2001-01-01", "endDate": "2001-12-31" })).await;
    assert_eq!((&before["days"], &before["daily"]), (&json!(365), &json!([])), "{before}");
    for (params, path) in [
        (json!({ "startDate": "2026-02-30" }), "/startDate"),
        (json!({ "agentScope": "all", "agentId": "main" }), "/agentScope"),
        (json!({ "agentId": "nobody" }), "/agentId"),
    ] {
        let refused = gateway.call(UsageMethod::UsageCost.name(), params).await;
        assert_eq!(refused["error"]["data"]["path"], path, "{refused}");
    }
    gateway.shutdown().await;
}
