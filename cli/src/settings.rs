//! From what was typed to what a client command works with: which gateway, which credential, which bounds.
//! Environment and configuration are read by the gateway's `config`, and only as far as the flags leave open.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_client::Fingerprint;
use openclaw_gateway::{
    config::{
        ClientFlags, ClientTarget, ConfigError, DiscoveryDefaults, Env, LocationFlags, Locations,
        ProbeTarget, ProbeTargets, Source, Sourced, discovery_defaults, resolve_client, resolve_probe,
    },
    state::{RuntimeRecord, StateDir},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    args::{ClientArgs, GlobalArgs},
    error::{CliError, Fault, Result},
    exit::Exit,
    output::shown_url,
    probe::{Kind, Target, Trust, report::Advice},
    trust::TrustStore,
};

/// The bound on a command when `--timeout` is not given. cli.md section 3.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Stands for no bound where the client library asks for one.
const ONE_DAY: Duration = Duration::from_secs(86_400);

/// What a client command works with.
#[derive(Debug)]
pub(crate) struct ClientSettings {
    target: ClientTarget,
    state: StateDir,
    /// The profile, if one is named.
    profile: Option<String>,
    /// `--timeout`: absent when not given, zero for no bound.
    timeout: Option<Duration>,
    waits_by_design: bool,
    /// The one TLS certificate, or key, that is trusted.
    tls_fingerprint: Option<Fingerprint>,
    trust: TrustStore,
    /// Whether a gateway on another host may be spoken to in plain.
    allows_plaintext: bool,
    /// How a gateway of the same profile is started.
    start: String,
}

impl ClientSettings {
    /// Finds the gateway that the flags mean. With `--url` and a credential nothing is read from the disk.
    pub(crate) fn resolve(args: &ClientArgs, global: &GlobalArgs) -> Result<Self> {
        let flags = client_flags(args)?;
        let env = Env::of_process();
        let locations = Locations::resolve(&global.location_flags(), &env).map_err(|error| wrong(&error))?;
        let target = resolve_client(&locations, &env, &flags).map_err(|error| wrong(&error))?;
        let trust = TrustStore::new(locations.state());
        let given = flag_fingerprint(args)?;
        let configured = target.tls_fingerprint.as_ref();
        let pinned = pin(&target.url.value, given, target.record.as_ref(), configured, &trust)?;
        Ok(Self {
            trust,
            allows_plaintext: args.allow_plaintext || env.allows_plaintext(),
            tls_fingerprint: pinned,
            target,
            state: locations.state().clone(),
            profile: locations.profile().map(str::to_owned),
            timeout: args.timeout.map(Duration::from_millis),
            waits_by_design: false,
            start: global.command("gateway run"),
        })
    }

    /// The command waits for as long as something takes: only `--timeout` bounds it.
    pub(crate) fn wait_by_design(&mut self) {
        self.waits_by_design = true;
    }

    /// The address.
    pub(crate) fn url(&self) -> &str {
        &self.target.url.value
    }

    /// The token or password; absent where none is needed.
    pub(crate) fn credential(&self) -> Option<&SecretString> {
        self.target.credential.as_ref().map(|credential| &credential.value)
    }

    /// The certificates that were trusted.
    pub(crate) fn trust(&self) -> &TrustStore {
        &self.trust
    }

    /// Whether a gateway on another host may be spoken to in plain.
    pub(crate) fn allows_plaintext(&self) -> bool {
        self.allows_plaintext
    }

    /// The one TLS certificate, or key, that is trusted; what the platform trusts when absent.
    pub(crate) fn tls_fingerprint(&self) -> Option<Fingerprint> {
        self.tls_fingerprint
    }

    /// Who chose the address, in words.
    pub(crate) fn origin(&self) -> String {
        format!("address from: {}", self.url_source())
    }

    fn url_source(&self) -> String {
        source_of_url(&self.target.url.source, self.profile.as_deref())
    }

    /// Where the device identity of the command line lies.
    pub(crate) fn identity_dir(&self) -> PathBuf {
        identity_dir(&self.state)
    }

    /// Who gave the credential, in words.
    pub(crate) fn credential_origin(&self) -> String {
        match &self.target.credential {
            Some(credential) => format!("credential from: {}", credential.source),
            None => "no credential was found".to_owned(),
        }
    }

    /// What to do when nobody answers.
    pub(crate) fn start_hint(&self) -> String {
        format!("start one with `{}`, or name another with `--url` or `--port`", self.start)
    }

    /// The gateway as JSON errors show it.
    pub(crate) fn describe(&self) -> Value {
        json!({ "url": shown_url(self.url()), "urlSource": self.url_source() })
    }

    /// The bound on the whole command.
    pub(crate) fn whole_timeout(&self) -> Option<Duration> {
        match self.timeout {
            Some(Duration::ZERO) => None,
            None if self.waits_by_design => None,
            given => Some(given.unwrap_or(DEFAULT_TIMEOUT)),
        }
    }

    /// The bound on connecting; absent for the client library's own.
    pub(crate) fn connect_timeout(&self) -> Option<Duration> {
        self.timeout.map(|limit| if limit.is_zero() { ONE_DAY } else { limit })
    }

    /// The bound on one call beyond what its params ask to wait.
    pub(crate) fn call_timeout(&self) -> Option<Duration> {
        match self.timeout {
            Some(Duration::ZERO) => None,
            given => Some(given.unwrap_or(DEFAULT_TIMEOUT)),
        }
    }
}

/// What `gateway probe` and `gateway status` work with.
#[derive(Debug)]
pub(crate) struct ProbeSettings {
    pub(crate) targets: ProbeTargets,
    pub(crate) locations: Locations,
    /// What the command may take; absent when nothing bounds it.
    pub(crate) budget: Option<Duration>,
    /// Where the device identity of the command line lies, if there is one.
    pub(crate) identity_dir: PathBuf,
    pub(crate) advice: Advice,
    /// `--tls-fingerprint`.
    fingerprint: Option<Fingerprint>,
    allows_plaintext: bool,
    /// Where to look for gateways that announce themselves, or why that cannot be said.
    pub(crate) discovery: std::result::Result<DiscoveryDefaults, ConfigError>,
}

impl ProbeSettings {
    /// Finds the gateways that may be meant. `budget` holds when `--timeout` is not given.
    pub(crate) fn resolve(args: &ClientArgs, global: &GlobalArgs, budget: Duration) -> Result<Self> {
        let flags = client_flags(args)?;
        let env = Env::of_process();
        let locations = Locations::resolve(&global.location_flags(), &env).map_err(|error| wrong(&error))?;
        let targets = resolve_probe(&locations, &env, &flags).map_err(|error| wrong(&error))?;
        let advice = Advice { run: global.command("gateway run"), status: global.command("gateway status") };
        let budget = match args.timeout {
            Some(0) => None,
            given => Some(given.map_or(budget, Duration::from_millis)),
        };
        let identity_dir = identity_dir(locations.state());
        Ok(Self {
            fingerprint: flag_fingerprint(args)?,
            allows_plaintext: args.allow_plaintext || env.allows_plaintext(),
            discovery: env
                .with_state_file(locations.state())
                .and_then(|env| discovery_defaults(&targets.config, &env)),
            ..Self::new(targets, locations, budget, identity_dir, advice)
        })
    }

    /// Those of a command without flags.
    pub(crate) fn new(
        targets: ProbeTargets,
        locations: Locations,
        budget: Option<Duration>,
        identity_dir: PathBuf,
        advice: Advice,
    ) -> Self {
        let discovery = Ok(DiscoveryDefaults::default());
        Self {
            targets,
            locations,
            budget,
            identity_dir,
            advice,
            discovery,
            fingerprint: None,
            allows_plaintext: false,
        }
    }

    /// When looking must end, so that `reserve` of the budget is left.
    pub(crate) fn deadline(&self, started: Instant, reserve: Duration) -> Instant {
        let budget = self.budget.map_or(ONE_DAY, |budget| budget.min(ONE_DAY));
        started + budget.saturating_sub(reserve.min(budget / 4))
    }

    /// What is trusted at `url`: see [`pin`].
    pub(crate) fn trust(
        &self,
        url: &str,
        record: Option<&RuntimeRecord>,
        configured: Option<&Sourced<String>>,
    ) -> Result<Trust> {
        let store = TrustStore::new(self.locations.state());
        let fingerprint = pin(url, self.fingerprint, record, configured, &store)?;
        Ok(Trust { fingerprint, plaintext: self.allows_plaintext })
    }
}

impl Target {
    /// A gateway that flags, environment or configuration name.
    pub(crate) fn new(
        kind: Kind,
        found: &ProbeTarget,
        active: bool,
        settings: &ProbeSettings,
    ) -> Result<Self> {
        let credential = found.credential.as_ref();
        let configured = settings.targets.config.gateway.remote.tls_fingerprint.as_ref();
        let configured = configured.filter(|_| kind == Kind::ConfigRemote);
        Ok(Self {
            trust: settings.trust(&found.url.value, found.record.as_ref(), configured)?,
            kind,
            origin: source_of_url(&found.url.source, settings.locations.profile()),
            url: found.url.value.clone(),
            active,
            credential_origin: credential.map(|credential| credential.source.to_string()),
            credential: credential.map(|credential| credential.value.clone()),
            credential_problem: found.credential_problem.as_ref().map(ToString::to_string),
            identity_dir: settings.identity_dir.clone(),
        })
    }
}

/// The environment, with the file `.env` of the state directory below it, and where state and configuration are.
pub(crate) fn surroundings(global: &GlobalArgs) -> std::result::Result<(Env, Locations), ConfigError> {
    let env = Env::of_process();
    let locations = Locations::resolve(&global.location_flags(), &env)?;
    Ok((env.with_state_file(locations.state())?, locations))
}

fn client_flags(args: &ClientArgs) -> Result<ClientFlags> {
    let token = match &args.token_file {
        Some(path) => Some(secret_file(path)?),
        // An empty text counts as not given.
        None => args.token.clone().filter(|token| !token.is_empty()).map(SecretString::from),
    };
    let password = args.password.clone().filter(|password| !password.is_empty()).map(SecretString::from);
    Ok(ClientFlags { url: args.url.clone(), port: args.port, token, password })
}

/// Where the device identity of the command line lies: OpenClaw's own, if it left one in a file, or else ours. A newer
/// OpenClaw takes a file in its folder for one that it forgot to clear away.
fn identity_dir(state: &StateDir) -> PathBuf {
    let shared = state.root().join("identity");
    if shared.join("device.json").is_file() { shared } else { state.gateway_dir().join("device") }
}

/// Who chose an address, in words.
fn source_of_url(source: &Source, profile: Option<&str>) -> String {
    match (source, profile) {
        (Source::Default, Some(profile)) => format!("default port of profile {profile}"),
        (Source::Default, None) => "default port".to_owned(),
        (source, _) => source.to_string(),
    }
}

impl GlobalArgs {
    /// The profile, as `config` takes it.
    pub(crate) fn location_flags(&self) -> LocationFlags {
        LocationFlags { profile: self.profile.clone(), dev: self.dev }
    }

    /// `openclaw <rest>` for the same profile.
    pub(crate) fn command(&self, rest: &str) -> String {
        match &self.profile {
            Some(profile) => format!("openclaw --profile {} {rest}", crate::flags::quoted(profile)),
            None if self.dev => format!("openclaw --dev {rest}"),
            None => format!("openclaw {rest}"),
        }
    }
}

/// The one certificate, or key, that is trusted at `url`: that of the flag, else that of the running gateway's record, else
/// the configured one, else what was trusted there before.
fn pin(
    url: &str,
    flag: Option<Fingerprint>,
    record: Option<&RuntimeRecord>,
    configured: Option<&Sourced<String>>,
    store: &TrustStore,
) -> Result<Option<Fingerprint>> {
    if flag.is_some() {
        return Ok(flag);
    }
    if let Some(text) = record.and_then(|record| record.tls_fingerprint.as_deref()) {
        return fingerprint("tlsFingerprint of the running gateway's record", text).map(Some);
    }
    if let Some(configured) = configured {
        return fingerprint(&configured.source.to_string(), &configured.value).map(Some);
    }
    // The trusted certificates are read for the addresses alone that can show one.
    if is_encrypted(url) { store.find(url) } else { Ok(None) }
}

/// `--tls-fingerprint`.
fn flag_fingerprint(args: &ClientArgs) -> Result<Option<Fingerprint>> {
    let given = args.tls_fingerprint.as_deref();
    given.map(|text| fingerprint("--tls-fingerprint", text)).transpose()
}

fn is_encrypted(url: &str) -> bool {
    ["wss://", "https://"].iter().any(|scheme| url.starts_with(scheme))
}

/// A fingerprint, and who gave it.
pub(crate) fn fingerprint(origin: &str, text: &str) -> Result<Fingerprint> {
    text.parse().map_err(|error| CliError::usage(format!("{origin} cannot be used")).cause(error).into())
}

/// The secret in a file, without the line ends at its end.
pub(crate) fn secret_file(path: &Path) -> Result<SecretString> {
    let text = fs::read_to_string(path).map_err(|error| {
        CliError::usage(format!("the secret cannot be read from `{}`", path.display())).cause(error)
    })?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(CliError::usage(format!("`{}` holds no secret: it is empty", path.display())).into());
    }
    Ok(SecretString::from(secret))
}

/// What is wrong with flags, environment and configuration of a client command.
pub(crate) fn wrong(error: &ConfigError) -> CliError {
    let told = match error {
        ConfigError::UrlWithoutCredential => {
            CliError::new(Fault::Credentials, "CREDENTIALS_REQUIRED", Exit::Auth, error.to_string())
        }
        _ => CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Usage, error.to_string()),
    };
    told.with_sources_and_hint(error)
}

impl CliError {
    /// Adds what lies behind a configuration error, and what to change.
    pub(crate) fn with_sources_and_hint(self, error: &ConfigError) -> Self {
        let told = self.with_sources(error);
        match error.hint() {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(timeout: Option<u64>) -> ClientSettings {
        let args = ClientArgs {
            url: Some("ws://127.0.0.1:1".to_owned()),
            password: Some("secret".to_owned()),
            timeout,
            ..ClientArgs::default()
        };
        ClientSettings::resolve(&args, &GlobalArgs::default()).expect("flags are enough")
    }

    #[test]
    fn a_timeout_bounds_the_whole_and_zero_sets_none() {
        assert_eq!(settings(None).whole_timeout(), Some(DEFAULT_TIMEOUT));
        assert_eq!(settings(Some(5)).whole_timeout(), Some(Duration::from_millis(5)));
        assert_eq!(settings(Some(0)).whole_timeout(), None);
        assert_eq!(settings(Some(0)).call_timeout(), None);
    }

    #[test]
    fn what_waits_by_design_is_bounded_only_by_the_flag() {
        let bound = |timeout| {
            let mut settings = settings(timeout);
            settings.wait_by_design();
            settings.whole_timeout()
        };
        assert_eq!(bound(None), None);
        assert_eq!(bound(Some(5)), Some(Duration::from_millis(5)));
    }

    #[test]
    fn a_url_without_a_credential_is_an_error_of_its_own() {
        let args = ClientArgs {
            url: Some("ws://127.0.0.1:1".to_owned()),
            token: Some(String::new()),
            ..ClientArgs::default()
        };
        let Err(crate::error::Failure::Error(error)) = ClientSettings::resolve(&args, &GlobalArgs::default())
        else {
            panic!("an empty token counts as none");
        };
        assert_eq!(error.exit, Exit::Auth);
        assert_eq!(error.envelope()["error"]["type"], "gateway_credentials_required");
    }

    #[test]
    fn hints_name_the_profile() {
        let dev = GlobalArgs { dev: true, ..GlobalArgs::default() };
        assert_eq!(dev.command("gateway run"), "openclaw --dev gateway run");
        let work = GlobalArgs { profile: Some("work".to_owned()), ..GlobalArgs::default() };
        assert_eq!(work.command("gateway run"), "openclaw --profile work gateway run");
    }
}
