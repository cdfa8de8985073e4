//! Why a handshake is refused: what the caller is told, and how the connection is closed (wire.md section 4).

use std::time::Duration;

use openclaw_schema::ErrorCode;
use serde::Serialize;

use super::record::PairingReason;

/// How many bytes the reason of a close frame may have (RFC 6455 section 5.5: 125, less two for the code).
const CLOSE_REASON_BYTES: usize = 123;

/// A refused handshake. The connection is closed with 1008 after the answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// `InvalidRequest` or `NotPaired`.
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) details: Option<Box<Details>>,
    /// Set when the same attempt may succeed after this time: `retryable` and `retryAfterMs`.
    pub(crate) retry_after: Option<Duration>,
    /// Whether a wrong secret was shown: the answer is held back.
    pub(crate) is_guess: bool,
}

impl Refusal {
    /// The close code of every refusal here: policy violation.
    pub(crate) const CLOSE_CODE: u16 = 1008;

    /// A refusal whose message says it all.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message.into(), None)
    }

    fn with(code: ErrorCode, message: impl Into<String>, details: Details) -> Self {
        Self::new(code, message.into(), Some(Box::new(details)))
    }

    fn new(code: ErrorCode, message: String, details: Option<Box<Details>>) -> Self {
        Self { code, message, details, retry_after: None, is_guess: false }
    }

    /// The same for a caller that has shown a wrong secret.
    pub(super) fn of_guess(self) -> Self {
        Self { is_guess: true, ..self }
    }

    /// The proof of the device is not good.
    pub(super) fn proof(message: &str, code: &'static str, reason: &'static str) -> Self {
        let details = Details { code, reason: Some(reason), ..Details::default() };
        Self::with(ErrorCode::InvalidRequest, message, details)
    }

    /// The page behind the caller may not call, or the caller is a page and does not say which.
    pub(super) fn origin(reason: &'static str) -> Self {
        let details =
            Details { code: "CONTROL_UI_ORIGIN_NOT_ALLOWED", reason: Some(reason), ..Details::default() };
        let message = "origin not allowed (open the page from the gateway itself, or list its origin in \
                       gateway.controlUi.allowedOrigins)";
        Self::with(ErrorCode::InvalidRequest, message, details)
    }

    /// There is no device, and without one this credential is not enough.
    pub(super) fn no_device() -> Self {
        let details = Details { code: "DEVICE_IDENTITY_REQUIRED", ..Details::default() };
        Self::with(ErrorCode::NotPaired, "device identity required", details)
    }

    /// There is no device, and this program never gets in without one.
    pub(super) fn no_device_for_ui() -> Self {
        let details = Details { code: "CONTROL_UI_DEVICE_IDENTITY_REQUIRED", ..Details::default() };
        let message =
            "control ui requires device identity (open it over HTTPS, or on the gateway's own host)";
        Self::with(ErrorCode::InvalidRequest, message, details)
    }

    /// The credential is missing or not good.
    pub(super) fn credential(
        message: &str,
        code: &'static str,
        reason: &'static str,
        can_retry_with_device_token: bool,
        next_step: &'static str,
    ) -> Self {
        let details = Details {
            code,
            auth_reason: Some(reason),
            can_retry_with_device_token: Some(can_retry_with_device_token),
            recommended_next_step: Some(next_step),
            ..Details::default()
        };
        Self::with(ErrorCode::InvalidRequest, format!("unauthorized: {message}"), details)
    }

    /// The credential is good, but not for what is asked.
    pub(super) fn scopes(message: &str) -> Self {
        Self::credential(message, "AUTH_SCOPE_MISMATCH", "scope_mismatch", false, "review_auth_configuration")
    }

    /// Too many attempts from this address failed.
    pub(super) fn locked_out(retry_after: Duration) -> Self {
        let mut refusal = Self::credential(
            "too many failed authentication attempts (retry later)",
            "AUTH_RATE_LIMITED",
            "rate_limited",
            false,
            "wait_then_retry",
        );
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// Someone has to approve the device.
    pub(super) fn pairing(details: Details, reason: PairingReason) -> Self {
        let message = match reason {
            PairingReason::NotPaired => "pairing required: device is not approved yet",
            PairingReason::RoleUpgrade => "pairing required: device is not approved for this role",
            PairingReason::ScopeUpgrade => "pairing required: device asks for more scopes than were approved",
            PairingReason::MetadataUpgrade => {
                "pairing required: device differs from the one that was approved"
            }
        };
        Self::with(ErrorCode::NotPaired, message, details)
    }

    /// The gateway could not decide. The cause is for the log alone.
    pub(super) fn failed() -> Self {
        let message = "the gateway cannot look up its devices; its log has the cause".to_owned();
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(ErrorCode::Unavailable, message, None) }
    }

    /// The reason of the close frame: the message, with the request's id where there is one, as long as may be.
    pub(crate) fn close_reason(&self) -> String {
        let mut reason = self.message.clone();
        if let Some(request) = self.details.as_ref().and_then(|details| details.request_id.as_ref()) {
            reason.push_str(&format!(" (requestId: {request})"));
        }
        let end = (0..=CLOSE_REASON_BYTES.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or_default());
        reason
    }
}

/// `details` of the error. Fields beyond `code` are present where they apply.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Details {
    pub(crate) code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auth_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) can_retry_with_device_token: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recommended_next_step: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remediation_hint: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approved_roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approved_scopes: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_names_the_request_and_is_cut_to_what_a_frame_holds() {
        let details = Details {
            code: "PAIRING_REQUIRED",
            request_id: Some("dad7dfad-36c2-4f36-a7a4-2f6e9a3b8f10".to_owned()),
            ..Details::default()
        };
        assert_eq!(
            Refusal::pairing(details, PairingReason::NotPaired).close_reason(),
            "pairing required: device is not approved yet (requestId: dad7dfad-36c2-4f36-a7a4-2f6e9a3b8f10)"
        );
        let long = Refusal::plain("ü".repeat(100)).close_reason();
        assert_eq!(long.len(), 122, "no character is cut in two");
    }
}
