//! What callers ask and are answered, for the person who watches the console: `--ws-log`.
//!
//! Lines go to the console alone, so that the file does not fill with them. What is not asked for costs one look at a
//! number, which is process-wide, as the log is.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use super::mask::mask;
use crate::connection::{Connection, Transport};

/// The target of these lines. The file takes none of them.
pub(super) const TARGET: &str = "ws";

/// From when on a call is slow. cli.md section 2.9: 50 ms.
const SLOW: Duration = Duration::from_millis(50);

/// How many bytes of params are shown.
const MAX_SHOWN_BYTES: usize = 300;

/// What of the traffic is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TrafficLog {
    /// Nothing: how a program that embeds a gateway begins.
    Off = 0,
    /// Calls that failed, and calls that took 50 ms or more.
    Auto = 1,
    /// One line for every call.
    Compact = 2,
    /// One line for every request, with its params, every answer and every event, and for the beginning and the end
    /// of every WebSocket.
    Full = 3,
}

static SHOWN: AtomicU8 = AtomicU8::new(TrafficLog::Off as u8);

/// Shows this much from now on, in the whole process.
pub fn show(traffic: TrafficLog) {
    SHOWN.store(traffic as u8, Ordering::Relaxed);
}

fn shown() -> u8 {
    SHOWN.load(Ordering::Relaxed)
}

fn shows_all() -> bool {
    shown() == TrafficLog::Full as u8
}

/// One call on its way.
#[derive(Clone, Copy)]
pub(crate) struct Watched<'a> {
    method: &'a str,
    connection: u64,
    transport: Transport,
    begun: Instant,
    shown: u8,
}

impl<'a> Watched<'a> {
    /// Watches a call, unless nothing is shown.
    pub(crate) fn begin(method: &'a str, params: Option<&str>, connection: &Connection) -> Option<Self> {
        let shown = shown();
        if shown == TrafficLog::Off as u8 {
            return None;
        }
        let id = connection.id();
        if shown == TrafficLog::Full as u8 {
            let params = params.map(excerpt).unwrap_or_default();
            tracing::info!(target: TARGET, conn = id, "← req {method} {params}");
        }
        Some(Self { method, connection: id, transport: connection.transport(), begun: Instant::now(), shown })
    }

    /// The same call under a name that lasts.
    pub(crate) fn named<'b>(self, method: &'b str) -> Watched<'b> {
        Watched { method, ..self }
    }

    /// Whether anything is to be said of an answer that is there now and is `good`. A method that waits by design is
    /// not slow.
    pub(crate) fn asks(&self, good: bool, waits_by_design: bool) -> bool {
        let is_slow = || !waits_by_design && self.begun.elapsed() >= SLOW;
        !good || self.shown > TrafficLog::Auto as u8 || is_slow()
    }

    /// The call was answered; `error` is the code and the sentence of one that failed.
    pub(crate) fn answered(&self, error: Option<(&str, &str)>) {
        let arrow = if self.shown == TrafficLog::Full as u8 { '→' } else { '⇄' };
        let mark = if error.is_none() { '✓' } else { '✗' };
        let (method, transport) = (printable(self.method), Name(self.transport));
        let milliseconds = self.begun.elapsed().as_millis();
        match error {
            None => tracing::info!(
                target: TARGET, conn = self.connection, via = %transport,
                "{arrow} res {mark} {method} {milliseconds}ms"
            ),
            Some((code, message)) => tracing::info!(
                target: TARGET, conn = self.connection, via = %transport, code, error = message,
                "{arrow} res {mark} {method} {milliseconds}ms"
            ),
        }
    }
}

/// A WebSocket was opened.
pub(crate) fn opened(connection: &Connection) {
    if shows_all() {
        let (via, remote) = (Name(connection.transport()), connection.remote());
        tracing::info!(target: TARGET, conn = connection.id(), %via, %remote, "← open");
    }
}

/// A WebSocket has ended.
pub(crate) fn closed(connection: &Connection, why: &dyn fmt::Debug) {
    if shows_all() {
        tracing::info!(target: TARGET, conn = connection.id(), reason = ?why, "→ close");
    }
}

/// An event was sent.
pub(crate) fn event(name: &str, receivers: usize) {
    if shows_all() {
        tracing::info!(target: TARGET, receivers, "→ event {name}");
    }
}

struct Name(Transport);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Transport::Http => "http",
            Transport::WebSocket => "jsonrpc",
            Transport::Frames => "frames",
        })
    }
}

/// The beginning of params, secrets hidden. They are hidden first: half a secret is one too.
fn excerpt(params: &str) -> String {
    // A large text is cut well behind what is shown, so that hiding costs little.
    let mut text = mask(cut(params, 8 * MAX_SHOWN_BYTES).to_owned());
    let kept = cut(&text, MAX_SHOWN_BYTES).len();
    if kept < text.len() || text.len() < params.len() && params.len() > 8 * MAX_SHOWN_BYTES {
        text.truncate(kept);
        text.push('…');
    }
    text
}

/// The name of a method as a caller gave it: it may be of any length.
fn printable(method: &str) -> &str {
    cut(method, 128)
}

fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_shown_short_and_without_secrets() {
        assert_eq!(excerpt(r#"{"auth":{"token":"abc"}}"#), r#"{"auth":{"token":"***"}}"#);
        let long = format!(r#"{{"message":"{}"}}"#, "ü".repeat(10_000));
        let shown = excerpt(&long);
        assert!(shown.len() <= MAX_SHOWN_BYTES + '…'.len_utf8() && shown.ends_with('…'), "{shown}");
        let secret = format!(r#"{{"pad":"{}","token":"{}"}}"#, "x".repeat(270), "s".repeat(100));
        assert!(!excerpt(&secret).contains("sss"), "{}", excerpt(&secret));
    }
}
