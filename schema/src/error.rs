//! The error registry: one number and one string code per error, for every dialect.
//!
//! Numbers: -32700 and -32600 … -32603 are JSON-RPC 2.0 section 5.1. Ours go from -32020 downward to -32099, in
//! order, and are never reused; a retired one stays listed here. jsonrpsee uses -32000, -32001 and
//! -32005 … -32011.
//!
//! To add a code: give it the next number in [`ErrorCode`], extend the three matches below it, and name it in
//! `errors(…)` of the methods that answer it. The compiler shows the other places.

use std::{borrow::Cow, fmt};

use jsonrpsee::types::ErrorObjectOwned;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scope::Scope;

/// Why a request was refused or failed. Clients match on this, not on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The text is not JSON.
    ParseError,
    /// The JSON is not a request: a member is missing or has the wrong type.
    InvalidRequest,
    /// No such method. `data.nearest` may offer one.
    MethodNotFound,
    /// The params do not fit the method. `data.path` says where, `data.reason` why.
    InvalidParams,
    /// The gateway failed. `data.correlationId` finds the cause in its log.
    Internal,
    /// No credential, or a wrong one.
    Unauthorized,
    /// The credential is good, but lacks the scope `data.missingScope`.
    Forbidden,
    /// The gateway cannot serve this now: it is draining, or something it needs does not answer.
    Unavailable,
    /// The deadline passed before the method finished.
    DeadlineExceeded,
    /// What the params name does not exist.
    NotFound,
    /// A bound of the gateway was reached: batch size, calls in flight, subscriptions, size of the result.
    LimitExceeded,
    /// The credential may be good, but the device behind it is not paired with this gateway.
    NotPaired,
    /// The caller may call this method, but not to this effect: what it asks for goes beyond its own rights, or
    /// beyond those of what the params name.
    Denied,
    /// Too many wrong credentials came from the caller's address: right ones are refused too until
    /// `data.retryAfterMs` has passed.
    RateLimited,
}

impl ErrorCode {
    /// Every code, in the order of the registry.
    pub const ALL: &'static [Self] = &[
        Self::ParseError,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::Internal,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::LimitExceeded,
        Self::NotPaired,
        Self::Denied,
        Self::RateLimited,
    ];

    /// The JSON-RPC error number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::Unauthorized => -32020,
            Self::Forbidden => -32021,
            Self::Unavailable => -32022,
            Self::DeadlineExceeded => -32023,
            Self::NotFound => -32024,
            Self::LimitExceeded => -32025,
            Self::NotPaired => -32026,
            Self::Denied => -32027,
            Self::RateLimited => -32028,
        }
    }

    /// The string code: `data.code` in JSON-RPC.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ParseError => "PARSE_ERROR",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::MethodNotFound => "METHOD_NOT_FOUND",
            Self::InvalidParams => "INVALID_PARAMS",
            Self::Internal => "INTERNAL",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::Unavailable => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::NotPaired => "NOT_PAIRED",
            Self::Denied => "DENIED",
            Self::RateLimited => "RATE_LIMITED",
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Unavailable | Self::DeadlineExceeded | Self::RateLimited => true,
            Self::ParseError
            | Self::InvalidRequest
            | Self::MethodNotFound
            | Self::InvalidParams
            | Self::Internal
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::LimitExceeded
            | Self::NotPaired
            | Self::Denied => false,
        }
    }

    /// What the code means, for documents. The same text as the variant's doc comment.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::ParseError => "The text is not JSON.",
            Self::InvalidRequest => "The JSON is not a request: a member is missing or has the wrong type.",
            Self::MethodNotFound => "No such method. `data.nearest` may offer one.",
            Self::InvalidParams => {
                "The params do not fit the method. `data.path` says where, `data.reason` why."
            }
            Self::Internal => "The gateway failed. `data.correlationId` finds the cause in its log.",
            Self::Unauthorized => "No credential, or a wrong one.",
            Self::Forbidden => "The credential is good, but lacks the scope `data.missingScope`.",
            Self::Unavailable => {
                "The gateway cannot serve this now: it is draining, or something it needs does not answer."
            }
            Self::DeadlineExceeded => "The deadline passed before the method finished.",
            Self::NotFound => "What the params name does not exist.",
            Self::LimitExceeded => {
                "A bound of the gateway was reached: batch size, calls in flight, subscriptions, size of the result."
            }
            Self::NotPaired => {
                "The credential may be good, but the device behind it is not paired with this gateway."
            }
            Self::Denied => {
                "The caller may call this method, but not to this effect: what it asks for goes beyond its own rights, or beyond those of what the params name."
            }
            Self::RateLimited => {
                "Too many wrong credentials came from the caller's address: right ones are refused too until `data.retryAfterMs` has passed."
            }
        }
    }

    /// The code of a JSON-RPC error number; jsonrpsee's own numbers are mapped to ours.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        match number {
            // jsonrpsee: too big request, too big response, too many subscriptions, server busy, batch errors.
            -32011..=-32005 => Some(Self::LimitExceeded),
            _ => Self::ALL.iter().copied().find(|code| code.number() == number),
        }
    }

    /// The code of a string code.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `data` of every error. Fields beyond `code` and `retryable` are present where they apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorData {
    /// The string code.
    pub code: Cow<'static, str>,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// How long to wait before a retry, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The method that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Where the params are wrong: a JSON Pointer (RFC 6901); empty for the params object itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The names or values that are allowed there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// The allowed name or value nearest to the given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// The scope that the caller lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_scope: Option<Scope>,
    /// Finds the cause of an internal error in the gateway's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// An error as callers see it: a code, one safe sentence, and typed details.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// The code.
    pub code: ErrorCode,
    /// One sentence for people, free of internals and secrets.
    pub message: String,
    /// The details.
    pub data: Box<ErrorData>,
}

impl RpcError {
    /// An error without further details.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let data = ErrorData {
            code: Cow::Borrowed(code.name()),
            retryable: code.is_retryable(),
            retry_after_ms: None,
            method: None,
            path: None,
            reason: None,
            allowed: Vec::new(),
            nearest: None,
            missing_scope: None,
            correlation_id: None,
        };
        Self { code, message: message.into(), data: Box::new(data) }
    }

    /// The caller lacks `scope` for `method`. Wording as in wire.md section 10.
    #[must_use]
    pub fn forbidden(method: &str, scope: Scope) -> Self {
        let mut error = Self::new(ErrorCode::Forbidden, format!("missing scope: {scope}"));
        error.data.method = Some(method.to_owned());
        error.data.missing_scope = Some(scope);
        error
    }

    /// No credential, or a wrong one.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthorized, message)
    }

    /// What the params name does not exist; `path` is the JSON Pointer of the name.
    #[must_use]
    pub fn not_found(path: &str, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorCode::NotFound, message);
        error.data.path = Some(path.to_owned());
        error
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RpcError {}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        Self::owned(error.code.number(), error.message, Some(error.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
            assert_eq!(ErrorCode::from_name(code.name()), Some(*code));
            assert_eq!(serde_json::to_value(code).expect("a code serialises"), code.name());
        }
    }

    #[test]
    fn own_numbers_are_given_out_in_order_from_32020() {
        let own = ErrorCode::ALL.iter().map(|code| code.number()).filter(|number| *number > -32100);
        assert!(own.eq((0..9).map(|step| -32020 - step)), "own numbers have a hole or leave their block");
    }
}
