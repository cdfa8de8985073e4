//! Which gateway a client command calls, and what it presents there. The rules are those of cli.md section 1.6.
//!
//! Nothing is read from the disk before it is needed: with `--url` nothing at all.

use std::{cell::OnceCell, net::Ipv4Addr, path::PathBuf};

use openclaw_schema::config::{Port, Secret};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Config, ConfigError, Env, GatewayMode, Locations, Source, Sourced, env,
    file::{port, substitute, substitute_secret},
};
use crate::state::{RuntimeRecord, read_token};

/// The flags that say which gateway is meant.
#[derive(Debug, Clone, Default)]
pub struct ClientFlags {
    /// `--url`.
    pub url: Option<String>,
    /// `--port`: the gateway on this machine with this port.
    pub port: Option<u16>,
    /// `--token`; an empty one counts as not given.
    pub token: Option<SecretString>,
    /// `--password`; an empty one counts as not given. The token comes first.
    pub password: Option<SecretString>,
}

/// The gateway to call.
#[derive(Debug)]
pub struct ClientTarget {
    /// Its address.
    pub url: Sourced<String>,
    /// What to present there: a gateway takes a secret as token or as password, whatever its mode. Absent when none
    /// is known; the gateway may ask for none.
    pub credential: Option<Sourced<SecretString>>,
    /// `gateway.remote.tlsFingerprint`, for the gateway of `gateway.remote.url`.
    pub tls_fingerprint: Option<Sourced<String>>,
    /// What the gateway says of itself, when its record says where it is.
    pub record: Option<RuntimeRecord>,
}

/// Finds the gateway to call and the credential for it.
///
/// The address is the first of: `--url`; `--port`; `OPENCLAW_GATEWAY_URL`; `gateway.remote.url` when `gateway.mode` is
/// `remote`; this machine, with the port of `OPENCLAW_GATEWAY_PORT`, of the gateway that runs in the state directory,
/// of `gateway.port`, or of the profile.
///
/// The credential is a flag, else what belongs to such an address: nothing more for `--url`; the environment for
/// `OPENCLAW_GATEWAY_URL`; for the others also the configuration, and on this machine the generated token.
///
/// # Errors
///
/// Flags that exclude each other; `--url` without a credential; what is wrong with the configuration, if it is needed.
pub fn resolve_client(
    locations: &Locations,
    env: &Env,
    flags: &ClientFlags,
) -> Result<ClientTarget, ConfigError> {
    let sources = Sources::new(locations, env, flags);
    if let Some(url) = &flags.url {
        if flags.port.is_some() {
            return Err(ConfigError::UrlAndPort);
        }
        let credential = sources.flag().ok_or(ConfigError::UrlWithoutCredential)?;
        return Ok(ClientTarget {
            url: Sourced::new(url.clone(), Source::Flag("--url")),
            credential: Some(credential),
            tls_fingerprint: None,
            record: None,
        });
    }
    if flags.port.is_some() {
        return sources.local();
    }
    if let Some(url) = sources.env()?.text(env::GATEWAY_URL)? {
        let credential = match sources.flag() {
            Some(credential) => Some(credential),
            None => match variable(sources.env()?, env::GATEWAY_TOKEN)? {
                Some(credential) => Some(credential),
                None => variable(sources.env()?, env::GATEWAY_PASSWORD)?,
            },
        };
        return Ok(ClientTarget { url, credential, tls_fingerprint: None, record: None });
    }
    let config = sources.config()?;
    if let Some(mode) = &config.gateway.mode
        && mode.value == GatewayMode::Remote
    {
        let url = config.gateway.remote.url.as_ref();
        let url = url.ok_or_else(|| ConfigError::NoRemoteUrl { origin: mode.source.clone() })?;
        let env = sources.all_env()?;
        let url = substitute(url, env)?;
        let pin = config.gateway.remote.tls_fingerprint.as_ref();
        return Ok(ClientTarget {
            url,
            credential: sources.remote_credential()?,
            tls_fingerprint: pin.map(|pin| substitute(pin, env)).transpose()?,
            record: None,
        });
    }
    sources.local()
}

/// The gateways that `gateway probe` looks at, each with what is presented there.
#[derive(Debug)]
pub struct ProbeTargets {
    /// The one of `--url` or `OPENCLAW_GATEWAY_URL`.
    pub explicit: Option<ProbeTarget>,
    /// The one of `gateway.remote.url`.
    pub remote: Option<ProbeTarget>,
    /// Whether client commands call that one: `gateway.mode` is `remote`.
    pub remote_is_active: bool,
    /// The one on this machine.
    pub local: ProbeTarget,
    /// What is presented through a tunnel to `gateway.remote.sshTarget`: as for `gateway.remote.url`.
    pub tunnel_credential: Option<Sourced<SecretString>>,
    /// What is presented to a gateway that only a flag names: a flag.
    pub flag_credential: Option<Sourced<SecretString>>,
    /// The port of a gateway on this machine: `--port`, `OPENCLAW_GATEWAY_PORT`, `gateway.port`, or the profile's. The
    /// one that runs may have been started with another.
    pub port: Sourced<u16>,
    /// The configuration; empty when it cannot be read.
    pub config: Config,
    /// Why it cannot be read.
    pub config_problem: Option<ConfigError>,
    /// `gateway.remote.sshTarget`, its variables replaced.
    pub ssh_target: Option<Sourced<String>>,
    /// `gateway.remote.sshIdentity`, its variables and `~` replaced.
    pub ssh_identity: Option<PathBuf>,
}

/// One gateway that is looked at.
#[derive(Debug)]
pub struct ProbeTarget {
    /// Its address.
    pub url: Sourced<String>,
    /// What to present there.
    pub credential: Option<Sourced<SecretString>>,
    /// Why a credential that is configured cannot be used.
    pub credential_problem: Option<ConfigError>,
    /// What the gateway says of itself, when its record says where it is.
    pub record: Option<RuntimeRecord>,
}

/// Finds the gateways to look at. Addresses and credentials follow the rules of [`resolve_client`]; with `--port` the
/// one on this machine is the only one. A configuration that cannot be read is told, and counts as empty.
///
/// # Errors
///
/// Flags that exclude each other; `--url` without a credential; an environment variable that cannot be used.
pub fn resolve_probe(
    locations: &Locations,
    env: &Env,
    flags: &ClientFlags,
) -> Result<ProbeTargets, ConfigError> {
    let (config, config_problem) = match Config::load(locations.config_file()) {
        Ok(config) => (config, None),
        Err(problem) => (Config::parse("", locations.config_file())?, Some(problem)),
    };
    let sources = Sources { config: OnceCell::from(config), ..Sources::new(locations, env, flags) };
    let explicit = match (&flags.url, sources.env()?.text(env::GATEWAY_URL)?) {
        (None, None) => None,
        (None, Some(_)) if flags.port.is_some() => None,
        _ => {
            let ClientTarget { url, credential, record, .. } = resolve_client(locations, env, flags)?;
            Some(ProbeTarget { url, credential, credential_problem: None, record })
        }
    };
    let (tunnel_credential, remote_problem) = usable(sources.remote_credential());
    let (local_credential, local_problem) = usable(sources.local_credential());
    let (url, record) = sources.this_machine()?;
    let local = ProbeTarget { url, credential: local_credential, credential_problem: local_problem, record };
    let (port, flag_credential) = (sources.port()?, sources.flag());

    let env = sources.all_env()?.clone();
    let env = &env;
    let config = sources.config.into_inner().expect("it was set above");
    let section = &config.gateway.remote;
    let remote_url = section.url.as_ref().filter(|_| flags.port.is_none());
    let remote = remote_url.map(|url| substitute(url, env)).transpose()?.map(|url| ProbeTarget {
        url,
        credential: tunnel_credential.clone(),
        credential_problem: remote_problem,
        record: None,
    });
    let ssh_target = section.ssh_target.as_ref().map(|target| substitute(target, env)).transpose()?;
    let ssh_identity = section.ssh_identity.as_ref().map(|path| substitute(path, env)).transpose()?;
    let ssh_identity = ssh_identity.map(|path| env.expand_home(path.value.as_ref())).transpose()?;
    let remote_is_active = config.gateway.mode.as_ref().is_some_and(|mode| mode.value == GatewayMode::Remote);
    Ok(ProbeTargets {
        explicit,
        remote,
        remote_is_active,
        local,
        tunnel_credential,
        flag_credential,
        port,
        ssh_target,
        ssh_identity,
        config,
        config_problem,
    })
}

/// A credential, or why it cannot be used.
fn usable(found: Result<Credential, ConfigError>) -> (Credential, Option<ConfigError>) {
    match found {
        Ok(credential) => (credential, None),
        Err(problem) => (None, Some(problem)),
    }
}

/// Where credentials come from.
struct Sources<'a> {
    locations: &'a Locations,
    env: &'a Env,
    flags: &'a ClientFlags,
    /// Read when it is first asked for.
    config: OnceCell<Config>,
    /// The environment with the file of the state directory, when it is first asked for.
    filed_env: OnceCell<Env>,
    /// The same with the variables of the configuration.
    all_env: OnceCell<Env>,
}

type Credential = Option<Sourced<SecretString>>;

fn variable(env: &Env, name: &'static str) -> Result<Credential, ConfigError> {
    Ok(env.text(name)?.map(|text| text.map(SecretString::from)))
}

impl<'a> Sources<'a> {
    fn new(locations: &'a Locations, env: &'a Env, flags: &'a ClientFlags) -> Self {
        let (filed_env, all_env) = (OnceCell::new(), OnceCell::new());
        Self { locations, env, flags, config: OnceCell::new(), filed_env, all_env }
    }

    fn env(&self) -> Result<&Env, ConfigError> {
        if let Some(env) = self.filed_env.get() {
            return Ok(env);
        }
        let env = self.env.with_state_file(self.locations.state())?;
        Ok(self.filed_env.get_or_init(|| env))
    }

    fn all_env(&self) -> Result<&Env, ConfigError> {
        if let Some(env) = self.all_env.get() {
            return Ok(env);
        }
        let env = self.env()?.with_config(self.config()?);
        Ok(self.all_env.get_or_init(|| env))
    }

    fn config(&self) -> Result<&Config, ConfigError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Config::load(self.locations.config_file())?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The gateway on this machine.
    fn local(&self) -> Result<ClientTarget, ConfigError> {
        let (url, record) = self.this_machine()?;
        Ok(ClientTarget { url, credential: self.local_credential()?, tls_fingerprint: None, record })
    }

    /// The port of a gateway on this machine, whichever runs.
    fn port(&self) -> Result<Sourced<u16>, ConfigError> {
        if let Some(given) = self.flags.port {
            return Ok(Sourced::new(given, Source::Flag("--port")));
        }
        if let Some(text) = self.env()?.text(env::GATEWAY_PORT)? {
            return port(text);
        }
        if let Some(text) = self.all_env()?.text(env::GATEWAY_PORT)? {
            return port(text);
        }
        let configured = self.config()?.gateway.port.clone();
        Ok(configured
            .map(|port| port.map(Port::get))
            .unwrap_or_else(|| Sourced::default(self.locations.default_port())))
    }

    /// Where the gateway on this machine is. The record of one that runs comes before the configuration.
    /// It says more of the gateway on a port that was named, too.
    fn this_machine(&self) -> Result<(Sourced<String>, Option<RuntimeRecord>), ConfigError> {
        let port = self.port()?;
        let is_named = !matches!(port.source, Source::File { .. } | Source::Default);
        if let Some(record) = RuntimeRecord::read(self.locations.state())
            && (!is_named || record.port == port.value)
        {
            let recorded = Source::Record { path: self.locations.state().runtime_record_file() };
            let source = if is_named { port.source } else { recorded };
            return Ok((Sourced::new(record.local_url(), source), Some(record)));
        }
        Ok((Sourced::new(format!("ws://{}:{}", Ipv4Addr::LOCALHOST, port.value), port.source), None))
    }

    fn flag(&self) -> Credential {
        [("--token", &self.flags.token), ("--password", &self.flags.password)]
            .into_iter()
            .filter_map(|(name, secret)| Some(Sourced::new(secret.clone()?, Source::Flag(name))))
            .find(|secret| !secret.value.expose_secret().is_empty())
    }

    fn key(&self, secret: Option<&Sourced<Secret>>) -> Result<Credential, ConfigError> {
        let Some(secret) = secret else { return Ok(None) };
        substitute_secret(secret, self.all_env()?).map(Some)
    }

    /// For a gateway on this machine: flag, its own section of the file, environment, the generated token, the section
    /// for a remote one.
    fn local_credential(&self) -> Result<Credential, ConfigError> {
        if let Some(flag) = self.flag() {
            return Ok(Some(flag));
        }
        let gateway = &self.config()?.gateway;
        let (auth, remote) = (&gateway.auth, &gateway.remote);
        // In password mode a token that is set too is another gateway's business.
        let (first, second) = match auth.mode.as_ref().map(|mode| mode.value) {
            Some(super::AuthMode::Password) => (&auth.password, &auth.token),
            _ => (&auth.token, &auth.password),
        };
        let mut credential = self.key(first.as_ref().or(second.as_ref()))?;
        if credential.is_none() {
            credential = variable(self.all_env()?, env::GATEWAY_TOKEN)?;
        }
        if credential.is_none() {
            credential = variable(self.all_env()?, env::GATEWAY_PASSWORD)?;
        }
        if credential.is_none() {
            // Made by the gateway that runs here: what is meant for another one comes after it.
            let state = self.locations.state();
            let source = Source::Generated { path: state.token_file() };
            credential = read_token(state)?.map(|token| Sourced::new(token, source));
        }
        if credential.is_none() {
            credential = self.key(remote.token.as_ref().or(remote.password.as_ref()))?;
        }
        Ok(credential)
    }

    /// For a gateway on another machine. The token: its section of the file, environment, the section for one on this
    /// machine. Else the password: environment, its section, the other section.
    fn remote_credential(&self) -> Result<Credential, ConfigError> {
        if let Some(flag) = self.flag() {
            return Ok(Some(flag));
        }
        let gateway = &self.config()?.gateway;
        let (auth, remote) = (&gateway.auth, &gateway.remote);
        let mut credential = self.key(remote.token.as_ref())?;
        if credential.is_none() {
            credential = variable(self.all_env()?, env::GATEWAY_TOKEN)?;
        }
        if credential.is_none() {
            credential = variable(self.all_env()?, env::GATEWAY_PASSWORD)?;
        }
        if credential.is_none() {
            let last = remote.password.as_ref().or(auth.token.as_ref()).or(auth.password.as_ref());
            credential = self.key(last)?;
        }
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        config::{LocationFlags, RemoteTransport, SshHostKeyPolicy},
        state::ensure_token,
    };

    /// One call on a machine of its own.
    struct Call {
        directory: tempfile::TempDir,
        variables: Vec<(&'static str, &'static str)>,
        flags: ClientFlags,
    }

    impl Call {
        fn new(variables: &[(&'static str, &'static str)], flags: ClientFlags) -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            Self { directory, variables: variables.to_vec(), flags }
        }

        fn env(&self) -> Env {
            let home = (env::HOME, self.directory.path().to_str().expect("a text"));
            self.variables.iter().copied().chain([home]).collect()
        }

        fn locations(&self) -> Locations {
            Locations::resolve(&LocationFlags::default(), &self.env()).expect("there is a home")
        }

        fn config_file(&self) -> PathBuf {
            self.directory.path().join(".openclaw/openclaw.json")
        }

        fn configure(&self, config: &str) {
            let path = self.config_file();
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it creates");
            std::fs::write(&path, config).expect("it writes");
        }

        fn record(&self, addresses: &[&str], port: u16) {
            let record = RuntimeRecord {
                pid: std::process::id(),
                port,
                addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
                instance_id: "i".to_owned(),
                version: "0.1.0".to_owned(),
                dialects: vec!["jsonrpc".to_owned()],
                started_at_ms: 4_102_444_800_000,
                tls_fingerprint: None,
                tailscale_url: None,
            };
            record.write(self.locations().state()).expect("it writes");
        }

        fn resolve(&self) -> Result<ClientTarget, ConfigError> {
            resolve_client(&self.locations(), &self.env(), &self.flags)
        }

        /// Address, its source, credential, its source; with `STATE` for the state directory.
        fn found(&self) -> [String; 4] {
            let target = self.resolve().expect("it is found");
            let state = self.locations().state().root().display().to_string();
            let (credential, source) = match target.credential {
                Some(credential) => {
                    (credential.value.expose_secret().to_owned(), credential.source.to_string())
                }
                None => (String::new(), String::new()),
            };
            [target.url.value, target.url.source.to_string(), credential, source]
                .map(|text| text.replace(&state, "STATE"))
        }

        fn error(&self) -> (String, String) {
            let error = self.resolve().expect_err("it is refused");
            let state = self.locations().state().root().display().to_string();
            (error.to_string().replace(&state, "STATE"), error.hint().unwrap_or_default())
        }
    }

    fn secret(text: &str) -> Option<SecretString> {
        Some(text.into())
    }

    fn flags() -> ClientFlags {
        ClientFlags::default()
    }

    const ALL_SECRETS: &[(&str, &str)] =
        &[(env::GATEWAY_TOKEN, "env-token"), (env::GATEWAY_PASSWORD, "env-password")];

    #[test]
    fn the_address_is_the_first_that_is_given() {
        let local = "{gateway: {port: 3, auth: {token: 't'}}}";
        let remote = "{gateway: {mode: 'remote', port: 3, auth: {token: 't'}, remote: {url: 'wss://r'}}}";
        let url = (env::GATEWAY_URL, "ws://e");
        let port = (env::GATEWAY_PORT, "2");
        let flag_url = || ClientFlags { url: Some("ws://f".into()), token: secret("x"), ..flags() };
        let flag_port = || ClientFlags { port: Some(1), ..flags() };
        for (given, variables, config, record, address, from) in [
            (flag_url(), vec![url, port], remote, true, "ws://f", "flag --url"),
            (flag_port(), vec![url, port], remote, true, "ws://127.0.0.1:1", "flag --port"),
            (flags(), vec![url, port], remote, true, "ws://e", "env OPENCLAW_GATEWAY_URL"),
            (flags(), vec![port], remote, true, "wss://r", "gateway.remote.url in STATE/openclaw.json"),
            (flags(), vec![port], local, true, "ws://127.0.0.1:2", "env OPENCLAW_GATEWAY_PORT"),
            (
                flags(),
                vec![],
                local,
                true,
                "ws://127.0.0.1:9",
                "running gateway in STATE/gateway/runtime.json",
            ),
            (flags(), vec![], local, false, "ws://127.0.0.1:3", "gateway.port in STATE/openclaw.json"),
            (flags(), vec![], "", false, "ws://127.0.0.1:18789", "default"),
        ] {
            let call = Call::new(&variables, given);
            call.configure(config);
            if record {
                call.record(&["127.0.0.1:9"], 9);
            }
            let [found, source, ..] = call.found();
            assert_eq!((found.as_str(), source.as_str()), (address, from));
        }
    }

    #[test]
    fn the_record_says_where_a_gateway_listens_that_is_not_on_loopback() {
        let call = Call::new(&[], flags());
        call.record(&["100.101.1.2:9"], 9);
        let target = call.resolve().expect("it is found");
        assert_eq!(target.url.value, "ws://100.101.1.2:9");
        assert_eq!(target.record.expect("it is found").dialects, ["jsonrpc"]);
    }

    #[test]
    fn the_profile_has_its_port() {
        let call = Call::new(&[], flags());
        let flags = LocationFlags { profile: None, dev: true };
        let locations = Locations::resolve(&flags, &call.env()).expect("there is a home");
        let target = resolve_client(&locations, &call.env(), &call.flags).expect("it is found");
        assert_eq!(target.url.value, "ws://127.0.0.1:19001");
        assert!(!locations.state().root().exists(), "a call creates nothing");
    }

    #[test]
    fn a_url_gets_the_credential_that_comes_with_it_and_no_other() {
        let url = || ClientFlags { url: Some("ws://f".into()), ..flags() };
        let refused = (
            "--url needs --token or --password: configured credentials and those in the environment are not \
             sent to it"
                .to_owned(),
            "pass --token or --password".to_owned(),
        );
        for given in [
            url(),
            ClientFlags { token: secret(""), ..url() },
            ClientFlags { token: secret(""), password: secret(""), ..url() },
        ] {
            let call = Call::new(ALL_SECRETS, given);
            call.configure("{gateway: {auth: {token: 't'}, remote: {url: 'ws://f', token: 'r'}}}");
            assert_eq!(call.error(), refused);
        }
        for (given, credential, from) in [
            (ClientFlags { token: secret("x"), ..url() }, "x", "flag --token"),
            (ClientFlags { password: secret("y"), ..url() }, "y", "flag --password"),
            (ClientFlags { token: secret(""), password: secret("y"), ..url() }, "y", "flag --password"),
            (ClientFlags { token: secret("x"), password: secret("y"), ..url() }, "x", "flag --token"),
        ] {
            let call = Call::new(ALL_SECRETS, given);
            assert_eq!(call.found(), ["ws://f", "flag --url", credential, from]);
        }
        let call = Call::new(&[], ClientFlags { port: Some(1), token: secret("x"), ..url() });
        assert_eq!(
            call.error(),
            ("--url and --port exclude each other".to_owned(), "use one of them".to_owned())
        );
    }

    #[test]
    fn an_address_and_a_credential_from_flags_need_nothing_from_the_disk() {
        for given in [
            ClientFlags { url: Some("ws://f".into()), token: secret("x"), ..flags() },
            ClientFlags { port: Some(1), token: secret("x"), ..flags() },
        ] {
            let call = Call::new(&[], given);
            call.configure("this is not JSON5");
            call.resolve().expect("the broken file is not read");
        }
        let call = Call::new(&[(env::GATEWAY_URL, "ws://e")], flags());
        call.configure("this is not JSON5");
        call.resolve().expect("the broken file is not read");
    }

    #[test]
    fn a_url_of_the_environment_gets_the_environments_credential() {
        let url = (env::GATEWAY_URL, "ws://e");
        let token = (env::GATEWAY_TOKEN, "env-token");
        let password = (env::GATEWAY_PASSWORD, "env-password");
        for (given, variables, credential, from) in [
            (ClientFlags { token: secret("x"), ..flags() }, vec![url, token], "x", "flag --token"),
            (flags(), vec![url, token, password], "env-token", "env OPENCLAW_GATEWAY_TOKEN"),
            (flags(), vec![url, password], "env-password", "env OPENCLAW_GATEWAY_PASSWORD"),
            (flags(), vec![url], "", ""),
        ] {
            let call = Call::new(&variables, given);
            call.configure("{gateway: {auth: {token: 't'}, remote: {token: 'r'}}}");
            ensure_token(call.locations().state()).expect("it is made");
            let [.., found, source] = call.found();
            assert_eq!((found.as_str(), source.as_str()), (credential, from));
        }
    }

    #[test]
    fn on_this_machine_the_file_comes_before_the_environment() {
        let auth = "auth: {token: 't', password: 'p'}";
        let remote = "remote: {token: 'rt', password: 'rp'}";
        let file = "in STATE/openclaw.json";
        let token = || ClientFlags { token: secret("x"), ..flags() };
        let password = || ClientFlags { password: secret("y"), ..flags() };
        let env_password = &ALL_SECRETS[1..];
        for (given, variables, section, credential, from) in [
            (token(), ALL_SECRETS, auth.to_owned(), "x", "flag --token".to_owned()),
            (password(), ALL_SECRETS, auth.to_owned(), "y", "flag --password".to_owned()),
            (
                ClientFlags { token: secret(""), ..flags() },
                ALL_SECRETS,
                auth.to_owned(),
                "t",
                format!("gateway.auth.token {file}"),
            ),
            (flags(), ALL_SECRETS, format!("{auth}, {remote}"), "t", format!("gateway.auth.token {file}")),
            (
                flags(),
                ALL_SECRETS,
                "auth: {mode: 'password', token: 't', password: 'p'}".to_owned(),
                "p",
                format!("gateway.auth.password {file}"),
            ),
            (
                flags(),
                ALL_SECRETS,
                "auth: {password: 'p'}".to_owned(),
                "p",
                format!("gateway.auth.password {file}"),
            ),
            (flags(), ALL_SECRETS, remote.to_owned(), "env-token", "env OPENCLAW_GATEWAY_TOKEN".to_owned()),
            (
                flags(),
                env_password,
                remote.to_owned(),
                "env-password",
                "env OPENCLAW_GATEWAY_PASSWORD".to_owned(),
            ),
            (flags(), &[], remote.to_owned(), "rt", format!("gateway.remote.token {file}")),
            (
                flags(),
                &[],
                "remote: {password: 'rp'}".to_owned(),
                "rp",
                format!("gateway.remote.password {file}"),
            ),
            (flags(), &[], String::new(), "", String::new()),
            (
                flags(),
                &[("T", "from env")],
                "auth: {token: '${T}'}".to_owned(),
                "from env",
                format!("gateway.auth.token {file}"),
            ),
        ] {
            let call = Call::new(variables, given);
            call.configure(&format!("{{gateway: {{{section}}}}}"));
            let [.., found, source] = call.found();
            assert_eq!((found.as_str(), source), (credential, from), "{section}");
        }

        let call = Call::new(&[], flags());
        let token = ensure_token(call.locations().state()).expect("it is made");
        let [.., found, source] = call.found();
        assert_eq!(
            (found.as_str(), source.as_str()),
            (token.expose_secret(), "generated in STATE/gateway/token")
        );
    }

    #[test]
    fn for_another_machine_its_own_section_comes_first() {
        let remote = "remote: {url: 'wss://r', token: 'rt', password: 'rp'}, auth: {token: 't'}";
        let url = "remote: {url: 'wss://r'}";
        let file = "in STATE/openclaw.json";
        for (given, variables, section, credential, from) in [
            (
                ClientFlags { password: secret("y"), ..flags() },
                ALL_SECRETS,
                remote.to_owned(),
                "y",
                "flag --password".to_owned(),
            ),
            (flags(), ALL_SECRETS, remote.to_owned(), "rt", format!("gateway.remote.token {file}")),
            (
                flags(),
                ALL_SECRETS,
                "remote: {url: 'wss://r', password: 'rp'}".to_owned(),
                "env-token",
                "env OPENCLAW_GATEWAY_TOKEN".to_owned(),
            ),
            (
                flags(),
                &ALL_SECRETS[1..],
                "remote: {url: 'wss://r', password: 'rp'}".to_owned(),
                "env-password",
                "env OPENCLAW_GATEWAY_PASSWORD".to_owned(),
            ),
            (
                flags(),
                &[],
                "remote: {url: 'wss://r', password: 'rp'}, auth: {token: 't'}".to_owned(),
                "rp",
                format!("gateway.remote.password {file}"),
            ),
            (flags(), &[], format!("{url}, auth: {{token: 't'}}"), "t", format!("gateway.auth.token {file}")),
            (
                flags(),
                &[],
                format!("{url}, auth: {{password: 'p'}}"),
                "p",
                format!("gateway.auth.password {file}"),
            ),
            (flags(), &[], url.to_owned(), "", String::new()),
        ] {
            let call = Call::new(variables, given);
            call.configure(&format!("{{gateway: {{mode: 'remote', {section}}}}}"));
            ensure_token(call.locations().state()).expect("it is made");
            let [address, _, found, source] = call.found();
            assert_eq!(
                (address.as_str(), found.as_str(), source),
                ("wss://r", credential, from),
                "{section}"
            );
        }
    }

    #[test]
    fn what_leaves_no_gateway_to_call_is_refused() {
        let call = Call::new(&[], flags());
        call.configure("{gateway: {mode: 'remote'}}");
        assert_eq!(
            call.error(),
            (
                "gateway.mode in STATE/openclaw.json is \"remote\", and gateway.remote.url is not set"
                    .to_owned(),
                "set gateway.remote.url, or pass --url or --port".to_owned()
            )
        );
        let call = Call::new(&[(env::GATEWAY_PORT, "abc")], flags());
        assert_eq!(
            call.error().0,
            "env OPENCLAW_GATEWAY_PORT must be a whole number from 1 to 65535, not \"abc\""
        );
        let call = Call::new(&[], flags());
        call.configure("{gateway: {auth: {token: '${NONE}'}}}");
        assert_eq!(
            call.error(),
            (
                "gateway.auth.token in STATE/openclaw.json refers to the environment variable NONE, which is not \
                 set"
                .to_owned(),
                "set NONE; a literal `${` is written as `$${`".to_owned()
            )
        );
    }

    /// Address and credential of a target.
    fn shown(target: Option<&ProbeTarget>) -> Option<(String, String)> {
        let target = target?;
        let credential = target.credential.as_ref();
        let credential = credential.map(|credential| credential.value.expose_secret().to_owned());
        Some((target.url.value.clone(), credential.unwrap_or_default()))
    }

    #[test]
    fn a_probe_looks_at_the_named_the_remote_and_this_machine() {
        let config = "{gateway: {port: 3, auth: {token: 't'}, remote: {url: 'wss://r', token: 'rt'}}}";
        let pair = |url: &str, credential: &str| Some((url.to_owned(), credential.to_owned()));
        let (local, remote) = (pair("ws://127.0.0.1:3", "t"), pair("wss://r", "rt"));
        for (given, variables, explicit, remote, local) in [
            (flags(), vec![], None, remote.clone(), local.clone()),
            (
                flags(),
                vec![(env::GATEWAY_URL, "ws://e"), (env::GATEWAY_TOKEN, "et")],
                pair("ws://e", "et"),
                remote,
                local,
            ),
            (
                // A flag is presented to all.
                ClientFlags { url: Some("ws://f".into()), token: secret("x"), ..flags() },
                vec![],
                pair("ws://f", "x"),
                pair("wss://r", "x"),
                pair("ws://127.0.0.1:3", "x"),
            ),
            (
                // A port means this machine alone.
                ClientFlags { port: Some(1), ..flags() },
                vec![(env::GATEWAY_URL, "ws://e")],
                None,
                None,
                pair("ws://127.0.0.1:1", "t"),
            ),
        ] {
            let call = Call::new(&variables, given);
            call.configure(config);
            let found = resolve_probe(&call.locations(), &call.env(), &call.flags).expect("it is found");
            assert_eq!(
                (shown(found.explicit.as_ref()), shown(found.remote.as_ref()), shown(Some(&found.local))),
                (explicit, remote, local)
            );
            assert!(!found.remote_is_active && found.config_problem.is_none());
        }
        let call = Call::new(&[], ClientFlags { url: Some("ws://f".into()), ..flags() });
        let error = resolve_probe(&call.locations(), &call.env(), &call.flags).expect_err("it is refused");
        assert!(matches!(error, ConfigError::UrlWithoutCredential), "{error}");
    }

    #[test]
    fn a_probe_goes_on_without_what_cannot_be_read_and_says_so() {
        let call = Call::new(&[], flags());
        call.configure("{gateway: {port: ,}}");
        let found = resolve_probe(&call.locations(), &call.env(), &call.flags).expect("it is found");
        assert!(matches!(found.config_problem, Some(ConfigError::Syntax { .. })));
        assert_eq!(shown(Some(&found.local)), Some(("ws://127.0.0.1:18789".to_owned(), String::new())));
        call.configure("{gateway: {auth: {token: '${NONE}'}}}");
        let found = resolve_probe(&call.locations(), &call.env(), &call.flags).expect("it is found");
        assert!(matches!(found.local.credential_problem, Some(ConfigError::MissingVariable { .. })));
    }

    #[test]
    fn the_tunnel_is_configured_in_the_section_of_the_remote_gateway() {
        let call = Call::new(&[("H", "studio")], flags());
        call.configure(
            "{gateway: {mode: 'remote', remote: {sshTarget: 'ada@${H}:2', sshIdentity: '~/key', remotePort: 9, \
             transport: 'ssh', sshHostKeyPolicy: 'openssh', password: 'rp'}}}",
        );
        let found = resolve_probe(&call.locations(), &call.env(), &call.flags).expect("it is found");
        assert_eq!(found.ssh_target.map(|target| target.value).as_deref(), Some("ada@studio:2"));
        assert_eq!(found.ssh_identity, Some(call.directory.path().join("key")));
        assert!(found.remote_is_active && found.remote.is_none());
        let remote = &found.config.gateway.remote;
        assert_eq!(remote.remote_port.as_ref().map(|port| port.value.get()), Some(9));
        assert_eq!(remote.transport.as_ref().map(|transport| transport.value), Some(RemoteTransport::Ssh));
        let policy = remote.ssh_host_key_policy.as_ref().map(|policy| policy.value);
        assert_eq!(policy, Some(SshHostKeyPolicy::Openssh));
        let credential = found.tunnel_credential.expect("it is configured");
        assert_eq!((credential.value.expose_secret(), found.flag_credential.is_none()), ("rp", true));
    }
}
