//! The Rust client against the real gateway, over WebSocket and HTTP.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use jsonrpsee::core::client::Error as RpcError;
use openclaw_client::{
    AgentRequest, Backoff, Client, ConnectionState, Error, ErrorCode, Event, PauseReason, RunEvent,
    TimeoutKind, TransportKind, new_idempotency_key,
};
use openclaw_gateway::{backend::echo::EchoBackend, settings::Auth};
use openclaw_schema::{
    client::*,
    contract::Contract as _,
    events::{AgentStream, ChatState},
    methods::{
        agent::{
            AckStatus, AgentAbortParams, AgentContract, AgentMethod, AgentWaitParams, RunStatus, WaitStatus,
        },
        agents::AgentsMethod,
        chat::ChatMethod,
        config::ConfigMethod,
        connect::{ConnectMethod, ConnectParams},
        device::DeviceMethod,
        events::{EventsMethod, EventsSubscribeParams},
        gateway::{GatewayMethod, HealthParams, StatusParams},
        lifecycle::{
            LifecycleMethod, RestartRequestParams, SuspendPrepareParams, SuspendResumeParams,
            SuspendStatusParams,
        },
        logs::{LogsFollowParams, LogsMethod, LogsTailParams},
        models::{ModelsListParams, ModelsMethod},
        rpc::RpcMethod,
        sessions::{SessionsListParams, SessionsMethod},
        usage::{UsageCostParams, UsageMethod},
    },
    types::{Bounded, NoParams, Text},
};
use openclaw_tests::harness::{TOKEN, TestGateway, soon};
use serde_json::{json, value::to_raw_value};
use tokio::time::Instant;

use crate::embedding::{self, LabClient as _, LabMethod, RestParams};

/// The wire names of every method that the typed client has. [`call`] has an arm for each, so that this list cannot
/// name what cannot be called; a namespace that is missing here is missing in the contract's test.
pub(crate) fn typed_methods() -> BTreeSet<&'static str> {
    ALL.iter().copied().flat_map(Typed::names).collect()
}

/// A namespace of the typed client.
#[derive(Debug, Clone, Copy)]
enum Typed {
    Agent(&'static [AgentMethod]),
    Agents(&'static [AgentsMethod]),
    Chat(&'static [ChatMethod]),
    Config(&'static [ConfigMethod]),
    Connect(&'static [ConnectMethod]),
    Device(&'static [DeviceMethod]),
    Events(&'static [EventsMethod]),
    Gateway(&'static [GatewayMethod]),
    Lifecycle(&'static [LifecycleMethod]),
    Logs(&'static [LogsMethod]),
    Models(&'static [ModelsMethod]),
    Rpc(&'static [RpcMethod]),
    Sessions(&'static [SessionsMethod]),
    Usage(&'static [UsageMethod]),
}

const ALL: &[Typed] = &[
    Typed::Agent(AgentMethod::ALL),
    Typed::Agents(AgentsMethod::ALL),
    Typed::Chat(ChatMethod::ALL),
    Typed::Config(ConfigMethod::ALL),
    Typed::Connect(ConnectMethod::ALL),
    Typed::Device(DeviceMethod::ALL),
    Typed::Events(EventsMethod::ALL),
    Typed::Gateway(GatewayMethod::ALL),
    Typed::Lifecycle(LifecycleMethod::ALL),
    Typed::Logs(LogsMethod::ALL),
    Typed::Models(ModelsMethod::ALL),
    Typed::Rpc(RpcMethod::ALL),
    Typed::Sessions(SessionsMethod::ALL),
    Typed::Usage(UsageMethod::ALL),
];

impl Typed {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Agent(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Agents(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Chat(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Config(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Connect(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Device(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Events(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Gateway(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Lifecycle(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Logs(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Models(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Rpc(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Sessions(methods) => methods.iter().map(|method| method.name()).collect(),
            Self::Usage(methods) => methods.iter().map(|method| method.name()).collect(),
        }
    }

    /// Calls each method of the namespace. The matches have no wildcard: a new method does not compile until it is
    /// called here.
    async fn call(self, client: &Client) -> Vec<(&'static str, Result<(), RpcError>)> {
        let mut calls = Vec::new();
        match self {
            Self::Agent(methods) => {
                // A run of its own for each call.
                for method in methods {
                    let params = AgentRequest::new("hello").build().expect("the params are valid");
                    let run_id = params.idempotency_key.clone();
                    let started = client.agent(params).await.map(drop);
                    let called = match method {
                        AgentMethod::Agent => started,
                        AgentMethod::AgentWait => {
                            let timeout_ms = Some(Bounded::clamped(10_000));
                            client.agent_wait(AgentWaitParams { run_id, timeout_ms }).await.map(drop)
                        }
                        AgentMethod::AgentAbort => {
                            client.agent_abort(AgentAbortParams { run_id }).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Agents(methods) => {
                for method in methods {
                    let called = match method {
                        AgentsMethod::AgentsList => client.agents_list(NoParams {}).await.map(drop),
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Chat(methods) => {
                for method in methods {
                    let called = match method {
                        ChatMethod::ChatSend => {
                            let key = new_idempotency_key();
                            let params =
                                json!({ "sessionKey": "main", "message": "hello", "idempotencyKey": key });
                            client.chat_send(params_of(params)).await.map(drop)
                        }
                        ChatMethod::ChatAbort => {
                            client.chat_abort(params_of(json!({ "sessionKey": "main" }))).await.map(drop)
                        }
                        ChatMethod::ChatHistory => {
                            client.chat_history(params_of(json!({ "sessionKey": "main" }))).await.map(drop)
                        }
                        ChatMethod::ChatInject => {
                            let params = json!({ "sessionKey": "main", "message": "hello" });
                            client.chat_inject(params_of(params)).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Config(methods) => {
                for method in methods {
                    let called = match method {
                        ConfigMethod::ConfigGet => client.config_get(NoParams {}).await.map(drop),
                        ConfigMethod::ConfigSchema => client.config_schema(NoParams {}).await.map(drop),
                        ConfigMethod::ConfigSet => {
                            let params = json!({ "raw": "{gateway: {mode: 'local'}}" });
                            client.config_set(params_of(params)).await.map(drop)
                        }
                        ConfigMethod::ConfigPatch => {
                            let base = client.config_get(NoParams {}).await.map(|config| config.hash);
                            let params =
                                json!({ "raw": "{logging: {level: 'info'}}", "baseHash": base.ok() });
                            client.config_patch(params_of(params)).await.map(drop)
                        }
                        ConfigMethod::ConfigApply => {
                            let base = client.config_get(NoParams {}).await.map(|config| config.hash);
                            let params =
                                json!({ "raw": "{gateway: {mode: 'local'}}", "baseHash": base.ok() });
                            client.config_apply(params_of(params)).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Sessions(methods) => {
                for method in methods {
                    let main = json!({ "key": "main" });
                    let called = match method {
                        SessionsMethod::SessionsList => {
                            client.sessions_list(SessionsListParams::default()).await.map(drop)
                        }
                        SessionsMethod::SessionsResolve => {
                            client.sessions_resolve(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsGet => client.sessions_get(params_of(main)).await.map(drop),
                        SessionsMethod::SessionsAbort => {
                            client.sessions_abort(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsPreview => {
                            client.sessions_preview(params_of(json!({ "keys": ["main"] }))).await.map(drop)
                        }
                        SessionsMethod::SessionsDescribe => {
                            client.sessions_describe(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsCreate => {
                            client.sessions_create(params_of(json!({ "key": "other" }))).await.map(drop)
                        }
                        SessionsMethod::SessionsPatch => {
                            client.sessions_patch(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsReset => {
                            client.sessions_reset(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsDelete => {
                            client.sessions_delete(params_of(json!({ "key": "other" }))).await.map(drop)
                        }
                        SessionsMethod::SessionsCompact => {
                            client.sessions_compact(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsSubscribe => {
                            client.sessions_subscribe(NoParams {}).await.map(drop)
                        }
                        SessionsMethod::SessionsUnsubscribe => {
                            client.sessions_unsubscribe(NoParams {}).await.map(drop)
                        }
                        SessionsMethod::SessionsMessagesSubscribe => {
                            client.sessions_messages_subscribe(params_of(main)).await.map(drop)
                        }
                        SessionsMethod::SessionsMessagesUnsubscribe => {
                            client.sessions_messages_unsubscribe(params_of(main)).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Usage(methods) => {
                for method in methods {
                    let called = match method {
                        UsageMethod::UsageCost => {
                            client.usage_cost(UsageCostParams::default()).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Connect(methods) => {
                for method in methods {
                    let called = match method {
                        ConnectMethod::Connect => client.connect(ConnectParams::default()).await.map(drop),
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Device(methods) => {
                for method in methods {
                    let device = json!({ "deviceId": "nobody", "role": "operator" });
                    let request = json!({ "requestId": "nothing" });
                    let called = match method {
                        DeviceMethod::DevicePairList => client.device_pair_list(NoParams {}).await.map(drop),
                        DeviceMethod::DevicePairApprove => {
                            client.device_pair_approve(params_of(request)).await.map(drop)
                        }
                        DeviceMethod::DevicePairReject => {
                            client.device_pair_reject(params_of(request)).await.map(drop)
                        }
                        DeviceMethod::DevicePairRemove => {
                            let device = json!({ "deviceId": "nobody" });
                            client.device_pair_remove(params_of(device)).await.map(drop)
                        }
                        DeviceMethod::DevicePairRename => {
                            let device = json!({ "deviceId": "nobody", "label": "phone" });
                            client.device_pair_rename(params_of(device)).await.map(drop)
                        }
                        DeviceMethod::DevicePairSetupCode => {
                            let place = json!({ "publicUrl": "wss://gateway.example.com" });
                            client.device_pair_setup_code(params_of(place)).await.map(drop)
                        }
                        DeviceMethod::DevicePairSetupStatus => {
                            let setup = json!({ "setupId": "nothing" });
                            client.device_pair_setup_status(params_of(setup)).await.map(drop)
                        }
                        DeviceMethod::DeviceTokenRotate => {
                            client.device_token_rotate(params_of(device)).await.map(drop)
                        }
                        DeviceMethod::DeviceTokenRevoke => {
                            client.device_token_revoke(params_of(device)).await.map(drop)
                        }
                    };
                    // No device has connected: being told so is the call at work.
                    let told = called.or_else(|error| match Error::from(error).code() {
                        Some(ErrorCode::NotFound | ErrorCode::Denied) => Ok(()),
                        other => panic!("{}: {other:?}", method.name()),
                    });
                    calls.push((method.name(), told));
                }
            }
            Self::Events(methods) => {
                for method in methods {
                    let called = match method {
                        EventsMethod::EventsSubscribe => {
                            client.events_subscribe(EventsSubscribeParams::default()).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Gateway(methods) => {
                for method in methods {
                    let called = match method {
                        GatewayMethod::Health => client
                            .health(HealthParams::default())
                            .await
                            .map(|health| drop(health.parse().expect("the snapshot has the declared shape"))),
                        GatewayMethod::Status => client.status(StatusParams::default()).await.map(drop),
                        GatewayMethod::SystemPresence => client.system_presence(NoParams {}).await.map(drop),
                        GatewayMethod::LastHeartbeat => client.last_heartbeat(NoParams {}).await.map(drop),
                        GatewayMethod::GatewayIdentityGet => {
                            client.gateway_identity_get(NoParams {}).await.map(drop)
                        }
                        GatewayMethod::SystemInfo => client.system_info(NoParams {}).await.map(drop),
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Lifecycle(methods) => {
                let id = |text: &str| Text::new(text).expect("it is short");
                let resume = |text: &str| SuspendResumeParams { suspension_id: id(text) };
                for method in methods {
                    let called = match method {
                        LifecycleMethod::GatewayRestartRequest => {
                            let params = RestartRequestParams {
                                delay_ms: Some(Bounded::clamped(600_000)),
                                ..RestartRequestParams::default()
                            };
                            client.gateway_restart_request(params).await.map(drop)
                        }
                        LifecycleMethod::GatewaySuspendPrepare => {
                            let params = SuspendPrepareParams {
                                request_id: id("typed"),
                                drain: Some(true),
                                terminal_policy: None,
                            };
                            match client.gateway_suspend_prepare(params).await {
                                Ok(prepared) => {
                                    // The calls that follow are work.
                                    let held = prepared.suspension_id.expect("it is held");
                                    client.gateway_suspend_resume(resume(&held)).await.map(drop)
                                }
                                Err(error) => Err(error),
                            }
                        }
                        LifecycleMethod::GatewaySuspendStatus => {
                            client.gateway_suspend_status(SuspendStatusParams::default()).await.map(drop)
                        }
                        LifecycleMethod::GatewaySuspendResume => {
                            client.gateway_suspend_resume(resume("none")).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Logs(methods) => {
                for method in methods {
                    let called = match method {
                        LogsMethod::LogsTail => client.logs_tail(LogsTailParams::default()).await.map(drop),
                        LogsMethod::LogsFollow => {
                            client.logs_follow(LogsFollowParams::default()).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Models(methods) => {
                for method in methods {
                    let called = match method {
                        ModelsMethod::ModelsList => {
                            client.models_list(ModelsListParams::default()).await.map(drop)
                        }
                    };
                    calls.push((method.name(), called));
                }
            }
            Self::Rpc(methods) => {
                for method in methods {
                    let called = match method {
                        RpcMethod::RpcDiscover => client.rpc_discover(NoParams {}).await.map(drop),
                    };
                    calls.push((method.name(), called));
                }
            }
        }
        calls
    }
}

fn params_of<T: serde::de::DeserializeOwned>(params: serde_json::Value) -> T {
    serde_json::from_value(params).expect("the params are valid")
}

async fn over_websocket(gateway: &TestGateway) -> Client {
    Client::connect(&gateway.url(), Some(TOKEN.into())).await.expect("the client connects")
}

async fn over_http(gateway: &TestGateway) -> Client {
    let url = format!("http://{}", gateway.address());
    Client::connect(&url, Some(TOKEN.into())).await.expect("the client connects")
}

#[tokio::test]
async fn every_method_has_a_typed_call_that_works_over_websocket() {
    let gateway = TestGateway::start().await;
    let client = over_websocket(&gateway).await;
    for namespace in ALL {
        for (name, called) in namespace.call(&client).await {
            assert!(called.is_ok(), "{name}: {called:?}");
        }
    }
    assert_eq!(client.server_version(), Some(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn every_method_that_is_no_matter_of_a_connection_works_over_http() {
    let gateway = TestGateway::start().await;
    let client = over_http(&gateway).await;
    for namespace in ALL {
        for (name, called) in namespace.call(&client).await {
            let record = openclaw_schema::methods::find(name).expect("a typed call is declared");
            if name == ConnectMethod::Connect.name() {
                let error = Error::from(called.expect_err("there is no connection to speak of"));
                assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
            } else if record.subscription.is_some() {
                let error = Error::from(called.expect_err("HTTP has no subscriptions"));
                assert!(matches!(error, Error::InvalidInput { .. }), "{name}: {error:?}");
            } else {
                assert!(called.is_ok(), "{name}: {called:?}");
            }
        }
    }
    assert_eq!(client.server_version(), Some(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_run_streams_its_text_and_ends_with_its_outcome() {
    let gateway = TestGateway::start_with(
        |_| {},
        |builder| builder.backend(Arc::new(EchoBackend::new(Duration::from_millis(60)))),
    )
    .await;
    let client = over_websocket(&gateway).await;
    let params = AgentRequest::new("one two three").session_key("main").build().expect("valid params");
    let mut run = client.run_agent(params).await.expect("the run starts");
    assert_eq!(run.ack().status, AckStatus::Accepted);
    let run_id = run.ack().run_id.clone();

    let (mut agent_seq, mut streamed, mut deltas, mut phases, mut last_chat) =
        (0, String::new(), 0, Vec::new(), None);
    while let Some(event) = soon(run.events().next()).await {
        match event.expect("events can be read") {
            RunEvent::Agent(event) => {
                assert_eq!(event.run_id, run_id);
                assert!(event.seq > agent_seq, "{} comes after {agent_seq}", event.seq);
                agent_seq = event.seq;
                if event.stream == AgentStream::Lifecycle {
                    phases.extend(event.data["phase"].as_str().map(str::to_owned));
                }
            }
            RunEvent::Gap => panic!("nothing is lost"),
            RunEvent::Chat(event) => {
                assert_eq!(event.run_id, run_id);
                assert_ne!(last_chat, Some(ChatState::Final), "nothing comes after the final state");
                last_chat = Some(event.state);
                if let Some(delta) = event.delta_text {
                    streamed.push_str(&delta);
                    deltas += 1;
                }
            }
        }
    }
    assert_eq!(last_chat, Some(ChatState::Final));
    assert_eq!(streamed, "You said: one two three");
    assert!(deltas > 1, "the answer came in one piece");
    assert_eq!(
        (phases.first().map(String::as_str), phases.last().map(String::as_str)),
        (Some("start"), Some("end"))
    );

    let outcome = run.outcome().await.expect("the outcome comes");
    assert_eq!((outcome.run_id, outcome.status), (run_id, RunStatus::Ok));
    let text =
        outcome.result.and_then(|result| result.payloads.into_iter().next()).and_then(|part| part.text);
    assert_eq!(text.as_deref(), Some("You said: one two three"));
}

#[tokio::test]
async fn a_repeat_with_the_same_key_starts_nothing() {
    let gateway = TestGateway::start().await;
    for client in [over_websocket(&gateway).await, over_http(&gateway).await] {
        let key = new_idempotency_key();
        let request =
            || AgentRequest::new("hello").idempotency_key(key.clone()).build().expect("valid params");
        let run = client.run_agent(request()).await.expect("the run starts");
        let first = run.outcome().await.expect("the outcome comes");
        let mut repeat = client.run_agent(request()).await.expect("a repeat is no error");
        assert_eq!((repeat.ack().status, repeat.ack().run_id.as_str()), (AckStatus::Ended, key.as_str()));
        assert!(soon(repeat.events().next()).await.is_none(), "its events are past");
        assert_eq!(repeat.outcome().await.expect("the outcome is kept"), first);
    }
}

#[tokio::test]
async fn an_aborted_run_says_so_everywhere() {
    let gateway = TestGateway::start_with(
        |_| {},
        |builder| builder.backend(Arc::new(EchoBackend::new(Duration::from_secs(3600)))),
    )
    .await;
    let client = over_websocket(&gateway).await;
    let params = AgentRequest::new("never mind").build().expect("valid params");
    let mut run = client.run_agent(params).await.expect("the run starts");
    // The first event says that it runs.
    soon(run.events().next()).await.expect("an event comes").expect("it can be read");
    assert!(run.abort().await.expect("the run exists"), "this call ended it");
    let mut last = None;
    while let Some(event) = soon(run.events().next()).await {
        if let RunEvent::Chat(event) = event.expect("events can be read") {
            last = Some(event.state);
        }
    }
    assert_eq!(last, Some(ChatState::Aborted));
    let outcome = run.outcome().await.expect("the outcome comes");
    assert_eq!((outcome.status, outcome.stop_reason.as_deref()), (RunStatus::Timeout, Some("rpc")));
    assert!(!run.abort().await.expect("the run is still known"), "it had ended already");
}

#[tokio::test]
async fn any_two_phase_method_is_called_by_name_to_its_end() {
    let gateway = TestGateway::start().await;
    let record =
        AgentContract::METHODS.iter().find(|record| record.two_phase.is_some()).expect("`agent` is one");
    let two_phase = record.two_phase.expect("it was found by this");
    for client in [over_websocket(&gateway).await, over_http(&gateway).await] {
        let params = json!({ "message": "hello", "idempotencyKey": new_idempotency_key() });
        let params = to_raw_value(&params).expect("it serialises");
        let mut ack = None;
        let outcome = client
            .call_final(record.name, two_phase.wait, params, |given| ack = Some(given.get().to_owned()))
            .await
            .expect("the run ends");
        assert!(ack.expect("the acknowledgement came first").contains(r#""status":"accepted""#));
        assert!(outcome.get().contains(r#""status":"ok""#), "{outcome}");
    }
}

#[tokio::test]
async fn a_wait_that_is_over_before_the_run_is_no_error() {
    let gateway = TestGateway::start_with(
        |_| {},
        |builder| builder.backend(Arc::new(EchoBackend::new(Duration::from_secs(3600)))),
    )
    .await;
    let client = over_websocket(&gateway).await;
    let ack =
        client.agent(AgentRequest::new("hello").build().expect("valid params")).await.expect("it starts");
    let params = AgentWaitParams {
        run_id: Text::new(ack.run_id).expect("a run id is a text"),
        timeout_ms: Some(Bounded::clamped(10)),
    };
    let waited = client.agent_wait(params).await.expect("the run exists");
    assert_eq!((waited.status, waited.outcome), (WaitStatus::Timeout, None));
}

#[tokio::test]
async fn a_slow_call_ends_with_its_limit_on_either_side() {
    let gateway = embedding::laboratory().await;
    let urls = [gateway.url(), format!("http://{}", gateway.address())];
    for url in urls {
        let client = Client::builder(&url)
            .credential(TOKEN.into())
            .call_timeout(Some(Duration::from_millis(100)))
            .connect()
            .await
            .expect("the client connects");
        let begun = Instant::now();
        let error =
            Error::from(client.lab_rest(RestParams { ms: 60_000 }).await.expect_err("it takes too long"));
        assert!(begun.elapsed() < Duration::from_secs(2), "{url}: it took {:?}", begun.elapsed());
        assert!(error.is_retryable(), "{url}: {error:?}");
        let by_client = matches!(error, Error::Timeout { what: TimeoutKind::Call, .. });
        assert!(by_client || error.code() == Some(ErrorCode::DeadlineExceeded), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn the_deadline_of_the_header_is_the_gateways_business() {
    let gateway = embedding::laboratory().await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("openclaw-timeout-ms", "50")];
    let request = json!({
        "jsonrpc": "2.0", "id": 7, "method": LabMethod::LabRest.name(), "params": { "ms": 60_000 },
    })
    .to_string();
    let expected = json!({
        "jsonrpc": "2.0", "id": 7,
        "error": {
            "code": -32023, "message": "lab.rest did not finish within 50 ms",
            "data": { "code": "DEADLINE_EXCEEDED", "retryable": true, "method": "lab.rest" },
        },
    });
    let (status, body) = gateway.post_with(request.clone(), &headers).await;
    assert_eq!((status, serde_json::from_str(&body).ok()), (200, Some(expected.clone())));
    let mut socket = gateway
        .websocket_with("/rpc", &[("authorization", &bearer), ("openclaw-timeout-ms", "50")])
        .await
        .expect("the gateway accepts the upgrade");
    assert_eq!(socket.ask(request).await, expected);
    for bad in ["0", "-1", "soon", ""] {
        let headers = [("authorization", bearer.as_str()), ("openclaw-timeout-ms", bad)];
        let (status, body) = gateway.post_with("", &headers).await;
        assert_eq!(status, 400, "{bad}: {body}");
        assert!(body.contains("openclaw-timeout-ms must be a positive number of milliseconds"), "{body}");
    }
}

#[tokio::test]
async fn a_gateway_that_stops_during_a_call_is_noticed_within_a_second() {
    let gateway = TestGateway::start_with(
        |settings| settings.limits.drain_timeout = Duration::from_millis(100),
        |builder| builder.serve::<embedding::LabContract>(embedding::LabServer::into_rpc(embedding::Bench)),
    )
    .await;
    let client = over_websocket(&gateway).await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.lab_rest(RestParams { ms: 60_000 }).await }
    });
    // The gateway has the call once it answers a later one.
    while !in_flight(&client).await {}
    let begun = Instant::now();
    gateway.shutdown().await;
    let error = soon(calling).await.expect("the call does not panic").expect_err("the gateway is gone");
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    let error = Error::from(error);
    assert!(
        matches!(error, Error::Transport { kind: TransportKind::Closed { code: Some(1012) }, .. }),
        "{error:?}"
    );
    let later = Error::from(client.agents_list(NoParams {}).await.expect_err("the connection has ended"));
    assert!(matches!(later, Error::Transport { .. }), "{later:?}");
}

#[tokio::test]
async fn a_gateway_that_is_dropped_ends_its_connections_at_once() {
    let gateway = embedding::laboratory().await;
    let client = over_websocket(&gateway).await;
    let calling = tokio::spawn({
        let client = client.clone();
        async move { client.lab_rest(RestParams { ms: 60_000 }).await }
    });
    while !in_flight(&client).await {}
    let begun = Instant::now();
    drop(gateway);
    let error = soon(calling).await.expect("the call does not panic").expect_err("the gateway is gone");
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    assert!(matches!(Error::from(error), Error::Transport { .. }));
}

/// A client that reconnects at once.
async fn lasting(gateway: &TestGateway) -> Client {
    let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
    let builder = Client::builder(gateway.url()).credential(TOKEN.into()).reconnect(backoff);
    builder.connect().await.expect("the client connects")
}

#[tokio::test]
async fn a_client_that_reconnects_outlives_the_gateway_with_its_calls_and_its_events() {
    let gateway = TestGateway::start().await;
    let address = gateway.address();
    let client = lasting(&gateway).await;
    let mut state = client.state();
    let mut events = client.events(EventsSubscribeParams::default()).await.expect("the gateway answers");
    gateway.shutdown().await;
    let is_down = |state: &ConnectionState| matches!(state, ConnectionState::Reconnecting { .. });
    soon(state.wait_for(is_down)).await.expect("the client lives");
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.agents_list(NoParams {}).await }
    });

    let _gateway =
        TestGateway::start_with(|settings| settings.listen = vec![address], |builder| builder).await;
    let listed = soon(waiting).await.expect("the call does not panic").expect("it waits for the gateway");
    assert_eq!(listed.default_id, "main");
    let cause = loop {
        match soon(events.next()).await.expect("the stream goes on").expect("and is sound") {
            Event::Reconnected { cause } => break cause,
            // What the first gateway had to say.
            Event::Received(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(
        matches!(cause, Error::Transport { kind: TransportKind::Closed { code: Some(1012) }, .. }),
        "{cause:?}"
    );
    let mut run = client
        .run_agent(AgentRequest::new("hello").build().expect("valid params"))
        .await
        .expect("the run starts");
    soon(run.events().next()).await.expect("an event comes").expect("it can be read");
    let next = soon(events.next()).await.expect("the stream goes on").expect("and is sound");
    assert!(matches!(next, Event::Received(_)), "{next:?}");
    client.close().await;
    assert!(matches!(*state.borrow(), ConnectionState::Closed));
}

#[tokio::test]
async fn a_client_that_reconnects_stops_when_its_token_is_no_longer_right() {
    let gateway = TestGateway::start().await;
    let address = gateway.address();
    let client = lasting(&gateway).await;
    let mut state = client.state();
    gateway.shutdown().await;
    let _gateway = TestGateway::start_with(
        |settings| {
            settings.listen = vec![address];
            settings.auth = Auth::Token("another".into());
        },
        |builder| builder,
    )
    .await;
    let is_paused = |state: &ConnectionState| matches!(state, ConnectionState::Paused { .. });
    let paused = soon(state.wait_for(is_paused)).await.expect("the client lives").clone();
    let ConnectionState::Paused { reason, cause } = paused else { panic!("{paused:?}") };
    assert_eq!(reason, PauseReason::Unauthorized);
    assert!(matches!(cause, Error::Unauthorized { .. }), "{cause:?}");
    let error = Error::from(client.agents_list(NoParams {}).await.expect_err("nobody may"));
    assert!(matches!(error, Error::Unauthorized { .. }) && !error.may_have_executed(), "{error:?}");
}

async fn in_flight(client: &Client) -> bool {
    let health = client.health(HealthParams { probe: Some(true) }).await.expect("the gateway answers");
    let health = health.parse().expect("the snapshot has the declared shape");
    health.runtime.is_some_and(|runtime| runtime.calls_in_flight > 0)
}

#[tokio::test]
async fn errors_tell_whose_fault_it_is() {
    let gateway = TestGateway::start().await;
    for url in [gateway.url(), format!("http://{}", gateway.address())] {
        let client = Client::connect(&url, Some(TOKEN.into())).await.expect("the client connects");
        let raw = |value: serde_json::Value| to_raw_value(&value).expect("it serialises");

        let wrong = client.call(LogsMethod::LogsTail.name(), raw(json!({ "sinceMS": 1 }))).await;
        match wrong.expect_err("the params are wrong") {
            Error::InvalidInput { problem: Some(problem), .. } => {
                assert_eq!(problem.nearest.as_deref(), Some("sinceMs"));
            }
            other => panic!("{other:?}"),
        }
        let unknown = client.call("no.such", raw(json!({}))).await.expect_err("no such method");
        assert_eq!((unknown.code(), unknown.is_retryable()), (Some(ErrorCode::MethodNotFound), false));
        let nobody = AgentRequest::new("hello").agent_id("nobody").build().expect("valid params");
        let nobody = client.run_agent(nobody).await.expect_err("no such agent");
        match &nobody {
            Error::Refused(refusal) => {
                assert_eq!(refusal.code, Some(ErrorCode::NotFound));
                assert_eq!(refusal.details().expect("it has details").path.as_deref(), Some("/agentId"));
            }
            other => panic!("{other:?}"),
        }

        let reader = Client::builder(&url)
            .credential(TOKEN.into())
            .scopes([openclaw_client::Scope::OperatorRead])
            .connect()
            .await
            .expect("the client connects");
        let params = AgentRequest::new("hello").build().expect("valid params");
        match Error::from(reader.agent(params).await.expect_err("a reader starts nothing")) {
            Error::Refused(refusal) => {
                let missing = refusal.details().and_then(|details| details.missing_scope);
                assert_eq!(missing, Some(openclaw_client::Scope::OperatorWrite));
            }
            other => panic!("{other:?}"),
        }

        for credential in [Some("wrong".into()), None] {
            let without = match Client::connect(&url, credential).await {
                Ok(client) => Error::from(client.agents_list(NoParams {}).await.expect_err("nobody may")),
                Err(error) => error,
            };
            assert!(matches!(without, Error::Unauthorized { .. }), "{url}: {without:?}");
        }
    }
    let address = gateway.address();
    gateway.shutdown().await;
    let gone =
        Client::connect(&format!("ws://{address}"), Some(TOKEN.into())).await.expect_err("nobody listens");
    assert!(matches!(gone, Error::Transport { kind: TransportKind::Unreachable, .. }), "{gone:?}");
}
