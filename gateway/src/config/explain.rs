//! The configuration for people who ask about it: what a key is now and who said so, what may stand in the file, and
//! what is wrong with it. Nothing is changed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use openclaw_schema::{
    config::keys::{self, Applies, Key},
    methods::config::{ConfigSchemaResult, ConfigUiHint, REDACTED},
};
use serde_json::{Value, json};

use super::{
    BindMode, Config, ConfigError, Env, GatewayMode, Locations, ServeOptions, Source, Sourced, env,
    file::{read_text, substitute},
    redact::{Secrets, is_reference},
    serve,
    tree::{self, Tree},
};
use crate::state::read_token;

/// The most faults that are told at once.
const MAX_ISSUES: usize = 50;

/// A configuration that is looked at.
#[derive(Debug)]
pub struct View {
    /// The file.
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// The files that it includes.
    pub included: Vec<PathBuf>,
    tree: Tree,
    secrets: Secrets,
    /// The values, secrets hidden.
    shown: Value,
    env: Env,
    locations: Locations,
    schema: Value,
}

/// A key that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The key.
    pub key: String,
    /// The one that was probably meant.
    pub nearest: Option<String>,
}

/// What a key is now, and why.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The key, its parts joined by dots.
    pub key: String,
    /// What it is.
    pub description: String,
    /// Its value, a secret hidden; absent when nobody said anything and there is no fixed default.
    pub value: Option<Value>,
    /// Who said so.
    pub source: Source,
    /// The line of the file that says so, from 1.
    pub line: Option<usize>,
    /// Why the value cannot be used, if that is so.
    pub problem: Option<String>,
    /// What else was given and does not count, the strongest first.
    pub lost: Vec<Lost>,
    /// When a change applies; absent for keys that this gateway does not read.
    pub applies: Option<Applies>,
}

/// A value that was given and does not count.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The value, a secret hidden.
    pub value: Value,
    /// Who gave it.
    pub source: Source,
    /// The line of the file, from 1.
    pub line: Option<usize>,
}

/// A key that is also said elsewhere than in the file. Where the value counts, `config::serve` and `config::auth`
/// decide; a test holds them against `cli/README.md`.
struct Elsewhere {
    key: &'static str,
    variable: Option<&'static str>,
    /// Whether the file comes before the variable.
    is_file_first: bool,
    flag: fn(&ServeOptions) -> Option<(&'static str, Value)>,
}

const ELSEWHERE: [Elsewhere; 7] = [
    Elsewhere {
        key: "gateway.port",
        variable: Some(env::GATEWAY_PORT),
        is_file_first: false,
        flag: |options| options.port.map(|port| ("--port", json!(port))),
    },
    Elsewhere {
        key: "gateway.bind",
        variable: None,
        is_file_first: true,
        flag: |options| options.bind.map(|bind| ("--bind", json!(bind.name()))),
    },
    Elsewhere {
        key: "gateway.auth.mode",
        variable: None,
        is_file_first: true,
        flag: |options| options.auth.map(|auth| ("--auth", json!(auth.name()))),
    },
    Elsewhere {
        key: "gateway.auth.token",
        variable: Some(env::GATEWAY_TOKEN),
        is_file_first: true,
        flag: |options| options.token.as_ref().map(|_| ("--token", json!(REDACTED))),
    },
    Elsewhere {
        key: "gateway.auth.password",
        variable: Some(env::GATEWAY_PASSWORD),
        is_file_first: true,
        flag: |options| options.password.as_ref().map(|_| ("--password", json!(REDACTED))),
    },
    Elsewhere {
        key: "logging.level",
        variable: Some(env::LOG_LEVEL),
        is_file_first: false,
        flag: |options| options.log_level.map(|level| ("--log-level", json!(level.name()))),
    },
    Elsewhere {
        key: "logging.consoleLevel",
        variable: Some(env::LOG_LEVEL),
        is_file_first: false,
        flag: |options| options.log_level.map(|level| ("--log-level", json!(level.name()))),
    },
];

impl View {
    /// Looks at the configuration that `locations` name. Values that are wrong do not stand in the way.
    ///
    /// # Errors
    ///
    /// A file that does not open or is not JSON5; an include that cannot be followed.
    pub fn open(locations: &Locations, env: &Env) -> Result<Self, ConfigError> {
        let path = locations.config_file();
        let (text, exists) = read_text(path)?;
        let mut tree = Tree::parse(&text, path)?;
        let shown = tree.value.clone();
        let env = match Config::of_values(&mut tree) {
            Ok(config) => env.with_config(&config),
            Err(_) => env.clone(),
        };
        tree.value = shown;
        let variables = [env::GATEWAY_TOKEN, env::GATEWAY_PASSWORD];
        let known = variables.iter().filter_map(|name| Some(env.os(name)?.to_str()?.to_owned()));
        let secrets = Secrets::of(&tree.value, known);
        Ok(Self {
            path: path.to_owned(),
            exists,
            included: tree.included().map(|path| path.to_path_buf()).collect(),
            shown: secrets.redact(&tree.value),
            tree,
            secrets,
            env,
            locations: locations.clone(),
            schema: keys::schema(),
        })
    }

    /// The value of the file at `path`, secrets hidden; nothing when it is not set.
    ///
    /// # Errors
    ///
    /// A key that neither the file has nor anybody knows.
    pub fn get(&self, path: &[String]) -> Result<Option<&Value>, Unknown> {
        match tree::find(&self.shown, path) {
            Some(value) => Ok(Some(value)),
            None if self.key(path).is_some() => Ok(None),
            None => Err(self.unknown(path)),
        }
    }

    fn key(&self, path: &[String]) -> Option<Key<'_>> {
        Key::root(&self.schema).find(path)
    }

    fn unknown(&self, path: &[String]) -> Unknown {
        Unknown { key: keys::joined(path), nearest: Key::root(&self.schema).nearest(path) }
    }

    /// Says of the key at `path`, or of each in that section, what it is and why, for a gateway that is started with
    /// `options`.
    ///
    /// # Errors
    ///
    /// A key that neither the file has nor anybody knows.
    pub fn explain(&self, path: &[String], options: &ServeOptions) -> Result<Vec<Explained>, Unknown> {
        let Some(key) = self.key(path).filter(|key| !key.is_ignored()) else {
            let value = tree::find(&self.shown, path).ok_or_else(|| self.unknown(path))?;
            let (source, line) = self.place(path);
            return Ok(vec![Explained {
                key: keys::joined(path),
                description: "This gateway does not read it.".to_owned(),
                value: Some(value.clone()),
                source,
                line,
                problem: None,
                lost: Vec::new(),
                applies: None,
            }]);
        };
        let mut found = Vec::new();
        for (below, key) in key.leaves() {
            let mut pattern = path.to_vec();
            pattern.extend(below);
            for path in self.expanded(&pattern) {
                found.push(self.explained(&path, key, options));
            }
        }
        Ok(found)
    }

    /// The paths that `pattern` stands for in this file.
    fn expanded(&self, pattern: &[String]) -> Vec<Vec<String>> {
        let Some(at) = pattern.iter().position(|part| part == "*" || part == "[]") else {
            return vec![pattern.to_vec()];
        };
        let (before, rest) = (&pattern[..at], &pattern[at + 1..]);
        let names: Vec<String> = match tree::find(&self.tree.value, before) {
            Some(Value::Object(map)) => map.keys().cloned().collect(),
            Some(Value::Array(items)) => (0..items.len()).map(|index| format!("[{index}]")).collect(),
            _ => Vec::new(),
        };
        let below = |name: &String| {
            let path = before.iter().chain([name]).chain(rest).cloned().collect::<Vec<_>>();
            // Of what the user named, only what is said is shown.
            self.expanded(&path).into_iter().filter(|path| tree::find(&self.tree.value, path).is_some())
        };
        names.iter().flat_map(below).collect()
    }

    fn place(&self, path: &[String]) -> (Source, Option<usize>) {
        let (_, line) = self.tree.place(path);
        (self.tree.source(path), line)
    }

    fn explained(&self, path: &[String], key: Key<'_>, options: &ServeOptions) -> Explained {
        let name = keys::joined(path);
        let elsewhere = ELSEWHERE.iter().find(|elsewhere| elsewhere.key == name);
        let mut problem = None;
        let mut given: Vec<Lost> = Vec::new();
        let file = tree::find(&self.tree.value, path).map(|value| {
            let (source, line) = self.place(path);
            if let Value::String(text) = value
                && let Err(error) = substitute(&Sourced::new(text.clone(), source.clone()), &self.env)
            {
                problem = Some(error.to_string());
            }
            let value = match value {
                Value::String(text) if !key.is_secret() => {
                    let text = Sourced::new(text.clone(), source.clone());
                    let text = substitute(&text, &self.env).unwrap_or(text);
                    json!(self.secrets.scrub(&text.value))
                }
                Value::String(text) if is_reference(text) => value.clone(),
                Value::String(_) if key.is_secret() => json!(REDACTED),
                _ => tree::find(&self.shown, path).cloned().unwrap_or(Value::Null),
            };
            Lost { value, source, line }
        });
        let variable = elsewhere.and_then(|elsewhere| elsewhere.variable).and_then(|name| {
            let text = self.env.os(name)?.to_string_lossy();
            let shown = if key.is_secret() { REDACTED.to_owned() } else { self.secrets.scrub(&text) };
            let value = shown.parse::<u64>().map_or_else(|_| json!(shown), |number| json!(number));
            Some(Lost { value, source: self.env.source(name), line: None })
        });
        if let Some((name, value)) = elsewhere.and_then(|elsewhere| (elsewhere.flag)(options)) {
            given.push(Lost { value, source: Source::Flag(name), line: None });
        }
        match elsewhere {
            Some(elsewhere) if !elsewhere.is_file_first => given.extend(variable.into_iter().chain(file)),
            _ => given.extend(file.into_iter().chain(variable)),
        }
        let (default, source) = self.default(&name, key);
        given.extend(default.map(|value| Lost { value, source, line: None }));
        let mut given = given.into_iter();
        let first = given.next();
        Explained {
            key: name,
            description: key.description().to_owned(),
            // What follows from the file matters only where the file counts.
            problem: problem.filter(|_| first.as_ref().is_some_and(|first| first.line.is_some())),
            source: first.as_ref().map_or(Source::Default, |first| first.source.clone()),
            line: first.as_ref().and_then(|first| first.line),
            value: first.map(|first| first.value),
            lost: given.collect(),
            applies: Some(key.applies()),
        }
    }

    /// What holds when nobody says anything.
    fn default(&self, name: &str, key: Key<'_>) -> (Option<Value>, Source) {
        let state = self.locations.state();
        let value = match name {
            "gateway.port" => Some(json!(self.locations.default_port())),
            "logging.file" => Some(json!(state.log_file())),
            "agents.defaults.workspace" => Some(json!(state.workspace_dir())),
            "gateway.auth.token" => match read_token(state) {
                Ok(Some(_)) => {
                    return (Some(json!(REDACTED)), Source::Generated { path: state.token_file() });
                }
                _ => None,
            },
            _ => key.default().cloned(),
        };
        (value, Source::Default)
    }
}

/// What is wrong with a configuration, and what looks odd.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Whether the file is there.
    pub exists: bool,
    /// What is wrong; nothing when a gateway, or a client, can work with it.
    pub issues: Vec<Issue>,
    /// What looks odd but is not refused, a sentence each.
    pub warnings: Vec<String>,
    /// The files that it includes.
    pub included: Vec<PathBuf>,
}

/// Something that is wrong with a configuration. No text shows a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The key, its parts joined by dots; empty for the file as a whole.
    pub key: String,
    /// A sentence.
    pub message: String,
    /// What to change, where the sentence does not say so.
    pub hint: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: Option<usize>,
}

/// Looks for everything that is wrong with the file at `path`, as it would be read in the place of the configuration
/// that `locations` name. Nothing is changed, and nobody is asked.
#[must_use]
pub fn check_config(path: &Path, locations: &Locations, env: &Env) -> Report {
    let mut report = Report::default();
    let whole = |error: &ConfigError| {
        let (file, line) = match error {
            ConfigError::Syntax { path, line, .. } => (path.clone(), Some(*line)),
            _ => (path.to_owned(), None),
        };
        let message = error.to_string();
        Issue {
            key: error.key().unwrap_or_default(),
            message: message.lines().next().unwrap_or_default().to_owned(),
            hint: error.hint(),
            file,
            line,
        }
    };
    let parsed = read_text(path).and_then(|(text, exists)| Ok((Tree::parse(&text, path)?, exists)));
    let mut tree = match parsed {
        Ok((tree, exists)) => {
            report.exists = exists;
            tree
        }
        Err(error) => {
            report.exists = path.exists();
            report.issues.push(whole(&error));
            return report;
        }
    };
    let secrets = Secrets::of(&tree.value, []);
    let places = tree.clone();
    let mut place = |issue: Issue, path: &[String]| {
        let (file, line) = places.place(path);
        let message = secrets.scrub(&issue.message);
        report.issues.push(Issue { message, file: file.to_path_buf(), line, ..issue });
        report.issues.len()
    };
    // What is wrong is taken out, so that the next fault is found.
    let config = loop {
        match Config::of_values(&mut tree) {
            Ok(config) => break Some(config),
            Err(fault) => {
                let count = place(whole(&fault.error), &fault.path);
                if count >= MAX_ISSUES || !tree.remove(&fault.path) {
                    break None;
                }
            }
        }
    };
    let Some(config) = config else { return report };
    report.included = config.included.iter().map(|path| path.to_path_buf()).collect();
    report.warnings = config.warnings.iter().map(|warning| secrets.scrub(warning)).collect();
    if !report.issues.is_empty() {
        return report;
    }
    match config.gateway.mode.as_ref().map(|mode| mode.value) {
        Some(GatewayMode::Remote) if config.gateway.remote.url.is_none() => {
            let origin = config.gateway.mode.as_ref().map_or(Source::Default, |mode| mode.source.clone());
            report.issues.push(whole(&ConfigError::NoRemoteUrl { origin }));
            return report;
        }
        Some(GatewayMode::Remote) => return report,
        Some(GatewayMode::Local) => {}
        None if report.exists => report.warnings.push(format!(
            "gateway.mode is missing in {}; a gateway starts when it is \"local\"",
            config.path.display()
        )),
        None => {}
    }
    // The tailnet may come and go; whether it is there now says nothing of the file.
    let is_tailnet = config.gateway.bind.as_ref().is_some_and(|bind| bind.value == BindMode::Tailnet);
    let options = ServeOptions {
        allow_unconfigured: true,
        bind: is_tailnet.then_some(BindMode::Auto),
        ..ServeOptions::default()
    };
    match serve::rehearse(locations, &config, env, &options) {
        Ok(warnings) => {
            let scrubbed = warnings.iter().map(|warning| secrets.scrub(warning));
            let fresh: Vec<String> = scrubbed.filter(|warning| !report.warnings.contains(warning)).collect();
            report.warnings.extend(fresh);
        }
        Err(error) => {
            let issue = whole(&error);
            let path = keys::parse_path(&issue.key).unwrap_or_default();
            let (file, line) = places.place(&path);
            let line = line.filter(|_| !path.is_empty());
            let message = secrets.scrub(&issue.message);
            report.issues.push(Issue { message, file: file.to_path_buf(), line, ..issue });
        }
    }
    report
}

/// What may stand in the file, as `config.schema` answers it.
#[must_use]
pub fn config_schema() -> ConfigSchemaResult {
    let schema = keys::schema();
    let hint = |(path, key): (Vec<String>, Key<'_>)| {
        let help = Some(key.description().to_owned()).filter(|text| !text.is_empty());
        (keys::joined(&path), ConfigUiHint { help, sensitive: key.is_secret().then_some(true) })
    };
    let ui_hints: BTreeMap<_, _> = Key::root(&schema).leaves().into_iter().map(hint).collect();
    ConfigSchemaResult {
        ui_hints,
        schema: schema.as_object().cloned().unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generated_at: jiff::Timestamp::now().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthMode, LocationFlags};

    struct Home(tempfile::TempDir, Vec<(&'static str, &'static str)>);

    impl Home {
        fn new(config: &str, variables: &[(&'static str, &'static str)]) -> Self {
            let home = Self(tempfile::tempdir().expect("a directory"), variables.to_vec());
            let path = home.locations().config_file().to_owned();
            crate::state::create_private_dir(path.parent().expect("it has one")).expect("it creates");
            std::fs::write(path, config).expect("it writes");
            home
        }

        fn env(&self) -> Env {
            let home = (env::HOME, self.0.path().to_str().expect("a text"));
            self.1.iter().copied().chain([home]).collect()
        }

        fn locations(&self) -> Locations {
            Locations::resolve(&LocationFlags::default(), &self.env()).expect("there is a home")
        }

        fn view(&self) -> View {
            View::open(&self.locations(), &self.env()).expect("it opens")
        }

        fn report(&self) -> Report {
            check_config(self.locations().config_file(), &self.locations(), &self.env())
        }
    }

    fn path(text: &str) -> Vec<String> {
        keys::parse_path(text).expect("a path")
    }

    #[test]
    fn a_key_is_explained_with_all_that_was_given() {
        let home = Home::new(
            "{\n gateway: {\n  port: 3,\n  auth: {token: 'hush-hush', password: '${PW}'},\n  customBindHost: '${H}', \
             tls: {certPath: '${NONE}/x'} } }",
            &[(env::GATEWAY_PORT, "2"), (env::GATEWAY_TOKEN, "hush-env"), ("H", "10.0.0.1")],
        );
        let view = home.view();
        let one = |key: &str, options: &ServeOptions| {
            let mut found = view.explain(&path(key), options).expect("it is known");
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        let told = |explained: &Explained| {
            let all = std::iter::once((explained.value.clone(), &explained.source))
                .chain(explained.lost.iter().map(|lost| (Some(lost.value.clone()), &lost.source)));
            let file = home.locations().config_file().display().to_string();
            all.map(|(value, source)| {
                format!("{} {source}", value.unwrap_or_default()).replace(&file, "FILE")
            })
            .collect::<Vec<_>>()
        };
        let flags = ServeOptions { port: Some(1), auth: Some(AuthMode::Token), ..ServeOptions::default() };
        let port = one("gateway.port", &flags);
        assert_eq!(
            told(&port),
            ["1 flag --port", "2 env OPENCLAW_GATEWAY_PORT", "3 gateway.port in FILE", "18789 default"]
        );
        assert_eq!((port.lost[1].line, port.applies), (Some(3), Some(Applies::Restart)));
        let none = ServeOptions::default();
        let token = one("gateway.auth.token", &none);
        let hidden = format!("\"{REDACTED}\"");
        assert_eq!(
            told(&token),
            [format!("{hidden} gateway.auth.token in FILE"), format!("{hidden} env OPENCLAW_GATEWAY_TOKEN")]
        );
        assert_eq!((token.line, token.applies), (Some(4), Some(Applies::Live)));
        assert_eq!(told(&one("gateway.auth.password", &none)), ["\"${PW}\" gateway.auth.password in FILE"]);
        assert_eq!(
            told(&one("gateway.customBindHost", &none)),
            ["\"10.0.0.1\" gateway.customBindHost in FILE"]
        );
        for (key, variable) in [("gateway.tls.certPath", "NONE"), ("gateway.auth.password", "PW")] {
            let broken = one(key, &none).problem.expect("a variable is missing");
            assert!(broken.contains(variable), "{broken}");
        }
        assert_eq!(told(&one("logging.level", &none)), ["\"info\" default"]);
        let all = view.explain(&[], &none).expect("it is known");
        assert!(all.len() > 50 && !format!("{all:?}").contains("hush"), "{all:?}");
        assert_eq!(
            view.explain(&path("gateway.prot"), &none).expect_err("it is unknown").nearest.as_deref(),
            Some("gateway.port")
        );
    }

    #[test]
    fn what_the_user_named_is_explained_where_it_is_said() {
        let home = Home::new(
            "{agents: {entries: {a: {workspace: '/w'}}}, channels: {x: {botToken: 'hush'}}, \
             models: {providers: {p: {baseUrl: 'http://h', models: [{id: 'm', name: 'M'}]}}}}",
            &[],
        );
        let view = home.view();
        let names = |key: &str| -> Vec<String> {
            let found = view.explain(&path(key), &ServeOptions::default()).expect("it is known");
            found.into_iter().map(|explained| explained.key).collect()
        };
        assert_eq!(names("agents.entries"), ["agents.entries.a.workspace"]);
        assert_eq!(
            names("models"),
            [
                "models.providers.p.baseUrl",
                "models.providers.p.models[0].id",
                "models.providers.p.models[0].name"
            ]
        );
        let foreign = view.explain(&path("channels"), &ServeOptions::default()).expect("it is there");
        assert_eq!(foreign[0].applies, None);
        assert!(!format!("{foreign:?}").contains("hush"));
        assert_eq!(view.get(&path("channels.x.botToken")), Ok(Some(&json!(REDACTED))));
        assert_eq!(view.get(&path("gateway.port")), Ok(None));
        assert_eq!(view.get(&path("channels.y")).expect_err("nobody knows it").nearest, None);
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let home = Home::new(
            "{\n gateway: {prot: 1,\n port: 'x',\n auth: {token: 5}},\n logging: {level: 'loud'},\n agents: {entries: {'a b': {}}}\n}",
            &[],
        );
        let report = home.report();
        let told: Vec<_> = report.issues.iter().map(|issue| (issue.key.as_str(), issue.line)).collect();
        assert_eq!(
            told,
            [
                ("gateway.prot", Some(2)),
                ("gateway.port", Some(3)),
                ("gateway.auth.token", Some(4)),
                ("logging.level", Some(5)),
                ("agents.entries.a b", Some(6)),
            ]
        );
    }

    #[test]
    fn what_would_refuse_a_start_is_told_and_nothing_is_made() {
        for (config, part) in [
            ("{gateway: {mode: 'local', bind: 'lan'}}", "without a token"),
            ("{gateway: {mode: 'local', auth: {token: '${NONE}'}}}", "NONE"),
            ("{gateway: {mode: 'remote'}}", "gateway.remote.url"),
            ("{gateway: ", "not valid JSON5"),
        ] {
            let report = Home::new(config, &[]).report();
            assert_eq!(report.issues.len(), 1, "{report:?}");
            assert!(report.issues[0].message.contains(part), "{report:?}");
        }
        let home = Home::new("{gateway: {mode: 'local'}}", &[]);
        assert_eq!(home.report().issues, []);
        assert!(!home.locations().state().token_file().exists());
        let odd = Home::new("{gateway: {port: 1}}", &[]).report();
        assert!(odd.issues.is_empty() && odd.warnings[0].contains("gateway.mode is missing"), "{odd:?}");
    }

    #[test]
    fn what_the_schema_marks_as_secret_is_hidden() {
        let schema = keys::schema();
        for (path, key) in Key::root(&schema).leaves() {
            let mut value = json!("hush-hush");
            for name in path.iter().rev() {
                value = match name.as_str() {
                    "[]" => json!([value]),
                    "*" => json!({ "x": value }),
                    name => json!({ name: value }),
                };
            }
            let hidden = !Secrets::of(&value, []).redact(&value).to_string().contains("hush");
            assert!(hidden || !key.is_secret(), "{}", keys::joined(&path));
        }
    }
}
