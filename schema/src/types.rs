//! Types that two namespaces or more share: bounded numbers and texts, times, ids.
//!
//! A bound is declared once, in the type: the same declaration refuses a value on the wire and puts
//! `minimum`, `maximum`, `minLength` and `maxLength` into the document.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

/// Params of a method that takes none: `{}`, or nothing at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// The id of a subscription: what notifications carry and what ends it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SubscriptionId {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// A point in time: milliseconds since 1970-01-01 00:00 UTC.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    /// The time of the system's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Reads a field whose null means something: absent is `None`, null is `Some(None)`. The field says so with
/// `#[serde(default, deserialize_with = "nullable")]` and `#[schemars(extend("default" = Value::Null))]`.
///
/// # Errors
///
/// When the value is neither null nor a `T`.
pub fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// Declares a type that is true, false or one word.
macro_rules! flag_or_word {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $word:literal, $meaning:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum $name {
            /// Yes or no.
            Flag(bool),
            #[doc = $meaning]
            #[serde(serialize_with = "word_of_flag_or_word")]
            $variant($crate::types::Word),
        }

        impl $name {
            #[doc = $meaning]
            pub const WORD: Self = Self::$variant($crate::types::Word($word));
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match serde_json::Value::deserialize(deserializer)? {
                    serde_json::Value::Bool(flag) => Ok(Self::Flag(flag)),
                    serde_json::Value::String(word) if word == $word => Ok(Self::WORD),
                    given => Err(serde::de::Error::custom(format!(
                        "must be true, false or \"{}\", not {given}",
                        $word
                    ))),
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": concat!("True, false, or the word `", $word, "`. ", $meaning),
                    "anyOf": [
                        { "type": "boolean", "description": "Yes or no." },
                        { "type": "string", "description": concat!("The word `", $word, "`. ", $meaning) },
                    ],
                })
            }
        }
    };
}
pub(crate) use flag_or_word;

/// The word of a type that is true, false or one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(pub(crate) &'static str);

pub(crate) fn word_of_flag_or_word<S: Serializer>(word: &Word, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word.0)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number, if it is within the bounds.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        if MIN <= value && value <= MAX { Some(Self(value)) } else { None }
    }

    /// The number that is nearest to `value` within the bounds.
    #[must_use]
    pub const fn clamped(value: u64) -> Self {
        Self(if value < MIN {
            MIN
        } else if value > MAX {
            MAX
        } else {
            value
        })
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<const MIN: u64, const MAX: u64>;

        impl<const MIN: u64, const MAX: u64> de::Visitor<'_> for Number<MIN, MAX> {
            type Value = Bounded<MIN, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                if MAX == u64::MAX {
                    write!(formatter, "a whole number, at least {MIN}")
                } else {
                    write!(formatter, "a whole number from {MIN} to {MAX}")
                }
            }

            fn visit_u64<E: de::Error>(self, given: u64) -> Result<Self::Value, E> {
                Bounded::new(given).ok_or_else(|| out_of_bounds(MIN, MAX, given))
            }

            fn visit_i64<E: de::Error>(self, given: i64) -> Result<Self::Value, E> {
                u64::try_from(given).ok().and_then(Bounded::new).ok_or_else(|| out_of_bounds(MIN, MAX, given))
            }

            fn visit_i128<E: de::Error>(self, given: i128) -> Result<Self::Value, E> {
                u64::try_from(given).ok().and_then(Bounded::new).ok_or_else(|| out_of_bounds(MIN, MAX, given))
            }
        }

        deserializer.deserialize_i128(Number)
    }
}

fn out_of_bounds<E: de::Error>(min: u64, max: u64, given: impl fmt::Display) -> E {
    de::Error::custom(if max == u64::MAX {
        format!("must be at least {min}, not {given}")
    } else {
        format!("must be from {min} to {max}, not {given}")
    })
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Bounded<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Integer_{MIN}_{MAX}"))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        if MAX == u64::MAX {
            json_schema!({ "type": "integer", "minimum": MIN })
        } else {
            json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
        }
    }
}

/// A text of `MIN` to `MAX` characters (Unicode scalar values).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    /// The text, if its length is within the bounds.
    ///
    /// # Errors
    ///
    /// A sentence that says the bounds and the length.
    pub fn new(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        // Bytes are counted first: a text of no more bytes than MAX has no more characters either.
        let length = if text.len() > MAX || MIN > 1 { text.chars().count() } else { text.len() };
        if (MIN..=MAX).contains(&length) {
            Ok(Self(text))
        } else if length == 0 {
            Err("must not be empty".to_owned())
        } else {
            Err(format!("must have {MIN} to {MAX} characters, not {length}"))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Display for Text<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Text<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<const MIN: usize, const MAX: usize> JsonSchema for Text<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Text_{MIN}_{MAX}"))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": MIN, "maxLength": MAX })
    }
}

/// A value of type `T` that may travel as JSON made earlier: serialised once, sent to many.
///
/// Its schema is that of `T`; received, it is read as JSON text and parsed by [`Prepared::parse`].
#[derive(Debug, Clone)]
pub struct Prepared<T> {
    json: Arc<RawValue>,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize> Prepared<T> {
    /// Serialises `value`.
    ///
    /// # Errors
    ///
    /// When the value does not serialise.
    pub fn new(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|json| Self { json: json.into(), of: PhantomData })
    }
}

impl<T: de::DeserializeOwned> Prepared<T> {
    /// Reads the value.
    ///
    /// # Errors
    ///
    /// When the JSON does not fit `T`.
    pub fn parse(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json.get())
    }
}

impl<T> Prepared<T> {
    /// The JSON text.
    #[must_use]
    pub fn json(&self) -> &RawValue {
        &self.json
    }
}

impl<T> Serialize for Prepared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Prepared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|json| Self { json: json.into(), of: PhantomData })
    }
}

impl<T: JsonSchema> JsonSchema for Prepared<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
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
    fn bounds_are_enforced_and_published_from_one_place() {
        type Limit = Bounded<1, 5000>;
        assert!(serde_json::from_str::<Limit>("5000").is_ok());
        for bad in ["0", "5001", "-1", "1.5", "\"1\""] {
            assert!(serde_json::from_str::<Limit>(bad).is_err(), "{bad} was accepted");
        }
        let schema = SchemaGenerator::default().into_root_schema_for::<Limit>();
        assert_eq!((&schema.as_value()["minimum"], &schema.as_value()["maximum"]), (&1.into(), &5000.into()));
    }

    #[test]
    fn text_counts_characters() {
        assert!(Text::<1, 3>::new("äöü").is_ok());
        assert_eq!(Text::<1, 3>::new(""), Err("must not be empty".to_owned()));
        assert_eq!(Text::<1, 3>::new("abcd"), Err("must have 1 to 3 characters, not 4".to_owned()));
    }
}
