//! `cargo codegen`: arguments, output and exit codes; the work is in the library.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use openclaw_codegen::{ARTEFACTS, Artefact, Report, compare, generate, output::State};

/// Something went wrong.
const FAILED: u8 = 1;
/// A generated file is out of date. 2 is clap's, for wrong usage.
const STALE: u8 = 3;

/// Writes every generated artefact, or checks that they are up to date.
#[derive(Debug, Parser)]
#[command(name = "cargo codegen", bin_name = "cargo codegen", after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Handle this artefact alone; may be given several times
    #[arg(long, global = true, value_name = "ARTEFACT", value_parser = artefact)]
    only: Vec<Artefact>,
    /// The root of the workspace
    #[arg(long, global = true, value_name = "FOLDER", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    root: PathBuf,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a generated file is out of date";

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Write the files that differ (this is what happens without a command)
    Generate,
    /// Compare only: fail with exit code 3 if a file is missing or differs
    Check,
    /// List the artefacts
    List,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(&arguments).unwrap_or_else(|error| {
        // Nothing is left to be done when standard error is closed.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let artefacts = if arguments.only.is_empty() { ARTEFACTS } else { &arguments.only };
    let mut out = io::stdout().lock();
    match arguments.action.unwrap_or(Action::Generate) {
        Action::Generate => {
            let report = generate(&arguments.root, artefacts)?;
            tell_written(&mut out, &report)?;
        }
        Action::Check => {
            let report = compare(&arguments.root, artefacts)?;
            write!(out, "{report}").context("cannot write to standard output")?;
            if !report.is_current() {
                return Ok(ExitCode::from(STALE));
            }
        }
        Action::List => {
            for artefact in artefacts {
                writeln!(out, "{:<8} {}", artefact.name, artefact.summary)
                    .context("cannot write to standard output")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_written(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    for (_, path, state) in &report.files {
        let done = match state {
            State::Current => "unchanged",
            State::Missing => "created",
            State::Stale(_) => "updated",
        };
        writeln!(out, "{done:<9} {path}").context("cannot write to standard output")?;
    }
    Ok(())
}

fn artefact(name: &str) -> Result<Artefact, String> {
    ARTEFACTS.iter().copied().find(|artefact| artefact.name == name).ok_or_else(|| {
        let names: Vec<&str> = ARTEFACTS.iter().map(|artefact| artefact.name).collect();
        format!("no such artefact; one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_unknown_artefact_is_refused_with_the_names_there_are() {
        let refused = Arguments::try_parse_from(["codegen", "--only", "openapi"]).expect_err("unknown");
        assert!(
            refused.to_string().contains("no such artefact; one of openrpc, config, methods"),
            "{refused}"
        );
    }
}
