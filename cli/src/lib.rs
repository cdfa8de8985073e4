#![doc = include_str!("../README.md")]

mod args;
mod argv;
mod child;
mod commands;
mod connection;
mod error;
mod exit;
mod flags;
mod method;
mod notify;
mod output;
mod ports;
mod probe;
mod service;
mod settings;
mod ssh;
mod tailscale;
mod takeover;
mod trust;
mod watch;

use std::{env, ffi::OsString, process::ExitCode};

use clap::{ColorChoice, Command, CommandFactory as _, FromArgMatches as _, error::ErrorKind};
use clap_complete::CompleteEnv;
use openclaw_schema::methods;

use crate::{
    args::{AuthCommand, Cli, GatewayArgs, GatewayCommand},
    argv::{CallScan, OutputFlags},
    commands::completion,
    error::{CliError, Failure, Result},
    exit::Exit,
    method::Method,
    output::Printer,
};

/// The whole command line as a clap tree, without the flags that depend on a method: for reference pages and
/// completion.
#[must_use]
pub fn command() -> Command {
    Cli::command()
}

/// Runs the command line of this process, and says how the process exits.
#[must_use]
pub fn main() -> ExitCode {
    if env::var_os(completion::VARIABLE).is_some() {
        let completer = CompleteEnv::with_factory(completion::tree).var(completion::VARIABLE);
        match completer.try_complete(env::args_os(), env::current_dir().ok().as_deref()) {
            Ok(true) => return Exit::Ok.into(),
            Ok(false) => {}
            Err(error) => return show(&error, &Printer::new(false, false)).into(),
        }
    }
    let args: Vec<OsString> = env::args_os().collect();
    if let Some(code) = child::become_program(&args) {
        return ExitCode::from(code);
    }
    run(args).into()
}

fn run(args: Vec<OsString>) -> Exit {
    let tree = command();
    let scan = argv::scan(args, &tree, |name| methods::find(name).is_some());
    let printer = match scan.output {
        OutputFlags { stream: true, no_color, .. } => Printer::lines(no_color),
        OutputFlags { json, no_color, .. } => Printer::new(json, no_color),
    };
    let tree = if scan.output.no_color { tree.color(ColorChoice::Never) } else { tree };
    let outcome = with_method(tree, scan.call.as_ref()).and_then(|(tree, method)| {
        let matches = match tree.try_get_matches_from(scan.args) {
            Ok(matches) => matches,
            Err(error) => return Ok(show(&error, &printer)),
        };
        let run = || match Cli::from_arg_matches(&matches) {
            Ok(cli) => dispatch(cli, &matches, method.as_ref(), &printer),
            Err(error) => Ok(show(&error, &printer)),
        };
        match run() {
            // Nothing was sent to a gateway that is not trusted: once it is, the command begins anew.
            Err(Failure::Error(error)) if !printer.is_json() => match &error.untrusted {
                Some((store, url, shown)) if store.ask(url, *shown)? => run(),
                _ => Err(Failure::Error(error)),
            },
            outcome => outcome,
        }
    });
    outcome.unwrap_or_else(|failure| printer.failure(failure))
}

fn dispatch(
    cli: Cli,
    matches: &clap::ArgMatches,
    method: Option<&Method>,
    printer: &Printer,
) -> Result<Exit> {
    let global = &cli.global;
    let gateway = match cli.command {
        args::Command::Gateway(gateway) => *gateway,
        args::Command::Completion(args) => return completion::completion(&args, printer),
    };
    let GatewayArgs { run, command } = gateway;
    if global.log_level.is_some() && !matches!(command, None | Some(GatewayCommand::Run(_))) {
        return Err(CliError::usage(
            "--log-level is an option of `gateway run`: other commands write no log",
        )
        .into());
    }
    match command {
        None => commands::run::run(&run, global, printer),
        Some(GatewayCommand::Run(args)) => commands::run::run(&args.run, global, printer),
        Some(GatewayCommand::Call(args)) => {
            let matches =
                matches.subcommand_matches("gateway").and_then(|gateway| gateway.subcommand_matches("call"));
            let given = match (method, matches) {
                (Some(method), Some(matches)) => method.fields.given(matches),
                _ => serde_json::Map::new(),
            };
            commands::call::call(&args, global, method, given, printer)
        }
        Some(GatewayCommand::Health(args)) => commands::health::health(&args, global, printer),
        Some(GatewayCommand::UsageCost(args)) => commands::usage_cost::usage_cost(&args, global, printer),
        Some(GatewayCommand::Install(args)) => commands::service::install(&args, global, printer),
        Some(GatewayCommand::Start(args)) => commands::service::start(&args, global, printer),
        Some(GatewayCommand::Stop(args)) => commands::service::stop(&args, global, printer),
        Some(GatewayCommand::Restart(args)) => commands::service::restart(&args, global, printer),
        Some(GatewayCommand::Uninstall(args)) => commands::service::uninstall(&args, global, printer),
        Some(GatewayCommand::Status(args)) => commands::status::status(&args, global, printer),
        Some(GatewayCommand::Probe(args)) => commands::probe::probe(&args, global, printer),
        Some(GatewayCommand::Methods(args)) => commands::methods::methods(&args, global, printer),
        Some(GatewayCommand::Describe(args)) => commands::describe::describe(&args, global, printer),
        Some(GatewayCommand::Logs(args)) => commands::logs::logs(&args, global, printer),
        Some(GatewayCommand::Auth(args)) => match &args.command {
            AuthCommand::Explain(args) => commands::auth::explain(args, global, printer),
        },
        Some(GatewayCommand::Config(args)) => commands::config::config(&args.command, global, printer),
        Some(GatewayCommand::Schema(args)) => commands::schema::schema(&args, global, printer),
        Some(GatewayCommand::Discover(args)) => commands::discover::discover(&args, global, printer),
        Some(GatewayCommand::Dns(args)) => commands::dns::dns(&args, global, printer),
    }
}

/// The tree with the flags of the method that is called, if one is; and that method. A method that this
/// program's contract lacks is looked up at the gateway, but only if something about it must be known.
fn with_method(tree: Command, call: Option<&CallScan>) -> Result<(Command, Option<Method>)> {
    let Some((call, name)) = call.and_then(|call| Some((call, call.method.as_deref()?))) else {
        return Ok((tree, None));
    };
    let tool = tree.find_subcommand("gateway").and_then(|gateway| gateway.find_subcommand("call"));
    let tool = tool.expect("the tree has `gateway call`");
    let (method, document) = if let Some(record) = methods::find(name).filter(|_| !call.help) {
        (Method::of_record(record, tool), None)
    } else if methods::find(name).is_some() {
        let document = openclaw_schema::document::document();
        (Method::of_document(&document, name, tool).expect("the document has every method"), Some(document))
    } else if call.help || call.own_flags || call.known_args.iter().any(|arg| arg == "--expect-final") {
        let document = ask_about(name, &tree, call)?;
        let method = Method::of_document(&document, name, tool);
        (method.ok_or_else(|| unknown_method(name, &document))?, Some(document))
    } else {
        return Ok((tree, None));
    };
    let tree =
        with_call(tree, |tool| match document.as_ref().and_then(|document| method::entry(document, name)) {
            Some(entry) if call.help => method.help(&tool, entry),
            _ => method.add_flags(tool),
        });
    Ok((tree, Some(method)))
}

/// Asks the gateway for its document, because `name` is not in this program's contract.
fn ask_about(name: &str, tree: &Command, call: &CallScan) -> Result<serde_json::Value> {
    let parsed = tree.clone().try_get_matches_from(&call.known_args);
    // What is wrong with the options that are known is reported as it would be anywhere.
    let cli =
        parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| CliError::from(&error))?;
    let global = cli.global;
    let args::Command::Gateway(gateway) = cli.command else { unreachable!("the scan saw `gateway call`") };
    let Some(GatewayCommand::Call(args)) = gateway.command else {
        unreachable!("the scan saw `gateway call`")
    };
    connection::discover(&args.client, &global).map_err(|failure| match failure {
        Failure::Error(error) => {
            let why =
                format!("`{name}` is not in this program's contract, so the gateway was asked about it");
            Failure::Error(Box::new(error.cause(why)))
        }
        output @ Failure::Output(_) => output,
    })
}

fn unknown_method(name: &str, document: &serde_json::Value) -> CliError {
    let mut error = CliError::usage(format!("the gateway has no method `{name}`"));
    error.code = openclaw_schema::ErrorCode::MethodNotFound.name().into();
    if let Some(nearest) = openclaw_schema::problem::nearest(name, method::names(document)) {
        error = error.hint(format!("did you mean `{nearest}`?")).detail("nearest", nearest);
    }
    error.hint("`openclaw gateway methods --live` lists what it serves")
}

/// `tree` with its `gateway call` changed by `change`.
fn with_call(tree: Command, change: impl FnOnce(Command) -> Command) -> Command {
    tree.mut_subcommand("gateway", |gateway| gateway.mut_subcommand("call", change))
}

/// Shows what clap has to say: help and version on stdout, a mistake on stderr or as JSON.
fn show(error: &clap::Error, printer: &Printer) -> Exit {
    let is_mistake = error.use_stderr();
    if is_mistake && printer.is_json() {
        return printer.failure(CliError::from(error).into());
    }
    match error.print() {
        Ok(()) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand || is_mistake => {
            Exit::Usage
        }
        Ok(()) => Exit::Ok,
        Err(error) => printer.failure(Failure::Output(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_option_and_command_has_a_text() {
        fn check(command: &Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no text");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path}: {} has no text", arg.get_id());
            }
            command.get_subcommands().for_each(|command| check(command, &path));
        }
        check(&command(), "");
    }
}
