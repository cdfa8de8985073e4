//! The section `agents`, so far as this gateway reads it.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use super::{CliInputMode, CliOutputMode, Entries, Secret, Sourced, Texts};
use crate::{
    methods::{models::ThinkingLevel, sessions::FastMode},
    types::Bounded,
};

/// The section `agents`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Agents {
    /// What holds for every agent.
    pub defaults: AgentDefaults,
    /// The agents, by id: letters, digits, `_` and `-`, at most 64. Without any there is one, `main`.
    pub entries: Entries<AgentEntry>,
}

/// The section `agents.defaults`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentDefaults {
    /// The directory that the default agent works in. By default `workspace` in the state directory. A relative path
    /// starts at the directory of this file.
    pub workspace: Option<Sourced<String>>,
    /// The model of agents that name none. By default what there is.
    pub model: Option<Sourced<ModelChoice>>,
    /// How much models think: `off`, `minimal`, `low`, `medium`, `high`, `xhigh`, `adaptive` or `max`. By default as the
    /// model sees fit.
    pub thinking_default: Option<Sourced<Thinking>>,
    /// Whether models answer faster, at a higher price: true, false, or `auto` for the beginning of a run.
    pub fast_mode_default: Option<Sourced<FastAnswers>>,
    /// What is said of single models, by `provider/id`.
    pub models: Entries<NamedModel>,
    /// Programs that answer instead of a provider, by the name that stands before the slash in `name/model`.
    pub cli_backends: Entries<CliBackend>,
}

/// One of `agents.entries`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentEntry {
    /// Whether it serves calls that name no agent. By default `main` does, else the first.
    #[serde(rename = "default")]
    pub is_default: Option<Sourced<bool>>,
    /// The directory that it works in. By default `workspace-<id>` in the state directory; the default agent has that
    /// of `agents.defaults`.
    pub workspace: Option<Sourced<String>>,
    /// Its model. By default that of `agents.defaults`.
    pub model: Option<Sourced<ModelChoice>>,
    /// How much its model thinks. By default as `agents.defaults` says.
    pub thinking_default: Option<Sourced<Thinking>>,
    /// Whether its model answers faster. By default as `agents.defaults` says.
    pub fast_mode_default: Option<Sourced<FastAnswers>>,
    /// Who it is.
    pub identity: Identity,
}

/// Who an agent is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// Its name for people. By default its id.
    pub name: Option<Sourced<String>>,
}

/// A model, and what answers when it cannot.
#[derive(Debug)]
pub enum ModelChoice {
    /// Its name, `provider/id`.
    Name(String),
    /// The same with more.
    Full {
        /// Its name, `provider/id`.
        primary: Option<Sourced<String>>,
        /// The models that are tried when it fails, in this order.
        fallbacks: Texts,
    },
}

impl Sourced<ModelChoice> {
    /// The name of the model.
    #[must_use]
    pub fn primary(&self) -> Option<Sourced<String>> {
        match &self.value {
            ModelChoice::Name(name) => Some(Sourced::new(name.clone(), self.source.clone())),
            ModelChoice::Full { primary, .. } => primary.clone(),
        }
    }

    /// The models that are tried when it fails.
    pub fn fallbacks(&self) -> impl Iterator<Item = &Sourced<String>> {
        match &self.value {
            ModelChoice::Name(_) => None,
            ModelChoice::Full { fallbacks, .. } => Some(fallbacks),
        }
        .into_iter()
        .flatten()
    }
}

/// The object form of [`ModelChoice`].
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct FullModelChoice {
    /// The model: `provider/id`.
    primary: Option<Sourced<String>>,
    /// The models that are tried when it fails, in this order.
    fallbacks: Texts,
}

impl<'de> Deserialize<'de> for ModelChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = ModelChoice;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ModelChoice, E> {
                if name.is_empty() {
                    return Err(E::invalid_value(de::Unexpected::Str(name), &self));
                }
                Ok(ModelChoice::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<ModelChoice, A::Error> {
                let full = FullModelChoice::deserialize(MapAccessDeserializer::new(members))?;
                Ok(ModelChoice::Full { primary: full.primary, fallbacks: full.fallbacks })
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

impl JsonSchema for ModelChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModelChoice".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "minLength": 1, "description": "The model: `provider/id`." },
                generator.subschema_for::<FullModelChoice>(),
            ],
        })
    }
}

/// What is said of one model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedModel {
    /// A short name that stands for it.
    pub alias: Option<Sourced<String>>,
    /// What runs it.
    pub agent_runtime: RuntimeChoice,
    /// What is added to each request to its provider, and how it answers.
    pub params: ModelParams,
}

/// How much a model thinks; nothing for what is usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thinking(pub Option<ThinkingLevel>);

impl Thinking {
    fn of(value: &Value) -> Result<Self, String> {
        Ok(Self(match value {
            Value::Null => None,
            Value::Bool(false) => Some(ThinkingLevel::Off),
            Value::String(text) if text == "default" => None,
            Value::String(text) => Some(text.parse().map_err(|error| format!("{error}"))?),
            _ => return Err("must be a level of thinking such as \"high\"".to_owned()),
        }))
    }
}

impl<'de> Deserialize<'de> for Thinking {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Thinking {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Thinking".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let levels = ThinkingLevel::ALL.map(ThinkingLevel::name);
        json_schema!({
            "anyOf": [
                { "type": "string", "description": "The level, or `default`.", "examples": levels },
                { "const": false, "description": "Not at all." },
            ],
        })
    }
}

/// Whether a model answers faster; nothing for what is usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FastAnswers(pub Option<FastMode>);

impl FastAnswers {
    fn of(value: &Value) -> Result<Self, String> {
        Ok(Self(match value {
            Value::Null => None,
            Value::Bool(flag) => Some(FastMode::Flag(*flag)),
            Value::String(word) if word == "on" => Some(FastMode::Flag(true)),
            Value::String(word) if word == "off" => Some(FastMode::Flag(false)),
            Value::String(word) if word == "auto" => Some(FastMode::WORD),
            _ => return Err("must be true, false or \"auto\"".to_owned()),
        }))
    }
}

impl<'de> Deserialize<'de> for FastAnswers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(&Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for FastAnswers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FastAnswers".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [true, false, "auto", "on", "off"] })
    }
}

/// What is added to each request for a model. Three of the keys also say how it answers.
#[derive(Debug, Default)]
pub struct ModelParams {
    /// All of them.
    pub all: Map<String, Value>,
    /// `thinking`.
    pub thinking: Thinking,
    /// `fastMode`, or `fast_mode`.
    pub fast_mode: FastAnswers,
    /// `fastAutoOnSeconds`: for how long after the start of a run `auto` is fast.
    pub fast_auto_on_seconds: Option<u64>,
}

/// One of [`ModelParams`], read in its place so that a fault names it.
enum Param {
    Thinking(Thinking),
    FastMode(FastAnswers),
    Seconds(u64),
    Other,
}

/// Reads the one of that name.
struct ParamNamed<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for ParamNamed<'_> {
    type Value = (Value, Param);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let param = match self.0 {
            "thinking" => Thinking::of(&value).map(Param::Thinking),
            "fastMode" | "fast_mode" => FastAnswers::of(&value).map(Param::FastMode),
            "fastAutoOnSeconds" => value
                .as_u64()
                .map(Param::Seconds)
                .ok_or_else(|| format!("must be a whole number, at least 0, not {value}")),
            _ => Ok(Param::Other),
        };
        Ok((value, param.map_err(de::Error::custom)?))
    }
}

impl<'de> Deserialize<'de> for ModelParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Params;

        impl<'de> Visitor<'de> for Params {
            type Value = ModelParams;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ModelParams, A::Error> {
                let mut params = ModelParams::default();
                while let Some(name) = members.next_key::<String>()? {
                    let (value, param) = members.next_value_seed(ParamNamed(&name))?;
                    match param {
                        Param::Thinking(thinking) => params.thinking = thinking,
                        // The first spelling comes before the second.
                        Param::FastMode(mode) if name == "fastMode" && mode.0.is_some() => {
                            params.fast_mode = mode;
                        }
                        Param::FastMode(mode) => {
                            params.fast_mode.0 = params.fast_mode.0.or(mode.0);
                        }
                        Param::Seconds(seconds) => params.fast_auto_on_seconds = Some(seconds),
                        Param::Other => {}
                    }
                    params.all.insert(name, value);
                }
                Ok(params)
            }
        }

        deserializer.deserialize_map(Params)
    }
}

impl JsonSchema for ModelParams {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModelParams".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let described = |mut schema: Schema, text: &str| {
            schema.insert("description".to_owned(), text.into());
            schema
        };
        let thinking = described(Thinking::json_schema(generator), "How much it thinks.");
        let fast =
            described(FastAnswers::json_schema(generator), "Whether it answers faster, at a higher price.");
        json_schema!({
            "type": "object",
            "properties": {
                "thinking": thinking,
                "fastMode": fast,
                "fast_mode": fast,
                "fastAutoOnSeconds": {
                    "type": "integer",
                    "minimum": 0,
                    "default": 60,
                    "description": "For how long after the start of a run `auto` is fast, in seconds: at least 0.",
                },
            },
        })
    }
}

/// What runs a model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeChoice {
    /// A command-line back end, such as `claude-cli`. `auto`, `openclaw` and `pi` mean the gateway itself.
    pub id: Option<Sourced<String>>,
}

impl RuntimeChoice {
    /// The command-line back end, if it is one.
    #[must_use]
    pub fn cli(&self) -> Option<&str> {
        let id = self.id.as_ref().map(|id| id.value.as_str());
        id.filter(|id| !matches!(*id, "auto" | "openclaw" | "pi"))
    }
}

/// One of `agents.defaults.cliBackends`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CliBackend {
    /// The program. Only `claude-cli` has one by default: `claude`.
    pub command: Option<Sourced<String>>,
    /// Its arguments. Others on this machine can read them: secrets belong into `env`.
    pub args: Option<Sourced<Texts>>,
    /// How it gets its prompt.
    #[schemars(extend("default" = "stdin"))]
    pub input: Option<Sourced<CliInputMode>>,
    /// What it writes. By default `text`; `jsonl` for `claude-cli`.
    pub output: Option<Sourced<CliOutputMode>>,
    /// Variables for it.
    pub env: Entries<Secret>,
    /// Variables of the gateway's environment that it does not get. By default none; `ANTHROPIC_API_KEY` for
    /// `claude-cli`.
    pub clear_env: Option<Sourced<Texts>>,
    /// The option that names the model, such as `--model`. By default the model is not named.
    pub model_arg: Option<Sourced<String>>,
    /// What the program calls models: name here to name there.
    pub model_aliases: Entries<String>,
    /// The arguments that say how much the model is to think, with `{level}` where the level stands. By default it is
    /// not told; `claude-cli` gets `--effort {level}`.
    pub thinking_args: Option<Sourced<Texts>>,
    /// What the program calls levels of thinking: name here to name there.
    pub thinking_aliases: Entries<String>,
    /// The option that takes the system prompt. By default it stands before the prompt.
    pub system_prompt_arg: Option<Sourced<String>>,
    /// How long a prompt may be as an argument, in bytes; a longer one goes to standard input. 100000 by default and
    /// at most.
    pub max_prompt_arg_chars: Option<Sourced<Bounded<0, { u64::MAX }>>>,
    /// When it counts as stuck.
    pub reliability: Reliability,
}

/// When a command-line back end counts as stuck.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reliability {
    /// How it is watched.
    pub watchdog: Watchdog,
}

/// How a command-line back end is watched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Watchdog {
    /// In a session that begins.
    pub fresh: Silence,
}

/// How long a command-line back end may be silent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Silence {
    /// For how long it may write nothing, in milliseconds: at least 1.
    #[schemars(extend("default" = 300_000))]
    pub no_output_timeout_ms: Option<Sourced<Bounded<1, { u64::MAX }>>>,
}
