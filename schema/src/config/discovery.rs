//! The section `discovery`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{MdnsMode, Sourced, Texts};

/// The section `discovery`: how a gateway is announced, and where gateways are looked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Discovery {
    /// Multicast DNS, on the networks of this machine.
    pub mdns: Mdns,
    /// DNS, in a domain that name servers know.
    pub wide_area: WideArea,
}

/// The section `discovery.mdns`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Mdns {
    /// How much a gateway tells the networks it is on about itself. `OPENCLAW_DISABLE_BONJOUR` comes before it, unless
    /// it is `off`.
    #[schemars(extend("default" = "minimal"))]
    pub mode: Option<Sourced<MdnsMode>>,
    /// The network interfaces that count.
    pub interfaces: Interfaces,
}

/// The section `discovery.mdns.interfaces`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Interfaces {
    /// Names of interfaces to use, such as `eth0` or `wlan*`. By default all but those of containers, virtual machines
    /// and tunnels.
    pub allow: Option<Sourced<Texts>>,
    /// Names of interfaces to leave out. They go before those to use.
    pub deny: Option<Sourced<Texts>>,
}

/// The section `discovery.wideArea`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WideArea {
    /// Whether gateways are looked for in the domain. By default they are where `domain` is set.
    pub enabled: Option<Sourced<bool>>,
    /// The domain, such as `openclaw.internal`. `OPENCLAW_WIDE_AREA_DOMAIN` adds another.
    pub domain: Option<Sourced<String>>,
    /// The name server to ask about it: an IP address, with a port unless it is 53. By default the system's.
    pub dns_server: Option<Sourced<String>>,
}
