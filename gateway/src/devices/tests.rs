//! The auth table of wire.md section 4 and the pairing matrix of section 6, row by row.

use std::sync::atomic::AtomicU64;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use openclaw_schema::{ErrorCode, methods::connect::ConnectAuth};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{proof::DeviceProof, *};
use crate::{
    caller::Caller,
    settings::{Auth, LockoutLimits},
};

const NONCE: &str = "e23ecc68-6e2c-4a19-8c24-65852e98f4e1";
const NOW: u64 = 1_795_339_864_269;
const ADMIN: &[&str] = &["operator.admin"];
const READ: &[&str] = &["operator.read"];

struct Bench {
    devices: Devices,
    events: EventBus,
    time: Arc<AtomicU64>,
    auth: Auth,
    directory: TempDir,
}

impl Bench {
    fn new(auth: Auth) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (events, time) = (EventBus::new(), Arc::new(AtomicU64::new(NOW)));
        let devices = devices(&directory, &auth, &events, &time);
        Self { devices, events, time, auth, directory }
    }

    fn token() -> Self {
        Self::new(Auth::Token("secret".into()))
    }

    /// The same gateway after a restart.
    fn reopened(self) -> Self {
        let devices = devices(&self.directory, &self.auth, &self.events, &self.time);
        Self { devices, ..self }
    }

    fn advance(&self, millis: u64) {
        self.time.fetch_add(millis, Ordering::Relaxed);
    }

    async fn try_connect(&self, attempt: Attempt) -> Result<Grant, Refusal> {
        self.devices.authorize(&attempt.signed(self.time.load(Ordering::Relaxed))).await
    }

    async fn connect(&self, attempt: Attempt) -> Grant {
        self.try_connect(attempt).await.expect("it is let in")
    }

    async fn refused(&self, attempt: Attempt) -> Refusal {
        self.try_connect(attempt).await.expect_err("it is refused")
    }

    async fn refused_for(&self, attempt: Attempt) -> String {
        let refusal = self.refused(attempt).await;
        let details = refusal.details.expect("it has details");
        assert_eq!(details.code, "PAIRING_REQUIRED", "{}", refusal.message);
        details.reason.expect("pairing has a reason").to_owned()
    }

    async fn request_id(&self, attempt: Attempt) -> String {
        let details = self.refused(attempt).await.details.expect("it has details");
        details.request_id.expect("pairing has a request")
    }
}

fn devices(directory: &TempDir, auth: &Auth, events: &EventBus, time: &Arc<AtomicU64>) -> Devices {
    let mut devices = Devices::new(
        Store::new(directory.path().join("gateway.sqlite")),
        CurrentAuth::new(auth),
        Arc::new(Lockout::new(LockoutLimits::default())),
        events.clone(),
        true,
    );
    let time = Arc::clone(time);
    devices.clock = Arc::new(move || TimestampMs(time.load(Ordering::Relaxed)));
    devices
}

/// A connect: by default of the CLI on the gateway's host, with the right token, without a device.
#[derive(Clone)]
struct Attempt {
    attempt: ConnectAttempt,
    key: Option<u8>,
}

fn cli() -> Attempt {
    let attempt = ConnectAttempt {
        client: Metadata {
            client_id: "cli".to_owned(),
            client_mode: "cli".to_owned(),
            platform: Some("linux".to_owned()),
            ..Metadata::default()
        },
        role: Role::Operator,
        scopes: READ.iter().map(|scope| (*scope).to_owned()).collect(),
        auth: ConnectAuth { token: Some("secret".to_owned()), ..ConnectAuth::default() },
        proof: None,
        nonce: NONCE.to_owned(),
        caller: Caller::at([127, 0, 0, 1].into()),
        protocol: Protocol::V4,
    };
    Attempt { attempt, key: None }
}

/// The same with a device.
fn device() -> Attempt {
    Attempt { key: Some(1), ..cli() }
}

impl Attempt {
    fn edit(mut self, edit: impl FnOnce(&mut ConnectAttempt)) -> Self {
        edit(&mut self.attempt);
        self
    }

    fn client(self, id: &str, mode: &str) -> Self {
        self.edit(|attempt| {
            attempt.client.client_id = id.to_owned();
            attempt.client.client_mode = mode.to_owned();
        })
    }

    fn platform(self, platform: &str) -> Self {
        self.edit(|attempt| attempt.client.platform = Some(platform.to_owned()))
    }

    fn scopes(self, scopes: &[&str]) -> Self {
        self.edit(|attempt| attempt.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect())
    }

    fn role(self, role: Role) -> Self {
        self.edit(|attempt| attempt.role = role)
    }

    fn auth(self, auth: ConnectAuth) -> Self {
        self.edit(|attempt| attempt.auth = auth)
    }

    fn with_token(self, token: &str) -> Self {
        self.auth(ConnectAuth { token: Some(token.to_owned()), ..ConnectAuth::default() })
    }

    fn with_device_token(self, token: &str) -> Self {
        self.auth(ConnectAuth { device_token: Some(token.to_owned()), ..ConnectAuth::default() })
    }

    fn with_password(self, password: &str) -> Self {
        self.auth(ConnectAuth { password: Some(password.to_owned()), ..ConnectAuth::default() })
    }

    fn without_credential(self) -> Self {
        self.auth(ConnectAuth::default())
    }

    fn remote(self) -> Self {
        self.edit(|attempt| attempt.caller = Caller::at([192, 0, 2, 7].into()))
    }

    fn key(self, key: u8) -> Self {
        Self { key: Some(key), ..self }
    }

    fn signed(self, now: u64) -> ConnectAttempt {
        let Self { mut attempt, key } = self;
        if let Some(key) = key {
            let key = SigningKey::from_bytes(&[key; 32]);
            let public = key.verifying_key().to_bytes();
            let id = hex(&Sha256::digest(public));
            let payload = format!(
                "v2|{id}|{}|{}|{}|{}|{now}|{}|{NONCE}",
                attempt.client.client_id,
                attempt.client.client_mode,
                attempt.role.name(),
                attempt.scopes.join(","),
                attempt.signed_token(),
            );
            attempt.proof = Some(DeviceProof {
                id,
                public_key: URL_SAFE_NO_PAD.encode(public),
                signature: URL_SAFE_NO_PAD.encode(key.sign(payload.as_bytes()).to_bytes()),
                signed_at: TimestampMs(now),
                nonce: NONCE.to_owned(),
            });
        }
        attempt
    }
}

fn device_id(key: u8) -> String {
    hex(&Sha256::digest(SigningKey::from_bytes(&[key; 32]).verifying_key().to_bytes()))
}

fn token_of(grant: &Grant) -> String {
    grant.device_token.clone().expect("it got a token").value
}

/// Top-level code, message and details, as the answer carries them.
fn told(refusal: &Refusal) -> (&'static str, &str, Value) {
    let details = serde_json::to_value(&refusal.details).expect("details serialise");
    (refusal.code.name(), &refusal.message, details)
}

#[tokio::test]
async fn a_wrong_or_missing_secret_is_told_with_the_next_step() {
    let bench = Bench::token();
    let mismatch = bench.refused(cli().with_token("wrong")).await;
    assert_eq!(
        told(&mismatch),
        (
            "INVALID_REQUEST",
            "unauthorized: gateway token mismatch (provide gateway auth token)",
            json!({
                "code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch",
                "canRetryWithDeviceToken": false, "recommendedNextStep": "update_auth_credentials",
            })
        )
    );
    assert_eq!(mismatch.close_reason(), mismatch.message);

    let with_device = bench.refused(device().with_token("wrong")).await;
    let (_, message, details) = told(&with_device);
    assert!(message.starts_with("unauthorized: gateway token mismatch ("), "{message}");
    assert_eq!(
        details,
        json!({
            "code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch",
            "canRetryWithDeviceToken": true, "recommendedNextStep": "retry_with_device_token",
        })
    );

    let nothing = bench.refused(cli().without_credential()).await;
    assert_eq!(
        told(&nothing),
        ("NOT_PAIRED", "device identity required", json!({ "code": "DEVICE_IDENTITY_REQUIRED" }))
    );

    let missing = bench.refused(device().without_credential()).await;
    let (code, message, details) = told(&missing);
    assert!(message.starts_with("unauthorized: gateway token missing ("), "{message}");
    assert_eq!((code, &details["code"]), ("INVALID_REQUEST", &json!("AUTH_TOKEN_MISSING")));
    assert_eq!(details["authReason"], "token_missing");
    assert_eq!(details["recommendedNextStep"], "update_auth_configuration");
}

#[tokio::test]
async fn in_password_mode_the_same_holds_for_the_password() {
    let bench = Bench::new(Auth::Password("secret".into()));
    let mismatch = bench.refused(cli().with_password("wrong")).await.details.expect("it has details");
    assert_eq!((mismatch.code, mismatch.auth_reason), ("AUTH_PASSWORD_MISMATCH", Some("password_mismatch")));
    let missing = bench.refused(device().without_credential()).await.details.expect("it has details");
    assert_eq!((missing.code, missing.auth_reason), ("AUTH_PASSWORD_MISSING", Some("password_missing")));
    let both = |token: &str, password: &str| {
        cli().auth(ConnectAuth {
            token: Some(token.to_owned()),
            password: Some(password.to_owned()),
            ..ConnectAuth::default()
        })
    };
    assert_eq!(bench.connect(both("wrong", "secret")).await.credential.name(), "password");
    bench.refused(both("secret", "wrong")).await;
    bench.connect(cli().with_token("secret")).await;
}

#[tokio::test]
async fn without_a_device_two_clients_keep_their_scopes() {
    let bench = Bench::token();
    for (id, mode, kept) in [
        ("cli", "cli", true),
        ("gateway-client", "backend", true),
        ("cli", "ui", false),
        ("cli", "probe", false),
        ("gateway-client", "cli", false),
        ("openclaw-macos", "ui", false),
        ("test", "test", false),
        ("node-host", "node", false),
    ] {
        let grant = bench.connect(cli().client(id, mode)).await;
        assert_eq!(!grant.scopes.is_empty(), kept, "{id}/{mode}");
        assert_eq!((grant.credential.name(), grant.device_token, grant.device_id), ("token", None, None));
        assert!(bench.connect(cli().client(id, mode).remote()).await.scopes.is_empty(), "{id}/{mode} remote");
    }
    let old = cli().client("gateway-client", "cli").edit(|attempt| attempt.protocol = Protocol::V3);
    assert_eq!(bench.connect(old).await.scopes, READ);
    for (id, mode) in
        [("openclaw-tui", "cli"), ("openclaw-control-ui", "ui"), ("webchat", "ui"), ("cli", "webchat")]
    {
        let page = |attempt: &mut ConnectAttempt| attempt.caller.page = Page::Own;
        let refusal = bench.refused(cli().client(id, mode).edit(page)).await;
        let details = refusal.details.expect("it has details");
        assert_eq!(
            (refusal.code, details.code),
            (ErrorCode::InvalidRequest, "CONTROL_UI_DEVICE_IDENTITY_REQUIRED")
        );
    }
    assert_eq!(bench.refused(cli().role(Role::Node)).await, Refusal::no_device());
}

#[tokio::test]
async fn where_no_secret_is_asked_for_only_a_back_end_may_do_without_a_device() {
    let bench = Bench::new(Auth::None);
    assert_eq!(bench.refused(cli()).await, Refusal::no_device());
    assert_eq!(bench.connect(cli().client("gateway-client", "backend")).await.scopes, READ);
    assert_eq!(bench.connect(device().with_token("anything")).await.credential.name(), "none");
}

#[tokio::test]
async fn scopes_are_echoed_in_their_order_with_unknown_names() {
    let bench = Bench::token();
    let scopes = ["operator.write", "moon.walk", "operator.read"];
    assert_eq!(bench.connect(device().scopes(&scopes)).await.scopes, scopes);
}

#[tokio::test]
async fn a_local_device_is_paired_silently_and_gets_the_same_token_each_time() {
    let bench = Bench::token();
    let mut events = bench.events.subscribe();
    let first = bench.connect(device()).await;
    let token = token_of(&first);
    assert_eq!(
        (token.len(), first.credential.name(), first.scopes.as_slice()),
        (43, "token", &["operator.read".to_owned()][..])
    );
    let event = events.try_recv().expect("it was published");
    assert_eq!(event.name, EventName::DevicePairResolved);
    assert!(event.payload.get().contains(r#""decision":"approved""#), "{}", event.payload);
    assert!(!event.payload.get().contains(&token));

    let again = bench.connect(device()).await;
    assert_eq!(again.device_token, first.device_token);
    assert!(events.try_recv().is_err(), "nothing was decided");

    let listed = bench.devices.list().await.expect("it lists");
    let text = serde_json::to_string(&listed).expect("it serialises");
    assert!(!text.contains(&token) && listed.paired[0].connected, "{text}");
    assert_eq!(listed.paired[0].approved_via.as_deref(), Some("silent"));
    drop((first, again));
    assert!(!bench.devices.list().await.expect("it lists").paired[0].connected);
}

#[tokio::test]
async fn a_client_of_protocol_3_gets_a_token_of_its_time() {
    let bench = Bench::token();
    let token = token_of(&bench.connect(device().edit(|attempt| attempt.protocol = Protocol::V3)).await);
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
}

#[tokio::test]
async fn a_local_back_end_leaves_no_record() {
    let bench = Bench::token();
    let grant = bench.connect(device().client("gateway-client", "backend").scopes(ADMIN)).await;
    assert_eq!((grant.scopes.as_slice(), grant.device_token), (&["operator.admin".to_owned()][..], None));
    assert!(bench.devices.list().await.expect("it lists").paired.is_empty());
}

#[tokio::test]
async fn more_scopes_with_the_secret_give_a_new_token() {
    let bench = Bench::token();
    let first = token_of(&bench.connect(device()).await);
    let second = token_of(&bench.connect(device().scopes(ADMIN)).await);
    assert_ne!(first, second);
    assert_eq!(token_of(&bench.connect(device()).await), second, "fewer scopes keep it");
    let old = bench.refused(device().with_device_token(&first)).await.details.expect("it has details");
    assert_eq!(old.code, "AUTH_DEVICE_TOKEN_MISMATCH");
}

#[tokio::test]
async fn a_device_token_lets_in_what_it_was_granted_for() {
    let bench = Bench::token();
    let token = token_of(&bench.connect(device().scopes(&["operator.write"])).await);
    for attempt in [device().with_device_token(&token), device().with_token(&token)] {
        let grant = bench.connect(attempt.scopes(READ)).await;
        assert_eq!(
            (grant.credential.name(), grant.scopes.as_slice()),
            ("device-token", &["operator.read".to_owned()][..])
        );
        assert_eq!(token_of(&grant), token);
    }
    assert!(bench.connect(device().with_device_token(&token).scopes(&[])).await.scopes.is_empty());
    let beside_a_wrong_secret = ConnectAuth {
        token: Some("wrong".to_owned()),
        device_token: Some(token.clone()),
        ..ConnectAuth::default()
    };
    assert_eq!(bench.connect(device().auth(beside_a_wrong_secret)).await.credential.name(), "device-token");
    // It needs no loopback.
    bench.connect(device().with_device_token(&token).remote()).await;

    let beyond = bench.refused(device().with_device_token(&token).scopes(ADMIN)).await;
    assert_eq!(
        beyond.message,
        "unauthorized: device token scope mismatch (re-pair or approve scope upgrade)"
    );
    let details = beyond.details.expect("it has details");
    assert_eq!(
        (details.code, details.recommended_next_step),
        ("AUTH_SCOPE_MISMATCH", Some("review_auth_configuration"))
    );
    assert!(bench.devices.list().await.expect("it lists").pending.is_empty());

    for other in [
        device().with_device_token("unknown"),
        device().with_device_token(&token).key(2),
        device().with_device_token(&token).role(Role::Node),
    ] {
        let refusal = bench.refused(other).await;
        assert_eq!(refusal.message, "unauthorized: device token mismatch (rotate/reissue device token)");
        let details = refusal.details.expect("it has details");
        assert_eq!(
            (details.code, details.recommended_next_step),
            ("AUTH_DEVICE_TOKEN_MISMATCH", Some("update_auth_credentials"))
        );
    }
}

#[tokio::test]
async fn a_setup_code_that_was_never_given_out_is_refused() {
    let bench = Bench::token();
    let auth = ConnectAuth { bootstrap_token: Some("made up".to_owned()), ..ConnectAuth::default() };
    let refusal = bench.refused(device().role(Role::Node).auth(auth)).await;
    let details = refusal.details.expect("it has details");
    assert_eq!(
        (details.code, details.recommended_next_step),
        ("AUTH_BOOTSTRAP_TOKEN_INVALID", Some("review_auth_configuration"))
    );
}

#[tokio::test]
async fn another_machine_behind_the_same_key_needs_approval_even_locally() {
    let bench = Bench::token();
    bench.connect(device()).await;
    bench.connect(device().client("openclaw-tui", "ui")).await;
    bench.connect(device().edit(|attempt| attempt.client.device_family = Some("Box".to_owned()))).await;
    bench.connect(device().platform(" Linux")).await;
    for platform in ["linux 6.18", "darwin"] {
        assert_eq!(bench.refused_for(device().platform(platform)).await, "metadata-upgrade");
    }
    let other_family = device().edit(|attempt| attempt.client.device_family = Some("Phone".to_owned()));
    assert_eq!(bench.refused_for(other_family).await, "metadata-upgrade");
    // While that waits, nothing is upgraded silently.
    assert_eq!(bench.refused_for(device().scopes(ADMIN)).await, "scope-upgrade");

    let app = |platform: &str| device().key(2).client("openclaw-macos", "ui").platform(platform);
    bench.connect(app("macos 15.1")).await;
    bench.connect(app("macos 15.2")).await;
    assert_eq!(bench.refused_for(app("ios 15.2")).await, "metadata-upgrade");
}

#[tokio::test]
async fn an_operator_does_not_become_a_node_but_a_local_node_becomes_an_operator() {
    let bench = Bench::token();
    bench.connect(device()).await;
    let details = bench.refused(device().role(Role::Node)).await.details.expect("it has details");
    assert_eq!(details.reason, Some("role-upgrade"));
    assert_eq!(details.approved_roles, Some(vec!["operator".to_owned()]));
    assert_eq!(details.approved_scopes, Some(vec!["operator.read".to_owned()]));

    let node = || device().key(2).client("node-host", "node");
    let as_node = bench.connect(node().role(Role::Node)).await;
    assert!(as_node.scopes.is_empty(), "a node holds no scopes");
    let as_operator = bench.connect(node()).await;
    assert_ne!(as_node.device_token, as_operator.device_token);
    assert_eq!(bench.connect(node().role(Role::Node)).await.device_token, as_node.device_token);
    let other_client = device().key(3).client("node-host", "node").role(Role::Node);
    bench.connect(other_client).await;
    assert_eq!(bench.refused_for(device().key(3)).await, "role-upgrade");
}

#[tokio::test]
async fn a_remote_device_waits_for_approval() {
    let bench = Bench::token();
    let mut events = bench.events.subscribe();
    let attempt = || device().remote().scopes(&["operator.read", "operator.write"]);
    let refusal = bench.refused(attempt()).await;
    let details = serde_json::to_value(&refusal.details).expect("it serialises");
    let request_id = details["requestId"].as_str().expect("it has a request").to_owned();
    assert_eq!(
        (refusal.code, refusal.message.as_str(), &details),
        (
            ErrorCode::NotPaired,
            "pairing required: device is not approved yet",
            &json!({
                "code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": request_id,
                "remediationHint": "Approve this device from the pending pairing requests.",
                "deviceId": device_id(1), "requestedRole": "operator",
                "requestedScopes": ["operator.read", "operator.write"],
            })
        )
    );
    assert_eq!(
        refusal.close_reason(),
        format!("pairing required: device is not approved yet (requestId: {request_id})")
    );
    assert_eq!(events.try_recv().expect("it was published").name, EventName::DevicePairRequested);
    assert_eq!(bench.request_id(attempt()).await, request_id, "a repeated attempt belongs to it");
    assert!(events.try_recv().is_err());

    let held = ["operator.pairing".to_owned(), "operator.read".to_owned()];
    let error = bench.devices.approve(&request_id, &held).await.expect_err("more than the approver holds");
    assert_eq!(error.to_string(), "missing scope: operator.write");
    let device = bench.devices.approve(&request_id, &["operator.admin".to_owned()]).await.expect("approved");
    assert_eq!((device.approved_via.as_deref(), device.connected), (Some("owner"), false));
    assert_eq!(events.try_recv().expect("it was published").name, EventName::DevicePairResolved);
    let token = token_of(&bench.connect(attempt()).await);
    assert_eq!(token_of(&bench.connect(attempt()).await), token);
    assert_eq!(bench.refused_for(attempt().scopes(ADMIN)).await, "scope-upgrade");
    let error = bench.devices.approve(&request_id, &held).await.expect_err("it is decided");
    assert_eq!(error.to_string(), "unknown requestId");
}

#[tokio::test]
async fn a_request_is_gone_after_five_minutes_or_when_it_is_rejected() {
    let bench = Bench::token();
    let first = bench.request_id(device().remote()).await;
    bench.advance(299_999);
    assert_eq!(bench.request_id(device().remote()).await, first);
    bench.advance(1);
    assert!(bench.devices.list().await.expect("it lists").pending.is_empty());
    let second = bench.request_id(device().remote()).await;
    assert_ne!(first, second);
    assert_eq!(bench.devices.reject(&second).await.expect("it is there"), device_id(1));
    assert_eq!(bench.devices.reject(&second).await.expect_err("it is gone").to_string(), "unknown requestId");
    assert_ne!(bench.request_id(device().remote()).await, second);
}

#[tokio::test]
async fn nothing_is_paired_silently_where_the_owner_says_so() {
    let bench = Bench::token();
    bench.devices.approve_local(false);
    assert_eq!(bench.refused_for(device()).await, "not-paired");
    assert_eq!(bench.connect(cli()).await.scopes, READ);
}

#[tokio::test]
async fn a_rotated_token_goes_to_its_own_device_alone_and_ends_its_connections() {
    let bench = Bench::token();
    let by_secret = bench.connect(device()).await;
    let old = token_of(&by_secret);
    let by_token = bench.connect(device().with_device_token(&old)).await;
    let other = bench.connect(device().key(2)).await;
    let id = device_id(1);

    let rotated =
        bench.devices.rotate(&id, "operator", None, by_token.link.as_ref()).await.expect("it rotates");
    let token = rotated.token.expect("it asked by its own token");
    assert!(by_token.link.as_ref().is_some_and(DeviceLink::is_removed));
    assert!(by_secret.link.as_ref().is_some_and(DeviceLink::is_removed));
    assert!(!other.link.as_ref().is_some_and(DeviceLink::is_removed));
    let stale = bench.refused(device().with_token(&old)).await.details.expect("it has details");
    assert_eq!(stale.code, "AUTH_TOKEN_MISMATCH");
    assert_eq!(token_of(&bench.connect(device()).await), token, "the secret gives the new one");

    for caller in [by_secret.link.as_ref(), other.link.as_ref(), None] {
        let rotated = bench.devices.rotate(&id, "operator", None, caller).await.expect("it rotates");
        assert_eq!((rotated.token, rotated.scopes), (None, vec!["operator.read".to_owned()]));
    }
    let more = Some(vec!["operator.admin".to_owned()]);
    for (id, role, scopes) in
        [(&*id, "node", None), (&*id, "king", None), ("0000", "operator", None), (&*id, "operator", more)]
    {
        let error = bench.devices.rotate(id, role, scopes, None).await.expect_err("it is denied");
        assert_eq!(error.to_string(), "device token rotation denied");
    }
}

#[tokio::test]
async fn a_revoked_role_has_to_be_approved_again() {
    let bench = Bench::token();
    let grant = bench.connect(device()).await;
    bench.devices.revoke(&device_id(1), "operator").await.expect("it revokes");
    let link = grant.link.expect("it is paired");
    link.removed().await;
    assert_eq!(DeviceLink::REMOVED, (4001, "device removed"));
    assert_eq!(bench.refused_for(device().remote()).await, "role-upgrade");
    bench.devices.revoke(&device_id(1), "operator").await.expect_err("it has none");
}

#[tokio::test]
async fn a_removed_device_is_unknown_and_a_renamed_one_keeps_its_token() {
    let bench = Bench::token();
    let grant = bench.connect(device()).await;
    bench.devices.rename(&device_id(1), "Ada's laptop").await.expect("it is there");
    let listed = bench.devices.list().await.expect("it lists");
    assert_eq!(listed.paired[0].label.as_deref(), Some("Ada's laptop"));
    assert_eq!(token_of(&bench.connect(device()).await), token_of(&grant));
    bench.devices.remove(&device_id(1)).await.expect("it is there");
    assert!(grant.link.as_ref().is_some_and(DeviceLink::is_removed));
    assert_eq!(bench.refused_for(device().remote()).await, "not-paired");
    for error in [
        bench.devices.remove("0000").await.expect_err("there is none"),
        bench.devices.rename("0000", "x").await.expect_err("there is none"),
    ] {
        assert_eq!(error.to_string(), "unknown deviceId");
    }
}

#[tokio::test]
async fn silent_pairings_that_went_away_make_room_for_the_next_of_their_kind() {
    let bench = Bench::token();
    drop(bench.connect(device()).await);
    let connected = bench.connect(device().key(2)).await;
    drop(bench.connect(device().key(3).client("openclaw-tui", "ui")).await);
    bench.advance(60_001);
    drop(bench.connect(device().key(4)).await);
    let listed = bench.devices.list().await.expect("it lists");
    let mut left: Vec<_> = listed.paired.iter().map(|device| device.device_id.clone()).collect();
    let mut expected = vec![device_id(2), device_id(3), device_id(4)];
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    drop(connected);
}

#[tokio::test]
async fn what_was_decided_survives_a_restart() {
    let bench = Bench::token();
    let token = token_of(&bench.connect(device().scopes(ADMIN)).await);
    let request_id = bench.request_id(device().key(2).remote()).await;
    bench.devices.rename(&device_id(1), "Ada's laptop").await.expect("it is there");
    let before = bench.devices.list().await.expect("it lists");
    let bench = bench.reopened();
    assert_eq!(bench.devices.list().await.expect("it lists"), before);
    bench.connect(device().with_device_token(&token).scopes(READ)).await;
    assert_eq!(bench.request_id(device().key(2).remote()).await, request_id);
    bench.devices.approve(&request_id, &["operator.admin".to_owned()]).await.expect("it is there");
    let bench = bench.reopened();
    bench.connect(device().key(2).remote()).await;
    assert!(bench.devices.list().await.expect("it lists").pending.is_empty());
}

#[tokio::test]
async fn a_setup_code_survives_a_restart_and_is_good_once_all_the_same() {
    let bench = Bench::token();
    let place = setup::place(Some("wss://gateway.example.com"), None, &[], None).expect("a place");
    let issued = bench.devices.issue_setup_code(&place, SetupAccess::Node).await.expect("it is stored");
    let content = URL_SAFE_NO_PAD.decode(&issued.setup_code).expect("it is base64url");
    let content: Value = serde_json::from_slice(&content).expect("it is JSON");
    let token = content["bootstrapToken"].as_str().expect("a token").to_owned();
    let by_code = || {
        device().edit(|attempt| {
            attempt.role = Role::Node;
            attempt.scopes = Vec::new();
            attempt.auth = ConnectAuth { bootstrap_token: Some(token.clone()), ..ConnectAuth::default() };
        })
    };
    let bench = bench.reopened();
    assert_eq!(bench.connect(by_code()).await.credential, Credential::SetupCode(SetupAccess::Node));
    let bench = bench.reopened();
    let completion = bench.devices.setup_completion(&issued.setup_id).await.expect("it is read");
    assert_eq!(completion.map(|completion| completion.access), Some(SetupAccess::Node));
    let details = bench.refused(by_code()).await.details.expect("it has details");
    assert_eq!(details.code, "AUTH_BOOTSTRAP_TOKEN_INVALID", "it was used before the restart");
    let files = std::fs::read_dir(bench.directory.path()).expect("the store is there");
    for file in files {
        let bytes = std::fs::read(file.expect("it is listed").path()).expect("it can be read");
        let is_there = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!is_there, "the token itself is on the disk");
    }
}

#[tokio::test]
async fn the_eleventh_guess_is_not_looked_at() {
    let bench = Bench::token();
    for _ in 0..10 {
        let details =
            bench.refused(cli().remote().with_token("wrong")).await.details.expect("it has details");
        assert_eq!(details.code, "AUTH_TOKEN_MISMATCH");
    }
    let limited = bench.refused(cli().remote()).await;
    assert_eq!(
        told(&limited),
        (
            "INVALID_REQUEST",
            "unauthorized: too many failed authentication attempts (retry later)",
            json!({
                "code": "AUTH_RATE_LIMITED", "authReason": "rate_limited",
                "canRetryWithDeviceToken": false, "recommendedNextStep": "wait_then_retry",
            })
        )
    );
    assert!(limited.retry_after.is_some_and(|wait| wait.as_secs() >= 299));
    for _ in 0..20 {
        bench.refused(cli().with_token("wrong")).await;
    }
    bench.connect(cli()).await;
}

#[tokio::test]
async fn a_bad_signature_comes_before_a_bad_secret() {
    let bench = Bench::token();
    let mut attempt = device().with_token("wrong").signed(NOW);
    attempt.scopes.push("operator.admin".to_owned());
    let refusal = bench.devices.authorize(&attempt).await.expect_err("it is refused");
    assert_eq!(refusal.details.expect("it has details").code, "DEVICE_AUTH_SIGNATURE_INVALID");
}
