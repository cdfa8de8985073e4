//! Turns an event of `tracing` into a line: JSON for the file, text for people.

use std::{
    error::Error,
    fmt::{self, Write as _},
    mem,
};

use jiff::{Timestamp, tz::TimeZone};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{ConsoleStyle, LogHandle, LogSettings, Redactor, mask::mask, traffic};

/// What one value may take up of a line. A runaway value must not push everything else out of the log.
const MAX_VALUE_BYTES: usize = 16 << 10;

/// The layer that logs. Fields of the spans around an event are part of its line.
#[derive(Debug)]
pub struct LogLayer {
    handle: LogHandle,
    style: Style,
    zone: TimeZone,
}

/// How lines on the console look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    form: ConsoleStyle,
    colour: bool,
    /// Whether the journal reads them, which adds the time, takes the severity away, and shows no colour.
    journal: bool,
}

impl Style {
    pub(super) fn of(settings: &LogSettings) -> Self {
        Self { form: settings.style, colour: settings.colour && !settings.journal, journal: settings.journal }
    }
}

impl LogLayer {
    pub(super) fn new(handle: LogHandle, style: Style) -> Self {
        Self { handle, style, zone: TimeZone::system() }
    }

    /// Whether file or console take it.
    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let rules = self.handle.shared.rules();
        rules.file.enables(metadata)
            || (self.handle.shared.console.is_some() && rules.console.enables(metadata))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.takes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.takes(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let rules = self.handle.shared.rules();
        Some(rules.file.most().max(rules.console.most()))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let (shared, metadata) = (&self.handle.shared, event.metadata());
        let rules = shared.rules();
        let to_file = metadata.target() != traffic::TARGET && rules.file.enables(metadata);
        let console = shared
            .console
            .as_ref()
            .filter(|_| rules.console.enables(metadata) || (to_file && self.handle.file_fails()));
        if !to_file && console.is_none() {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        // From the innermost span outwards: the nearest value of a name counts.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.inherit(outer);
            }
        }
        fields.redact(&rules.redactor);
        let record = Record::new(metadata, fields);
        let json = (to_file || self.style.form == ConsoleStyle::Json).then(|| mask(record.json()));
        if to_file && let Some(json) = &json {
            shared.file.push(json.as_bytes());
        }
        if let Some(console) = console {
            let line = match (self.style.form, json) {
                (ConsoleStyle::Json, Some(json)) if self.style.journal => record.severity() + &json,
                (ConsoleStyle::Json, Some(json)) => json,
                (ConsoleStyle::Pretty, _) if !self.style.journal => {
                    mask(record.pretty(self.style.colour, &self.zone))
                }
                _ => mask(record.text(self.style)),
            };
            console.push(line.as_bytes());
        }
    }
}

/// The fields of an event or of a span.
#[derive(Default)]
struct Fields {
    message: String,
    subsystem: Option<String>,
    others: Vec<(&'static str, Value)>,
}

#[derive(Clone)]
enum Value {
    /// A number or a boolean, as JSON writes it.
    Literal(String),
    Text(String),
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Literal(text)) => self.message = text,
            ("subsystem", Value::Text(text) | Value::Literal(text)) => self.subsystem = Some(text),
            (name, value) => {
                // The line has keys of its own, and no key twice.
                let name = match name {
                    "time" => "time_",
                    "level" => "level_",
                    other => other,
                };
                match self.others.iter_mut().find(|(known, _)| *known == name) {
                    Some(known) => known.1 = value,
                    None => self.others.push((name, value)),
                }
            }
        }
    }

    fn text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_VALUE_BYTES {
            let mut kept = MAX_VALUE_BYTES;
            while !text.is_char_boundary(kept) {
                kept -= 1;
            }
            let left_out = text.len() - kept;
            text.truncate(kept);
            text.push_str(&format!("… ({left_out} bytes left out)"));
        }
        self.put(field, Value::Text(text));
    }

    fn redact(&mut self, redactor: &Redactor) {
        self.message = redactor.clean(mem::take(&mut self.message));
        for (_, value) in &mut self.others {
            if let Value::Text(text) = value {
                *text = redactor.clean(mem::take(text));
            }
        }
    }

    fn inherit(&mut self, outer: &Self) {
        if self.subsystem.is_none() {
            self.subsystem.clone_from(&outer.subsystem);
        }
        for (name, value) in &outer.others {
            if !self.others.iter().any(|(known, _)| known == name) {
                self.others.push((name, value.clone()));
            }
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity and no NaN.
        if value.is_finite() {
            self.put(field, Value::Literal(value.to_string()));
        } else {
            self.text(field, value.to_string());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::Literal(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::Literal(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Literal(value.to_string()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        self.text(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}

/// One event, ready to be written down.
pub(super) struct Record {
    time: Timestamp,
    level: Level,
    subsystem: String,
    fields: Fields,
}

impl Record {
    fn new(metadata: &Metadata<'_>, mut fields: Fields) -> Self {
        let subsystem = fields.subsystem.take().unwrap_or_else(|| subsystem(metadata.target()).to_owned());
        Self { time: Timestamp::now(), level: *metadata.level(), subsystem, fields }
    }

    /// A warning of the log about itself.
    pub(super) fn warning(message: String, name: &'static str, count: u64) -> Self {
        let others = vec![(name, Value::Literal(count.to_string()))];
        let fields = Fields { message, subsystem: None, others };
        Self { time: Timestamp::now(), level: Level::WARN, subsystem: "logs".to_owned(), fields }
    }

    /// As a line of the file. Control characters are escaped, so one event is always one line.
    pub(super) fn json(&self) -> String {
        let mut line = String::with_capacity(256);
        line.push_str("{\"time\":\"");
        push(&mut line, format_args!("{:.3}", self.time));
        push(&mut line, format_args!("\",\"level\":\"{}\",\"subsystem\":", self.level));
        push_json_string(&mut line, &self.subsystem);
        line.push_str(",\"message\":");
        push_json_string(&mut line, &self.fields.message);
        for (name, value) in &self.fields.others {
            line.push(',');
            push_json_string(&mut line, name);
            line.push(':');
            match value {
                Value::Literal(literal) => line.push_str(literal),
                Value::Text(text) => push_json_string(&mut line, text),
            }
        }
        line.push_str("}\n");
        line
    }

    /// As a line for people who read it later.
    fn text(&self, style: Style) -> String {
        let colour = style.colour;
        let (dim, reset) = if colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let paint = self.paint(colour);
        let mut line = String::with_capacity(160);
        if style.journal {
            line.push_str(&self.severity());
        } else {
            push(
                &mut line,
                format_args!("{dim}{:.3}{reset} {paint}{:<5}{reset} ", self.time, self.level.as_str()),
            );
        }
        push_visible(&mut line, &self.subsystem);
        line.push_str(": ");
        self.push_rest(&mut line, colour);
        line
    }

    /// How severe it is, as the journal reads it at the beginning of a line: sd-daemon(3), with the numbers of
    /// syslog(3).
    fn severity(&self) -> String {
        let severity = match self.level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        format!("<{severity}>")
    }

    /// As a line for people who watch.
    fn pretty(&self, colour: bool, zone: &TimeZone) -> String {
        let (dim, reset) = if colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let paint = self.paint(colour);
        let time = self.time.to_zoned(zone.clone());
        let mut line = String::with_capacity(160);
        push(&mut line, format_args!("{dim}{}{reset} ", time.strftime("%H:%M:%S")));
        if self.level != Level::INFO {
            push(&mut line, format_args!("{paint}{}{reset} ", self.level.as_str()));
        }
        push(&mut line, format_args!("{}[", if colour { "\x1b[36m" } else { "" }));
        push_visible(&mut line, &self.subsystem);
        push(&mut line, format_args!("]{reset} "));
        self.push_rest(&mut line, colour);
        line
    }

    fn paint(&self, colour: bool) -> &'static str {
        match self.level {
            _ if !colour => "",
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            Level::INFO => "\x1b[32m",
            _ => "\x1b[34m",
        }
    }

    /// Message and fields, to the end of the line.
    fn push_rest(&self, line: &mut String, colour: bool) {
        let (dim, reset) = if colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        push_visible(line, &self.fields.message);
        for (name, value) in &self.fields.others {
            push(line, format_args!(" {dim}{name}={reset}"));
            match value {
                Value::Literal(text) => line.push_str(text),
                Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                    push(line, format_args!("{text:?}"));
                }
                Value::Text(text) => push_visible(line, text),
            }
        }
        line.push('\n');
    }
}

/// The part of the program that a target names: the module for our own crates, the crate for others.
fn subsystem(target: &str) -> &str {
    match (target.strip_prefix("openclaw_"), target.rsplit("::").next()) {
        (Some(ours), Some(last)) if ours.contains("::") => last,
        (Some(ours), _) => ours,
        (None, _) => target.split("::").next().unwrap_or(target),
    }
}

fn push(line: &mut String, arguments: fmt::Arguments<'_>) {
    line.write_fmt(arguments).expect("a String takes everything, and our arguments do not fail");
}

fn push_json_string(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // Beyond what JSON demands: these steer terminals, and some readers take them for line ends.
            _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                push(line, format_args!("\\u{:04x}", u32::from(character)));
            }
            _ => line.push(character),
        }
    }
    line.push('"');
}

fn push_visible(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str, others: Vec<(&'static str, Value)>) -> Record {
        let fields = Fields { message: message.to_owned(), subsystem: None, others };
        let time = "2026-11-22T09:05:01.461987Z".parse().expect("a time");
        Record { time, level: Level::INFO, subsystem: "gateway".to_owned(), fields }
    }

    #[test]
    fn the_subsystem_is_our_module_or_the_foreign_crate() {
        assert_eq!(subsystem("openclaw_gateway"), "gateway");
        assert_eq!(subsystem("openclaw_gateway::wire::jsonrpc"), "jsonrpc");
        assert_eq!(subsystem("hyper::proto::h1::io"), "hyper");
        assert_eq!(subsystem(""), "");
    }

    #[test]
    fn a_line_of_the_file_is_one_json_object_whatever_the_text() {
        let line =
            record("a\nb\u{1b}[31m\u{9b}\u{2028}\"\\", vec![("n", Value::Literal("5".to_owned()))]).json();
        assert_eq!(
            line,
            "{\"time\":\"2026-11-22T09:05:01.461Z\",\"level\":\"INFO\",\"subsystem\":\"gateway\",\
             \"message\":\"a\\nb\\u001b[31m\\u009b\\u2028\\\"\\\\\",\"n\":5}\n"
        );
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["message"], "a\nb\u{1b}[31m\u{9b}\u{2028}\"\\");
    }

    #[test]
    fn a_line_for_people_is_short_and_harmless() {
        let others = vec![
            ("port", Value::Literal("18789".to_owned())),
            ("path", Value::Text("/a b".to_owned())),
            ("mode", Value::Text("x\u{1b}".to_owned())),
        ];
        let record = record("ready\n", others);
        let plain = Style { form: ConsoleStyle::Compact, colour: false, journal: false };
        assert_eq!(
            record.text(plain),
            "2026-11-22T09:05:01.461Z INFO  gateway: ready\\n port=18789 path=\"/a b\" mode=x\\u{1b}\n"
        );
        let coloured = record.text(Style { colour: true, ..plain });
        assert!(coloured.contains("\x1b[32mINFO \x1b[0m"), "{coloured:?}");
        let journal = record.text(Style { journal: true, ..plain });
        assert!(journal.starts_with("<6>gateway: ready"), "{journal:?}");
        assert_eq!(
            record.pretty(false, &TimeZone::UTC),
            "09:05:01 [gateway] ready\\n port=18789 path=\"/a b\" mode=x\\u{1b}\n"
        );
    }
}
