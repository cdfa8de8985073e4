//! The typed flags of a method: made from the JSON Schema of its params, read back into a params object.
//!
//! The same table gives a type to `name=value`, and writes examples as they would be typed. What a value must
//! satisfy beyond its type (bounds, required fields) is checked once, by the contract, on the whole object.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Arg, ArgAction, ArgMatches, builder::PossibleValue};
use openclaw_schema::problem::ParamProblem;
use serde_json::{Map, Number, Value};

/// How deep references and wrappers of a schema are followed.
const MAX_DEPTH: usize = 16;

/// The fields of one method's params.
#[derive(Debug)]
pub(crate) struct Fields(Vec<Field>);

/// One field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// Its name on the wire.
    pub(crate) name: String,
    /// Its flag, without the dashes.
    pub(crate) flag: String,
    /// The type, for words and for reading values.
    kind: Kind,
    /// Whether the params need it.
    pub(crate) required: bool,
    /// What it means; may be empty.
    doc: String,
    /// Its bounds in words; may be empty.
    bounds: String,
}

/// The type of a field, as far as a command line is concerned.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Integer,
    Number,
    Boolean,
    Text,
    /// One of these values, each with what it means.
    Choice(Vec<(String, String)>),
    List(Box<Self>),
    /// Anything else is typed as JSON.
    Json,
}

impl Fields {
    /// The fields of `schema`, whose references are looked up in `root`. A flag that `is_taken` is called
    /// `param-<name>` instead.
    pub(crate) fn new(schema: &Value, root: &Value, is_taken: impl Fn(&str) -> bool) -> Self {
        let schema = resolved(schema, root);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().into_iter().flatten();
        let fields = properties.map(|(name, schema)| {
            let flag = kebab(name);
            let flag = if is_taken(&flag) { format!("param-{flag}") } else { flag };
            let shape = resolved(schema, root);
            let doc = schema["description"].as_str().or(shape["description"].as_str()).unwrap_or_default();
            Field {
                name: name.clone(),
                flag,
                kind: kind(schema, root, 0),
                required: required.contains(&name.as_str()),
                doc: doc.to_owned(),
                bounds: bounds(shape),
            }
        });
        Self(fields.collect())
    }

    /// The fields, in the order of declaration.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.0.iter()
    }

    /// Whether there is a required field of that name.
    pub(crate) fn requires(&self, name: &str) -> bool {
        self.0.iter().any(|field| field.required && field.name == name)
    }

    /// The flags, under a heading of their own.
    pub(crate) fn args(&self, method: &str) -> impl Iterator<Item = Arg> {
        let heading = format!("Fields of {method}");
        self.0.iter().map(move |field| field.arg(&heading))
    }

    /// What the flags say, as params.
    pub(crate) fn given(&self, matches: &ArgMatches) -> Map<String, Value> {
        let mut params = Map::new();
        for field in &self.0 {
            let Some(values) = matches.get_many::<Value>(&field.id()) else { continue };
            let mut values: Vec<Value> = values.cloned().collect();
            let value = match field.kind {
                Kind::List(_) => Value::Array(values),
                _ => values.pop().expect("clap gives an option that is present a value"),
            };
            params.insert(field.name.clone(), value);
        }
        params
    }

    /// What `name=text` means: what the field's type makes of the text; text where the field is not known.
    ///
    /// # Errors
    ///
    /// When the text does not fit the type.
    pub(crate) fn coerce(&self, name: &str, text: &str) -> Result<Value, ParamProblem> {
        let Some(field) = self.0.iter().find(|field| field.name == name) else {
            return Ok(Value::String(text.to_owned()));
        };
        field.kind.read(text).map_err(|reason| {
            let allowed = field.kind.choices().iter().map(|(value, _)| value.clone()).collect::<Vec<_>>();
            let nearest = openclaw_schema::problem::nearest(text, allowed.iter().map(String::as_str))
                .map(str::to_owned);
            ParamProblem { path: format!("/{name}"), reason, allowed, nearest }
        })
    }

    /// `params` as they would be typed after the method's name, the field `idempotencyKey` left out: the
    /// command line makes one.
    pub(crate) fn typed(&self, params: &Map<String, Value>) -> String {
        let mut words = Vec::new();
        for (name, value) in params.iter().filter(|(name, _)| *name != "idempotencyKey") {
            match self.0.iter().find(|field| field.name == *name) {
                Some(field) => words.extend(field.typed(value)),
                None => words.push(quoted(&format!("{name}:={value}"))),
            }
        }
        words.join(" ")
    }
}

impl Field {
    /// The id of its argument; no id of the tree contains a colon.
    fn id(&self) -> String {
        format!("param:{}", self.name)
    }

    /// What stands for the value in the help.
    pub(crate) fn value_name(&self) -> &'static str {
        self.kind.value_name()
    }

    /// What it means, its bounds, and whether it must be given, in one paragraph.
    pub(crate) fn help(&self) -> String {
        let mut help = self.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut add = |text: &str| {
            if !help.is_empty() {
                help.push(' ');
            }
            help.push_str(text);
        };
        if !self.bounds.is_empty() {
            add(&format!("[{}]", self.bounds));
        }
        if self.name == "idempotencyKey" {
            add("[made when left out]");
        } else if self.required {
            add("[required]");
        }
        help
    }

    fn arg(&self, heading: &str) -> Arg {
        let arg = Arg::new(self.id())
            .long(self.flag.clone())
            .value_name(self.value_name())
            .help(self.help())
            .help_heading(heading.to_owned());
        let (element, action) = match &self.kind {
            Kind::List(element) => (element.as_ref(), ArgAction::Append),
            kind => (kind, ArgAction::Set),
        };
        let arg = arg.action(action);
        let parser = element.clone();
        match element {
            Kind::Choice(choices) => {
                let values = choices.iter().map(|(value, doc)| {
                    let value = PossibleValue::new(value.clone());
                    if doc.is_empty() { value } else { value.help(doc.clone()) }
                });
                arg.value_parser(PossibleValuesParser::new(values).map(Value::String))
            }
            Kind::Boolean => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(move |text: &str| parser.read(text)),
            Kind::Integer | Kind::Number => {
                arg.allow_negative_numbers(true).value_parser(move |text: &str| parser.read(text))
            }
            Kind::Text | Kind::List(_) | Kind::Json => arg.value_parser(move |text: &str| parser.read(text)),
        }
    }

    fn typed(&self, value: &Value) -> Vec<String> {
        let word = |value: &Value| match value {
            Value::String(text) => quoted(text),
            other => quoted(&other.to_string()),
        };
        match (value, &self.kind) {
            (Value::Bool(true), Kind::Boolean) => vec![format!("--{}", self.flag)],
            (Value::Bool(given), Kind::Boolean) => vec![format!("--{}={given}", self.flag)],
            (Value::Array(items), Kind::List(_)) => {
                items.iter().map(|item| format!("--{} {}", self.flag, word(item))).collect()
            }
            (value, Kind::Json | Kind::List(_)) => {
                vec![format!("--{} {}", self.flag, quoted(&value.to_string()))]
            }
            (value, _) => vec![format!("--{} {}", self.flag, word(value))],
        }
    }
}

impl Kind {
    fn value_name(&self) -> &'static str {
        match self {
            Self::Integer => "INTEGER",
            Self::Number => "NUMBER",
            Self::Boolean => "true|false",
            Self::Text => "TEXT",
            Self::Choice(_) => "VALUE",
            Self::List(element) => element.value_name(),
            Self::Json => "JSON",
        }
    }

    fn choices(&self) -> &[(String, String)] {
        match self {
            Self::Choice(choices) => choices,
            Self::List(element) => element.choices(),
            _ => &[],
        }
    }

    /// The value that `text` stands for, or why it stands for none.
    fn read(&self, text: &str) -> Result<Value, String> {
        match self {
            Self::Integer => text
                .parse::<u64>()
                .map(Value::from)
                .or_else(|_| text.parse::<i64>().map(Value::from))
                .map_err(|_| format!("must be a whole number, not `{text}`")),
            Self::Number => serde_json::from_str::<Number>(text)
                .map(Value::Number)
                .map_err(|_| format!("must be a number, not `{text}`")),
            Self::Boolean => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(format!("must be `true` or `false`, not `{text}`")),
            },
            Self::Text => Ok(Value::String(text.to_owned())),
            Self::Choice(choices) if choices.iter().any(|(value, _)| value == text) => {
                Ok(Value::String(text.to_owned()))
            }
            Self::Choice(choices) => {
                let allowed: Vec<&str> = choices.iter().map(|(value, _)| value.as_str()).collect();
                Err(format!("unknown value `{text}`; allowed: {}", allowed.join(", ")))
            }
            // One `name=value` is one item, or all of them as JSON.
            Self::List(element) => match serde_json::from_str(text) {
                Ok(list @ Value::Array(_)) => Ok(list),
                _ => element.read(text).map(|item| Value::Array(vec![item])),
            },
            Self::Json => serde_json::from_str(text).map_err(|error| format!("must be JSON: {error}")),
        }
    }
}

/// What a schema says once references and wrappers of one are followed.
pub(crate) fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..MAX_DEPTH {
        let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        let target = reference.and_then(|pointer| root.pointer(pointer));
        let only =
            ["allOf", "anyOf", "oneOf"].iter().find_map(|key| match schema[key].as_array()?.as_slice() {
                [only] => Some(only),
                _ => None,
            });
        match target.or(only) {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema
}

fn kind(schema: &Value, root: &Value, depth: usize) -> Kind {
    let schema = resolved(schema, root);
    if let Some(choices) = choices(schema) {
        return Kind::Choice(choices);
    }
    // `null` stands for an absent field, which a command line says by saying nothing.
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    };
    match name {
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        Some("string") => Kind::Text,
        Some("array") if depth == 0 => Kind::List(Box::new(kind(&schema["items"], root, depth + 1))),
        _ => Kind::Json,
    }
}

/// The values of an enumeration of texts, each with what it means.
fn choices(schema: &Value) -> Option<Vec<(String, String)>> {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| Some((value.as_str()?.to_owned(), String::new()))).collect();
    }
    let options = schema["oneOf"].as_array().or(schema["anyOf"].as_array())?;
    let choices = options.iter().map(|option| {
        let doc = option["description"].as_str().unwrap_or_default().replace('\n', " ");
        match (option["const"].as_str(), option["enum"].as_array().map(Vec::as_slice)) {
            (Some(value), _) => Some(vec![(value.to_owned(), doc)]),
            (None, Some(values)) => {
                values.iter().map(|value| Some((value.as_str()?.to_owned(), doc.clone()))).collect()
            }
            _ => None,
        }
    });
    choices.collect::<Option<Vec<_>>>().map(|choices| choices.concat())
}

/// The bounds of a value in words; empty when there are none worth a word.
pub(crate) fn bounds(schema: &Value) -> String {
    let range = |low: &Value, high: &Value, unit: &str| match (low.as_number(), high.as_number()) {
        (Some(low), Some(high)) => format!("{low} to {high}{unit}"),
        (Some(low), None) => format!("at least {low}{unit}"),
        (None, Some(high)) => format!("at most {high}{unit}"),
        (None, None) => String::new(),
    };
    if !schema["minLength"].is_null() || !schema["maxLength"].is_null() {
        return range(&schema["minLength"], &schema["maxLength"], " characters");
    }
    if !schema["minItems"].is_null() || !schema["maxItems"].is_null() {
        return range(&schema["minItems"], &schema["maxItems"], " items");
    }
    range(&schema["minimum"], &schema["maximum"], "")
}

/// `sinceMs` as `since-ms`, `baseURL` as `base-url`.
pub(crate) fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, char) in chars.iter().enumerate() {
        if char.is_uppercase() {
            let after_small = index > 0 && !chars[index - 1].is_uppercase();
            let before_small = chars.get(index + 1).is_some_and(|next| next.is_lowercase());
            if index > 0 && (after_small || before_small) && !out.ends_with('-') {
                out.push('-');
            }
            out.extend(char.to_lowercase());
        } else if *char == '_' || *char == '.' {
            out.push('-');
        } else {
            out.push(*char);
        }
    }
    out
}

/// A word as a POSIX shell must be given it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:@%+,".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use openclaw_schema::{document, methods};
    use serde_json::json;

    use super::*;

    fn fields(schema: &Value) -> Fields {
        Fields::new(schema, schema, |flag| ["timeout", "json"].contains(&flag))
    }

    fn of(method: &str) -> Fields {
        let record = methods::find(method).expect("the contract has the method");
        fields(&document::params_schema(record))
    }

    fn given(fields: &Fields, args: &[&str]) -> Result<Value, String> {
        let command = clap::Command::new("x").no_binary_name(true).args(fields.args("x"));
        let matches = command.try_get_matches_from(args).map_err(|error| error.to_string())?;
        Ok(Value::Object(fields.given(&matches)))
    }

    #[test]
    fn names_become_flags() {
        for (name, flag) in [
            ("sinceMs", "since-ms"),
            ("baseURL", "base-url"),
            ("URLPath", "url-path"),
            ("limit", "limit"),
            ("snake_case", "snake-case"),
            ("v2Key", "v2-key"),
        ] {
            assert_eq!(kebab(name), flag);
        }
    }

    #[test]
    fn every_contract_field_has_a_flag_with_a_text() {
        for record in methods::all() {
            for field in of(record.name).iter() {
                assert!(!field.help().is_empty(), "{}: --{} has no text", record.name, field.flag);
            }
        }
    }

    #[test]
    fn flags_give_typed_values() {
        let tail = of("logs.tail");
        assert_eq!(
            given(&tail, &["--since-ms", "60000", "--limit=5"]),
            Ok(json!({ "limit": 5, "sinceMs": 60000 }))
        );
        assert_eq!(given(&tail, &["--cursor", "-1"]), Ok(json!({ "cursor": -1 })));
        assert!(
            given(&tail, &["--limit", "many"]).expect_err("no number").contains("must be a whole number")
        );
        let health = of("health");
        assert_eq!(given(&health, &["--probe"]), Ok(json!({ "probe": true })));
        assert_eq!(given(&health, &["--probe=false"]), Ok(json!({ "probe": false })));
        let subscribe = of("events.subscribe");
        assert_eq!(
            given(&subscribe, &["--events", "tick", "--events", "chat"]),
            Ok(json!({ "events": ["tick", "chat"] }))
        );
        assert!(given(&subscribe, &["--events", "tik"]).expect_err("no such event").contains("'tick'"));
        let connect = of("connect");
        assert_eq!(given(&connect, &["--auth", r#"{"token":"x"}"#]), Ok(json!({ "auth": { "token": "x" } })));
    }

    #[test]
    fn a_flag_that_is_taken_gets_a_prefix() {
        assert_eq!(given(&of("agent"), &["--param-timeout", "9"]), Ok(json!({ "timeout": 9 })));
    }

    #[test]
    fn pairs_take_the_type_of_their_field() {
        let tail = of("logs.tail");
        assert_eq!(tail.coerce("limit", "5"), Ok(json!(5)));
        assert_eq!(tail.coerce("nothing", "5"), Ok(json!("5")));
        assert_eq!(tail.coerce("limit", "x").expect_err("no number").path, "/limit");
        let models = of("models.list");
        let problem = models.coerce("view", "al").expect_err("no such view");
        assert_eq!(problem.nearest.as_deref(), Some("all"));
        assert_eq!(of("events.subscribe").coerce("events", "tick"), Ok(json!(["tick"])));
        assert_eq!(of("events.subscribe").coerce("events", r#"["tick"]"#), Ok(json!(["tick"])));
    }

    #[test]
    fn help_says_meaning_bounds_and_need() {
        let agent = of("agent");
        let message = agent.iter().next().expect("agent has fields");
        assert_eq!(message.help(), "What to say to the agent. [1 to 1000000 characters] [required]");
        assert!(agent.iter().any(|field| field.help().ends_with("[made when left out]")));
    }

    #[test]
    fn examples_read_as_typed_and_parse_back() {
        for record in methods::all() {
            let fields = of(record.name);
            for example in (record.examples)().successes {
                let params = example.params.as_object().expect("params are an object").clone();
                let typed = fields.typed(&params);
                // Splits as a shell would, for what `quoted` writes.
                let (mut words, mut word, mut in_quotes) = (Vec::new(), String::new(), false);
                let mut letters = typed.chars();
                while let Some(letter) = letters.next() {
                    match letter {
                        '\'' => in_quotes = !in_quotes,
                        '\\' if !in_quotes => word.extend(letters.next()),
                        ' ' if !in_quotes => words.push(std::mem::take(&mut word)),
                        other => word.push(other),
                    }
                }
                if !typed.is_empty() {
                    words.push(word);
                }
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let mut expected = params;
                expected.remove("idempotencyKey");
                assert_eq!(given(&fields, &words), Ok(Value::Object(expected)), "{}: {typed}", record.name);
            }
        }
    }

    #[test]
    fn references_and_wrappers_of_a_document_are_followed() {
        let root = json!({ "components": { "schemas": {
            "Params": { "type": "object", "required": ["shade"], "properties": {
                "shade": { "description": "How dark.", "allOf": [{ "$ref": "#/components/schemas/Shade" }] },
                "amount": { "type": ["number", "null"], "maximum": 2.5 },
                "self": { "$ref": "#/components/schemas/Params" },
            } },
            "Shade": { "type": "string", "enum": ["dark", "light"] },
        } } });
        let schema = json!({ "$ref": "#/components/schemas/Params" });
        let fields = Fields::new(&schema, &root, |_| false);
        assert!(fields.requires("shade") && !fields.requires("amount"));
        assert_eq!(
            given(&fields, &["--shade", "dark", "--amount", "1.5", "--self", "{}"]),
            Ok(json!({ "shade": "dark", "amount": 1.5, "self": {} }))
        );
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("main"), "main");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
