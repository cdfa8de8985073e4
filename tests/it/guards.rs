//! Browsers, proxies and guessers: who is turned away, over every way in, before or because of a credential.

use futures_util::future::join_all;
use openclaw_schema::methods::{connect::ConnectMethod, gateway::GatewayMethod};
use openclaw_tests::harness::{Socket, TOKEN, TestGateway, soon};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Error;

use crate::frames::{self, command_line, open_with};

/// An origin that the gateways here trust.
const LISTED: &str = "https://ui.example.com";
const READ: &str = r#"{"jsonrpc":"2.0","id":1,"method":"agents.list"}"#;

type Headers = Vec<(&'static str, String)>;

fn borrowed(headers: &Headers) -> Vec<(&'static str, &str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

fn connect(auth: &Value) -> String {
    let params = json!({ "auth": auth });
    json!({ "jsonrpc": "2.0", "id": 1, "method": ConnectMethod::Connect.name(), "params": params })
        .to_string()
}

/// The HTTP status of an upgrade, and the body of one that is refused.
async fn upgrade(gateway: &TestGateway, path: &str, headers: &Headers) -> (u16, Value) {
    match gateway.websocket_with(path, &borrowed(headers)).await.map_err(|error| *error) {
        Ok(_) => (101, Value::Null),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            (response.status().as_u16(), serde_json::from_slice(body).unwrap_or_default())
        }
        Err(other) => panic!("no HTTP answer: {other}"),
    }
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    let frame = soon(socket.closed()).await.expect("a close frame comes");
    (frame.code.into(), frame.reason.as_str().to_owned())
}

async fn trusting(origins: &[&str], proxies: &[&str]) -> TestGateway {
    let change = |settings: &mut openclaw_gateway::settings::Settings| {
        settings.trust.origins = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
        settings.trust.proxies = proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect();
    };
    TestGateway::start_with(change, |builder| builder).await
}

/// What the guard makes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It comes to the credential.
    Passes,
    /// It comes from another site, and says from which.
    Foreign,
    /// It comes from another site, and does not say from which.
    Nameless,
    /// It names the gateway by a name that may be anyone's.
    Rebound,
}

#[tokio::test]
async fn a_page_passes_by_origin_host_and_fetch_site_whatever_its_credential_is() {
    use Verdict::{Foreign, Nameless, Passes, Rebound};
    let gateway = trusting(&[LISTED], &[]).await;
    let port = gateway.address().port();
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Host, Origin (`own`: the same as Host), Sec-Fetch-Site.
    let rows: &[(&str, Option<&str>, Option<&str>, Verdict)] = &[
        ("127.0.0.1", Some("own"), None, Passes),
        ("127.0.0.1", Some("own"), Some("same-origin"), Passes),
        ("127.0.0.1", Some("own"), Some("same-site"), Passes),
        ("127.0.0.1", Some("own"), Some("cross-site"), Foreign),
        ("127.0.0.1", None, Some("none"), Passes),
        ("127.0.0.1", None, Some("same-origin"), Passes),
        ("127.0.0.1", None, Some("same-site"), Nameless),
        ("127.0.0.1", None, Some("cross-site"), Nameless),
        ("127.0.0.1", Some("https://evil.example"), None, Foreign),
        ("127.0.0.1", Some("https://evil.example"), Some("same-origin"), Foreign),
        ("127.0.0.1", Some("http://localhost"), Some("same-site"), Foreign),
        ("127.0.0.1", Some("null"), Some("cross-site"), Foreign),
        ("127.0.0.1", Some(LISTED), Some("cross-site"), Passes),
        ("127.0.0.1", Some("https://ui.example.com.evil.example"), None, Foreign),
        ("[::1]", Some("own"), None, Passes),
        ("192.0.2.7", Some("own"), None, Passes),
        ("localhost", Some("own"), Some("same-origin"), Passes),
        ("ui.localhost", Some("own"), None, Passes),
        ("box.tail1234.ts.net", Some("own"), None, Passes),
        (&hostname, Some("own"), Some("same-origin"), Passes),
        ("ui.example.com", Some("own"), None, Passes),
        ("evil.example", Some("own"), Some("same-origin"), Rebound),
        ("evil.example", Some("own"), None, Rebound),
        ("evil.example", None, Some("same-origin"), Rebound),
        ("evil.example", Some(LISTED), Some("cross-site"), Rebound),
        ("localhost.evil.example", Some("own"), None, Rebound),
        // Programs send neither: they are not asked for the name.
        ("evil.example", None, None, Passes),
    ];
    for (host, origin, site, verdict) in rows {
        let host = format!("{host}:{port}");
        let mut page: Headers = vec![("host", host.clone())];
        page.extend(origin.map(|origin| {
            ("origin", if origin == "own" { format!("http://{host}") } else { origin.to_owned() })
        }));
        page.extend(site.map(|site| ("sec-fetch-site", site.to_owned())));
        // A wrong secret stands before the right one, which clears the count of failures.
        for (secret, let_in) in [(None, false), (Some("wrong"), false), (Some(TOKEN), true)] {
            let what = format!("{host} {origin:?} {site:?} {secret:?}");
            let mut headers = page.clone();
            headers.extend(secret.map(|secret| ("authorization", format!("Bearer {secret}"))));
            let (status, body) = upgrade(&gateway, "/rpc", &headers).await;
            let post = gateway.http("POST", "/rpc", &borrowed(&headers), READ).await;
            assert_eq!(post.header("access-control-allow-origin"), "", "{what}");
            if *verdict == Passes {
                assert_eq!(post.status, if let_in { 200 } else { 401 }, "{what}");
                // Without a credential the upgrade waits for `connect`.
                assert_eq!(status, if secret == Some("wrong") { 401 } else { 101 }, "{what}");
            } else {
                let reason = if *verdict == Rebound { "host not allowed" } else { "origin not allowed" };
                for (status, body) in [(status, body), (post.status, post.json())] {
                    assert_eq!(
                        (status, &body["error"]["data"]["code"]),
                        (403, &json!("FORBIDDEN")),
                        "{what}"
                    );
                    let message = body["error"]["message"].as_str().expect("a message");
                    assert!(
                        message.starts_with(reason) && message.contains("allowedOrigins"),
                        "{what}: {message}"
                    );
                }
            }

            // Frames: the secret is in `connect`, and a page that says whence it comes is answered there.
            match verdict {
                Passes | Foreign => {
                    let mut params = command_line(&["operator.read"]);
                    params["auth"] = secret.map_or(json!({}), |secret| json!({ "token": secret }));
                    let (mut socket, _) = open_with(&gateway, &borrowed(&page)).await;
                    let answer = soon(socket.ask(frames::connect(&params))).await;
                    assert_eq!(answer["ok"], *verdict == Passes && let_in, "{what}: {answer}");
                    if *verdict == Foreign {
                        let details = json!({ "code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": "origin not allowed" });
                        assert_eq!(answer["error"]["details"], details, "{what}");
                        assert_eq!(closed(&mut socket).await.0, 1008, "{what}");
                    }
                }
                Nameless | Rebound => {
                    assert_eq!(upgrade(&gateway, "/", &page).await.0, 403, "{what}");
                }
            }
        }
        // What everyone may read is not for scripts of other sites either; a link there is no harm.
        let read = gateway.http("GET", "/openrpc.json", &borrowed(&page), "").await.status;
        assert_eq!(read, if matches!(verdict, Passes | Nameless) { 200 } else { 403 }, "{page:?}");
    }
}

#[tokio::test]
async fn foreign_pages_do_not_take_the_places_of_those_who_wait_to_authenticate() {
    let gateway = TestGateway::with_limits(|limits| limits.max_unauthenticated = 4).await;
    let foreign = vec![("origin", "https://evil.example".to_owned())];
    let _first = open_with(&gateway, &borrowed(&foreign)).await;
    let _second = open_with(&gateway, &borrowed(&foreign)).await;
    assert_eq!(upgrade(&gateway, "/", &foreign).await.0, 403, "half of the places are taken");
    let (mut socket, _) = frames::open(&gateway).await;
    assert_eq!(soon(socket.ask(frames::connect(&command_line(&[])))).await["ok"], true);
}

#[tokio::test]
async fn a_proxy_that_nobody_vouches_for_is_turned_away_and_probes_are_answered() {
    let gateway = TestGateway::start().await;
    for header in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"] {
        let headers: Headers =
            vec![(header, "10.1.2.3".to_owned()), ("authorization", format!("Bearer {TOKEN}"))];
        let (status, body) = upgrade(&gateway, "/", &headers).await;
        assert_eq!((status, &body["error"]["type"]), (403, &json!("proxy_attribution_required")), "{header}");
        let (status, body) = upgrade(&gateway, "/rpc", &headers).await;
        assert_eq!((status, &body["error"]["data"]["code"]), (403, &json!("FORBIDDEN")), "{header}");
        let post = gateway.http("POST", "/rpc", &borrowed(&headers), READ).await;
        assert_eq!(post.status, 403, "{header}");
        assert!(post.text().contains("gateway.trustedProxies"), "{}", post.text());
        assert_eq!(gateway.http("GET", "/healthz", &borrowed(&headers), "").await.status, 200, "{header}");
    }
}

#[tokio::test]
async fn who_comes_through_a_trusted_proxy_is_not_local() {
    let gateway = trusting(&[], &["127.0.0.1"]).await;
    let through = [("x-forwarded-for", "10.1.2.3")];
    // Without the headers it is a program beside the proxy.
    let (_, hello) = frames::connected(&gateway, &command_line(&["operator.read"])).await;
    assert_eq!(hello["auth"]["scopes"], json!(["operator.read"]));
    let (mut socket, _) = open_with(&gateway, &through).await;
    let hello = soon(socket.ask(frames::connect(&command_line(&["operator.read"])))).await;
    assert_eq!((&hello["ok"], &hello["payload"]["auth"]["scopes"]), (&json!(true), &json!([])), "{hello}");

    // Nobody is paired without being asked, and the one who asks is named by the client's address.
    let device = frames::Device::new(1);
    let (_, answer) = device.connect_with(&gateway, &command_line(&["operator.read"]), &through).await;
    assert_eq!(answer["error"]["details"]["reason"], "not-paired", "{answer}");
    let listed = gateway.call("device.pair.list", json!({})).await;
    assert_eq!(listed["result"]["pending"][0]["remoteIp"], "10.1.2.3", "{listed}");
    for chain in ["", "unknown", "127.0.0.1"] {
        let headers = vec![("x-forwarded-for", chain.to_owned())];
        assert_eq!(upgrade(&gateway, "/", &headers).await.0, 403, "{chain:?}");
    }
}

#[tokio::test]
async fn guesses_are_counted_over_every_way_in_and_lock_the_address_out() {
    let gateway = trusting(&[], &["127.0.0.1"]).await;
    let wrong = [("authorization", "Bearer wrong")];
    let right = format!("Bearer {TOKEN}");
    // From its own host it may guess as it likes: ten and more, at the same time.
    let local = join_all((0..12).map(|_| gateway.http("POST", "/rpc", &wrong, READ))).await;
    assert!(local.iter().all(|answer| answer.status == 401));

    // Four, three and three: by header, by `connect` of JSON-RPC, by `connect` of frames.
    let through = [("x-forwarded-for", "10.1.2.3")];
    let by_header = [through[0], wrong[0]];
    let headers = join_all((0..4).map(|_| gateway.http("POST", "/rpc", &by_header, READ)));
    let jsonrpc = join_all((0..3).map(|_| async {
        let mut socket = gateway.websocket_with("/rpc", &through).await.expect("the upgrade is accepted");
        let answer = socket.ask(connect(&json!({ "token": "wrong" }))).await;
        (answer, closed(&mut socket).await)
    }));
    let by_frames = join_all((0..3).map(|_| async {
        let mut params = command_line(&[]);
        params["auth"] = json!({ "token": "wrong" });
        let (mut socket, _) = open_with(&gateway, &through).await;
        soon(socket.ask(frames::connect(&params))).await
    }));
    let (headers, jsonrpc, by_frames) = tokio::join!(headers, jsonrpc, by_frames);
    assert!(headers.iter().all(|answer| answer.status == 401));
    for (answer, close) in jsonrpc {
        assert_eq!(answer["error"]["message"], "unauthorized: gateway token mismatch");
        assert_eq!(close, (1008, "unauthorized".to_owned()), "the answer comes before the close");
    }
    assert!(by_frames.iter().all(|answer| answer["error"]["details"]["code"] == "AUTH_TOKEN_MISMATCH"));

    // The right secret is refused too, and told how long to wait.
    let by_header = gateway.http("POST", "/rpc", &[through[0], ("authorization", &right)], READ).await;
    assert_eq!(by_header.status, 429);
    let seconds: u64 = by_header.header("retry-after").parse().expect("seconds");
    assert!((290..=300).contains(&seconds), "{seconds}");
    let mut socket = gateway.websocket_with("/rpc", &through).await.expect("the upgrade is accepted");
    let answer = socket.ask(connect(&json!({ "token": TOKEN }))).await;
    let data = &answer["error"]["data"];
    assert_eq!((&data["code"], &data["retryable"]), (&json!("RATE_LIMITED"), &json!(true)), "{answer}");
    assert!((290_000..=300_000).contains(&data["retryAfterMs"].as_u64().expect("a number")), "{answer}");
    assert_eq!(closed(&mut socket).await, (1008, "unauthorized".to_owned()));

    // Another client of the same proxy, and the host itself, go on.
    let other = [("x-forwarded-for", "10.1.2.4"), ("authorization", right.as_str())];
    assert_eq!(gateway.http("POST", "/rpc", &other, READ).await.status, 200);
    assert_eq!(gateway.http("POST", "/rpc", &other[1..], READ).await.status, 200);
}

#[tokio::test]
async fn a_page_is_locked_out_on_loopback_too() {
    let gateway = TestGateway::start().await;
    let own = format!("http://{}", gateway.address());
    let wrong = [("origin", own.as_str()), ("authorization", "Bearer wrong")];
    let answers = join_all((0..10).map(|_| gateway.http("POST", "/rpc", &wrong, READ))).await;
    assert!(answers.iter().all(|answer| answer.status == 401));
    let bearer = format!("Bearer {TOKEN}");
    let right = [("origin", own.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(gateway.http("POST", "/rpc", &right, READ).await.status, 429);
    assert_eq!(gateway.http("POST", "/rpc", &right[1..], READ).await.status, 200);
}

#[tokio::test]
async fn the_answer_to_a_wrong_secret_is_held_back_and_nobody_else_waits() {
    let gateway = TestGateway::start().await;
    let held_back = Duration::from_millis(250);
    let mut known = gateway.websocket().await;
    let begun = Instant::now();
    let by_header = async {
        let status = gateway.http("POST", "/rpc", &[("authorization", "Bearer wrong")], READ).await.status;
        (status, begun.elapsed())
    };
    let by_connect = async {
        let mut socket = gateway.websocket_with("/rpc", &[]).await.expect("the upgrade is accepted");
        let wrong = connect(&json!({ "token": "wrong" }));
        // Whatever comes behind the guess is not served.
        socket.send(wrong).await;
        socket.send(connect(&json!({ "token": TOKEN }))).await;
        let answer = socket.next_json().await;
        assert_eq!(closed(&mut socket).await.0, 1008);
        (answer["error"]["data"]["code"].clone(), begun.elapsed())
    };
    let by_frames = async {
        let mut params = command_line(&[]);
        params["auth"] = json!({ "password": "wrong" });
        let (mut socket, _) = frames::open(&gateway).await;
        let answer = soon(socket.ask(frames::connect(&params))).await;
        (answer["error"]["details"]["code"].clone(), begun.elapsed())
    };
    let health = json!({ "jsonrpc": "2.0", "id": 1, "method": GatewayMethod::Health.name() }).to_string();
    let answered = known.ask(health).await;
    assert!(answered["result"].is_object(), "{answered}");
    let (by_header, by_connect, by_frames) = tokio::join!(by_header, by_connect, by_frames);
    assert_eq!(by_header.0, 401);
    assert_eq!(by_connect.0, "UNAUTHORIZED");
    assert_eq!(by_frames.0, "AUTH_TOKEN_MISMATCH");
    for waited in [by_header.1, by_connect.1, by_frames.1] {
        assert!(waited >= held_back, "{waited:?}");
    }
}
