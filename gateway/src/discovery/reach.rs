//! Where a gateway can be reached: which addresses of which interfaces it is announced with.

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use if_addrs::{IfAddr, Interface};
use openclaw_schema::discovery::InterfaceRules;

/// How long a view of the interfaces holds. The responder asks about each address in turn.
const VIEW_AGE: Duration = Duration::from_secs(1);

/// Says which addresses a gateway is announced with.
#[derive(Debug)]
pub(super) struct Reach {
    rules: InterfaceRules,
    listening: Listening,
    view: Mutex<Option<(Instant, Chosen)>>,
}

/// The addresses to announce, each with the index of its interface.
type Chosen = HashSet<(u32, IpAddr)>;

/// What the gateway listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listening {
    every_v4: bool,
    every_v6: bool,
    addresses: Vec<IpAddr>,
}

impl Listening {
    fn new(addresses: &[SocketAddr], v6_takes_v4: bool) -> Self {
        let every = |ip: IpAddr| addresses.iter().any(|address| address.ip() == ip);
        let every_v6 = every(std::net::Ipv6Addr::UNSPECIFIED.into());
        Self {
            every_v4: every(std::net::Ipv4Addr::UNSPECIFIED.into()) || every_v6 && v6_takes_v4,
            every_v6,
            addresses: addresses.iter().map(SocketAddr::ip).collect(),
        }
    }

    /// Whether a connection to this address of the host reaches the gateway.
    fn takes(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) if self.every_v4 => true,
            IpAddr::V6(_) if self.every_v6 => true,
            ip => self.addresses.contains(&ip),
        }
    }

    fn is_loopback_only(&self) -> bool {
        self.addresses.iter().all(IpAddr::is_loopback)
    }
}

impl Reach {
    pub(super) fn new(rules: InterfaceRules, addresses: &[SocketAddr]) -> Self {
        // Linux says whether `::` takes IPv4 too; elsewhere it is as good as always so.
        let only_v6 = fs::read_to_string("/proc/sys/net/ipv6/bindv6only");
        let v6_takes_v4 = only_v6.map_or(true, |text| text.trim() != "1");
        Self { rules, listening: Listening::new(addresses, v6_takes_v4), view: Mutex::new(None) }
    }

    /// Whether the gateway is announced with this address of this interface.
    pub(super) fn includes(&self, interface: &Interface) -> bool {
        let key = (interface.index.unwrap_or(0), interface.ip());
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((taken, chosen)) = &*view
            && taken.elapsed() < VIEW_AGE
        {
            return chosen.contains(&key);
        }
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let chosen = choose(&self.rules, &self.listening, &all, leads_nowhere);
        let is_chosen = chosen.contains(&key);
        *view = Some((Instant::now(), chosen));
        is_chosen
    }
}

/// What to announce. `leads_nowhere`: whether an interface of this
/// name is a bridge between programs of this host.
fn choose(
    rules: &InterfaceRules,
    listening: &Listening,
    all: &[Interface],
    leads_nowhere: impl Fn(&str) -> bool,
) -> Chosen {
    let mut suitable: Vec<&Interface> = all
        .iter()
        .filter(|interface| {
            interface.is_oper_up()
                && !interface.is_p2p()
                // Only where there is nothing else: other machines cannot use it.
                && interface.is_loopback() == listening.is_loopback_only()
                && listening.takes(interface.ip())
                && rules.permit(&interface.name)
                && (rules.names(&interface.name) || !leads_nowhere(&interface.name))
        })
        .collect();
    suitable.sort_by_key(|interface| interface.index);
    let mut chosen: Vec<&Interface> = Vec::new();
    for interface in suitable {
        // Two interfaces on one LAN hear each other, and would contest each other's names for ever (users.md R20).
        let is_second = chosen.iter().any(|first| {
            first.index != interface.index && network(first).is_some_and(|of| Some(of) == network(interface))
        });
        if !is_second {
            chosen.push(interface);
        }
    }
    chosen.into_iter().map(|interface| (interface.index.unwrap_or(0), interface.ip())).collect()
}

/// The network that an address is in. Link-local ones say nothing: every link has the same.
fn network(interface: &Interface) -> Option<(IpAddr, u8)> {
    if interface.is_loopback() || interface.is_link_local() {
        return None;
    }
    match &interface.addr {
        IfAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4.prefixlen)).unwrap_or(0);
            Some((IpAddr::V4((u32::from(v4.ip) & mask).into()), v4.prefixlen))
        }
        IfAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6.prefixlen)).unwrap_or(0);
            Some((IpAddr::V6((u128::from(v6.ip) & mask).into()), v6.prefixlen))
        }
    }
}

/// Whether an interface is a bridge without any device of the host in it, whatever its name: containers and virtual
/// machines talk over it.
fn leads_nowhere(name: &str) -> bool {
    let root = Path::new("/sys/class/net").join(name);
    if !root.join("bridge").exists() {
        return false;
    }
    let ports = fs::read_dir(root.join("brif")).into_iter().flatten().flatten();
    !ports.into_iter().any(|port| Path::new("/sys/class/net").join(port.file_name()).join("device").exists())
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(index: u32, name: &str, address: &str) -> Interface {
        let (ip, prefixlen) = address.split_once('/').expect("it has a length");
        let prefixlen = prefixlen.parse().expect("a number");
        let addr = match ip.parse().expect("an address") {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: std::net::Ipv4Addr::UNSPECIFIED,
                prefixlen,
                broadcast: None,
            }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr {
                ip,
                netmask: std::net::Ipv6Addr::UNSPECIFIED,
                prefixlen,
                broadcast: None,
            }),
        };
        Interface {
            name: name.to_owned(),
            addr,
            index: Some(index),
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    fn chosen(bound: &[&str], rules: &InterfaceRules, all: &[Interface]) -> Vec<String> {
        let bound: Vec<SocketAddr> =
            bound.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 1)).collect();
        let listening = Listening::new(&bound, true);
        let chosen = choose(rules, &listening, all, |name| name == "br0");
        let mut found: Vec<String> = chosen.into_iter().map(|(_, ip)| ip.to_string()).collect();
        found.sort();
        found
    }

    fn host() -> Vec<Interface> {
        vec![
            interface(1, "lo", "127.0.0.1/8"),
            interface(1, "lo", "::1/128"),
            interface(2, "eth0", "192.168.1.5/24"),
            interface(2, "eth0", "fe80::5/64"),
            interface(2, "eth0", "2001:db8::5/64"),
            interface(3, "docker0", "172.17.0.1/16"),
            interface(4, "br0", "10.9.0.1/24"),
            interface(5, "wlan0", "192.168.2.5/24"),
            Interface { is_p2p: true, ..interface(6, "wwan0", "10.1.0.1/32") },
            Interface { oper_status: IfOperStatus::Down, ..interface(7, "eth1", "10.2.0.1/24") },
        ]
    }

    #[test]
    fn a_gateway_is_announced_where_it_listens_and_nowhere_else() {
        let rules = InterfaceRules::default();
        for (bound, expected) in [
            (&["0.0.0.0"][..], &["192.168.1.5", "192.168.2.5"][..]),
            (&["::"], &["192.168.1.5", "192.168.2.5", "2001:db8::5", "fe80::5"]),
            (&["192.168.2.5"], &["192.168.2.5"]),
            (&["127.0.0.1", "::1"], &["127.0.0.1", "::1"]),
            (&["127.0.0.1"], &["127.0.0.1"]),
            (&["10.1.0.1"], &[]),
            (&["10.2.0.1"], &[]),
        ] {
            assert_eq!(chosen(bound, &rules, &host()), expected, "{bound:?}");
        }
        assert!(
            Listening::new(&["[::]:1".parse().expect("an address")], false)
                .takes("::1".parse().expect("one"))
        );
        assert!(
            !Listening::new(&["[::]:1".parse().expect("an address")], false)
                .takes("10.0.0.1".parse().expect("one"))
        );
    }

    #[test]
    fn interfaces_without_a_lan_count_only_when_they_are_named() {
        let allow = |names: &[&str]| InterfaceRules {
            allow: names.iter().map(|name| (*name).to_owned()).collect(),
            deny: vec!["wlan*".to_owned()],
        };
        assert_eq!(chosen(&["0.0.0.0"], &allow(&[]), &host()), ["192.168.1.5"]);
        assert_eq!(chosen(&["0.0.0.0"], &allow(&["docker0", "br*"]), &host()), ["10.9.0.1", "172.17.0.1"]);
    }

    #[test]
    fn of_two_interfaces_on_one_lan_one_is_enough() {
        let both = [
            interface(9, "eth1", "192.168.1.6/24"),
            interface(2, "eth0", "192.168.1.5/24"),
            interface(2, "eth0", "192.168.1.7/24"),
            interface(3, "eth2", "192.168.3.1/24"),
        ];
        let rules = InterfaceRules::default();
        assert_eq!(chosen(&["0.0.0.0"], &rules, &both), ["192.168.1.5", "192.168.1.7", "192.168.3.1"]);
    }
}
