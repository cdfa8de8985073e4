//! TLS on the port: pinned by certificate or by key, refused otherwise, over every transport of the client.

use openclaw_client::{AgentRequest, Client, Error, Fingerprint};
use openclaw_gateway::tls::TlsSettings;
use openclaw_schema::client::GatewayClient as _;
use openclaw_tests::harness::{TOKEN, TestGateway};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn encrypted() -> TestGateway {
    let change = |settings: &mut openclaw_gateway::settings::Settings| {
        let directory = settings.state.gateway_dir().join("tls");
        settings.tls = Some(TlsSettings {
            certificate: directory.join("gateway-cert.pem"),
            key: directory.join("gateway-key.pem"),
            generate: true,
        });
    };
    TestGateway::start_with(change, |builder| builder).await
}

fn pins(gateway: &TestGateway) -> [Fingerprint; 2] {
    let pins = gateway.gateway().tls_fingerprints().expect("the port speaks TLS");
    [pins.certificate, pins.public_key].map(|pin| pin.parse().expect("it is a digest"))
}

/// Calls over TLS, and says why that failed.
async fn call(url: &str, pin: Option<Fingerprint>) -> Result<bool, Error> {
    let mut builder = Client::builder(url).credential(TOKEN.into());
    if let Some(pin) = pin {
        builder = builder.tls_fingerprint(pin);
    }
    let client = builder.connect().await?;
    Ok(client.health(Default::default()).await?.parse().is_ok_and(|health| health.ok))
}

#[tokio::test]
async fn a_pinned_certificate_or_key_is_trusted_over_every_transport() {
    let gateway = encrypted().await;
    for scheme in ["wss", "https"] {
        let url = format!("{scheme}://{}", gateway.address());
        for pin in pins(&gateway) {
            assert!(call(&url, Some(pin)).await.expect("it is trusted"), "{url}");
        }
    }
    let url = format!("wss://localhost:{}", gateway.address().port());
    let pin = pins(&gateway)[0];
    let client = Client::builder(url).credential(TOKEN.into()).tls_fingerprint(pin).connect().await;
    let client = client.expect("it is trusted");
    let run = client.run_agent(AgentRequest::new("hello").build().expect("fine")).await.expect("accepted");
    assert_eq!(run.outcome().await.expect("it ends").summary, "completed");
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused_with_both_digests() {
    let gateway = encrypted().await;
    let [certificate, _] = pins(&gateway);
    let other: Fingerprint = "00".repeat(32).parse().expect("it is a digest");
    for scheme in ["wss", "https"] {
        let url = format!("{scheme}://{}", gateway.address());
        match call(&url, Some(other)).await {
            Err(Error::Untrusted { shown, expected, .. }) => {
                assert_eq!((shown, expected), (certificate, Some(other)));
            }
            answer => panic!("{url}: {answer:?}"),
        }
        match call(&url, None).await {
            Err(Error::Untrusted { shown, expected, reason, .. }) => {
                assert_eq!((shown, expected), (certificate, None), "{reason}");
            }
            answer => panic!("{url}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn plain_http_on_an_encrypted_port_is_told_to_use_tls() {
    let gateway = encrypted().await;
    let mut stream = TcpStream::connect(gateway.address()).await.expect("it listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is text");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS"), "{answer}");

    let plain = call(&gateway.url(), None).await.expect_err("it is plain").to_string();
    assert!(plain.contains("this port speaks TLS"), "{plain}");
}

#[tokio::test]
async fn tls_on_a_plain_port_is_an_error_and_nobody_hangs() {
    let gateway = TestGateway::start().await;
    let url = format!("wss://{}", gateway.address());
    let error = call(&url, None).await.expect_err("the port is plain").to_string();
    assert!(error.contains("TLS failed"), "{error}");
    assert!(call(&gateway.url(), None).await.expect("it goes on"));
}

#[tokio::test]
async fn a_plain_address_of_another_host_is_refused_before_anything_is_sent() {
    let refused = Client::connect("ws://192.0.2.1:18789", Some(TOKEN.into())).await;
    assert!(
        matches!(&refused, Err(Error::InvalidInput { message, .. }) if message.contains("is plain")),
        "{refused:?}"
    );
}
