//! JSON5 text to a value: errors show the place, and nesting is bounded.

use std::{fmt, path::Path};

use ::json5::{Error, ErrorCode};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::ConfigError;

/// How deep arrays and objects may lie in each other. As serde_json; json5 itself has no limit but the stack.
const MAX_DEPTH: usize = 128;

/// Reads `text`, the content of the file at `path`. Blank text is an empty object.
pub(super) fn parse(text: &str, path: &Path) -> Result<Value, ConfigError> {
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let Document(value) = ::json5::from_str(text).map_err(|error| syntax_error(&error, text, path))?;
    Ok(value)
}

fn syntax_error(error: &Error, text: &str, path: &Path) -> ConfigError {
    let problem = match (error.code(), error.position()) {
        // Where the file ends, the position is that of the innermost object or array.
        (Some(ErrorCode::EofParsingString), Some(_)) => {
            "what begins here has no end, and a quotation mark is missing after it".to_owned()
        }
        (Some(code), Some(_)) if code.to_string().starts_with("EOF") => {
            "what begins here has no end".to_owned()
        }
        (Some(_), None) => "the file ends where a value is expected".to_owned(),
        (Some(code), Some(_)) => code.to_string(),
        // The text ends with the position, which is said already.
        (None, _) => error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    };
    let text = text.replace("\r\n", "\n");
    let lines: Vec<&str> = text.split(['\n', '\r', '\u{2028}', '\u{2029}']).collect();
    // The end of the file has no position of its own. Blank lines at the end show nothing.
    let (line, column) = match error.position() {
        Some(position) => (position.line, position.column),
        None => {
            let last = lines.iter().rposition(|line| !line.trim().is_empty()).unwrap_or(0);
            (last, lines.get(last).map_or(0, |line| line.trim_end().chars().count()))
        }
    };
    ConfigError::Syntax {
        path: path.to_owned(),
        line: line + 1,
        column: column + 1,
        problem,
        excerpt: excerpt(lines.get(line).copied().unwrap_or_default(), line + 1, column),
    }
}

/// The line with its number, and a caret below `column` (from 0).
fn excerpt(line: &str, number: usize, column: usize) -> String {
    /// How much is shown on each side of the place.
    const MARGIN: usize = 60;
    let start = column.saturating_sub(MARGIN);
    let shown: String = hide_secrets(line).chars().skip(start).take(2 * MARGIN).collect();
    let gutter = " ".repeat(number.to_string().len());
    let indent = " ".repeat(column - start);
    format!("{number} | {shown}\n{gutter} | {indent}^")
}

/// `line` with a `*` for each letter and digit that may belong to a secret: what follows a key that sounds like
/// one. Its length stays, and a tab counts as one column.
fn hide_secrets(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let key = ["token", "password", "secret", "key"].iter().filter_map(|word| lower.find(word)).min();
    let from = key.and_then(|key| lower[key..].find(':').map(|colon| key + colon)).unwrap_or(line.len());
    // A line that is the rest of a broken text may hold anything; only its punctuation helps.
    let is_shown = |at: usize, letter: char| at < from || " {}[],:\"'\\/".contains(letter);
    line.char_indices()
        .map(|(at, letter)| match letter {
            '\t' => ' ',
            letter if is_shown(at, letter) => letter,
            _ => '*',
        })
        .collect()
}

/// A JSON5 document of at most [`MAX_DEPTH`].
struct Document(Value);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Nested { levels_left: MAX_DEPTH }.deserialize(deserializer).map(Self)
    }
}

/// Reads a value that may hold so many levels of arrays and objects.
#[derive(Clone, Copy)]
struct Nested {
    levels_left: usize,
}

impl Nested {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Self { levels_left }),
            None => Err(E::custom(format_args!("more than {MAX_DEPTH} arrays and objects in each other"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON5 value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.insert(key, entries.next_value_seed(inner)?);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("/s/openclaw.json")).expect_err("it is refused").to_string()
    }

    #[test]
    fn a_syntax_error_has_line_column_and_a_caret() {
        for (text, expected) in [
            (
                "{\n  gateway: {\r\n\tport: 18999 bind: 'lan',\n  },\n}\n",
                "/s/openclaw.json:3:14 is not valid JSON5: expected comma\n\
                 3 |  port: 18999 bind: 'lan',\n\
                 \u{20} |              ^",
            ),
            (
                "{\n  gateway: {\n\n",
                "/s/openclaw.json:2:12 is not valid JSON5: what begins here has no end\n\
                 2 |   gateway: {\n\
                 \u{20} |            ^",
            ),
            (
                "// nothing but a comment\n",
                "/s/openclaw.json:1:25 is not valid JSON5: the file ends where a value is expected\n\
                 1 | // nothing but a comment\n\
                 \u{20} |                         ^",
            ),
            (
                "{ gateway: { auth: { password: 'hush } } }",
                "/s/openclaw.json:1:20 is not valid JSON5: what begins here has no end, and a quotation mark is missing \
                 after it\n\
                 1 | { gateway: { auth: { password: '**** } } }\n\
                 \u{20} |                    ^",
            ),
            (
                "{,}",
                "/s/openclaw.json:1:2 is not valid JSON5: expected identifier\n\
                 1 | {,}\n\
                 \u{20} |  ^",
            ),
            (
                "{} x",
                "/s/openclaw.json:1:4 is not valid JSON5: trailing characters\n\
                 1 | {} x\n\
                 \u{20} |    ^",
            ),
            (
                "{ auth: { token: 'hush-1' port: 1 } }",
                "/s/openclaw.json:1:27 is not valid JSON5: expected comma\n\
                 1 | { auth: { token: '******' ****: * } }\n\
                 \u{20} |                           ^",
            ),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth| format!("{{x: {}{}}}", "[".repeat(depth), "]".repeat(depth));
        parse(&nested(127), Path::new("/s/openclaw.json")).expect("it is read");
        for depth in [128, 200_000] {
            let error = error(&nested(depth));
            assert!(error.contains("more than 128 arrays and objects in each other"), "{error}");
            assert!(error.starts_with("/s/openclaw.json:1:"), "{error}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{{ a: [{} }}", "1, ".repeat(100));
        let error = error(&text);
        assert!(error.lines().all(|line| line.len() < 130), "{error}");
    }
}
