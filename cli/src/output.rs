//! Where text goes: data to stdout, everything else to stderr; JSON or words; with colour or without.
//!
//! With `--json` there is exactly one document on stdout and nothing else anywhere; with `--stream` several, a line
//! each. Writing to a closed pipe
//! ends the command quietly.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Effects, Style};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    error::{CliError, Failure, Result},
    exit::Exit,
};

/// A heading.
pub(crate) const HEADING: Style = Style::new().effects(Effects::BOLD);
/// A name that can be typed.
pub(crate) const LITERAL: Style = AnsiColor::Cyan.on_default();
/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().effects(Effects::BOLD);
/// Bad news.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// Neither good nor bad news.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().effects(Effects::BOLD);
/// Advice.
const HINT: Style = AnsiColor::Cyan.on_default().effects(Effects::BOLD);
/// What matters less.
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);

/// Writes what a command has to say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    json: bool,
    lines: bool,
    colour_out: bool,
    colour_err: bool,
}

impl Printer {
    /// `json`: one document instead of words. `no_color`: as `--no-color`; without it, `NO_COLOR`, `TERM` and
    /// whether the stream is a terminal decide.
    pub(crate) fn new(json: bool, no_color: bool) -> Self {
        let wanted = |choice: ColorChoice| !no_color && choice != ColorChoice::Never;
        Self {
            json,
            lines: false,
            colour_out: wanted(AutoStream::choice(&io::stdout())),
            colour_err: wanted(AutoStream::choice(&io::stderr())),
        }
    }

    /// For `--stream`: JSON documents, a line each.
    pub(crate) fn lines(no_color: bool) -> Self {
        Self { lines: true, ..Self::new(true, no_color) }
    }

    /// Whether the output is JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stderr takes colour.
    pub(crate) fn colours_stderr(&self) -> bool {
        self.colour_err
    }

    /// Whether somebody watches stdout.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Asks a person a question that is answered with yes or no; anything but yes is no. `None` when nobody can be
    /// asked.
    pub(crate) fn ask(&self, question: &str) -> Option<bool> {
        if self.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        complain(&format!("{} [y/N] ", printable(question)));
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).is_ok();
        Some(read && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// How many columns text is wrapped to: the terminal's, but no more than can be read well; 80 in a pipe.
    pub(crate) fn width(&self) -> usize {
        if !io::stdout().is_terminal() {
            return 80;
        }
        rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| usize::from(size.ws_col).clamp(40, 100))
    }

    /// `text` in `style`, if stdout takes colour.
    pub(crate) fn styled(&self, style: Style, text: &str) -> String {
        styled(self.colour_out, style, text)
    }

    /// Writes `text` and a line end to stdout.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n"));
        written.and_then(|()| stdout.flush()).map_err(Failure::Output)
    }

    /// Writes one JSON document to stdout: two blanks a level, or in a line of its own.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<()> {
        let text =
            if self.lines { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
        self.line(&text.expect("what the command line makes serialises"))
    }

    /// Writes JSON that was received to stdout, two blanks a level, otherwise byte for byte.
    pub(crate) fn received(&self, value: &RawValue) -> Result<()> {
        self.line(&indented(value.get()))
    }

    /// Tells people something on stderr; silent with `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            complain(&format!("{}\n", printable(text)));
        }
    }

    /// Reports an error: the envelope on stdout with `--json`, otherwise words on stderr.
    pub(crate) fn error(&self, error: &CliError) -> Result<()> {
        if self.json {
            return self.json(&error.envelope());
        }
        let mut text = format!("{} {}\n", styled(self.colour_err, BAD, "error:"), printable(&error.message));
        for cause in &error.causes {
            let _ = writeln!(text, "  {}", printable(cause));
        }
        for hint in &error.hints {
            let _ = writeln!(text, "{} {}", styled(self.colour_err, HINT, "hint:"), printable(hint));
        }
        complain(&text);
        Ok(())
    }

    /// Reports whatever ended a command, and says how it exits.
    pub(crate) fn failure(&self, failure: Failure) -> Exit {
        match failure {
            Failure::Error(error) => match self.error(&error) {
                Ok(()) => error.exit,
                Err(failure) => self.failure(failure),
            },
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Failure::Output(error) => {
                complain(&format!("error: standard output cannot be written: {error}\n"));
                Exit::Refused
            }
        }
    }
}

fn styled(colour: bool, style: Style, text: &str) -> String {
    if colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Writes to stderr. If that fails, there is nowhere left to say so.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Text from elsewhere, without what could steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let steers = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
    text.chars().map(|char| if steers(char) { '\u{FFFD}' } else { char }).collect()
}

/// A URL as it is shown: without its query, which may hold secrets.
pub(crate) fn shown_url(url: &str) -> &str {
    url.split_once('?').map_or(url, |(shown, _)| shown)
}

/// Valid JSON text, laid out two blanks a level. Numbers, strings and the order of members stay as they are.
fn indented(json: &str) -> String {
    fn line(out: &mut String, level: usize) {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", level));
    }
    let mut out = String::with_capacity(json.len() + json.len() / 4);
    let (mut level, mut in_string, mut escaped) = (0_usize, false, false);
    let mut chars = json.chars().filter({
        let (mut in_string, mut escaped) = (false, false);
        // Blanks between tokens go; those in strings stay.
        move |char| {
            if in_string {
                in_string = escaped || *char != '"';
                escaped = !escaped && *char == '\\';
                return true;
            }
            in_string = *char == '"';
            !char.is_ascii_whitespace()
        }
    });
    let mut next = chars.next();
    while let Some(char) = next {
        next = chars.next();
        if in_string {
            out.push(char);
            in_string = escaped || char != '"';
            escaped = !escaped && char == '\\';
            continue;
        }
        match char {
            '{' | '[' => {
                out.push(char);
                if let Some(close @ ('}' | ']')) = next {
                    out.push(close);
                    next = chars.next();
                } else {
                    level += 1;
                    line(&mut out, level);
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                line(&mut out, level);
                out.push(char);
            }
            ',' => {
                out.push(char);
                line(&mut out, level);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = char == '"';
                out.push(char);
            }
        }
    }
    out
}

/// `text` in paragraphs of at most `width` columns, each line after `indent` blanks. Single line ends are
/// blanks, as in Markdown; empty lines part paragraphs.
pub(crate) fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut out = String::new();
    for (index, paragraph) in text.split("\n\n").enumerate() {
        if index > 0 {
            out.push_str("\n\n");
        }
        let mut column = 0;
        for word in paragraph.split_whitespace() {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > room {
                out.push('\n');
                column = 0;
            }
            if column == 0 {
                out.extend(std::iter::repeat_n(' ', indent));
            } else {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_json_is_laid_out_and_nothing_else() {
        for value in [
            r#"{"a":[1,{"b":"x: \"y\", {z}"},[],{}],"big":18446744073709551615,"e":1e400}"#,
            "  {\n\"a\" : [ ] , \"b\":\"  \\\\\" }  ",
            "[]",
            "null",
            r#""a\\""#,
        ] {
            let out = indented(value);
            if let Ok(parsed) = serde_json::from_str::<serde_json::Value>(value) {
                assert_eq!(out, serde_json::to_string_pretty(&parsed).expect("it serialises"));
            } else {
                assert!(out.contains("1e400"), "{out}");
            }
        }
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}c\nd"), "a\u{FFFD}[2Jb\u{FFFD}c\nd");
    }

    #[test]
    fn paragraphs_wrap_and_stay_apart() {
        assert_eq!(wrapped("aa bb\ncc dd ee ff gg hh\n\nii", 2, 24), "  aa bb cc dd ee ff gg\n  hh\n\n  ii");
    }
}
