//! `gateway logs`: the end of a gateway's log, and each new line, over restarts of the gateway too.

use std::{str::FromStr as _, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use openclaw_client::Error;
use openclaw_schema::{
    client::LogsClient as _,
    methods::logs::{LogsFollowParams, LogsMethod, LogsTailParams, LogsTailResult},
    types::Bounded,
};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::{
    args::{GlobalArgs, LogsArgs, SeverityArg},
    connection::{self, Connection},
    error::{Failure, Result},
    exit::Exit,
    output::{BAD, DIM, LITERAL, Printer, WARN, printable},
    settings::ClientSettings,
};

/// How many lines are shown without `--limit`. cli.md section 9.
const DEFAULT_LIMIT: u64 = 200;
/// How many lines and bytes one call may ask for: the bounds of `logs.tail`.
const MOST_LINES: u64 = 5000;
const MOST_BYTES: u64 = 1_000_000;
/// How often a gateway is asked that sends no lines by itself.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before a gateway that is gone is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Shows the log of a gateway.
pub(crate) fn logs(args: &LogsArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let mut settings = ClientSettings::resolve(&args.client, global)?;
    if args.follow {
        settings.wait_by_design();
    }
    let view = View { args, printer, is_terminal: printer.is_terminal(), zone: TimeZone::system() };
    connection::run(&settings, async {
        let connection = open(&settings).await?;
        let first = tail(&connection, view.first_params()).await?;
        view.first(&first)?;
        if args.follow {
            follow(connection, first.cursor, &view, global).await?;
        }
        Ok(())
    })?;
    Ok(Exit::Ok)
}

async fn open(settings: &ClientSettings) -> Result<Connection<'_>> {
    let params = connection::params(&LogsTailParams::default());
    Connection::open(settings, LogsMethod::LogsTail.name(), &params).await
}

async fn tail(connection: &Connection<'_>, params: LogsTailParams) -> Result<LogsTailResult> {
    let method = LogsMethod::LogsTail.name();
    connection::read(method, &connection.call(method, connection::params(&params)).await?)
}

/// Goes on from `cursor`, on this connection and on those that follow it. Ends with an error only.
async fn follow(
    connection: Connection<'_>,
    mut cursor: u64,
    view: &View<'_>,
    global: &GlobalArgs,
) -> Result<()> {
    let lost = follow_one(&connection, &mut cursor, view).await?;
    view.printer.note(&format!("the connection was lost ({lost}); waiting for the gateway"));
    drop(connection);
    let mut pause = RETRY.0;
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
        // It may be back at another port.
        let settings = ClientSettings::resolve(&view.args.client, global)?;
        let connection = match open(&settings).await {
            Ok(connection) => connection,
            Err(failure) if may_pass(&failure) => continue,
            Err(failure) => return Err(failure),
        };
        let missed = LogsTailParams { cursor: Some(cursor), ..most() };
        let missed = match tail(&connection, missed).await {
            Ok(missed) => missed,
            Err(failure) if may_pass(&failure) => continue,
            Err(failure) => return Err(failure),
        };
        view.printer.note("connected again");
        if missed.reset {
            view.printer.note("lines between may be missing: the log was rotated");
        }
        view.lines(missed.lines.iter().map(String::as_str))?;
        cursor = missed.cursor;
        pause = RETRY.0;
        let lost = follow_one(&connection, &mut cursor, view).await?;
        view.printer.note(&format!("the connection was lost ({lost}); waiting for the gateway"));
    }
}

/// Follows on one connection until that is lost, and says why it was.
async fn follow_one(connection: &Connection<'_>, cursor: &mut u64, view: &View<'_>) -> Result<String> {
    let mut lines = match connection.client().logs_follow(LogsFollowParams { cursor: Some(*cursor) }).await {
        Ok(lines) => lines,
        Err(error) => {
            return match Error::from(error) {
                Error::Transport { reason, .. } => Ok(reason),
                // HTTP has no subscriptions, and stock gateways have not this one.
                Error::InvalidInput { .. } | Error::Refused(_) => poll(connection, cursor, view).await,
                error => Err(connection.failed(LogsMethod::LogsFollow.name(), error)),
            };
        }
    };
    loop {
        match lines.next().await {
            Some(Ok(line)) => {
                if line.reset {
                    view.printer.note("lines before this one may be missing: the log was rotated");
                }
                *cursor = line.cursor;
                view.lines([line.line.as_str()])?;
            }
            Some(Err(error)) => {
                let method = LogsMethod::LogsFollow.name();
                return Err(connection::unreadable(method, &error));
            }
            None => return Ok("it was closed".to_owned()),
        }
    }
}

/// As [`follow_one`], by asking again and again.
async fn poll(connection: &Connection<'_>, cursor: &mut u64, view: &View<'_>) -> Result<String> {
    loop {
        match tail(connection, LogsTailParams { cursor: Some(*cursor), ..most() }).await {
            Ok(more) => {
                view.lines(more.lines.iter().map(String::as_str))?;
                *cursor = more.cursor;
            }
            Err(Failure::Error(error)) if error.exit == Exit::Unreachable => return Ok(error.message),
            Err(failure) => return Err(failure),
        }
        sleep(POLL_INTERVAL).await;
    }
}

fn most() -> LogsTailParams {
    LogsTailParams {
        limit: Some(Bounded::clamped(MOST_LINES)),
        max_bytes: Some(Bounded::clamped(MOST_BYTES)),
        ..LogsTailParams::default()
    }
}

/// Whether a gateway that restarts answers so.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Error(error) => {
            matches!(error.exit, Exit::Unreachable | Exit::Timeout) || error.code == "UNAVAILABLE"
        }
        Failure::Output(_) => false,
    }
}

/// How lines are shown.
struct View<'a> {
    args: &'a LogsArgs,
    printer: &'a Printer,
    is_terminal: bool,
    zone: TimeZone,
}

impl View<'_> {
    fn limit(&self) -> u64 {
        self.args.limit.unwrap_or(DEFAULT_LIMIT)
    }

    fn first_params(&self) -> LogsTailParams {
        let since = self.args.since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        // The gateway does not know levels: it gives all it may, and what does not count is left out here.
        let limit = if self.args.level.is_some() { MOST_LINES } else { self.limit() };
        LogsTailParams {
            limit: Some(Bounded::clamped(limit)),
            since_ms: since.map(Bounded::clamped),
            ..most()
        }
    }

    /// Shows the end of the log as it was found.
    fn first(&self, found: &LogsTailResult) -> Result<()> {
        let lines: Vec<&str> =
            found.lines.iter().map(String::as_str).filter(|line| self.shows(line)).collect();
        let limit = usize::try_from(self.limit()).unwrap_or(usize::MAX);
        let left_out = lines.len().saturating_sub(limit);
        if self.args.since.is_some() && (found.truncated || left_out > 0) {
            self.printer.note("older lines were left out: `--limit` shows more, 5000 at most");
        }
        self.lines(lines[left_out..].iter().copied())
    }

    fn lines<'l>(&self, lines: impl IntoIterator<Item = &'l str>) -> Result<()> {
        for line in lines.into_iter().filter(|line| self.shows(line)) {
            if self.printer.is_json() {
                self.printer.line(line)?;
            } else {
                self.printer.line(&self.text(line))?;
            }
        }
        Ok(())
    }

    fn shows(&self, line: &str) -> bool {
        let Some(least) = self.args.level else { return true };
        // What has no level is shown: it may be what is looked for.
        Line::read(line).and_then(|line| line.severity()).is_none_or(|severity| severity >= least)
    }

    /// A line for people.
    fn text(&self, line: &str) -> String {
        let Some(line) = Line::read(line) else { return printable(line) };
        let level = line.level.to_ascii_uppercase();
        let level = match line.severity() {
            Some(SeverityArg::Error) => self.printer.styled(BAD, &format!("{level:<5}")),
            Some(SeverityArg::Warn) => self.printer.styled(WARN, &format!("{level:<5}")),
            Some(SeverityArg::Debug | SeverityArg::Trace) => self.printer.styled(DIM, &format!("{level:<5}")),
            Some(SeverityArg::Info) | None => format!("{level:<5}"),
        };
        let mut text = format!("{} {level} ", self.printer.styled(DIM, &self.time(&line.time)));
        if !line.subsystem.is_empty() {
            text.push_str(&self.printer.styled(LITERAL, &printable(&line.subsystem)));
            text.push_str(": ");
        }
        text.push_str(&one_line(&line.message));
        for (name, value) in &line.others {
            let value = match value {
                Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => value.to_string(),
                Value::String(text) => text.clone(),
                value => value.to_string(),
            };
            text.push_str(&format!(" {}{}", self.printer.styled(DIM, &format!("{name}=")), one_line(&value)));
        }
        text
    }

    /// The local time of day on a terminal, else as it was written.
    fn time(&self, written: &str) -> String {
        match Timestamp::from_str(written) {
            Ok(time) if self.is_terminal => {
                time.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string()
            }
            _ => printable(written),
        }
    }
}

fn one_line(text: &str) -> String {
    printable(&text.replace('\n', "\\n"))
}

/// A line of a log, ours or that of a stock gateway (cli.md section 10).
struct Line {
    time: String,
    level: String,
    subsystem: String,
    message: String,
    others: Map<String, Value>,
}

impl Line {
    fn read(line: &str) -> Option<Self> {
        let Value::Object(mut fields) = serde_json::from_str(line).ok()? else { return None };
        let mut text = |name: &str| match fields.shift_remove(name) {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let (time, mut level) = (text("time"), text("level"));
        let (mut subsystem, mut message) = (text("subsystem"), text("message"));
        if let Some(Value::Object(meta)) = fields.shift_remove("_meta") {
            level = meta.get("logLevelName").and_then(Value::as_str).unwrap_or_default().to_owned();
            let mut arguments: Vec<String> = Vec::new();
            for number in 0.. {
                match fields.shift_remove(&number.to_string()) {
                    Some(Value::String(text)) => arguments.push(text),
                    Some(other) => arguments.push(other.to_string()),
                    None => break,
                }
            }
            let named = arguments.first().and_then(|first| {
                let named: Value = serde_json::from_str(first).ok()?;
                named.get("subsystem").or_else(|| named.get("module"))?.as_str().map(str::to_owned)
            });
            if let Some(named) = named {
                subsystem = named;
                arguments.remove(0);
            }
            if message.is_empty() {
                message = arguments.join(" ");
            }
            // What is left is about the process, the same in every line.
            fields.clear();
        }
        Some(Self { time, level, subsystem, message, others: fields })
    }

    fn severity(&self) -> Option<SeverityArg> {
        Some(match self.level.to_ascii_lowercase().as_str() {
            "trace" => SeverityArg::Trace,
            "debug" => SeverityArg::Debug,
            "info" => SeverityArg::Info,
            "warn" => SeverityArg::Warn,
            "error" | "fatal" => SeverityArg::Error,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, level: Option<SeverityArg>) -> Option<String> {
        let args = LogsArgs {
            follow: false,
            since: None,
            level,
            limit: None,
            client: crate::args::ClientArgs::default(),
        };
        let printer = Printer::new(false, true);
        let view = View { args: &args, printer: &printer, is_terminal: false, zone: TimeZone::UTC };
        view.shows(line).then(|| view.text(line))
    }

    #[test]
    fn lines_read_well_whoever_wrote_them() {
        for (line, text) in [
            (
                r#"{"time":"2026-11-22T09:05:01.461Z","level":"WARN","subsystem":"rpc","message":"slow\ncall","id":8,"path":"/a b"}"#,
                "2026-11-22T09:05:01.461Z WARN  rpc: slow\\ncall id=8 path=\"/a b\"",
            ),
            (
                r#"{"0":"{\"subsystem\":\"gateway\"}","1":"ready","_meta":{"logLevelName":"INFO","hostname":"h"},"time":"2026-11-22T09:05:01.461+00:00","hostname":"h"}"#,
                "2026-11-22T09:05:01.461+00:00 INFO  gateway: ready",
            ),
            ("no JSON \u{1b}[2J", "no JSON \u{FFFD}[2J"),
        ] {
            assert_eq!(shown(line, None).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_level_leaves_out_what_is_less_severe() {
        let line = |level: &str| format!(r#"{{"time":"t","level":"{level}","message":"m"}}"#);
        for (level, is_shown) in
            [("ERROR", true), ("WARN", true), ("INFO", false), ("DEBUG", false), ("?", true)]
        {
            assert_eq!(shown(&line(level), Some(SeverityArg::Warn)).is_some(), is_shown, "{level}");
        }
        assert!(shown("no JSON", Some(SeverityArg::Error)).is_some());
    }
}
