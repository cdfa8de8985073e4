//! What answers runs, as settings: providers, command lines, which model is the default and which follow it. Read from
//! the configuration by `config`; an embedding program may write them down itself.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use openclaw_schema::methods::{models::ThinkingLevel, sessions::FastMode};
use secrecy::SecretString;
use serde_json::{Map, Value};

/// What answers runs. Empty, the echo answers.
#[derive(Debug, Clone, Default)]
pub struct ModelSettings {
    /// The providers, by their ids.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// The command-line back ends, by their ids.
    pub clis: BTreeMap<String, CliSettings>,
    /// The models of every agent that has no choice of its own.
    pub default: ModelChoice,
    /// The agents that have a choice of their own, by their ids.
    pub agents: BTreeMap<String, ModelChoice>,
    /// How every agent's models answer that is not told otherwise.
    pub effort: Effort,
    /// The agents that have an [`Effort`] of their own, by their ids.
    pub agent_efforts: BTreeMap<String, Effort>,
    /// What is said of single models, by `provider/id`, or `provider/*` for all of a provider.
    pub entries: BTreeMap<String, ModelEntry>,
    /// The file that every raw model event is written to; nothing is written without one.
    pub raw_stream: Option<PathBuf>,
    /// Whether the output of command-line back ends goes to stderr of this process.
    pub cli_logs: bool,
    /// The directory where the processes of command-line back ends are noted, so that those which a killed gateway left
    /// are ended at the next start; none are noted without one.
    pub processes: Option<PathBuf>,
}

/// How much a model thinks, and how fast it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// How much it thinks.
    pub thinking: Option<ThinkingLevel>,
    /// Whether it answers faster, at a higher price.
    pub fast_mode: Option<FastMode>,
}

/// A model, and which follow when it gives no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelChoice {
    /// The model, as `provider/id` or an alias.
    pub primary: Option<String>,
    /// Those that are tried after it, in this order.
    pub fallbacks: Vec<String>,
}

/// What is said of one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelEntry {
    /// A short name.
    pub alias: Option<String>,
    /// The command-line back end that runs it instead of its provider.
    pub runtime: Option<String>,
    /// What goes into requests: `temperature`, `maxTokens`, `extra_body`.
    pub params: Map<String, Value>,
    /// How it answers, unless something nearer to the run says otherwise.
    pub effort: Effort,
    /// How long after the start of a run the mode `auto` is fast; a minute when absent.
    pub fast_auto: Option<Duration>,
}

/// A provider: models behind one HTTP endpoint.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// What the endpoint speaks.
    pub api: Api,
    /// Where it is, without a slash at the end.
    pub base_url: String,
    /// The key; local servers mostly ask for none.
    pub key: Option<SecretString>,
    /// What a user would change to give another key, for errors.
    pub key_origin: String,
    /// Whether the key goes into `Authorization` although the API has a header of its own.
    pub bearer: bool,
    /// Headers that every request carries.
    pub headers: Vec<(String, SecretString)>,
    /// The models that the configuration declares. Without any, every id is passed on.
    pub models: Vec<ModelRow>,
    /// The bounds in time.
    pub deadlines: Deadlines,
    /// When a request is repeated.
    pub retry: Retry,
    /// The command-line back end that runs its models instead.
    pub runtime: Option<String>,
    /// Why it cannot be used, a sentence; its models are listed as not available.
    pub problem: Option<String>,
}

impl ProviderSettings {
    /// A provider that needs no key, with default bounds.
    #[must_use]
    pub fn new(api: Api, base_url: impl Into<String>) -> Self {
        Self {
            api,
            base_url: base_url.into(),
            key: None,
            key_origin: "the key".to_owned(),
            bearer: false,
            headers: Vec::new(),
            models: Vec::new(),
            deadlines: Deadlines::default(),
            retry: Retry::default(),
            runtime: None,
            problem: None,
        }
    }
}

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Chat completions as OpenAI defined them: Ollama, vLLM, llama.cpp, OpenRouter and many more.
    OpenAiCompletions,
    /// The Messages API of Anthropic.
    AnthropicMessages,
}

/// A model that the configuration declares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelRow {
    /// Its id at the provider.
    pub id: String,
    /// Its name for people; the id when absent.
    pub name: Option<String>,
    /// The size of its context window in tokens, or what of it is to be used.
    pub context_window: Option<u64>,
    /// How many tokens an answer may have.
    pub max_tokens: Option<u64>,
    /// Its prices; without them no cost is told.
    pub prices: Option<Prices>,
    /// Whether it reasons before it answers; absent where nobody says it.
    pub reasoning: Option<bool>,
    /// The efforts that its endpoint takes, in the endpoint's words; absent where nobody says it.
    pub efforts: Option<Vec<String>>,
    /// Whether the endpoint refuses `stream_options`; the usage is not known then.
    pub no_usage: bool,
}

/// Prices in US dollars for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// Of tokens read.
    pub input: f64,
    /// Of tokens written.
    pub output: f64,
    /// Of tokens read from the cache.
    pub cache_read: f64,
    /// Of tokens written to the cache.
    pub cache_write: f64,
}

/// The bounds of a request in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// For silence: up to the first byte, and between two.
    pub idle: Duration,
    /// For the whole answer, repeats included.
    pub total: Duration,
}

impl Default for Deadlines {
    /// 10 seconds, two minutes, an hour. A run has a timeout of its own besides.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            total: Duration::from_secs(3600),
        }
    }
}

/// When a request is repeated. One whose answer has begun never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often at most.
    pub times: u32,
    /// The pause before the first repeat, where the provider names none; it doubles.
    pub pause: Duration,
    /// The longest pause that a provider may ask for; when it asks for more, the request fails at once.
    pub max_pause: Duration,
}

impl Default for Retry {
    /// Twice, after half a second and a second, and at most 30 seconds on a provider's wish.
    fn default() -> Self {
        Self { times: 2, pause: Duration::from_millis(500), max_pause: Duration::from_secs(30) }
    }
}

/// A command-line back end: one process per message.
#[derive(Debug, Clone)]
pub struct CliSettings {
    /// The program, a path or a name to look up in `PATH`.
    pub command: String,
    /// Its arguments, as they are. Others on the machine can read them: secrets belong into `env`.
    pub args: Vec<String>,
    /// How it takes the message.
    pub input: CliInput,
    /// What it writes.
    pub output: CliOutput,
    /// Variables of its environment, beside those of the gateway.
    pub env: Vec<(String, SecretString)>,
    /// Variables of the gateway's environment that it does not get.
    pub clear_env: Vec<String>,
    /// The flag before the model's name; without one the model is not told.
    pub model_arg: Option<String>,
    /// What the program calls models, by our ids.
    pub model_aliases: BTreeMap<String, String>,
    /// The flag before an addition to the system prompt; without one it stands before the message.
    pub system_prompt_arg: Option<String>,
    /// The arguments that say how much the model is to think, with `{level}` where the level stands; without any it is
    /// not told.
    pub thinking_args: Vec<String>,
    /// What the program calls levels of thinking, by our names.
    pub thinking_aliases: BTreeMap<String, String>,
    /// Variables of its environment when the model is not to think.
    pub env_without_thinking: Vec<(String, String)>,
    /// The longest message that goes into an argument, in bytes; longer ones go to standard input.
    pub max_prompt_arg_bytes: usize,
    /// How long it may write nothing.
    pub silence: Duration,
    /// Why it cannot be used, a sentence.
    pub problem: Option<String>,
}

impl CliSettings {
    /// A program that takes the message at its standard input and writes plain text.
    #[must_use]
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            args: Vec::new(),
            input: CliInput::Stdin,
            output: CliOutput::Text,
            env: Vec::new(),
            clear_env: Vec::new(),
            model_arg: None,
            model_aliases: BTreeMap::new(),
            system_prompt_arg: None,
            thinking_args: Vec::new(),
            thinking_aliases: BTreeMap::new(),
            env_without_thinking: Vec::new(),
            // A single argument may have 128 KiB on Linux.
            max_prompt_arg_bytes: 100_000,
            silence: Duration::from_secs(300),
            problem: None,
        }
    }

    /// Claude Code, one message per process, its answer streamed.
    #[must_use]
    pub fn claude() -> Self {
        Self {
            args: ["-p", "--output-format", "stream-json", "--include-partial-messages", "--verbose"]
                .map(str::to_owned)
                .to_vec(),
            output: CliOutput::JsonLines,
            // With a key in its environment it would not use its own login.
            clear_env: vec!["ANTHROPIC_API_KEY".to_owned()],
            model_arg: Some("--model".to_owned()),
            system_prompt_arg: Some("--append-system-prompt".to_owned()),
            thinking_args: vec!["--effort".to_owned(), "{level}".to_owned()],
            thinking_aliases: BTreeMap::from([("minimal".to_owned(), "low".to_owned())]),
            env_without_thinking: vec![("MAX_THINKING_TOKENS".to_owned(), "0".to_owned())],
            ..Self::new("claude")
        }
    }
}

/// How a command-line back end takes the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CliInput {
    /// At its standard input.
    Stdin,
    /// As its last argument.
    Argument,
}

/// What a command-line back end writes to its standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CliOutput {
    /// The answer.
    Text,
    /// One JSON document with the answer.
    Json,
    /// JSON lines with pieces of the answer, as `claude -p --output-format stream-json` writes them.
    JsonLines,
}
