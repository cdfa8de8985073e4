//! The DNS records by which a gateway is found in a wide-area domain (RFC 6763), as a zone file and for two name
//! servers.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use openclaw_schema::discovery::SERVICE_TYPE;
use sha2::{Digest as _, Sha256};

/// How long others may keep a record, in seconds: addresses in a tailnet change.
const TTL_SECONDS: u32 = 60;
/// What precedes the digest in the first line of a zone file. cli.md section 8.2: stock reads the same line.
const HASH_MARK: &str = "; openclaw-content-hash: ";

/// What a zone says about one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// The domain, with a dot at the end.
    pub domain: String,
    /// The label of the host: letters, digits and hyphens.
    pub host: String,
    /// The addresses of the host, and of the name server on it. Invariant: at least one.
    pub addresses: Vec<IpAddr>,
    /// The gateway's port.
    pub port: u16,
    /// The TXT record.
    pub txt: Vec<(&'static str, String)>,
}

impl Zone {
    /// The date as serial numbers begin with it, in UTC: `YYYYMMDD`.
    #[must_use]
    pub fn today() -> u32 {
        let date = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let number = i32::from(date.year()) * 10_000 + i32::from(date.month()) * 100 + i32::from(date.day());
        number.unsigned_abs()
    }

    /// The label of the instance. cli.md section 8.2.
    fn instance(&self) -> String {
        format!("{}-gateway", self.host)
    }

    /// The domain without its dot.
    fn bare(&self) -> &str {
        self.domain.trim_end_matches('.')
    }

    /// A zone file (RFC 1035 section 5). `today` is from [`Self::today`]; `former` is the file as it is now, whose
    /// serial number is kept when nothing else changed, and exceeded when something did.
    #[must_use]
    pub fn file(&self, today: u32, former: Option<&str>) -> String {
        let records = self.records();
        let digest = Sha256::digest(records.as_bytes());
        let hash = digest.iter().take(4).fold(String::new(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        });
        let first = today.saturating_mul(100).saturating_add(1);
        let serial = match former.map(|text| (text.contains(&format!("{HASH_MARK}{hash}\n")), serial(text))) {
            Some((true, Some(serial))) => serial,
            Some((_, Some(serial))) => first.max(serial.saturating_add(1)),
            Some((_, None)) | None => first,
        };
        format!(
            "{HASH_MARK}{hash}\n$ORIGIN {}\n$TTL {TTL_SECONDS}\n@ IN SOA ns1 hostmaster {serial} 7200 3600 1209600 \
             {TTL_SECONDS}\n{records}",
            self.domain
        )
    }

    /// What the serial number is about.
    fn records(&self) -> String {
        let instance = format!("{}.{SERVICE_TYPE}", self.instance());
        let mut text = "@ IN NS ns1\n".to_owned();
        for host in ["ns1", &self.host] {
            for address in &self.addresses {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                let _ = writeln!(text, "{host} IN {kind} {address}");
            }
        }
        let _ = writeln!(text, "{SERVICE_TYPE} IN PTR {instance}");
        let _ = writeln!(text, "{instance} IN SRV 0 0 {} {}", self.port, self.host);
        let pairs: Vec<String> =
            self.txt.iter().map(|(key, value)| in_zone(&format!("{key}={value}"))).collect();
        let _ = writeln!(text, "{instance} IN TXT {}", pairs.join(" "));
        text
    }

    /// A server block for CoreDNS that serves the zone file at `path`.
    #[must_use]
    pub fn coredns(&self, path: &Path) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let path = path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
        format!(
            "{} {{\n    bind {}\n    file \"{path}\" {{\n        reload 30s\n    }}\n    errors\n}}\n",
            self.bare(),
            addresses.join(" ")
        )
    }

    /// Lines for dnsmasq that serve the records without a zone file.
    #[must_use]
    pub fn dnsmasq(&self) -> String {
        let domain = self.bare();
        let service = format!("{SERVICE_TYPE}.{domain}");
        let instance = format!("{}.{service}", self.instance());
        let host = format!("{}.{domain}", self.host);
        let mut text = format!("local=/{domain}/\nlocal-ttl={TTL_SECONDS}\n");
        for address in &self.addresses {
            let _ = writeln!(text, "host-record={host},{address}");
        }
        let _ = writeln!(text, "ptr-record={service},{instance}");
        let _ = writeln!(text, "srv-host={instance},{host},{}", self.port);
        let pairs: Vec<String> =
            self.txt.iter().map(|(key, value)| quoted(&format!("{key}={value}"))).collect();
        let _ = writeln!(text, "txt-record={instance},{}", pairs.join(","));
        text
    }
}

/// The serial number in a zone file.
fn serial(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains(" SOA "))?;
    line.split_whitespace().skip_while(|word| *word != "SOA").nth(3)?.parse().ok()
}

/// A text of a zone file: RFC 1035 section 5.1, bytes beyond ASCII as numbers.
fn in_zone(text: &str) -> String {
    let mut out = "\"".to_owned();
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            other => {
                let _ = write!(out, "\\{other:03}");
            }
        }
    }
    out.push('"');
    out
}

/// A text in quotation marks, as dnsmasq reads it: bytes beyond ASCII are left alone.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone {
            domain: "openclaw.internal.".to_owned(),
            host: "Bobs-vm".to_owned(),
            addresses: vec!["100.64.0.5".parse().expect("one"), "fd7a::5".parse().expect("one")],
            port: 19203,
            txt: vec![("role", "gateway".to_owned()), ("displayName", "Bob's \"ü\" \\ vm, 2".to_owned())],
        }
    }

    #[test]
    fn the_zone_file_has_the_recorded_records() {
        let text = zone().file(20_261_122, None);
        let (first, rest) = text.split_once('\n').expect("it has lines");
        assert!(first.starts_with(HASH_MARK) && first.len() == HASH_MARK.len() + 8, "{first}");
        assert_eq!(
            rest,
            "$ORIGIN openclaw.internal.\n\
             $TTL 60\n\
             @ IN SOA ns1 hostmaster 2026112201 7200 3600 1209600 60\n\
             @ IN NS ns1\n\
             ns1 IN A 100.64.0.5\n\
             ns1 IN AAAA fd7a::5\n\
             Bobs-vm IN A 100.64.0.5\n\
             Bobs-vm IN AAAA fd7a::5\n\
             _openclaw-gw._tcp IN PTR Bobs-vm-gateway._openclaw-gw._tcp\n\
             Bobs-vm-gateway._openclaw-gw._tcp IN SRV 0 0 19203 Bobs-vm\n\
             Bobs-vm-gateway._openclaw-gw._tcp IN TXT \"role=gateway\" \
             \"displayName=Bob's \\\"\\195\\188\\\" \\\\ vm, 2\"\n"
        );
    }

    #[test]
    fn the_serial_number_grows_with_each_change_and_only_then() {
        let number = |text: &str| serial(text).expect("it has one");
        let first = zone().file(20_261_122, None);
        assert_eq!(number(&first), 2_026_112_201);
        assert_eq!(zone().file(20_270_101, Some(&first)), first);
        let moved = Zone { port: 1, ..zone() };
        let second = moved.file(20_261_122, Some(&first));
        assert_eq!(number(&second), 2_026_112_202);
        assert_eq!(number(&zone().file(20_270_101, Some(&second))), 2_027_010_101);
        // A clock that was set back, and a file of somebody else's.
        assert_eq!(number(&zone().file(20_000_101, Some(&second))), 2_026_112_203);
        assert_eq!(number(&zone().file(20_261_122, Some("nonsense"))), 2_026_112_201);
    }

    #[test]
    fn name_servers_get_their_lines() {
        assert_eq!(
            zone().dnsmasq(),
            "local=/openclaw.internal/\n\
             local-ttl=60\n\
             host-record=Bobs-vm.openclaw.internal,100.64.0.5\n\
             host-record=Bobs-vm.openclaw.internal,fd7a::5\n\
             ptr-record=_openclaw-gw._tcp.openclaw.internal,\
             Bobs-vm-gateway._openclaw-gw._tcp.openclaw.internal\n\
             srv-host=Bobs-vm-gateway._openclaw-gw._tcp.openclaw.internal,Bobs-vm.openclaw.internal,19203\n\
             txt-record=Bobs-vm-gateway._openclaw-gw._tcp.openclaw.internal,\"role=gateway\",\
             \"displayName=Bob's \\\"ü\\\" \\\\ vm, 2\"\n"
        );
        assert_eq!(
            zone().coredns(Path::new("/s/dns/openclaw.internal.db")),
            "openclaw.internal {\n    bind 100.64.0.5 fd7a::5\n    file \"/s/dns/openclaw.internal.db\" {\n        \
             reload 30s\n    }\n    errors\n}\n"
        );
    }
}
