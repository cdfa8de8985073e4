//! `gateway probe`: what is reachable, how, with which rights, and what to do about what is not.

use std::{
    fs::File,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openclaw_client::discovery::{Beacon, Browser, DiscoverOptions};
use openclaw_gateway::config::{RemoteTransport, Source, Sourced, SshHostKeyPolicy, tailnet_addresses};
use secrecy::SecretString;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    args::{GlobalArgs, ProbeArgs},
    commands::health::{duration, rounded},
    connection,
    error::{CliError, Fault, Result},
    exit::Exit,
    output::{BAD, DIM, GOOD, HEADING, LITERAL, Printer, WARN, printable, shown_url, wrapped},
    probe::{
        Depth, Kind, Observation, Target, TroubleKind, look,
        report::{Advice, Discovered, Report, Seen, TunnelFacts, advise},
    },
    settings::ProbeSettings,
    ssh::{SshError, SshTarget, Tunnel, TunnelSettings},
};

/// What a probe may take when `--timeout` is not given. cli.md section 5.
const BUDGET: Duration = Duration::from_secs(3);
/// What is kept of it for the start of the process and the report.
const RESERVE: Duration = Duration::from_millis(25);
/// The longest that gateways are looked for. cli.md section 5.
const DISCOVERY_LIMIT: Duration = Duration::from_millis(1200);
/// For how long they are looked for when all else is done: most answer sooner.
const DISCOVERY_LEAST: Duration = Duration::from_millis(400);
/// The width of the names of facts.
const NAME_WIDTH: usize = 10;

/// Looks at every gateway that may be meant.
pub(crate) fn probe(args: &ProbeArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let settings = ProbeSettings::resolve(&args.client, global, BUDGET)?;
    let tunnel = tunnel_plan(args, &settings)?;
    let report = connection::until_interrupted(look_at_all(settings, tunnel))??;
    let exit = report.exit(args.require_rpc);
    if printer.is_json() {
        printer.json(&report.json(exit))?;
    } else {
        printer.line(&words(&report, printer))?;
    }
    Ok(exit)
}

/// The tunnel that is wanted, and what is presented through it.
struct TunnelPlan {
    /// Absent for the first gateway that announces itself.
    target: Option<SshTarget>,
    identity: Option<PathBuf>,
    host_keys: SshHostKeyPolicy,
    /// Where the gateway listens there, if that is said.
    remote_port: Option<u16>,
    /// Where it listens when nobody says.
    usual_port: u16,
    credential: Option<SecretString>,
    credential_origin: Option<String>,
    /// Whether the gateway there is known to speak TLS.
    tls: bool,
    /// The certificate of the configured gateway, where the tunnel leads to that.
    pin: Option<Sourced<String>>,
}

fn tunnel_plan(args: &ProbeArgs, settings: &ProbeSettings) -> Result<Option<TunnelPlan>> {
    let targets = &settings.targets;
    let remote = &targets.config.gateway.remote;
    let typed = args.ssh.as_deref().filter(|typed| !typed.is_empty());
    let transport = remote.transport.as_ref().map(|transport| transport.value);
    let configured = targets
        .ssh_target
        .as_ref()
        .filter(|_| transport != Some(RemoteTransport::Direct) && args.client.port.is_none());
    let (target, is_typed) = if let Some(typed) = typed {
        let target = typed.parse().map_err(|problem| {
            let message = format!("--ssh {typed:?} is no SSH target: it {problem}");
            CliError::usage(message).hint("write `user@host` or `user@host:port`")
        })?;
        (Some(target), true)
    } else if args.ssh_auto {
        (None, true)
    } else if let Some(configured) = configured {
        let target = configured.value.parse().map_err(|problem| {
            let message =
                format!("{} {:?} is no SSH target: it {problem}", configured.source, configured.value);
            CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Usage, message)
                .hint("write `user@host` or `user@host:port`")
        })?;
        (Some(target), false)
    } else if transport == Some(RemoteTransport::Ssh)
        && let Some(url) = targets.remote.as_ref().map(|remote| &remote.url.value)
        && let Some(host) = host_of(url).filter(|host| !is_loopback(host))
        && let Ok(target) = SshTarget::of_host(&host, None)
    {
        (Some(target), false)
    } else {
        return Ok(None);
    };
    let credential =
        if is_typed { targets.flag_credential.clone() } else { targets.tunnel_credential.clone() };
    let remote_url = targets.remote.as_ref().map(|remote| remote.url.value.as_str()).filter(|_| !is_typed);
    let remote_port = args.client.port.or(remote.remote_port.as_ref().map(|port| port.value.get()));
    Ok(Some(TunnelPlan {
        target,
        identity: identity(args, targets.ssh_identity.as_ref())?,
        host_keys: remote
            .ssh_host_key_policy
            .as_ref()
            .map_or(SshHostKeyPolicy::Strict, |policy| policy.value),
        remote_port,
        usual_port: targets.port.value,
        credential_origin: credential.as_ref().map(|credential| credential.source.to_string()),
        credential: credential.map(|credential| credential.value),
        tls: remote_url.is_some_and(|url| url.starts_with("wss:") || url.starts_with("https:")),
        pin: remote.tls_fingerprint.clone().filter(|_| !is_typed),
    }))
}

/// The file with the private key. `ssh` would go on without one that it cannot read.
fn identity(args: &ProbeArgs, configured: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    let (path, who) = match (&args.ssh_identity, configured) {
        (Some(typed), _) => (typed, "--ssh-identity"),
        (None, Some(configured)) => (configured, "gateway.remote.sshIdentity"),
        (None, None) => return Ok(None),
    };
    match File::open(path) {
        Ok(_) => Ok(Some(path.clone())),
        Err(error) => {
            let message = format!("the private key of {who}, `{}`, cannot be read", path.display());
            Err(CliError::usage(message).cause(error).into())
        }
    }
}

/// The host of a URL, without brackets.
fn host_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let place = authority.rsplit('@').next()?;
    let host = match place.strip_prefix('[') {
        // The interface of a link-local address is written as in URLs.
        Some(rest) => return Some(rest.split(']').next()?.replacen("%25", "%", 1)),
        None => place.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn look_at_all(settings: ProbeSettings, tunnel: Option<TunnelPlan>) -> Result<Report> {
    let ts = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = Instant::now();
    let deadline = settings.deadline(started, RESERVE);
    let targets = &settings.targets;
    let mut plans: Vec<Target> = Vec::new();
    let direct = [
        (Kind::Explicit, targets.explicit.as_ref(), true),
        (Kind::ConfigRemote, targets.remote.as_ref(), targets.remote_is_active),
        (Kind::LocalLoopback, Some(&targets.local), true),
    ];
    for (kind, found, active) in direct {
        let Some(found) = found else { continue };
        // One address is looked at once.
        if plans.iter().any(|plan| plan.url == found.url.value) {
            continue;
        }
        plans.push(Target::new(kind, found, active, &settings)?);
    }
    let looks_around = targets.port.source != Source::Flag("--port") || wants_any(tunnel.as_ref());
    let options = looks_around.then(|| discovery_options(&settings, deadline));
    let (first_beacon, beacon) = oneshot::channel();
    let done = Notify::new();
    let mut plans = plans.into_iter();
    let looking = async {
        let seen = tokio::join!(
            look_directly(plans.next(), deadline),
            look_directly(plans.next(), deadline),
            look_directly(plans.next(), deadline),
            look_through(tunnel, beacon, &settings, deadline),
        );
        done.notify_one();
        seen
    };
    let ((first, second, third, tunnelled), discovered) =
        tokio::join!(looking, look_around(options, first_beacon, done.notified()));
    let (tunnelled, no_tunnel) = match tunnelled? {
        None => (None, None),
        Some(Ok(seen)) => (Some(seen), None),
        Some(Err(failed)) => (None, Some(failed)),
    };
    let mut seen: Vec<Seen> = [first, second, third, tunnelled].into_iter().flatten().collect();
    seen.sort_by_key(|seen| seen.target.kind);
    Ok(Report {
        seen,
        no_tunnel,
        discovered,
        config_problem: settings
            .targets
            .config_problem
            .as_ref()
            .or(settings.discovery.as_ref().err())
            .map(ToString::to_string),
        ts: u64::try_from(ts.as_millis()).unwrap_or(u64::MAX),
        took: started.elapsed(),
        budget: settings.budget,
        local_url: settings.targets.local.url.value,
        port: settings.targets.local.record.map_or(settings.targets.port.value, |record| record.port),
        tailnet: tailnet_address(),
        advice: settings.advice,
    })
}

async fn look_directly(target: Option<Target>, deadline: Instant) -> Option<Seen> {
    let target = target?;
    let facts = look(&target, Depth::Read, deadline).await;
    Some(Seen { target, tunnel: None, facts, ssh_trouble: None })
}

type Tunnelled = std::result::Result<Seen, (String, SshError)>;

/// Looks through a tunnel. `beacon` is the first gateway that announces itself, for those who want any.
async fn look_through(
    plan: Option<TunnelPlan>,
    beacon: oneshot::Receiver<Beacon>,
    settings: &ProbeSettings,
    deadline: Instant,
) -> Result<Option<Tunnelled>> {
    let Some(plan) = plan else { return Ok(None) };
    let (ssh_target, announced_port, tls) = match plan.target {
        Some(target) => (target, None, plan.tls),
        None => match found_host(beacon).await {
            Ok((target, port, tls)) => (target, Some(port), tls),
            Err(error) => return Ok(Some(Err(("--ssh-auto".to_owned(), error)))),
        },
    };
    let remote_port = plan.remote_port.or(announced_port).unwrap_or(plan.usual_port);
    let trust = settings.trust(&ssh_target.url_of_gateway(remote_port), None, plan.pin.as_ref())?;
    let tunnel_settings = TunnelSettings {
        target: ssh_target.clone(),
        identity: plan.identity,
        host_keys: plan.host_keys,
        remote_port,
    };
    let mut tunnel = match Tunnel::open(tunnel_settings, deadline).await {
        Ok(tunnel) => tunnel,
        Err(error) => return Ok(Some(Err((ssh_target.to_string(), error)))),
    };
    let mut target = Target {
        kind: Kind::SshTunnel,
        url: tunnel.url(tls),
        origin: format!("tunnel to {ssh_target}"),
        active: true,
        credential: plan.credential,
        credential_origin: plan.credential_origin,
        credential_problem: None,
        identity_dir: settings.identity_dir.clone(),
        trust,
    };
    let mut facts = look_at_the_end(&mut target, deadline).await;
    let is_other = |facts: &Observation| {
        let kind = facts.trouble.as_ref().map(|trouble| trouble.kind);
        matches!(kind, Some(TroubleKind::Foreign | TroubleKind::Closed))
    };
    // What does not answer in one way may do so in the other: nobody says for sure which it speaks.
    if is_other(&facts) {
        let mut other = Target { url: tunnel.url(!tls), ..target };
        let seen = look_at_the_end(&mut other, deadline).await;
        if is_other(&seen)
            || seen.trouble.as_ref().is_some_and(|trouble| trouble.kind == TroubleKind::Unreachable)
        {
            other.url = tunnel.url(tls);
        } else {
            facts = seen;
        }
        target = other;
    }
    // A gateway that is silent has no more to say through `ssh`, and has used up the time.
    let is_cut = facts.trouble.as_ref().is_some_and(|trouble| trouble.kind == TroubleKind::Closed);
    let ssh_trouble = if is_cut { tunnel.trouble().await } else { None };
    let told =
        TunnelFacts { target: ssh_target, local_port: tunnel.local_port(), remote_port, pid: tunnel.pid() };
    tunnel.close().await;
    Ok(Some(Ok(Seen { target, tunnel: Some(told), facts, ssh_trouble })))
}

/// Looks at the gateway at the other end of a tunnel. A certificate that nobody knows yet is taken for this one look, and
/// not remembered: `ssh` has made sure of the host, whose own loopback would be spoken to in plain as well.
async fn look_at_the_end(target: &mut Target, deadline: Instant) -> Observation {
    let facts = look(target, Depth::Read, deadline).await;
    let shown = facts.trouble.as_ref().and_then(|trouble| trouble.shown);
    if shown.is_none() || target.trust.fingerprint.is_some() {
        return facts;
    }
    target.trust.fingerprint = shown;
    look(target, Depth::Read, deadline).await
}

/// The host of the gateway that announces itself, the gateway's port there, and whether it says that this speaks TLS.
async fn found_host(
    beacon: oneshot::Receiver<Beacon>,
) -> std::result::Result<(SshTarget, u16, bool), SshError> {
    let beacon = beacon.await.map_err(|_| {
        let message = "no gateway announces itself here, so there is no host for `--ssh-auto`";
        SshError::new(Exit::Unreachable, message, "name the host: `--ssh user@host`")
    })?;
    // The host and the port of its records; what it says of `ssh` is a hint, checked by the host's key.
    let target = SshTarget::of_host(&beacon.target_host, beacon.ssh_port).map_err(|problem| {
        let message =
            format!("the host {:?} that announces a gateway is no SSH target: it {problem}", beacon.host);
        SshError::new(Exit::Unreachable, message, "name the host: `--ssh user@host`")
    })?;
    Ok((target, beacon.port, beacon.gateway_tls == Some(true)))
}

fn wants_any(plan: Option<&TunnelPlan>) -> bool {
    plan.is_some_and(|plan| plan.target.is_none())
}

fn discovery_options(settings: &ProbeSettings, deadline: Instant) -> DiscoverOptions {
    let left = deadline.saturating_duration_since(Instant::now());
    let defaults = settings.discovery.as_ref().cloned().unwrap_or_default();
    DiscoverOptions {
        timeout: left.min(DISCOVERY_LIMIT),
        domains: defaults.domains,
        dns_server: defaults.dns_server,
        interfaces: defaults.interfaces,
        ..DiscoverOptions::default()
    }
}

/// Looks for gateways that announce themselves, and hands the first of them to `first`. When all else is `done`, it
/// goes on for no longer than most need to answer.
async fn look_around(
    options: Option<DiscoverOptions>,
    first: oneshot::Sender<Beacon>,
    done: impl Future<Output = ()>,
) -> Discovered {
    let Some(options) = options else { return Discovered::default() };
    let mut browser = Browser::start(&options);
    let least = Instant::now() + DISCOVERY_LEAST;
    let mut first = Some(first);
    let mut enough = pin!(async {
        done.await;
        sleep_until(least).await;
    });
    loop {
        tokio::select! {
            found = browser.next() => match (found, first.take()) {
                (None, _) => break,
                // Nobody may wait for it.
                (Some(found), Some(first)) => { let _ = first.send(found); }
                (Some(_), None) => {}
            },
            () = &mut enough => break,
        }
    }
    let found = browser.finish();
    Discovered { limit: options.timeout, beacons: found.beacons, warnings: found.warnings }
}

/// This machine's address in its tailnet.
fn tailnet_address() -> Option<Ipv4Addr> {
    tailnet_addresses().into_iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// The report for people.
fn words(report: &Report, printer: &Printer) -> String {
    let mut lines = vec![printer.styled(HEADING, "Gateway Probe"), verdict(report, printer)];
    for seen in &report.seen {
        lines.push(String::new());
        lines.extend(target_words(seen, &report.advice, printer));
    }
    if let Some((target, error)) = &report.no_tunnel {
        lines.push(String::new());
        lines.push(heading("Remote over SSH", target, printer));
        lines.push(fact(
            "Tunnel",
            &format!("{}: {}", printer.styled(BAD, "failed"), printable(&error.message)),
        ));
        lines.extend(error.hint.iter().map(|hint| sentence("Next", hint, printer)));
    }
    let beacons = &report.discovered.beacons;
    if !beacons.is_empty() {
        lines.push(String::new());
        lines.push(printer.styled(HEADING, "Announced here"));
        lines.extend(beacons.iter().map(|beacon| {
            format!(
                "  {}  {}",
                printable(&beacon.display_name),
                printer.styled(LITERAL, &printable(&beacon.ws_url))
            )
        }));
        lines.push(printer.styled(DIM, "  `openclaw gateway discover` says more"));
    }
    // What is about one gateway stands with it.
    let general = report.warnings().into_iter().filter(|warning| {
        matches!(warning.code, "config_invalid" | "multiple_gateways" | "auth_secretref_unresolved")
    });
    for warning in general {
        lines.push(String::new());
        lines.push(format!("{} {}", printer.styled(WARN, "warning:"), printable(&warning.message)));
        lines.extend(warning.hint.map(|hint| wrapped(&hint, 2, printer.width())));
    }
    lines.join("\n")
}

fn verdict(report: &Report, printer: &Printer) -> String {
    let (style, verdict) = match (report.gateways(), report.is_degraded()) {
        (0, _) if report.seen.iter().any(|seen| seen.facts.is_gateway()) => {
            (BAD, "REFUSED: a gateway is there, and does not take the credential".to_owned())
        }
        (0, _) => (BAD, "UNREACHABLE: no gateway answers".to_owned()),
        (_, true) => (WARN, "DEGRADED: a gateway answers, but not in full".to_owned()),
        (1, false) => (GOOD, "OK: the gateway answers".to_owned()),
        (several, false) => (GOOD, format!("OK: {several} gateways answer")),
    };
    let took = rounded(report.took.as_secs_f64() * 1000.0);
    let took = match report.budget {
        Some(budget) => format!(" ({took} of {} ms)", budget.as_millis()),
        None => format!(" ({took} ms)"),
    };
    format!("{}{}", printer.styled(style, &verdict), printer.styled(DIM, &took))
}

fn heading(label: &str, what: &str, printer: &Printer) -> String {
    format!("{}  {}", printer.styled(HEADING, label), printer.styled(LITERAL, &printable(what)))
}

/// One line of a report.
pub(crate) fn fact(name: &str, value: &str) -> String {
    format!("  {name:NAME_WIDTH$}  {value}")
}

/// A sentence of a report, on as many lines as it needs.
pub(crate) fn sentence(name: &str, text: &str, printer: &Printer) -> String {
    let indent = NAME_WIDTH + 4;
    let text = wrapped(&printable(text), indent, printer.width());
    fact(name, text.trim_start())
}

fn label(seen: &Seen) -> &'static str {
    match (seen.target.kind, seen.target.active) {
        (Kind::Explicit, _) => "URL (explicit)",
        (Kind::SshTunnel, _) => "Remote over SSH",
        (Kind::ConfigRemote, true) => "Remote (configured)",
        (Kind::ConfigRemote, false) => "Remote (configured, inactive)",
        (Kind::LocalLoopback, _) => "Local loopback",
    }
}

fn target_words(seen: &Seen, advice: &Advice, printer: &Printer) -> Vec<String> {
    let facts = &seen.facts;
    let mut lines = vec![heading(label(seen), shown_url(&seen.target.url), printer)];
    if let Some(tunnel) = &seen.tunnel {
        let path = format!("{} → 127.0.0.1:{} there", tunnel.target, tunnel.remote_port);
        lines.push(fact("Tunnel", &path));
    }
    let Some(trouble) = &facts.trouble else {
        lines.extend(answer_words(facts, printer));
        return lines;
    };
    let verdict = trouble.kind.words();
    let why = seen.ssh_trouble.as_ref().map_or(&trouble.message, |error| &error.message);
    lines.push(fact("Connect", &format!("{}: {}", printer.styled(BAD, verdict), printable(why))));
    if trouble.kind != TroubleKind::Invalid && seen.tunnel.is_none() {
        lines.push(fact("Address", &format!("from {}", printable(&seen.target.origin))));
    }
    if let Some(hint) = advise(seen, trouble, advice) {
        lines.push(sentence("Next", &hint, printer));
    }
    lines
}

/// What is known of a gateway that answers.
pub(crate) fn answer_words(facts: &Observation, printer: &Printer) -> Vec<String> {
    let mut lines = Vec::new();
    let latencies = [(facts.connect_ms, ""), (facts.call_ms, ", a call ")];
    let latencies: String = latencies
        .into_iter()
        .filter_map(|(latency, before)| Some(format!("{before}{} ms", rounded(latency?))))
        .collect();
    lines.push(fact("Connect", &format!("{} ({latencies})", printer.styled(GOOD, "ok"))));
    let mut rights = facts.capability().words().to_owned();
    if let Some(role) = &facts.role {
        rights = format!("{rights} (role {})", printable(role));
    }
    lines.push(fact("Rights", &rights));
    lines.push(fact("Gateway", &gateway_words(facts)));
    let health = match (&facts.health, facts.health_result()) {
        (Some(health), _) if health["ok"] == false => printer.styled(BAD, "not well"),
        (Some(_), Some(health)) => match health.runtime {
            Some(runtime) => format!(
                "{}, up {}, {}, {}",
                printer.styled(GOOD, "ok"),
                duration(runtime.uptime_ms),
                counted(runtime.connections, "connection"),
                counted(runtime.runs_active, "active run")
            ),
            None => printer.styled(GOOD, "ok"),
        },
        _ => printer.styled(BAD, "unknown"),
    };
    lines.push(fact("Health", &health));
    for call in &facts.failed {
        let mark = if call.is_scope { WARN } else { BAD };
        let verdict = if call.is_scope { "not allowed" } else { "failed" };
        let told =
            format!("`{}` {}: {}", call.method, printer.styled(mark, verdict), printable(&call.message));
        lines.push(fact("Call", &told));
    }
    lines
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Who it is, in one line.
fn gateway_words(facts: &Observation) -> String {
    let own = facts.own_entry();
    let mut parts = Vec::new();
    if let Some(own) = &own {
        parts.extend(own.host.clone());
        parts.extend(own.platform.clone());
    }
    parts.push(format!("version {}", facts.version.as_deref().unwrap_or("unknown")));
    if let Some(identity) = &facts.identity {
        let short: String = identity.chars().take(12).collect();
        parts.push(format!("identity {short}…"));
    }
    printable(&parts.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_found_and_loopback_needs_no_tunnel() {
        for (url, host, loopback) in [
            ("ws://studio.local:18789/x?y", "studio.local", false),
            ("wss://10.0.0.5", "10.0.0.5", false),
            ("ws://[fe80::1]:1", "fe80::1", false),
            ("ws://[::1]:1", "::1", true),
            ("ws://127.0.0.1:1", "127.0.0.1", true),
            ("ws://localhost:1", "localhost", true),
        ] {
            let found = host_of(url);
            assert_eq!(found.as_deref(), Some(host), "{url}");
            assert_eq!(is_loopback(host), loopback, "{url}");
        }
        assert_eq!(host_of("ws://:1"), None);
        assert_eq!(host_of("studio"), None);
    }
}
