//! One gateway as it was found: from raw records, whose texts are cleaned, to what people and programs read.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use openclaw_schema::discovery::{LOCAL_DOMAIN, txt};
use serde::Serialize;

/// The longest text that is kept of a record. DNS allows 255 bytes.
const MAX_TEXT_CHARS: usize = 255;
/// How many TXT pairs are kept. Ours are ten.
const MAX_PAIRS: usize = 40;
/// How many addresses are kept.
const MAX_ADDRESSES: usize = 16;

/// A gateway that was found. As JSON it has the members of stock's `gateway discover --json`, and `addresses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Beacon {
    /// The name of the service instance.
    pub instance_name: String,
    /// The name for people: TXT `displayName`, or else the instance's.
    pub display_name: String,
    /// The host of the SRV record, without a dot at the end.
    pub host: String,
    /// The port of the SRV record.
    pub port: u16,
    /// The TXT record. Hints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub txt: BTreeMap<String, String>,
    /// TXT `lanHost`. A hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lan_host: Option<String>,
    /// TXT `tailnetDns`. A hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tailnet_dns: Option<String>,
    /// TXT `cliPath`. A hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cli_path: Option<String>,
    /// TXT `role`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// TXT `transport`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// TXT `gatewayPort`. A hint: [`Self::port`] is where to connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_port: Option<u16>,
    /// TXT `sshPort`. A hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_port: Option<u16>,
    /// Whether TXT says that the endpoint speaks TLS; absent when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_tls: Option<bool>,
    /// TXT `gatewayTlsSha256`. A hint, never a reason to trust: whoever announces chooses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_tls_fingerprint_sha256: Option<String>,
    /// Where it was found: `local.` or the wide-area domain, with its dot at the end.
    pub domain: String,
    /// Where to connect, from SRV and address records.
    pub ws_url: String,
    /// The addresses, the one to try first in front; those of one link with their interface (`fe80::1%eth0`).
    pub addresses: Vec<String>,
    /// The addresses with the port, in the same order, ready to connect to.
    #[serde(skip)]
    pub endpoints: Vec<SocketAddr>,
    /// The host as [`Self::ws_url`] has it, for other protocols than WebSocket, such as SSH: a name or an address,
    /// with its interface where that matters.
    #[serde(skip)]
    pub target_host: String,
}

impl Beacon {
    /// Whether both are the same gateway's: the same instance in the same domain.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.domain == other.domain && self.instance_name.eq_ignore_ascii_case(&other.instance_name)
    }
}

/// One address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    /// For an address that holds on one link only: the index and the name of the interface.
    pub(super) link: Option<(u32, String)>,
}

impl Address {
    fn endpoint(&self, port: u16) -> SocketAddr {
        match (self.ip, &self.link) {
            (IpAddr::V6(ip), Some((index, _))) => SocketAddrV6::new(ip, port, 0, *index).into(),
            (ip, _) => SocketAddr::new(ip, port),
        }
    }

    /// As `ssh` and `ping` take it.
    fn text(&self) -> String {
        match &self.link {
            Some((_, name)) => format!("{}%{name}", self.ip),
            None => self.ip.to_string(),
        }
    }

    /// As a URL has it. RFC 6874 for the interface.
    fn in_url(&self) -> String {
        match (self.ip, &self.link) {
            (IpAddr::V6(ip), Some((_, name))) => format!("[{ip}%25{}]", percent_encoded(name)),
            (IpAddr::V6(ip), None) => format!("[{ip}]"),
            (IpAddr::V4(ip), _) => ip.to_string(),
        }
    }

    /// The lower, the sooner it is tried: what needs no more than itself to be reached comes first.
    fn rank(&self) -> u8 {
        match self.ip {
            IpAddr::V4(ip) if ip.is_loopback() => 4,
            IpAddr::V4(ip) if ip.is_link_local() => 3,
            IpAddr::V4(_) => 0,
            IpAddr::V6(ip) if ip.is_loopback() => 5,
            IpAddr::V6(ip) if is_unicast_link_local(ip) => 2,
            IpAddr::V6(_) => 1,
        }
    }
}

/// fe80::/10.
pub(super) fn is_unicast_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// Whether a gateway can be at an address. `on_loopback`: whether the answer came from this machine alone; another
/// machine that names ours would make a caller send its credential to whoever listens here.
pub(super) fn is_plausible(ip: IpAddr, on_loopback: bool) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !ip.is_unspecified()
                && !ip.is_multicast()
                && !ip.is_broadcast()
                && (on_loopback || !ip.is_loopback())
        }
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(mapped) => is_plausible(IpAddr::V4(mapped), on_loopback),
            None => !ip.is_unspecified() && !ip.is_multicast() && (on_loopback || !ip.is_loopback()),
        },
    }
}

/// The records of one instance, as a source read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The label of the instance, unescaped.
    pub(super) instance: String,
    /// The target of SRV.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) addresses: Vec<Address>,
    pub(super) txt: Vec<(String, String)>,
    /// With its dot at the end.
    pub(super) domain: String,
    /// Whether this machine's own resolver knows the host's name, so that a URL may have it.
    pub(super) resolvable: bool,
}

impl Sighting {
    /// Puts addresses in the order in which they are to be tried, each once.
    pub(super) fn sort_addresses(&mut self) {
        self.addresses.sort_by(|a, b| {
            a.rank().cmp(&b.rank()).then_with(|| a.ip.cmp(&b.ip)).then_with(|| match (&a.link, &b.link) {
                (Some((a, _)), Some((b, _))) => a.cmp(b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            })
        });
        self.addresses.dedup();
        self.addresses.truncate(MAX_ADDRESSES);
    }

    /// Whether both lead to the same socket, beyond doubt: addresses of one link or one machine mean different
    /// machines in different places.
    pub(super) fn shares_endpoint(&self, other: &Self) -> bool {
        self.port == other.port
            && self.addresses.iter().any(|address| {
                address.rank() < 2 && other.addresses.iter().any(|known| known.ip == address.ip)
            })
    }

    /// The gateway; absent when there is no way to it.
    pub(super) fn beacon(&self) -> Option<Beacon> {
        if self.port == 0 {
            return None;
        }
        let host = clean(self.host.trim_end_matches('.'), MAX_TEXT_CHARS);
        let name = is_host_name(&host).then_some(host.as_str());
        let (in_url, target_host) = match (self.addresses.first(), name) {
            (_, Some(name)) if self.resolvable => (name.to_owned(), name.to_owned()),
            (Some(address), _) => (address.in_url(), address.text()),
            (None, Some(name)) => (name.to_owned(), name.to_owned()),
            (None, None) => return None,
        };
        let mut txt = BTreeMap::new();
        for (key, value) in self.txt.iter().take(MAX_PAIRS) {
            let key = clean(key, MAX_TEXT_CHARS);
            if !key.is_empty() {
                // The first one of a key counts: RFC 6763 section 6.4.
                txt.entry(key).or_insert_with(|| clean(value, MAX_TEXT_CHARS));
            }
        }
        // Keys are the same in upper and lower case: RFC 6763 section 6.4.
        let text = |wanted: &str| {
            let found = txt.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let port = |wanted| text(wanted).and_then(|text| text.parse().ok()).filter(|port: &u16| *port > 0);
        let tls = text(txt::GATEWAY_TLS).is_some_and(|value| value == "1" || value == "true");
        let instance_name = clean(&self.instance, MAX_TEXT_CHARS);
        let scheme = if tls { "wss" } else { "ws" };
        Some(Beacon {
            display_name: text(txt::DISPLAY_NAME).unwrap_or_else(|| instance_name.clone()),
            lan_host: text(txt::LAN_HOST),
            tailnet_dns: text(txt::TAILNET_DNS),
            cli_path: text(txt::CLI_PATH),
            role: text(txt::ROLE),
            transport: text(txt::TRANSPORT),
            gateway_port: port(txt::GATEWAY_PORT),
            ssh_port: port(txt::SSH_PORT),
            gateway_tls: tls.then_some(true),
            gateway_tls_fingerprint_sha256: text(txt::GATEWAY_TLS_SHA256),
            ws_url: format!("{scheme}://{in_url}:{}", self.port),
            addresses: self.addresses.iter().map(Address::text).collect(),
            endpoints: self.addresses.iter().map(|address| address.endpoint(self.port)).collect(),
            target_host,
            domain: self.domain.clone(),
            port: self.port,
            instance_name,
            host,
            txt,
        })
    }
}

/// The order of results: by name, then by place.
pub(super) fn order(a: &Beacon, b: &Beacon) -> Ordering {
    let key = |beacon: &Beacon| {
        (beacon.display_name.to_lowercase(), beacon.domain != LOCAL_DOMAIN, beacon.host.clone(), beacon.port)
    };
    key(a).cmp(&key(b)).then_with(|| a.instance_name.cmp(&b.instance_name))
}

/// Text from the network, without what could steer a terminal or turn the direction of writing.
pub(super) fn clean(text: &str, max_chars: usize) -> String {
    let is_steering = |char: char| {
        char.is_control()
            || matches!(char, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    text.chars().take(max_chars).map(|char| if is_steering(char) { '\u{FFFD}' } else { char }).collect()
}

/// Whether a name can stand in a URL and on a command line as it is.
fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// The label of an instance out of a full name in `domain`, its escapes undone: `\.` and `\032` (RFC 6763
/// section 4.3).
pub(super) fn instance_of(full_name: &str, service_and_domain: &str) -> Option<String> {
    let cut = full_name.len().checked_sub(service_and_domain.len() + 1)?;
    let (label, rest) = (full_name.get(..cut)?, full_name.get(cut..)?);
    if !rest.strip_prefix('.')?.eq_ignore_ascii_case(service_and_domain) {
        return None;
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(label.len()), label.as_bytes());
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [a, b, c, after @ ..]) if [a, b, c].iter().all(|byte| byte.is_ascii_digit()) => {
                let number = [a, b, c].iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(**digit - b'0'));
                bytes.push(u8::try_from(number).unwrap_or(b'?'));
                after
            }
            (b'\\', [escaped, after @ ..]) => {
                bytes.push(*escaped);
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn sighting(instance: &str, domain: &str, address: &str, port: u16) -> Sighting {
        Sighting {
            instance: instance.to_owned(),
            host: "studio.local.".to_owned(),
            port,
            addresses: vec![Address { ip: address.parse().expect("an address"), link: None }],
            txt: Vec::new(),
            domain: domain.to_owned(),
            resolvable: false,
        }
    }

    fn pairs(given: &[(&str, &str)]) -> Vec<(String, String)> {
        given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_beacon_has_the_recorded_members() {
        let sighting = Sighting {
            txt: pairs(&[
                ("displayName", "Studio Mac"),
                ("role", "gateway"),
                ("transport", "gateway"),
                ("gatewayPort", "18789"),
                ("sshPort", "2222"),
                ("tailnetDns", "studio.tail1234.ts.net"),
                ("lanHost", "studio.local"),
                ("cliPath", "/usr/bin/openclaw"),
                ("gatewayTls", "1"),
                ("gatewayTlsSha256", "aabbcc"),
            ]),
            ..sighting("vm (OpenClaw)", "local.", "192.168.1.5", 19777)
        };
        let beacon = sighting.beacon().expect("it can be reached");
        let json = serde_json::to_string(&beacon).expect("it serialises");
        assert_eq!(
            json,
            r#"{"instanceName":"vm (OpenClaw)","displayName":"Studio Mac","host":"studio.local","port":19777,"txt":{"cliPath":"/usr/bin/openclaw","displayName":"Studio Mac","gatewayPort":"18789","gatewayTls":"1","gatewayTlsSha256":"aabbcc","lanHost":"studio.local","role":"gateway","sshPort":"2222","tailnetDns":"studio.tail1234.ts.net","transport":"gateway"},"lanHost":"studio.local","tailnetDns":"studio.tail1234.ts.net","cliPath":"/usr/bin/openclaw","role":"gateway","transport":"gateway","gatewayPort":18789,"sshPort":2222,"gatewayTls":true,"gatewayTlsFingerprintSha256":"aabbcc","domain":"local.","wsUrl":"wss://192.168.1.5:19777","addresses":["192.168.1.5"]}"#
        );
        assert_eq!(beacon.endpoints, ["192.168.1.5:19777".parse::<SocketAddr>().expect("an address")]);
    }

    #[test]
    fn hints_never_decide_where_to_connect() {
        let sighting = Sighting {
            txt: pairs(&[
                ("gatewayPort", "1"),
                ("lanHost", "evil.local"),
                ("tailnetDns", "evil.example"),
                ("displayName", ""),
                ("sshPort", "99999"),
                ("GATEWAYTLS", "1"),
            ]),
            ..sighting("a", "local.", "10.0.0.2", 18789)
        };
        let beacon = sighting.beacon().expect("it can be reached");
        assert_eq!(beacon.ws_url, "wss://10.0.0.2:18789");
        assert_eq!((beacon.display_name.as_str(), beacon.ssh_port), ("a", None));
        assert_eq!(beacon.target_host, "10.0.0.2");
        assert!(Sighting { port: 0, ..sighting }.beacon().is_none());
    }

    #[test]
    fn addresses_of_version_6_stand_in_urls_as_they_must() {
        let link =
            |ip: &str| Address { ip: ip.parse().expect("an address"), link: Some((3, "eth 0".to_owned())) };
        let mut sighting = sighting("a", "local.", "2001:db8::1", 1);
        assert_eq!(sighting.beacon().expect("it can be reached").ws_url, "ws://[2001:db8::1]:1");
        sighting.addresses = vec![link("fe80::1")];
        let beacon = sighting.beacon().expect("it can be reached");
        assert_eq!(beacon.ws_url, "ws://[fe80::1%25eth%200]:1");
        assert_eq!(beacon.addresses, ["fe80::1%eth 0"]);
        assert_eq!(
            beacon.endpoints,
            [SocketAddr::from(SocketAddrV6::new("fe80::1".parse().expect("one"), 1, 0, 3))]
        );
        sighting.addresses.extend(
            ["169.254.1.1", "127.0.0.1", "2001:db8::1", "10.0.0.1", "10.0.0.1"]
                .map(|ip| Address { ip: ip.parse().expect("an address"), link: None }),
        );
        sighting.sort_addresses();
        assert_eq!(
            sighting.beacon().expect("it can be reached").addresses,
            ["10.0.0.1", "2001:db8::1", "fe80::1%eth 0", "169.254.1.1", "127.0.0.1"]
        );
    }

    #[test]
    fn texts_cannot_steer_a_terminal() {
        let sighting = Sighting {
            host: "h\u{1b}]0;x\u{7}.local.".to_owned(),
            txt: pairs(&[("displayName", "a\u{1b}[2Jb\u{9b}c\nd\u{202e}e"), ("k\u{8}", "v\r")]),
            ..sighting("i\u{1b}", "local.", "10.0.0.1", 1)
        };
        let beacon = sighting.beacon().expect("it can be reached");
        let json = serde_json::to_string(&beacon).expect("it serialises");
        assert!(!json.chars().any(char::is_control) && !json.contains("\\u00"), "{json}");
        assert_eq!(beacon.display_name, "a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}d\u{FFFD}e");
        // A name that cannot stand in a URL does not, even where there is no address.
        assert!(Sighting { addresses: Vec::new(), ..sighting }.beacon().is_none());
    }

    #[test]
    fn other_machines_cannot_point_at_this_one() {
        let is_ok = |ip: &str, on_loopback| is_plausible(ip.parse().expect("an address"), on_loopback);
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(!is_ok(ip, false) && is_ok(ip, true), "{ip}");
        }
        for ip in ["0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255"] {
            assert!(!is_ok(ip, false) && !is_ok(ip, true), "{ip}");
        }
        assert!(is_ok("10.0.0.1", false) && is_ok("fe80::1", false));
    }

    #[test]
    fn instance_names_lose_their_escapes() {
        let service = "_openclaw-gw._tcp.local.";
        for (label, name) in [
            ("vm (OpenClaw)", "vm (OpenClaw)"),
            (r"Bob\226\128\153s\032Mac", "Bob’s Mac"),
            (r"a\.b\\c", r"a.b\c"),
            (r"end\", r"end\"),
            (r"\999", "?"),
            ("zoë", "zoë"),
        ] {
            assert_eq!(instance_of(&format!("{label}.{service}"), service).as_deref(), Some(name));
        }
        assert_eq!(instance_of("x._OpenClaw-gw._tcp.Local.", service).as_deref(), Some("x"));
        for other in ["", service, "x._http._tcp.local.", "ü"] {
            assert_eq!(instance_of(other, service), None, "{other}");
        }
    }
}
