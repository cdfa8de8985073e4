//! `gateway dns`: the DNS records by which a gateway on this machine is found in a wide-area domain.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use openclaw_client::discovery;
use openclaw_gateway::{
    config::{BindMode, Config, discovery_defaults, tailnet_addresses, wide_area_announcement},
    discovery::{Names, TlsHint, Zone, hints},
    state::RuntimeRecord,
};
use serde_json::json;

use crate::{
    args::{DnsArgs, DnsFormat, GlobalArgs},
    error::{CliError, Fault, Result},
    exit::Exit,
    output::{DIM, HEADING, Printer},
    settings::{surroundings, wrong},
};

/// Shows the records, or writes them.
pub(crate) fn dns(args: &DnsArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let (env, locations) = surroundings(global).map_err(|error| wrong(&error))?;
    let config = Config::load(locations.config_file()).map_err(|error| wrong(&error))?;
    let given = match &args.domain {
        Some(domain) => Some(domain.clone()),
        None => discovery_defaults(&config, &env).map_err(|error| wrong(&error))?.domains.into_iter().next(),
    };
    let Some(given) = given else {
        return Err(CliError::usage("no wide-area domain is set")
            .hint("set discovery.wideArea.domain, or pass --domain, such as `--domain openclaw.internal`")
            .into());
    };
    let domain = discovery::domain(&given).map_err(CliError::usage)?;
    let addresses = if args.address.is_empty() { tailnet_addresses() } else { args.address.clone() };
    if addresses.is_empty() {
        return Err(CliError::usage(
            "this machine has no address in a tailnet (100.64.0.0/10 or fd7a:115c:a1e0::/48)",
        )
        .hint("start tailscale, or pass an address where others reach this machine: `--address IP`")
        .into());
    }
    let record = RuntimeRecord::read(locations.state());
    let port = args
        .port
        .or(record.as_ref().map(|record| record.port))
        .or(config.gateway.port.as_ref().map(|port| port.value.get()))
        .unwrap_or_else(|| locations.default_port());
    let mut warnings = config.warnings.clone();
    let announcement = wide_area_announcement(&config, &env, &mut warnings);
    let names = Names::of_host(&announcement);
    // Which certificate it is, the gateway's clients are told by their own means.
    let tls = config.gateway.tls.enabled.as_ref().is_some_and(|enabled| enabled.value);
    let txt = hints(&announcement, &names, port, None, tls.then(TlsHint::default).as_ref());
    warnings.extend(unreachable(record.as_ref(), &config));
    // Some name servers answer in lower case whatever they were told.
    let zone = Zone { host: names.host.to_ascii_lowercase(), domain, addresses, port, txt };
    let zone_name = format!("{}.db", zone.domain.trim_end_matches('.'));
    let path = match &args.zone_file {
        Some(path) => path.clone(),
        None => locations.state().root().join("dns").join(zone_name),
    };
    let former = read(&path)?;
    let text = zone.file(Zone::today(), former.as_deref());
    let changed = former.as_deref() != Some(&*text);
    if args.write && changed {
        write(&path, &text).map_err(|error| no_file("write", &path, &error))?;
    }
    if printer.is_json() {
        printer.json(&json!({
            "domain": zone.domain,
            "host": zone.host,
            "port": zone.port,
            "addresses": zone.addresses,
            "zoneFile": path,
            "written": args.write && changed,
            "zone": text,
            "coredns": zone.coredns(&path),
            "dnsmasq": zone.dnsmasq(),
            "warnings": warnings,
        }))?;
        return Ok(Exit::Ok);
    }
    match (args.format, args.write) {
        (Some(DnsFormat::Zone), _) => printer.line(text.trim_end())?,
        (Some(DnsFormat::Coredns), _) => printer.line(zone.coredns(&path).trim_end())?,
        (Some(DnsFormat::Dnsmasq), _) => printer.line(zone.dnsmasq().trim_end())?,
        (None, true) => {
            let said = if changed { "wrote" } else { "nothing changed in" };
            printer.line(&format!("{said} {}", path.display()))?;
        }
        (None, false) => printer.line(&plan(&zone, &text, &path, global, printer))?,
    }
    for warning in &warnings {
        printer.note(&format!("warning: {warning}"));
    }
    Ok(Exit::Ok)
}

/// Says when the records would lead to a gateway that nobody reaches.
fn unreachable(record: Option<&RuntimeRecord>, config: &Config) -> Option<String> {
    let is_local = match record {
        Some(record) => record.addresses.iter().all(|address| address.ip().is_loopback()),
        None => config.gateway.bind.as_ref().is_none_or(|bind| bind.value == BindMode::Loopback),
    };
    is_local.then(|| {
        "the gateway listens on this machine alone, so the records lead nowhere: set gateway.bind to \"tailnet\" or \
         \"lan\""
            .to_owned()
    })
}

fn plan(zone: &Zone, text: &str, path: &Path, global: &GlobalArgs, printer: &Printer) -> String {
    let domain = zone.domain.trim_end_matches('.');
    let server = zone.addresses[0];
    let heading = |text: &str| printer.styled(HEADING, text);
    let note = |text: String| printer.styled(DIM, &text);
    [
        heading(&format!("Zone file, for CoreDNS and others: {}", path.display())),
        note(format!("`{}` writes it.", global.command("gateway dns --write"))),
        text.trim_end().to_owned(),
        String::new(),
        heading("CoreDNS, in the Corefile"),
        zone.coredns(path).trim_end().to_owned(),
        String::new(),
        heading("Or dnsmasq, without a zone file"),
        zone.dnsmasq().trim_end().to_owned(),
        String::new(),
        heading("On the other machines: split DNS, so that only this domain is asked for here"),
        format!("Tailscale, admin console, DNS: name server {server}, restricted to {domain}"),
        format!("systemd-resolved:              resolvectl dns tailscale0 {server} && resolvectl domain tailscale0 '~{domain}'"),
        format!("dnsmasq:                       server=/{domain}/{server}"),
        format!("to try it:                     openclaw gateway discover --domain {domain} --dns-server {server}"),
    ]
    .join("\n")
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(no_file("read", path, &error).into()),
    }
}

/// Puts the file there in one step: a name server may read it at any moment.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside: PathBuf = path.to_owned();
    beside.as_mut_os_string().push(format!(".{}", std::process::id()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&beside, text)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

fn no_file(what: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::new(Fault::Cli, "STATE", Exit::Usage, format!("cannot {what} the zone file {}", path.display()))
        .cause(error)
}
