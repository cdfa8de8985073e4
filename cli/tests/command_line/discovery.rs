//! `gateway discover` and `gateway dns`, between hosts of a LAN of their own, against Avahi and dnsmasq, and what
//! they say where there is nobody.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::{
    lan::{Lan, Running, TOKEN, wait},
    process::{Home, Outcome},
};

const LAN: [&str; 3] = ["--allow-unconfigured", "--bind", "lan"];

fn field<'a>(beacons: &'a [Value], name: &str) -> Vec<&'a str> {
    beacons.iter().map(|beacon| beacon[name].as_str().expect("a text")).collect()
}

#[test]
fn a_gateway_is_found_by_another_host_until_it_stops() {
    let Some(lan) = Lan::new(2) else { return };
    let lan = lan.with_v4();
    let gateway = lan.serve(0, "Bob's Studio", LAN);
    for host in [1, 0] {
        let beacons = lan.discover_until(host, &[], |beacons| beacons.len() == 1);
        assert_eq!(
            beacons[0],
            json!({
                "instanceName": "Bob's Studio (OpenClaw)",
                "displayName": "Bob's Studio",
                "host": "Bobs-Studio.local",
                "port": 18799,
                "txt": {
                    "displayName": "Bob's Studio", "gatewayPort": "18799", "lanHost": "Bobs-Studio.local",
                    "role": "gateway", "transport": "gateway",
                },
                "lanHost": "Bobs-Studio.local",
                "role": "gateway",
                "transport": "gateway",
                "gatewayPort": 18799,
                "domain": "local.",
                "wsUrl": "ws://10.77.0.1:18799",
                "addresses": ["10.77.0.1"],
            })
        );
    }
    let table = Outcome::of(lan.gateway(1, ["discover"]).output().expect("the binary starts"));
    let row = "Bob's Studio  ws://10.77.0.1:18799  Bobs-Studio.local  local.";
    assert!(table.ok().contains(row), "{table:?}");

    assert_eq!(gateway.stop(), Some(0));
    assert_eq!(lan.discover(1, [])["count"], 0);
}

#[test]
fn a_gateway_with_tls_is_found_and_its_fingerprint_is_a_hint_alone() {
    let Some(lan) = Lan::new(2) else { return };
    let lan = lan.with_v4();
    fs::create_dir_all(lan.home(0).join(".openclaw")).expect("a directory can be made");
    let config = "{gateway: {mode: 'local', bind: 'lan', tls: {enabled: true}}}";
    fs::write(lan.home(0).join(".openclaw/openclaw.json"), config).expect("a file can be written");
    let _gateway = lan.serve(0, "vm", []);
    let beacons = lan.discover_until(1, &[], |beacons| beacons.len() == 1);
    assert_eq!(field(&beacons, "wsUrl"), ["wss://10.77.0.1:18799"]);
    assert_eq!(beacons[0]["gatewayTls"], true);
    assert_eq!(field(&beacons, "gatewayTlsFingerprintSha256")[0].len(), 64);
    let table = Outcome::of(lan.gateway(1, ["discover"]).output().expect("the binary starts"));
    assert!(table.ok().contains("(said, not checked)"), "{table:?}");
    // What was found leads there, and is trusted only when somebody says so.
    let (url, said) = (field(&beacons, "wsUrl")[0], field(&beacons, "gatewayTlsFingerprintSha256")[0]);
    let health = |more: &[&str]| {
        let args = ["health", "--json", "--url", url, "--token", TOKEN];
        let mut command = lan.gateway(1, args.into_iter().chain(more.iter().copied()));
        Outcome::of(command.output().expect("the binary starts"))
    };
    assert_ne!(health(&[]).code, Some(0), "the certificate is nobody's");
    assert_eq!(health(&["--tls-fingerprint", said]).json(0)["ok"], true);

    // Over a restart it is announced again, with the certificate that it shows then.
    fs::remove_dir_all(lan.home(0).join(".openclaw/gateway/tls")).expect("it is there");
    let restarted = Outcome::of(lan.gateway(0, ["restart", "--json"]).output().expect("the binary starts"));
    assert_eq!(restarted.json(0)["result"], "restarted");
    let is_new = |beacon: &Value| beacon["gatewayTlsFingerprintSha256"] != said;
    lan.discover_until(1, &[], |beacons| beacons.len() == 1 && is_new(&beacons[0]));
}

#[test]
fn avahi_and_we_find_each_other() {
    let Some(lan) = Lan::new(2) else { return };
    let lan = lan.with_v4();
    let Some(avahi) = lan.avahi(1) else { return };
    let mut full = lan.gateway(0, ["run", "--port", "18799", "--token", TOKEN]);
    fs::create_dir_all(lan.home(0).join(".openclaw")).expect("a directory can be made");
    fs::write(
        lan.home(0).join(".openclaw/openclaw.json"),
        "{gateway: {mode: 'local', bind: 'lan'}, discovery: {mdns: {mode: 'full'}}}",
    )
    .expect("a file can be written");
    full.env("OPENCLAW_DISABLE_BONJOUR", "0").env("OPENCLAW_MDNS_HOSTNAME", "Bob's Studio");
    full.env("OPENCLAW_CLI_PATH", "/opt/openclaw").env("OPENCLAW_SSH_PORT", "2222");
    let gateway = Running::start(full.stdout(Stdio::null()).stderr(Stdio::null()));
    let browse = || {
        let mut command = lan.avahi_command(1, &avahi, "avahi-browse");
        let output = command.args(["-rtp", "_openclaw-gw._tcp"]).output().expect("Avahi answers");
        String::from_utf8(output.stdout).expect("it is text")
    };
    let mut seen = String::new();
    wait("Avahi resolves the gateway", || {
        seen = browse();
        seen.contains("\n=;")
    });
    let resolved = seen.lines().find(|line| line.starts_with('=')).expect("it is there");
    let [.., name, kind, domain, host, address, port, txt] = resolved.split(';').collect::<Vec<_>>()[..]
    else {
        panic!("{resolved}")
    };
    assert_eq!(name, r"Bob\039s\032Studio\032\040OpenClaw\041");
    assert_eq!([kind, domain, host], ["_openclaw-gw._tcp", "local", "Bobs-Studio.local"]);
    assert_eq!([address, port], ["10.77.0.1", "18799"]);
    let mut pairs: Vec<&str> = txt.trim_matches('"').split("\" \"").collect();
    pairs.sort_unstable();
    assert_eq!(
        pairs,
        [
            "cliPath=/opt/openclaw",
            "displayName=Bob's Studio",
            "gatewayPort=18799",
            "lanHost=Bobs-Studio.local",
            "role=gateway",
            "sshPort=2222",
            "transport=gateway",
        ]
    );
    assert_eq!(gateway.stop(), Some(0));
    wait("Avahi forgets the gateway", || browse().is_empty());

    let mut command = lan.avahi_command(1, &avahi, "avahi-publish");
    command.args([
        "-s",
        "Studio.Mac\u{1b}[2J",
        "_openclaw-gw._tcp",
        "19777",
        "role=gateway",
        "gatewayPort=1",
    ]);
    command.args(["gatewayTls=1", "gatewayTlsSha256=aabb", "displayName=Ünï\u{9b}x", "lanHost=evil.local"]);
    let _published = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let beacons = lan.discover_until(0, &[], |beacons| beacons.len() == 1);
    assert_eq!(field(&beacons, "instanceName"), ["Studio.Mac\u{FFFD}[2J"]);
    assert_eq!(field(&beacons, "displayName"), ["Ünï\u{FFFD}x"]);
    assert_eq!(field(&beacons, "host"), ["peer.local"]);
    assert_eq!(field(&beacons, "wsUrl"), ["wss://10.77.0.2:19777"]);
    assert_eq!(field(&beacons, "gatewayTlsFingerprintSha256"), ["aabb"]);
}

#[test]
fn two_hosts_of_one_name_are_told_apart() {
    let Some(lan) = Lan::new(3) else { return };
    let lan = lan.with_v4();
    let _gateways = [lan.serve(0, "vm", LAN), lan.serve(1, "vm", LAN)];
    let is_settled = |beacons: &[Value]| {
        let mut names = field(beacons, "instanceName");
        names.sort_unstable();
        names.dedup();
        names.len() == 2
    };
    let beacons = lan.discover_until(2, &[], is_settled);
    let mut urls = field(&beacons, "wsUrl");
    urls.sort_unstable();
    assert_eq!(urls, ["ws://10.77.0.1:18799", "ws://10.77.0.2:18799"]);
}

#[test]
fn a_network_of_version_6_alone_will_do() {
    let Some(lan) = Lan::new(2) else { return };
    let state = lan.home(0).join(".openclaw");
    fs::create_dir_all(&state).expect("a directory can be made");
    fs::write(
        state.join("openclaw.json"),
        "{gateway: {mode: 'local', bind: 'custom', customBindHost: '::'}}",
    )
    .expect("a file can be written");
    let _gateway = lan.serve(0, "vm", []);
    let beacons = lan.discover_until(1, &[], |beacons| beacons.len() == 1);
    let url = beacons[0]["wsUrl"].as_str().expect("a text");
    assert!(url.starts_with("ws://[fe80::") && url.ends_with("%25eth0]:18799"), "{url}");
    let address = beacons[0]["addresses"][0].as_str().expect("a text");
    assert!(address.starts_with("fe80::") && address.ends_with("%eth0"), "{address}");
    // What it printed can be called, written as URLs have it and as people do.
    let call = |url: &str| {
        let args = ["call", "health", "--json", "--token", TOKEN, "--allow-plaintext", "--url", url];
        Outcome::of(lan.gateway(1, args).output().expect("the binary starts"))
    };
    for url in [url.to_owned(), url.replace("%25", "%")] {
        assert_eq!(call(&url).json(0)["ok"], true, "{url}");
    }
    let error = call(&url.replace("eth0", "eth9")).json(3);
    let message = error["error"].to_string();
    assert!(message.contains("no network interface `eth9`"), "{message}");
}

#[test]
fn a_gateway_on_loopback_is_found_on_its_own_host_alone() {
    let Some(lan) = Lan::new(2) else { return };
    let lan = lan.with_v4();
    let _gateway = lan.serve(0, "vm", ["--allow-unconfigured"]);
    let beacons = lan.discover_until(0, &[], |beacons| beacons.len() == 1);
    assert_eq!(field(&beacons, "wsUrl"), ["ws://127.0.0.1:18799"]);
    assert_eq!(lan.discover(1, [])["count"], 0);
}

#[test]
fn a_name_server_with_the_printed_lines_leads_to_the_gateway() {
    let Some(lan) = Lan::new(2) else { return };
    let lan = lan.with_v4();
    let gateway = lan.serve(0, "Bob's \"vm\", 2", LAN);
    let mut command = lan.gateway(0, ["dns", "--domain", "OpenClaw.internal", "--address", "10.77.0.1"]);
    command.args(["--format", "dnsmasq"]).env("OPENCLAW_MDNS_HOSTNAME", "Bob's \"vm\", 2");
    let lines = Outcome::of(command.output().expect("the binary starts"));
    let Some(_server) = lan.dnsmasq(0, lines.ok()) else { return };
    // The system's own resolver.
    let resolver = lan.home(1).join("resolv.conf");
    fs::write(&resolver, "nameserver 10.77.0.1\n").expect("a file can be written");
    let ask = "mount --bind \"$1\" /etc/resolv.conf && exec \"$2\" gateway discover --json --timeout 4000";
    let mut by_system = lan.program(1, "/bin/sh");
    by_system.args(["-c", ask, "sh"]).arg(&resolver).arg(env!("CARGO_BIN_EXE_openclaw"));
    by_system
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("OPENCLAW_WIDE_AREA_DOMAIN", "openclaw.internal");
    // The LAN has the gateway too, and finds it first: what is in both is one.
    let by_both = ["--domain", "openclaw.internal", "--dns-server", "10.77.0.1", "--timeout", "4000"];
    let both = lan.discover_until(1, &by_both, |beacons| beacons.len() == 1);
    assert_eq!(field(&both, "domain"), ["local."]);
    // Silent on the LAN, the name server alone has it.
    assert_eq!(gateway.stop(), Some(0));
    let beacons =
        lan.discover_until(1, &by_both, |beacons| field(beacons, "domain") == ["openclaw.internal."]);
    assert_eq!(
        beacons[0],
        json!({
            "instanceName": "bobs-vm-2-gateway",
            "displayName": "Bob's \"vm\", 2",
            "host": "bobs-vm-2.openclaw.internal",
            "port": 18799,
            "txt": {
                "displayName": "Bob's \"vm\", 2", "gatewayPort": "18799", "role": "gateway", "transport": "gateway",
            },
            "role": "gateway",
            "transport": "gateway",
            "gatewayPort": 18799,
            "domain": "openclaw.internal.",
            "wsUrl": "ws://10.77.0.1:18799",
            "addresses": ["10.77.0.1"],
        })
    );
    let found = Outcome::of(by_system.output().expect("the binary starts")).json(0);
    assert_eq!(found["domains"], json!(["local.", "openclaw.internal."]));
    assert_eq!(found["beacons"][0]["wsUrl"], "ws://bobs-vm-2.openclaw.internal:18799", "{found}");
}

#[test]
fn a_bad_domain_or_name_server_is_a_usage_error() {
    let home = Home::new();
    for (args, said) in [
        (["--domain", "a b"], "`a b` is no domain name"),
        (["--domain", "local"], "multicast DNS"),
        (["--dns-server", "dns.example"], "an IP address"),
        (["--timeout", "0"], "--timeout"),
    ] {
        let refused = home.run(["gateway", "discover"].into_iter().chain(args));
        assert!(refused.refused(2).contains(said), "{refused:?}");
    }
}

#[test]
fn records_need_a_domain_and_an_address() {
    let home = Home::new();
    let refused = home.run(["gateway", "dns"]);
    assert!(refused.refused(2).contains("discovery.wideArea.domain"), "{refused:?}");
    home.write(
        ".openclaw/openclaw.json",
        "{gateway: {bind: 'lan', port: 7}, discovery: {wideArea: {domain: 'w.internal'}}}",
    );
    let zone = home.run(["gateway", "dns", "--address", "100.64.0.5", "--format", "zone"]);
    assert!(zone.ok().contains("$ORIGIN w.internal.\n"), "{zone:?}");
    assert!(zone.ok().contains(" IN SRV 0 0 7 "), "{zone:?}");
    assert_eq!(zone.stderr, "");
}

#[test]
fn the_zone_file_is_written_once_and_again_when_something_changed() {
    let home = Home::new();
    let base = ["gateway", "dns", "--json", "--write", "--domain", "w.internal", "--address", "100.64.0.5"];
    let run = |more: &[&str]| home.run(base.into_iter().chain(more.iter().copied())).json(0);
    let first = run(&["--port", "1"]);
    let path = home.path().join(".openclaw/dns/w.internal.db");
    assert_eq!(first["zoneFile"].as_str(), path.to_str());
    assert_eq!(first["written"], true);
    assert_eq!(first["warnings"].as_array().map(Vec::len), Some(1), "it is not reachable: {first}");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), first["zone"].as_str().expect("a text"));
    assert_eq!(run(&["--port", "1"])["written"], false);
    let second = run(&["--port", "2"]);
    assert_eq!(second["written"], true);
    assert_ne!(first["zone"], second["zone"]);
}
