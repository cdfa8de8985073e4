//! Who is behind an HTTP request, and which requests are turned away before anything of them is served: pages of
//! other sites, pages that reached the gateway by a name that is not its own, and proxies that nobody vouches for.
//!
//! A browser says that it is one by `Origin` or `Sec-Fetch-Site`, which no page can leave out or forge. A program
//! may claim anything: that gains it nothing, as what is asked of browsers is asked on top of the credential.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName,
    header::{FORWARDED, HOST, ORIGIN},
};

use crate::{
    caller::{Caller, Entrance, Page},
    trust::{self, Trust},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What a request is asked before it is served.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The machine's own names, in lower case.
    names: Vec<String>,
    trust: Trust,
}

/// Why a request is turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// DNS rebinding: a page whose own name was made to lead to the gateway would count as the gateway's page.
    #[error(
        "host not allowed: a page may address this gateway by an IP address, by localhost, by the machine's own \
         name, or by a host of gateway.controlUi.allowedOrigins"
    )]
    Host,
    /// A page of another site.
    #[error(
        "origin not allowed: open the page from the gateway itself, or list its origin in \
         gateway.controlUi.allowedOrigins"
    )]
    Origin,
    /// A proxy on this host whose word for the client's address cannot be taken.
    #[error(
        "the request came through a proxy that is not trusted: list the proxy's address in gateway.trustedProxies, \
         and have it set X-Forwarded-For"
    )]
    Proxy,
    /// The port for a proxy was found by somebody else, or the proxy does not say whom it speaks for.
    #[error(
        "this port is for a proxy that names the client in X-Forwarded-For, and the request names none: call the \
         gateway's own port"
    )]
    NoClient,
}

impl Guard {
    /// The guard of a machine of this name, which a proxy also makes known as the host of `proxy_url`.
    pub(crate) fn new(hostname: &str, proxy_url: Option<&str>, trust: Trust) -> Self {
        let hostname = hostname.to_ascii_lowercase();
        let first = hostname.split('.').next().unwrap_or_default();
        let mut names = if first.is_empty() {
            Vec::new()
        } else {
            vec![format!("{first}.local"), format!("{hostname}.local"), first.to_owned(), hostname]
        };
        let of_proxy = proxy_url.and_then(trust::authority).and_then(trust::host_of);
        names.extend(of_proxy.map(str::to_ascii_lowercase));
        Self { names, trust }
    }

    /// The page behind a request. Refuses one that names the gateway by a name that is not known to be its own.
    pub(crate) fn page(&self, headers: &HeaderMap) -> Result<Page, Refused> {
        let (origin, site) = (headers.get(ORIGIN), headers.get(SEC_FETCH_SITE));
        if origin.is_none() && site.is_none() {
            return Ok(Page::None);
        }
        let only = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
        };
        let authority = only(&HOST).ok_or(Refused::Host)?;
        let host = trust::host_of(authority).ok_or(Refused::Host)?;
        if !self.is_own_name(host) {
            return Err(Refused::Host);
        }
        let site = site.map(|_| only(&SEC_FETCH_SITE).unwrap_or_default());
        let is_own = match (origin, only(&ORIGIN)) {
            (None, _) => matches!(site, Some("same-origin" | "none")),
            (Some(_), None) => false,
            (Some(_), Some(origin)) => {
                self.trust.origins.iter().any(|trusted| trusted.matches(origin))
                    || site != Some("cross-site")
                        && trust::authority(origin).is_some_and(|of| of.eq_ignore_ascii_case(authority))
            }
        };
        Ok(if is_own { Page::Own } else { Page::Foreign })
    }

    /// Who is behind a request of `page` that came from `peer`, through `entrance`.
    pub(crate) fn caller(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        entrance: Entrance,
        page: Page,
    ) -> Result<Caller, Refused> {
        let ip = peer.to_canonical();
        let is_trusted = |ip: IpAddr| self.trust.proxies.iter().any(|proxy| proxy.contains(ip));
        let refused = match entrance {
            Entrance::Own if !is_forwarded(headers) => {
                return Ok(Caller { ip, is_local: ip.is_loopback(), page });
            }
            // From elsewhere the headers are mere words: the peer counts as the client, and is not local anyway.
            Entrance::Own if !is_trusted(ip) && !ip.is_loopback() => {
                return Ok(Caller { ip, is_local: false, page });
            }
            Entrance::Own if !is_trusted(ip) => return Err(Refused::Proxy),
            Entrance::Own => Refused::Proxy,
            // Whoever else finds the port can only make itself less than it is on the gateway's own.
            Entrance::Proxy => Refused::NoClient,
        };
        let Some(chain) = forwarded_for(headers) else { return Err(refused) };
        // Each proxy appends whom it saw: from the end, the first that is no proxy of ours is the client.
        let client = chain.iter().rev().find(|ip| !is_trusted(**ip)).or(chain.first()).copied();
        match client {
            Some(ip) if !ip.is_loopback() => Ok(Caller { ip, is_local: false, page }),
            _ => Err(refused),
        }
    }

    /// Whether `host` cannot be a name that a stranger made lead here.
    fn is_own_name(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        host.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            // Names of a tailnet are given out by it and lead into it.
            || host.ends_with(".ts.net")
            || self.names.contains(&host)
            || self.trust.origins.iter().any(|origin| origin.has_host(&host))
    }
}

/// Whether a proxy has left its marks (wire.md section 1).
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
        || headers.contains_key(X_REAL_IP)
        || headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"))
}

/// The addresses of `X-Forwarded-For`, the client first. `None` when one of them is none.
fn forwarded_for(headers: &HeaderMap) -> Option<Vec<IpAddr>> {
    let mut chain = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        for address in value.to_str().ok()?.split(',') {
            let address = address.trim().trim_start_matches('[').trim_end_matches(']');
            chain.push(address.parse::<IpAddr>().ok()?.to_canonical());
        }
    }
    Some(chain)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn guard(origins: &[&str], proxies: &[&str]) -> Guard {
        let trust = Trust {
            origins: origins.iter().map(|origin| origin.parse().expect("an origin")).collect(),
            proxies: proxies.iter().map(|proxy| proxy.parse().expect("a network")).collect(),
        };
        Guard::new("Ada.example.org", Some("wss://Ada.headscale.example"), trust)
    }

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let value = |value: &str| HeaderValue::from_str(value).expect("a value");
        let mut headers = HeaderMap::new();
        for (name, text) in given {
            headers.append(*name, value(text));
        }
        headers
    }

    #[test]
    fn a_page_is_own_by_its_origin_and_foreign_otherwise() {
        let guard = guard(&["https://ui.example.com", "chrome-extension://abc"], &[]);
        let own = || Ok(Page::Own);
        let foreign = || Ok(Page::Foreign);
        let rebound = || Err(Refused::Host);
        for (given, page) in [
            (&[("host", "evil.example")][..], Ok(Page::None)),
            (&[("host", "[::1]:1"), ("origin", "http://[::1]:1")], own()),
            (&[("host", "ADA.example.org"), ("origin", "http://ada.EXAMPLE.org")], own()),
            (&[("host", "ada.local:1"), ("origin", "http://ada.local:1")], own()),
            (&[("host", "ada.tail1.ts.net"), ("origin", "https://ada.tail1.ts.net")], own()),
            (&[("host", "ada.headscale.example"), ("origin", "https://ada.headscale.example")], own()),
            (&[("host", "a.localhost:1"), ("origin", "http://a.localhost:1")], own()),
            (&[("host", "localhost."), ("origin", "http://localhost.")], own()),
            (&[("host", "127.0.0.1:1"), ("origin", "https://ui.example.com")], own()),
            (&[("host", "127.0.0.1:1"), ("origin", "chrome-extension://abc")], own()),
            (&[("host", "ui.example.com"), ("sec-fetch-site", "same-origin")], own()),
            (&[("host", "localhost"), ("sec-fetch-site", "none")], own()),
            (&[("host", "localhost"), ("sec-fetch-site", "same-site")], foreign()),
            (&[("host", "localhost"), ("sec-fetch-site", "cross-site")], foreign()),
            (&[("host", "localhost"), ("sec-fetch-site", "odd")], foreign()),
            (&[("host", "a"), ("host", "b"), ("origin", "http://a")], rebound()),
            (&[("origin", "http://a")], rebound()),
            (&[("host", "evil.example"), ("origin", "http://evil.example")], rebound()),
            (&[("host", "evil.example"), ("sec-fetch-site", "same-origin")], rebound()),
            (&[("host", "ts.net"), ("origin", "http://ts.net")], rebound()),
            (&[("host", "ada.example.org.evil.example"), ("origin", "http://x")], rebound()),
            (&[("host", "127.0.0.1.nip.example"), ("origin", "http://127.0.0.1.nip.example")], rebound()),
            (&[("host", "localhost:x"), ("origin", "http://localhost:x")], rebound()),
            (
                &[("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")],
                foreign(),
            ),
            (
                &[("host", "localhost"), ("origin", "http://localhost"), ("sec-fetch-site", "cross-site")],
                foreign(),
            ),
        ] {
            assert_eq!(guard.page(&headers(given)), page, "{given:?}");
        }
    }

    #[test]
    fn a_proxy_is_believed_when_it_is_trusted() {
        let local: IpAddr = [127, 0, 0, 1].into();
        let remote: IpAddr = [192, 0, 2, 9].into();
        let client: IpAddr = [198, 51, 100, 7].into();
        let told = |guard: &Guard, peer, given: &[(&'static str, &str)]| {
            guard
                .caller(&headers(given), peer, Entrance::Own, Page::None)
                .map(|caller| (caller.ip, caller.is_local))
        };
        let strict = guard(&[], &[]);
        assert_eq!(told(&strict, local, &[]), Ok((local, true)));
        for mark in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip"] {
            assert_eq!(told(&strict, local, &[(mark, "198.51.100.7")]), Err(Refused::Proxy), "{mark}");
            assert_eq!(told(&strict, remote, &[(mark, "127.0.0.1")]), Ok((remote, false)), "{mark}");
        }
        let trusting = guard(&[], &["127.0.0.0/8", "10.0.0.0/8"]);
        assert_eq!(told(&trusting, local, &[]), Ok((local, true)), "a program beside the proxy");
        for (chain, seen) in [
            ("198.51.100.7", Ok((client, false))),
            ("6.6.6.6, 198.51.100.7, 10.0.0.2", Ok((client, false))),
            ("10.0.0.3, 10.0.0.2", Ok(([10, 0, 0, 3].into(), false))),
            ("::ffff:198.51.100.7", Ok((client, false))),
            ("127.0.0.1", Err(Refused::Proxy)),
            ("unknown", Err(Refused::Proxy)),
            ("", Err(Refused::Proxy)),
        ] {
            assert_eq!(told(&trusting, local, &[("x-forwarded-for", chain)]), seen, "{chain}");
        }
        assert_eq!(told(&trusting, local, &[("x-real-ip", "198.51.100.7")]), Err(Refused::Proxy));
        let twice = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(told(&trusting, local, &twice), Ok((client, false)));
    }

    #[test]
    fn whoever_comes_in_by_the_port_of_a_proxy_is_whom_the_proxy_names() {
        let guard = guard(&[], &[]);
        let told = |given: &[(&'static str, &str)]| {
            let caller = guard.caller(&headers(given), [127, 0, 0, 1].into(), Entrance::Proxy, Page::None);
            caller.map(|caller| (caller.ip.to_string(), caller.is_local))
        };
        for (given, seen) in [
            (&[("x-forwarded-for", "100.64.0.7")][..], Ok(("100.64.0.7".to_owned(), false))),
            (&[("x-forwarded-for", "6.6.6.6, 100.64.0.7")], Ok(("100.64.0.7".to_owned(), false))),
            (&[("x-forwarded-for", "127.0.0.1")], Err(Refused::NoClient)),
            (&[("x-forwarded-for", "::1")], Err(Refused::NoClient)),
            (&[("x-forwarded-proto", "https")], Err(Refused::NoClient)),
            (&[], Err(Refused::NoClient)),
        ] {
            assert_eq!(told(given), seen, "{given:?}");
        }
    }
}
