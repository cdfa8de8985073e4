//! Multicast DNS: asks on every suitable interface, and knows when nothing more is to be expected.

use std::{
    collections::HashMap,
    fmt::Display,
    time::{Duration, Instant},
};

use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent,
};
use openclaw_schema::discovery::{InterfaceRules, LOCAL_DOMAIN, SERVICE_TYPE};
use tokio::{sync::mpsc::Sender, time::timeout};

use super::{
    Message, Warning,
    beacon::{Address, Sighting, instance_of, is_plausible, is_unicast_link_local},
};

/// When everybody who is there has had two chances to answer: the first question leaves after up to 120 ms, the
/// second a second later, and answers may take another 120 ms (RFC 6762 sections 5.2 and 6), the network the rest.
const TWO_CHANCES: Duration = Duration::from_millis(1400);
/// How long after the last news silence means that there is no more.
const SETTLED: Duration = Duration::from_millis(250);
/// How long an instance that was found may take to say where it is.
const RESOLVE_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked whether anything is still to be expected.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);

/// Looks in `local.` until nothing more is to be expected.
pub(super) async fn browse(interfaces: InterfaceRules, out: Sender<Message>) {
    let warn = |code, message: String| Message::Warning(Warning { code, message });
    if !any_interface(&interfaces) {
        let message = "no network interface is suitable for multicast DNS".to_owned();
        let _ = out.send(warn("no_interfaces", message)).await;
        return;
    }
    let failed =
        |error: &dyn Display| warn("multicast_failed", format!("multicast DNS is not available: {error}"));
    let (daemon, events, troubles) = match start(interfaces) {
        Ok(started) => started,
        Err(error) => {
            let _ = out.send(failed(&error)).await;
            return;
        }
    };
    let service = format!("{SERVICE_TYPE}.{LOCAL_DOMAIN}");
    let begun = Instant::now();
    let mut last_news = begun;
    // Instances that have not said yet where they are.
    let mut pending: HashMap<String, Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        pending.retain(|_, since| now.duration_since(*since) < RESOLVE_LIMIT);
        let had_chances = now.duration_since(begun) >= TWO_CHANCES;
        if had_chances && pending.is_empty() && now.duration_since(last_news) >= SETTLED {
            break;
        }
        let message = match timeout(CHECK_INTERVAL, events.recv_async()).await {
            Err(_) => match troubles.try_recv() {
                Ok(DaemonEvent::Error(error)) => failed(&error),
                _ => continue,
            },
            // The daemon is gone.
            Ok(Err(_)) => break,
            Ok(Ok(ServiceEvent::ServiceFound(_, name))) => {
                pending.entry(name).or_insert(now);
                last_news = now;
                continue;
            }
            Ok(Ok(ServiceEvent::ServiceResolved(service_info))) => {
                pending.remove(&service_info.fullname);
                last_news = now;
                match seen(&service_info, &service) {
                    Some(sighting) => Message::Seen(sighting),
                    None => continue,
                }
            }
            Ok(Ok(ServiceEvent::ServiceRemoved(_, name))) => {
                pending.remove(&name);
                match instance_of(&name, &service) {
                    Some(instance) => Message::Gone { instance, domain: LOCAL_DOMAIN.to_owned() },
                    None => continue,
                }
            }
            Ok(Ok(_)) => continue,
        };
        if out.send(message).await.is_err() {
            break;
        }
    }
    drop(daemon);
}

/// Ends the daemon's thread when it is dropped, also with the task that holds it.
struct Daemon(ServiceDaemon);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.shutdown();
    }
}

type Started = (Daemon, Receiver<ServiceEvent>, Receiver<DaemonEvent>);

fn start(interfaces: InterfaceRules) -> Result<Started, mdns_sd::Error> {
    let daemon = Daemon(ServiceDaemon::new()?);
    let troubles = daemon.0.monitor()?;
    daemon.0.disable_interface(IfKind::All)?;
    daemon.0.enable_interface(IfKind::Predicate(IfPredicate::new(move |interface| {
        interfaces.permit(&interface.name)
    })))?;
    let events = daemon.0.browse(&format!("{SERVICE_TYPE}.{LOCAL_DOMAIN}"))?;
    Ok((daemon, events, troubles))
}

fn any_interface(rules: &InterfaceRules) -> bool {
    // Where they cannot be listed, the daemon has its own ways.
    if_addrs::get_if_addrs().map_or(true, |all| {
        all.iter()
            .any(|interface| interface.is_oper_up() && !interface.is_p2p() && rules.permit(&interface.name))
    })
}

/// What a resolved service says, as far as it can be believed.
fn seen(service: &ResolvedService, service_and_domain: &str) -> Option<Sighting> {
    let addresses: Vec<Address> = service.addresses.iter().filter_map(address).collect();
    if addresses.is_empty() {
        return None;
    }
    let txt = service.txt_properties.iter().map(|property| {
        let value = String::from_utf8_lossy(property.val().unwrap_or_default()).into_owned();
        (property.key().to_owned(), value)
    });
    Some(Sighting {
        instance: instance_of(&service.fullname, service_and_domain)?,
        host: service.host.clone(),
        port: service.port,
        addresses,
        txt: txt.collect(),
        domain: LOCAL_DOMAIN.to_owned(),
        // Many systems cannot resolve names in `local.` without further set-up.
        resolvable: false,
    })
}

fn address(scoped: &ScopedIp) -> Option<Address> {
    /// Whether an interface of this name is the machine's own.
    fn is_loopback(name: &str) -> bool {
        name == "lo" || name == "lo0"
    }
    let ip = scoped.to_ip_addr();
    let (on_loopback, link) = match scoped {
        ScopedIp::V4(v4) => {
            let via = v4.interface_ids();
            (!via.is_empty() && via.iter().all(|id| is_loopback(&id.name)), None)
        }
        ScopedIp::V6(v6) => {
            let id = v6.scope_id();
            let link = is_unicast_link_local(*v6.addr()).then(|| (id.index, id.name.clone()));
            (is_loopback(&id.name), link)
        }
        // A kind that does not exist yet.
        _ => return None,
    };
    // An address of one link leads nowhere without the link.
    let needs_link = matches!(ip, std::net::IpAddr::V6(v6) if is_unicast_link_local(v6));
    let has_link = link.as_ref().is_some_and(|(index, _)| *index > 0);
    (is_plausible(ip, on_loopback) && (!needs_link || has_link)).then_some(Address { ip, link })
}
