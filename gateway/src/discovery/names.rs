//! The names and the TXT record of an announcement, out of whatever the host is called.

use openclaw_schema::discovery::txt;

use crate::{host, settings::Announcement};

/// The name of a host that has no usable one.
const FALLBACK: &str = "openclaw";
/// What follows the host's name in that of the instance. cli.md section 8.1.
const INSTANCE_SUFFIX: &str = " (OpenClaw)";
/// The longest label of a name, in bytes. RFC 1035 section 2.3.4.
const MAX_LABEL_BYTES: usize = 63;
/// Room for the number that tells names apart which two hosts want, such as ` (12)` or `-12`.
const CONFLICT_ROOM: usize = 5;
/// The longest pair of a TXT record, in bytes. RFC 6763 section 6.1.
const MAX_PAIR_BYTES: usize = 255;

/// What a host is called in announcements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// For people.
    pub display: String,
    /// The instance of the service: one label, in UTF-8.
    pub instance: String,
    /// The host: one label of letters, digits and hyphens.
    pub host: String,
}

impl Names {
    /// The names of this host, unless the announcement brings one.
    #[must_use]
    pub fn of_host(announcement: &Announcement) -> Self {
        match &announcement.host_name {
            Some(name) => Self::new(name),
            None => Self::new(&host::hostname()),
        }
    }

    /// The names of a host that is called `host_name`, with or without a domain.
    #[must_use]
    pub fn new(host_name: &str) -> Self {
        let short = host_name.trim().split('.').next().unwrap_or_default();
        // Names are shown to people, on terminals too.
        let display: String = short.chars().filter(|char| !char.is_control()).collect();
        let display = match display.trim() {
            "" => FALLBACK,
            name => name,
        };
        let room = MAX_LABEL_BYTES - INSTANCE_SUFFIX.len() - CONFLICT_ROOM;
        let display = cut(display, room).trim_end().to_owned();
        Self { instance: format!("{display}{INSTANCE_SUFFIX}"), host: host_label(&display), display }
    }
}

/// A label that every resolver takes: apostrophes go, other characters that are no letter or digit become hyphens.
fn host_label(name: &str) -> String {
    let mut label = String::with_capacity(name.len());
    for char in name.chars().filter(|char| !matches!(char, '\'' | '’' | '‘' | 'ʼ' | '`')) {
        if char.is_ascii_alphanumeric() {
            label.push(char);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    let label = cut(&label, MAX_LABEL_BYTES - CONFLICT_ROOM).trim_end_matches('-');
    if label.is_empty() { FALLBACK.to_owned() } else { label.to_owned() }
}

/// The beginning of `text`, at most `bytes` long, no character cut in two.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// That an endpoint speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsHint {
    /// SHA-256 of its certificate, in hexadecimal, where it is known.
    pub certificate_sha256: Option<String>,
}

/// The TXT record of a gateway on `port`. `lan_host` is its name in `local.`, where it has one; `tls` is absent when
/// the port is plain.
#[must_use]
pub fn hints(
    announcement: &Announcement,
    names: &Names,
    port: u16,
    lan_host: Option<&str>,
    tls: Option<&TlsHint>,
) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        (txt::ROLE, "gateway".to_owned()),
        (txt::TRANSPORT, "gateway".to_owned()),
        (txt::GATEWAY_PORT, port.to_string()),
        (txt::DISPLAY_NAME, names.display.clone()),
    ];
    pairs.extend(lan_host.map(|host| (txt::LAN_HOST, host.to_owned())));
    if let Some(tls) = tls {
        pairs.push((txt::GATEWAY_TLS, "1".to_owned()));
        pairs.extend(tls.certificate_sha256.clone().map(|digest| (txt::GATEWAY_TLS_SHA256, digest)));
    }
    if let Some(ssh) = &announcement.hints {
        pairs.push((txt::SSH_PORT, ssh.ssh_port.to_string()));
        pairs.extend(ssh.cli_path.clone().map(|path| (txt::CLI_PATH, path)));
        pairs.extend(ssh.tailnet_dns.clone().map(|name| (txt::TAILNET_DNS, name)));
    }
    // Half a path or name is of no use.
    pairs.retain(|(key, value)| {
        key.len() + 1 + value.len() <= MAX_PAIR_BYTES && !value.chars().any(char::is_control)
    });
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::SshHints;

    #[test]
    fn every_host_name_gives_names_that_can_be_announced() {
        for (host_name, instance, host) in [
            ("vm", "vm (OpenClaw)", "vm"),
            ("vm.example.com", "vm (OpenClaw)", "vm"),
            ("Bob's MacBook Pro", "Bob's MacBook Pro (OpenClaw)", "Bobs-MacBook-Pro"),
            ("Bob’s-Mac.local", "Bob’s-Mac (OpenClaw)", "Bobs-Mac"),
            ("my_host", "my_host (OpenClaw)", "my-host"),
            ("Zoë", "Zoë (OpenClaw)", "Zo"),
            ("日本", "日本 (OpenClaw)", "openclaw"),
            ("", "openclaw (OpenClaw)", "openclaw"),
            (" . ", "openclaw (OpenClaw)", "openclaw"),
            ("a\u{1b}[2J\n", "a[2J (OpenClaw)", "a-2J"),
        ] {
            let names = Names::new(host_name);
            assert_eq!((names.instance.as_str(), names.host.as_str()), (instance, host), "{host_name:?}");
        }
    }

    #[test]
    fn an_endpoint_with_tls_says_so() {
        let tls = TlsHint { certificate_sha256: Some("ab".repeat(32)) };
        let pairs = hints(&Announcement::default(), &Names::new("vm"), 1, None, Some(&tls));
        let last_two = &pairs[pairs.len() - 2..];
        assert_eq!(last_two, [("gatewayTls", "1".to_owned()), ("gatewayTlsSha256", "ab".repeat(32))]);
        let unknown = hints(&Announcement::default(), &Names::new("vm"), 1, None, Some(&TlsHint::default()));
        assert_eq!(unknown.len() + 1, pairs.len());
    }

    proptest! {
        #[test]
        fn names_always_fit(host_name in ".{0,300}") {
            let names = Names::new(&host_name);
            prop_assert!(names.instance.len() + CONFLICT_ROOM <= MAX_LABEL_BYTES);
            prop_assert!(names.host.len() + CONFLICT_ROOM <= MAX_LABEL_BYTES);
            prop_assert!(!names.host.is_empty() && !names.host.starts_with('-') && !names.host.ends_with('-'));
            prop_assert!(names.host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            prop_assert!(!names.instance.chars().any(char::is_control));
        }
    }

    #[test]
    fn hints_of_ssh_are_told_only_when_asked_for() {
        let keys = |announcement: &Announcement| {
            let pairs = hints(announcement, &Names::new("vm"), 18789, Some("vm.local"), None);
            pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let minimal = ["role", "transport", "gatewayPort", "displayName", "lanHost"];
        assert_eq!(keys(&Announcement::default()), minimal);
        let ssh = |cli_path: String| Announcement {
            hints: Some(SshHints {
                ssh_port: 22,
                cli_path: Some(cli_path),
                tailnet_dns: Some("vm.tail1.ts.net".to_owned()),
            }),
            ..Announcement::default()
        };
        assert_eq!(
            keys(&ssh("/usr/bin/openclaw".to_owned())),
            [&minimal[..], &["sshPort", "cliPath", "tailnetDns"]].concat()
        );
        // What does not fit is left out, and the rest is announced.
        assert_eq!(keys(&ssh("/x".repeat(200))), [&minimal[..], &["sshPort", "tailnetDns"]].concat());
    }
}
