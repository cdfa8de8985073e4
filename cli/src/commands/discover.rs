//! `gateway discover`: the gateways of the LAN and of the wide-area domains, as a table or as JSON.

use std::time::Duration;

use openclaw_client::discovery::{self, Beacon, DiscoverOptions, Discovery, Warning};
use openclaw_gateway::config::{Config, ConfigError, DiscoveryDefaults, discovery_defaults};
use serde_json::{Value, json};

use crate::{
    args::{DiscoverArgs, GlobalArgs},
    error::{CliError, Fault, Result},
    exit::Exit,
    output::{DIM, HEADING, LITERAL, Printer},
    settings::surroundings,
};

/// The port at which the forwarding that is proposed begins. cli.md section 8.
const FORWARDED_PORT: u16 = 18789;

/// Looks for gateways and shows them.
pub(crate) fn discover(args: &DiscoverArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    if let Some(problem) = args.domain.iter().find_map(|domain| discovery::domain(domain).err()) {
        return Err(CliError::usage(format!("--domain: {problem}")).into());
    }
    let timeout = Duration::from_millis(args.timeout);
    // A configuration that cannot be read hides no gateway that is there.
    let (defaults, unread) = match defaults(global) {
        Ok(defaults) => (defaults, None),
        Err(error) => {
            let message = format!("the configuration has no effect here: {error}");
            (DiscoveryDefaults::default(), Some(Warning { code: "config_unreadable", message }))
        }
    };
    let options = DiscoverOptions {
        timeout,
        domains: if args.domain.is_empty() { defaults.domains } else { args.domain.clone() },
        dns_server: args.dns_server.or(defaults.dns_server),
        interfaces: defaults.interfaces,
        ..DiscoverOptions::default()
    };
    let mut found = look(&options)?;
    found.warnings.extend(unread);
    if printer.is_json() {
        printer.json(&document(&options, &found))?;
        return Ok(Exit::Ok);
    }
    printer.line(&report(&options, &found, global, printer))?;
    for warning in &found.warnings {
        printer.note(&format!("warning: {}", warning.message));
    }
    Ok(Exit::Ok)
}

fn defaults(global: &GlobalArgs) -> std::result::Result<DiscoveryDefaults, ConfigError> {
    let (env, locations) = surroundings(global)?;
    discovery_defaults(&Config::load(locations.config_file())?, &env)
}

fn look(options: &DiscoverOptions) -> Result<Discovery> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        CliError::new(Fault::Cli, "SYSTEM", Exit::Refused, "the system gives no means to wait").cause(error)
    })?;
    let found = runtime.block_on(async {
        tokio::select! {
            found = discovery::discover(options) => Ok(found),
            Ok(()) = tokio::signal::ctrl_c() => Err(CliError::interrupted().into()),
        }
    });
    // A question that is still open must not hold the command back.
    runtime.shutdown_background();
    found
}

/// The members of stock's document (cli.md section 8), then ours.
fn document(options: &DiscoverOptions, found: &Discovery) -> Value {
    let warnings: Vec<Value> = found
        .warnings
        .iter()
        .map(|warning| json!({ "code": warning.code, "message": warning.message }))
        .collect();
    json!({
        "timeoutMs": milliseconds(options.timeout),
        "domains": options.all_domains(),
        "count": found.beacons.len(),
        "beacons": found.beacons,
        "durationMs": milliseconds(found.elapsed),
        "warnings": warnings,
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn report(options: &DiscoverOptions, found: &Discovery, global: &GlobalArgs, printer: &Printer) -> String {
    let count = match found.beacons.len() {
        0 => "No gateway found".to_owned(),
        1 => "Found 1 gateway".to_owned(),
        count => format!("Found {count} gateways"),
    };
    let domains = options.all_domains().join(", ");
    let mut lines = vec![
        printer.styled(HEADING, "Gateway Discovery"),
        format!("{count} · domains: {domains} · {:.1} s", found.elapsed.as_secs_f64()),
    ];
    if found.beacons.is_empty() {
        lines.push(String::new());
        lines.extend(advice(options, global));
        return lines.join("\n");
    }
    lines.push(String::new());
    lines.extend(table(&found.beacons, printer));
    lines.join("\n")
}

/// What to do when none was found.
fn advice(options: &DiscoverOptions, global: &GlobalArgs) -> Vec<String> {
    let mut lines = vec![
        "A gateway is found on a LAN when it listens there (`gateway run --bind lan`) and is not kept silent: in a"
            .to_owned(),
        "container, with `discovery.mdns.mode: \"off\"` or with OPENCLAW_DISABLE_BONJOUR=1 it is not announced."
            .to_owned(),
        "Multicast does not leave a network, and some networks hold it back. Then".to_owned(),
        format!("  name the gateway      {}", global.command("gateway health --url wss://HOST:PORT --token-file FILE")),
    ];
    if options.domains.is_empty() {
        lines.push(format!(
            "  ask a name server     {}",
            global.command("gateway discover --domain openclaw.internal")
        ));
    }
    lines.push(format!("  look for longer       {}", global.command("gateway discover --timeout 10000")));
    lines
}

fn table(beacons: &[Beacon], printer: &Printer) -> Vec<String> {
    let rows: Vec<[&str; 4]> = beacons
        .iter()
        .map(|beacon| [&*beacon.display_name, &*beacon.ws_url, &*beacon.host, &*beacon.domain])
        .collect();
    let headings = ["NAME", "URL", "HOST", "DOMAIN"];
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column]).chain([headings[column]]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: [&str; 4], style: &dyn Fn(usize, &str) -> String| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let padding = " ".repeat(width - cell.chars().count());
            format!("{}{padding}", style(column, cell))
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(headings, &|_, cell| printer.styled(DIM, cell))];
    for (beacon, row) in beacons.iter().zip(rows) {
        lines.push(line(row, &|column, cell| {
            if column == 1 { printer.styled(LITERAL, cell) } else { cell.to_owned() }
        }));
        lines.extend(details(beacon).into_iter().map(|detail| format!("  {}", printer.styled(DIM, &detail))));
    }
    lines
}

/// What the table has no column for.
fn details(beacon: &Beacon) -> Vec<String> {
    let mut lines = Vec::new();
    if beacon.addresses.len() > 1 {
        lines.push(format!("addresses: {}", beacon.addresses.join(", ")));
    }
    if let Some(name) = &beacon.tailnet_dns {
        lines.push(format!("tailnet: {name} (said, not checked)"));
    }
    match &beacon.gateway_tls_fingerprint_sha256 {
        Some(fingerprint) => lines.push(format!("tls: sha256 {fingerprint} (said, not checked)")),
        None if beacon.gateway_tls == Some(true) => lines.push("tls: no fingerprint is said".to_owned()),
        None => {}
    }
    if let Some(port) = beacon.ssh_port {
        let (host, to) = (&beacon.target_host, beacon.port);
        lines.push(format!("ssh: ssh -N -L {FORWARDED_PORT}:127.0.0.1:{to} <user>@{host} -p {port}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_found_says_what_to_do() {
        let options =
            DiscoverOptions { domains: vec!["w.internal".to_owned()], ..DiscoverOptions::default() };
        let found = Discovery { elapsed: Duration::from_millis(1400), ..Discovery::default() };
        let global = GlobalArgs { dev: true, ..GlobalArgs::default() };
        let text = report(&options, &found, &global, &Printer::new(false, true));
        assert!(
            text.starts_with(
                "Gateway Discovery\nNo gateway found · domains: local., w.internal. · 1.4 s\n\n"
            ),
            "{text}"
        );
        assert!(text.contains("openclaw --dev gateway discover --timeout 10000"), "{text}");
        assert!(!text.contains("--domain"), "it was looked in one: {text}");
    }

    #[test]
    fn the_document_has_the_recorded_members_first() {
        let found = Discovery {
            warnings: vec![Warning { code: "dns_failed", message: "no answer".to_owned() }],
            ..Discovery::default()
        };
        assert_eq!(
            document(&DiscoverOptions::default(), &found).to_string(),
            r#"{"timeoutMs":2000,"domains":["local."],"count":0,"beacons":[],"durationMs":0,"warnings":[{"code":"dns_failed","message":"no answer"}]}"#
        );
    }
}
