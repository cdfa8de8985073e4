//! Who is behind a connection, as far as it decides about trust: an address, and whether it is a page in a browser.

use std::net::IpAddr;

/// Who is behind a connection. What the headers of a request say about it is read in `wire::guard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The client's address: behind a trusted proxy, the one that the proxy names. An IPv4 address is never written
    /// as IPv6.
    pub(crate) ip: IpAddr,
    /// Whether the client is on the gateway's own host: a loopback address, and no proxy between.
    pub(crate) is_local: bool,
    /// Whether a page in a browser is behind it.
    pub(crate) page: Page,
}

/// The port that a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// The gateway's own.
    Own,
    /// That of a proxy on this host: see [`crate::settings::ProxyPort`].
    Proxy,
}

/// The page in a browser that is behind a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// There is none: a program calls.
    None,
    /// A page of the gateway's own address, or of an origin that the settings trust.
    Own,
    /// A page of any other site.
    Foreign,
}

impl Caller {
    /// Whether failed attempts are held against the caller. Not against programs on the gateway's own host, whose
    /// user could read the secret anyway; but always against pages: any page that the user visits reaches loopback.
    pub(crate) fn may_be_locked_out(self) -> bool {
        !self.is_local || self.page != Page::None
    }
}

#[cfg(test)]
impl Caller {
    /// A program at `ip`, without a proxy between.
    pub(crate) fn at(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self { ip, is_local: ip.is_loopback(), page: Page::None }
    }
}
