//! The kinds of values that keys have, beyond those of the language.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::Sourced;
use crate::types::Bounded;

/// What a reader that knows places and hides secrets offers to these types, as names of newtype structs. A reader that
/// does not know the names reads the value itself.
pub mod reading {
    /// Answered with a sequence of three: the file, the key, the value.
    pub const SOURCED: &str = "$openclaw::sourced";
    /// Answered with the value, which no error may show.
    pub const SECRET: &str = "$openclaw::secret";
}

/// A port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(u16);

impl Port {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

type PortNumber = Bounded<1, { u16::MAX as u64 }>;

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = PortNumber::deserialize(deserializer)?.get();
        Ok(Self(u16::try_from(number).expect("the bound is that of the type")))
    }
}

impl JsonSchema for Port {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PortNumber::json_schema(generator)
    }
}

/// A number that is not negative.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Amount(f64);

impl Amount {
    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Amount;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number, at least 0")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
                if number >= 0.0 {
                    Ok(Amount(number))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(number), &self))
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                self.visit_f64(number as f64)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                self.visit_f64(number as f64)
            }
        }

        deserializer.deserialize_f64(Number)
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0 })
    }
}

/// Texts in a list. They may be empty.
#[derive(Debug, Clone, Default)]
pub struct Texts(Vec<Sourced<String>>);

impl Texts {
    /// Each with its place.
    pub fn iter(&self) -> std::slice::Iter<'_, Sourced<String>> {
        self.0.iter()
    }

    /// The texts alone.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.0.iter().map(|text| text.value.clone()).collect()
    }
}

impl<'a> IntoIterator for &'a Texts {
    type Item = &'a Sourced<String>;
    type IntoIter = std::slice::Iter<'a, Sourced<String>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Texts;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_seq(List)
    }
}

impl JsonSchema for Texts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

/// Values under names that the user chooses, in the order of the file.
#[derive(Debug, Clone)]
pub struct Entries<T>(Vec<(String, Sourced<T>)>);

impl<T> Entries<T> {
    /// Each name with its value.
    pub fn iter(&self) -> std::slice::Iter<'_, (String, Sourced<T>)> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<&(String, Sourced<T>)> {
        self.0.first()
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T> IntoIterator for &'a Entries<T> {
    type Item = &'a (String, Sourced<T>);
    type IntoIter = std::slice::Iter<'a, (String, Sourced<T>)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
            type Value = Entries<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = members.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Named(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Entries_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// A secret as the file has it: a text, which may be `${NAME}`, or the name of an environment variable as OpenClaw
/// writes it, `{"source": "env", "id": "NAME"}`, which is read as `${NAME}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The text.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match ProviderKey::deserialize(deserializer)? {
            ProviderKey::Here(secret) => Ok(secret),
            ProviderKey::Elsewhere => Err(de::Error::custom(
                "must be a text or {source: \"env\", id: \"VARIABLE\"}, not another object",
            )),
        }
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "minLength": 1, "description": "The secret, or `${NAME}`." },
                {
                    "type": "object",
                    "description": "The environment variable that holds it, as OpenClaw writes it.",
                    "required": ["source", "id"],
                    "properties": {
                        "source": { "const": "env" },
                        "provider": { "type": "string" },
                        "id": { "type": "string", "pattern": "^[A-Z_][A-Z0-9_]*$" },
                    },
                },
            ],
            "x-openclaw-secret": true,
        })
    }
}

/// The key of a provider: a secret, or a reference to a place where this gateway does not look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKey {
    /// It is here, or in the environment.
    Here(Secret),
    /// OpenClaw keeps it somewhere else.
    Elsewhere,
}

impl<'de> Deserialize<'de> for ProviderKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Given;

        impl<'de> Visitor<'de> for Given {
            type Value = ProviderKey;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text in quotation marks")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<ProviderKey, D::Error> {
                deserializer.deserialize_any(self)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProviderKey, E> {
                Ok(ProviderKey::Here(Secret(text.into())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ProviderKey, A::Error> {
                let (mut is_env, mut name) = (false, None::<String>);
                while let Some(member) = members.next_key::<String>()? {
                    match member.as_str() {
                        "source" => is_env = members.next_value::<String>()? == "env",
                        "id" => name = Some(members.next_value()?),
                        _ => {
                            members.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(match name {
                    Some(name) if is_env && is_variable(&name) => {
                        ProviderKey::Here(Secret(format!("${{{name}}}").into()))
                    }
                    _ => ProviderKey::Elsewhere,
                })
            }
        }

        deserializer.deserialize_newtype_struct(reading::SECRET, Given)
    }
}

impl JsonSchema for ProviderKey {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ProviderKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {
                    "type": "string",
                    "minLength": 1,
                    "description": "The secret, `${NAME}`, or the bare name of an environment variable.",
                },
                { "type": "object", "description": "Where OpenClaw keeps it. Only `\"source\": \"env\"` is read here." },
            ],
            "x-openclaw-secret": true,
        })
    }
}

/// Whether `name` is the name of an environment variable as OpenClaw takes it in `${…}`.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The section `env`: `vars` has variables for whatever the environment lacks. They may also stand in the section
/// itself. What is no text is OpenClaw's and left alone.
#[derive(Debug, Clone, Default)]
pub struct Variables(Vec<(String, Sourced<Secret>)>);

impl Variables {
    /// Each name with its value; those of `vars` last.
    pub fn iter(&self) -> std::slice::Iter<'_, (String, Sourced<Secret>)> {
        self.0.iter()
    }
}

/// A value of the section `env`.
enum Variable {
    Text(Secret),
    Other,
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Self::Text(Secret(text.into())),
            _ => Self::Other,
        })
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Section;

        impl<'de> Visitor<'de> for Section {
            type Value = Variables;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Variables, A::Error> {
                let (mut variables, mut vars) = (Vec::new(), Entries::<Variable>::default());
                let mut add = |name: String, value: Sourced<Variable>| {
                    if let Variable::Text(text) = value.value {
                        variables.push((name, Sourced::new(text, value.source)));
                    }
                };
                while let Some(name) = members.next_key::<String>()? {
                    if name == "vars" {
                        vars = members.next_value()?;
                    } else {
                        add(name, members.next_value()?);
                    }
                }
                vars.0.into_iter().for_each(|(name, value)| add(name, value));
                Ok(Variables(variables))
            }
        }

        deserializer.deserialize_map(Section)
    }
}

impl JsonSchema for Variables {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Variables".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "vars": {
                    "type": "object",
                    "description": "The variables: name to value.",
                    "additionalProperties": { "type": "string", "x-openclaw-secret": true },
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_text_or_the_name_of_a_variable_and_debug_hides_it() {
        let read = serde_json::from_str::<Secret>;
        assert_eq!(read("\"hush\"").expect("a text").expose_secret(), "hush");
        let named = read(r#"{"source": "env", "provider": "default", "id": "KEY"}"#).expect("a variable");
        assert_eq!(named.expose_secret(), "${KEY}");
        for bad in ["1", r#"{"source": "file", "id": "KEY"}"#, r#"{"source": "env", "id": "a b"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", read("\"hush\"")).contains("hush"));
        let elsewhere: ProviderKey = serde_json::from_str(r#"{"source": "exec", "id": "x"}"#).expect("a key");
        assert_eq!(elsewhere, ProviderKey::Elsewhere);
    }

    #[test]
    fn variables_stand_in_vars_or_beside_it() {
        let section = r#"{"vars": {"A": "1", "B": 2}, "C": "3", "shellEnv": {"enabled": true}}"#;
        let read: Variables = serde_json::from_str(section).expect("it reads");
        let names: Vec<_> = read.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["C", "A"]);
    }
}
