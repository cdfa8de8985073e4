//! Announces a gateway with multicast DNS for as long as it serves, and says goodbye.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mdns_sd::{DaemonEvent, IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceInfo, UnregisterStatus};
use openclaw_schema::discovery::{LOCAL_DOMAIN, SERVICE_TYPE};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    names::{Names, TlsHint, hints},
    reach::Reach,
};
use crate::settings::Announcement;

/// The subsystem that the log names.
const TARGET: &str = "discovery";
/// How long a responder must last for its earlier failures to be forgotten.
const STABLE: Duration = Duration::from_secs(600);
/// The wait before the responder is started again after a failure; it doubles with each, up to the longest. It never
/// ends: what keeps a responder from its work, be it another machine, may go away. users.md R19 wants no loop.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// How many new names may be needed before it is clear that the network echoes or contests every one.
const MAX_RENAMES: u32 = 20;
/// How many answers may leave by one interface within a second. The responder keeps each record to one a second,
/// as RFC 6762 section 6 asks, but for the defence of its names and for answers to one machine alone: these are as
/// many as somebody asks for.
const MAX_ANSWERS: u32 = 20;
/// How long it is silent after more than that; it doubles each time, up to the longest. So a network that never stops
/// asking gets [`MAX_ANSWERS`] a minute in the end, and still finds the gateway.
const FIRST_SILENCE: Duration = Duration::from_secs(5);
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// How often the host's name and the certificate are looked at: they change while a gateway runs.
const SUBJECT_CHECK: Duration = Duration::from_secs(60);
/// How long saying goodbye may take. It is said twice, 120 ms apart, since packets get lost.
const GOODBYE_LIMIT: Duration = Duration::from_millis(400);
/// How long the goodbye waits for its second packet.
const GOODBYE_REPEAT: Duration = Duration::from_millis(150);
/// How many lines the log takes at once, and how long until it takes one more.
const LOG_BURST: u32 = 8;
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Says what is to be known about TLS at this moment; absent when the port is plain.
pub(crate) type AskTls = Box<dyn Fn() -> Option<TlsHint> + Send + Sync>;

/// What is announced.
struct Subject {
    announcement: Announcement,
    port: u16,
    tls: AskTls,
}

/// What is announced, as it is at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Description {
    names: Names,
    /// With the dot at the end.
    host: String,
    txt: Vec<(&'static str, String)>,
}

impl Subject {
    fn description(&self) -> Description {
        let names = Names::of_host(&self.announcement);
        let host = format!("{}.{LOCAL_DOMAIN}", names.host);
        let lan_host = Some(host.trim_end_matches('.'));
        let txt = hints(&self.announcement, &names, self.port, lan_host, (self.tls)().as_ref());
        Description { names, host, txt }
    }
}

/// Announces a gateway until it is withdrawn or dropped.
#[derive(Debug)]
pub(crate) struct Advertiser {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Advertiser {
    /// Begins to announce a gateway that listens on `addresses`, once `turn` is free: the gateway before it has said
    /// goodbye. Takes no time: all is done in a task of its own.
    #[must_use]
    pub(crate) fn start(
        announcement: Announcement,
        addresses: Vec<SocketAddr>,
        tls: AskTls,
        turn: Arc<Mutex<()>>,
    ) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let _turn = tokio::select! {
                turn = turn.lock() => turn,
                () = stopped.cancelled() => return,
            };
            supervise(announcement, addresses, tls, stopped).await;
        });
        Self { stop, task }
    }

    /// Says goodbye. It is begun by the call; the future ends when it is done, within half a second.
    pub(crate) fn withdraw(mut self) -> impl Future<Output = ()> {
        self.stop.cancel();
        async move {
            // A responder that hangs is left behind with its thread.
            let _ = timeout(GOODBYE_LIMIT + GOODBYE_REPEAT, &mut self.task).await;
        }
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a responder ended.
enum End {
    /// It was told to.
    Stopped,
    /// What is announced is otherwise now: the host's name, or the certificate.
    Changed,
    /// It answered more than is good for a network, by this interface.
    Flooded(String),
    /// It cannot go on.
    Failed(String),
}

/// Keeps a responder running, but not at any price.
async fn supervise(
    announcement: Announcement,
    addresses: Vec<SocketAddr>,
    tls: AskTls,
    stop: CancellationToken,
) {
    let Some(port) = addresses.first().map(SocketAddr::port) else { return };
    let reach = Arc::new(Reach::new(announcement.interfaces.clone(), &addresses));
    let subject = Subject { announcement, port, tls };
    let mut log = QuietLog::new();
    let (mut failures, mut floods) = (0, 0);
    loop {
        let begun = Instant::now();
        let description = subject.description();
        let end = match Responder::start(&description, port, Arc::clone(&reach)) {
            Ok(responder) => responder.run(&subject, &description, &mut log, &stop).await,
            Err(error) => End::Failed(error.to_string()),
        };
        if begun.elapsed() >= STABLE {
            (failures, floods) = (0, 0);
        }
        let pause = match end {
            End::Stopped => return,
            End::Changed => continue,
            End::Flooded(interface) => {
                let silence = doubled(FIRST_SILENCE, floods, LONGEST_SILENCE);
                // Said once for as long as it lasts; how it goes on follows from it.
                if floods == 0 {
                    log.warn(&format!(
                        "more than {MAX_ANSWERS} questions a second were to be answered on {interface}; unannounced for \
                         {} s, and again, up to {} s each time, while that goes on",
                        silence.as_secs(),
                        LONGEST_SILENCE.as_secs()
                    ));
                } else {
                    tracing::debug!(target: TARGET, interface, ?silence, "too many questions still");
                }
                floods += 1;
                silence
            }
            End::Failed(problem) => {
                let backoff = doubled(FIRST_BACKOFF, failures, LONGEST_BACKOFF);
                if failures == 0 {
                    log.warn(&format!(
                        "multicast DNS failed and is started again, at intervals of up to {} s: {problem}",
                        LONGEST_BACKOFF.as_secs()
                    ));
                } else {
                    tracing::debug!(target: TARGET, problem, ?backoff, "multicast DNS failed again");
                }
                failures += 1;
                backoff
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// `first`, doubled as often as said, but no longer than `longest`.
fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(longest)
}

/// One responder with its thread, which ends with it, goodbye included.
struct Responder {
    daemon: ServiceDaemon,
    events: Receiver<DaemonEvent>,
    full_name: String,
}

impl Responder {
    fn start(description: &Description, port: u16, reach: Arc<Reach>) -> Result<Self, mdns_sd::Error> {
        let Description { names, host, txt } = description;
        let service_type = format!("{SERVICE_TYPE}.{LOCAL_DOMAIN}");
        let includes = IfPredicate::new(move |interface| reach.includes(interface));
        let mut service = ServiceInfo::new(&service_type, &names.instance, host, "", port, &txt[..])?;
        service = service.enable_addr_auto();
        service.set_interfaces(vec![IfKind::Predicate(includes.clone())]);
        let full_name = service.get_fullname().to_owned();
        let daemon = ServiceDaemon::new()?;
        let events = daemon.monitor()?;
        let responder = Self { daemon, events, full_name };
        responder.daemon.disable_interface(IfKind::All)?;
        responder.daemon.enable_interface(IfKind::Predicate(includes))?;
        responder.daemon.register(service)?;
        Ok(responder)
    }

    /// Runs until it is told to stop, or must.
    async fn run(
        self,
        subject: &Subject,
        description: &Description,
        log: &mut QuietLog,
        stop: &CancellationToken,
    ) -> End {
        let (mut renames, mut answers) = (0, Answers::default());
        let mut subject_check = interval_at(tokio::time::Instant::now() + SUBJECT_CHECK, SUBJECT_CHECK);
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.goodbye().await;
                    return End::Stopped;
                }
                _ = subject_check.tick() => {
                    if subject.description() == *description {
                        continue;
                    }
                    self.goodbye().await;
                    return End::Changed;
                }
                event = self.events.recv_async() => event,
            };
            match event {
                // Its thread is gone.
                Err(_) => return End::Failed("the responder ended".to_owned()),
                Ok(DaemonEvent::Announce(name, place)) => {
                    let name = name.split(&format!(".{SERVICE_TYPE}.")).next().unwrap_or_default();
                    // The place is the host's name, a colon and the interface.
                    let (host, interface) = place.rsplit_once(':').unwrap_or(("", &place));
                    let host = host.trim_end_matches('.');
                    log.info(&format!("announced with multicast DNS on {interface} as `{name}` at {host}"));
                }
                Ok(DaemonEvent::NameChange(change)) => {
                    renames += 1;
                    if renames > MAX_RENAMES {
                        return End::Failed(format!("{MAX_RENAMES} names were contested"));
                    }
                    log.info(&format!("`{}` is taken; announced as `{}`", change.original, change.new_name));
                }
                Ok(DaemonEvent::Error(error)) => log.warn(&format!("multicast DNS: {error}")),
                Ok(DaemonEvent::Respond(interface)) => {
                    if answers.are_too_many(&interface, Instant::now()) {
                        self.goodbye().await;
                        return End::Flooded(interface);
                    }
                }
                // Addresses come and go by the dozen.
                Ok(_) => {}
            }
        }
    }

    /// Tells everybody that the gateway is no more.
    async fn goodbye(&self) {
        let said = async {
            let Ok(status) = self.daemon.unregister(&self.full_name) else { return };
            if let Ok(UnregisterStatus::OK) = status.recv_async().await {
                sleep(GOODBYE_REPEAT).await;
            }
        };
        let _ = timeout(GOODBYE_LIMIT, said).await;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // Says goodbye too, where nobody has.
        let _ = self.daemon.shutdown();
    }
}

/// Counts the answers of the second that goes on, for each interface.
#[derive(Default)]
struct Answers(HashMap<String, (Instant, u32)>);

impl Answers {
    /// Counts one more, and says whether it is one too many.
    fn are_too_many(&mut self, interface: &str, now: Instant) -> bool {
        // Interfaces of containers come and go under ever new names.
        self.0.retain(|_, (begun, _)| now.duration_since(*begun) < Duration::from_secs(1));
        let (_, count) = self.0.entry(interface.to_owned()).or_insert((now, 0));
        *count += 1;
        *count > MAX_ANSWERS
    }
}

/// How many lines were not written, in words.
fn told(kept_back: u32) -> String {
    match kept_back {
        0 => String::new(),
        count => format!(" ({count} lines before this one were kept back)"),
    }
}

/// A log that a network cannot fill: each line once until another one is said, and no more than a few a minute.
struct QuietLog {
    last: String,
    left: u32,
    refilled: Instant,
    kept_back: u32,
}

impl QuietLog {
    fn new() -> Self {
        Self { last: String::new(), left: LOG_BURST, refilled: Instant::now(), kept_back: 0 }
    }

    fn info(&mut self, line: &str) {
        if let Some(kept_back) = self.admit(line, Instant::now()) {
            tracing::info!(target: TARGET, "{line}{}", told(kept_back));
        }
    }

    fn warn(&mut self, line: &str) {
        if let Some(kept_back) = self.admit(line, Instant::now()) {
            tracing::warn!(target: TARGET, "{line}{}", told(kept_back));
        }
    }

    /// Whether a line is written now; with it, how many were not since the last one.
    fn admit(&mut self, line: &str, now: Instant) -> Option<u32> {
        while self.left < LOG_BURST && now.duration_since(self.refilled) >= LOG_INTERVAL {
            self.refilled += LOG_INTERVAL;
            self.left += 1;
        }
        if self.last == line || self.left == 0 {
            self.kept_back = self.kept_back.saturating_add(1);
            return None;
        }
        if self.left == LOG_BURST {
            self.refilled = now;
        }
        self.left -= 1;
        line.clone_into(&mut self.last);
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_cannot_fill_the_log() {
        let (mut log, begun) = (QuietLog::new(), Instant::now());
        assert_eq!(log.admit("a", begun), Some(0));
        assert_eq!(log.admit("a", begun), None, "it has been said");
        let written = (0..10_000).filter(|n| log.admit(&n.to_string(), begun).is_some()).count();
        assert_eq!(written as u32, LOG_BURST - 1);
        assert_eq!(log.admit("b", begun + LOG_INTERVAL / 2), None);
        let kept_back = log.admit("c", begun + LOG_INTERVAL).expect("one more is let through");
        // The second "a" was told of with the line after it.
        assert_eq!(kept_back, 10_000 - (LOG_BURST - 1) + 1);
        assert_eq!(log.admit("d", begun + LOG_INTERVAL), None);
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_never_end() {
        let silence = |times| doubled(FIRST_SILENCE, times, LONGEST_SILENCE).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 1000, u32::MAX].map(silence), [5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn too_many_answers_are_noticed_for_each_interface_and_second() {
        let (mut answers, begun) = (Answers::default(), Instant::now());
        let half = Duration::from_millis(500);
        for step in 0..10 {
            for _ in 0..MAX_ANSWERS / 2 {
                assert!(!answers.are_too_many("eth0", begun + half * step));
                assert!(!answers.are_too_many("eth1", begun + half * step));
            }
        }
        let later = begun + half * 20;
        assert!((0..MAX_ANSWERS).all(|_| !answers.are_too_many("eth0", later)));
        assert!(answers.are_too_many("eth0", later));
        assert!(!answers.are_too_many("eth1", later));
        answers.are_too_many("eth2", later + half * 2);
        assert_eq!(answers.0.len(), 1, "what is past is forgotten");
    }

    #[tokio::test]
    async fn withdrawing_ends_even_where_nothing_can_be_announced() {
        let rules =
            openclaw_schema::discovery::InterfaceRules { allow: Vec::new(), deny: vec!["*".to_owned()] };
        let announcement = Announcement { interfaces: rules, ..Announcement::default() };
        let turn = Arc::new(Mutex::new(()));
        let start = || {
            let addresses = vec![([127, 0, 0, 1], 1).into()];
            Advertiser::start(announcement.clone(), addresses, Box::new(|| None), Arc::clone(&turn))
        };
        let first = start();
        while turn.try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
        // One that has not had its turn has nothing to take back.
        start().withdraw().await;
        assert!(turn.try_lock().is_err(), "the first is announced");
        first.withdraw().await;
        assert!(turn.try_lock().is_ok(), "the next may be announced");
    }
}
