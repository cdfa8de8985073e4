//! `gateway health`: whether a gateway answers, how fast, and how it is doing.

use std::time::Instant;

use openclaw_schema::methods::gateway::{GatewayMethod, HealthResult};
use serde_json::value::RawValue;

use crate::{
    args::{GlobalArgs, HealthArgs},
    connection::{self, Connection},
    error::Result,
    exit::Exit,
    output::{BAD, GOOD, HEADING, Printer},
    settings::ClientSettings,
};

/// Asks for the health of a gateway.
pub(crate) fn health(args: &HealthArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let settings = ClientSettings::resolve(&args.client, global)?;
    let (answer, milliseconds) = connection::run(&settings, async {
        let (method, params) = (GatewayMethod::Health.name(), empty());
        let connection = Connection::open(&settings, method, &params).await?;
        let sent = Instant::now();
        let answer = connection.call(method, params).await?;
        Ok((answer, sent.elapsed().as_secs_f64() * 1000.0))
    })?;
    let health: HealthResult = connection::read(GatewayMethod::Health.name(), &answer)?;
    if printer.is_json() {
        printer.received(&answer)?;
    } else {
        printer.line(&report(&health, milliseconds, printer))?;
    }
    Ok(if health.ok { Exit::Ok } else { Exit::Degraded })
}

fn empty() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("{} is JSON")
}

fn report(health: &HealthResult, milliseconds: f64, printer: &Printer) -> String {
    let (style, verdict) = if health.ok { (GOOD, "OK") } else { (BAD, "DEGRADED") };
    let mut lines = vec![
        printer.styled(HEADING, "Gateway Health"),
        format!("{} ({} ms)", printer.styled(style, verdict), rounded(milliseconds)),
    ];
    if let Some(runtime) = &health.runtime {
        lines.push(format!("Uptime       {}", duration(runtime.uptime_ms)));
        lines.push(format!("Connections  {}", runtime.connections));
        lines.push(format!("Runs         {} active", runtime.runs_active));
    }
    lines.join("\n")
}

/// Two digits where one would say too little.
pub(crate) fn rounded(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

/// Milliseconds as the two largest units: `3d 4h`, `5m 6s`, `7s`.
pub(crate) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let units =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(count, _)| *count > 0).unwrap_or(units.len() - 1);
    let shown = units[first..].iter().take(2).map(|(count, unit)| format!("{count}{unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (milliseconds, text) in
            [(0, "0s"), (7_900, "7s"), (306_000, "5m 6s"), (3_600_000, "1h 0m"), (273_600_000, "3d 4h")]
        {
            assert_eq!(duration(milliseconds), text);
        }
    }

    #[test]
    fn the_report_has_verdict_round_trip_and_use() {
        let health: HealthResult = serde_json::from_value(serde_json::json!({
            "ok": true, "ts": 1,
            "runtime": { "uptimeMs": 65_000, "connections": 2, "unauthenticatedConnections": 0, "callsInFlight": 1,
                "callsTotal": 5, "runsActive": 1 },
        }))
        .expect("the example is a health result");
        assert_eq!(
            report(&health, 1.26, &Printer::new(false, true)),
            "Gateway Health\nOK (1.3 ms)\nUptime       1m 5s\nConnections  2\nRuns         1 active"
        );
    }
}
