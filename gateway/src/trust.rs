//! Whom a gateway trusts beyond its own host: origins of pages, and proxies.

use std::{net::IpAddr, str::FromStr};

/// Whom a gateway trusts beyond its own host. By default nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Pages that may call although the gateway does not serve them. The names of their hosts may also be used to
    /// address the gateway, as behind a proxy. wire.md section 4; stock's key `gateway.controlUi.allowedOrigins`.
    pub origins: Vec<Origin>,
    /// Proxies that are believed when they name the address of a client in `X-Forwarded-For`. wire.md section 1;
    /// stock's key `gateway.trustedProxies`.
    pub proxies: Vec<Network>,
}

/// The origin of a page, such as `https://gateway.example.com`, or `*` for every page there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// In lower case, without a slash at the end.
    text: String,
}

impl Origin {
    /// Whether it stands for every page there is.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.text == "*"
    }

    /// Whether a page of `origin`, an `Origin` header, is meant.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        self.is_any() || self.text.eq_ignore_ascii_case(origin)
    }

    /// Whether `host`, in lower case and without a port, is the host of the origin.
    pub(crate) fn has_host(&self, host: &str) -> bool {
        self.is_any() || authority(&self.text).is_some_and(|authority| host_of(authority) == Some(host))
    }
}

/// A text that is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an origin such as \"https://gateway.example.com\", without a path, or \"*\"")]
pub struct NoOrigin;

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let text = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
        let is_origin = text == "*" || authority(&text).is_some_and(|authority| host_of(authority).is_some());
        if is_origin { Ok(Self { text }) } else { Err(NoOrigin) }
    }
}

/// `host:port` of an origin.
pub(crate) fn authority(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    (!scheme.is_empty() && scheme.bytes().all(is_scheme)).then_some(authority)
}

/// The host of `host:port`, an IPv6 address without its brackets. `None` for what is neither.
pub(crate) fn host_of(authority: &str) -> Option<&str> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').filter(|(host, _)| host.contains(':'))?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    (is_port && !host.is_empty() && host.bytes().all(is_host)).then_some(host)
}

/// Addresses that begin with the same bits, such as `10.0.0.0/8`; a single address is the longest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= u32::from(self.prefix)
    }
}

/// A text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or a network, such as \"127.0.0.1\" or \"10.0.0.0/8\"")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| NoNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix <= longest { Ok(Self { address, prefix }) } else { Err(NoNetwork) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for good in
            ["https://gateway.example.com", "HTTP://[::1]:80", "chrome-extension://abcdef", "https://a/", "*"]
        {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for bad in
            ["gateway.example.com", "https://", "https://a/b", "https://me@a", "https://a:b", "null", ""]
        {
            assert_eq!(bad.parse::<Origin>(), Err(NoOrigin), "{bad}");
        }
        let origin: Origin = "https://Gateway.example.com:8443".parse().expect("it is one");
        assert!(origin.matches("https://gateway.example.com:8443"));
        assert!(
            !origin.matches("https://gateway.example.com")
                && !origin.matches("http://gateway.example.com:8443")
        );
        assert!(origin.has_host("gateway.example.com") && !origin.has_host("example.com"));
    }

    #[test]
    fn a_network_holds_what_begins_like_it() {
        let holds = |network: &str, address: &str| {
            let network: Network = network.parse().expect("a network");
            network.contains(address.parse().expect("an address"))
        };
        assert!(holds("127.0.0.1", "127.0.0.1") && holds("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!holds("127.0.0.1", "127.0.0.2") && !holds("127.0.0.1", "::1"));
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "192.0.2.1") && holds("2001:db8::/32", "2001:db8::1"));
        for bad in ["", "localhost", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129", "1.2.3"] {
            assert_eq!(bad.parse::<Network>(), Err(NoNetwork), "{bad}");
        }
    }
}
