//! `device.*`: devices that are paired with the gateway, requests to be, and their tokens. Shapes follow wire.md
//! section 6.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    ErrorCode, RpcError, contract,
    contract::Examples,
    types::{NoParams, Text, TimestampMs},
};

/// Params of `device.pair.approve` and `device.pair.reject`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PairingRequestParams {
    /// The request, from `device.pair.list` or the event `device.pair.requested`.
    pub request_id: Text<1, 128>,
}

/// Params of `device.pair.remove`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevicePairRemoveParams {
    /// The device.
    pub device_id: Text<1, 256>,
}

/// Params of `device.pair.rename`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevicePairRenameParams {
    /// The device.
    pub device_id: Text<1, 256>,
    /// Its new name for people.
    pub label: Text<1, 64>,
}

/// Params of `device.token.rotate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceTokenRotateParams {
    /// The device.
    pub device_id: Text<1, 256>,
    /// The role whose token is replaced.
    pub role: Text<1, 64>,
    /// The scopes of the new token: some of those that the old one has. All of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Text<1, 128>>>,
}

/// Params of `device.token.revoke`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceTokenRevokeParams {
    /// The device.
    pub device_id: Text<1, 256>,
    /// The role whose token is taken away.
    pub role: Text<1, 64>,
}

/// Params of `device.pair.setupCode`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevicePairSetupCodeParams {
    /// Where the device finds the gateway: `wss://…`, or `ws://…` within a private network. When absent, an address
    /// that the gateway listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_url: Option<Text<1, 2048>>,
    /// Less access than the device gets otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_profile: Option<BootstrapProfile>,
}

/// Less access than a setup code gives otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootstrapProfile {
    /// A node, and an operator without `operator.admin`.
    Limited,
    /// A node alone.
    Node,
}

/// Params of `device.pair.setupStatus`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevicePairSetupStatusParams {
    /// The setup code, by the id that came with it.
    pub setup_id: Text<1, 128>,
}

/// What a setup code makes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SetupAccess {
    /// A node, and an operator with `operator.admin`.
    Full,
    /// A node, and an operator without it, who may read and write but let no other device in.
    Limited,
    /// A node alone.
    Node,
}

impl SetupAccess {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Limited => "limited",
            Self::Node => "node",
        }
    }

    /// The access of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Full, Self::Limited, Self::Node].into_iter().find(|access| access.name() == name)
    }
}

/// Result of `device.pair.setupCode`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairSetupCodeResult {
    /// The setup code's id, for `device.pair.setupStatus`.
    pub setup_id: String,
    /// The setup code, for the device alone: base64url of a JSON object with `url`, `bootstrapToken`,
    /// `expiresAtMs`, and `tlsFingerprint` where the gateway's own certificate is to be pinned. Who has it first is paired.
    pub setup_code: String,
    /// Where the device will look for the gateway.
    pub gateway_url: String,
    /// What the gateway asks of others: `token` or `password`.
    pub auth: String,
    /// Where that URL comes from: `publicUrl`, `proxy` for tailscale's, or `gateway.bind`.
    pub url_source: String,
    /// What the device becomes.
    pub access: SetupAccess,
    /// Present and true when it is less than was asked for, as the way to the gateway is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_downgraded: Option<bool>,
    /// When the code is good for nothing any more.
    pub expires_at_ms: TimestampMs,
}

impl std::fmt::Debug for DevicePairSetupCodeResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevicePairSetupCodeResult")
            .field("setup_id", &self.setup_id)
            .field("gateway_url", &self.gateway_url)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// Result of `device.pair.setupStatus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairSetupStatusResult {
    /// The device that the code has paired; absent until then, and for a code that the gateway does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<SetupCompletion>,
}

/// How a setup code was used. Payload of `device.pair.setup.completed` too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetupCompletion {
    /// The setup code, by its id.
    pub setup_id: String,
    /// The device that it has paired.
    pub device_id: String,
    /// That device's own name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// What the device has become.
    pub access: SetupAccess,
    /// When it was paired.
    pub ts: TimestampMs,
}

/// Result of `device.pair.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairListResult {
    /// Requests that wait for a decision, newest first.
    pub pending: Vec<PendingDevice>,
    /// The devices that are paired, the latest approved first.
    pub paired: Vec<PairedDevice>,
}

/// A request to be paired, or to be allowed more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingDevice {
    /// The request.
    pub request_id: String,
    /// The device: the SHA-256 of its raw public key, in lower-case hex.
    pub device_id: String,
    /// Its raw public key, in base64url without padding.
    pub public_key: String,
    /// Its platform, as the client says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The family of the device, as the client says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    /// The client program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// What kind of client it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The role it asks for.
    pub role: String,
    /// The roles it asks for.
    pub roles: Vec<String>,
    /// The scopes it asks for.
    pub scopes: Vec<String>,
    /// The address it connected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    /// Whether it would be approved without being asked.
    #[serde(default)]
    pub silent: bool,
    /// Whether the device is paired already.
    #[serde(default)]
    pub is_repair: bool,
    /// When it asked first.
    pub ts: TimestampMs,
}

/// A device that is paired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PairedDevice {
    /// The device: the SHA-256 of its raw public key, in lower-case hex.
    pub device_id: String,
    /// Its raw public key, in base64url without padding.
    pub public_key: String,
    /// Its platform, as it was approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The family of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    /// The client program that was paired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// What kind of client it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_mode: Option<String>,
    /// Its own name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The name that `device.pair.rename` gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The role it was paired for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The roles it has a token for.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The scopes of all its tokens.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The address it was last seen at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    /// Who approved it: `silent` for the gateway itself, `owner` for a person, `bootstrap` for a setup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_via: Option<String>,
    /// When it was paired first.
    pub created_at_ms: TimestampMs,
    /// When it was last approved.
    pub approved_at_ms: TimestampMs,
    /// When it last connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at_ms: Option<TimestampMs>,
    /// What was seen then: `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_reason: Option<String>,
    /// Whether it is connected now.
    #[serde(default)]
    pub connected: bool,
    /// Its tokens, one for each role, without their values.
    #[serde(default)]
    pub tokens: Vec<DeviceTokenInfo>,
}

/// A token of a device, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTokenInfo {
    /// The role that it is for.
    pub role: String,
    /// Its scopes, sorted.
    pub scopes: Vec<String>,
    /// When the first token of this role was made.
    pub created_at_ms: TimestampMs,
    /// When it was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at_ms: Option<TimestampMs>,
}

/// Result of `device.pair.approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairApproveResult {
    /// The request.
    pub request_id: String,
    /// The device, as it is paired now.
    pub device: PairedDevice,
}

/// Result of `device.pair.reject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairRejectResult {
    /// The request.
    pub request_id: String,
    /// The device that asked.
    pub device_id: String,
}

/// Result of `device.pair.remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairRemoveResult {
    /// The device.
    pub device_id: String,
}

/// Result of `device.pair.rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairRenameResult {
    /// The device.
    pub device_id: String,
    /// Its new name for people.
    pub label: String,
}

/// Whether a new token is in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenDelivery {
    /// It is: the device itself asked, by its own token.
    InBand,
    /// It is not: somebody else asked. The device gets it when it connects with the gateway's secret.
    WithheldCrossDevice,
}

/// Result of `device.token.rotate`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTokenRotateResult {
    /// The device.
    pub device_id: String,
    /// The role of the token.
    pub role: String,
    /// The new token, for the device itself only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Its scopes, sorted.
    pub scopes: Vec<String>,
    /// When it was made.
    pub rotated_at_ms: TimestampMs,
    /// Whether the token is in this result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_delivery: Option<TokenDelivery>,
}

impl std::fmt::Debug for DeviceTokenRotateResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceTokenRotateResult")
            .field("device_id", &self.device_id)
            .field("role", &self.role)
            .field("token_delivery", &self.token_delivery)
            .finish_non_exhaustive()
    }
}

/// Result of `device.token.revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTokenRevokeResult {
    /// The device.
    pub device_id: String,
    /// The role of the token.
    pub role: String,
    /// When it was taken away.
    pub revoked_at_ms: TimestampMs,
}

/// Devices and their tokens.
#[contract(group = "Devices")]
#[rpc(server, client, namespace = "device", namespace_separator = ".")]
pub trait Device {
    /// Lists the devices that are paired and the requests that wait for a decision.
    #[method(name = "pair.list")]
    #[meta(scope = "operator.pairing", since = "0.1.0", idempotent, examples = pair_list)]
    async fn device_pair_list(&self, params: NoParams) -> RpcResult<DevicePairListResult>;

    /// Approves a request: the device is paired, or is allowed what it asked for.
    ///
    /// The caller must itself hold every scope that the request asks for. The device gets its token when it
    /// connects next.
    #[method(name = "pair.approve", with_extensions)]
    #[meta(scope = "operator.pairing", since = "0.1.0", errors(NotFound, Denied, Unavailable), examples = pair_approve)]
    async fn device_pair_approve(&self, params: PairingRequestParams) -> RpcResult<DevicePairApproveResult>;

    /// Rejects a request. The device may ask again.
    #[method(name = "pair.reject")]
    #[meta(scope = "operator.pairing", since = "0.1.0", errors(NotFound, Unavailable), examples = pair_reject)]
    async fn device_pair_reject(&self, params: PairingRequestParams) -> RpcResult<DevicePairRejectResult>;

    /// Removes a device with its tokens and requests, and closes its connections.
    #[method(name = "pair.remove")]
    #[meta(scope = "operator.pairing", since = "0.1.0", errors(NotFound, Unavailable), examples = pair_remove)]
    async fn device_pair_remove(&self, params: DevicePairRemoveParams) -> RpcResult<DevicePairRemoveResult>;

    /// Gives a device a name for people.
    #[method(name = "pair.rename")]
    #[meta(scope = "operator.pairing", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = pair_rename)]
    async fn device_pair_rename(&self, params: DevicePairRenameParams) -> RpcResult<DevicePairRenameResult>;

    /// Makes a setup code: a secret that pairs one device, once, without anyone being asked.
    ///
    /// It is good for ten minutes, and until the gateway stops. Give it to the device as you would give it a password. Over a way that is not encrypted the device gets less:
    /// `access` says what.
    #[method(name = "pair.setupCode", with_extensions)]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(Denied), examples = pair_setup_code)]
    async fn device_pair_setup_code(
        &self,
        params: DevicePairSetupCodeParams,
    ) -> RpcResult<DevicePairSetupCodeResult>;

    /// Says which device a setup code has paired.
    #[method(name = "pair.setupStatus")]
    #[meta(scope = "operator.admin", since = "0.1.0", idempotent, examples = pair_setup_status)]
    async fn device_pair_setup_status(
        &self,
        params: DevicePairSetupStatusParams,
    ) -> RpcResult<DevicePairSetupStatusResult>;

    /// Replaces a device's token for one role. The old one is worth nothing from then on.
    ///
    /// Connections of the device in that role are closed, that of the caller too, after its answer.
    #[method(name = "token.rotate", with_extensions)]
    #[meta(scope = "operator.pairing", since = "0.1.0", errors(Denied, Unavailable), examples = token_rotate)]
    async fn device_token_rotate(
        &self,
        params: DeviceTokenRotateParams,
    ) -> RpcResult<DeviceTokenRotateResult>;

    /// Takes a device's token for one role away, and the role with it.
    ///
    /// Connections of the device in that role are closed, that of the caller too, after its answer.
    #[method(name = "token.revoke")]
    #[meta(scope = "operator.pairing", since = "0.1.0", errors(Denied, Unavailable), examples = token_revoke)]
    async fn device_token_revoke(
        &self,
        params: DeviceTokenRevokeParams,
    ) -> RpcResult<DeviceTokenRevokeResult>;
}

const EXAMPLE_DEVICE: &str = "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c";
const EXAMPLE_KEY: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
const EXAMPLE_REQUEST: &str = "dad7dfad-36c2-4f36-a7a4-2f6e9a3b8f10";
const EXAMPLE_SETUP: &str = "3f0b8f0e-4f2b-4a53-9b5c-0d1c7f1b2a90";
const EXAMPLE_TIME: TimestampMs = TimestampMs(1_795_339_864_269);

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Text<MIN, MAX> {
    Text::new(text).expect("the example is within the bounds")
}

/// A request as the event carries it.
pub(crate) fn example_pending() -> PendingDevice {
    PendingDevice {
        request_id: EXAMPLE_REQUEST.to_owned(),
        device_id: EXAMPLE_DEVICE.to_owned(),
        public_key: EXAMPLE_KEY.to_owned(),
        platform: Some("linux".to_owned()),
        device_family: None,
        client_id: Some("cli".to_owned()),
        client_mode: Some("cli".to_owned()),
        display_name: None,
        role: "operator".to_owned(),
        roles: vec!["operator".to_owned()],
        scopes: vec!["operator.read".to_owned()],
        remote_ip: Some("192.0.2.7".to_owned()),
        silent: false,
        is_repair: false,
        ts: EXAMPLE_TIME,
    }
}

fn example_paired() -> PairedDevice {
    PairedDevice {
        device_id: EXAMPLE_DEVICE.to_owned(),
        public_key: EXAMPLE_KEY.to_owned(),
        platform: Some("linux".to_owned()),
        device_family: None,
        client_id: Some("cli".to_owned()),
        client_mode: Some("cli".to_owned()),
        display_name: None,
        label: Some("Ada's laptop".to_owned()),
        role: Some("operator".to_owned()),
        roles: vec!["operator".to_owned()],
        scopes: vec!["operator.read".to_owned()],
        remote_ip: Some("192.0.2.7".to_owned()),
        approved_via: Some("owner".to_owned()),
        created_at_ms: EXAMPLE_TIME,
        approved_at_ms: EXAMPLE_TIME,
        last_seen_at_ms: Some(EXAMPLE_TIME),
        last_seen_reason: Some("connect".to_owned()),
        connected: true,
        tokens: vec![DeviceTokenInfo {
            role: "operator".to_owned(),
            scopes: vec!["operator.read".to_owned()],
            created_at_ms: EXAMPLE_TIME,
            rotated_at_ms: None,
        }],
    }
}

fn unknown_request() -> RpcError {
    RpcError::not_found("/requestId", "unknown requestId")
}

fn unknown_device() -> RpcError {
    RpcError::not_found("/deviceId", "unknown deviceId")
}

fn pair_list() -> Examples<NoParams, DevicePairListResult> {
    let result = DevicePairListResult { pending: vec![example_pending()], paired: vec![example_paired()] };
    Examples::success("one device, which asks for more", NoParams {}, result)
        .invalid("a field that does not exist", json!({ "all": true }))
}

fn pair_approve() -> Examples<PairingRequestParams, DevicePairApproveResult> {
    let params = PairingRequestParams { request_id: text(EXAMPLE_REQUEST) };
    let result = DevicePairApproveResult { request_id: EXAMPLE_REQUEST.to_owned(), device: example_paired() };
    Examples::success("a device that may read", params, result)
        .refused("a request that has expired", json!({ "requestId": EXAMPLE_REQUEST }), unknown_request())
        .refused(
            "a request for more than the caller holds",
            json!({ "requestId": EXAMPLE_REQUEST }),
            RpcError::new(ErrorCode::Denied, "missing scope: operator.admin"),
        )
}

fn pair_reject() -> Examples<PairingRequestParams, DevicePairRejectResult> {
    let params = PairingRequestParams { request_id: text(EXAMPLE_REQUEST) };
    let result = DevicePairRejectResult {
        request_id: EXAMPLE_REQUEST.to_owned(),
        device_id: EXAMPLE_DEVICE.to_owned(),
    };
    Examples::success("a device that nobody knows", params, result).refused(
        "a request that has expired",
        json!({ "requestId": EXAMPLE_REQUEST }),
        unknown_request(),
    )
}

fn pair_remove() -> Examples<DevicePairRemoveParams, DevicePairRemoveResult> {
    let params = DevicePairRemoveParams { device_id: text(EXAMPLE_DEVICE) };
    let result = DevicePairRemoveResult { device_id: EXAMPLE_DEVICE.to_owned() };
    Examples::success("a device that was sold", params, result).refused(
        "a device that is not paired",
        json!({ "deviceId": "0000" }),
        unknown_device(),
    )
}

fn pair_rename() -> Examples<DevicePairRenameParams, DevicePairRenameResult> {
    let params = DevicePairRenameParams { device_id: text(EXAMPLE_DEVICE), label: text("Ada's laptop") };
    let result =
        DevicePairRenameResult { device_id: EXAMPLE_DEVICE.to_owned(), label: "Ada's laptop".to_owned() };
    Examples::success("a name that says whose it is", params, result)
        .invalid("no name at all", json!({ "deviceId": EXAMPLE_DEVICE, "label": "" }))
}

/// A setup code that was used, as the event tells it.
pub(crate) fn example_completion() -> SetupCompletion {
    SetupCompletion {
        setup_id: EXAMPLE_SETUP.to_owned(),
        device_id: EXAMPLE_DEVICE.to_owned(),
        device_name: Some("Ada's phone".to_owned()),
        access: SetupAccess::Full,
        ts: EXAMPLE_TIME,
    }
}

fn pair_setup_code() -> Examples<DevicePairSetupCodeParams, DevicePairSetupCodeResult> {
    let url = "wss://gateway.example.com";
    let params = DevicePairSetupCodeParams { public_url: Some(text(url)), bootstrap_profile: None };
    let result = DevicePairSetupCodeResult {
        setup_id: EXAMPLE_SETUP.to_owned(),
        setup_code: "eyJ1cmwiOiJ3c3M6Ly9nYXRld2F5LmV4YW1wbGUuY29tIiwiYm9vdHN0cmFwVG9rZW4iOiJzaW5nbGUtdXNlIiwiZXhwaXJlc0F0TXMiOjE3OTUzMzk4NjQyNjl9".to_owned(),
        gateway_url: url.to_owned(),
        auth: "token".to_owned(),
        url_source: "publicUrl".to_owned(),
        access: SetupAccess::Full,
        access_downgraded: None,
        expires_at_ms: EXAMPLE_TIME,
    };
    Examples::success("a phone that comes in over TLS", params, result).refused(
        "a gateway that no other device reaches",
        json!({}),
        RpcError::new(
            ErrorCode::Denied,
            "the gateway listens on loopback alone, where no other device finds it: give publicUrl, or set gateway.bind",
        ),
    )
}

fn pair_setup_status() -> Examples<DevicePairSetupStatusParams, DevicePairSetupStatusResult> {
    let params = DevicePairSetupStatusParams { setup_id: text(EXAMPLE_SETUP) };
    let used = DevicePairSetupStatusResult { completion: Some(example_completion()) };
    Examples::success("a code that was used", params, used)
        .invalid("no setup code at all", json!({ "setupId": "" }))
}

fn token_rotate() -> Examples<DeviceTokenRotateParams, DeviceTokenRotateResult> {
    let params =
        DeviceTokenRotateParams { device_id: text(EXAMPLE_DEVICE), role: text("operator"), scopes: None };
    let result = DeviceTokenRotateResult {
        device_id: EXAMPLE_DEVICE.to_owned(),
        role: "operator".to_owned(),
        token: None,
        scopes: vec!["operator.read".to_owned()],
        rotated_at_ms: EXAMPLE_TIME,
        token_delivery: Some(TokenDelivery::WithheldCrossDevice),
    };
    Examples::success("the token of another device", params, result).refused(
        "a role that the device does not have",
        json!({ "deviceId": EXAMPLE_DEVICE, "role": "node" }),
        RpcError::new(ErrorCode::Denied, "device token rotation denied"),
    )
}

fn token_revoke() -> Examples<DeviceTokenRevokeParams, DeviceTokenRevokeResult> {
    let params = DeviceTokenRevokeParams { device_id: text(EXAMPLE_DEVICE), role: text("operator") };
    let result = DeviceTokenRevokeResult {
        device_id: EXAMPLE_DEVICE.to_owned(),
        role: "operator".to_owned(),
        revoked_at_ms: EXAMPLE_TIME,
    };
    Examples::success("a device that is no longer trusted", params, result).refused(
        "a role that the device does not have",
        json!({ "deviceId": EXAMPLE_DEVICE, "role": "node" }),
        RpcError::new(ErrorCode::Denied, "device token revocation denied"),
    )
}
