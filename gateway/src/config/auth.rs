//! What callers must present: the one credential that counts, out of all that were given, and why.

use std::net::IpAddr;

use openclaw_schema::config::Secret;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::{
    AuthMode, BindMode, Config, ConfigError, Env, Locations, Note, ServeOptions, Source, Sourced,
    TailscaleMode, env, file::substitute_secret, serve::flag,
};
use crate::{
    settings::Auth,
    state::{ensure_token, read_token},
};

/// How many characters a token has at least that is shown to others than this machine: 64 bits in hexadecimal.
const MIN_TOKEN_CHARS: usize = 16;
/// How many characters a password has at least that is shown to others than this machine (NIST SP 800-63B).
const MIN_PASSWORD_CHARS: usize = 8;
/// How much of a fingerprint is shown, in hexadecimal digits: enough to tell secrets apart.
const FINGERPRINT_DIGITS: usize = 12;

/// What stands in examples where a secret is to be put. Case and separators do not matter.
const PLACEHOLDERS: [&str; 13] = [
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "yourtoken",
    "yourtokenhere",
    "yourpassword",
    "yourpasswordhere",
    "yoursecret",
    "yoursecrethere",
    "placeholder",
    "todo",
    "openclawredacted",
];

/// What is tried first by whoever guesses.
const COMMON_WORDS: [&str; 22] = [
    "password",
    "password1",
    "password123",
    "passw0rd",
    "secret",
    "token",
    "gatewaytoken",
    "admin",
    "administrator",
    "letmein",
    "welcome",
    "qwertyui",
    "qwertyuiop",
    "12345678",
    "123456789",
    "1234567890",
    "openclaw",
    "gateway",
    "default",
    "test",
    "testtest",
    "iloveyou",
];

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// A token: made by a machine, presented by programs.
    Token,
    /// A password: made up by a person.
    Password,
}

impl SecretKind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Password => "password",
        }
    }

    const fn min_chars(self) -> usize {
        match self {
            Self::Token => MIN_TOKEN_CHARS,
            Self::Password => MIN_PASSWORD_CHARS,
        }
    }
}

/// How the authentication of a gateway was decided.
#[derive(Debug)]
pub struct AuthReport {
    /// The mode, where the start is not refused.
    pub mode: Option<Sourced<AuthMode>>,
    /// Every credential that was given, in the order in which they count.
    pub candidates: Vec<Candidate>,
    /// Why the start is refused, if it is.
    pub refusal: Option<ConfigError>,
    /// What looks odd but is not refused.
    pub warning: Option<String>,
}

/// One credential that was given, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What it is.
    pub kind: SecretKind,
    /// Who gave it.
    pub source: Source,
    /// The beginning of its SHA-256 in hexadecimal. Only of a token that is long enough not to be found by trying:
    /// never of a password.
    pub fingerprint: Option<String>,
    /// Whether callers must present this one.
    pub is_used: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Who reaches the gateway, beside programs on its own machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a> {
    /// An address beyond loopback, if there is one, and who asked for it.
    pub(super) exposed: Option<(IpAddr, &'a Sourced<BindMode>)>,
    /// To whom tailscale makes it known, if to anybody.
    pub(super) tailscale: Option<&'a Sourced<TailscaleMode>>,
}

/// What callers must present to a gateway that is reached so.
pub(super) fn resolve(
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
    reach: Reach<'_>,
    purpose: Purpose,
) -> Result<(Auth, Vec<Note>, Option<String>), ConfigError> {
    let make = || match purpose {
        Purpose::Start => Ok(ensure_token(locations.state())?),
        Purpose::Preview => {
            Ok(read_token(locations.state())?.unwrap_or_else(|| "(made at the start)".into()))
        }
    };
    let decided = decide(locations, config, env, options, reach, make)?;
    let mut notes = vec![Note::new("auth", &decided.mode)];
    if let Some((kind, source)) = decided.used {
        notes.push(Note { name: kind.name(), value: "(secret)".to_owned(), source });
    }
    Ok((decided.auth, notes, decided.warning))
}

/// What settings are resolved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A gateway is started: a token that is missing is made.
    Start,
    /// Somebody wants to know what a start would say. Nothing is made.
    Preview,
}

/// What was decided.
struct Decided {
    auth: Auth,
    mode: Sourced<AuthMode>,
    used: Option<(SecretKind, Source)>,
    warning: Option<String>,
}

/// Decides what callers must present. `make` gives the generated token.
fn decide(
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
    reach: Reach<'_>,
    make: impl FnOnce() -> Result<SecretString, ConfigError>,
) -> Result<Decided, ConfigError> {
    let token = || {
        secret("--token", options.token.as_ref(), config.gateway.auth.token.as_ref(), env::GATEWAY_TOKEN, env)
    };
    let password = || {
        let (flag, file) = (options.password.as_ref(), config.gateway.auth.password.as_ref());
        secret("--password", flag, file, env::GATEWAY_PASSWORD, env)
    };
    let Reach { exposed, tailscale } = reach;
    let is_exposed = exposed.is_some() || tailscale.is_some();
    let refuse_exposed = |lack| match exposed {
        Some((address, bind)) => {
            Err(ConfigError::Exposed { address, bind: bind.value, origin: bind.source.clone(), lack })
        }
        None => Ok(()),
    };
    let mode = match explicit_mode(config, options) {
        Some(mode) => mode,
        // As in stock: password if there is one, else token.
        None => match (token()?, password()?) {
            (Some(token), Some(password)) => {
                return Err(ConfigError::AmbiguousAuth { token: token.source, password: password.source });
            }
            (None, Some(_)) => Sourced::default(AuthMode::Password),
            (_, None) => Sourced::default(AuthMode::Token),
        },
    };
    match (tailscale, mode.value) {
        (Some(tailscale), _)
            if tailscale.value == TailscaleMode::Funnel && mode.value != AuthMode::Password =>
        {
            return Err(ConfigError::FunnelWithoutPassword {
                tailscale: tailscale.source.clone(),
                mode: mode.value,
                origin: mode.source,
            });
        }
        (Some(tailscale), AuthMode::None) => {
            return Err(ConfigError::TailscaleNoAuth {
                tailscale: tailscale.source.clone(),
                origin: mode.source,
            });
        }
        _ => {}
    }
    let mut warning = None;
    let (auth, used) = match mode.value {
        AuthMode::None => {
            let given = [("--token", &options.token), ("--password", &options.password)];
            if let Some((name, _)) = given.into_iter().find(|(_, secret)| secret.is_some()) {
                return Err(ConfigError::UnusedSecret { secret: Source::Flag(name), mode: mode.source });
            }
            refuse_exposed("without authentication")?;
            (Auth::None, None)
        }
        AuthMode::Token => {
            let token = match token()? {
                Some(token) => {
                    warning = ensure_strong(SecretKind::Token, &token, is_exposed)?;
                    token
                }
                None => {
                    refuse_exposed("without a token")?;
                    let path = locations.state().token_file();
                    Sourced::new(make()?, Source::Generated { path })
                }
            };
            (Auth::Token(token.value), Some((SecretKind::Token, token.source)))
        }
        AuthMode::Password => {
            let password =
                password()?.ok_or_else(|| ConfigError::NoPassword { mode: mode.source.clone() })?;
            warning = ensure_strong(SecretKind::Password, &password, is_exposed)?;
            (Auth::Password(password.value), Some((SecretKind::Password, password.source)))
        }
        AuthMode::TrustedProxy => {
            return Err(ConfigError::UnsupportedAuth { origin: mode.source, mode: mode.value });
        }
    };
    Ok(Decided { auth, mode, used, warning })
}

/// Refuses a secret that is none, and beyond loopback one that can be guessed; on loopback such a one is worth a
/// warning.
fn ensure_strong(
    kind: SecretKind,
    secret: &Sourced<SecretString>,
    is_exposed: bool,
) -> Result<Option<String>, ConfigError> {
    let (text, origin) = (secret.value.expose_secret(), &secret.source);
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(ConfigError::UnusableSecret { origin: origin.clone() });
    }
    if is_placeholder(text) {
        return Err(ConfigError::PlaceholderSecret { origin: origin.clone() });
    }
    let is_common = COMMON_WORDS.contains(&plain(text).as_str());
    let length = text.chars().count();
    if is_exposed && length < kind.min_chars() {
        let (kind, least) = (kind.name(), kind.min_chars());
        return Err(ConfigError::ShortSecret { origin: origin.clone(), kind, length, least });
    }
    match (is_common, is_exposed) {
        (true, true) => Err(ConfigError::CommonSecret { origin: origin.clone() }),
        (true, false) => Ok(Some(format!(
            "{origin} is a word that is tried first: every program on this machine can guess the {}",
            kind.name()
        ))),
        (false, _) => Ok(None),
    }
}

fn is_placeholder(text: &str) -> bool {
    let is_in = |open, close| text.starts_with(open) && text.ends_with(close);
    let mut letters = text.chars();
    let first = letters.next();
    PLACEHOLDERS.contains(&plain(text).as_str())
        || is_in('<', '>')
        || is_in('[', ']')
        || (text.len() > 2 && letters.all(|letter| Some(letter) == first))
}

/// Lower case, letters and digits alone.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Says of each credential that was given whether it counts, and why not. Nothing is made or changed.
#[must_use]
pub fn explain_auth(locations: &Locations, config: &Config, env: &Env, options: &ServeOptions) -> AuthReport {
    let env = &env.with_config(config);
    let bind = super::serve::bind_mode(config, options);
    let exposed = super::serve::exposed_host(config, env, &bind);
    // What the start would make is nobody's secret yet.
    let make = || Ok(read_token(locations.state())?.unwrap_or_else(|| String::new().into()));
    let tailscale = super::serve::tailscale_mode(config, options);
    let reach = Reach { exposed: exposed.map(|host| (host, &bind)), tailscale: tailscale.as_ref() };
    let (decided, refusal) = match decide(locations, config, env, options, reach, make) {
        Ok(decided) => (Some(decided), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let mut candidates = Vec::new();
    for kind in [SecretKind::Token, SecretKind::Password] {
        let mut better: Option<Source> = None;
        for given in given(kind, locations, config, env, options) {
            let used = decided.as_ref().and_then(|decided| decided.used.as_ref());
            let is_used = used.is_some_and(|used| *used == (kind, given.source.clone()));
            let reason = if is_used {
                None
            } else {
                Some(reason(kind, &given, better.as_ref(), decided.as_ref(), refusal.as_ref()))
            };
            let fingerprint = given.secret.as_ref().ok().and_then(|secret| fingerprint(kind, secret));
            better = better.or_else(|| Some(given.source.clone()));
            candidates.push(Candidate { kind, source: given.source, fingerprint, is_used, reason });
        }
    }
    let warning = decided.as_ref().and_then(|decided| decided.warning.clone());
    AuthReport { mode: decided.map(|decided| decided.mode), candidates, refusal, warning }
}

/// A credential that somebody gave, or why it cannot be read.
struct Given {
    source: Source,
    secret: Result<SecretString, String>,
}

/// Every credential of a kind, in the order in which they count.
fn given(
    kind: SecretKind,
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
) -> Vec<Given> {
    let (name, option, file, variable) = match kind {
        SecretKind::Token => ("--token", &options.token, &config.gateway.auth.token, env::GATEWAY_TOKEN),
        SecretKind::Password => {
            ("--password", &options.password, &config.gateway.auth.password, env::GATEWAY_PASSWORD)
        }
    };
    let mut found = Vec::new();
    if let Some(secret) = option {
        found.push(Given { source: Source::Flag(name), secret: Ok(secret.clone()) });
    }
    if let Some(secret) = file {
        let read = substitute_secret(secret, env).map(|secret| secret.value);
        found.push(Given { source: secret.source.clone(), secret: read.map_err(|error| error.to_string()) });
    }
    match env.text(variable) {
        Ok(Some(text)) => found.push(Given { source: text.source, secret: Ok(text.value.into()) }),
        Ok(None) => {}
        Err(error) => {
            found.push(Given { source: Source::Env(variable), secret: Err(error.to_string()) });
        }
    }
    if kind == SecretKind::Token {
        let source = Source::Generated { path: locations.state().token_file() };
        match read_token(locations.state()) {
            Ok(Some(secret)) => found.push(Given { source, secret: Ok(secret) }),
            Ok(None) => {}
            Err(error) => found.push(Given { source, secret: Err(error.to_string()) }),
        }
    }
    found
}

/// Why a credential does not count.
fn reason(
    kind: SecretKind,
    given: &Given,
    better: Option<&Source>,
    decided: Option<&Decided>,
    refusal: Option<&ConfigError>,
) -> String {
    if let Err(problem) = &given.secret {
        return problem.clone();
    }
    if let Some(decided) = decided
        && decided.used.as_ref().is_none_or(|(used, _)| *used != kind)
    {
        return format!("the mode is \"{}\" ({})", decided.mode.value, decided.mode.source);
    }
    match (better, refusal) {
        (Some(better), _) => format!("{better} comes before it"),
        (None, Some(refusal)) => format!("the start is refused: {refusal}"),
        (None, None) => "it is not asked for".to_owned(),
    }
}

/// The beginning of a digest. Whoever sees one of a short or common secret finds the secret by trying.
fn fingerprint(kind: SecretKind, secret: &SecretString) -> Option<String> {
    let text = secret.expose_secret();
    let is_long = text.chars().count() >= MIN_TOKEN_CHARS && !COMMON_WORDS.contains(&plain(text).as_str());
    (kind == SecretKind::Token && is_long && !is_placeholder(text)).then(|| {
        let digest = Sha256::digest(text.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hex[..FINGERPRINT_DIGITS].to_owned()
    })
}

/// The mode that the user asked for, if any. A secret on the command line asks for its kind: it must not be
/// ignored because of what a file says.
fn explicit_mode(config: &Config, options: &ServeOptions) -> Option<Sourced<AuthMode>> {
    if let Some(mode) = flag("--auth", options.auth) {
        return Some(mode);
    }
    match (&options.token, &options.password) {
        (Some(_), None) => Some(Sourced::new(AuthMode::Token, Source::Flag("--token"))),
        (None, Some(_)) => Some(Sourced::new(AuthMode::Password, Source::Flag("--password"))),
        (Some(_), Some(_)) | (None, None) => config.gateway.auth.mode.clone(),
    }
}

/// A secret of the server: flag, then file, then environment. cli.md section 1.8.
fn secret(
    flag: &'static str,
    option: Option<&SecretString>,
    file: Option<&Sourced<Secret>>,
    variable: &'static str,
    env: &Env,
) -> Result<Option<Sourced<SecretString>>, ConfigError> {
    let secret = match (option, file) {
        (Some(option), _) => Some(Sourced::new(option.clone(), Source::Flag(flag))),
        (None, Some(file)) => Some(substitute_secret(file, env)?),
        (None, None) => env.text(variable)?.map(|text| Sourced::new(text.value.into(), text.source)),
    };
    match secret {
        Some(secret) if secret.value.expose_secret().trim().is_empty() => {
            Err(ConfigError::EmptySecret { origin: secret.source })
        }
        secret => Ok(secret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LocationFlags;

    const TOKEN: &str = "0123456789abcdef0123";

    fn report(config: &str, variables: &[(&'static str, &str)], options: &ServeOptions) -> AuthReport {
        let home = tempfile::tempdir().expect("a directory");
        let home_text = home.path().to_str().expect("a text");
        let env: Env = variables.iter().copied().chain([(env::HOME, home_text)]).collect();
        let locations = Locations::resolve(&LocationFlags::default(), &env).expect("there is a home");
        let path = std::path::Path::new("/c.json");
        let config = Config::parse(config, path).expect("a configuration");
        explain_auth(&locations, &config, &env, options)
    }

    fn rows(report: &AuthReport) -> Vec<(String, bool, Option<&str>)> {
        let row = |candidate: &Candidate| {
            (format!("{} {}", candidate.kind.name(), candidate.source), candidate.is_used)
        };
        report
            .candidates
            .iter()
            .map(|candidate| {
                let (name, is_used) = row(candidate);
                (name, is_used, candidate.reason.as_deref())
            })
            .collect()
    }

    #[test]
    fn each_candidate_says_why_it_does_not_count() {
        let options = ServeOptions { token: Some(TOKEN.into()), ..ServeOptions::default() };
        let report = report(
            "{gateway: {auth: {token: 'other', password: '${NONE}'}}}",
            &[(env::GATEWAY_TOKEN, "third")],
            &options,
        );
        assert_eq!(
            rows(&report),
            [
                ("token flag --token".to_owned(), true, None),
                (
                    "token gateway.auth.token in /c.json".to_owned(),
                    false,
                    Some("flag --token comes before it")
                ),
                ("token env OPENCLAW_GATEWAY_TOKEN".to_owned(), false, Some("flag --token comes before it")),
                (
                    "password gateway.auth.password in /c.json".to_owned(),
                    false,
                    Some(
                        "gateway.auth.password in /c.json refers to the environment variable NONE, which is not set"
                    )
                ),
            ]
        );
        assert_eq!(report.candidates[0].fingerprint.as_deref().map(str::len), Some(FINGERPRINT_DIGITS));
        assert_eq!(report.candidates[1].fingerprint, None, "a short token could be found by trying");
        let text = format!("{report:?}");
        assert!(!text.contains(TOKEN) && !text.contains("other") && !text.contains("third"), "{text}");
    }

    #[test]
    fn a_password_has_no_fingerprint_and_a_refusal_is_told() {
        let long = "a long and winding password";
        let report = report(
            "{gateway: {bind: 'lan', auth: {token: 'short'}}}",
            &[(env::GATEWAY_PASSWORD, long)],
            &ServeOptions { auth: Some(AuthMode::Token), ..ServeOptions::default() },
        );
        assert!(report.mode.is_none());
        let refusal = report.refusal.as_ref().expect("the token is short").to_string();
        assert!(refusal.contains("at least 16"), "{refusal}");
        let password = report.candidates.last().expect("there is one");
        assert_eq!((password.kind, &password.fingerprint), (SecretKind::Password, &None));
        assert!(report.candidates[0].reason.as_ref().expect("it is refused").contains("at least 16"));
    }

    #[test]
    fn nothing_is_made() {
        let report = report("{}", &[], &ServeOptions::default());
        assert!(report.candidates.is_empty() && report.refusal.is_none());
        assert_eq!(report.mode.map(|mode| mode.value), Some(AuthMode::Token));
    }
}
