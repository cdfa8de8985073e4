//! The back end of a configured gateway: gives each request to the provider or the program of its model, and to the
//! fallbacks after it, and knows which models there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use openclaw_schema::methods::{
    models::{ModelInfo, ModelsView, ThinkingLevel},
    sessions::FastMode,
};
use serde_json::Map;

use super::{
    Backend, BackendAnswer, BackendError, BackendErrorKind, BackendFuture, BackendRequest, RefreshFuture,
    TextSink,
    cli::Cli,
    echo::EchoBackend,
    lines::Lines,
    process::Notes,
    provider::{Flow, Provider},
    raw::RawStream,
    settings::{Effort, ModelChoice, ModelEntry, ModelRow, ModelSettings},
    thinking::{self, Manner},
};

/// The tag of the model that serves requests which name none.
const DEFAULT_TAG: &str = "default";
/// The tag of models that only follow others.
const FALLBACK_TAG: &str = "fallback";
/// How long after the start of a run the mode `auto` is fast, where the model's entry does not say: as in stock.
const FAST_AUTO: Duration = Duration::from_secs(60);

/// The back end of a configured gateway. Cloning it is cheap; the clones are one.
#[derive(Debug, Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    echo: EchoBackend,
    providers: BTreeMap<String, Provider>,
    clis: BTreeMap<String, Cli>,
    entries: BTreeMap<String, ModelEntry>,
    default: ModelChoice,
    agents: BTreeMap<String, ModelChoice>,
    effort: Effort,
    agent_efforts: BTreeMap<String, Effort>,
    raw: Option<Lines>,
    /// What the endpoints listed when they were asked last.
    live: Mutex<BTreeMap<String, Result<Vec<ModelRow>, BackendError>>>,
    /// [`Backend::models`], made anew when `live` changes.
    models: RwLock<Arc<[ModelInfo]>>,
}

/// What a model's request goes to.
enum Route<'a> {
    Echo,
    Provider(&'a Provider, ModelRow),
    Cli(&'a Cli),
    Nowhere(String),
}

/// Where a model of the catalogue is known from. The later counts more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    BuiltIn,
    Live,
    Declared,
    Named,
}

impl Router {
    /// The back end that `settings` ask for. Nothing is sent and nothing started; processes that a killed gateway left are
    /// ended beside. The echo, which rests for
    /// `echo_pause` between two words, answers where no model is configured.
    #[must_use]
    pub fn new(settings: ModelSettings, echo_pause: Duration) -> Self {
        let opened = |lines: std::io::Result<Lines>, what: &str| match lines {
            Ok(lines) => Some(lines),
            Err(error) => {
                tracing::warn!(%error, "{what} cannot be written");
                None
            }
        };
        let raw = settings.raw_stream.as_deref().and_then(|path| {
            tracing::info!(path = %path.display(), "every raw model event is written to the raw stream");
            opened(Lines::to_file(path), "the raw stream")
        });
        let logs = settings
            .cli_logs
            .then(|| opened(Lines::to_stderr(), "the output of command-line back ends"))
            .flatten();
        let notes = settings.processes.map(Notes::begin).unwrap_or_default();
        let inner = Inner {
            echo: EchoBackend::new(echo_pause),
            providers: settings
                .providers
                .into_iter()
                .map(|(id, provider)| (id.clone(), Provider::new(&id, provider)))
                .collect(),
            clis: settings
                .clis
                .into_iter()
                .map(|(id, cli)| (id.clone(), Cli::new(&id, cli, logs.clone(), notes.clone())))
                .collect(),
            entries: settings.entries,
            default: settings.default,
            agents: settings.agents,
            effort: settings.effort,
            agent_efforts: settings.agent_efforts,
            raw,
            live: Mutex::default(),
            models: RwLock::new(Arc::new([])),
        };
        let router = Self { inner: Arc::new(inner) };
        router.inner.rebuild();
        router
    }
}

impl Backend for Router {
    fn models(&self) -> Arc<[ModelInfo]> {
        self.inner.models()
    }

    fn find(&self, name: &str) -> Option<ModelInfo> {
        self.inner.find(name)
    }

    fn catalogue(&self, view: ModelsView) -> Vec<ModelInfo> {
        let is_wanted = |(model, origin): &(ModelInfo, Origin)| match view {
            ModelsView::Default => *origin > Origin::BuiltIn && model.available == Some(true),
            ModelsView::Configured => *origin >= Origin::Declared,
            ModelsView::ProviderConfig => *origin == Origin::Declared,
            ModelsView::All => true,
        };
        let catalogue = self.inner.catalogue();
        // Where nothing is configured the echo is what is ready for use.
        let is_bare = catalogue.iter().all(|(_, origin)| *origin == Origin::BuiltIn);
        let view_of_all = |_: &(ModelInfo, Origin)| is_bare && view == ModelsView::Default;
        catalogue
            .into_iter()
            .filter(|model| is_wanted(model) || view_of_all(model))
            .map(|(model, _)| self.inner.with_levels(model))
            .collect()
    }

    fn thinking_levels(&self, model: &ModelInfo) -> Option<Vec<ThinkingLevel>> {
        self.inner.levels(model)
    }

    fn refresh(&self) -> RefreshFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let usable = inner.providers.iter().filter(|(_, provider)| provider.settings.problem.is_none());
            let lists = usable.map(|(id, provider)| async move { (id.clone(), provider.list().await) });
            let lists = join_all(lists).await;
            for (id, list) in &lists {
                if let Err(error) = list {
                    tracing::info!(provider = id, %error, "the models of a provider cannot be listed");
                }
            }
            inner.live().extend(lists);
            inner.rebuild();
        })
    }

    fn run(&self, request: BackendRequest, output: TextSink) -> BackendFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.answer(request, output).await })
    }
}

impl Inner {
    /// Answers with the model of the request, or with the first of its fallbacks that does.
    async fn answer(
        &self,
        mut request: BackendRequest,
        output: TextSink,
    ) -> Result<BackendAnswer, BackendError> {
        let flow = Flow::new(output);
        let begun = Instant::now();
        let asked = request.model.clone();
        let mut error = match self.attempt(&request, begun, &flow).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        for fallback in self.fallbacks(&request) {
            let is_final = error.kind == BackendErrorKind::Refusal;
            if is_final || flow.has_flowed() || request.cancel.is_cancelled() {
                break;
            }
            let Some(model) = self.find(&fallback) else {
                let _ = fmt::Write::write_fmt(
                    &mut error.message,
                    format_args!("; the fallback `{fallback}` is not a model of this gateway"),
                );
                continue;
            };
            tracing::warn!(
                run = request.run_id,
                model = name(&asked),
                fallback = name(&model),
                reason = error.message,
                "a fallback is tried"
            );
            request.model = model.clone();
            match self.attempt(&request, begun, &flow).await {
                Ok(answer) => {
                    tracing::info!(run = request.run_id, model = name(&model), "a fallback answered");
                    return Ok(BackendAnswer { model: Some(model), ..answer });
                }
                // What the model that was asked for said comes first, and says which kind of failure it is.
                Err(other) => {
                    let _ = fmt::Write::write_fmt(
                        &mut error.message,
                        format_args!("; then the fallback `{fallback}`: {}", other.message),
                    );
                }
            }
        }
        Err(error)
    }

    async fn attempt(
        &self,
        request: &BackendRequest,
        begun: Instant,
        flow: &Flow,
    ) -> Result<BackendAnswer, BackendError> {
        let model = name(&request.model);
        let manner = self.manner(request, begun);
        match self.route(&request.model) {
            Route::Echo => self.echo.run(request.clone(), flow.output.clone()).await,
            Route::Provider(provider, row) => {
                let raw = RawStream::new(self.raw.as_ref(), request, &model, provider.secrets());
                let none = Map::new();
                let params = self.entry(&request.model).map_or(&none, |entry| &entry.params);
                provider.answer(request, &row, params, manner, flow, &raw).await
            }
            Route::Cli(cli) => {
                let raw = RawStream::new(self.raw.as_ref(), request, &model, cli.secrets());
                cli.answer(request, &request.model.id, manner, &flow.output, &raw).await
            }
            Route::Nowhere(problem) => Err(BackendError::new(BackendErrorKind::Unknown, problem)),
        }
    }

    /// How the model of a request is to answer: as the call or its session says, or else as the agent, the model or the
    /// whole gateway is set. A level that the model does not have becomes the next lower one.
    fn manner(&self, request: &BackendRequest, begun: Instant) -> Manner {
        let entry = self.entry(&request.model);
        let own = self.agent_efforts.get(&request.agent.id).copied().unwrap_or_default();
        let of_model = entry.map(|entry| entry.effort).unwrap_or_default();
        let asked = request.thinking.or(own.thinking).or(of_model.thinking).or(self.effort.thinking);
        let thinking = asked.map(|asked| match self.levels(&request.model) {
            Some(levels) => thinking::fit(asked, &levels),
            None => asked,
        });
        if thinking != asked {
            tracing::info!(
                run = request.run_id,
                model = name(&request.model),
                asked = asked.map(ThinkingLevel::name),
                used = thinking.map(ThinkingLevel::name),
                "the model does not have the level of thinking that is set"
            );
        }
        let fast = request.fast_mode.or(own.fast_mode).or(self.effort.fast_mode).or(of_model.fast_mode);
        let fast = fast.map(|mode| match mode {
            FastMode::Flag(is_fast) => is_fast,
            FastMode::Auto(_) => {
                begun.elapsed() < entry.and_then(|entry| entry.fast_auto).unwrap_or(FAST_AUTO)
            }
        });
        Manner { thinking, fast }
    }

    /// The levels of thinking that a model has, where that is known.
    fn levels(&self, model: &ModelInfo) -> Option<Vec<ThinkingLevel>> {
        match self.route(model) {
            Route::Provider(provider, row) => thinking::levels(provider.settings.api, &row),
            Route::Cli(cli) => Some(thinking::levels_of_cli(&cli.settings)),
            Route::Echo | Route::Nowhere(_) => None,
        }
    }

    /// A model as the catalogue shows it.
    fn with_levels(&self, mut model: ModelInfo) -> ModelInfo {
        if let Some(levels) = self.levels(&model) {
            model.reasoning |= levels.len() > 1;
            let set = self.entry(&model).and_then(|entry| entry.effort.thinking).or(self.effort.thinking);
            model.thinking_default = set.map(|set| thinking::fit(set, &levels));
            model.thinking_levels = levels.into_iter().map(ThinkingLevel::option).collect();
        }
        model
    }

    /// The fallbacks of the request's model. Those of an agent follow its own model: a model that the caller names
    /// stands alone.
    fn fallbacks(&self, request: &BackendRequest) -> Vec<String> {
        let choice = self.agents.get(&request.agent.id).unwrap_or(&self.default);
        let primary = choice.primary.as_ref().and_then(|primary| self.find(primary));
        let is_primary = primary.is_some_and(|primary| name(&primary) == name(&request.model));
        if is_primary { choice.fallbacks.clone() } else { Vec::new() }
    }

    fn route(&self, model: &ModelInfo) -> Route<'_> {
        let provider = self.providers.get(&model.provider);
        let runtime = self
            .entry(model)
            .and_then(|entry| entry.runtime.as_ref())
            .or_else(|| provider.and_then(|provider| provider.settings.runtime.as_ref()));
        if let Some(runtime) = runtime {
            return match self.clis.get(runtime) {
                Some(cli) => Route::Cli(cli),
                None => Route::Nowhere(format!(
                    "the model `{}` is to be run by `{runtime}`, and there is no such command-line back end; name one \
                     in agents.defaults.cliBackends, or remove agentRuntime",
                    name(model)
                )),
            };
        }
        if let Some(provider) = provider {
            let declared = provider.settings.models.iter().find(|row| row.id == model.id).cloned();
            let row = declared.unwrap_or_else(|| ModelRow { id: model.id.clone(), ..ModelRow::default() });
            return Route::Provider(provider, row);
        }
        if let Some(cli) = self.clis.get(&model.provider) {
            return Route::Cli(cli);
        }
        if model.provider == "echo" {
            return Route::Echo;
        }
        Route::Nowhere(format!("there is no provider `{}`", model.provider))
    }

    /// What is said of a model: by its name, or else of all of its provider's.
    fn entry(&self, model: &ModelInfo) -> Option<&ModelEntry> {
        self.entries.get(&name(model)).or_else(|| self.entries.get(&format!("{}/*", model.provider)))
    }

    /// The model of a name: an alias, `provider/id`, or an id.
    fn find(&self, asked: &str) -> Option<ModelInfo> {
        let is_alias =
            |entry: &ModelEntry| entry.alias.as_ref().is_some_and(|alias| alias.eq_ignore_ascii_case(asked));
        let aliased = self.entries.iter().find(|(_, entry)| is_alias(entry));
        let asked = aliased.map_or(asked, |(name, _)| name);
        let models = self.models();
        let found = models
            .iter()
            .find(|model| name(model) == asked)
            .or_else(|| models.iter().find(|model| model.id == asked));
        if let Some(model) = found {
            return Some(model.clone());
        }
        // A provider that declares no models takes every id; so does a program.
        let (provider, id) = asked.split_once('/').filter(|(_, id)| !id.is_empty())?;
        let is_open = match self.providers.get(provider) {
            Some(provider) => provider.settings.models.is_empty(),
            None => self.clis.contains_key(provider),
        };
        is_open.then(|| info(provider, &ModelRow { id: id.to_owned(), ..ModelRow::default() }))
    }

    /// Every known model, by provider and id, and where it is known from.
    fn catalogue(&self) -> Vec<(ModelInfo, Origin)> {
        let live = self.live();
        let mut known: BTreeMap<(String, String), (ModelInfo, Origin)> = BTreeMap::new();
        let mut add = |provider: &str, row: &ModelRow, origin: Origin| {
            let told = info(provider, row);
            let (model, from) =
                known.entry((provider.to_owned(), row.id.clone())).or_insert_with(|| (told.clone(), origin));
            *from = origin.max(*from);
            model.context_window = model.context_window.or(told.context_window);
            if model.name == model.id {
                model.name = told.name;
            }
        };
        for (id, provider) in &self.providers {
            for row in &provider.settings.models {
                add(id, row, Origin::Declared);
            }
            for row in live.get(id).and_then(|list| list.as_ref().ok()).into_iter().flatten() {
                add(id, row, Origin::Live);
            }
        }
        let choices = std::iter::once(&self.default).chain(self.agents.values());
        let chosen = choices.flat_map(|choice| choice.primary.iter().chain(&choice.fallbacks));
        let named: BTreeSet<&String> = chosen.chain(self.entries.keys()).collect();
        for name in named {
            if let Some((provider, id)) = name.split_once('/')
                && id != "*"
                && !id.is_empty()
                && (self.providers.contains_key(provider) || self.clis.contains_key(provider))
            {
                // One that its provider declares stays with it.
                let is_declared = self
                    .providers
                    .get(provider)
                    .is_some_and(|provider| provider.settings.models.iter().any(|row| row.id == id));
                let origin = if is_declared { Origin::Declared } else { Origin::Named };
                add(provider, &ModelRow { id: id.to_owned(), ..ModelRow::default() }, origin);
            }
        }
        let mut models: Vec<_> = known.into_values().collect();
        let primary = self.default.primary.as_deref();
        let is_alias = |name: &str, alias: &str| {
            self.entries.get(name).and_then(|entry| entry.alias.as_deref()) == Some(alias)
        };
        let is_called =
            |model: &ModelInfo, called: &str| name(model) == called || is_alias(&name(model), called);
        // Without a choice the first model that the configuration declares serves, or else the echo.
        let default = match primary {
            Some(primary) => models.iter().position(|(model, _)| is_called(model, primary)),
            None => models.iter().position(|(_, origin)| *origin == Origin::Declared),
        };
        if let Some(default) = default {
            models[default].0.tags.push(DEFAULT_TAG.to_owned());
        }
        for (model, _) in &mut models {
            if self.default.fallbacks.iter().any(|fallback| is_called(model, fallback)) {
                model.tags.push(FALLBACK_TAG.to_owned());
            }
            model.available = Some(match self.route(model) {
                Route::Echo => true,
                Route::Provider(provider, _) => {
                    let is_down = matches!(live.get(&model.provider), Some(Err(_)));
                    provider.settings.problem.is_none() && !is_down
                }
                Route::Cli(cli) => cli.is_there(),
                Route::Nowhere(_) => false,
            });
        }
        let mut echo = self.echo.models()[0].clone();
        if default.is_some() || primary.is_some() {
            echo.tags.clear();
        }
        models.push((echo, Origin::BuiltIn));
        models
    }

    fn rebuild(&self) {
        let models = self.catalogue().into_iter().map(|(model, _)| model).collect();
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    fn models(&self) -> Arc<[ModelInfo]> {
        Arc::clone(&self.models.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, Result<Vec<ModelRow>, BackendError>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model's whole name.
fn name(model: &ModelInfo) -> String {
    format!("{}/{}", model.provider, model.id)
}

fn info(provider: &str, row: &ModelRow) -> ModelInfo {
    ModelInfo {
        id: row.id.clone(),
        name: row.name.clone().unwrap_or_else(|| row.id.clone()),
        provider: provider.to_owned(),
        context_window: row.context_window,
        reasoning: row.reasoning.unwrap_or(false),
        tags: Vec::new(),
        thinking_levels: Vec::new(),
        thinking_default: None,
        available: None,
    }
}
