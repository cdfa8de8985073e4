//! Which events are logged: a level, and other levels for parts of the program.

use std::{fmt, str::FromStr};

use tracing::{Metadata, level_filters::LevelFilter};

/// Crates we use that say at `debug` what only their authors want to know. They stay at `info` unless a part names
/// them.
const CHATTY_CRATES: [&str; 8] =
    ["axum", "h2", "hyper", "jsonrpsee", "mio", "rustls", "tokio", "tungstenite"];

/// What the targets of our own crates begin with; nobody types it.
const OWN_PREFIX: &str = "openclaw_";

/// A level for everything, and levels for parts: `info,wire=debug,hyper=warn`.
///
/// A part is a path of modules, with `::` between two: `gateway::wire`, `wire`, `websocket`. It holds for every
/// module whose path has it in a row, and for what lies below. The part that reaches furthest down a path counts, of
/// two such the one written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter {
    default: LevelFilter,
    parts: Vec<(String, LevelFilter)>,
}

/// A text that is no [`LogFilter`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no log level: use silent, fatal, error, warn, info, debug or trace, also per part of the \
     program as in `info,wire=debug`"
)]
pub struct BadFilter {
    /// The entry that is none.
    pub given: String,
}

impl LogFilter {
    /// A level for everything.
    #[must_use]
    pub fn level(default: LevelFilter) -> Self {
        Self { default, parts: Vec::new() }
    }

    /// Adds a part. What is added later comes before what was added earlier.
    ///
    /// # Errors
    ///
    /// When the part is empty, or the level is none.
    pub fn with_part(mut self, part: &str, level: &str) -> Result<Self, BadFilter> {
        let bad = || BadFilter { given: format!("{part}={level}") };
        let level = level_of(level).ok_or_else(bad)?;
        let name = part.trim().trim_start_matches(OWN_PREFIX);
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(bad());
        }
        self.parts.push((name.to_owned(), level));
        Ok(self)
    }

    /// The same parts, and at least this level for everything else.
    #[must_use]
    pub fn at_least(mut self, level: LevelFilter) -> Self {
        self.default = self.default.max(level);
        self
    }

    /// At most this level for everything, parts included.
    #[must_use]
    pub fn at_most(mut self, level: LevelFilter) -> Self {
        self.default = self.default.min(level);
        for (_, of_part) in &mut self.parts {
            *of_part = level.min(*of_part);
        }
        self
    }

    /// Whether an event is logged.
    pub(super) fn enables(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level_of_target(metadata.target())
    }

    /// The most that any part is logged with.
    pub(super) fn most(&self) -> LevelFilter {
        self.parts.iter().map(|(_, level)| *level).fold(self.default, LevelFilter::max)
    }

    fn level_of_target(&self, target: &str) -> LevelFilter {
        let target = target.trim_start_matches(OWN_PREFIX);
        let mut found = (0, self.default);
        if self.default > LevelFilter::INFO
            && CHATTY_CRATES.iter().any(|name| target.split("::").next() == Some(name))
        {
            found.1 = LevelFilter::INFO;
        }
        for (part, level) in &self.parts {
            if let Some(reach) = reach(target, part)
                && reach >= found.0
            {
                found = (reach, *level);
            }
        }
        found.1
    }
}

/// How far down the path `part` reaches, in bytes; `None` where the path does not have it.
fn reach(target: &str, part: &str) -> Option<usize> {
    let ends_a_name = |at: usize| at == target.len() || target[at..].starts_with("::");
    let begins_a_name = |at: usize| at == 0 || target[..at].ends_with("::");
    target
        .rmatch_indices(part)
        .map(|(start, _)| (start, start + part.len()))
        .find(|(start, end)| begins_a_name(*start) && ends_a_name(*end))
        .map(|(_, end)| end)
}

fn level_of(name: &str) -> Option<LevelFilter> {
    Some(match name.trim().to_ascii_lowercase().as_str() {
        "silent" | "off" => LevelFilter::OFF,
        "fatal" | "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

impl FromStr for LogFilter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let mut filter = Self::level(LevelFilter::INFO);
        for entry in text.split(',') {
            match entry.split_once('=') {
                Some((part, level)) => filter = filter.with_part(part, level)?,
                None => {
                    filter.default =
                        level_of(entry).ok_or_else(|| BadFilter { given: entry.trim().to_owned() })?;
                }
            }
        }
        Ok(filter)
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        self.parts.iter().try_for_each(|(part, level)| write!(f, ",{part}={level}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(filter: &str, target: &str) -> LevelFilter {
        filter.parse::<LogFilter>().expect("a filter").level_of_target(target)
    }

    #[test]
    fn a_level_holds_for_everything_but_crates_that_chatter() {
        assert_eq!(level("debug", "openclaw_gateway::wire"), LevelFilter::DEBUG);
        assert_eq!(level("debug", "hyper::proto"), LevelFilter::INFO);
        assert_eq!(level("debug,hyper=trace", "hyper::proto"), LevelFilter::TRACE);
        assert_eq!(level("warn", "hyper::proto"), LevelFilter::WARN);
        assert_eq!(level("silent", "x"), LevelFilter::OFF);
        assert_eq!(level("fatal", "x"), LevelFilter::ERROR);
    }

    #[test]
    fn a_part_is_any_run_of_names_and_the_deepest_counts() {
        let target = "openclaw_gateway::wire::websocket";
        for (filter, expected) in [
            ("warn,gateway=debug", LevelFilter::DEBUG),
            ("warn,openclaw_gateway::wire=debug", LevelFilter::DEBUG),
            ("warn,wire=debug", LevelFilter::DEBUG),
            ("warn,websocket=trace,wire=debug", LevelFilter::TRACE),
            ("warn,wire::websocket=trace,gateway=off", LevelFilter::TRACE),
            ("warn,wire=debug,wire=error", LevelFilter::ERROR),
            ("warn,socket=debug", LevelFilter::WARN),
            ("warn,web=debug", LevelFilter::WARN),
            ("wire=debug", LevelFilter::DEBUG),
        ] {
            assert_eq!(level(filter, target), expected, "{filter}");
        }
        assert_eq!(level("wire=debug", "openclaw_gateway::runs"), LevelFilter::INFO);
    }

    #[test]
    fn the_most_is_that_of_any_part() {
        let filter: LogFilter = "warn,wire=trace".parse().expect("a filter");
        assert_eq!(filter.most(), LevelFilter::TRACE);
        assert_eq!(filter.clone().at_most(LevelFilter::ERROR).to_string(), "error,wire=error");
        assert_eq!(filter.at_least(LevelFilter::DEBUG).to_string(), "debug,wire=trace");
    }

    #[test]
    fn what_is_no_filter_is_named() {
        for (text, named) in
            [("loud", "`loud`"), ("info,x=loud", "`x=loud`"), ("info,", "``"), ("=info", "`=info`")]
        {
            let error = text.parse::<LogFilter>().expect_err("no filter").to_string();
            assert!(error.starts_with(named) && error.contains("warn, info"), "{text}: {error}");
        }
    }
}
