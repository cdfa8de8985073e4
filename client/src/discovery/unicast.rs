//! Unicast DNS-SD (RFC 6763) in a wide-area domain: PTR, then SRV and TXT, then addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt as _, future, stream};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, RecordType},
};
use openclaw_schema::discovery::SERVICE_TYPE;
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, timeout_at},
};

use super::{
    Message, Warning,
    beacon::{Address, Sighting, is_plausible},
};

/// How many instances of a domain are looked at.
const MAX_INSTANCES: usize = 256;
/// How many instances are resolved at once.
const AT_ONCE: usize = 16;
/// The shortest and the longest wait for one answer of a name server.
const ANSWER_LIMITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];
/// How long before the deadline a silent name server is given up, so that somebody hears of it.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// Looks in `domain`, which ends in a dot, and tells `out`.
pub(super) async fn browse(
    domain: String,
    server: Option<SocketAddr>,
    deadline: Instant,
    out: Sender<Message>,
) {
    let give_up = deadline.checked_sub(LAST_WORDS).unwrap_or(deadline);
    let problem = match timeout_at(give_up, ask(&domain, server, deadline, &out)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the time was up".to_owned(),
    };
    let whom = server.map_or_else(|| "the system's name server".to_owned(), |server| server.to_string());
    let message = format!("{whom} gave no answer for {domain}: {problem}");
    let _ = out.send(Message::Warning(Warning { code: "dns_failed", message })).await;
}

async fn ask(
    domain: &str,
    server: Option<SocketAddr>,
    deadline: Instant,
    out: &Sender<Message>,
) -> Result<(), NetError> {
    let resolver = resolver(server, deadline)?;
    let service = Name::from_ascii(format!("{SERVICE_TYPE}.{domain}"))?;
    let instances: Vec<Name> = records(&resolver, service, RecordType::PTR, |data| match data {
        RData::PTR(name) => Some(name.0.clone()),
        _ => None,
    })
    .await?;
    let sightings = instances.into_iter().take(MAX_INSTANCES).map(|name| {
        let (resolver, resolvable) = (&resolver, server.is_none());
        async move { instance(resolver, name, domain, resolvable).await }
    });
    let mut sightings = stream::iter(sightings).buffer_unordered(AT_ONCE);
    let mut problem = None;
    while let Some(result) = sightings.next().await {
        match result {
            Ok(Some(sighting)) => {
                if out.send(Message::Seen(sighting)).await.is_err() {
                    break;
                }
            }
            Ok(None) => {}
            Err(error) => problem = Some(error),
        }
    }
    problem.map_or(Ok(()), Err)
}

fn resolver(server: Option<SocketAddr>, deadline: Instant) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
        None => Resolver::builder_tokio()?,
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let options = builder.options_mut();
    options.timeout = (left / 3).clamp(ANSWER_LIMITS[0], ANSWER_LIMITS[1]);
    options.attempts = 2;
    // `/etc/hosts` has no say in somebody else's domain.
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// The records of one type; none where the name server has none.
async fn records<T>(
    resolver: &TokioResolver,
    name: Name,
    record_type: RecordType,
    read: impl Fn(&RData) -> Option<T>,
) -> Result<Vec<T>, NetError> {
    match resolver.lookup(name, record_type).await {
        Ok(lookup) => Ok(lookup.answers().iter().filter_map(|record| read(&record.data)).collect()),
        Err(error) if error.is_no_records_found() || error.is_nx_domain() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn instance(
    resolver: &TokioResolver,
    name: Name,
    domain: &str,
    resolvable: bool,
) -> Result<Option<Sighting>, NetError> {
    let Some(label) = name.iter().next().map(|label| String::from_utf8_lossy(label).into_owned()) else {
        return Ok(None);
    };
    let services = records(resolver, name.clone(), RecordType::SRV, |data| match data {
        RData::SRV(service) => Some((service.priority, service.port, service.target.clone())),
        _ => None,
    });
    let texts = records(resolver, name.clone(), RecordType::TXT, |data| match data {
        RData::TXT(text) => Some(text.txt_data.iter().map(|pair| pair.to_vec()).collect::<Vec<_>>()),
        _ => None,
    });
    let (services, texts) = future::try_join(services, texts).await?;
    // The lowest number is the one to use: RFC 2782. A target of `.` means that there is no service.
    let chosen = services.into_iter().min_by_key(|(priority, ..)| *priority);
    let Some((_, port, host)) = chosen.filter(|(_, _, host)| !host.is_root()) else { return Ok(None) };
    let v4 = records(resolver, host.clone(), RecordType::A, |data| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    });
    let v6 = records(resolver, host.clone(), RecordType::AAAA, |data| match data {
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    let (mut addresses, v6) = future::try_join(v4, v6).await?;
    addresses.extend(v6);
    let addresses: Vec<Address> = addresses
        .into_iter()
        .filter(|ip| is_plausible(*ip, false))
        .map(|ip| Address { ip, link: None })
        .collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let txt = texts.into_iter().flatten().map(|pair| {
        let pair = String::from_utf8_lossy(&pair).into_owned();
        match pair.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (pair, String::new()),
        }
    });
    Ok(Some(Sighting {
        instance: label,
        host: host.to_ascii(),
        port,
        addresses,
        txt: txt.collect(),
        domain: domain.to_owned(),
        resolvable,
    }))
}
