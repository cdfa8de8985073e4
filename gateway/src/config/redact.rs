//! Takes the secrets out of a configuration that leaves the gateway.
//!
//! A secret is known by its key, by the section it lies in, by its shape, or because it is one elsewhere. Where that is
//! in doubt, the value goes.

use std::collections::BTreeSet;

use openclaw_schema::{config::is_variable, methods::config::REDACTED};
use serde_json::{Map, Value};

use crate::logs::mask::mask;

/// A key that ends so, in any case and without separators, holds a secret.
const SECRET_KEYS: [&str; 12] = [
    "token",
    "password",
    "passphrase",
    "passwd",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "credential",
    "authorization",
    "cookie",
];

/// A section of this name may hold a secret under any key.
const SECRET_SECTIONS: [&str; 3] = ["env", "headers", "vars"];

/// The shortest secret that is also looked for within longer texts, in bytes. Shorter ones are found in too many.
const MIN_SOUGHT_BYTES: usize = 4;

/// How much of a value is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Secrecy {
    Nothing,
    /// Texts. A list of secrets has a name like that of a limit: `maxTokens`.
    Texts,
    TextsAndNumbers,
}

/// The secrets of a configuration, and of the gateway that runs with it.
#[derive(Clone)]
pub(super) struct Secrets {
    known: BTreeSet<String>,
}

impl Secrets {
    /// Those that `known` names, and those of `config`.
    pub(super) fn of(config: &Value, known: impl IntoIterator<Item = String>) -> Self {
        let mut known: BTreeSet<String> = known.into_iter().filter(|secret| !secret.is_empty()).collect();
        collect(config, Secrecy::Nothing, &mut known);
        Self { known }
    }

    /// `config` without them.
    pub(super) fn redact(&self, config: &Value) -> Value {
        self.without(config, Secrecy::Nothing)
    }

    /// `text` without them.
    pub(super) fn scrub(&self, text: &str) -> String {
        // Longer ones first: one may be part of another.
        let mut known: Vec<&String> =
            self.known.iter().filter(|secret| secret.len() >= MIN_SOUGHT_BYTES).collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED))
    }

    fn without(&self, value: &Value, secrecy: Secrecy) -> Value {
        let redacted = || Value::String(REDACTED.to_owned());
        match value {
            Value::String(text) if is_reference(text) => value.clone(),
            Value::String(text) if secrecy > Secrecy::Nothing || self.shows_one(text) => redacted(),
            Value::Number(number)
                if secrecy == Secrecy::TextsAndNumbers || self.known.contains(&number.to_string()) =>
            {
                redacted()
            }
            Value::Object(map) if secrecy > Secrecy::Nothing && is_reference_object(map) => value.clone(),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| {
                    let shown = if self.holds_one(key) { REDACTED } else { key };
                    (shown.to_owned(), self.without(value, secrecy.max(secrecy_of(key))))
                };
                Value::Object(map.iter().map(entry).collect())
            }
            Value::Array(items) => items.iter().map(|item| self.without(item, secrecy)).collect(),
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => value.clone(),
        }
    }

    /// Whether a text that should hold no secret does.
    fn shows_one(&self, text: &str) -> bool {
        self.holds_one(text) || has_user_info(text) || mask(text.to_owned()) != text
    }

    fn holds_one(&self, text: &str) -> bool {
        self.known.contains(text)
            || self
                .known
                .iter()
                .any(|secret| secret.len() >= MIN_SOUGHT_BYTES && text.contains(secret.as_str()))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} secrets", self.known.len())
    }
}

/// Whether a secret stands in a configuration, and not only where one is.
pub(super) fn holds_secrets(config: &Value) -> bool {
    let mut known = BTreeSet::new();
    collect(config, Secrecy::Nothing, &mut known);
    !known.is_empty()
}

fn collect(value: &Value, secrecy: Secrecy, known: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if secrecy > Secrecy::Nothing && !text.is_empty() && !is_reference(text) => {
            known.insert(text.clone());
        }
        Value::Number(number) if secrecy == Secrecy::TextsAndNumbers => {
            known.insert(number.to_string());
        }
        Value::Object(map) if secrecy > Secrecy::Nothing && is_reference_object(map) => {}
        Value::Object(map) => {
            for (key, value) in map {
                collect(value, secrecy.max(secrecy_of(key)), known);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, secrecy, known)),
        Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => {}
    }
}

fn secrecy_of(key: &str) -> Secrecy {
    let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let is_secret = |name: &str| SECRET_KEYS.iter().any(|key| name.ends_with(key));
    if is_secret(&name) {
        Secrecy::TextsAndNumbers
    } else if name.strip_suffix('s').is_some_and(is_secret) || SECRET_SECTIONS.contains(&name.as_str()) {
        Secrecy::Texts
    } else {
        Secrecy::Nothing
    }
}

/// Whether a text is no secret but says where one is: `${VARIABLE}`.
pub(super) fn is_reference(text: &str) -> bool {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(is_variable)
}

/// Whether an object says where a secret is, as stock writes it: `{source: "env", id: "VARIABLE"}`.
fn is_reference_object(map: &Map<String, Value>) -> bool {
    map.get("source").is_some_and(|source| source == "env")
        && map.get("id").and_then(Value::as_str).is_some_and(is_variable)
        && map.keys().all(|key| matches!(key.as_str(), "source" | "provider" | "id"))
}

/// Whether a text is a URL with a user name or password.
fn has_user_info(text: &str) -> bool {
    text.split("://")
        .skip(1)
        .any(|rest| rest.split(['/', '?', '#', ' ']).next().is_some_and(|authority| authority.contains('@')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn redacted(config: &Value) -> Value {
        Secrets::of(config, []).redact(config)
    }

    #[test]
    fn secrets_are_known_by_their_keys_in_any_spelling() {
        for key in [
            "token",
            "botToken",
            "bot_token",
            "BOT-TOKEN",
            "password",
            "clientSecret",
            "apiKey",
            "API_KEY",
            "OPENAI_API_KEY",
            "privateKey",
            "passphrase",
            "Authorization",
            "tokens",
        ] {
            assert_eq!(redacted(&json!({ key: "hush" })), json!({ key: REDACTED }), "{key}");
            assert_eq!(redacted(&json!({ key: ["hush"] })), json!({ key: [REDACTED] }), "{key}");
            assert_eq!(redacted(&json!({ key: { "a": { "b": "hush" } } }))[key]["a"]["b"], REDACTED, "{key}");
        }
        assert_eq!(
            redacted(&json!({ "password": 1234, "x": [1234] })),
            json!({ "password": REDACTED, "x": [REDACTED] })
        );
    }

    #[test]
    fn secrets_are_known_by_section_and_shape() {
        for config in [
            json!({ "env": { "ANYTHING": "hush" } }),
            json!({ "env": { "vars": { "ANYTHING": "hush" } } }),
            json!({ "mcp": { "headers": { "x-key": "hush" } } }),
            json!({ "url": "https://ada:hush@example.org/" }),
            json!({ "url": "wss://example.org/?token=hush" }),
            json!({ "args": ["--header", "Authorization: Bearer hush"] }),
            json!({ "note": "sk-ant-hush0123456789abcdef" }),
        ] {
            assert!(!redacted(&config).to_string().contains("hush"), "{config}");
        }
    }

    #[test]
    fn a_secret_is_found_wherever_else_it_stands() {
        let config =
            json!({ "token": "hushhush", "a": "x-hushhush-y", "b": [{ "hushhush": 1 }], "pin": "hushhush" });
        assert!(!redacted(&config).to_string().contains("hushhush"));
        let running = json!({ "name": "running", "port": 18789 });
        let secrets = Secrets::of(&running, ["running".to_owned(), "18789".to_owned()]);
        assert_eq!(secrets.redact(&running), json!({ "name": REDACTED, "port": REDACTED }));
        assert_eq!(secrets.scrub("is running at 18789"), format!("is {REDACTED} at {REDACTED}"));
    }

    #[test]
    fn what_is_no_secret_stays() {
        let config = json!({
            "gateway": { "auth": { "mode": "token", "token": "${OPENCLAW_GATEWAY_TOKEN}" }, "port": 18789 },
            "remote": { "token": { "source": "env", "id": "TOKEN" } },
            "limits": { "maxTokens": 4096, "contextTokens": 8192 },
            "agents": { "entries": { "main": { "default": true, "workspace": "~/work" } } },
            "site": "https://example.org/a@b", "mail": "ada@example.org",
        });
        assert_eq!(redacted(&config), config);
    }

    proptest! {
        #[test]
        fn no_secret_survives_wherever_it_is_put(
            secret in "[a-zA-Z0-9\"\\\\ ü]{4,20}",
            key in "(gateway|bot)?(Token|_password|ApiKey|-secret|Secrets)",
            around in "[a-z]{0,5}",
        ) {
            prop_assume!(!REDACTED.contains(&secret) && !"abc".contains(&secret));
            let config = json!({
                "a": { key.clone(): secret }, "b": format!("{around}{secret}{around}"), "c": [[secret]],
                "d": { secret.clone(): { key: [{ "e": secret }] } },
            });
            fn texts(value: &Value, found: &mut Vec<String>) {
                match value {
                    Value::String(text) => found.push(text.clone()),
                    Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
                    Value::Object(map) => {
                        for (key, value) in map {
                            // The key that names the secret is the test's own.
                            if !value.is_string() && !value.is_array() {
                                found.push(key.clone());
                            }
                            texts(value, found);
                        }
                    }
                    Value::Null | Value::Bool(_) | Value::Number(_) => {}
                }
            }
            let mut found = Vec::new();
            texts(&redacted(&config), &mut found);
            prop_assert!(!found.iter().any(|text| text.contains(&secret)), "{secret:?} is in {found:?}");
        }
    }
}
