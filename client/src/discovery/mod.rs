//! Finding gateways: multicast DNS on this machine's networks, and unicast DNS-SD in wide-area domains.
//!
//! [`discover`] collects what is there; [`Browser`] hands out each gateway as soon as it is known.
//!
//! ```no_run
//! use openclaw_client::discovery::{DiscoverOptions, discover};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let found = discover(&DiscoverOptions::default()).await;
//! for beacon in &found.beacons {
//!     println!("{} {}", beacon.display_name, beacon.ws_url);
//! }
//! # }
//! ```
//!
//! What is found is not trusted: anybody on the network can announce anything. The address comes from SRV and
//! address records; the TXT record gives hints for people, a fingerprint among them. Texts come without control
//! characters, so that they can be printed.

mod beacon;
mod merge;
mod multicast;
mod unicast;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use beacon::Beacon;
pub use openclaw_schema::discovery::{InterfaceRules, LOCAL_DOMAIN, SERVICE_TYPE};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant as TokioInstant, timeout_at},
};

use self::{beacon::Sighting, merge::Found};

/// How long [`discover`] looks when nobody says. cli.md section 8.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest a browse can take: a bound on what is added to a moment.
const LONGEST: Duration = Duration::from_secs(3600);
/// How much may wait between the sources and the browser. More makes them wait.
const QUEUE: usize = 64;

/// Where and how long to look.
#[derive(Debug, Clone)]
pub struct DiscoverOptions {
    /// The bound on the whole. Looking ends before it when nothing more is to be expected.
    pub timeout: Duration,
    /// Whether to look with multicast DNS, in `local.`.
    pub multicast: bool,
    /// The wide-area domains to look in with unicast DNS, such as `openclaw.internal`. [`domain`] checks one.
    pub domains: Vec<String>,
    /// The name server for the wide-area domains; the system's when absent.
    pub dns_server: Option<SocketAddr>,
    /// The interfaces for multicast DNS.
    pub interfaces: InterfaceRules,
}

impl Default for DiscoverOptions {
    fn default() -> Self {
        Self {
            timeout: DEFAULT_TIMEOUT,
            multicast: true,
            domains: Vec::new(),
            dns_server: None,
            interfaces: InterfaceRules::default(),
        }
    }
}

impl DiscoverOptions {
    /// The domains that are looked in, `local.` first, each with its dot at the end.
    #[must_use]
    pub fn all_domains(&self) -> Vec<String> {
        let mut all: Vec<String> = self.multicast.then(|| LOCAL_DOMAIN.to_owned()).into_iter().collect();
        for given in &self.domains {
            if let Ok(domain) = domain(given)
                && !all.contains(&domain)
            {
                all.push(domain);
            }
        }
        all
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    /// The gateways, sorted by name.
    pub beacons: Vec<Beacon>,
    /// What kept it from finding more.
    pub warnings: Vec<Warning>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Something that kept a browse from finding more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// For programs: `no_interfaces`, `multicast_failed`, `dns_failed` or `bad_domain`.
    pub code: &'static str,
    /// For people: one sentence, no full stop.
    pub message: String,
}

/// Looks for gateways until the time is up or nothing more is to be expected.
pub async fn discover(options: &DiscoverOptions) -> Discovery {
    let mut browser = Browser::start(options);
    while browser.next().await.is_some() {}
    browser.finish()
}

/// Looks for gateways, and hands them out one by one. Dropped, it stops looking.
#[derive(Debug)]
pub struct Browser {
    begun: Instant,
    deadline: TokioInstant,
    messages: mpsc::Receiver<Message>,
    found: Found,
    warnings: Vec<Warning>,
    /// Ends the sources with the browser.
    _sources: JoinSet<()>,
}

/// What a source tells the browser. A source that is dropped has nothing more to say.
#[derive(Debug)]
enum Message {
    Seen(Sighting),
    /// The instance of a domain is no more.
    Gone {
        instance: String,
        domain: String,
    },
    Warning(Warning),
}

impl Browser {
    /// Begins to look, on the tokio runtime that this is called on.
    #[must_use]
    pub fn start(options: &DiscoverOptions) -> Self {
        let begun = Instant::now();
        let deadline = TokioInstant::from_std(begun) + options.timeout.min(LONGEST);
        let (sender, messages) = mpsc::channel(QUEUE);
        let mut sources = JoinSet::new();
        let mut warnings = Vec::new();
        if options.multicast {
            sources.spawn(multicast::browse(options.interfaces.clone(), sender.clone()));
        }
        let mut domains = Vec::new();
        for given in &options.domains {
            match domain(given) {
                Ok(domain) if domains.contains(&domain) => {}
                Ok(domain) => domains.push(domain),
                Err(message) => warnings.push(Warning { code: "bad_domain", message }),
            }
        }
        for domain in domains {
            let server = options.dns_server;
            sources.spawn(unicast::browse(domain, server, deadline, sender.clone()));
        }
        Self { begun, deadline, messages, found: Found::default(), warnings, _sources: sources }
    }

    /// The next gateway; absent when the time is up or nothing more is to be expected. A gateway comes again when
    /// its addresses or its hints changed: [`Beacon::is_same`] tells.
    pub async fn next(&mut self) -> Option<Beacon> {
        loop {
            let message = timeout_at(self.deadline, self.messages.recv()).await.ok().flatten()?;
            match message {
                Message::Seen(sighting) => {
                    if let Some(beacon) = self.found.add(sighting) {
                        return Some(beacon);
                    }
                }
                Message::Gone { instance, domain } => self.found.remove(&instance, &domain),
                Message::Warning(warning) => {
                    if !self.warnings.contains(&warning) {
                        self.warnings.push(warning);
                    }
                }
            }
        }
    }

    /// Stops looking. What was found so far, merged and sorted.
    #[must_use]
    pub fn finish(self) -> Discovery {
        Discovery {
            beacons: self.found.into_beacons(),
            warnings: self.warnings,
            elapsed: self.begun.elapsed(),
        }
    }
}

/// A wide-area domain as results name it: lower case, with a dot at the end.
///
/// # Errors
///
/// A sentence, when `given` is no domain that unicast DNS can be asked for.
pub fn domain(given: &str) -> Result<String, String> {
    /// RFC 1035 section 2.3.4, less what the service and an instance take up.
    const MAX_BYTES: usize = 150;
    let name = given.trim().trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name == "local" {
        return Err(
            "`local` is the domain of multicast DNS: it is looked in anyway, and no name server has it"
                .to_owned(),
        );
    }
    if name.len() > MAX_BYTES || !name.split('.').all(is_label) {
        let shown: String = beacon::clean(given, MAX_BYTES);
        return Err(format!("`{shown}` is no domain name; write one such as `openclaw.internal`"));
    }
    Ok(format!("{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_checked_and_made_alike() {
        for given in ["openclaw.internal", "OpenClaw.Internal.", " openclaw.internal "] {
            assert_eq!(domain(given).as_deref(), Ok("openclaw.internal."));
        }
        let long = "a.".repeat(100);
        for given in ["", ".", "local", "local.", "a..b", "a b", "-a.b", "a\u{1b}[2J", &long] {
            let error = domain(given).expect_err("it is refused");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
        let options = DiscoverOptions {
            domains: vec!["B.example".into(), "b.example.".into(), "..".into()],
            ..DiscoverOptions::default()
        };
        assert_eq!(options.all_domains(), ["local.", "b.example."]);
    }

    #[tokio::test]
    async fn nowhere_to_look_finds_nothing_without_waiting() {
        let options = DiscoverOptions { multicast: false, ..DiscoverOptions::default() };
        let found = discover(&options).await;
        assert!(found.beacons.is_empty() && found.warnings.is_empty());
    }

    #[tokio::test]
    async fn a_name_server_that_is_silent_costs_the_timeout_and_is_told() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let options = DiscoverOptions {
            timeout: Duration::from_millis(300),
            multicast: false,
            domains: vec!["openclaw.internal".into()],
            dns_server: Some(silent.local_addr().expect("it is bound")),
            ..DiscoverOptions::default()
        };
        let found = discover(&options).await;
        assert!(found.beacons.is_empty());
        assert_eq!(found.warnings.first().map(|warning| warning.code), Some("dns_failed"));
        assert!(found.elapsed >= Duration::from_millis(200), "{:?}", found.elapsed);
    }
}
