//! `gateway auth explain`: where each credential of a gateway comes from, and which one counts.

use openclaw_gateway::config::{AuthReport, Config, ConfigError, SecretKind, ServeOptions, explain_auth};
use serde_json::{Value, json};

use crate::{
    args::{AuthExplainArgs, GlobalArgs},
    commands::run::{auth_mode, bind_mode, misconfigured, secret},
    error::Result,
    exit::Exit,
    output::{DIM, GOOD, HEADING, Printer},
    settings::surroundings,
};

/// Explains what callers of a gateway would have to present that is started here and now.
pub(crate) fn explain(args: &AuthExplainArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let wrong = |error: ConfigError| misconfigured(&error);
    let (env, locations) = surroundings(global).map_err(wrong)?;
    let config = Config::load(locations.config_file()).map_err(wrong)?;
    let options = ServeOptions {
        bind: args.access.bind.map(bind_mode),
        auth: args.access.auth.map(auth_mode),
        token: secret(args.access.token.as_deref(), args.access.token_file.as_deref())?,
        password: secret(args.access.password.as_deref(), args.access.password_file.as_deref())?,
        ..ServeOptions::default()
    };
    let report = explain_auth(&locations, &config, &env, &options);
    if printer.is_json() {
        printer.json(&document(&report))?;
        return Ok(if report.refusal.is_some() { Exit::Configuration } else { Exit::Ok });
    }
    for line in lines(&report, printer) {
        printer.line(&line)?;
    }
    if let Some(warning) = &report.warning {
        printer.note(&format!("warning: {warning}"));
    }
    match &report.refusal {
        None => Ok(Exit::Ok),
        Some(refusal) => Err(misconfigured(refusal).into()),
    }
}

fn document(report: &AuthReport) -> Value {
    let candidates: Vec<Value> = report
        .candidates
        .iter()
        .map(|candidate| {
            let mut row = json!({
                "kind": candidate.kind.name(),
                "source": candidate.source.to_string(),
                "used": candidate.is_used,
            });
            if let Some(fingerprint) = &candidate.fingerprint {
                row["sha256"] = json!(fingerprint);
            }
            if let Some(reason) = &candidate.reason {
                row["reason"] = json!(reason);
            }
            row
        })
        .collect();
    let mut document = json!({
        "ok": report.refusal.is_none(),
        "mode": report.mode.as_ref().map(|mode| mode.value.name()),
        "modeSource": report.mode.as_ref().map(|mode| mode.source.to_string()),
        "generated": generates(report),
        "candidates": candidates,
    });
    if let Some(warning) = &report.warning {
        document["warning"] = json!(warning);
    }
    if let Some(refusal) = &report.refusal {
        document["refusal"] = json!({ "message": refusal.to_string(), "hint": refusal.hint() });
    }
    document
}

/// Whether the start would make a token.
fn generates(report: &AuthReport) -> bool {
    let is_token = report.mode.as_ref().is_some_and(|mode| mode.value.name() == SecretKind::Token.name());
    is_token && !report.candidates.iter().any(|candidate| candidate.is_used)
}

fn lines(report: &AuthReport, printer: &Printer) -> Vec<String> {
    let mode = report.mode.as_ref().map_or_else(
        || "the start is refused".to_owned(),
        |mode| format!("{} ({})", mode.value, mode.source),
    );
    let mut lines = vec![format!("{} {mode}", printer.styled(HEADING, "Authentication"))];
    let width =
        report.candidates.iter().map(|candidate| candidate.source.to_string().len()).max().unwrap_or(0);
    for candidate in &report.candidates {
        let verdict = match (&candidate.reason, candidate.is_used) {
            (_, true) => printer.styled(GOOD, "used"),
            (Some(reason), false) => format!("not used: {reason}"),
            (None, false) => "not used".to_owned(),
        };
        let fingerprint = match (&candidate.fingerprint, candidate.kind) {
            (Some(digits), _) => format!("sha256 {digits}"),
            (None, SecretKind::Password) => "(a password)".to_owned(),
            (None, SecretKind::Token) => "(too short to show)".to_owned(),
        };
        lines.push(format!(
            "  {:<9}{:<width$}  {}  {verdict}",
            candidate.kind.name(),
            candidate.source.to_string(),
            printer.styled(DIM, &format!("{fingerprint:<19}")),
        ));
    }
    if generates(report) {
        lines.push(
            "  none is given: the start makes a token, which the local command line finds by itself"
                .to_owned(),
        );
    }
    lines
}
