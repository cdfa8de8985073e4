//! Setup codes: each pairs one device, once, without anyone being asked (wire.md section 6, "Bootstrap").
//!
//! Stored with the devices, so that a restart within its ten minutes does not spoil a code. Of its token only the digest
//! is kept: who reads the disk can pair nothing with it.

use std::net::{IpAddr, SocketAddr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Uri;
use openclaw_schema::{
    methods::device::{SetupAccess, SetupCompletion},
    types::TimestampMs,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::record::Role;
use crate::state::{StateError, random_bytes};

/// For how long a code is good, in milliseconds.
const LIFETIME_MS: u64 = 600_000;
/// For how long it is remembered that a code was used, in milliseconds.
const REMEMBERED_MS: u64 = 3_600_000;
/// How many codes are remembered. When there are more, the oldest is forgotten.
const MAX_CODES: usize = 64;

/// What a device becomes by a code with this access: its roles, each with its scopes. Full access is that of stock
/// (wire.md section 6); without `operator.admin` a device that was let in by a code lets in nobody else.
pub(super) const fn grants(access: SetupAccess) -> &'static [(Role, &'static [&'static str])] {
    match access {
        SetupAccess::Full => &[
            (Role::Node, &[]),
            (
                Role::Operator,
                &[
                    "operator.admin",
                    "operator.approvals",
                    "operator.read",
                    "operator.talk.secrets",
                    "operator.write",
                ],
            ),
        ],
        SetupAccess::Limited => &[
            (Role::Node, &[]),
            (
                Role::Operator,
                &["operator.approvals", "operator.read", "operator.talk.secrets", "operator.write"],
            ),
        ],
        SetupAccess::Node => &[(Role::Node, &[])],
    }
}

/// The codes that were made of late, oldest first.
#[derive(Debug, Default)]
pub(super) struct SetupCodes {
    codes: Vec<Code>,
}

/// A code, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) setup_id: String,
    /// Of the token: comparing digests takes the same time whatever was guessed.
    pub(crate) digest: [u8; 32],
    pub(crate) access: SetupAccess,
    pub(crate) expires_at: TimestampMs,
    /// The device that it has paired.
    pub(crate) completion: Option<SetupCompletion>,
}

/// A code on its way to the device.
#[derive(Debug)]
pub(crate) struct IssuedCode {
    pub(crate) setup_id: String,
    /// base64url of what the device needs: where the gateway is, and the token.
    pub(crate) setup_code: String,
    pub(crate) expires_at: TimestampMs,
}

/// Makes a code for a device that will find the gateway at `place`: what is stored of it, and what is given away.
pub(super) fn issue(
    place: &Place,
    access: SetupAccess,
    now: TimestampMs,
) -> Result<(Code, IssuedCode), StateError> {
    let token = URL_SAFE_NO_PAD.encode(random_bytes::<32>()?);
    let setup_id = uuid::Uuid::new_v4().to_string();
    let expires_at = TimestampMs(now.0 + LIFETIME_MS);
    let mut content = json!({ "url": place.url, "bootstrapToken": token, "expiresAtMs": expires_at });
    if let Some(certificate) = &place.certificate {
        content["tlsFingerprint"] = json!(certificate);
    }
    let digest = Sha256::digest(&token).into();
    let code = Code { setup_id: setup_id.clone(), digest, access, expires_at, completion: None };
    let setup_code = URL_SAFE_NO_PAD.encode(content.to_string());
    Ok((code, IssuedCode { setup_id, setup_code, expires_at }))
}

impl SetupCodes {
    /// Those that were stored, oldest first.
    pub(super) fn new(codes: Vec<Code>) -> Self {
        Self { codes }
    }

    /// Keeps a code, in the place of the one of its id if there is one.
    pub(super) fn put(&mut self, code: Code) {
        match self.codes.iter_mut().find(|known| known.setup_id == code.setup_id) {
            Some(known) => *known = code,
            None => self.codes.push(code),
        }
    }

    /// Forgets a code.
    pub(super) fn remove(&mut self, setup_id: &str) {
        self.codes.retain(|code| code.setup_id != setup_id);
    }

    /// The codes that are to be forgotten before another one is kept.
    pub(super) fn overdue(&self, now: TimestampMs) -> Vec<String> {
        let is_over = |code: &&Code| code.expires_at.0 + REMEMBERED_MS <= now.0;
        let mut overdue: Vec<String> =
            self.codes.iter().filter(is_over).map(|code| code.setup_id.clone()).collect();
        if self.codes.len() - overdue.len() >= MAX_CODES {
            let oldest = self.codes.iter().find(|code| !is_over(code));
            overdue.extend(oldest.map(|code| code.setup_id.clone()));
        }
        overdue
    }

    /// What `token` is good for; `None` when it is no token, has expired, or was used.
    pub(super) fn access(&self, token: &str, now: TimestampMs) -> Option<SetupAccess> {
        let code = self.find(token)?;
        (code.completion.is_none() && now < code.expires_at).then_some(code.access)
    }

    /// The code of `token` once it has paired a device, when it is good for nothing any more.
    pub(super) fn completed(
        &self,
        token: &str,
        device_id: &str,
        device_name: Option<&str>,
        now: TimestampMs,
    ) -> Option<(Code, SetupCompletion)> {
        let code = self.find(token)?.clone();
        let completion = SetupCompletion {
            setup_id: code.setup_id.clone(),
            device_id: device_id.to_owned(),
            device_name: device_name.filter(|name| !name.is_empty()).map(str::to_owned),
            access: code.access,
            ts: now,
        };
        Some((Code { completion: Some(completion.clone()), ..code }, completion))
    }

    /// The device that a code has paired, if it has.
    pub(super) fn completion(&self, setup_id: &str) -> Option<SetupCompletion> {
        self.codes.iter().find(|code| code.setup_id == setup_id)?.completion.clone()
    }

    fn find(&self, token: &str) -> Option<&Code> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.codes.iter().find(|code| bool::from(code.digest.ct_eq(&digest)))
    }
}

/// Where a device finds the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// A WebSocket URL.
    pub(crate) url: String,
    /// Where the URL comes from.
    pub(crate) source: &'static str,
    /// Whether nobody on the way can read the code's token, and use it first.
    pub(crate) is_private: bool,
    /// The certificate that the device is to pin: that of the gateway's own port, which nobody else vouches for.
    pub(crate) certificate: Option<String>,
}

/// Why there is no place that a code can name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    /// Nothing but this host reaches the gateway.
    #[error(
        "the gateway listens on loopback alone, where no other device finds it: give publicUrl, or set gateway.bind"
    )]
    LoopbackOnly,
    /// The URL is none.
    #[error("must be a URL such as \"wss://gateway.example.com\", without user, query or fragment")]
    NotAUrl,
    /// The way to the gateway can be read by strangers.
    #[error("{0} is not encrypted, and not in a private network either: use wss://")]
    Exposed(String),
}

/// Where a device finds the gateway: at `public_url`, else at a proxy's `proxy_url`, else at an address that it listens
/// on. `certificate` is the fingerprint of its own certificate, where the port speaks TLS.
pub(crate) fn place(
    public_url: Option<&str>,
    proxy_url: Option<&str>,
    listens_on: &[SocketAddr],
    certificate: Option<String>,
) -> Result<Place, NoPlace> {
    let given = public_url.map(|url| (url, "publicUrl")).or(proxy_url.map(|url| (url, "proxy")));
    let (url, source, certificate) = match given {
        Some((url, source)) => (web_socket_url(url).ok_or(NoPlace::NotAUrl)?, source, None),
        None => {
            let reachable = listens_on.iter().filter(|address| !address.ip().is_loopback());
            let reachable = reachable.filter_map(|address| {
                let ip = if address.ip().is_unspecified() { lan_address()? } else { address.ip() };
                Some(SocketAddr::new(ip, address.port()))
            });
            let address = reachable.min_by_key(SocketAddr::is_ipv6).ok_or(NoPlace::LoopbackOnly)?;
            let scheme = if certificate.is_some() { "wss" } else { "ws" };
            (format!("{scheme}://{address}"), "gateway.bind", certificate)
        }
    };
    let uri: Uri = url.parse().map_err(|_| NoPlace::NotAUrl)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    let is_this_host = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    let is_private = uri.scheme_str() == Some("wss") || is_this_host;
    if !is_private && !host.ends_with(".local") && !address.is_some_and(is_lan) {
        return Err(NoPlace::Exposed(url));
    }
    Ok(Place { url, source, is_private, certificate })
}

/// `wss://host[:port][/path]`, or with `ws`. A page's URL stands for the WebSocket at the same place.
fn web_socket_url(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let scheme = match uri.scheme_str()?.to_ascii_lowercase().as_str() {
        "wss" | "https" => "wss",
        "ws" | "http" => "ws",
        _ => return None,
    };
    let authority = uri.authority()?.as_str();
    let is_plain = !authority.contains('@') && uri.query().is_none() && !text.contains('#');
    is_plain.then(|| format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/')))
}

/// The address of this machine in its private network.
fn lan_address() -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the network interfaces");
        Vec::new()
    });
    interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| is_lan(*ip)).min_by_key(IpAddr::is_ipv6)
}

fn is_lan(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once_and_for_ten_minutes() {
        let mut codes = SetupCodes::default();
        let (now, url) = (TimestampMs(1_000), "wss://192.168.0.7:18789");
        let place =
            place(None, None, &[([192, 168, 0, 7], 18789).into()], Some("ab12".to_owned())).expect("a place");
        let (code, issued) = issue(&place, SetupAccess::Limited, now).expect("there is randomness");
        codes.put(code);
        let content = URL_SAFE_NO_PAD.decode(&issued.setup_code).expect("it is base64url");
        let content: serde_json::Value = serde_json::from_slice(&content).expect("it is JSON");
        let token = content["bootstrapToken"].as_str().expect("a token");
        assert_eq!((&content["url"], &content["expiresAtMs"]), (&json!(url), &json!(601_000)));
        assert_eq!(content["tlsFingerprint"], "ab12");

        assert_eq!(codes.access("guessed", now), None);
        assert_eq!(codes.access(token, TimestampMs(600_999)), Some(SetupAccess::Limited));
        assert_eq!(codes.access(token, issued.expires_at), None, "it has expired");
        assert_eq!(codes.completion(&issued.setup_id), None);
        let (code, told) = codes.completed(token, "device", Some("phone"), now).expect("it is known");
        codes.put(code);
        assert_eq!(codes.access(token, now), None, "it was used");
        let completion = codes.completion(&issued.setup_id).expect("it was used");
        assert_eq!((completion.device_id.as_str(), completion.access), ("device", SetupAccess::Limited));
        assert_eq!(completion, told);
    }

    #[test]
    fn few_codes_are_kept_and_none_for_ever() {
        let mut codes = SetupCodes::default();
        let place = place(Some("wss://a"), None, &[], None).expect("a place");
        let mut ids = Vec::new();
        for _ in 0..MAX_CODES + 1 {
            let (code, issued) = issue(&place, SetupAccess::Node, TimestampMs(0)).expect("randomness");
            codes.overdue(TimestampMs(0)).iter().for_each(|id| codes.remove(id));
            codes.put(code);
            ids.push(issued.setup_id);
        }
        assert_eq!(codes.codes.len(), MAX_CODES);
        assert!(codes.codes.iter().all(|code| code.setup_id != ids[0]));
        assert_eq!(codes.overdue(TimestampMs(LIFETIME_MS + REMEMBERED_MS)).len(), MAX_CODES);
    }

    #[test]
    fn a_place_is_one_that_another_device_reaches_and_that_nobody_listens_in_on() {
        let lan: SocketAddr = ([192, 168, 0, 7], 18789).into();
        let loopback: SocketAddr = ([127, 0, 0, 1], 18789).into();
        let url = |given: Option<&str>, listens_on: &[SocketAddr]| {
            place(given, None, listens_on, None).map(|place| (place.url, place.source, place.is_private))
        };
        let found = |url: &str, source, is_private| Ok((url.to_owned(), source, is_private));
        assert_eq!(url(None, &[loopback, lan]), found("ws://192.168.0.7:18789", "gateway.bind", false));
        assert_eq!(url(None, &[loopback]), Err(NoPlace::LoopbackOnly));
        let proxied = place(None, Some("wss://ada.tail1.ts.net"), &[loopback], Some("ab12".to_owned()));
        let proxied = proxied.map(|place| (place.url, place.source, place.certificate));
        assert_eq!(proxied, Ok(("wss://ada.tail1.ts.net".to_owned(), "proxy", None)));
        for (given, expected) in [
            ("https://a.example/", found("wss://a.example", "publicUrl", true)),
            ("wss://a.example:444/x/", found("wss://a.example:444/x", "publicUrl", true)),
            ("ws://127.0.0.1:1", found("ws://127.0.0.1:1", "publicUrl", true)),
            ("ws://[::1]:1", found("ws://[::1]:1", "publicUrl", true)),
            ("ws://ada.local", found("ws://ada.local", "publicUrl", false)),
            ("ws://a.example", Err(NoPlace::Exposed("ws://a.example".to_owned()))),
            ("ws://100.64.0.1", Err(NoPlace::Exposed("ws://100.64.0.1".to_owned()))),
            ("wss://me@a.example", Err(NoPlace::NotAUrl)),
            ("wss://a.example?x=1", Err(NoPlace::NotAUrl)),
            ("ftp://a.example", Err(NoPlace::NotAUrl)),
            ("a.example", Err(NoPlace::NotAUrl)),
        ] {
            assert_eq!(url(Some(given), &[loopback]), expected, "{given}");
        }
    }
}
