//! Where a value came from.

use std::{
    fmt,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use super::value::reading;

/// Where a value came from. Its text names the place a user would change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A flag, such as `--port`.
    Flag(&'static str),
    /// An environment variable.
    Env(&'static str),
    /// An environment variable, from a file of such.
    EnvFile {
        /// The variable.
        name: &'static str,
        /// The file.
        path: Arc<Path>,
    },
    /// The configuration file, or one that it includes.
    File {
        /// The file.
        path: Arc<Path>,
        /// The key in it, its parts joined by dots.
        key: String,
    },
    /// The record of the running gateway, in this file.
    Record {
        /// The file.
        path: PathBuf,
    },
    /// Made by this gateway and kept in this file.
    Generated {
        /// The file.
        path: PathBuf,
    },
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(formatter, "flag {name}"),
            Self::Env(name) => write!(formatter, "env {name}"),
            Self::EnvFile { name, path } => write!(formatter, "env {name} in {}", path.display()),
            Self::File { path, key } => write!(formatter, "{key} in {}", path.display()),
            Self::Record { path } => write!(formatter, "running gateway in {}", path.display()),
            Self::Generated { path } => write!(formatter, "generated in {}", path.display()),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// A value and where it came from. In JSON it is the value alone; a reader that knows the place tells it as
/// [`reading`] says, any other makes it [`Source::Default`].
#[derive(Debug, Clone)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

impl<T> Sourced<T> {
    /// A value with its source.
    pub fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }

    /// A value that nobody chose.
    pub fn default(value: T) -> Self {
        Self::new(value, Source::Default)
    }

    /// Another value from the same place.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: change(self.value), source: self.source }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sourced<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Sourced<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                T::deserialize(deserializer).map(Sourced::default)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let missing = || de::Error::custom("a place has a file, a key and a value");
                let path: String = parts.next_element()?.ok_or_else(missing)?;
                let key = parts.next_element()?.ok_or_else(missing)?;
                let value = parts.next_element()?.ok_or_else(missing)?;
                Ok(Sourced::new(value, Source::File { path: PathBuf::from(path).into(), key }))
            }
        }

        deserializer.deserialize_newtype_struct(reading::SOURCED, Parts(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Sourced<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_the_place_to_change() {
        let path = || PathBuf::from("/state/file");
        for (source, text) in [
            (Source::Flag("--port"), "flag --port"),
            (Source::Env("OPENCLAW_GATEWAY_PORT"), "env OPENCLAW_GATEWAY_PORT"),
            (
                Source::EnvFile { name: "OPENCLAW_GATEWAY_PORT", path: Path::new("/state/.env").into() },
                "env OPENCLAW_GATEWAY_PORT in /state/.env",
            ),
            (
                Source::File { path: Path::new("/state/openclaw.json").into(), key: "gateway.port".into() },
                "gateway.port in /state/openclaw.json",
            ),
            (Source::Record { path: path() }, "running gateway in /state/file"),
            (Source::Generated { path: path() }, "generated in /state/file"),
            (Source::Default, "default"),
        ] {
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn in_json_there_is_the_value_alone() {
        let port: Sourced<u16> = serde_json::from_str("80").expect("it reads");
        assert_eq!((port.value, port.source), (80, Source::Default));
    }
}
