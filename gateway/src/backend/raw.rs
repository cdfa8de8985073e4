//! The raw stream: what models send, as it comes, one JSON line each, keys masked. For finding out why a provider
//! misbehaves; off unless asked for.

use std::fmt;

use openclaw_schema::types::TimestampMs;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{BackendRequest, lines::Lines};
use crate::logs::mask::mask;

/// The raw stream of one answer.
#[derive(Clone)]
pub(super) struct RawStream {
    lines: Option<Lines>,
    run_id: String,
    model: String,
    /// What must not be written, whatever its shape.
    secrets: Vec<SecretString>,
}

impl RawStream {
    /// The stream of the answer to `request` by the model `model`, which is written to `lines`.
    pub(super) fn new(
        lines: Option<&Lines>,
        request: &BackendRequest,
        model: impl fmt::Display,
        secrets: impl IntoIterator<Item = SecretString>,
    ) -> Self {
        let secrets = if lines.is_some() { secrets.into_iter().collect() } else { Vec::new() };
        Self { lines: lines.cloned(), run_id: request.run_id.clone(), model: model.to_string(), secrets }
    }

    /// Adds an event of the kind `event` with a text of the model's, JSON or not.
    pub(super) fn tell(&self, event: &str, text: &str) {
        let Some(lines) = &self.lines else { return };
        let data = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        let line = json!({
            "ts": TimestampMs::now(), "runId": self.run_id, "model": self.model, "event": event, "data": data,
        });
        lines.tell(scrub(line.to_string(), &self.secrets));
    }
}

impl fmt::Debug for RawStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawStream").field("model", &self.model).finish_non_exhaustive()
    }
}

/// `text` without what looks like a secret, and without `secrets`.
pub(super) fn scrub(text: String, secrets: &[SecretString]) -> String {
    /// Shorter ones are words that stand everywhere.
    const MIN_SECRET_BYTES: usize = 4;

    let known = secrets.iter().map(ExposeSecret::expose_secret);
    let text = known
        .filter(|secret| secret.len() >= MIN_SECRET_BYTES)
        .fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "***") } else { text });
    mask(text)
}
