//! What the configuration says of models: the sections `models`, `env`, and of `agents` what concerns models, in the
//! shape of stock; and what follows from it together with the environment.
//!
//! A provider that cannot be used, because a variable is missing say, does not stop the start: its models are listed as
//! not available, and a run with one is told why.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use openclaw_schema::methods::{models::ThinkingLevel, sessions::FastMode};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::{
    Config, ConfigError, Env, Source, Sourced, UnknownName,
    file::{Section, is_variable, substitute, substitute_secret, unknown_name},
};
use crate::{
    backend::settings::{
        Api, CliInput, CliOutput, CliSettings, Deadlines, Effort, ModelChoice, ModelEntry, ModelRow,
        ModelSettings, Prices, ProviderSettings,
    },
    logs::mask::mask,
};

/// A provider that needs no entry in the configuration.
struct BuiltIn {
    id: &'static str,
    api: Api,
    base_url: &'static str,
    /// The variable that holds its key, as in stock.
    variable: &'static str,
}

/// To add a provider: a line here, with the variable that its own tools use.
const BUILT_IN: [BuiltIn; 13] = [
    built_in("anthropic", Api::AnthropicMessages, "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    built_in("cerebras", Api::OpenAiCompletions, "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    built_in("deepseek", Api::OpenAiCompletions, "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    built_in("groq", Api::OpenAiCompletions, "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    built_in("lmstudio", Api::OpenAiCompletions, "http://127.0.0.1:1234/v1", "LM_API_TOKEN"),
    built_in("mistral", Api::OpenAiCompletions, "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    built_in("ollama", Api::OpenAiCompletions, "http://127.0.0.1:11434/v1", "OLLAMA_API_KEY"),
    built_in("openai", Api::OpenAiCompletions, "https://api.openai.com/v1", "OPENAI_API_KEY"),
    built_in("openrouter", Api::OpenAiCompletions, "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    built_in("sglang", Api::OpenAiCompletions, "http://127.0.0.1:30000/v1", "SGLANG_API_KEY"),
    built_in("together", Api::OpenAiCompletions, "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    built_in("vllm", Api::OpenAiCompletions, "http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
    built_in("xai", Api::OpenAiCompletions, "https://api.x.ai/v1", "XAI_API_KEY"),
];

const fn built_in(id: &'static str, api: Api, base_url: &'static str, variable: &'static str) -> BuiltIn {
    BuiltIn { id, api, base_url, variable }
}

/// The APIs of stock.
const APIS: &[&str] = &[
    "openai-completions",
    "anthropic-messages",
    "openai-responses",
    "ollama",
    "openai-chatgpt-responses",
    "azure-openai-responses",
    "google-generative-ai",
    "google-vertex",
    "github-copilot",
    "bedrock-converse-stream",
    "pi-messages",
];

/// The command-line back end that is there without an entry.
const CLAUDE: &str = "claude-cli";

/// What the configuration says of models, as it is written there.
#[derive(Debug, Default)]
pub struct Models {
    providers: Vec<Provider>,
    clis: Vec<Cli>,
    default: Choice,
    agents: Vec<(String, Choice)>,
    effort: Effort,
    agent_efforts: Vec<(String, Effort)>,
    entries: Vec<Entry>,
    /// The section `env`: variables that stand in for those that the environment lacks.
    env: Vec<(String, String)>,
}

#[derive(Debug)]
struct Provider {
    id: String,
    /// Its place in the file.
    source: Source,
    base_url: Option<Sourced<String>>,
    api: Option<Sourced<String>>,
    key: Option<Sourced<SecretString>>,
    /// Whether the key is where this gateway does not look.
    has_foreign_key: bool,
    bearer: bool,
    headers: Vec<(String, Sourced<SecretString>)>,
    timeout: Option<u64>,
    max_tokens: Option<u64>,
    runtime: Option<String>,
    models: Vec<ModelRow>,
}

#[derive(Debug)]
struct Cli {
    id: String,
    command: Option<Sourced<String>>,
    args: Option<Vec<Sourced<String>>>,
    input: Option<CliInput>,
    output: Option<CliOutput>,
    env: Vec<(String, Sourced<SecretString>)>,
    clear_env: Option<Vec<String>>,
    model_arg: Option<String>,
    model_aliases: BTreeMap<String, String>,
    system_prompt_arg: Option<String>,
    thinking_args: Option<Vec<Sourced<String>>>,
    thinking_aliases: BTreeMap<String, String>,
    max_prompt_arg_bytes: Option<u64>,
    silence_ms: Option<u64>,
    source: Source,
}

#[derive(Debug, Default)]
struct Choice {
    primary: Option<Sourced<String>>,
    fallbacks: Vec<Sourced<String>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    alias: Option<String>,
    runtime: Option<String>,
    params: Map<String, Value>,
    effort: Effort,
    fast_auto: Option<u64>,
}

/// Reads what the root of the file says of models.
pub(super) fn read(root: &Section<'_>, warnings: &mut Vec<String>) -> Result<Models, ConfigError> {
    let models = root.section("models")?;
    models.check_keys(&["providers"], &["mode", "bedrockDiscovery", "pricing"], warnings)?;
    let providers = models.section("providers")?;
    let agents = root.section("agents")?;
    let defaults = agents.section("defaults")?;
    let entries = agents.section("entries")?;
    let clis = defaults.section("cliBackends")?;
    let named = defaults.section("models")?;
    let (mut own, mut agent_efforts) = (Vec::new(), Vec::new());
    for id in entries.keys() {
        let entry = entries.section(id)?;
        if entry.get("model").is_some() {
            own.push((id.clone(), choice(&entry)?));
        }
        agent_efforts.push((id.clone(), effort(&entry, "thinkingDefault", &["fastModeDefault"])?));
    }
    Ok(Models {
        providers: providers.keys().map(|id| provider(&providers, id, warnings)).collect::<Result<_, _>>()?,
        clis: clis.keys().map(|id| cli(&clis, id, warnings)).collect::<Result<_, _>>()?,
        default: choice(&defaults)?,
        agents: own,
        effort: effort(&defaults, "thinkingDefault", &["fastModeDefault"])?,
        agent_efforts,
        entries: named.keys().map(|name| entry(&named, name)).collect::<Result<_, _>>()?,
        env: variables(&root.section("env")?)?,
    })
}

fn choice(section: &Section<'_>) -> Result<Choice, ConfigError> {
    match section.get("model") {
        Some(Value::Object(_)) => {
            let model = section.section("model")?;
            Ok(Choice {
                primary: model.text("primary")?,
                fallbacks: model.texts("fallbacks")?.unwrap_or_default(),
            })
        }
        _ => Ok(Choice { primary: section.text("model")?, fallbacks: Vec::new() }),
    }
}

fn entry(named: &Section<'_>, name: &str) -> Result<Entry, ConfigError> {
    let entry = named.section(name)?;
    let params = entry.section("params")?;
    Ok(Entry {
        name: name.to_owned(),
        alias: entry.text("alias")?.map(|alias| alias.value),
        runtime: runtime(&entry)?,
        effort: effort(&params, "thinking", &["fastMode", "fast_mode"])?,
        fast_auto: params.integer("fastAutoOnSeconds", 0..=u64::MAX)?.map(|seconds| seconds.value),
        params: params.keys().filter_map(|key| Some((key.clone(), params.get(key)?.clone()))).collect(),
    })
}

/// How models answer, from the key for thinking and those for the fast mode.
fn effort(section: &Section<'_>, thinking: &str, fast_modes: &[&str]) -> Result<Effort, ConfigError> {
    let refused = |key: &str, problem: String| ConfigError::BadValue {
        origin: section.source(key),
        problem,
        nearest: None,
    };
    let level = match section.get(thinking) {
        None | Some(Value::Null) => None,
        Some(Value::Bool(false)) => Some(ThinkingLevel::Off),
        Some(Value::String(text)) if text == "default" => None,
        Some(Value::String(text)) => {
            Some(text.parse().map_err(|error| refused(thinking, format!("{error}")))?)
        }
        Some(_) => return Err(refused(thinking, "must be a level of thinking such as \"high\"".to_owned())),
    };
    let mut fast_mode = None;
    for key in fast_modes {
        let mode = match section.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(FastMode::Flag(*flag)),
            Some(Value::String(word)) if word == "on" => Some(FastMode::Flag(true)),
            Some(Value::String(word)) if word == "off" => Some(FastMode::Flag(false)),
            Some(Value::String(word)) if word == "auto" => Some(FastMode::WORD),
            Some(_) => return Err(refused(key, "must be true, false or \"auto\"".to_owned())),
        };
        fast_mode = fast_mode.or(mode);
    }
    Ok(Effort { thinking: level, fast_mode })
}

/// The command-line back end that `agentRuntime` names; stock's names of its own runtime mean none.
fn runtime(section: &Section<'_>) -> Result<Option<String>, ConfigError> {
    let id = section.section("agentRuntime")?.text("id")?.map(|id| id.value);
    Ok(id.filter(|id| !matches!(id.as_str(), "auto" | "openclaw" | "pi")))
}

fn variables(section: &Section<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for section in [section, &section.section("vars")?] {
        for name in section.keys() {
            if let Some(Value::String(value)) = section.get(name) {
                variables.push((name.clone(), value.clone()));
            }
        }
    }
    Ok(variables)
}

fn provider(providers: &Section<'_>, id: &str, warnings: &mut Vec<String>) -> Result<Provider, ConfigError> {
    let source = providers.source(id);
    if id.is_empty() || id.contains('/') {
        return Err(ConfigError::BadValue {
            origin: source,
            problem: "must have an id without a slash".to_owned(),
            nearest: None,
        });
    }
    let section = providers.section(id)?;
    section.check_keys(
        &[
            "baseUrl",
            "apiKey",
            "api",
            "headers",
            "models",
            "timeoutSeconds",
            "maxTokens",
            "authHeader",
            "auth",
            "agentRuntime",
        ],
        &["request", "params", "localService", "injectNumCtxForOpenAICompat", "region", "contextWindow"],
        warnings,
    )?;
    let has_foreign_key = section
        .get("apiKey")
        .and_then(Value::as_object)
        .and_then(|reference| reference.get("source"))
        .is_some_and(|source| source != "env");
    let api = section.text("api")?;
    if let Some(api) = &api
        && !APIS.contains(&api.value.as_str())
    {
        let unknown = UnknownName { given: api.value.clone(), allowed: APIS };
        return Err(unknown_name(&unknown, api.source.clone()));
    }
    let headers = section.section("headers")?;
    let mut told = Vec::new();
    for name in headers.keys() {
        if let Some(value) = headers.secret(name)? {
            told.push((name.clone(), value));
        }
    }
    let is_token = section.text("auth")?.is_some_and(|auth| auth.value == "token");
    let bearer = section.boolean("authHeader")?.map_or(is_token, |bearer| bearer.value);
    let rows = section.sections("models")?;
    Ok(Provider {
        id: id.to_owned(),
        source,
        base_url: section.text("baseUrl")?,
        api,
        key: if has_foreign_key { None } else { section.secret("apiKey")? },
        has_foreign_key,
        bearer,
        headers: told,
        timeout: section.integer("timeoutSeconds", 1..=u64::MAX)?.map(|timeout| timeout.value),
        max_tokens: section.integer("maxTokens", 1..=u64::MAX)?.map(|max| max.value),
        runtime: runtime(&section)?,
        models: rows.iter().map(|row| model_row(row, warnings)).collect::<Result<_, _>>()?,
    })
}

fn model_row(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<ModelRow, ConfigError> {
    section.check_keys(
        &["id", "name", "contextWindow", "contextTokens", "maxTokens", "cost", "reasoning", "compat"],
        &[
            "input",
            "api",
            "headers",
            "params",
            "thinkingLevelMap",
            "agentRuntime",
            "status",
            "metadataSource",
        ],
        warnings,
    )?;
    let Some(id) = section.text("id")? else {
        return Err(ConfigError::BadValue {
            origin: section.source("id"),
            problem: "is missing: every model needs the id that its provider knows it by".to_owned(),
            nearest: None,
        });
    };
    let number = |name| Ok::<_, ConfigError>(section.integer(name, 1..=u64::MAX)?.map(|number| number.value));
    let cost = section.section("cost")?;
    let price = |name| Ok::<_, ConfigError>(cost.amount(name)?.unwrap_or(0.0));
    let prices = match section.get("cost") {
        Some(_) => Some(Prices {
            input: price("input")?,
            output: price("output")?,
            cache_read: price("cacheRead")?,
            cache_write: price("cacheWrite")?,
        }),
        None => None,
    };
    let compat = section.section("compat")?;
    let gives_usage = compat.boolean("supportsUsageInStreaming")?;
    let efforts = match compat.boolean("supportsReasoningEffort")? {
        Some(supports) if !supports.value => Some(Vec::new()),
        _ => compat
            .texts("supportedReasoningEfforts")?
            .map(|efforts| efforts.into_iter().map(|effort| effort.value).collect()),
    };
    Ok(ModelRow {
        id: id.value,
        name: section.text("name")?.map(|name| name.value),
        context_window: match number("contextTokens")? {
            Some(tokens) => Some(tokens),
            None => number("contextWindow")?,
        },
        max_tokens: number("maxTokens")?,
        prices,
        // As in stock: a model that is declared reasons where that is declared too.
        reasoning: Some(section.boolean("reasoning")?.is_some_and(|reasoning| reasoning.value)),
        efforts,
        no_usage: gives_usage.is_some_and(|gives| !gives.value),
    })
}

fn cli(clis: &Section<'_>, id: &str, warnings: &mut Vec<String>) -> Result<Cli, ConfigError> {
    let section = clis.section(id)?;
    section.check_keys(
        &[
            "command",
            "args",
            "input",
            "output",
            "env",
            "clearEnv",
            "modelArg",
            "modelAliases",
            "systemPromptArg",
            "thinkingArgs",
            "thinkingAliases",
            "maxPromptArgChars",
            "reliability",
        ],
        &[
            "resumeArgs",
            "resumeOutput",
            "jsonlDialect",
            "liveSession",
            "sessionArg",
            "sessionArgs",
            "sessionMode",
            "sessionIdFields",
            "systemPromptFileArg",
            "systemPromptMode",
            "systemPromptWhen",
            "imageArg",
            "imageMode",
            "imagePathScope",
            "serialize",
        ],
        warnings,
    )?;
    let env = section.section("env")?;
    let mut variables = Vec::new();
    for name in env.keys() {
        if let Some(value) = env.secret(name)? {
            variables.push((name.clone(), value));
        }
    }
    let aliases = |key| {
        let aliases = section.section(key)?;
        let mut names = BTreeMap::new();
        for alias in aliases.keys() {
            if let Some(name) = aliases.text(alias)? {
                names.insert(alias.clone(), name.value);
            }
        }
        Ok::<_, ConfigError>(names)
    };
    let (model_aliases, thinking_aliases) = (aliases("modelAliases")?, aliases("thinkingAliases")?);
    let thinking_args = section.texts("thinkingArgs")?;
    if let Some(args) = &thinking_args
        && !args.is_empty()
        && !args.iter().any(|arg| arg.value.contains("{level}"))
    {
        return Err(ConfigError::BadValue {
            origin: section.source("thinkingArgs"),
            problem: "must hold `{level}` where the level of thinking stands".to_owned(),
            nearest: None,
        });
    }
    let one_of = |name, allowed: &'static [&'static str]| {
        let Some(text) = section.text(name)? else { return Ok(None) };
        match allowed.iter().position(|allowed| *allowed == text.value) {
            Some(index) => Ok(Some(index)),
            None => Err(unknown_name(&UnknownName { given: text.value, allowed }, text.source)),
        }
    };
    let text = |name| Ok::<_, ConfigError>(section.text(name)?.map(|text| text.value));
    let watchdog = section.section("reliability")?.section("watchdog")?;
    let args = section.texts("args")?;
    for arg in args.iter().flatten().filter(|arg| mask(arg.value.clone()) != arg.value) {
        warnings.push(format!(
            "{} looks like a secret, and others on this machine can read the arguments of a process: put it into env",
            arg.source
        ));
    }
    Ok(Cli {
        id: id.to_owned(),
        command: section.text("command")?,
        args,
        input: one_of("input", &["stdin", "arg"])?.map(|index| [CliInput::Stdin, CliInput::Argument][index]),
        output: one_of("output", &["text", "json", "jsonl"])?
            .map(|index| [CliOutput::Text, CliOutput::Json, CliOutput::JsonLines][index]),
        env: variables,
        clear_env: section.texts("clearEnv")?.map(|names| names.into_iter().map(|name| name.value).collect()),
        model_arg: text("modelArg")?,
        model_aliases,
        system_prompt_arg: text("systemPromptArg")?,
        thinking_args,
        thinking_aliases,
        max_prompt_arg_bytes: section.integer("maxPromptArgChars", 0..=u64::MAX)?.map(|max| max.value),
        silence_ms: watchdog
            .section("fresh")?
            .integer("noOutputTimeoutMs", 1..=u64::MAX)?
            .map(|silence| silence.value),
        source: clis.source(id),
    })
}

/// What answers runs, from the file and the environment.
pub(super) fn resolve_models(
    config: &Config,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<ModelSettings, ConfigError> {
    let models = &config.models;
    let env = env.with_defaults(models.env.iter().map(|(name, value)| (name.into(), value.into())));
    let resolved = |choice: &Choice| {
        Ok::<_, ConfigError>(ModelChoice {
            primary: choice
                .primary
                .as_ref()
                .map(|name| substitute(name, &env))
                .transpose()?
                .map(|name| name.value),
            fallbacks: choice
                .fallbacks
                .iter()
                .map(|name| Ok(substitute(name, &env)?.value))
                .collect::<Result<_, ConfigError>>()?,
        })
    };
    let mut settings = ModelSettings {
        default: resolved(&models.default)?,
        entries: models
            .entries
            .iter()
            .map(|entry| {
                let resolved = ModelEntry {
                    alias: entry.alias.clone(),
                    runtime: entry.runtime.clone(),
                    params: entry.params.clone(),
                    effort: entry.effort,
                    fast_auto: entry.fast_auto.map(Duration::from_secs),
                };
                (entry.name.clone(), resolved)
            })
            .collect(),
        effort: models.effort,
        agent_efforts: models.agent_efforts.iter().cloned().collect(),
        ..ModelSettings::default()
    };
    for (id, choice) in &models.agents {
        settings.agents.insert(id.clone(), resolved(choice)?);
    }
    for provider in &models.providers {
        let resolved = resolve_provider(provider, &env)?;
        if let Some(problem) = &resolved.problem {
            warnings.push(problem.clone());
        }
        settings.providers.insert(provider.id.clone(), resolved);
    }
    let named = referenced(&settings);
    for built_in in &BUILT_IN {
        let key = text(&env, built_in.variable);
        let is_named = named.iter().any(|provider| provider == built_in.id);
        if settings.providers.contains_key(built_in.id) || (key.is_none() && !is_named) {
            continue;
        }
        let mut provider = ProviderSettings::new(built_in.api, built_in.base_url);
        provider.key = key;
        complete(&mut provider, built_in.id, Some(built_in));
        if let Some(problem) = provider.problem.as_ref().filter(|_| is_named) {
            warnings.push(problem.clone());
        }
        settings.providers.insert(built_in.id.to_owned(), provider);
    }
    for cli in &models.clis {
        let resolved = resolve_cli(cli, &env)?;
        if let Some(problem) = &resolved.problem {
            warnings.push(problem.clone());
        }
        settings.clis.insert(cli.id.clone(), resolved);
    }
    let runtimes = settings.entries.values().filter_map(|entry| entry.runtime.as_deref());
    let runtimes =
        runtimes.chain(settings.providers.values().filter_map(|provider| provider.runtime.as_deref()));
    let wants_claude = named.iter().map(String::as_str).chain(runtimes).any(|name| name == CLAUDE);
    if wants_claude && !settings.clis.contains_key(CLAUDE) {
        settings.clis.insert(CLAUDE.to_owned(), CliSettings::claude());
    }
    if let Some(primary) = &models.default.primary
        && let Some((provider, _)) = primary.value.split_once('/')
        && !settings.providers.contains_key(provider)
        && !settings.clis.contains_key(provider)
        && provider != "echo"
    {
        warnings.push(format!(
            "{} names the provider `{provider}`, which is not configured: add models.providers.{provider} with its \
             baseUrl",
            primary.source
        ));
    }
    Ok(settings)
}

/// The providers that choices and entries name.
fn referenced(settings: &ModelSettings) -> Vec<String> {
    let choices = std::iter::once(&settings.default).chain(settings.agents.values());
    let names = choices.flat_map(|choice| choice.primary.iter().chain(&choice.fallbacks));
    names.chain(settings.entries.keys()).filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect()
}

fn resolve_provider(provider: &Provider, env: &Env) -> Result<ProviderSettings, ConfigError> {
    let built_in = BUILT_IN.iter().find(|built_in| built_in.id == provider.id);
    let mut problem = None;
    let mut note = |sentence: String| {
        problem.get_or_insert(format!("provider `{}` cannot be used: {sentence}", provider.id));
    };
    let base_url = match &provider.base_url {
        Some(url) => match substitute(url, env) {
            Ok(url) => {
                ensure_url(&url)?;
                url.value
            }
            Err(missing) => {
                note(missing.to_string());
                String::new()
            }
        },
        None => match built_in {
            Some(built_in) => built_in.base_url.to_owned(),
            None => {
                let origin = match &provider.source {
                    Source::File { path, key } => {
                        Source::File { path: path.clone(), key: format!("{key}.baseUrl") }
                    }
                    source => source.clone(),
                };
                return Err(ConfigError::BadValue {
                    origin,
                    problem: "is missing: say where the provider is, such as \"http://127.0.0.1:8000/v1\""
                        .to_owned(),
                    nearest: None,
                });
            }
        },
    };
    let mut base_url = base_url.trim_end_matches('/').to_owned();
    let api = match provider.api.as_ref().map(|api| api.value.as_str()) {
        None => built_in.map_or(Api::OpenAiCompletions, |built_in| built_in.api),
        // An endpoint with the later API has the earlier one too.
        Some("openai-completions" | "openai-responses") => Api::OpenAiCompletions,
        Some("anthropic-messages") => Api::AnthropicMessages,
        Some("ollama") => {
            // Its own API is spoken at the root, the common one below.
            if !base_url.is_empty() && !base_url.ends_with("/v1") {
                base_url.push_str("/v1");
            }
            Api::OpenAiCompletions
        }
        Some(other) => {
            note(format!(
                "this gateway does not speak \"{other}\"; it speaks \"openai-completions\" and \"anthropic-messages\""
            ));
            Api::OpenAiCompletions
        }
    };
    let mut settings = ProviderSettings::new(api, base_url);
    match provider.key.as_ref().map(|key| substitute_secret(key, env)) {
        None => settings.key = built_in.and_then(|built_in| text(env, built_in.variable)),
        Some(Ok(key)) => {
            // Stock also writes the bare name of a variable.
            let name = key.value.expose_secret();
            let variable = if is_variable(name) && name.contains('_') { text(env, name) } else { None };
            settings.key = Some(variable.unwrap_or(key.value));
        }
        Some(Err(missing)) => note(missing.to_string()),
    }
    if provider.has_foreign_key {
        note(
            "its apiKey is kept where this gateway does not read; give a text or an environment variable"
                .to_owned(),
        );
    }
    for (name, value) in &provider.headers {
        match substitute_secret(value, env) {
            Ok(value) => settings.headers.push((name.clone(), value.value)),
            Err(missing) => note(missing.to_string()),
        }
    }
    settings.bearer = provider.bearer;
    settings.models.clone_from(&provider.models);
    for row in &mut settings.models {
        row.max_tokens = row.max_tokens.or(provider.max_tokens);
    }
    if let Some(seconds) = provider.timeout {
        let timeout = Duration::from_secs(seconds);
        let connect = settings.deadlines.connect.min(timeout);
        settings.deadlines = Deadlines { connect, idle: timeout, total: timeout };
    }
    settings.runtime.clone_from(&provider.runtime);
    settings.problem = problem;
    complete(&mut settings, &provider.id, built_in);
    Ok(settings)
}

/// Adds what a user would change to give another key, and the problem of a provider of the net that has none.
fn complete(settings: &mut ProviderSettings, id: &str, built_in: Option<&BuiltIn>) {
    let key = format!("models.providers.{id}.apiKey");
    settings.key_origin = match built_in {
        Some(built_in) => format!("{} or {key}", built_in.variable),
        None => key,
    };
    let is_official = built_in.is_some_and(|built_in| {
        built_in.base_url.starts_with("https://") && settings.base_url == built_in.base_url
    });
    if is_official && settings.key.is_none() && settings.headers.is_empty() {
        let origin = &settings.key_origin;
        let problem = || format!("provider `{id}` cannot be used: it has no key; set {origin}");
        settings.problem.get_or_insert_with(problem);
    }
}

fn ensure_url(url: &Sourced<String>) -> Result<(), ConfigError> {
    let problem = match Url::parse(&url.value) {
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() => {
            "must be an address with http:// or https://"
        }
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
            "must hold no user name and no password: use apiKey or headers"
        }
        Ok(_) => return Ok(()),
        Err(_) => "must be an address such as \"http://127.0.0.1:8000/v1\"",
    };
    // The value is not shown: it may hold a secret.
    Err(ConfigError::BadValue { origin: url.source.clone(), problem: problem.to_owned(), nearest: None })
}

fn resolve_cli(cli: &Cli, env: &Env) -> Result<CliSettings, ConfigError> {
    let mut settings = match (&cli.command, cli.id.as_str()) {
        (Some(command), CLAUDE) => CliSettings { command: command.value.clone(), ..CliSettings::claude() },
        (None, CLAUDE) => CliSettings::claude(),
        (Some(command), _) => CliSettings::new(command.value.clone()),
        (None, _) => {
            return Err(ConfigError::BadValue {
                origin: cli.source.clone(),
                problem: "must have a `command`, the program to run".to_owned(),
                nearest: None,
            });
        }
    };
    if let Some(args) = &cli.args {
        settings.args = args.iter().map(|arg| arg.value.clone()).collect();
    }
    settings.input = cli.input.unwrap_or(settings.input);
    settings.output = cli.output.unwrap_or(settings.output);
    for (name, value) in &cli.env {
        match substitute_secret(value, env) {
            Ok(value) => settings.env.push((name.clone(), value.value)),
            Err(missing) => {
                let problem = format!("the command-line back end `{}` cannot be used: {missing}", cli.id);
                settings.problem.get_or_insert(problem);
            }
        }
    }
    if let Some(names) = &cli.clear_env {
        settings.clear_env.clone_from(names);
    }
    settings.model_arg = cli.model_arg.clone().or(settings.model_arg);
    settings.model_aliases.extend(cli.model_aliases.clone());
    if let Some(args) = &cli.thinking_args {
        settings.thinking_args = args.iter().map(|arg| arg.value.clone()).collect();
    }
    settings.thinking_aliases.extend(cli.thinking_aliases.clone());
    settings.system_prompt_arg = cli.system_prompt_arg.clone().or(settings.system_prompt_arg);
    if let Some(max) = cli.max_prompt_arg_bytes {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        settings.max_prompt_arg_bytes = max.min(settings.max_prompt_arg_bytes);
    }
    if let Some(silence) = cli.silence_ms {
        settings.silence = Duration::from_millis(silence);
    }
    Ok(settings)
}

fn text(env: &Env, name: &str) -> Option<SecretString> {
    env.os(name).and_then(|value| value.to_str()).map(SecretString::from)
}

impl Env {
    /// This environment, and `variables` where it lacks them.
    fn with_defaults(&self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut all = self.clone();
        for (name, value) in variables {
            all.set_default(name, value);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn resolve(text: &str, env: &[(&str, &str)]) -> Result<(ModelSettings, Vec<String>), ConfigError> {
        let config = Config::parse(text, Path::new("/state/openclaw.json"))?;
        let mut warnings = config.warnings.clone();
        let settings = resolve_models(&config, &env.iter().copied().collect(), &mut warnings)?;
        Ok((settings, warnings))
    }

    fn settings(text: &str, env: &[(&str, &str)]) -> ModelSettings {
        resolve(text, env).expect("it resolves").0
    }

    fn refused(text: &str) -> String {
        resolve(text, &[]).expect_err("it is refused").to_string()
    }

    fn key(provider: &ProviderSettings) -> Option<&str> {
        provider.key.as_ref().map(ExposeSecret::expose_secret)
    }

    #[test]
    fn a_provider_is_read_as_stock_writes_it() {
        let text = r#"{
            agents: { defaults: { model: { primary: "local/m", fallbacks: ["other/x"] },
                                  models: { "local/m": { alias: "loc", params: { temperature: 0 } } } } },
            models: { mode: "merge", providers: { local: {
                baseUrl: "http://127.0.0.1:8000/v1/", apiKey: "${KEY}", api: "openai-completions",
                timeoutSeconds: 300, headers: { "x-tenant": "t" },
                models: [{ id: "m", name: "M", reasoning: false, input: ["text"], contextWindow: 120000,
                           contextTokens: 96000, maxTokens: 8192,
                           cost: { input: 1, output: 2.5, cacheRead: 0, cacheWrite: 0 } }] } } } }"#;
        let settings = settings(text, &[("KEY", "hush")]);
        let local = &settings.providers["local"];
        assert_eq!((local.base_url.as_str(), key(local)), ("http://127.0.0.1:8000/v1", Some("hush")));
        assert_eq!(local.deadlines.idle, Duration::from_secs(300));
        assert_eq!(local.models[0].context_window, Some(96000));
        assert_eq!(local.models[0].prices.expect("there are prices").output, 2.5);
        assert_eq!(settings.default.fallbacks, ["other/x"]);
        assert_eq!(settings.entries["local/m"].alias.as_deref(), Some("loc"));
        assert_eq!(local.problem, None);
    }

    #[test]
    fn a_key_is_a_text_a_reference_or_the_name_of_a_variable() {
        let env = [("MY_KEY", "hush")];
        for (given, used) in [
            ("\"plain\"", "plain"),
            ("\"${MY_KEY}\"", "hush"),
            ("\"MY_KEY\"", "hush"),
            ("{ source: \"env\", id: \"MY_KEY\" }", "hush"),
            ("\"OTHER_KEY\"", "OTHER_KEY"),
        ] {
            let text = format!(
                "{{ models: {{ providers: {{ a: {{ baseUrl: \"http://h/v1\", apiKey: {given} }} }} }} }}"
            );
            assert_eq!(key(&settings(&text, &env).providers["a"]), Some(used), "{given}");
        }
    }

    #[test]
    fn what_cannot_be_used_says_why_and_does_not_stop_the_start() {
        for (provider, part) in [
            (r#"{ baseUrl: "http://h", apiKey: "${NOWHERE}" }"#, "NOWHERE"),
            (r#"{ baseUrl: "${NOWHERE}" }"#, "NOWHERE"),
            (r#"{ baseUrl: "http://h", api: "google-vertex" }"#, "google-vertex"),
            (r#"{ baseUrl: "http://h", apiKey: { source: "file", id: "x" } }"#, "apiKey"),
        ] {
            let text = format!("{{ models: {{ providers: {{ a: {provider} }} }} }}");
            let (settings, warnings) = resolve(&text, &[]).expect("the start goes on");
            let problem = settings.providers["a"].problem.clone().expect("there is a problem");
            assert!(problem.contains(part), "{problem}");
            assert!(warnings.contains(&problem));
        }
    }

    #[test]
    fn what_is_wrong_names_the_key() {
        for (text, part) in [
            (r#"{ models: { providers: { a: { baseURL: "http://h" } } } }"#, "did you mean `baseUrl`"),
            (r#"{ models: { providers: { a: {} } } }"#, "models.providers.a.baseUrl"),
            (r#"{ models: { providers: { a: { baseUrl: "h:1" } } } }"#, "models.providers.a.baseUrl"),
            (r#"{ models: { providers: { a: { baseUrl: "http://u:hush@h" } } } }"#, "no password"),
            (
                r#"{ models: { providers: { a: { baseUrl: "http://h", api: "openai-completion" } } } }"#,
                "did you mean `openai-completions`",
            ),
            (r#"{ models: { providers: { a: { baseUrl: "http://h", models: [{}] } } } }"#, "models.0.id"),
            (
                r#"{ models: { providers: { a: { baseUrl: "http://h", models: [{ id: "m", cost: { input: -1 } }] } } } }"#,
                "models.0.cost.input",
            ),
            (r#"{ agents: { defaults: { cliBackends: { x: {} } } } }"#, "cliBackends.x"),
            (
                r#"{ agents: { defaults: { cliBackends: { x: { command: "x", output: "jsnl" } } } } }"#,
                "did you mean `jsonl`",
            ),
            (r#"{ agents: { defaults: { model: { fallbacks: "x" } } } }"#, "agents.defaults.model.fallbacks"),
            (r#"{ agents: { defaults: { thinkingDefault: "hard" } } }"#, "agents.defaults.thinkingDefault"),
            (
                r#"{ agents: { defaults: { cliBackends: { x: { command: "x", thinkingArgs: ["-e"] } } } } }"#,
                "{level}",
            ),
        ] {
            let message = refused(text);
            assert!(message.contains(part) && !message.contains("hush"), "{message}");
        }
    }

    #[test]
    fn providers_of_the_net_are_there_with_their_variable() {
        assert!(settings("{}", &[]).providers.is_empty());
        let found = settings("{}", &[("OPENAI_API_KEY", "hush")]);
        assert_eq!(found.providers.keys().collect::<Vec<_>>(), ["openai"]);
        assert_eq!(found.default.primary, None);
        let (named, warnings) = resolve(r#"{ agents: { defaults: { model: "anthropic/claude-x" } } }"#, &[])
            .expect("it resolves");
        let problem = named.providers["anthropic"].problem.as_deref().expect("it has no key");
        assert!(problem.contains("ANTHROPIC_API_KEY"), "{problem}");
        assert!(warnings.iter().any(|warning| warning == problem));
        let filed = settings(r#"{ env: { vars: { GROQ_API_KEY: "hush" } } }"#, &[]);
        assert_eq!(key(&filed.providers["groq"]), Some("hush"));
        let ollama = settings(r#"{ agents: { defaults: { model: "ollama/llama3.3" } } }"#, &[]);
        assert_eq!(ollama.providers["ollama"].problem, None);
    }

    #[test]
    fn an_ollama_endpoint_of_stock_is_spoken_to_at_the_common_api() {
        let text = r#"{ models: { providers: { ollama: { baseUrl: "http://h:11434", api: "ollama" } } } }"#;
        assert_eq!(settings(text, &[]).providers["ollama"].base_url, "http://h:11434/v1");
    }

    #[test]
    fn how_much_models_think_is_said_of_all_of_agents_and_of_single_models() {
        let settings = settings(
            r#"{
            agents: {
                defaults: { thinkingDefault: "low", fastModeDefault: "auto", models: { "a/m": {
                    params: { thinking: "x-high", fastMode: true, fastAutoOnSeconds: 5 } } },
                    cliBackends: { x: { command: "x", thinkingArgs: ["-e", "{level}"],
                                        thinkingAliases: { max: "ultra" } } } },
                entries: { work: { thinkingDefault: false } } },
            models: { providers: { a: { baseUrl: "http://h", models: [
                { id: "m", reasoning: true, compat: { supportedReasoningEfforts: ["low", "xhigh"] } },
                { id: "n", compat: { supportsReasoningEffort: false } }] } } } }"#,
            &[],
        );
        let effort = |thinking, fast_mode| Effort { thinking, fast_mode };
        assert_eq!(settings.effort, effort(Some(ThinkingLevel::Low), Some(FastMode::WORD)));
        assert_eq!(settings.agent_efforts["work"], effort(Some(ThinkingLevel::Off), None));
        let entry = &settings.entries["a/m"];
        assert_eq!(entry.effort, effort(Some(ThinkingLevel::Xhigh), Some(FastMode::Flag(true))));
        assert_eq!(entry.fast_auto, Some(Duration::from_secs(5)));
        let rows = &settings.providers["a"].models;
        assert_eq!(rows[0].efforts.as_deref(), Some(&["low".to_owned(), "xhigh".to_owned()][..]));
        assert_eq!((rows[1].efforts.as_deref(), rows[1].reasoning), (Some(&[][..]), Some(false)));
        assert_eq!(settings.clis["x"].thinking_aliases["max"], "ultra");
    }

    #[test]
    fn a_command_line_is_there_when_it_is_named() {
        for text in [
            r#"{ agents: { defaults: { model: "claude-cli/sonnet" } } }"#,
            r#"{ agents: { defaults: { models: { "anthropic/x": { agentRuntime: { id: "claude-cli" } } } } } }"#,
        ] {
            assert_eq!(settings(text, &[]).clis["claude-cli"].command, "claude");
        }
        let text = r#"{ agents: { defaults: { cliBackends: {
            "claude-cli": { command: "/opt/claude", env: { TOKEN: "${T}" } },
            "mine": { command: "mine", args: ["--go"], input: "arg", output: "text" } } } } }"#;
        let settings = settings(text, &[("T", "hush")]);
        let claude = &settings.clis["claude-cli"];
        assert_eq!((claude.command.as_str(), claude.output), ("/opt/claude", CliOutput::JsonLines));
        assert_eq!(claude.env[0].1.expose_secret(), "hush");
        assert_eq!(settings.clis["mine"].input, CliInput::Argument);
    }

    #[test]
    fn a_default_model_without_a_provider_is_told_at_the_start() {
        let (_, warnings) =
            resolve(r#"{ agents: { defaults: { model: "acme/m" } } }"#, &[]).expect("it resolves");
        assert!(warnings.iter().any(|warning| warning.contains("models.providers.acme")), "{warnings:?}");
    }
}
