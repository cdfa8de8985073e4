//! Reads the values of the configuration into the types that declare it.
//!
//! The types say the keys, what they take and within which bounds; this reader adds the places: which file and key a
//! value is from, and sentences that name them. Keys that look like a misspelt one are refused, others that nobody
//! knows give a warning.

use std::cell::RefCell;

use openclaw_schema::config::{
    Source, UnknownName,
    ignored::{self, Others},
    keys, reading,
};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::{Map, Value, map};

use super::{
    ConfigError,
    file::{describe, unknown_name},
    tree::{At, Tree},
};

/// What is wrong with a value, and where the value is.
#[derive(Debug)]
pub(super) struct Fault {
    /// The key, its parts.
    pub(super) path: Vec<String>,
    /// What is wrong.
    pub(super) error: ConfigError,
}

/// Reads the whole configuration. What looks odd is added to `warnings`, a sentence each.
pub(super) fn read<T: DeserializeOwned>(tree: &Tree, warnings: &mut Vec<String>) -> Result<T, Box<Fault>> {
    let context = Context { tree, warnings: RefCell::new(Vec::new()) };
    let root =
        Reader { value: &tree.value, at: tree.root(), path: Vec::new(), is_secret: false, context: &context };
    let read = root.clone().run(std::marker::PhantomData);
    warnings.append(&mut context.warnings.borrow_mut());
    read.map_err(|trouble| match trouble {
        Trouble::Placed(fault) => fault,
        Trouble::Kind | Trouble::Said(_) => unreachable!("`run` gives every trouble its place"),
    })
}

struct Context<'a> {
    tree: &'a Tree,
    warnings: RefCell<Vec<String>>,
}

/// Why reading ended.
#[derive(Debug)]
enum Trouble {
    /// It is known what is wrong, and where.
    Placed(Box<Fault>),
    /// The value is not of the kind that is asked for. Who has the value says the rest.
    Kind,
    /// A sentence, whose place is not known here.
    Said(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Placed(fault) => fault.error.fmt(formatter),
            Self::Kind => formatter.write_str("the value is of another kind"),
            Self::Said(sentence) => formatter.write_str(sentence),
        }
    }
}

impl std::error::Error for Trouble {}

impl de::Error for Trouble {
    fn custom<T: std::fmt::Display>(sentence: T) -> Self {
        Self::Said(sentence.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::Kind
    }

    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::Kind
    }
}

type Outcome<T> = Result<T, Trouble>;

/// One value and its place.
#[derive(Clone)]
struct Reader<'a> {
    value: &'a Value,
    at: At<'a>,
    path: Vec<String>,
    /// Whether no error may show the value.
    is_secret: bool,
    context: &'a Context<'a>,
}

impl<'a> Reader<'a> {
    fn child(&self, name: String, value: &'a Value) -> Self {
        let mut path = self.path.clone();
        let at = self.at.child(&name);
        path.push(name);
        Self { value, at, path, ..*self }
    }

    fn source(&self) -> Source {
        let key = if self.path.is_empty() { "the root".to_owned() } else { keys::joined(&self.path) };
        Source::File { path: self.context.tree.file(self.at).clone(), key }
    }

    /// The trouble of a value that should be `expected`.
    fn refuse(&self, expected: &str) -> Trouble {
        self.fault(if self.is_secret {
            // The value may be the secret itself, without its quotation marks.
            "must be a text in quotation marks".to_owned()
        } else {
            format!("must be {expected}, not {}", describe(self.value))
        })
    }

    fn fault(&self, problem: String) -> Trouble {
        self.placed(ConfigError::BadValue { origin: self.source(), problem, nearest: None })
    }

    fn placed(&self, error: ConfigError) -> Trouble {
        Trouble::Placed(Box::new(Fault { path: self.path.clone(), error }))
    }

    /// Gives trouble without a place this one.
    fn place(&self, trouble: Trouble, expected: &str) -> Trouble {
        match trouble {
            Trouble::Kind => self.refuse(expected),
            Trouble::Said(sentence) => self.fault(sentence),
            placed @ Trouble::Placed(_) => placed,
        }
    }

    /// Reads the value with `seed`.
    fn run<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Outcome<S::Value> {
        let here = self.clone();
        seed.deserialize(self).map_err(|trouble| here.place(trouble, "another value"))
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        let expected = (&visitor as &dyn Expected).to_string();
        let read = match self.value {
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => Err(Trouble::Kind),
            },
            _ => Err(Trouble::Kind),
        };
        read.map_err(|_| self.refuse(&expected))
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        let in_list = self.path.last().is_some_and(|name| name.starts_with('['));
        match self.value {
            Value::String(text) if !text.is_empty() || in_list => {
                visitor.visit_str(text).map_err(|trouble| self.place(trouble, "a text"))
            }
            _ => Err(self.refuse("a text")),
        }
    }

    fn map<'de, V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        match self.value {
            Value::Object(map) => visitor.visit_map(Members { entries: map.iter(), value: None, of: self }),
            _ => Err(self.refuse("an object")),
        }
    }

    /// Refuses keys that look like a misspelt one; other unknown keys give a warning.
    fn check_keys(&self, map: &Map<String, Value>, own: &[&'static str]) -> Outcome<()> {
        let Others::Listed(stock) = ignored::of(&self.path) else { return Ok(()) };
        for (key, value) in map {
            let mut known = own.iter().chain(stock).copied();
            if known.clone().any(|known| known == key) {
                continue;
            }
            let here = self.child(key.clone(), value);
            if let Some(nearest) = known.find(|known| is_misspelt(key, known)) {
                return Err(here.placed(ConfigError::UnknownKey {
                    path: self.context.tree.file(here.at).to_path_buf(),
                    key: keys::joined(&here.path),
                    nearest,
                }));
            }
            let warning = format!("{} is not known to this gateway and has no effect", here.source());
            self.context.warnings.borrow_mut().push(warning);
        }
        Ok(())
    }
}

/// Whether `given` is probably `known`, but misspelt. One slip makes a short key, two a longer one: stock has keys
/// of its own, such as `nodes`, which is two away from `mode`.
fn is_misspelt(given: &str, known: &str) -> bool {
    let slips = if known.len() <= 5 { 1 } else { 2 };
    given.eq_ignore_ascii_case(known) || strsim::osa_distance(given, known) <= slips
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Trouble;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        let expected = (&visitor as &dyn Expected).to_string();
        let here = self.clone();
        let read = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) if self.is_secret && text.trim().is_empty() => {
                Err(self.placed(ConfigError::EmptySecret { origin: self.source() }))
            }
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), index: 0, of: self }),
            Value::Object(map) => visitor.visit_map(Members { entries: map.iter(), value: None, of: self }),
        };
        read.map_err(|trouble| here.place(trouble, &expected))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.refuse("true or false")),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.number(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.text(visitor)
    }

    /// Null is a value like any other, and fits nothing.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Outcome<V::Value> {
        match name {
            reading::SOURCED => visitor.visit_seq(Parts { next: Part::File, of: self }),
            reading::SECRET => visitor.visit_newtype_struct(Self { is_secret: true, ..self }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        let expected = (&visitor as &dyn Expected).to_string();
        match self.value {
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter(), index: 0, of: self }),
            // What serde's own visitor of lists calls a list.
            _ if expected == "a sequence" => Err(self.refuse("a list")),
            _ => Err(self.refuse(&expected)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        self.map(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Outcome<V::Value> {
        if let Value::Object(map) = self.value {
            self.check_keys(map, fields)?;
        }
        self.map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Outcome<V::Value> {
        match self.value {
            Value::String(name) if !name.is_empty() => match names.iter().find(|known| *known == name) {
                Some(known) => visitor.visit_enum(Name(known)),
                None => {
                    let unknown = UnknownName { given: name.clone(), allowed: names };
                    Err(self.placed(unknown_name(&unknown, self.source())))
                }
            },
            _ => Err(self.refuse("a text")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

/// The members of an object.
struct Members<'a> {
    entries: map::Iter<'a>,
    value: Option<(&'a String, &'a Value)>,
    of: Reader<'a>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Trouble;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Outcome<Option<K::Value>> {
        self.value = self.entries.next();
        self.value.map(|(name, _)| seed.deserialize(name.as_str().into_deserializer())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Outcome<S::Value> {
        let (name, value) = self.value.take().expect("a key is asked for before its value");
        self.of.child(name.clone(), value).run(seed)
    }
}

/// The entries of a list.
struct Items<'a> {
    items: std::slice::Iter<'a, Value>,
    index: usize,
    of: Reader<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Trouble;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Outcome<Option<S::Value>> {
        let Some(value) = self.items.next() else { return Ok(None) };
        let name = format!("[{}]", self.index);
        self.index += 1;
        self.of.child(name, value).run(seed).map(Some)
    }
}

/// The next part of a value with its place, as [`reading::SOURCED`] asks for them.
enum Part {
    File,
    Key,
    Value,
}

struct Parts<'a> {
    next: Part,
    of: Reader<'a>,
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Trouble;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Outcome<Option<S::Value>> {
        match self.next {
            Part::File => {
                self.next = Part::Key;
                let file = self.of.context.tree.file(self.of.at).to_string_lossy();
                seed.deserialize(file.as_ref().into_deserializer()).map(Some)
            }
            Part::Key => {
                self.next = Part::Value;
                seed.deserialize(keys::joined(&self.of.path).into_deserializer()).map(Some)
            }
            Part::Value => self.of.clone().run(seed).map(Some),
        }
    }
}

/// A name of a closed set.
struct Name(&'static str);

impl<'de> EnumAccess<'de> for Name {
    type Error = Trouble;
    type Variant = NoContent;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Outcome<(S::Value, NoContent)> {
        Ok((seed.deserialize(self.0.into_deserializer())?, NoContent))
    }
}

/// A name of a closed set is nothing but a name.
struct NoContent;

impl<'de> VariantAccess<'de> for NoContent {
    type Error = Trouble;

    fn unit_variant(self) -> Outcome<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Outcome<S::Value> {
        Err(Trouble::Kind)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Outcome<V::Value> {
        Err(Trouble::Kind)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Outcome<V::Value> {
        Err(Trouble::Kind)
    }
}
