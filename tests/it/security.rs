//! The security matrix: every kind of page with every credential over every way in, every method with every scope, and
//! what guessers, thieves of tokens and strangers get and cost. `gateway/SECURITY.md` says which threat each case answers.
//!
//! Expected verdicts come from small rules of their own, not from the gateway's code. Where memory counts, the gateway runs
//! in a process of its own. `cargo it security -- --show-output` shows the figures.

#![expect(clippy::print_stdout, reason = "the figures are worth a look")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use openclaw_schema::{
    Scope, Scopes,
    contract::MethodRecord,
    events::EventName,
    methods::{
        self, agent::AgentMethod, chat::ChatMethod, config::ConfigMethod, connect::ConnectMethod,
        device::DeviceMethod, events::EventsMethod, gateway::GatewayMethod, lifecycle::LifecycleMethod,
        rpc::RpcMethod, sessions::SessionsMethod, usage::UsageMethod,
    },
};
use openclaw_tests::harness::{Peer, Server, Socket, TOKEN, TestGateway, soon};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    embedding::{LabMethod, laboratory},
    frames::{self, Device, command_line, response},
    robustness::{self, MOST_GROWTH_KIB, frame, start, websocket},
};

/// An origin that the gateways here trust.
const LISTED: &str = "https://ui.example.com";

fn jsonrpc(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A gateway before which a proxy stands that it trusts: each request may come from an address of its own.
async fn behind_a_proxy() -> TestGateway {
    let change = |settings: &mut openclaw_gateway::settings::Settings| {
        settings.trust.origins = vec![LISTED.parse().expect("an origin")];
        settings.trust.proxies = vec!["127.0.0.1".parse().expect("a network")];
        // Pages get half of the places.
        settings.limits.max_unauthenticated = 1000;
    };
    TestGateway::start_with(change, |builder| builder).await
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Post,
    JsonRpc,
    Frames,
}

const WAYS: [Way; 3] = [Way::Post, Way::JsonRpc, Way::Frames];

#[test]
fn what_the_threat_model_says_is_held_by_a_test_is() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(workspace.join("gateway/SECURITY.md")).expect("it is there");
    let mut named = 0;
    for code in text.split('`').skip(1).step_by(2) {
        let (path, test) = code.split_once("::").unwrap_or((code, ""));
        if path.contains('/') && (path.ends_with(".rs") || path.ends_with(".py")) {
            let source = fs::read_to_string(workspace.join(path)).unwrap_or_else(|_| panic!("no {path}"));
            assert!(test.is_empty() || source.contains(&format!("fn {test}(")), "no {code}");
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

// Pages and credentials.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// A name that nobody else can make lead here.
    Own,
    /// A name of somebody else's domain.
    Strange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Absent,
    /// Of the very host that is asked.
    Same,
    Listed,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    Absent,
    /// `same-origin`, or `none`: the person typed the address.
    Same,
    /// `same-site`: another host of the domain, or another port.
    Near,
    /// `cross-site`, and what no browser sends.
    Far,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    Missing,
    Malformed,
    Wrong,
    Right,
}

/// What is to become of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// It comes to the credential.
    Passes,
    /// It is a foreign one, and says from where: over frames it gets an answer that it can read.
    Foreign,
    /// It is a foreign one, and does not say from where.
    Nameless,
    /// It calls the gateway by a strange name.
    Rebound,
}

type Rule = (fn(Host, Origin, Site) -> bool, Verdict);

/// The first rule that fits decides.
const RULES: &[Rule] = &[
    // A program: browsers send one of the two with everything that matters.
    (|_, origin, site| origin == Origin::Absent && site == Site::Absent, Verdict::Passes),
    // DNS rebinding, whatever else is said.
    (|host, _, _| host == Host::Strange, Verdict::Rebound),
    // The owner wrote it into the configuration.
    (|_, origin, _| origin == Origin::Listed, Verdict::Passes),
    (|_, origin, site| origin == Origin::Same && site != Site::Far, Verdict::Passes),
    (|_, origin, site| origin == Origin::Absent && site == Site::Same, Verdict::Passes),
    (|_, origin, _| origin == Origin::Absent, Verdict::Nameless),
    (|_, _, _| true, Verdict::Foreign),
];

fn verdict(host: Host, origin: Origin, site: Site) -> Verdict {
    RULES.iter().find(|(fits, _)| fits(host, origin, site)).expect("the last rule fits all").1
}

/// One request to be judged.
#[derive(Debug, Clone)]
struct Case {
    headers: Vec<(&'static str, String)>,
    verdict: Verdict,
    credential: Credential,
    way: Way,
}

fn cases(port: u16) -> Vec<Case> {
    let hosts = [
        ("127.0.0.1", Host::Own),
        ("[::1]", Host::Own),
        ("localhost", Host::Own),
        ("box.tail1234.ts.net", Host::Own),
        ("ui.example.com", Host::Own),
        ("evil.example", Host::Strange),
        ("127.0.0.1.evil.example", Host::Strange),
    ];
    let origins = [
        ("", Origin::Absent),
        ("http://{host}", Origin::Same),
        ("https://{host}", Origin::Same),
        (LISTED, Origin::Listed),
        ("https://evil.test", Origin::Other),
        ("http://{host}.evil.test", Origin::Other),
        ("null", Origin::Other),
    ];
    let sites = [
        ("", Site::Absent),
        ("same-origin", Site::Same),
        ("none", Site::Same),
        ("same-site", Site::Near),
        ("cross-site", Site::Far),
    ];
    let credentials = [Credential::Missing, Credential::Malformed, Credential::Wrong, Credential::Right];
    let mut cases = Vec::new();
    for (host, host_is) in hosts {
        let host = format!("{host}:{port}");
        for (origin, origin_is) in origins {
            // `same-origin` beside a foreign `Origin` is what a program might make up; no browser does.
            for (site, site_is) in sites {
                let mut page = vec![("host", host.clone())];
                if origin_is != Origin::Absent {
                    page.push(("origin", origin.replace("{host}", &host)));
                }
                if site_is != Site::Absent {
                    page.push(("sec-fetch-site", site.to_owned()));
                }
                for credential in credentials {
                    for way in WAYS {
                        let mut headers = page.clone();
                        // Nobody is locked out for the guesses of another case.
                        let number = cases.len();
                        let address = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
                        headers.push(("x-forwarded-for", address));
                        let verdict = verdict(host_is, origin_is, site_is);
                        cases.push(Case { headers, verdict, credential, way });
                    }
                }
            }
        }
    }
    cases
}

/// The status of an upgrade and the socket, if it is one.
async fn upgrade(gateway: &TestGateway, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    gateway.websocket_with(path, headers).await.map_err(|error| match *error {
        Error::Http(response) => response.status().as_u16(),
        other => panic!("no HTTP answer: {other}"),
    })
}

/// Whether a call was made, or how it was turned away.
async fn outcome(gateway: &TestGateway, case: &Case) -> String {
    let mut headers: Vec<(&'static str, &str)> =
        case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let credential = match case.credential {
        Credential::Missing => None,
        Credential::Malformed => Some(TOKEN.to_owned()),
        Credential::Wrong => Some(bearer("wrong")),
        Credential::Right => Some(bearer(TOKEN)),
    };
    if case.way != Way::Frames {
        headers.extend(credential.as_deref().map(|credential| ("authorization", credential)));
    }
    let call = jsonrpc(GatewayMethod::Health.name(), &json!({}));
    match case.way {
        Way::Post => match gateway.http("POST", "/rpc", &headers, call).await {
            answer if answer.status == 200 => {
                assert_eq!(answer.json()["result"]["ok"], true, "{case:?}");
                "served".to_owned()
            }
            answer => answer.status.to_string(),
        },
        Way::JsonRpc => match upgrade(gateway, "/rpc", &headers).await {
            Err(status) => status.to_string(),
            Ok(mut socket) => match &socket.ask(call).await {
                answer if answer["result"]["ok"] == true => "served".to_owned(),
                answer => answer["error"]["data"]["code"].as_str().expect("a code").to_owned(),
            },
        },
        Way::Frames => match upgrade(gateway, "/", &headers).await {
            Err(status) => status.to_string(),
            Ok(mut socket) => {
                assert_eq!(socket.next_json().await["event"], "connect.challenge");
                let mut params = command_line(&["operator.read"]);
                params["auth"] = match case.credential {
                    Credential::Missing => json!({}),
                    Credential::Malformed => json!({ "token": "" }),
                    Credential::Wrong => json!({ "token": "wrong" }),
                    Credential::Right => json!({ "token": TOKEN }),
                };
                let answer = socket.ask(frames::connect(&params)).await;
                if answer["ok"] == true {
                    return "served".to_owned();
                }
                let close = soon(socket.closed()).await.expect("a close frame comes");
                assert_eq!(u16::from(close.code), 1008, "{case:?}");
                answer["error"]["details"]["code"].as_str().expect("a code").to_owned()
            }
        },
    }
}

/// What the rules say of the same.
fn expected(case: &Case) -> &'static str {
    use Credential::{Malformed, Missing, Right, Wrong};
    match (case.verdict, case.way, case.credential) {
        (Verdict::Foreign, Way::Frames, _) => "CONTROL_UI_ORIGIN_NOT_ALLOWED",
        (Verdict::Foreign | Verdict::Nameless | Verdict::Rebound, _, _) => "403",
        (Verdict::Passes, _, Right) => "served",
        // The socket is there, and serves nothing before `connect`.
        (Verdict::Passes, Way::JsonRpc, Missing) => "UNAUTHORIZED",
        (Verdict::Passes, Way::Frames, Missing | Malformed) => "DEVICE_IDENTITY_REQUIRED",
        (Verdict::Passes, Way::Frames, Wrong) => "AUTH_TOKEN_MISMATCH",
        (Verdict::Passes, Way::Post | Way::JsonRpc, _) => "401",
    }
}

#[tokio::test]
async fn every_page_with_every_credential_over_every_way_in_is_judged_by_the_rules() {
    let gateway = behind_a_proxy().await;
    let cases = cases(gateway.address().port());
    let judged: Vec<(Case, String)> = stream::iter(cases)
        .map(|case| async {
            let outcome = outcome(&gateway, &case).await;
            (case, outcome)
        })
        .buffer_unordered(48)
        .collect()
        .await;
    let mut counts = BTreeMap::<(Verdict, &str), usize>::new();
    for (case, outcome) in &judged {
        assert_eq!(outcome, expected(case), "{case:?}");
        *counts.entry((case.verdict, expected(case))).or_default() += 1;
    }
    println!("{} cases: {counts:?}", judged.len());
    assert_eq!(judged.len(), 7 * 7 * 5 * 4 * 3);
    assert!(counts.keys().map(|(verdict, _)| verdict).collect::<BTreeSet<_>>().len() == 4, "{counts:?}");
}

// Methods and scopes.

/// Callers with the same scopes, one for each way in.
struct Callers<'a> {
    gateway: &'a TestGateway,
    scopes: String,
    jsonrpc: Socket,
    frames: Socket,
}

impl<'a> Callers<'a> {
    async fn new(gateway: &'a TestGateway, scope: Scope) -> Self {
        let token = bearer(TOKEN);
        let headers = [("authorization", token.as_str()), ("openclaw-scopes", scope.name())];
        let jsonrpc = gateway.websocket_with("/rpc", &headers).await.expect("the upgrade is accepted");
        let asked: &[&str] = if scope == Scope::None { &[] } else { &[scope.name()] };
        let (frames, _) = frames::connected(gateway, &command_line(asked)).await;
        Self { gateway, scopes: scope.name().to_owned(), jsonrpc, frames }
    }

    /// The error of a call: its code, and the scope that is missing. Nothing for a call that succeeds.
    async fn call(&mut self, way: Way, method: &str, params: &Value) -> Option<(String, Value)> {
        let text = jsonrpc(method, params);
        let data = |answer: Value| {
            let data = answer.get("error")?["data"].clone();
            Some((data["code"].as_str().expect("a code").to_owned(), data["missingScope"].clone()))
        };
        match way {
            Way::Post => {
                let token = bearer(TOKEN);
                let headers = [("authorization", token.as_str()), ("openclaw-scopes", self.scopes.as_str())];
                data(self.gateway.http("POST", "/rpc", &headers, text).await.json())
            }
            Way::JsonRpc => {
                self.jsonrpc.send(text).await;
                loop {
                    let answer = self.jsonrpc.next_json().await;
                    // Items of subscriptions are passed over.
                    if answer.get("id").is_some() {
                        return data(answer);
                    }
                }
            }
            Way::Frames => {
                self.frames.send(frames::request("m", method, params)).await;
                let answer = response(&mut self.frames, "m").await;
                let error = answer.get("error")?;
                let details = &error["details"];
                let code = match details["code"].as_str() {
                    Some("MISSING_SCOPE") => "FORBIDDEN",
                    Some(code) => code,
                    None => error["code"].as_str().expect("a code"),
                };
                Some((code.to_owned(), details["missingScope"].clone()))
            }
        }
    }
}

/// `params` with the names of an example replaced by names of what is there, so that a call which should be refused would
/// do something if it were not.
fn aimed(params: &Value, targets: &BTreeMap<&str, Value>) -> Value {
    let mut aimed = params.clone();
    if let Some(fields) = aimed.as_object_mut() {
        for (name, value) in fields {
            if let Some(target) = targets.get(name.as_str()) {
                *value = target.clone();
            }
        }
    }
    aimed
}

/// What callers see of the gateway's state, without what changes by itself.
async fn state(gateway: &TestGateway, session: &str) -> Vec<Value> {
    fn still(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !matches!(name.as_str(), "ts" | "durationMs" | "lastSeenAtMs"));
                fields.values_mut().for_each(still);
            }
            Value::Array(entries) => entries.iter_mut().for_each(still),
            _ => {}
        }
    }
    let mut seen = Vec::new();
    for (method, params) in [
        (SessionsMethod::SessionsList.name(), json!({})),
        (ChatMethod::ChatHistory.name(), json!({ "sessionKey": session })),
        (DeviceMethod::DevicePairList.name(), json!({})),
        (ConfigMethod::ConfigGet.name(), json!({})),
        (LifecycleMethod::GatewaySuspendStatus.name(), json!({})),
        (UsageMethod::UsageCost.name(), json!({})),
    ] {
        let mut answer = gateway.call(method, params).await;
        assert!(answer.get("result").is_some(), "{method}: {answer}");
        if method == UsageMethod::UsageCost.name() {
            // When it was asked.
            answer["result"]["updatedAt"].take();
        }
        still(&mut answer);
        seen.push(answer);
    }
    let status = gateway.call(GatewayMethod::Status.name(), json!({})).await;
    seen.push(status["result"]["lifecycle"].clone());
    seen
}

fn allows(held: Scope, record: &MethodRecord) -> bool {
    [held].into_iter().collect::<Scopes>().allows(record.scope)
}

#[tokio::test]
async fn every_method_with_every_scope_over_every_way_in_is_served_or_refused_without_effect() {
    let gateway = behind_a_proxy().await;
    // Something to spoil: a session with a run, a paired device, one that waits.
    let session = "agent:main:main";
    let run = json!({ "message": "hello", "idempotencyKey": "k1", "sessionKey": session });
    let accepted = gateway.call(AgentMethod::Agent.name(), run).await;
    let run = accepted["result"]["runId"].clone();
    let wait = json!({ "runId": run, "timeoutMs": 10_000 });
    assert!(gateway.call(AgentMethod::AgentWait.name(), wait).await["result"]["final"].is_object());
    let wanted = command_line(&["operator.read"]);
    let (_paired, hello) = Device::new(1).connect(&gateway, &wanted).await;
    assert_eq!(hello["ok"], true, "{hello}");
    let (_, asked) = Device::new(2).connect_with(&gateway, &wanted, &[("x-forwarded-for", "10.1.2.3")]).await;
    let targets = BTreeMap::from([
        ("sessionKey", json!(session)),
        ("key", json!(session)),
        ("keys", json!([session])),
        ("runId", run),
        ("deviceId", json!(Device::new(1).id())),
        ("requestId", asked["error"]["details"]["requestId"].clone()),
    ]);
    let before = state(&gateway, session).await;
    let (mut owner, _) = frames::connected(&gateway, &command_line(&["operator.admin"])).await;

    let mut refused = 0;
    for held in Scope::ALL {
        let mut callers = Callers::new(&gateway, *held).await;
        for record in methods::all() {
            for way in WAYS {
                let what = format!("{} with {held}, {way:?}", record.name);
                let is_connect = record.name == ConnectMethod::Connect.name();
                if allows(*held, record) {
                    // Params that are wrong: who is allowed gets that far, and nothing happens.
                    let answer = callers.call(way, record.name, &json!({ "noSuchField": 1 })).await;
                    let (code, _) = answer.unwrap_or_else(|| panic!("{what} takes any field"));
                    // Over frames it comes once, as the first message.
                    let wanted = if is_connect && way == Way::Frames && *held != Scope::OperatorAdmin {
                        "FORBIDDEN"
                    } else if is_connect && way == Way::Frames {
                        "INVALID_REQUEST"
                    } else {
                        "INVALID_PARAMS"
                    };
                    assert_eq!(code, wanted, "{what}");
                    continue;
                }
                for example in (record.examples)().successes {
                    let params = aimed(&example.params, &targets);
                    let answer = callers.call(way, record.name, &params).await;
                    let missing = Some(("FORBIDDEN".to_owned(), json!(record.scope)));
                    assert_eq!(answer, missing, "{what}, {}", example.name);
                    refused += 1;
                }
            }
        }
    }
    println!("{refused} calls refused for their scope");
    assert_eq!(state(&gateway, session).await, before);
    // Nobody was told of anything either.
    owner.send(frames::request("end", GatewayMethod::Health.name(), &json!({}))).await;
    loop {
        let frame = owner.next_json().await;
        if frame["id"] == "end" {
            break;
        }
        let by_itself = [EventName::Tick, EventName::Health, EventName::Presence];
        assert!(by_itself.iter().any(|event| frame["event"] == event.name()), "{frame}");
    }
}

#[tokio::test]
async fn without_any_scope_four_methods_answer() {
    let gateway = TestGateway::start().await;
    let mut callers = Callers::new(&gateway, Scope::None).await;
    let open = [
        ConnectMethod::Connect.name(),
        EventsMethod::EventsSubscribe.name(),
        GatewayMethod::Health.name(),
        RpcMethod::RpcDiscover.name(),
    ];
    for way in WAYS {
        let mut answered = BTreeSet::new();
        for record in methods::all().filter(|record| record.name != ConnectMethod::Connect.name()) {
            let params = &(record.examples)().successes[0].params;
            let answer = callers.call(way, record.name, params).await;
            if answer.is_none_or(|(code, _)| code != "FORBIDDEN") {
                answered.insert(record.name);
            }
        }
        answered.insert(ConnectMethod::Connect.name());
        assert!(answered.iter().eq(BTreeSet::from(open).iter()), "{way:?}: {answered:?}");
    }
}

// Guesses.

/// A health call with the right token, by POST from an address, none being the gateway's own host.
async fn right(peer: Peer, address: Option<&str>) -> u16 {
    let token = bearer(TOKEN);
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(address.map(|address| ("x-forwarded-for", address)));
    peer.http("POST", "/rpc", &headers, jsonrpc(GatewayMethod::Health.name(), &json!({}))).await.status
}

/// A guess at the token. Gives what the guesser is told: a status or a code.
async fn guess(server: &Server, way: Way, address: &str, token: &str) -> String {
    let from = format!("X-Forwarded-For: {address}\r\n");
    match way {
        Way::Post => {
            let token = bearer(token);
            let headers = [("authorization", token.as_str()), ("x-forwarded-for", address)];
            let call = jsonrpc(GatewayMethod::Health.name(), &json!({}));
            server.peer().http("POST", "/rpc", &headers, call).await.status.to_string()
        }
        Way::JsonRpc => {
            let mut socket = websocket(server.upgraded_at("/rpc", &from).await).await;
            let connect = jsonrpc(ConnectMethod::Connect.name(), &json!({ "auth": { "token": token } }));
            told(&mut socket, connect, |answer| answer["error"]["data"]["code"].clone()).await
        }
        Way::Frames => {
            let mut socket = websocket(server.upgraded_at("/", &from).await).await;
            let mut params = command_line(&[]);
            params["auth"] = json!({ "token": token });
            let connect = frames::connect(&params);
            told(&mut socket, connect, |answer| answer["error"]["details"]["code"].clone()).await
        }
    }
}

async fn told(socket: &mut robustness::Socket, text: String, code: impl Fn(&Value) -> Value) -> String {
    robustness::send_text(socket, &text).await;
    loop {
        let answer = robustness::next(socket).await;
        if let Some(code) = code(&answer).as_str() {
            return code.to_owned();
        }
        assert_eq!(answer["event"], "connect.challenge", "a guess was let in: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_tokens_lock_their_address_out_and_nobody_else() {
    let server = start(&["proxy=127.0.0.1"]);
    let guesser = "10.9.9.9";
    assert_eq!(right(server.peer(), Some(guesser)).await, 200);
    let before = server.resident_kib();
    let answers: Vec<String> = stream::iter(0..1000)
        .map(|number: usize| {
            let server = &server;
            async move { guess(server, WAYS[number % 3], guesser, &format!("guess-{number}")).await }
        })
        .buffer_unordered(24)
        .collect()
        .await;
    let count = |told: &[&str]| answers.iter().filter(|answer| told.contains(&answer.as_str())).count();
    let looked_at = count(&["401", "UNAUTHORIZED", "AUTH_TOKEN_MISMATCH"]);
    let locked_out = count(&["429", "RATE_LIMITED", "AUTH_RATE_LIMITED"]);
    println!("{looked_at} guesses were looked at, {locked_out} were not");
    assert_eq!(looked_at + locked_out, 1000, "{answers:?}");
    // Each of the gateway's workers may have been looking at one when the tenth failed.
    assert!((10..=12).contains(&looked_at), "{looked_at}");
    assert_eq!(right(server.peer(), Some(guesser)).await, 429, "the right one is not looked at either");
    assert_eq!(right(server.peer(), Some("10.9.9.8")).await, 200);
    assert_eq!(right(server.peer(), None).await, 200);

    // As many addresses, with one guess each.
    let answers: Vec<String> = stream::iter(0..1000)
        .map(|number: usize| {
            let (server, address) = (&server, format!("10.8.{}.{}", number / 250, number % 250));
            async move { guess(server, Way::Post, &address, "guess").await }
        })
        .buffer_unordered(100)
        .collect()
        .await;
    assert!(answers.iter().all(|answer| answer == "401"), "{answers:?}");
    assert_eq!(right(server.peer(), Some(guesser)).await, 429, "others do not push its lockout out");
    let growth = server.resident_kib().saturating_sub(before);
    println!("2,000 guesses: {growth} KiB");
    assert!(growth <= MOST_GROWTH_KIB, "{growth} KiB");
}

#[tokio::test]
async fn programs_on_the_gateways_own_host_are_not_locked_out() {
    let server = start(&[]);
    let wrong = [("authorization", "Bearer wrong")];
    let call = jsonrpc(GatewayMethod::Health.name(), &json!({}));
    let peer = server.peer();
    let answers = join_all((0..60).map(|_| peer.http("POST", "/rpc", &wrong, call.clone()))).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    assert_eq!(right(server.peer(), None).await, 200);
}

// Tokens that are taken away.

#[tokio::test]
async fn a_device_whose_token_is_taken_away_is_cut_off_with_its_calls_and_events() {
    for (taken_by, words) in [
        (DeviceMethod::DeviceTokenRotate, "rotated"),
        (DeviceMethod::DeviceTokenRevoke, "revoked"),
        (DeviceMethod::DevicePairRemove, "removed"),
    ] {
        let gateway = laboratory().await;
        let device = Device::new(3);
        let mut params = command_line(&["operator.write"]);
        let (_first, hello) = device.connect(&gateway, &params).await;
        let token = hello["payload"]["auth"]["deviceToken"].clone();
        params["auth"] = json!({ "deviceToken": token });
        let (mut stolen, hello) = device.connect(&gateway, &params).await;
        assert_eq!(hello["payload"]["auth"]["method"], "device-token", "{words}: {hello}");
        // Its calls go on and its events come.
        stolen.send(frames::request("slow", LabMethod::LabRest.name(), &json!({ "ms": 600_000 }))).await;
        let in_flight = async |wanted: u64| loop {
            let health = gateway.call(GatewayMethod::Health.name(), json!({ "probe": true })).await;
            // The asking call is not counted: it is answered at once.
            if health["result"]["runtime"]["callsInFlight"] == wanted {
                return;
            }
            tokio::task::yield_now().await;
        };
        soon(in_flight(1)).await;
        let run = |key: &str| json!({ "message": "hello", "idempotencyKey": key, "sessionKey": "main" });
        gateway.call(AgentMethod::Agent.name(), run("k1")).await;
        frames::event(&mut stolen, EventName::Chat.name()).await;

        let target = if taken_by == DeviceMethod::DevicePairRemove {
            json!({ "deviceId": device.id() })
        } else {
            json!({ "deviceId": device.id(), "role": "operator" })
        };
        let answer = gateway.call(taken_by.name(), target).await;
        assert!(answer.get("result").is_some(), "{words}: {answer}");
        assert!(!answer.to_string().contains(token.as_str().expect("a token")), "{words}");
        gateway.call(AgentMethod::Agent.name(), run("k2")).await;
        // What had happened before may still be on its way; the call is never answered, the second run never told.
        let close = soon(async {
            loop {
                match stolen.next_message().await {
                    Some(Message::Close(frame)) => return frame.expect("a code"),
                    Some(Message::Text(text)) => {
                        let frame: Value = serde_json::from_str(&text).expect("the gateway sends JSON");
                        assert_eq!(frame["type"], "event", "{words}: {frame}");
                        assert_ne!(frame["payload"]["runId"], "k2", "{words}: {frame}");
                    }
                    Some(_) => {}
                    None => panic!("{words}: no close frame"),
                }
            }
        })
        .await;
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "device removed"), "{words}");
        soon(in_flight(0)).await;
        // The token is worth nothing any more.
        let (mut again, answer) = device.connect(&gateway, &params).await;
        assert_eq!(answer["error"]["details"]["code"], "AUTH_DEVICE_TOKEN_MISMATCH", "{words}: {answer}");
        assert_eq!(soon(again.closed()).await.map(|close| u16::from(close.code)), Some(1008), "{words}");
    }
}

// What strangers cost.

/// Fails unless a client with a credential is served, on a connection that it has and on a new one.
async fn others_are_served(server: &Server, known: &mut robustness::Socket) {
    let health = robustness::call(known, GatewayMethod::Health.name(), &json!({})).await;
    assert_eq!(health["result"]["ok"], true, "{health}");
    assert_eq!(right(server.peer(), None).await, 200);
}

/// Writes until the gateway takes no more, and reads meanwhile: bytes out, bytes back.
async fn flood(stream: TcpStream, one: Vec<u8>, times: usize) -> (usize, usize) {
    let (mut reader, mut writer) = stream.into_split();
    let writing = async move {
        let mut written = 0;
        for _ in 0..times {
            if writer.write_all(&one).await.is_err() {
                break;
            }
            written += one.len();
        }
        // Half of the connection stays: the gateway is to end it.
        (written, writer)
    };
    let reading = async move {
        let (mut read, mut chunk) = (0, vec![0; 64 * 1024]);
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            read += count;
        }
        read
    };
    let ((written, _writer), read) = soon(async { tokio::join!(writing, reading) }).await;
    (written, read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_messages_before_authentication_is_cut_off_and_costs_little() {
    let server = start(&[]);
    let mut known = server.socket().await;
    others_are_served(&server, &mut known).await;
    let before = server.resident_kib();
    let call = jsonrpc(GatewayMethod::Health.name(), &json!({}));
    let request = frames::request("1", GatewayMethod::Health.name(), &json!({}));
    let message = |text: &str| frame(0x81, text.len() as u64, text.as_bytes());
    // The path, the message, and how many messages are read at most.
    for (path, one, read_at_most) in [
        ("/rpc", message(&call), 1000),
        ("/rpc", message("1"), 1000),
        ("/", message(&request), 1),
        ("/", message("1"), 1),
    ] {
        let floods = (0..8).map(|_| async {
            let stream = server.upgraded_at(path, "").await;
            flood(stream, one.clone(), 20_000).await
        });
        let flooded = async {
            let mut floods: FuturesUnordered<_> = floods.collect();
            let mut totals = Vec::new();
            while let Some(total) = floods.next().await {
                totals.push(total);
            }
            totals
        };
        let (totals, ()) = tokio::join!(flooded, others_are_served(&server, &mut known));
        let most = totals.iter().map(|(_, read)| *read).max().unwrap_or_default();
        println!("{path} {:?}: {most} bytes came back at most", String::from_utf8_lossy(&one[6..]));
        // The longest of these answers has less than 300 bytes; frames begin with a challenge.
        assert!(most <= read_at_most * 300 + 1000, "{path}: {totals:?}");
    }
    // A body is not read before the credential.
    for _ in 0..8 {
        let mut stream = server.tcp().await;
        let head = "POST /rpc HTTP/1.1\r\nHost: gateway\r\nContent-Length: 20000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("the gateway reads");
        let mut status = [0; 12];
        soon(stream.read_exact(&mut status)).await.expect("the gateway answers");
        assert_eq!(&status, b"HTTP/1.1 401");
    }
    others_are_served(&server, &mut known).await;
    let growth = server.resident_kib().saturating_sub(before);
    println!("floods: {growth} KiB");
    assert!(growth <= MOST_GROWTH_KIB, "{growth} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_json_is_refused_over_every_way_in_before_and_after_authentication() {
    let server = start(&[]);
    let mut known = server.socket().await;
    others_are_served(&server, &mut known).await;
    let before = server.resident_kib();
    let deep = |depth: usize| ["[", "{\"a\":"].map(|open| open.repeat(depth));
    // Closed properly, and cut off.
    let texts = |depth: usize| {
        let [lists, objects] = deep(depth);
        let whole = format!("{lists}{}", "]".repeat(depth));
        let call = r#"{"jsonrpc":"2.0","type":"req","method":"health""#;
        vec![
            format!(r#"{call},"id":"1","params":{whole}}}"#),
            format!(r#"{call},"id":{whole}}}"#),
            lists,
            objects,
            whole,
        ]
    };
    let token = bearer(TOKEN);
    for text in texts(100_000) {
        let shown = format!("{}…", &text[..text.len().min(60)]);
        let post = server.peer().http("POST", "/rpc", &[("authorization", &token)], text.clone()).await;
        assert!(is_refusal(&post.json()) && post.body.len() < 1000, "{shown}: {}", post.text());
        assert_eq!(server.peer().http("POST", "/rpc", &[], text.clone()).await.status, 401, "{shown}");

        let answer = robustness::call_text(&mut known, &text).await;
        assert!(is_refusal(&answer) && answer.to_string().len() < 1000, "{shown}: {answer}");
        let mut by_frames = frames_of(&server).await;
        robustness::send_text(&mut by_frames, &text).await;
        // What is not JSON is passed over there: the next call is answered either way.
        robustness::send_text(&mut by_frames, &frames::request("end", "health", &json!({}))).await;
        loop {
            let answer = robustness::next(&mut by_frames).await;
            if answer["id"] == "end" {
                assert_eq!(answer["ok"], true, "{shown}: {answer}");
                break;
            }
            assert!(answer["ok"] == false || answer["type"] == "event", "{shown}: {answer}");
        }
        // Beyond the bound of strangers.
        for path in ["/rpc", "/"] {
            let mut stranger = websocket(server.upgraded_at(path, "").await).await;
            robustness::send_text(&mut stranger, &text).await;
            let (code, _) = robustness::closed(&mut stranger).await.expect("a close frame comes");
            assert_eq!(code, 1009, "{path} {shown}");
        }
    }
    // Within the bound of strangers, too.
    for text in texts(5_000) {
        let mut stranger = websocket(server.upgraded_at("/rpc", "").await).await;
        let answer = robustness::call_text(&mut stranger, &text).await;
        assert!(is_refusal(&answer) && answer.to_string().len() < 1000, "{answer}");
        let mut stranger = websocket(server.upgraded_at("/", "").await).await;
        robustness::send_text(&mut stranger, &text).await;
        let (code, _) = robustness::closed(&mut stranger).await.expect("a close frame comes");
        assert!(matches!(code, 1000 | 1008), "{code}");
    }
    others_are_served(&server, &mut known).await;
    let growth = server.resident_kib().saturating_sub(before);
    println!("deep JSON: {growth} KiB");
    assert!(growth <= MOST_GROWTH_KIB, "{growth} KiB");
}

/// Whether a call was refused, or the only one of a batch.
fn is_refusal(answer: &Value) -> bool {
    answer["error"].is_object() || answer[0]["error"].is_object()
}

/// A connection that speaks frames and is in.
async fn frames_of(server: &Server) -> robustness::Socket {
    let mut socket = websocket(server.upgraded_at("/", "").await).await;
    robustness::send_text(&mut socket, &frames::connect(&command_line(&["operator.read"]))).await;
    loop {
        let answer = robustness::next(&mut socket).await;
        if answer["type"] == "res" {
            assert_eq!(answer["ok"], true, "{answer}");
            return socket;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_never_authenticate_are_few_short_lived_and_in_nobodys_way() {
    let server = start(&["max_unauthenticated=8", "authentication_timeout=1500", "header_timeout=1500"]);
    let mut known = server.socket().await;
    others_are_served(&server, &mut known).await;
    let before = server.resident_kib();
    // Connections that say nothing at all.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(server.tcp().await);
    }
    let mut waiting = Vec::new();
    for number in 0..8 {
        waiting.push(server.upgraded_at(if number % 2 == 0 { "/rpc" } else { "/" }, "").await);
    }
    for path in ["/rpc", "/"] {
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for _ in 0..12 {
            assert_eq!(server.peer().http("GET", path, &headers, "").await.status, 503, "{path}");
        }
    }
    // With a credential in the header nobody waits for a place.
    others_are_served(&server, &mut known).await;
    drop(server.socket().await);
    let growth = server.resident_kib().saturating_sub(before);
    println!("208 half-open sockets: {growth} KiB");
    assert!(growth <= MOST_GROWTH_KIB, "{growth} KiB");
    for stream in silent.iter_mut().chain(&mut waiting) {
        robustness::ended(stream).await;
    }
    drop(server.upgraded_at("/rpc", "").await);
    others_are_served(&server, &mut known).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_byte_by_byte_is_ended_in_time_whatever_they_send() {
    let server = start(&["authentication_timeout=600", "header_timeout=600", "body_timeout=600"]);
    let mut known = server.socket().await;
    others_are_served(&server, &mut known).await;
    let before = server.resident_kib();
    let header = |number: usize| format!("GET /{number} HTTP/1.1\r\nHost: gateway\r\nX-Slow: ");
    let mut slow = Vec::new();
    for number in 0..30 {
        let mut stream = server.tcp().await;
        stream.write_all(header(number).as_bytes()).await.expect("the gateway reads");
        slow.push(stream);
    }
    // A message of 60,000 bytes that is announced, and comes byte by byte.
    for number in 0..20 {
        let mut stream = server.upgraded_at(if number % 2 == 0 { "/rpc" } else { "/" }, "").await;
        stream.write_all(&frame(0x81, 60_000, b"{")).await.expect("the gateway reads");
        slow.push(stream);
    }
    let trickles = slow.into_iter().map(|stream| async move {
        let (mut reader, mut writer) = stream.into_split();
        let trickle = async {
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut rest = Vec::new();
        tokio::select! { () = trickle => {}, _ = reader.read_to_end(&mut rest) => {} }
    });
    // A body whose sender has shown the credential, and stops.
    let body = async {
        let mut stream = server.tcp().await;
        let head = format!(
            "POST /rpc HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.expect("the gateway reads");
        assert!(robustness::ended(&mut stream).await.starts_with(b"HTTP/1.1 408 "));
    };
    let all = async { tokio::join!(join_all(trickles), body) };
    soon(async { tokio::join!(all, others_are_served(&server, &mut known)) }).await;
    others_are_served(&server, &mut known).await;
    let growth = server.resident_kib().saturating_sub(before);
    println!("50 slow senders: {growth} KiB");
    assert!(growth <= MOST_GROWTH_KIB, "{growth} KiB");
}
