//! Tests the table of `gateway/README.md` that says which source comes before which: with everything given, the first of
//! each row counts; without that one the next, and so on to the last.

use std::{collections::BTreeSet, fs};

use secrecy::{ExposeSecret as _, SecretString};

use super::{
    AuthMode, BindMode, ClientFlags, Config, Env, LocationFlags, Locations, LogLevel, ServeOptions, Source,
    env, resolve_client, resolve_settings,
};
use crate::state::{RuntimeRecord, ensure_token};

const README: &str = include_str!("../../README.md");

/// What one row is about.
struct Row {
    what: String,
    sources: Vec<String>,
}

fn rows() -> Vec<Row> {
    let (_, table) = README.split_once("| what | the first of |").expect("the page has the table");
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let (what, sources) = (cells.next().expect("a cell"), cells.next().expect("a second cell"));
            let sources = sources.split(", ").map(|source| source.trim_matches('`').to_owned()).collect();
            Row { what: what.to_owned(), sources }
        })
        .collect()
}

/// A machine on which some sources say something, each something of its own.
struct Machine {
    directory: tempfile::TempDir,
    given: BTreeSet<String>,
}

impl Machine {
    fn new(given: &[String]) -> Self {
        let machine = Self {
            directory: tempfile::tempdir().expect("a directory"),
            given: given.iter().cloned().collect(),
        };
        fs::create_dir_all(machine.directory.path().join(".openclaw")).expect("it creates");
        machine
    }

    fn has(&self, source: &str) -> bool {
        self.given.contains(source)
    }

    fn flag<T>(&self, name: &str, value: T) -> Option<T> {
        self.has(name).then_some(value)
    }

    fn env(&self) -> Env {
        let home = self.directory.path().to_str().expect("a text").to_owned();
        let variables = [
            (env::PROFILE, "by-variable"),
            (env::STATE_DIR, "/state"),
            (env::OPENCLAW_HOME, "/openclaw-home"),
            (env::CONFIG_PATH, "/config"),
            (env::GATEWAY_PORT, "2"),
            (env::GATEWAY_URL, "ws://by-variable"),
            (env::GATEWAY_TOKEN, "variable-token"),
            (env::GATEWAY_PASSWORD, "variable-password"),
            (env::LOG_LEVEL, "warn"),
        ];
        let given = variables.iter().filter(|(name, _)| self.has(name));
        given.map(|(name, value)| (*name, (*value).to_owned())).chain([(env::HOME, home)]).collect()
    }

    fn locations(&self) -> Locations {
        let flags =
            LocationFlags { profile: self.flag("--profile", "by-flag".to_owned()), dev: self.has("--dev") };
        Locations::resolve(&flags, &self.env()).expect("they are found")
    }

    /// The configuration, with each key that is given.
    fn configure(&self) -> Config {
        let keys = [
            ("gateway.port", "3"),
            ("gateway.bind", "'loopback'"),
            ("gateway.auth.mode", "'none'"),
            ("gateway.auth.token", "'file-token'"),
            ("gateway.auth.password", "'file-password'"),
            ("gateway.remote.url", "'wss://by-file'"),
            ("gateway.remote.token", "'remote-token'"),
            ("gateway.remote.password", "'remote-password'"),
            ("logging.level", "'debug'"),
        ];
        let value = |key: &str| {
            keys.iter().find(|(known, _)| *known == key && self.has(key)).map(|(_, value)| *value)
        };
        let member = |name: &str, key: &str| value(key).map(|value| format!("{name}: {value}, "));
        let mode = if self.has("gateway.remote.url") { "remote" } else { "local" };
        let text = format!(
            "{{gateway: {{mode: '{mode}', {}{}auth: {{{}{}{}}}, remote: {{{}{}{}}}}}, logging: {{{}}}}}",
            member("port", "gateway.port").unwrap_or_default(),
            member("bind", "gateway.bind").unwrap_or_default(),
            member("mode", "gateway.auth.mode").unwrap_or_default(),
            member("token", "gateway.auth.token").unwrap_or_default(),
            member("password", "gateway.auth.password").unwrap_or_default(),
            member("url", "gateway.remote.url").unwrap_or_default(),
            member("token", "gateway.remote.token").unwrap_or_default(),
            member("password", "gateway.remote.password").unwrap_or_default(),
            member("level", "logging.level").unwrap_or_default(),
        );
        let locations = self.locations();
        fs::write(locations.config_file(), text).expect("it writes");
        if self.has("the generated token") {
            ensure_token(locations.state()).expect("it is made");
        }
        if self.has("the gateway that runs") {
            let record = RuntimeRecord {
                pid: std::process::id(),
                port: 4,
                addresses: vec!["127.0.0.1:4".parse().expect("an address")],
                instance_id: "i".to_owned(),
                version: "0.1.0".to_owned(),
                dialects: Vec::new(),
                started_at_ms: 4_102_444_800_000,
                tls_fingerprint: None,
                tailscale_url: None,
            };
            record.write(locations.state()).expect("it writes");
        }
        Config::load(locations.config_file()).expect("it is good")
    }

    fn client(&self) -> ClientFlags {
        ClientFlags {
            url: self.flag("--url", "ws://by-flag".to_owned()),
            // Both at once are refused.
            port: self.flag("--port", 1).filter(|_| !self.has("--url")),
            token: self.flag("--token", SecretString::from("flag-token")),
            password: self.flag("--password", SecretString::from("flag-password")),
        }
    }

    fn serve(&self) -> ServeOptions {
        ServeOptions {
            port: self.flag("--port", 1),
            bind: self.flag("--bind", BindMode::Loopback),
            auth: self.flag("--auth", AuthMode::Token),
            token: self.flag("--token", "flag-token".into()),
            password: self.flag("--password", "flag-password".into()),
            log_level: self.flag("--log-level", LogLevel::Error),
            ..ServeOptions::default()
        }
    }

    /// Who said what the note of that name tells; nobody where the start is refused.
    fn served(&self, note: &str) -> Option<Source> {
        let config = self.configure();
        let resolved = resolve_settings(&self.locations(), &config, &self.env(), &self.serve()).ok()?;
        let note = resolved.notes.iter().find(|found| found.name == note).expect("it is noted");
        Some(note.source.clone())
    }
}

/// A source as the table names it.
fn named(source: &Source) -> String {
    match source {
        Source::Flag(name) | Source::Env(name) => (*name).to_owned(),
        Source::File { key, .. } => key.clone(),
        Source::Record { .. } => "the gateway that runs".to_owned(),
        Source::Generated { .. } => "the generated token".to_owned(),
        _ => "the default".to_owned(),
    }
}

/// The source that counts on `machine`.
fn winner(what: &str, machine: &Machine) -> Option<String> {
    let locations = machine.locations();
    let text = |path: &std::path::Path| path.display().to_string();
    let by_value = |value: &str, names: &[(&str, &str)]| {
        let found = names.iter().find(|(beginning, _)| value.starts_with(beginning));
        found.map_or_else(|| "the default".to_owned(), |(_, name)| (*name).to_owned())
    };
    Some(match what {
        "profile" => match (locations.profile(), machine.has("--dev")) {
            (Some("by-flag"), _) => "--profile".to_owned(),
            (Some("dev"), true) => "--dev".to_owned(),
            (Some("by-variable"), _) => env::PROFILE.to_owned(),
            _ => "the default".to_owned(),
        },
        "state directory" => {
            let home = text(machine.directory.path());
            let names =
                [("/state", env::STATE_DIR), ("/openclaw-home", env::OPENCLAW_HOME), (&home, env::HOME)];
            by_value(&text(locations.state().root()), &names)
        }
        "configuration file" => by_value(&text(locations.config_file()), &[("/config", env::CONFIG_PATH)]),
        "port of a gateway" => named(&machine.served("port")?),
        "bind mode of a gateway" => named(&machine.served("bind")?),
        "authentication mode of a gateway" => named(&machine.served("auth")?),
        "token of a gateway" => named(&machine.served("token")?),
        "password of a gateway" => named(&machine.served("password")?),
        "level of the log file" => {
            let config = machine.configure();
            let resolved = resolve_settings(&locations, &config, &machine.env(), &machine.serve());
            let level = resolved.expect("it starts").log.file.to_string();
            let names = [("error", "--log-level"), ("warn", env::LOG_LEVEL), ("debug", "logging.level")];
            by_value(&level, &names)
        }
        "address that a client calls" => {
            machine.configure();
            let mut flags = machine.client();
            // With an address goes a credential; which one is another row.
            flags.token = Some("x".into());
            named(&resolve_client(&locations, &machine.env(), &flags).expect("it is found").url.source)
        }
        "credential for a gateway on this machine" | "credential for `gateway.remote.url`" => {
            machine.configure();
            if what.contains("remote") {
                let text = fs::read_to_string(locations.config_file()).expect("it reads");
                let text = text.replace("mode: 'local'", "mode: 'remote'");
                let text = text.replace("remote: {", "remote: {url: 'wss://r', ");
                fs::write(locations.config_file(), text).expect("it writes");
            }
            let target = resolve_client(&locations, &machine.env(), &machine.client()).expect("it is found");
            let credential = target.credential?;
            assert!(!credential.value.expose_secret().is_empty());
            named(&credential.source)
        }
        other => panic!("{other:?} has no test"),
    })
}

#[test]
fn the_table_tells_which_source_counts() {
    let rows = rows();
    assert_eq!(rows.len(), 12);
    for Row { what, sources } in rows {
        for first in 0..sources.len() {
            let machine = Machine::new(&sources[first..]);
            let found = winner(&what, &machine);
            assert_eq!(found.as_deref(), Some(sources[first].as_str()), "{what}, of {:?}", &sources[first..]);
        }
    }
}
