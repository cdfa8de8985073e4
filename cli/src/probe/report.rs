//! What follows from looking at several gateways: the verdict, the warnings, and the JSON document, which has every
//! field that stock has (cli.md section 5), and ours.

use std::{net::Ipv4Addr, time::Duration};

use openclaw_client::discovery::{Beacon, Warning as DiscoveryWarning};
use openclaw_schema::{ErrorCode, methods::config::ConfigGetResult};
use serde_json::{Value, json};

use super::{Capability, FailedCall, Kind, Observation, Target, Trouble, TroubleKind};
use crate::{
    exit::Exit,
    output::shown_url,
    ssh::{SshError, SshTarget},
};

/// One gateway that was looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) target: Target,
    pub(crate) tunnel: Option<TunnelFacts>,
    pub(crate) facts: Observation,
    /// Why the tunnel led nowhere, if `ssh` said so.
    pub(crate) ssh_trouble: Option<SshError>,
}

/// The tunnel to a gateway.
#[derive(Debug, Clone)]
pub(crate) struct TunnelFacts {
    pub(crate) target: SshTarget,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// Absent when `ssh` ended by itself.
    pub(crate) pid: Option<u32>,
}

/// The gateways that announce themselves.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// How long they were looked for; zero when they were not.
    pub(crate) limit: Duration,
    pub(crate) beacons: Vec<Beacon>,
    /// What kept them from being found.
    pub(crate) warnings: Vec<DiscoveryWarning>,
}

/// Everything that `gateway probe` found.
#[derive(Debug)]
pub(crate) struct Report {
    /// In the order in which one is preferred to another.
    pub(crate) seen: Vec<Seen>,
    /// Why there is no tunnel, though one was asked for; and where it should have led.
    pub(crate) no_tunnel: Option<(String, SshError)>,
    pub(crate) discovered: Discovered,
    /// Why the configuration cannot be read.
    pub(crate) config_problem: Option<String>,
    /// When it began, in milliseconds since 1970.
    pub(crate) ts: u64,
    pub(crate) took: Duration,
    /// What it may have taken; absent when nothing bounds it.
    pub(crate) budget: Option<Duration>,
    /// The address of the gateway on this machine.
    pub(crate) local_url: String,
    /// Its port.
    pub(crate) port: u16,
    /// This machine's address in its tailnet.
    pub(crate) tailnet: Option<Ipv4Addr>,
    /// Advice that names a command of this profile.
    pub(crate) advice: Advice,
}

/// Commands that help, for the profile that is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Advice {
    /// How a gateway is started.
    pub(crate) run: String,
    /// How its service is looked at.
    pub(crate) status: String,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// A stable name for scripts: stock's where it has one (cli.md section 5).
    pub(crate) code: &'static str,
    /// One sentence, no full stop.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// What it is about; empty when it is about none in particular.
    pub(crate) targets: Vec<Kind>,
}

impl Report {
    /// Whether one gateway answers.
    pub(crate) fn is_ok(&self) -> bool {
        self.seen.iter().any(|seen| seen.facts.answers())
    }

    /// Whether one that answers does not do so as it should.
    pub(crate) fn is_degraded(&self) -> bool {
        self.seen.iter().any(|seen| seen.facts.is_degraded())
    }

    /// The gateway to work with: the first that answers.
    pub(crate) fn primary(&self) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.facts.answers())
    }

    /// The most that one of them allows.
    pub(crate) fn capability(&self) -> Capability {
        self.seen.iter().map(|seen| seen.facts.capability()).max().unwrap_or(Capability::Unknown)
    }

    /// How many different gateways answer. Those that cannot be told apart count as one.
    pub(crate) fn gateways(&self) -> usize {
        let mut known: Vec<&Observation> = Vec::new();
        for seen in self.seen.iter().filter(|seen| seen.facts.answers()) {
            if known.iter().all(|known| known.is_same_as(&seen.facts) == Some(false)) {
                known.push(&seen.facts);
            }
        }
        known.len()
    }

    /// How the command ends.
    pub(crate) fn exit(&self, require_rpc: bool) -> Exit {
        let tunnel = self.no_tunnel.iter().map(|(_, error)| error.exit);
        let others = self.seen.iter().filter_map(|seen| seen.facts.trouble.as_ref()).map(Trouble::exit);
        if self.is_ok() {
            if require_rpc && self.is_degraded() { Exit::Degraded } else { Exit::Ok }
        } else if tunnel.chain(others).any(|exit| exit == Exit::Auth) {
            Exit::Auth
        } else {
            Exit::Unreachable
        }
    }

    /// What is not as it should be, the weightiest first.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |code, message: String, hint: Option<String>, targets: Vec<Kind>| {
            warnings.push(Warning { code, message, hint, targets });
        };
        if let Some(problem) = &self.config_problem {
            let message = format!("the configuration cannot be read, and counts as empty: {problem}");
            warn("config_invalid", message, None, Vec::new());
        }
        if !self.seen.iter().any(|seen| seen.facts.is_gateway()) {
            let hint = format!("start one with `{}`, or see `{}`", self.advice.run, self.advice.status);
            warn("no_gateway_reachable", "no gateway answers".to_owned(), Some(hint), Vec::new());
        }
        if let Some((_, error)) = &self.no_tunnel {
            let message = format!("there is no SSH tunnel: {}", error.message);
            warn("ssh_tunnel_failed", message, error.hint.clone(), vec![Kind::SshTunnel]);
        }
        for seen in &self.seen {
            if let Some(error) = &seen.ssh_trouble {
                let message = format!("the SSH tunnel leads nowhere: {}", error.message);
                warn("ssh_tunnel_failed", message, error.hint.clone(), vec![seen.target.kind]);
            }
        }
        let refused = self.seen.iter().filter_map(|seen| {
            let trouble = seen.facts.trouble.as_ref()?;
            (trouble.is_refusal() || trouble.kind == TroubleKind::Untrusted).then_some((seen, trouble))
        });
        for (seen, trouble) in refused {
            let code = match trouble.kind {
                TroubleKind::Unpaired => "pairing_pending",
                TroubleKind::Untrusted => "certificate_untrusted",
                _ => "credential_rejected",
            };
            let verdict = match trouble.kind {
                TroubleKind::Untrusted => "is not trusted",
                _ => "refuses this client",
            };
            let message =
                format!("the gateway at {} {verdict}: {}", shown_url(&seen.target.url), trouble.message);
            warn(code, message, advise(seen, trouble, &self.advice), vec![seen.target.kind]);
        }
        for seen in &self.seen {
            if let Some(problem) = seen.target.credential_problem.as_ref().filter(|_| !seen.facts.answers()) {
                let message = format!("a configured credential cannot be used: {problem}");
                warn("auth_secretref_unresolved", message, None, vec![seen.target.kind]);
            }
        }
        warnings.extend(self.several());
        for seen in self.seen.iter().filter(|seen| seen.facts.answers()) {
            warnings.extend(shortfalls(seen));
        }
        warnings
    }

    /// Whether several gateways answer.
    fn several(&self) -> Option<Warning> {
        let answering: Vec<&Seen> = self.seen.iter().filter(|seen| seen.facts.answers()).collect();
        let mut different = false;
        let mut unclear = false;
        for (at, left) in answering.iter().enumerate() {
            for right in &answering[at + 1..] {
                match left.facts.is_same_as(&right.facts) {
                    Some(same) => different |= !same,
                    None => unclear = true,
                }
            }
        }
        let message = if different {
            format!("{} different gateways answer", self.gateways())
        } else if unclear {
            "several addresses answer, and whether one gateway is behind them cannot be told".to_owned()
        } else {
            return None;
        };
        Some(Warning {
            code: "multiple_gateways",
            message,
            hint: Some("name the one that is meant with `--url`, `--port` or `--profile`".to_owned()),
            targets: answering.iter().map(|seen| seen.target.kind).collect(),
        })
    }

    /// The document of `--json`.
    pub(crate) fn json(&self, exit: Exit) -> Value {
        let warnings: Vec<Value> = self
            .warnings()
            .into_iter()
            .map(|warning| {
                let mut json = json!({ "code": warning.code, "message": warning.message });
                if let Some(hint) = warning.hint {
                    json["hint"] = hint.into();
                }
                if !warning.targets.is_empty() {
                    let ids: Vec<_> = warning.targets.iter().map(|kind| kind.name()).collect();
                    json["targetIds"] = json!(ids);
                }
                json
            })
            .collect();
        let discovery_warnings: Vec<Value> = self
            .discovered
            .warnings
            .iter()
            .map(|warning| json!({ "code": warning.code, "message": warning.message }))
            .collect();
        let tailnet_url = self.tailnet.map(|address| format!("ws://{address}:{}", self.port));
        json!({
            "ok": self.is_ok(),
            "degraded": self.is_degraded(),
            "capability": self.capability().name(),
            "exit": exit.name(),
            "gateways": self.gateways(),
            "ts": self.ts,
            "durationMs": whole(self.took),
            "timeoutMs": self.budget.map_or(0, whole),
            "primaryTargetId": self.primary().map(|seen| seen.target.kind.name()),
            "warnings": warnings,
            "network": {
                "localLoopbackUrl": self.local_url,
                "localTailnetUrl": tailnet_url,
                "tailnetIPv4": self.tailnet,
            },
            "discovery": {
                "timeoutMs": whole(self.discovered.limit),
                "count": self.discovered.beacons.len(),
                "beacons": self.discovered.beacons,
                "warnings": discovery_warnings,
            },
            "targets": self.seen.iter().map(|seen| target_json(seen, &self.advice)).collect::<Vec<_>>(),
        })
    }
}

/// What a gateway that answers does not do as it should.
fn shortfalls(seen: &Seen) -> Option<Warning> {
    let (facts, kind) = (&seen.facts, seen.target.kind);
    let warning = |code, message, hint: Option<&str>| {
        Some(Warning { code, message, hint: hint.map(str::to_owned), targets: vec![kind] })
    };
    let calls = |failed: &[FailedCall]| {
        let names: Vec<_> = failed.iter().map(|call| format!("`{}`", call.method)).collect();
        names.join(", ")
    };
    if facts.is_scope_limited() {
        let message = format!(
            "the gateway at {} gives no right to call {}",
            shown_url(&seen.target.url),
            calls(&facts.failed)
        );
        let hint = "present a credential that grants operator.read, or pair this device";
        return warning("probe_scope_limited", message, Some(hint));
    }
    if let Some(call) = facts.failed.iter().find(|call| !call.is_scope) {
        let message = format!(
            "the gateway at {} lets this client in, and then fails at {}: {}",
            shown_url(&seen.target.url),
            calls(&facts.failed),
            call.message
        );
        return warning("probe_detail_failed", message, None);
    }
    if !facts.is_well() {
        let message = format!("the gateway at {} says that it is not well", shown_url(&seen.target.url));
        return warning(
            "gateway_unhealthy",
            message,
            Some("`openclaw gateway call logs.tail` shows its log"),
        );
    }
    None
}

/// What to do about a gateway that does not answer.
pub(crate) fn advise(seen: &Seen, trouble: &Trouble, advice: &Advice) -> Option<String> {
    if let Some(error) = &seen.ssh_trouble {
        return error.hint.clone();
    }
    let is_local = seen.target.kind == Kind::LocalLoopback;
    Some(match trouble.kind {
        TroubleKind::Unreachable | TroubleKind::Closed if is_local => {
            format!("start it with `{}`, or see `{}`", advice.run, advice.status)
        }
        TroubleKind::Unreachable | TroubleKind::Closed => {
            "check that the gateway runs there, and listens on that address; one that listens on its own loopback alone \
             is reached with `--ssh user@host`"
                .to_owned()
        }
        TroubleKind::TimedOut => "check that the host is up, and that no firewall stands in between; `--timeout MS` \
                                  allows more"
            .to_owned(),
        TroubleKind::Untrusted => "compare that with what the gateway logs at its start, then name it with \
                                   `--tls-fingerprint`"
            .to_owned(),
        TroubleKind::Foreign if is_local => format!("`{}` says who listens there", advice.status),
        TroubleKind::Foreign => "check host and port of the address".to_owned(),
        TroubleKind::Rejected if trouble.code.as_deref() == Some(ErrorCode::RateLimited.name()) => {
            "wait five minutes, or go to the gateway's own host, where nobody is locked out".to_owned()
        }
        TroubleKind::Rejected => match &seen.target.credential_origin {
            Some(origin) => format!(
                "pass the gateway's own secret with `--token` or `--password`; the one presented came from: {origin}"
            ),
            None => "pass the gateway's own secret with `--token` or `--password`; none was found".to_owned(),
        },
        // The message names the request, or what is missing.
        TroubleKind::Unpaired if trouble.message.contains("approve") => return None,
        TroubleKind::Unpaired => {
            "approve this device on the gateway, or pass its secret with `--token` or `--password`".to_owned()
        }
        TroubleKind::Invalid => format!("the address comes from: {}", seen.target.origin),
    })
}

fn target_json(seen: &Seen, advice: &Advice) -> Value {
    let (target, facts) = (&seen.target, &seen.facts);
    let tunnel = seen.tunnel.as_ref().map(|tunnel| {
        json!({
            "kind": "ssh", "target": tunnel.target.to_string(), "localPort": tunnel.local_port,
            "remotePort": tunnel.remote_port, "pid": tunnel.pid,
        })
    });
    let trouble = facts.trouble.as_ref();
    let close = trouble.and_then(|trouble| trouble.close.as_ref());
    let error = match trouble {
        Some(trouble) => Some(&trouble.message),
        None => facts.failed.first().map(|call| &call.message),
    };
    let capability = facts.capability().name();
    let own = facts.own_entry().map(|entry| {
        json!({
            "host": entry.host, "ip": entry.ip, "version": entry.version, "platform": entry.platform,
            "instanceId": entry.instance_id,
        })
    });
    let failed: Vec<Value> = facts
        .failed
        .iter()
        .map(|call| json!({ "method": call.method, "message": call.message, "missingScope": call.is_scope }))
        .collect();
    json!({
        "id": target.kind.name(),
        "kind": target.kind.name(),
        "url": shown_url(&target.url),
        "urlSource": target.origin,
        "active": target.active,
        "tunnel": tunnel,
        "reachable": facts.is_gateway(),
        "authenticated": facts.answers(),
        "authorised": facts.is_authorised(),
        "degraded": facts.is_degraded(),
        "identity": facts.identity,
        "connect": connect_json(facts, error, close),
        "auth": { "role": facts.role, "scopes": facts.scopes.as_deref().unwrap_or_default(), "capability": capability },
        "server": {
            "version": facts.version, "buildId": facts.build_id, "bootId": facts.boot_id, "connId": facts.conn_id,
        },
        "self": own,
        "config": facts.config.as_ref().map(config_json),
        "health": facts.health,
        "summary": facts.summary,
        "presence": facts.presence,
        "failedCalls": failed,
        "hint": trouble.and_then(|trouble| advise(seen, trouble, advice)),
    })
}

fn connect_json(facts: &Observation, error: Option<&String>, close: Option<&(u16, String)>) -> Value {
    json!({
        "ok": facts.is_gateway(),
        "rpcOk": facts.is_full() && facts.is_authorised() == Some(true),
        "scopeLimited": facts.is_scope_limited(),
        "latencyMs": facts.connect_ms.map(rounded),
        "callMs": facts.call_ms.map(rounded),
        "error": error,
        "code": facts.trouble.as_ref().and_then(|trouble| trouble.code.as_ref()),
        "close": close.map(|(code, reason)| json!({ "code": code, "reason": reason })),
    })
}

/// What the result of `config.get` says, in the recorded shape. No secret is in it: only whether one is set.
fn config_json(config: &Value) -> Value {
    let snapshot: ConfigGetResult = serde_json::from_value(config.clone()).unwrap_or_default();
    let gateway = snapshot.config.get("gateway").cloned().unwrap_or_default();
    let is_set = |value: &Value| !value.is_null();
    json!({
        "path": snapshot.path,
        "exists": snapshot.exists,
        "valid": snapshot.valid,
        "issues": snapshot.issues,
        "legacyIssues": config["legacyIssues"].as_array().cloned().unwrap_or_default(),
        "gateway": {
            "mode": gateway["mode"],
            "bind": gateway["bind"],
            "port": gateway["port"],
            "controlUiEnabled": gateway["controlUi"]["enabled"],
            "controlUiBasePath": gateway["controlUi"]["basePath"],
            "authMode": gateway["auth"]["mode"],
            "authTokenConfigured": is_set(&gateway["auth"]["token"]),
            "authPasswordConfigured": is_set(&gateway["auth"]["password"]),
            "remoteUrl": gateway["remote"]["url"],
            "remoteTokenConfigured": is_set(&gateway["remote"]["token"]),
            "remotePasswordConfigured": is_set(&gateway["remote"]["password"]),
            "tailscaleMode": gateway["tailscale"]["mode"],
        },
        "discovery": {
            "wideAreaEnabled": is_set(&snapshot.config.get("discovery").cloned().unwrap_or_default()["wideArea"]["domain"]),
        },
    })
}

/// Microseconds are enough.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1000.0).round() / 1000.0
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
