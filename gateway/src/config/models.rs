//! What the configuration says of models: the sections `models`, `env`, and of `agents` what concerns models, in the
//! shape of stock; and what follows from it together with the environment.
//!
//! A provider that cannot be used, because a variable is missing say, does not stop the start: its models are listed as
//! not available, and a run with one is told why.

use std::time::Duration;

use openclaw_schema::{
    config::{
        self, Agents, CliBackend, CliInputMode, CliOutputMode, FastAnswers, Models, Provider, ProviderKey,
        Thinking, is_variable,
    },
    types::Bounded,
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Config, ConfigError, Env, Source, Sourced, UnknownName,
    file::{bad_value, substitute, substitute_secret, unknown_name},
    reader::Fault,
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

/// What the types do not say of models.
pub(super) fn check(models: &Models, agents: &Agents, warnings: &mut Vec<String>) -> Result<(), Box<Fault>> {
    for (id, provider) in &models.providers {
        let path = ["models", "providers", id.as_str()];
        if id.is_empty() || id.contains('/') {
            return Err(bad_value(&path, provider.source.clone(), "must have an id without a slash"));
        }
        if let Some(api) = provider.value.api.as_ref().filter(|api| !APIS.contains(&api.value.as_str())) {
            let unknown = UnknownName { given: api.value.clone(), allowed: APIS };
            let path = ["models", "providers", id, "api"].map(str::to_owned).to_vec();
            return Err(Box::new(Fault { path, error: unknown_name(&unknown, api.source.clone()) }));
        }
        for (index, row) in provider.value.models.iter().enumerate() {
            if row.value.id.is_none() {
                let index = format!("[{index}]");
                let path = ["models", "providers", id, "models", index.as_str()];
                let problem = "is missing: every model needs the id that its provider knows it by";
                return Err(bad_value(&path, below(&row.source, "id"), problem));
            }
        }
    }
    for (id, cli) in &agents.defaults.cli_backends {
        if let Some(args) = &cli.value.thinking_args
            && args.value.iter().next().is_some()
            && !args.value.iter().any(|arg| arg.value.contains("{level}"))
        {
            let path = ["agents", "defaults", "cliBackends", id, "thinkingArgs"];
            let problem = "must hold `{level}` where the level of thinking stands";
            return Err(bad_value(&path, args.source.clone(), problem));
        }
        let args = cli.value.args.iter().flat_map(|args| &args.value);
        for arg in args.filter(|arg| mask(arg.value.clone()) != arg.value) {
            warnings.push(format!(
                "{} looks like a secret, and others on this machine can read the arguments of a process: put it into \
                 env",
                arg.source
            ));
        }
    }
    Ok(())
}

/// The source of a key within the section of `source`.
fn below(source: &Source, name: &str) -> Source {
    match source {
        Source::File { path, key } => Source::File { path: path.clone(), key: format!("{key}.{name}") },
        source => source.clone(),
    }
}

fn model_row(row: &config::ModelRow) -> ModelRow {
    fn number<const MAX: u64>(given: &Option<Sourced<Bounded<1, MAX>>>) -> Option<u64> {
        given.as_ref().map(|number| number.value.get())
    }
    let compat = &row.compat;
    let gives_usage = compat.supports_usage_in_streaming.as_ref();
    let efforts = match &compat.supports_reasoning_effort {
        Some(supports) if !supports.value => Some(Vec::new()),
        _ => compat.supported_reasoning_efforts.as_ref().map(|efforts| efforts.value.to_vec()),
    };
    ModelRow {
        id: row.id.as_ref().map(|id| id.value.clone()).unwrap_or_default(),
        name: row.name.as_ref().map(|name| name.value.clone()),
        context_window: number(&row.context_tokens).or(number(&row.context_window)),
        max_tokens: number(&row.max_tokens),
        prices: row.cost.as_ref().map(|cost| Prices {
            input: cost.value.input.get(),
            output: cost.value.output.get(),
            cache_read: cost.value.cache_read.get(),
            cache_write: cost.value.cache_write.get(),
        }),
        // As in stock: a model that is declared reasons where that is declared too.
        reasoning: Some(row.reasoning.as_ref().is_some_and(|reasoning| reasoning.value)),
        efforts,
        no_usage: gives_usage.is_some_and(|gives| !gives.value),
    }
}

/// What answers runs, from the file and the environment.
pub(super) fn resolve_models(
    config: &Config,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<ModelSettings, ConfigError> {
    let (providers, defaults) = (&config.models.providers, &config.agents.defaults);
    let resolved = |choice: &Sourced<config::ModelChoice>| {
        Ok::<_, ConfigError>(ModelChoice {
            primary: choice.primary().map(|name| substitute(&name, env)).transpose()?.map(|name| name.value),
            fallbacks: choice
                .fallbacks()
                .map(|name| Ok(substitute(name, env)?.value))
                .collect::<Result<_, ConfigError>>()?,
        })
    };
    let mut settings = ModelSettings {
        default: defaults.model.as_ref().map(resolved).transpose()?.unwrap_or_default(),
        entries: defaults
            .models
            .iter()
            .map(|(name, entry)| {
                let entry = &entry.value;
                let alias = entry.alias.as_ref().map(|alias| alias.value.clone());
                let runtime = entry.agent_runtime.cli().map(str::to_owned);
                let params = &entry.params;
                let resolved = ModelEntry {
                    alias,
                    runtime,
                    params: params.all.clone(),
                    effort: Effort { thinking: params.thinking.0, fast_mode: params.fast_mode.0 },
                    fast_auto: params.fast_auto_on_seconds.map(Duration::from_secs),
                };
                (name.clone(), resolved)
            })
            .collect(),
        effort: effort(defaults.thinking_default.as_ref(), defaults.fast_mode_default.as_ref()),
        ..ModelSettings::default()
    };
    for (id, agent) in &config.agents.entries {
        let agent_effort =
            effort(agent.value.thinking_default.as_ref(), agent.value.fast_mode_default.as_ref());
        settings.agent_efforts.insert(id.clone(), agent_effort);
        if let Some(choice) = &agent.value.model {
            settings.agents.insert(id.clone(), resolved(choice)?);
        }
    }
    for (id, provider) in providers {
        let resolved = resolve_provider(id, provider, env)?;
        if let Some(problem) = &resolved.problem {
            warnings.push(problem.clone());
        }
        settings.providers.insert(id.clone(), resolved);
    }
    let named = referenced(&settings);
    for built_in in &BUILT_IN {
        let key = text(env, built_in.variable);
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
    for (id, cli) in &defaults.cli_backends {
        let resolved = resolve_cli(id, cli, env)?;
        if let Some(problem) = &resolved.problem {
            warnings.push(problem.clone());
        }
        settings.clis.insert(id.clone(), resolved);
    }
    let runtimes = settings.entries.values().filter_map(|entry| entry.runtime.as_deref());
    let runtimes =
        runtimes.chain(settings.providers.values().filter_map(|provider| provider.runtime.as_deref()));
    let wants_claude = named.iter().map(String::as_str).chain(runtimes).any(|name| name == CLAUDE);
    if wants_claude && !settings.clis.contains_key(CLAUDE) {
        settings.clis.insert(CLAUDE.to_owned(), CliSettings::claude());
    }
    if let Some(primary) = defaults.model.as_ref().and_then(Sourced::primary)
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

fn effort(thinking: Option<&Sourced<Thinking>>, fast_mode: Option<&Sourced<FastAnswers>>) -> Effort {
    Effort {
        thinking: thinking.and_then(|given| given.value.0),
        fast_mode: fast_mode.and_then(|given| given.value.0),
    }
}

/// The providers that choices and entries name.
fn referenced(settings: &ModelSettings) -> Vec<String> {
    let choices = std::iter::once(&settings.default).chain(settings.agents.values());
    let names = choices.flat_map(|choice| choice.primary.iter().chain(&choice.fallbacks));
    names.chain(settings.entries.keys()).filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect()
}

fn resolve_provider(
    id: &str,
    provider: &Sourced<Provider>,
    env: &Env,
) -> Result<ProviderSettings, ConfigError> {
    let (provider, source) = (&provider.value, &provider.source);
    let built_in = BUILT_IN.iter().find(|built_in| built_in.id == id);
    let mut problem = None;
    let mut note = |sentence: String| {
        problem.get_or_insert(format!("provider `{id}` cannot be used: {sentence}"));
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
                let origin = below(source, "baseUrl");
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
    let key = match &provider.api_key {
        Some(Sourced { value: ProviderKey::Here(secret), source }) => {
            Some(substitute_secret(&Sourced::new(secret.clone(), source.clone()), env))
        }
        Some(Sourced { value: ProviderKey::Elsewhere, .. }) => {
            note(
                "its apiKey is kept where this gateway does not read; give a text or an environment variable"
                    .to_owned(),
            );
            None
        }
        None => None,
    };
    match key {
        None => settings.key = built_in.and_then(|built_in| text(env, built_in.variable)),
        Some(Ok(key)) => {
            // Stock also writes the bare name of a variable.
            let name = key.value.expose_secret();
            let variable = if is_variable(name) && name.contains('_') { text(env, name) } else { None };
            settings.key = Some(variable.unwrap_or(key.value));
        }
        Some(Err(missing)) => note(missing.to_string()),
    }
    for (name, value) in &provider.headers {
        match substitute_secret(value, env) {
            Ok(value) => settings.headers.push((name.clone(), value.value)),
            Err(missing) => note(missing.to_string()),
        }
    }
    let is_token = provider.auth.as_ref().is_some_and(|auth| auth.value == "token");
    settings.bearer = provider.auth_header.as_ref().map_or(is_token, |bearer| bearer.value);
    settings.models = provider.models.iter().map(|row| model_row(&row.value)).collect();
    for row in &mut settings.models {
        row.max_tokens = row.max_tokens.or(provider.max_tokens.as_ref().map(|max| max.value.get()));
    }
    if let Some(seconds) = &provider.timeout_seconds {
        let timeout = Duration::from_secs(seconds.value.get());
        let connect = settings.deadlines.connect.min(timeout);
        settings.deadlines = Deadlines { connect, idle: timeout, total: timeout };
    }
    settings.runtime = provider.agent_runtime.cli().map(str::to_owned);
    settings.problem = problem;
    complete(&mut settings, id, built_in);
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

fn resolve_cli(id: &str, cli: &Sourced<CliBackend>, env: &Env) -> Result<CliSettings, ConfigError> {
    let (cli, source) = (&cli.value, &cli.source);
    let text = |text: &Option<Sourced<String>>| text.as_ref().map(|text| text.value.clone());
    let mut settings = match (&cli.command, id) {
        (Some(command), CLAUDE) => CliSettings { command: command.value.clone(), ..CliSettings::claude() },
        (None, CLAUDE) => CliSettings::claude(),
        (Some(command), _) => CliSettings::new(command.value.clone()),
        (None, _) => {
            return Err(ConfigError::BadValue {
                origin: source.clone(),
                problem: "must have a `command`, the program to run".to_owned(),
                nearest: None,
            });
        }
    };
    if let Some(args) = &cli.args {
        settings.args = args.value.to_vec();
    }
    if let Some(input) = &cli.input {
        settings.input = match input.value {
            CliInputMode::Stdin => CliInput::Stdin,
            CliInputMode::Argument => CliInput::Argument,
        };
    }
    if let Some(output) = &cli.output {
        settings.output = match output.value {
            CliOutputMode::Text => CliOutput::Text,
            CliOutputMode::Json => CliOutput::Json,
            CliOutputMode::JsonLines => CliOutput::JsonLines,
        };
    }
    for (name, value) in &cli.env {
        match substitute_secret(value, env) {
            Ok(value) => settings.env.push((name.clone(), value.value)),
            Err(missing) => {
                let problem = format!("the command-line back end `{id}` cannot be used: {missing}");
                settings.problem.get_or_insert(problem);
            }
        }
    }
    if let Some(names) = &cli.clear_env {
        settings.clear_env = names.value.to_vec();
    }
    settings.model_arg = text(&cli.model_arg).or(settings.model_arg);
    let aliases = cli.model_aliases.iter().map(|(alias, name)| (alias.clone(), name.value.clone()));
    settings.model_aliases.extend(aliases);
    settings.system_prompt_arg = text(&cli.system_prompt_arg).or(settings.system_prompt_arg);
    if let Some(args) = &cli.thinking_args {
        settings.thinking_args = args.value.to_vec();
    }
    let aliases = cli.thinking_aliases.iter().map(|(alias, name)| (alias.clone(), name.value.clone()));
    settings.thinking_aliases.extend(aliases);
    if let Some(max) = &cli.max_prompt_arg_chars {
        let max = usize::try_from(max.value.get()).unwrap_or(usize::MAX);
        settings.max_prompt_arg_bytes = max.min(settings.max_prompt_arg_bytes);
    }
    if let Some(silence) = &cli.reliability.watchdog.fresh.no_output_timeout_ms {
        settings.silence = Duration::from_millis(silence.value.get());
    }
    Ok(settings)
}

fn text(env: &Env, name: &str) -> Option<SecretString> {
    env.os(name).and_then(|value| value.to_str()).map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use openclaw_schema::methods::{models::ThinkingLevel, sessions::FastMode};

    use super::*;

    fn resolve(text: &str, env: &[(&str, &str)]) -> Result<(ModelSettings, Vec<String>), ConfigError> {
        let config = Config::parse(text, Path::new("/state/openclaw.json"))?;
        let mut warnings = config.warnings.clone();
        let env = env.iter().copied().collect::<Env>().with_config(&config);
        let settings = resolve_models(&config, &env, &mut warnings)?;
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
            (r#"{ models: { providers: { a: { baseUrl: "http://h", models: [{}] } } } }"#, "models[0].id"),
            (
                r#"{ models: { providers: { a: { baseUrl: "http://h", models: [{ id: "m", cost: { input: -1 } }] } } } }"#,
                "models[0].cost.input",
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
