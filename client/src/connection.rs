//! One connection to a gateway, over either transport, with the limits of its calls.
//!
//! Params are what goes onto the wire: `by_name` has made them so.

use std::{borrow::Cow, fmt, future::Future, sync::Arc, time::Duration};

use jsonrpsee::{core::client::Subscription, types::ErrorObjectOwned};
use openclaw_schema::{Scope, methods};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, header};
use url::{Host, Url};

use crate::{
    error::{Error, TimeoutKind},
    frames::OutcomeReceiver,
    handshake::Greeting,
    http::Http,
    identity::IdentityDir,
    reconnect::{ConnectionState, Lasting, Policy},
    tls::Fingerprint,
    websocket::WebSocket,
};

/// The response header in which a gateway names its version.
pub(crate) const GATEWAY_HEADER: &str = "openclaw-gateway";
/// The request header with the caller's limit per call, in milliseconds.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("openclaw-timeout-ms");
/// The request header that narrows the caller's rights.
const SCOPES_HEADER: HeaderName = HeaderName::from_static("openclaw-scopes");
/// Where a gateway takes calls over HTTP.
const HTTP_PATH: &str = "/rpc";
/// How long a long poll waits when its params do not say: the default that `agent.wait` declares.
const LONG_POLL: Duration = Duration::from_secs(30);

/// Where a gateway is.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Where calls are posted to, over HTTP.
    pub(crate) url: Url,
    /// The URL as errors and logs show it: without the query, which may hold secrets.
    pub(crate) shown: String,
    pub(crate) websocket: bool,
    pub(crate) tls: bool,
    pub(crate) loopback: bool,
    pub(crate) host: Host,
    /// The network interface of a link-local address, by its name or number.
    pub(crate) zone: Option<String>,
    pub(crate) port: u16,
    /// Host and port, as the `Host` header has them.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) target: String,
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        // The text itself is not repeated: it may hold a credential.
        let (plain, zone) = split_zone(text)?;
        let mut url = Url::parse(&plain).map_err(|problem| {
            Error::invalid(format!("the URL of the gateway is not valid: {problem}; write ws://host:port"))
        })?;
        let (websocket, tls) = match url.scheme() {
            "ws" => (true, false),
            "wss" => (true, true),
            "http" => (false, false),
            "https" => (false, true),
            other => {
                let message = format!("a gateway's URL begins with ws, wss, http or https, not `{other}`");
                return Err(Error::invalid(message));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid(
                "a gateway's URL carries no user or password; give the credential apart",
            ));
        }
        url.set_fragment(None);
        if !websocket && matches!(url.path(), "" | "/") {
            url.set_path(HTTP_PATH);
        }
        let host = url.host().map(|host| host.to_owned()).filter(|host| *host != Host::Domain(String::new()));
        let (Some(host), Some(port)) = (host, url.port_or_known_default()) else {
            return Err(Error::invalid("the URL of the gateway names no host; write ws://host:port"));
        };
        let loopback = match &host {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        };
        if zone.is_some() {
            if !matches!(&host, Host::Ipv6(address) if address.is_unicast_link_local()) {
                return Err(Error::invalid(
                    "only an address that begins with fe80: takes the name of an interface behind `%`",
                ));
            }
            if !websocket {
                return Err(Error::invalid(
                    "an address with the name of an interface is spoken to over a WebSocket; write ws:// or wss://",
                ));
            }
        }
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = if url.path() == "/" { "" } else { url.path() };
        let shown = match &zone {
            // As it was given, but for the query.
            Some(zone) => {
                format!("{}://{}{path}", url.scheme(), authority.replacen(']', &format!("%25{zone}]"), 1))
            }
            None => format!("{}://{authority}{path}", url.scheme()),
        };
        Ok(Self { shown, websocket, tls, loopback, host, zone, port, authority, target, url })
    }

    /// Whether others can read what is sent there. Tailscale's addresses (100.64.0.0/10, fd7a:115c:a1e0::/48) and names
    /// are reached through its own encryption.
    pub(crate) fn is_exposed(&self) -> bool {
        let in_tailnet = match &self.host {
            Host::Ipv4(address) => {
                let [first, second, ..] = address.octets();
                first == 100 && (64..128).contains(&second)
            }
            Host::Ipv6(address) => address.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
            Host::Domain(name) => name.ends_with(".ts.net"),
        };
        !self.tls && !self.loopback && !in_tailnet
    }
}

/// A URL without the network interface that its address names, and that interface: `ws://[fe80::1%25eth0]:18789`, as RFC
/// 6874 writes it, or with a plain `%`. A URL parser knows neither.
fn split_zone(text: &str) -> Result<(Cow<'_, str>, Option<String>), Error> {
    let authority = text.find("://").map_or(0, |at| at + 3);
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |at| authority + at);
    let within = |mark| text[authority..end].find(mark).map(|at| authority + at);
    let (Some(percent), Some(close)) = (within('%'), within(']')) else { return Ok((text.into(), None)) };
    if percent > close || within('[').is_none_or(|open| open > percent) {
        return Ok((text.into(), None));
    }
    let written = &text[percent + 1..close];
    let zone = match written.strip_prefix("25") {
        Some(encoded) if !encoded.is_empty() => percent_decoded(encoded),
        _ => Some(written.to_owned()),
    };
    let zone = zone.filter(|zone| !zone.is_empty() && !zone.contains(char::is_control)).ok_or_else(|| {
        Error::invalid("behind `%` the URL names no network interface; write ws://[fe80::1%25eth0]:port")
    })?;
    Ok((format!("{}{}", &text[..percent], &text[close..]).into(), Some(zone)))
}

/// The text that `%XX` stand in; `None` when one does not stand for a byte, or all of it for no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// What a client tells a gateway that speaks OpenClaw frames about itself.
#[derive(Debug, Clone)]
pub(crate) struct ClientInfo {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) version: String,
    pub(crate) platform: String,
}

/// What the handshake of OpenClaw frames needs.
#[derive(Debug)]
pub(crate) struct FrameOptions {
    pub(crate) credential: Option<SecretString>,
    pub(crate) client: ClientInfo,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) identity: Option<IdentityDir>,
}

/// What a connection is set up with.
pub(crate) struct Options {
    /// Headers of every POST, and of the upgrade. Secret values are marked as such.
    pub(crate) headers: HeaderMap,
    pub(crate) connect_timeout: Duration,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) max_response_bytes: usize,
    /// The one certificate, or key, that is trusted.
    pub(crate) tls_fingerprint: Option<Fingerprint>,
    /// For gateways that speak OpenClaw frames.
    pub(crate) frames: FrameOptions,
}

impl Options {
    pub(crate) fn new(
        frames: FrameOptions,
        scopes: Option<&[Scope]>,
        connect_timeout: Duration,
        call_timeout: Option<Duration>,
        max_response_bytes: usize,
        tls_fingerprint: Option<Fingerprint>,
    ) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        if let Some(credential) = &frames.credential {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", credential.expose_secret()))
                .map_err(|_| Error::invalid("the credential holds characters that a header cannot carry"))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        if let Some(limit) = call_timeout {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            headers.insert(TIMEOUT_HEADER, HeaderValue::from(limit_ms.max(1)));
        }
        if let Some(scopes) = scopes {
            let names: Vec<&str> = scopes.iter().map(|scope| scope.name()).collect();
            let names = HeaderValue::from_str(&names.join(",")).expect("scope names are plain ASCII");
            headers.insert(SCOPES_HEADER, names);
        }
        Ok(Self { headers, connect_timeout, call_timeout, max_response_bytes, tls_fingerprint, frames })
    }
}

/// One connection, over either transport.
pub(crate) struct Connection {
    wire: Wire,
    url: String,
    call_timeout: Option<Duration>,
}

#[derive(Debug)]
enum Wire {
    WebSocket(Arc<WebSocket>),
    Lasting(Box<Lasting>),
    Http(Box<Http>),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).field("wire", &self.wire).finish()
    }
}

impl Connection {
    /// Opens a connection. `reconnect` says how it is made anew when it breaks; over HTTP there is none to break.
    pub(crate) async fn open(
        endpoint: Endpoint,
        options: Options,
        reconnect: Option<Policy>,
    ) -> Result<Self, Error> {
        let (url, call_timeout) = (endpoint.shown.clone(), options.call_timeout);
        let wire = match reconnect {
            _ if !endpoint.websocket => Wire::Http(Box::new(Http::new(&endpoint, &options)?)),
            None => Wire::WebSocket(Arc::new(WebSocket::connect(&endpoint, &options).await?)),
            Some(policy) => Wire::Lasting(Box::new(Lasting::connect(endpoint, options, policy).await?)),
        };
        Ok(Self { wire, url, call_timeout })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout
    }

    pub(crate) fn has_subscriptions(&self) -> bool {
        match self.wire {
            Wire::WebSocket(_) | Wire::Lasting(_) => true,
            Wire::Http(_) => false,
        }
    }

    /// Whether another connection takes the place of one that breaks.
    pub(crate) fn reconnects(&self) -> bool {
        matches!(self.wire, Wire::Lasting(_))
    }

    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        match &self.wire {
            Wire::Lasting(lasting) => lasting.state(),
            Wire::WebSocket(_) | Wire::Http(_) => {
                let connected = || ConnectionState::Connected {
                    server_version: self.server_version().map(str::to_owned),
                };
                // The sender goes at once: a receiver without one never changes.
                watch::Sender::new(self.ended().map_or_else(connected, |_| ConnectionState::Closed))
                    .subscribe()
            }
        }
    }

    pub(crate) fn resume(&self) {
        match &self.wire {
            Wire::Lasting(lasting) => lasting.resume(),
            Wire::WebSocket(_) | Wire::Http(_) => {}
        }
    }

    pub(crate) fn server_version(&self) -> Option<&str> {
        match &self.wire {
            Wire::WebSocket(socket) => socket.server_version(),
            Wire::Lasting(lasting) => lasting.server_version(),
            Wire::Http(http) => http.server_version(),
        }
    }

    pub(crate) fn greeting(&self) -> Option<&Greeting> {
        match &self.wire {
            Wire::WebSocket(socket) => socket.greeting(),
            Wire::Lasting(lasting) => lasting.greeting(),
            Wire::Http(_) => None,
        }
    }

    /// Why the connection has ended, if it has and none will follow. Over HTTP there is none to end.
    pub(crate) fn ended(&self) -> Option<Error> {
        match &self.wire {
            Wire::WebSocket(socket) => socket.ended(),
            Wire::Lasting(lasting) => lasting.ended(),
            Wire::Http(_) => None,
        }
    }

    pub(crate) async fn close(&self) {
        match &self.wire {
            Wire::WebSocket(socket) => socket.close().await,
            Wire::Lasting(lasting) => lasting.close().await,
            // Kept connections close when the client is dropped.
            Wire::Http(_) => {}
        }
    }

    /// Calls `method` with the params object, within the limit.
    pub(crate) async fn call(&self, method: &str, params: Option<&RawValue>) -> Result<Box<RawValue>, Error> {
        let limit = self.call_timeout.map(|limit| limit.saturating_add(long_poll(method, params)));
        self.within(limit, async {
            match &self.wire {
                Wire::WebSocket(socket) => socket.request(method, params).await,
                Wire::Lasting(lasting) => lasting.request(method, params).await,
                Wire::Http(http) => http.request(method, params).await,
            }
        })
        .await
    }

    /// Calls a two-phase method. Besides the answer there may be a receiver of the outcome: a gateway that speaks
    /// frames sends it unasked.
    pub(crate) async fn start(
        &self,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, Option<OutcomeReceiver>), Error> {
        match &self.wire {
            Wire::WebSocket(socket) => self.within(self.call_timeout, socket.start(method, params)).await,
            Wire::Lasting(lasting) => self.within(self.call_timeout, lasting.start(method, params)).await,
            Wire::Http(_) => Ok((self.call(method, Some(params)).await?, None)),
        }
    }

    /// Makes several calls at once. The answers come in the order of the calls.
    pub(crate) async fn batch(
        &self,
        calls: Vec<(&str, Option<Box<RawValue>>)>,
    ) -> Result<Vec<Result<Box<RawValue>, ErrorObjectOwned>>, Error> {
        self.within(self.call_timeout, async {
            match &self.wire {
                Wire::WebSocket(socket) => socket.batch(calls).await,
                Wire::Lasting(lasting) => lasting.batch(calls).await,
                Wire::Http(http) => http.batch(&calls).await,
            }
        })
        .await
    }

    /// Sends `method` without asking for an answer.
    pub(crate) async fn notify(&self, method: &str, params: Option<Box<RawValue>>) -> Result<(), Error> {
        self.within(self.call_timeout, async {
            match &self.wire {
                Wire::WebSocket(socket) => socket.notify(method, params).await,
                Wire::Lasting(lasting) => lasting.notify(method, params).await,
                Wire::Http(http) => http.notify(method, params.as_deref()).await,
            }
        })
        .await
    }

    pub(crate) async fn subscribe<N: DeserializeOwned>(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
        unsubscribe: &str,
    ) -> Result<Subscription<N>, Error> {
        Ok(self.subscribe_on(method, params, unsubscribe).await?.0)
    }

    /// As [`Connection::subscribe`]; also says which socket the subscription ends with.
    pub(crate) async fn subscribe_on<N: DeserializeOwned>(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
        unsubscribe: &str,
    ) -> Result<(Subscription<N>, Arc<WebSocket>), Error> {
        self.within(self.call_timeout, async {
            match &self.wire {
                Wire::WebSocket(socket) => {
                    Ok((socket.subscribe(method, params, unsubscribe).await?, Arc::clone(socket)))
                }
                Wire::Lasting(lasting) => lasting.subscribe(method, params, unsubscribe).await,
                Wire::Http(_) => Err(Error::no_subscriptions_over_http()),
            }
        })
        .await
    }

    pub(crate) async fn subscribe_to_method<N: DeserializeOwned>(
        &self,
        method: &str,
    ) -> Result<Subscription<N>, Error> {
        self.within(self.call_timeout, async {
            match &self.wire {
                Wire::WebSocket(socket) => socket.subscribe_to_method(method).await,
                Wire::Lasting(lasting) => lasting.subscribe_to_method(method).await,
                Wire::Http(_) => Err(Error::no_subscriptions_over_http()),
            }
        })
        .await
    }

    async fn within<T>(
        &self,
        limit: Option<Duration>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(limit) = limit else { return call.await };
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            // A call that was out when the connection broke has failed by itself: this one waited to go out.
            let waited = match &self.wire {
                Wire::Lasting(lasting) => lasting.is_down(),
                Wire::WebSocket(_) | Wire::Http(_) => false,
            };
            let what = if waited { TimeoutKind::Reconnect } else { TimeoutKind::Call };
            Err(Error::Timeout { what, after: limit })
        })
    }
}

/// How much longer than other calls this one may take, because its params ask the gateway to wait.
fn long_poll(method: &str, params: Option<&RawValue>) -> Duration {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wait {
        timeout_ms: Option<u64>,
    }
    if !methods::find(method).is_some_and(|record| record.long_poll) {
        return Duration::ZERO;
    }
    let wait: Option<Wait> = params.and_then(|params| serde_json::from_str(params.get()).ok());
    wait.and_then(|wait| wait.timeout_ms).map_or(LONG_POLL, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).expect("the URL is valid")
    }

    #[test]
    fn the_scheme_chooses_the_transport_and_http_has_a_default_path() {
        let socket = endpoint("ws://127.0.0.1:18999");
        assert!(socket.websocket && !socket.tls && socket.loopback);
        assert_eq!((socket.target.as_str(), socket.authority.as_str()), ("/", "127.0.0.1:18999"));
        let secure = endpoint("wss://gateway.example/x?y=z");
        assert!(secure.websocket && secure.tls && !secure.loopback);
        assert_eq!(
            (secure.target.as_str(), secure.port, secure.authority.as_str()),
            ("/x?y=z", 443, "gateway.example")
        );
        assert_eq!(endpoint("http://localhost:1").url.as_str(), "http://localhost:1/rpc");
        assert_eq!(endpoint("https://[::1]:1/other").url.as_str(), "https://[::1]:1/other");
        for (url, exposed) in [
            ("ws://192.168.1.2:1", true),
            ("http://host.example:1", true),
            ("wss://192.168.1.2:1", false),
            ("ws://100.101.102.103:1", false),
            ("ws://[fd7a:115c:a1e0::1]:1", false),
            ("ws://host.tail1234.ts.net:1", false),
            ("ws://127.0.0.1:1", false),
        ] {
            assert_eq!(endpoint(url).is_exposed(), exposed, "{url}");
        }
        assert!(endpoint("https://[::1]:1").loopback && endpoint("ws://a.localhost").loopback);
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused_without_repeating_them() {
        for url in
            ["", "127.0.0.1:18999", "ftp://host", "ws://", "ws://user:hunter2@host", "ws://:hunter2@host:x"]
        {
            let error = Endpoint::parse(url).expect_err("the URL cannot be used");
            assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        assert_eq!(endpoint("wss://host/path?token=hunter2").shown, "wss://host/path");
    }

    #[test]
    fn a_link_local_address_names_its_interface() {
        for (url, zone, shown) in [
            ("ws://[fe80::1%25eth0]:18789/", "eth0", "ws://[fe80::1%25eth0]:18789"),
            ("ws://[fe80::1%eth0]:18789", "eth0", "ws://[fe80::1%25eth0]:18789"),
            ("wss://[fe80::1%25eth%200]/x", "eth 0", "wss://[fe80::1%25eth 0]/x"),
            ("ws://[fe80::1%2]:1", "2", "ws://[fe80::1%252]:1"),
        ] {
            let found = endpoint(url);
            assert_eq!((found.zone.as_deref(), found.shown.as_str()), (Some(zone), shown));
            // The interface is this machine's business alone.
            assert!(!found.authority.contains('%'), "{}", found.authority);
        }
        assert_eq!(endpoint("ws://host/%25eth0]").zone, None);
        for (url, part) in [
            ("ws://[fe80::1%]:1", "no network interface"),
            ("ws://[fe80::1%25%zz]:1", "no network interface"),
            ("ws://[::1%25lo]:1", "begins with fe80:"),
            ("http://[fe80::1%25eth0]:1", "over a WebSocket"),
        ] {
            let error = Endpoint::parse(url).expect_err("the URL cannot be used").to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn a_long_poll_may_take_as_much_longer_as_it_asks_for() {
        let params = |text: &str| RawValue::from_string(text.to_owned()).expect("the params are JSON");
        let given = params(r#"{"runId":"k","timeoutMs":45000}"#);
        assert_eq!(long_poll("agent.wait", Some(&given)), Duration::from_secs(45));
        assert_eq!(long_poll("agent.wait", Some(&params(r#"{"runId":"k"}"#))), LONG_POLL);
        assert_eq!(long_poll("health", None), Duration::ZERO);
    }
}
