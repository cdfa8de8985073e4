//! The contract as data, without Rust and without JSON Schema: what emitters read.
//!
//! [`Api::read`] makes it from an OpenRPC document and nothing else. It knows the few schema shapes that
//! `openclaw_schema::document` writes; any other is a fault that names its method or type and its field, so
//! that no emitter ever has to guess. All faults are reported at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::{Map, Value};

/// A contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// The name of the contract.
    pub title: String,
    /// The version of the contract.
    pub version: String,
    /// What it is, Markdown.
    pub description: String,
    /// The methods, by name.
    pub methods: Vec<Method>,
    /// The events, in the order of the document.
    pub events: Vec<Event>,
    /// The error registry, in its own order.
    pub errors: Vec<ErrorCode>,
    /// What `data` of an error is.
    pub error_data: Type,
    /// The named types.
    pub types: BTreeMap<String, TypeDef>,
}

/// A method.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// The name on the wire.
    pub name: String,
    /// The heading of its namespace.
    pub group: String,
    /// One sentence.
    pub summary: String,
    /// The rest, Markdown; may be empty.
    pub description: String,
    /// Whether new callers should use something else.
    pub deprecated: bool,
    /// What the caller must hold.
    pub scope: String,
    /// The contract version that introduced it.
    pub since: String,
    /// Whether calling it twice does what calling it once does.
    pub idempotent: bool,
    /// Whether a parameter of its own bounds it, instead of the gateway's call timeout.
    pub long_poll: bool,
    /// The name of the params type, an object.
    pub params_type: String,
    /// The fields of the params object.
    pub params: Vec<Field>,
    /// The result; of a two-phase method, the acknowledgement; of a subscription, its id.
    pub result: Type,
    /// How the outcome of a two-phase method is had.
    pub two_phase: Option<TwoPhase>,
    /// What a subscription sends.
    pub subscription: Option<Subscription>,
    /// The string codes of the errors that it may answer.
    pub errors: Vec<String>,
    /// Calls that succeed.
    pub examples: Vec<Example>,
    /// Calls that are refused.
    pub error_examples: Vec<ErrorExample>,
}

/// How the outcome of a two-phase method is had.
#[derive(Debug, Clone, PartialEq)]
pub struct TwoPhase {
    /// The outcome: field `final` of the result of `wait`.
    pub outcome: Type,
    /// The method that delivers it.
    pub wait: String,
}

/// What a subscription sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// The method name of the notifications.
    pub notification: String,
    /// The method that ends it.
    pub unsubscribe: String,
    /// One item.
    pub item: Type,
}

/// A call that succeeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The case in words.
    pub name: String,
    /// The params object.
    pub params: Value,
    /// The result.
    pub result: Value,
}

/// A call that is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorExample {
    /// The case in words.
    pub name: String,
    /// The params, valid or not.
    pub params: Value,
    /// The error object: `code`, `message`, `data`.
    pub error: Value,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The name on the wire.
    pub name: String,
    /// One sentence.
    pub summary: String,
    /// When it is sent, in words.
    pub cadence: String,
    /// What a receiver must hold.
    pub scope: String,
    /// The contract version that introduced it.
    pub since: String,
    /// The payload.
    pub payload: Type,
    /// An example payload.
    pub example: Value,
}

/// A row of the error registry.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorCode {
    /// The string code.
    pub name: String,
    /// The JSON-RPC number.
    pub number: i64,
    /// What it means.
    pub meaning: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// A named type.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeDef {
    /// What it is, Markdown.
    pub description: String,
    /// Its shape.
    pub shape: Shape,
}

/// The shape of a named type.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// An object.
    Object {
        /// Its fields, in the order of declaration.
        fields: Vec<Field>,
        /// Whether fields beyond these are refused.
        closed: bool,
    },
    /// One of a list of texts. Receivers must expect further ones in results and events.
    Enum(Vec<EnumValue>),
    /// One of several objects, told apart by the text in field `tag`.
    Union {
        /// The field.
        tag: String,
        /// The objects.
        variants: Vec<Variant>,
    },
    /// One of several scalars of different JSON types.
    Either(Vec<Type>),
    /// Another name for a type.
    Alias(Type),
}

/// One value of an enum.
#[derive(Debug, Clone, PartialEq)]
pub struct EnumValue {
    /// The value on the wire.
    pub value: String,
    /// What it means.
    pub description: String,
}

/// One object of a union.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The text in the tag.
    pub value: String,
    /// What it is.
    pub description: String,
    /// The fields besides the tag.
    pub fields: Vec<Field>,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name on the wire.
    pub name: String,
    /// What it means, Markdown.
    pub description: String,
    /// Whether it is always there. A field that is not is left out, not null.
    pub required: bool,
    /// Whether its value may be null.
    pub nullable: bool,
    /// What its absence means.
    pub default: Option<Value>,
    /// Its type.
    pub ty: Type,
}

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Any JSON value.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The least value.
        minimum: Option<i128>,
        /// The greatest value.
        maximum: Option<i128>,
    },
    /// A number.
    Number,
    /// A text.
    Text {
        /// The least number of characters.
        min_length: Option<u64>,
        /// The greatest number of characters.
        max_length: Option<u64>,
    },
    /// A list.
    List {
        /// Its items.
        items: Box<Self>,
        /// The least number of items.
        min_items: Option<u64>,
        /// The greatest number of items.
        max_items: Option<u64>,
    },
    /// An object whose fields are not told, with values of one type.
    Map(Box<Self>),
    /// A type of [`Api::types`].
    Named(String),
}

/// What is wrong with a document, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the contract's document cannot be used:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}

impl Api {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// Every fault found: unknown shapes, references that lead nowhere, names that are not unique.
    pub fn read(document: &Value) -> Result<Self, Faults> {
        let mut reader = Reader { faults: Vec::new() };
        reader.references(document, document, "document");
        let info = reader.object(&document["info"], "info");
        let types = reader.object(&document["components"]["schemas"], "components.schemas");
        let api = Self {
            title: reader.text(&info, "title", "info"),
            version: reader.text(&info, "version", "info"),
            description: optional_text(&info, "description"),
            methods: list(&document["methods"]).iter().map(|method| reader.method(method)).collect(),
            events: list(&document["x-events"]).iter().map(|event| reader.event(event)).collect(),
            errors: reader
                .object(&document["components"]["errors"], "components.errors")
                .iter()
                .map(|(name, error)| reader.error(name, error))
                .collect(),
            error_data: reader.value_type(&document["x-error-data"], "x-error-data").0,
            types: types
                .iter()
                .map(|(name, schema)| (name.clone(), reader.type_def(schema, &format!("type `{name}`"))))
                .collect(),
        };
        reader.names(&api);
        if reader.faults.is_empty() { Ok(api) } else { Err(Faults(reader.faults)) }
    }

    /// The fields of a named type, if it is an object.
    #[must_use]
    pub fn fields(&self, ty: &Type) -> Option<&[Field]> {
        let Type::Named(name) = ty else { return None };
        match &self.types.get(name)?.shape {
            Shape::Object { fields, .. } => Some(fields),
            Shape::Enum(_) | Shape::Union { .. } | Shape::Either(_) | Shape::Alias(_) => None,
        }
    }
}

/// Reads parts of a document and collects what is wrong with them. Places are in words.
struct Reader {
    faults: Vec<String>,
}

/// Keywords that say nothing about a value's type.
const ANNOTATIONS: &[&str] = &["description", "default"];

impl Reader {
    fn fault(&mut self, place: &str, fault: impl fmt::Display) {
        self.faults.push(format!("{place}: {fault}"));
    }

    fn object(&mut self, value: &Value, place: &str) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_else(|| {
            self.fault(place, "is no object");
            Map::new()
        })
    }

    fn text(&mut self, object: &Map<String, Value>, key: &str, place: &str) -> String {
        let text = optional_text(object, key);
        if text.is_empty() {
            self.fault(place, format_args!("`{key}` is missing, empty or no text"));
        }
        text
    }

    /// Every reference of the document, wherever it stands, resolves. Data is not looked into.
    fn references(&mut self, document: &Value, value: &Value, place: &str) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref")
                    && reference.strip_prefix('#').is_none_or(|pointer| document.pointer(pointer).is_none())
                {
                    self.fault(place, format_args!("$ref `{reference}` leads nowhere"));
                }
                let data = ["examples", "x-error-examples", "example", "default", "const", "enum"];
                for (key, value) in object.iter().filter(|(key, _)| !data.contains(&key.as_str())) {
                    self.references(document, value, &format!("{place}/{key}"));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.references(document, item, &format!("{place}/{index}"));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn method(&mut self, value: &Value) -> Method {
        let method = self.object(value, "methods");
        let name = self.text(&method, "name", "methods");
        let place = format!("method `{name}`");
        let params = list(&value["params"]).iter().map(|param| self.param(param, &place)).collect();
        let params_type = match self.value_type(&value["x-params-schema"], &format!("{place}, params")).0 {
            Type::Named(name) => name,
            _ => {
                self.fault(&place, "x-params-schema is no reference to a type");
                String::new()
            }
        };
        let tag = self.object(&value["tags"][0], &format!("{place}, tags"));
        Method {
            group: self.text(&tag, "name", &format!("{place}, tags")),
            summary: self.text(&method, "summary", &place),
            description: optional_text(&method, "description"),
            deprecated: value["deprecated"] == true,
            scope: self.text(&method, "x-scope", &place),
            since: self.text(&method, "x-since", &place),
            idempotent: value["x-idempotent"] == true,
            long_poll: value["x-long-poll"] == true,
            params_type,
            params,
            result: self.value_type(&value["result"]["schema"], &format!("{place}, result")).0,
            two_phase: method.get("x-two-phase").map(|two_phase| {
                let place = format!("{place}, x-two-phase");
                let members = self.object(two_phase, &place);
                TwoPhase {
                    outcome: self.value_type(&two_phase["outcome"], &place).0,
                    wait: self.text(&members, "wait", &place),
                }
            }),
            subscription: method.get("x-subscription").map(|subscription| {
                let place = format!("{place}, x-subscription");
                let members = self.object(subscription, &place);
                Subscription {
                    notification: self.text(&members, "notification", &place),
                    unsubscribe: self.text(&members, "unsubscribe", &place),
                    item: self.value_type(&subscription["item"], &place).0,
                }
            }),
            errors: list(&value["errors"])
                .iter()
                .filter_map(|error| error["$ref"].as_str()?.rsplit('/').next().map(str::to_owned))
                .collect(),
            examples: list(&value["examples"])
                .iter()
                .map(|example| Example {
                    name: string(&example["name"]),
                    params: list(&example["params"])
                        .iter()
                        .map(|param| (string(&param["name"]), param["value"].clone()))
                        .collect(),
                    result: example["result"]["value"].clone(),
                })
                .collect(),
            error_examples: list(&value["x-error-examples"])
                .iter()
                .map(|example| ErrorExample {
                    name: string(&example["name"]),
                    params: example["params"].clone(),
                    error: example["error"].clone(),
                })
                .collect(),
            name,
        }
    }

    fn param(&mut self, value: &Value, method: &str) -> Field {
        let param = self.object(value, method);
        let name = self.text(&param, "name", &format!("{method}, params"));
        let place = format!("{method}, param `{name}`");
        let (ty, nullable) = self.value_type(&value["schema"], &place);
        Field {
            description: self.text(&param, "description", &place),
            required: value["required"] == true,
            nullable,
            default: value["schema"].get("default").cloned(),
            ty,
            name,
        }
    }

    fn event(&mut self, value: &Value) -> Event {
        let event = self.object(value, "x-events");
        let name = self.text(&event, "name", "x-events");
        let place = format!("event `{name}`");
        Event {
            summary: self.text(&event, "summary", &place),
            cadence: self.text(&event, "cadence", &place),
            scope: self.text(&event, "scope", &place),
            since: self.text(&event, "since", &place),
            payload: self.value_type(&value["payload"]["schema"], &format!("{place}, payload")).0,
            example: value["example"].clone(),
            name,
        }
    }

    fn error(&mut self, name: &str, value: &Value) -> ErrorCode {
        let place = format!("error `{name}`");
        let error = self.object(value, &place);
        let number = value["code"].as_i64().unwrap_or_else(|| {
            self.fault(&place, "`code` is no integer");
            0
        });
        ErrorCode {
            name: name.to_owned(),
            number,
            meaning: self.text(&error, "message", &place),
            retryable: value["data"]["retryable"] == true,
        }
    }

    fn type_def(&mut self, schema: &Value, place: &str) -> TypeDef {
        let object = self.object(schema, place);
        let description = self.text(&object, "description", place);
        let shape = if object.contains_key("properties")
            || object.get("additionalProperties") == Some(&Value::Bool(false))
        {
            let closed = object.get("additionalProperties") == Some(&Value::Bool(false));
            Shape::Object { fields: self.fields(&object, place), closed }
        } else if let Some(values) = object.get("enum") {
            self.only(&object, &["type", "enum", "x-enum-descriptions"], place);
            Shape::Enum(list(values).iter().map(|value| self.enum_value(value, &object, place)).collect())
        } else if let Some(options) = object.get("oneOf") {
            self.only(&object, &["oneOf"], place);
            self.union(list(options), place)
        } else if let Some(options) = object.get("anyOf") {
            self.only(&object, &["anyOf"], place);
            let types: Vec<Type> =
                list(options).iter().map(|option| self.value_type(option, place).0).collect();
            let kinds: BTreeSet<Option<&str>> = types.iter().map(scalar).collect();
            if kinds.len() < types.len() || kinds.contains(&None) {
                self.fault(place, "the options of `anyOf` are not scalars of different JSON types");
            }
            Shape::Either(types)
        } else {
            Shape::Alias(self.value_type(schema, place).0)
        };
        TypeDef { description, shape }
    }

    fn enum_value(&mut self, value: &Value, schema: &Map<String, Value>, place: &str) -> EnumValue {
        let value = value.as_str().unwrap_or_else(|| {
            self.fault(place, format_args!("value {value} of `enum` is no text"));
            ""
        });
        let description =
            schema.get("x-enum-descriptions").map_or("", |texts| texts[value].as_str().unwrap_or(""));
        if description.is_empty() {
            self.fault(place, format_args!("value `{value}` has no description"));
        }
        EnumValue { value: value.to_owned(), description: description.to_owned() }
    }

    fn union(&mut self, options: &[Value], place: &str) -> Shape {
        let tags: Vec<Option<(&str, &str)>> = options
            .iter()
            .map(|option| {
                let mut constants = option["properties"]
                    .as_object()?
                    .iter()
                    .filter_map(|(name, property)| Some((name.as_str(), property["const"].as_str()?)));
                constants.next().filter(|_| constants.next().is_none())
            })
            .collect();
        let names: BTreeSet<Option<&str>> = tags.iter().map(|tag| tag.map(|(name, _)| name)).collect();
        let values: BTreeSet<_> = tags.iter().collect();
        let (1, Some(Some(tag))) = (names.len(), names.first()) else {
            self.fault(
                place,
                "the options of `oneOf` share no tag: one `const` property in each, of one name",
            );
            return Shape::Union { tag: String::new(), variants: Vec::new() };
        };
        if values.len() < options.len() {
            self.fault(place, format_args!("two options have the same value of `{tag}`"));
        }
        let mut variants = Vec::new();
        for (option, value) in options.iter().zip(tags.iter().flatten().map(|(_, value)| *value)) {
            let place = format!("{place}, option `{value}`");
            let object = self.object(option, &place);
            let mut fields = self.fields(&object, &place);
            fields.retain(|field| field.name != *tag);
            let description = self.text(&object, "description", &place);
            variants.push(Variant { value: value.to_owned(), description, fields });
        }
        Shape::Union { tag: (*tag).to_owned(), variants }
    }

    fn fields(&mut self, object: &Map<String, Value>, place: &str) -> Vec<Field> {
        self.only(object, &["type", "properties", "required", "additionalProperties"], place);
        let required: BTreeSet<&str> =
            object.get("required").map_or(&[][..], list).iter().filter_map(Value::as_str).collect();
        let properties = object.get("properties").and_then(Value::as_object);
        let names: BTreeSet<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        for name in required.difference(&names) {
            self.fault(place, format_args!("requires field `{name}`, which it does not have"));
        }
        let mut fields = Vec::new();
        for (name, schema) in properties.into_iter().flatten() {
            let place = format!("{place}, field `{name}`");
            // The tag of a union: described by its value.
            if schema.get("const").is_some() {
                let text = Type::Text { min_length: None, max_length: None };
                fields.push(Field {
                    name: name.clone(),
                    description: String::new(),
                    required: true,
                    nullable: false,
                    default: None,
                    ty: text,
                });
                continue;
            }
            let members = self.object(schema, &place);
            let (ty, nullable) = self.value_type(schema, &place);
            fields.push(Field {
                name: name.clone(),
                description: self.text(&members, "description", &place),
                required: required.contains(name.as_str()),
                nullable,
                default: schema.get("default").cloned(),
                ty,
            });
        }
        fields
    }

    /// The type of a value, and whether it may also be null.
    fn value_type(&mut self, schema: &Value, place: &str) -> (Type, bool) {
        let object = match schema {
            Value::Bool(true) => return (Type::Any, false),
            Value::Object(object) => object,
            Value::Null | Value::Bool(false) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                self.fault(place, format_args!("{schema} is no schema"));
                return (Type::Any, false);
            }
        };
        if let Some(reference) = object.get("$ref") {
            self.only(object, &["$ref"], place);
            let reference = reference.as_str().unwrap_or_default();
            return match reference.strip_prefix("#/components/schemas/") {
                Some(name) => (Type::Named(name.to_owned()), false),
                None => {
                    self.fault(place, format_args!("$ref `{reference}` is no component schema"));
                    (Type::Any, false)
                }
            };
        }
        if let Some(parts) = object.get("allOf") {
            self.only(object, &["allOf"], place);
            if let [part] = list(parts) {
                return self.value_type(part, place);
            }
            self.fault(place, "`allOf` of several schemas is not supported");
            return (Type::Any, false);
        }
        if let Some(options) = object.get("anyOf") {
            self.only(object, &["anyOf"], place);
            let (nulls, others): (Vec<_>, Vec<_>) =
                list(options).iter().partition(|option| option["type"] == "null");
            if let (1, [only]) = (nulls.len(), others.as_slice()) {
                return (self.value_type(only, place).0, true);
            }
            self.fault(place, "`anyOf` is supported for a type or null; give other unions a named type");
            return (Type::Any, false);
        }
        let (kind, nullable) = match object.get("type") {
            None if object.keys().all(|key| ANNOTATIONS.contains(&key.as_str())) => {
                return (Type::Any, false);
            }
            Some(Value::String(kind)) => (kind.as_str(), false),
            Some(Value::Array(kinds)) => match kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>()[..]
            {
                [kind, "null"] | ["null", kind] => (kind, true),
                _ => ("", false),
            },
            _ => ("", false),
        };
        let ty = match kind {
            "boolean" => {
                self.only(object, &["type"], place);
                Type::Boolean
            }
            "integer" => {
                self.only(object, &["type", "minimum", "maximum"], place);
                let bound = |key: &str| {
                    let bound = object.get(key)?;
                    bound.as_i64().map(i128::from).or_else(|| bound.as_u64().map(i128::from))
                };
                Type::Integer { minimum: bound("minimum"), maximum: bound("maximum") }
            }
            "number" => {
                self.only(object, &["type"], place);
                Type::Number
            }
            "string" => {
                self.only(object, &["type", "minLength", "maxLength"], place);
                let length = |key: &str| object.get(key).and_then(Value::as_u64);
                Type::Text { min_length: length("minLength"), max_length: length("maxLength") }
            }
            "array" => {
                self.only(object, &["type", "items", "minItems", "maxItems"], place);
                let length = |key: &str| object.get(key).and_then(Value::as_u64);
                let items = object.get("items").unwrap_or(&Value::Bool(true));
                let (items, null_items) = self.value_type(items, &format!("{place}, items"));
                if null_items {
                    self.fault(place, "items that may be null are not supported");
                }
                let (min_items, max_items) = (length("minItems"), length("maxItems"));
                Type::List { items: Box::new(items), min_items, max_items }
            }
            "object" => {
                self.only(object, &["type", "additionalProperties"], place);
                let values = object.get("additionalProperties").unwrap_or(&Value::Bool(true));
                Type::Map(Box::new(self.value_type(values, &format!("{place}, values")).0))
            }
            _ => {
                self.fault(place, format_args!("schema {schema} is of no supported shape"));
                Type::Any
            }
        };
        (ty, nullable)
    }

    /// A keyword that is passed over could change the meaning of all the others.
    fn only(&mut self, schema: &Map<String, Value>, known: &[&str], place: &str) {
        for key in schema.keys().map(String::as_str) {
            if !known.contains(&key) && !ANNOTATIONS.contains(&key) {
                self.fault(place, format_args!("keyword `{key}` is not supported here"));
            }
        }
    }

    /// What names must hold across the document.
    fn names(&mut self, api: &Api) {
        self.unique("method", api.methods.iter().map(|method| method.name.as_str()));
        self.unique("event", api.events.iter().map(|event| event.name.as_str()));
        self.unique("error", api.errors.iter().map(|error| error.name.as_str()));
        self.unique("type", api.types.keys().map(String::as_str));
        for (name, def) in &api.types {
            if let Shape::Object { fields, .. } = &def.shape {
                self.unique(&format!("type `{name}`, field"), fields.iter().map(|field| field.name.as_str()));
            }
        }
        let methods: BTreeSet<&str> = api.methods.iter().map(|method| method.name.as_str()).collect();
        let codes: BTreeSet<&str> = api.errors.iter().map(|error| error.name.as_str()).collect();
        for method in &api.methods {
            let place = format!("method `{}`", method.name);
            for code in method.errors.iter().filter(|code| !codes.contains(code.as_str())) {
                self.fault(&place, format_args!("error `{code}` is not in the registry"));
            }
            if let Some(two_phase) = &method.two_phase
                && !methods.contains(two_phase.wait.as_str())
            {
                self.fault(&place, format_args!("its wait method `{}` does not exist", two_phase.wait));
            }
            // The params are told twice, for OpenRPC and as a type; emitters may use either.
            let told = api.fields(&Type::Named(method.params_type.clone()));
            if told != Some(&method.params[..]) {
                self.fault(
                    &place,
                    format_args!("its params differ from the fields of `{}`", method.params_type),
                );
            }
        }
    }

    /// Names differ by more than case and separators, so that each makes an identifier in any language.
    fn unique<'a>(&mut self, what: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeMap::new();
        for name in names {
            let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            if let Some(other) = seen.insert(letters.to_ascii_lowercase(), name) {
                self.faults.push(if other == name {
                    format!("{what} `{name}` is declared twice")
                } else {
                    format!("{what} `{name}` and `{other}` differ in case and separators only")
                });
            }
        }
    }
}

/// The JSON type of a scalar.
fn scalar(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::Boolean => Some("boolean"),
        Type::Integer { .. } | Type::Number => Some("number"),
        Type::Text { .. } => Some("string"),
        Type::Any | Type::List { .. } | Type::Map(_) | Type::Named(_) => None,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn optional_text(object: &Map<String, Value>, key: &str) -> String {
    object.get(key).map(string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is wrong with the core contract's document after `change`.
    fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut document = openclaw_schema::document::document();
        change(&mut document);
        Api::read(&document).map_or_else(|faults| faults.0, |_| Vec::new())
    }

    fn property<'a>(document: &'a mut Value, ty: &str, field: &str) -> &'a mut Value {
        &mut document["components"]["schemas"][ty]["properties"][field]
    }

    #[test]
    fn the_core_contract_is_understood() {
        assert_eq!(faults(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn shapes_are_told_apart() {
        let api = Api::read(&openclaw_schema::document::document()).expect("the core contract is understood");
        let shape = |name: &str| &api.types[name].shape;
        assert!(matches!(shape("LogsTailParams"), Shape::Object { closed: true, .. }));
        assert!(matches!(shape("LogsTailResult"), Shape::Object { closed: false, .. }));
        assert!(matches!(shape("NoParams"), Shape::Object { fields, closed: true } if fields.is_empty()));
        assert!(matches!(shape("RunStatus"), Shape::Enum(values) if values[0].value == "ok"));
        assert!(matches!(shape("ChatContent"), Shape::Union { tag, .. } if tag == "type"));
        assert!(matches!(shape("SubscriptionId"), Shape::Either(types) if types.len() == 2));
        assert!(matches!(
            shape("TimestampMs"),
            Shape::Alias(Type::Integer { minimum: Some(0), maximum: None })
        ));
        let payload = api.fields(&Type::Named("AgentPayload".to_owned())).expect("an object");
        assert!(payload.iter().all(|field| field.nullable && field.default == Some(Value::Null)));
    }

    #[test]
    fn an_unknown_shape_names_type_and_field() {
        let found = faults(|document| {
            *property(document, "LogsTailResult", "lines") =
                json!({ "description": "Lines.", "type": "string", "pattern": "^x" });
        });
        assert_eq!(found, ["type `LogsTailResult`, field `lines`: keyword `pattern` is not supported here"]);
        let found = faults(|document| {
            *property(document, "LogsTailResult", "size") =
                json!({ "description": "Size.", "type": ["string", "integer"] });
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("type `LogsTailResult`, field `size`: schema {"), "{}", found[0]);
    }

    #[test]
    fn an_unknown_shape_of_a_param_names_the_method() {
        let found = faults(|document| {
            let method = list(&document["methods"]).iter().position(|method| method["name"] == "logs.tail");
            document["methods"][method.expect("logs.tail is declared")]["params"][0]["schema"] =
                json!({ "not": {} });
        });
        assert!(
            found[0]
                .starts_with("method `logs.tail`, param `cursor`: schema {\"not\":{}} is of no supported"),
            "{}",
            found[0]
        );
        assert_eq!(found[1], "method `logs.tail`: its params differ from the fields of `LogsTailParams`");
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_a_fault() {
        let found = faults(|document| {
            property(document, "AgentAck", "status")["allOf"][0]["$ref"] = json!("#/components/schemas/Gone");
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("$ref `#/components/schemas/Gone` leads nowhere"), "{}", found[0]);
    }

    #[test]
    fn a_union_without_a_tag_is_a_fault() {
        let found = faults(|document| {
            let option = &mut document["components"]["schemas"]["ChatContent"]["oneOf"][0];
            option["properties"]["type"] = json!({ "type": "string", "description": "The kind." });
        });
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("type `ChatContent`: the options of `oneOf` share no tag"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn names_that_clash_in_some_language_are_faults() {
        let found = faults(|document| {
            let again = document["methods"][0].clone();
            let methods = document["methods"].as_array_mut().expect("a list");
            let mut near =
                methods.iter().find(|method| method["name"] == "agent.wait").expect("declared").clone();
            near["name"] = json!("agentWait");
            methods.extend([again, near]);
            let schemas = &mut document["components"]["schemas"];
            schemas["Agentack"] = schemas["AgentAck"].clone();
        });
        assert_eq!(
            found,
            [
                "method `agent` is declared twice",
                "method `agentWait` and `agent.wait` differ in case and separators only",
                "type `Agentack` and `AgentAck` differ in case and separators only",
            ]
        );
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found = faults(|document| {
            document["info"]["title"] = json!("");
            property(document, "TickEvent", "ts")["description"] = json!("");
            document["methods"][0]["x-two-phase"]["wait"] = json!("agent.gone");
        });
        assert_eq!(
            found,
            [
                "info: `title` is missing, empty or no text",
                "type `TickEvent`, field `ts`: `description` is missing, empty or no text",
                "method `agent`: its wait method `agent.gone` does not exist",
            ]
        );
    }
}
