//! The defaults that code and documentation need alike.

/// `gateway.auth.rateLimit.maxAttempts`. wire.md section 4.
pub const MAX_ATTEMPTS: u64 = 10;
/// `gateway.auth.rateLimit.windowMs`. wire.md section 4.
pub const ATTEMPT_WINDOW_MS: u64 = 60_000;
/// `gateway.auth.rateLimit.lockoutMs`. wire.md section 4.
pub const LOCKOUT_MS: u64 = 300_000;
/// `gateway.limits.maxPayloadBytes`. wire.md section 1: 25 MiB.
pub const MAX_PAYLOAD_BYTES: u64 = 26_214_400;
/// `gateway.limits.maxBufferedBytes`. wire.md section 1: 50 MiB.
pub const MAX_BUFFERED_BYTES: u64 = 52_428_800;
/// `gateway.limits.maxConnections`.
pub const MAX_CONNECTIONS: u64 = 16_384;
/// `gateway.limits.maxUnauthenticated`.
pub const MAX_UNAUTHENTICATED: u64 = 64;
/// `gateway.limits.maxInFlight`.
pub const MAX_IN_FLIGHT: u64 = 256;
/// `gateway.limits.maxBatch`.
pub const MAX_BATCH: u64 = 100;
/// `gateway.limits.maxSubscriptions`.
pub const MAX_SUBSCRIPTIONS: u64 = 64;
/// `gateway.limits.authenticationTimeoutMs`. wire.md section 1: 15 seconds.
pub const AUTHENTICATION_TIMEOUT_MS: u64 = 15_000;
/// `gateway.limits.sendTimeoutMs`.
pub const SEND_TIMEOUT_MS: u64 = 8_000;
/// `gateway.limits.callTimeoutMs`.
pub const CALL_TIMEOUT_MS: u64 = 60_000;
/// `gateway.limits.drainTimeoutMs`.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;
/// `logging.maxFileBytes`. cli.md section 11: 100 MB.
pub const MAX_LOG_FILE_BYTES: u64 = 100_000_000;
