//! The section `discovery`: how a gateway is announced, and where gateways are looked for.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use openclaw_schema::{
    config::{Discovery, Texts},
    discovery::InterfaceRules,
};

use super::{
    Config, ConfigError, Env, MdnsMode, Source, Sourced, env,
    file::{port, substitute},
    serve::is_tailnet,
};
use crate::{
    host,
    settings::{Announcement, SshHints},
};

/// The domain where only `discovery.wideArea.enabled` is set, as older OpenClaw had it. cli.md section 8.
const DEFAULT_DOMAIN: &str = "openclaw.internal";
/// The port of a name server.
const DNS_PORT: u16 = 53;
/// The port of an SSH server.
const SSH_PORT: u16 = 22;

fn interfaces(section: &Discovery) -> InterfaceRules {
    let list =
        |given: &Option<Sourced<Texts>>| given.as_ref().map(|list| list.value.to_vec()).unwrap_or_default();
    let given = &section.mdns.interfaces;
    InterfaceRules { allow: list(&given.allow), deny: list(&given.deny) }
}

/// The wide-area domain, if the file asks for one.
fn wide_area_domain(section: &Discovery, env: &Env) -> Result<Option<String>, ConfigError> {
    let given = &section.wide_area;
    match (&given.enabled, &given.domain) {
        (Some(enabled), _) if !enabled.value => Ok(None),
        (_, Some(domain)) => Ok(Some(substitute(domain, env)?.value)),
        (Some(_), None) => Ok(Some(DEFAULT_DOMAIN.to_owned())),
        (None, None) => Ok(None),
    }
}

/// What `gateway discover` and `gateway dns` work with when no flag says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoveryDefaults {
    /// The wide-area domains, as they were written: the configured one, then the environment's.
    pub domains: Vec<String>,
    /// The name server to ask about them; the system's when absent.
    pub dns_server: Option<SocketAddr>,
    /// The interfaces for multicast DNS.
    pub interfaces: InterfaceRules,
}

/// Where to look for gateways, from file and environment.
///
/// # Errors
///
/// A value that cannot be used.
pub fn discovery_defaults(config: &Config, env: &Env) -> Result<DiscoveryDefaults, ConfigError> {
    let section = &config.discovery;
    let mut domains: Vec<String> = wide_area_domain(section, env)?.into_iter().collect();
    if let Some(domain) = env.text(env::WIDE_AREA_DOMAIN)? {
        domains.push(domain.value);
    }
    let dns_server = section.wide_area.dns_server.as_ref().map(|server| {
        let server = substitute(server, env)?;
        name_server(&server.value).ok_or_else(|| ConfigError::BadValue {
            problem: format!("must be an IP address, with or without a port, not {:?}", server.value),
            origin: server.source,
            nearest: None,
        })
    });
    Ok(DiscoveryDefaults { domains, dns_server: dns_server.transpose()?, interfaces: interfaces(section) })
}

/// The name server in `text`: an IP address, with a port unless it is 53.
#[must_use]
pub fn name_server(text: &str) -> Option<SocketAddr> {
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    address.or_else(|_| text.parse()).ok().filter(|server| server.port() > 0)
}

/// The addresses of this host in its tailnet.
#[must_use]
pub fn tailnet_addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.iter().map(if_addrs::Interface::ip).filter(is_tailnet).collect()
}

/// How a gateway is announced; absent when it is not, with the reason as the source. Nothing in the environment
/// keeps a gateway from starting.
///
/// # Errors
///
/// A value of the file that cannot be used.
pub fn announcement(
    config: &Config,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<Sourced<Option<Announcement>>, ConfigError> {
    resolve_announcement(is_container(env), config, env, warnings)
}

fn resolve_announcement(
    is_container: bool,
    config: &Config,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<Sourced<Option<Announcement>>, ConfigError> {
    let section = &config.discovery;
    let mode = section.mdns.mode.clone().unwrap_or_else(|| Sourced::default(MdnsMode::Minimal));
    let disabled = switch(env::DISABLE_BONJOUR, env, warnings);
    let off = |source| Ok(Sourced::new(None, source));
    match (mode.value, disabled) {
        (MdnsMode::Off, _) => return off(mode.source),
        (_, Some(true)) => return off(Source::Env(env::DISABLE_BONJOUR)),
        // Multicast rarely leaves a container, and its addresses mean nothing outside.
        (_, None) if is_container => return off(Source::Default),
        (MdnsMode::Minimal | MdnsMode::Full, _) => {}
    }
    Ok(Sourced::new(Some(wide_area_announcement(config, env, warnings)), mode.source))
}

/// What is said about a gateway in DNS, whether or not multicast DNS is off: whoever sets up a name server wants it
/// said there.
#[must_use]
pub fn wide_area_announcement(config: &Config, env: &Env, warnings: &mut Vec<String>) -> Announcement {
    let is_full = config.discovery.mdns.mode.as_ref().is_some_and(|mode| mode.value == MdnsMode::Full);
    Announcement {
        host_name: lenient(env::MDNS_HOSTNAME, env, warnings),
        hints: is_full.then(|| ssh_hints(env, warnings)),
        interfaces: interfaces(&config.discovery),
    }
}

/// The hints of full mode, from the environment and this process.
fn ssh_hints(env: &Env, warnings: &mut Vec<String>) -> SshHints {
    let given = env.text(env::SSH_PORT).and_then(|text| text.map(port).transpose());
    let ssh_port = given.unwrap_or_else(|error| {
        warnings.push(format!("{error}; {SSH_PORT} is announced"));
        None
    });
    let cli_path = lenient(env::CLI_PATH, env, warnings).or_else(|| {
        let path = std::env::current_exe().ok()?;
        path.to_str().map(str::to_owned)
    });
    SshHints {
        ssh_port: ssh_port.map_or(SSH_PORT, |port| port.value),
        cli_path,
        tailnet_dns: lenient(env::TAILNET_DNS, env, warnings),
    }
}

/// A variable that is left out when it is not text.
fn lenient(name: &'static str, env: &Env, warnings: &mut Vec<String>) -> Option<String> {
    env.text(name).map(|text| text.map(|text| text.value)).unwrap_or_else(|error| {
        warnings.push(format!("{error}; it has no effect"));
        None
    })
}

/// A variable that says yes or no, in stock's words.
fn switch(name: &'static str, env: &Env, warnings: &mut Vec<String>) -> Option<bool> {
    let text = lenient(name, env, warnings)?;
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => {
            warnings.push(format!("env {name} must be 1 or 0, not {text:?}; it has no effect"));
            None
        }
    }
}

/// Whether this process is in a container, by all the marks that the common ones leave.
fn is_container(env: &Env) -> bool {
    host::has_container_mark()
        || Path::new("/run/systemd/container").exists()
        || ["KUBERNETES_SERVICE_HOST", "FLY_MACHINE_ID", "container"]
            .iter()
            .any(|name| env.os(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Config {
        Config::parse(text, Path::new("/s/openclaw.json")).expect("it is good")
    }

    /// Whether and how it is announced, who decided, and the warnings.
    fn resolved(
        is_container: bool,
        text: &str,
        variables: &[(&str, &str)],
    ) -> (Option<Announcement>, String, Vec<String>) {
        let (config, mut warnings) = (parsed(text), Vec::new());
        let env = Env::from_iter(variables.iter().copied());
        let found = resolve_announcement(is_container, &config, &env, &mut warnings).expect("it resolves");
        (found.value, found.source.to_string(), warnings)
    }

    #[test]
    fn a_gateway_is_announced_unless_somebody_or_the_place_says_no() {
        let mode = |mode: &str| format!("{{discovery: {{mdns: {{mode: '{mode}'}}}}}}");
        let file = "discovery.mdns.mode in /s/openclaw.json";
        let bonjour = "env OPENCLAW_DISABLE_BONJOUR";
        for (container, text, disable, announced, source) in [
            (false, "{}".to_owned(), "", true, "default"),
            (true, "{}".to_owned(), "", false, "default"),
            (true, mode("full"), "", false, "default"),
            (true, "{}".to_owned(), "0", true, "default"),
            (true, mode("minimal"), "off", true, file),
            (false, mode("off"), "", false, file),
            (false, mode("off"), "0", false, file),
            (false, mode("full"), "1", false, bonjour),
            (false, "{}".to_owned(), "TRUE", false, bonjour),
        ] {
            let (found, from, warnings) =
                resolved(container, &text, &[("OPENCLAW_DISABLE_BONJOUR", disable)]);
            assert_eq!((found.is_some(), from.as_str()), (announced, source), "{text} {disable}");
            assert_eq!(warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn only_full_mode_tells_about_ssh() {
        let variables = [
            ("OPENCLAW_MDNS_HOSTNAME", "studio"),
            ("OPENCLAW_SSH_PORT", "2200"),
            ("OPENCLAW_CLI_PATH", "/opt/openclaw"),
            ("OPENCLAW_TAILNET_DNS", "studio.tail1.ts.net"),
        ];
        let (minimal, ..) = resolved(false, "{}", &variables);
        let minimal = minimal.expect("it is announced");
        assert_eq!((minimal.host_name.as_deref(), minimal.hints), (Some("studio"), None));
        let text = "{discovery: {mdns: {mode: 'full', interfaces: {allow: ['eth0'], deny: ['wlan*']}}}}";
        let (full, ..) = resolved(false, text, &variables);
        let full = full.expect("it is announced");
        assert_eq!(
            full.hints,
            Some(SshHints {
                ssh_port: 2200,
                cli_path: Some("/opt/openclaw".to_owned()),
                tailnet_dns: Some("studio.tail1.ts.net".to_owned()),
            })
        );
        assert_eq!(
            full.interfaces,
            InterfaceRules { allow: vec!["eth0".into()], deny: vec!["wlan*".into()] }
        );
    }

    #[test]
    fn a_bad_variable_is_told_and_keeps_nobody_from_starting() {
        let text = "{discovery: {mdns: {mode: 'full'}}}";
        let (found, _, warnings) =
            resolved(false, text, &[("OPENCLAW_SSH_PORT", "0"), ("OPENCLAW_DISABLE_BONJOUR", "maybe")]);
        assert_eq!(found.and_then(|found| found.hints).expect("it is announced").ssh_port, 22);
        assert_eq!(
            warnings,
            [
                "env OPENCLAW_DISABLE_BONJOUR must be 1 or 0, not \"maybe\"; it has no effect",
                "env OPENCLAW_SSH_PORT must be a whole number from 1 to 65535, not \"0\"; 22 is announced",
            ]
        );
    }

    #[test]
    fn the_wide_area_comes_from_the_file_and_the_environment() {
        let defaults = |text: &str, variables: &[(&str, &str)]| {
            discovery_defaults(&parsed(text), &Env::from_iter(variables.iter().copied()))
        };
        let env = ("OPENCLAW_WIDE_AREA_DOMAIN", "e.internal");
        for (text, variables, domains) in [
            ("{}", &[][..], &[][..]),
            ("{}", &[env], &["e.internal"]),
            ("{discovery: {wideArea: {domain: 'w.internal.'}}}", &[env], &["w.internal.", "e.internal"]),
            ("{discovery: {wideArea: {enabled: true}}}", &[], &["openclaw.internal"]),
            ("{discovery: {wideArea: {enabled: false, domain: 'w.internal'}}}", &[], &[]),
            ("{discovery: {wideArea: {domain: '${D}'}}}", &[("D", "d.internal")], &["d.internal"]),
        ] {
            assert_eq!(defaults(text, variables).expect("it is good").domains, domains, "{text}");
        }
        let server = |text: &str| {
            let text = format!("{{discovery: {{wideArea: {{dnsServer: '{text}'}}}}}}");
            defaults(&text, &[]).map(|found| found.dns_server.map(|server| server.to_string()))
        };
        for (given, expected) in
            [("10.0.0.1", "10.0.0.1:53"), ("10.0.0.1:5353", "10.0.0.1:5353"), ("::1", "[::1]:53")]
        {
            assert_eq!(server(given).expect("it is good").as_deref(), Some(expected));
        }
        assert_eq!(
            server("dns.example").expect_err("it is refused").to_string(),
            "discovery.wideArea.dnsServer in /s/openclaw.json must be an IP address, with or without a port, \
             not \"dns.example\""
        );
    }

    #[test]
    fn misspelt_keys_are_refused() {
        for (text, nearest) in [
            ("{discovery: {mdsn: {}}}", "mdns"),
            ("{discovery: {mdns: {modes: 'off'}}}", "mode"),
            ("{discovery: {widearea: {}}}", "wideArea"),
            ("{discovery: {wideArea: {domian: 'x'}}}", "domain"),
        ] {
            let error = Config::parse(text, Path::new("/s/openclaw.json")).expect_err("it is refused");
            assert!(error.to_string().ends_with(&format!("did you mean `{nearest}`?")), "{error}");
        }
        assert_eq!(
            Config::parse("{discovery: {mdns: {interfaces: {allow: 'eth0'}}}}", Path::new("/s/c"))
                .expect_err("it is refused")
                .to_string(),
            "discovery.mdns.interfaces.allow in /s/c must be a list of texts, not \"eth0\""
        );
    }
}
