//! Keeps secrets out of the log: the gateway's own, by their value, and what the user's patterns describe.
//!
//! Shapes of secrets that everybody knows are the business of `mask`. What holds a secret in memory is a
//! `SecretString`, which does not print itself.

use std::{borrow::Cow, fmt};

use regex::{Captures, Regex, RegexBuilder};
use secrecy::{ExposeSecret as _, SecretString};

use super::mask::MASK;

/// How short a secret may be to be looked for in texts. Shorter ones are part of many words.
const MIN_SECRET_BYTES: usize = 6;

/// What is replaced in every text that is logged.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Vec<SecretString>,
    patterns: Vec<Regex>,
}

/// A pattern that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} is no regular expression: {problem}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Redactor {
    /// Replaces `secrets` wherever they stand, and what the patterns match: their first group where they have one.
    ///
    /// A pattern is a regular expression, or one between slashes with flags behind it: `/key=(\w+)/i`.
    ///
    /// # Errors
    ///
    /// A pattern that is none: without it a secret might be logged.
    pub fn new(
        secrets: impl IntoIterator<Item = SecretString>,
        patterns: &[String],
    ) -> Result<Self, BadPattern> {
        let secrets = secrets
            .into_iter()
            .filter(|secret| secret.expose_secret().trim().len() >= MIN_SECRET_BYTES)
            .collect();
        Ok(Self {
            secrets,
            patterns: patterns.iter().map(|pattern| compile(pattern)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the patterns of `other` are the same.
    pub(crate) fn has_patterns_of(&self, other: &Self) -> bool {
        self.patterns.iter().map(Regex::as_str).eq(other.patterns.iter().map(Regex::as_str))
    }

    /// Goes on to keep out what `other` keeps out by its value: a secret that was replaced was one.
    pub fn keep_secrets_of(&mut self, other: &Self) {
        for secret in &other.secrets {
            let is_new = self.secrets.iter().all(|known| known.expose_secret() != secret.expose_secret());
            if is_new {
                self.secrets.push(secret.clone());
            }
        }
    }

    /// `text` without what is to be kept out of it.
    pub(super) fn clean(&self, mut text: String) -> String {
        for secret in &self.secrets {
            if text.contains(secret.expose_secret()) {
                text = text.replace(secret.expose_secret(), MASK);
            }
        }
        for pattern in &self.patterns {
            let replaced = pattern.replace_all(&text, |found: &Captures<'_>| {
                let whole = found.get(0).expect("a match has a whole");
                match found.get(1) {
                    Some(group) => {
                        let (start, end) = (group.start() - whole.start(), group.end() - whole.start());
                        format!("{}{MASK}{}", &whole.as_str()[..start], &whole.as_str()[end..])
                    }
                    // An empty match says nothing that could be hidden.
                    None if whole.is_empty() => String::new(),
                    None => MASK.to_owned(),
                }
            });
            if let Cow::Owned(replaced) = replaced {
                text = replaced;
            }
        }
        text
    }
}

fn compile(pattern: &str) -> Result<Regex, BadPattern> {
    let bad = |problem: String| BadPattern { pattern: pattern.to_owned(), problem };
    let (expression, flags) = pattern
        .strip_prefix('/')
        .and_then(|rest| rest.rsplit_once('/'))
        .filter(|(_, flags)| flags.bytes().all(|flag| flag.is_ascii_lowercase()))
        .unwrap_or((pattern, ""));
    if expression.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    let mut builder = RegexBuilder::new(expression);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            // Every match is replaced, and texts are Unicode, anyway.
            'g' | 'u' => &mut builder,
            other => return Err(bad(format!("the flag `{other}` is not known; use i, m or s"))),
        };
    }
    builder.build().map_err(|error| {
        // The library draws the place over several lines; the last one says what is wrong.
        let text = error.to_string();
        bad(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
    })
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor")
            .field("secrets", &self.secrets.len())
            .field("patterns", &self.patterns)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str], patterns: &[&str]) -> Result<Redactor, BadPattern> {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Redactor::new(secrets.iter().map(|secret| SecretString::from(*secret)), &patterns)
    }

    #[test]
    fn secrets_and_what_patterns_match_are_replaced() {
        let redactor = redactor(&["correct-horse", "x"], &["ACCT-[0-9]+", r"/pin[:=]\s*(\d+)/i", "a*"])
            .expect("patterns");
        assert_eq!(
            redactor.clean("said correct-horse of ACCT-12 with PIN: 1234, x".to_owned()),
            "said *** of *** with PIN: ***, x".replace("said", "s***id")
        );
    }

    #[test]
    fn a_pattern_that_is_none_is_named_with_its_fault() {
        for (pattern, fault) in [
            ("(", "unclosed group"),
            ("", "it is empty"),
            ("/a/x", "the flag `x` is not known; use i, m or s"),
            ("(?=a)", "look-around"),
        ] {
            let error = redactor(&[], &[pattern]).expect_err("no pattern");
            assert!(error.problem.contains(fault), "{pattern}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", redactor(&["correct-horse"], &[]).expect("no patterns"));
        assert!(!text.contains("correct"), "{text}");
    }
}
