//! How a gateway is found: the DNS-SD service, the keys of its TXT record, and which network interfaces count.
//!
//! The gateway announces with these names, the client looks for them. What is in a TXT record is a hint for people:
//! nobody signs it. Where a gateway is follows from SRV and address records alone.

/// The service type, without a domain.
pub const SERVICE_TYPE: &str = "_openclaw-gw._tcp";

/// The domain of multicast DNS, as results name it.
pub const LOCAL_DOMAIN: &str = "local.";

/// The keys of the TXT record.
pub mod txt {
    /// Always `gateway`.
    pub const ROLE: &str = "role";
    /// Always `gateway`.
    pub const TRANSPORT: &str = "transport";
    /// The port, as SRV has it.
    pub const GATEWAY_PORT: &str = "gatewayPort";
    /// The name for people.
    pub const DISPLAY_NAME: &str = "displayName";
    /// The host name in `local.`.
    pub const LAN_HOST: &str = "lanHost";
    /// The host name in the tailnet; in full mode.
    pub const TAILNET_DNS: &str = "tailnetDns";
    /// The port of the host's SSH server; in full mode.
    pub const SSH_PORT: &str = "sshPort";
    /// Where the command line lies on the host; in full mode.
    pub const CLI_PATH: &str = "cliPath";
    /// `1` when the endpoint speaks TLS.
    pub const GATEWAY_TLS: &str = "gatewayTls";
    /// SHA-256 of the endpoint's certificate, in hexadecimal.
    pub const GATEWAY_TLS_SHA256: &str = "gatewayTlsSha256";
}

/// Names of interfaces behind which there is no LAN: those of containers, virtual machines, tunnels, and links
/// between two machines of Apple's. users.md R20.
const VIRTUAL: &[&str] = &[
    "docker*",
    "br-*",
    "veth*",
    "podman*",
    "cni*",
    "flannel*",
    "cali*",
    "cilium*",
    "kube-*",
    "lxcbr*",
    "lxdbr*",
    "virbr*",
    "vnet*",
    "tap*",
    "tun*",
    "utun*",
    "wg*",
    "tailscale*",
    "zt*",
    "ham*",
    "awdl*",
    "llw*",
    "anpi*",
    "vmnet*",
    "vboxnet*",
    "bridge1*",
    "dummy*",
    "ip6tnl*",
    "sit*",
    "gre*",
];

/// Which network interfaces take part in multicast DNS, by their names. `*` stands for any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceRules {
    /// If there are any: these alone, virtual ones too.
    pub allow: Vec<String>,
    /// Never these.
    pub deny: Vec<String>,
}

impl InterfaceRules {
    /// Whether an interface of this name takes part.
    #[must_use]
    pub fn permit(&self, name: &str) -> bool {
        let among = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        !among(&self.deny) && if self.allow.is_empty() { !is_virtual(name) } else { among(&self.allow) }
    }

    /// Whether somebody asked for this interface by name.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.allow.iter().any(|pattern| matches(pattern, name))
    }
}

/// Whether an interface of this name leads to no LAN.
#[must_use]
pub fn is_virtual(name: &str) -> bool {
    VIRTUAL.iter().any(|pattern| matches(pattern, name))
}

/// Whether `name` is of the form `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth", true),
            ("*", "anything", true),
            ("e*0", "eth0", true),
            ("e*0", "eth1", false),
            ("e*h*0", "eth10", true),
            ("e*h*0", "et10", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn virtual_interfaces_take_part_only_when_asked_for() {
        let rules = InterfaceRules::default();
        for name in ["eth0", "enp3s0", "wlan0", "en0", "br0", "bond0", "lo"] {
            assert!(rules.permit(name), "{name}");
        }
        for name in ["docker0", "br-1a2b3c", "veth12", "utun3", "awdl0", "tailscale0", "virbr0"] {
            assert!(!rules.permit(name), "{name}");
        }
        let rules =
            InterfaceRules { allow: vec!["docker*".into(), "eth0".into()], deny: vec!["docker1".into()] };
        let permitted = ["docker0", "docker1", "eth0", "eth1"].map(|name| rules.permit(name));
        assert_eq!(permitted, [true, false, true, false]);
    }
}
