//! What can be typed: clap types only. What follows from it is decided in `settings` and `commands`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _},
};
use clap_complete::ArgValueCandidates;
use openclaw_gateway::config::LogLevel;

use crate::{commands::completion, exit::Exit};

/// Text shown after the help of `openclaw`.
const ROOT_EXAMPLES: &str = "\
Examples:
  openclaw gateway --dev                      start a gateway to try things with
  openclaw --dev gateway health               ask it how it is doing
  openclaw --dev gateway call agent --message hello --expect-final
  openclaw gateway methods                    list what a gateway can do
  openclaw gateway describe logs.tail         read about one method";

/// Text shown after the help of `openclaw gateway` and `openclaw gateway run`.
const RUN_EXAMPLES: &str = "\
Examples:
  openclaw gateway --dev                      profile `dev`: made when missing, loopback, port 19001
  openclaw gateway --allow-unconfigured --port 18999 --token secret
  openclaw gateway run --bind lan --auth password --password-file /run/secrets/openclaw
  openclaw gateway run --tailscale serve";

/// Text shown after the help of `openclaw gateway call`.
const CALL_EXAMPLES: &str = "\
Params are given in three ways; where two give the same field, the later in this list wins:
  --params '{\"sinceMs\": 60000}'   a JSON object; `@FILE` reads a file, `@-` reads standard input
  sinceMs=60000                   one field; `name:=JSON` takes any JSON
  --since-ms 60000                the method's own flags: `openclaw gateway call logs.tail --help`

Examples:
  openclaw gateway call status
  openclaw gateway call logs.tail --params '{\"sinceMs\": 60000}'
  openclaw gateway call logs.tail --since-ms 60000 --json
  openclaw gateway call agent message=hello --expect-final
  openclaw gateway call agent message=hello --stream | jq -rj '.payload.data.delta // empty'
  openclaw gateway call health --url ws://127.0.0.1:18999 --token secret";

const HEALTH_EXAMPLES: &str = "\
Examples:
  openclaw gateway health
  openclaw gateway health --url ws://127.0.0.1:18789 --token-file token.txt
  openclaw gateway health --json --timeout 2000";

const STATUS_EXAMPLES: &str = "\
Examples:
  openclaw gateway status
  openclaw gateway status --require-rpc --json      for scripts: fails unless the gateway works
  openclaw gateway status --no-probe                the service alone";

const PROBE_EXAMPLES: &str = "\
Examples:
  openclaw gateway probe
  openclaw gateway probe --json --timeout 1000
  openclaw gateway probe --ssh ada@studio --token-file token.txt   one that listens on its own loopback alone
  openclaw gateway probe --require-rpc                             fails unless all works";

const METHODS_EXAMPLES: &str = "\
Examples:
  openclaw gateway methods
  openclaw gateway methods --json
  openclaw gateway methods --live             also those that a program added to its gateway";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  openclaw gateway describe logs.tail
  openclaw gateway describe LogsTailResult
  openclaw gateway describe health --kind event";

const SCHEMA_EXAMPLES: &str = "\
Examples:
  openclaw gateway schema > openrpc.json
  openclaw gateway schema --live --url ws://127.0.0.1:18789 --token secret";

const USAGE_COST_EXAMPLES: &str = "\
Examples:
  openclaw gateway usage-cost
  openclaw gateway usage-cost --days 7 --agent work
  openclaw gateway usage-cost --days 1 --json | jq .totals.totalCost";
const LOGS_EXAMPLES: &str = "\
Examples:
  openclaw gateway logs --follow
  openclaw gateway logs --since 10m --level warn
  openclaw gateway logs --follow --json | jq -r .message";

const AUTH_EXAMPLES: &str = "\
Examples:
  openclaw gateway auth explain
  openclaw --dev gateway auth explain --json";

const CONFIG_EXAMPLES: &str = "\
Examples:
  openclaw gateway config get gateway.port
  openclaw gateway config explain gateway.auth
  openclaw gateway config validate --json
  openclaw gateway config schema > openclaw.schema.json

`openclaw config` is short for `openclaw gateway config`.";
const CONFIG_SET_EXAMPLES: &str = "\
Examples:
  openclaw gateway config set gateway.port 19001
  openclaw gateway config set logging.level debug --dry-run
  openclaw gateway config set 'agents.entries[\"a.b\"].model' openai/gpt-6-astra
  openssl rand -hex 24 | openclaw gateway config set gateway.auth.token --stdin --string";

const CONFIG_UNSET_EXAMPLES: &str = "\
Examples:
  openclaw gateway config unset gateway.auth.password
  openclaw gateway config unset 'gateway.trustedProxies[0]'";

const INSTALL_EXAMPLES: &str = "\
Examples:
  openclaw gateway install --dry-run          show what would be written and run
  openclaw gateway install && openclaw gateway start
  openclaw gateway install --token-file token.txt --env OPENAI_API_KEY=KEY
  sudo openclaw gateway install --system      start with the machine, run as the account that called sudo
  openclaw --profile work gateway install --port 18790";

const SERVICE_EXAMPLES: &str = "\
`cli/SERVICE.md` is the page on operating the service.";

const DISCOVER_EXAMPLES: &str = "\
Examples:
  openclaw gateway discover
  openclaw gateway discover --timeout 5000 --domain openclaw.internal
  openclaw gateway discover --json | jq -r '.beacons[].wsUrl'";

const DNS_EXAMPLES: &str = "\
Examples:
  openclaw gateway dns                        everything, with what to do
  openclaw gateway dns --domain openclaw.internal --address 100.64.0.5
  openclaw gateway dns --format dnsmasq > /etc/dnsmasq.d/openclaw.conf
  openclaw gateway dns --write                the zone file, in the state directory";

const COMPLETION_EXAMPLES: &str = "\
Set-up:
  bash        echo 'source <(openclaw completion bash)' >> ~/.bashrc
  zsh         echo 'source <(openclaw completion zsh)' >> ~/.zshrc
  fish        openclaw completion fish > ~/.config/fish/completions/openclaw.fish
  elvish      echo 'eval (openclaw completion elvish | slurp)' >> ~/.elvish/rc.elv
  powershell  openclaw completion powershell | Out-String | Invoke-Expression";

/// The exit codes, for the help of the commands that ask a gateway.
pub(crate) fn exit_codes() -> String {
    let rows = Exit::ALL.iter().map(|exit| format!("  {:<5}{}", exit.code(), exit.meaning()));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}

/// Runs an OpenClaw Gateway, and asks one.
#[derive(Debug, Parser)]
#[command(
    name = "openclaw",
    display_name = "OpenClaw",
    bin_name = "openclaw",
    version,
    args_override_self = true,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = format!("{ROOT_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Use the profile `dev`: state in `~/.openclaw-dev`, port 19001. `gateway run` makes its configuration,
    /// token and workspace when they are missing. `--profile` names another profile than `dev`.
    #[arg(long, global = true)]
    pub(crate) dev: bool,

    /// Use a profile: state in `~/.openclaw-NAME`, and a port of its own. Letters, digits, `_` and `-`.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// Log no less severe than this, to the file and the console of `gateway run`. By default
    /// `OPENCLAW_LOG_LEVEL`, then `logging` of the configuration, then `info`.
    #[arg(long, global = true, value_name = "LEVEL", value_parser = PossibleValuesParser::new(LogLevel::NAMES).map(|name| log_level(&name)))]
    pub(crate) log_level: Option<LogLevel>,

    /// Write no colour. Setting `NO_COLOR` does the same.
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

fn log_level(name: &str) -> LogLevel {
    name.parse().expect("clap allows only the names of levels")
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Gateway(Box<GatewayArgs>),
    Completion(CompletionArgs),
}

/// Run a gateway in the foreground, or ask one.
///
/// Without a command, this is `openclaw gateway run`. Options of a command may also stand before it.
#[derive(Debug, Args)]
#[command(args_override_self = true, disable_help_subcommand = true, subcommand_help_heading = "Commands", after_help = RUN_EXAMPLES)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    #[command(subcommand)]
    pub(crate) command: Option<GatewayCommand>,
}

/// What to do with a gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    Run(RunCommand),
    Call(CallArgs),
    Health(HealthArgs),
    UsageCost(UsageCostArgs),
    Install(InstallArgs),
    Start(StartArgs),
    Stop(StopArgs),
    Restart(RestartArgs),
    Uninstall(UninstallArgs),
    Status(StatusArgs),
    Probe(ProbeArgs),
    Methods(MethodsArgs),
    Describe(DescribeArgs),
    Schema(SchemaArgs),
    Logs(LogsArgs),
    Auth(AuthArgs),
    Config(ConfigArgs),
    Discover(DiscoverArgs),
    Dns(DnsArgs),
}

/// Run a gateway in the foreground.
///
/// It stops at Ctrl-C or SIGTERM, after the calls in flight; a second signal ends it at once. SIGUSR1 restarts it
/// within its process, with the configuration read again, unless `commands.restart` is false. When the configuration
/// file changes, and at SIGHUP, it takes over what needs no restart. It refuses to start unless the configuration says `gateway.mode: "local"`, and it never listens
/// beyond loopback without a secret.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = RUN_EXAMPLES)]
pub(crate) struct RunCommand {
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// Who may call a gateway, and from where: what `gateway run` and `gateway auth explain` take alike.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AccessArgs {
    /// Where to listen. By default `gateway.bind` of the configuration, then `loopback`.
    #[arg(long, value_name = "WHERE")]
    pub(crate) bind: Option<BindArg>,

    /// What callers must present. By default `gateway.auth.mode` of the configuration, then what is there.
    #[arg(long, value_name = "MODE")]
    pub(crate) auth: Option<AuthArg>,

    /// The token that callers must present. Others on this machine can read it in the list of processes:
    /// `--token-file` and `OPENCLAW_GATEWAY_TOKEN` are safer.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) token: Option<String>,

    /// Read that token from a file. Line ends at its end are left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The password that callers must present. Others on this machine can read it in the list of processes:
    /// `--password-file` and `OPENCLAW_GATEWAY_PASSWORD` are safer.
    #[arg(long, value_name = "PASSWORD", conflicts_with = "password_file", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) password: Option<String>,

    /// Read that password from a file. Line ends at its end are left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Options of `gateway run`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArgs {
    /// Listen on this port; 0 takes a free one. By default `OPENCLAW_GATEWAY_PORT`, then `gateway.port` of the
    /// configuration, then the port of the profile (18789; 19001 for `dev`).
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    /// Make the gateway known at this machine's name in its tailnet, through the system's tailscale: to the tailnet, or
    /// to everybody. By default `gateway.tailscale.mode` of the configuration, then `off`.
    #[arg(long, value_name = "MODE")]
    pub(crate) tailscale: Option<TailscaleArg>,

    /// When the gateway ends, let tailscale forget all that it serves, what others asked of it included. By default
    /// `gateway.tailscale.resetOnExit` of the configuration; without it, what the gateway asked for ends with it alone.
    #[arg(long)]
    pub(crate) tailscale_reset_on_exit: bool,

    /// Start although the configuration is missing or does not say `gateway.mode: "local"`. Nothing is written.
    #[arg(long)]
    pub(crate) allow_unconfigured: bool,

    /// With `--dev`: move configuration, credentials, sessions and workspace of the profile `dev` to a dated
    /// backup folder, and begin anew. Asks first on a terminal.
    #[arg(long)]
    pub(crate) reset: bool,

    /// Answer yes to the question that `--reset` asks.
    #[arg(long, requires = "reset")]
    pub(crate) yes: bool,

    /// Stop what listens on the port first, and the gateway that holds the state directory: SIGTERM, then SIGKILL.
    /// Processes of other users are left alone, and the start is refused.
    #[arg(long)]
    pub(crate) force: bool,

    /// Show debug lines on the console. The log file keeps its level.
    #[arg(long)]
    pub(crate) verbose: bool,

    /// Which calls the console shows, of every protocol: the slow and the failed ones; each in one line; or requests
    /// with their params, answers, events and connections.
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub(crate) ws_log: WsLogArg,

    /// Short for `--ws-log compact`.
    #[arg(long, conflicts_with = "ws_log")]
    pub(crate) compact: bool,

    /// Write every raw model event to a file, one JSON line each, keys masked.
    #[arg(long)]
    pub(crate) raw_stream: bool,

    /// Which file that is. By default `OPENCLAW_RAW_STREAM_PATH`, then `gateway/logs/raw-stream.jsonl` in the state
    /// directory. Nothing is written without `--raw-stream`.
    #[arg(long, value_name = "FILE")]
    pub(crate) raw_stream_path: Option<PathBuf>,

    /// Show what command-line back ends such as `claude` write, stdout and stderr, on the console, and of the
    /// gateway's log errors alone.
    #[arg(long, alias = "cli-backend-logs")]
    pub(crate) claude_cli_logs: bool,

    /// The service manager that runs the gateway, where it starts it again after every exit code but 0: a faulty
    /// configuration then ends with 0, and nothing but errors before the log begins goes to the console.
    #[arg(long, value_name = "MANAGER", hide = true)]
    pub(crate) supervised_by: Option<SupervisorArg>,
}

/// Which calls the console shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WsLogArg {
    /// Calls that failed, and calls that took 50 ms or more.
    #[default]
    Auto,
    /// Requests with their params, answers, events, and the beginning and end of connections.
    Full,
    /// One line for every call.
    Compact,
}

/// A service manager that does not tell exit codes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SupervisorArg {
    /// launchd of macOS.
    Launchd,
    /// The task scheduler of Windows.
    Schtasks,
}

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BindArg {
    /// This machine only: 127.0.0.1 and ::1.
    Loopback,
    /// Every address of this machine.
    Lan,
    /// The address in the tailnet.
    Tailnet,
    /// Loopback; in a container, every address.
    Auto,
    /// The address `gateway.customBindHost` of the configuration.
    Custom,
}

/// Whom tailscale lets reach a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TailscaleArg {
    /// Nobody.
    Off,
    /// The machines of the tailnet; needs a token or a password.
    Serve,
    /// Everybody on the internet; needs a password.
    Funnel,
}

/// What callers of a gateway must present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthArg {
    /// Nothing; on loopback only.
    None,
    /// The token.
    Token,
    /// The password.
    Password,
}

/// Options of every command that asks a gateway.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Gateway options")]
pub(crate) struct ClientArgs {
    /// The address of the gateway: `ws://`, `wss://`, `http://` or `https://`. No configured credential is
    /// sent there: give one.
    #[arg(long, value_name = "URL", conflicts_with = "port")]
    pub(crate) url: Option<String>,

    /// The port of a gateway on this machine.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// The gateway's token. Others on this machine can read it in the list of processes: `--token-file` and
    /// `OPENCLAW_GATEWAY_TOKEN` are safer.
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["token_file", "password"])]
    pub(crate) token: Option<String>,

    /// Read the token from a file. Line ends at its end are left out.
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub(crate) token_file: Option<PathBuf>,

    /// The gateway's password; see `--token`.
    #[arg(long, value_name = "PASSWORD")]
    pub(crate) password: Option<String>,

    /// Trust the gateway whose TLS certificate, or public key, has this SHA-256 digest, and no other. The gateway
    /// writes both to its log when it starts.
    #[arg(long, value_name = "SHA256")]
    pub(crate) tls_fingerprint: Option<String>,

    /// Speak plain `ws` or `http` to a gateway on another host too: everyone on the way can read the credential.
    /// `OPENCLAW_ALLOW_INSECURE_PRIVATE_WS=1` does the same.
    #[arg(long)]
    pub(crate) allow_plaintext: bool,

    /// How long the whole command may take, in milliseconds; 0 sets no bound. 10000 by default, 3000 for
    /// `probe`; by default there is no bound once a call is sent that waits by design (`agent.wait`, `--expect-final`).
    #[arg(long, value_name = "MS")]
    pub(crate) timeout: Option<u64>,

    /// Wait for the outcome of a method that answers in two phases, such as `agent`. No effect on others.
    #[arg(long)]
    pub(crate) expect_final: bool,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Call one method.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = format!("{CALL_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct CallArgs {
    /// The method; `openclaw gateway methods` lists them.
    #[arg(value_name = "METHOD", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::methods))]
    pub(crate) method: String,

    /// Fields of the params: text, or what the field's type makes of it; `name:=JSON` for any JSON.
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) pairs: Vec<String>,

    /// The params as a JSON object; `@FILE` reads a file, `@-` reads standard input.
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) params: Option<String>,

    /// Wait for the outcome of a method that answers in two phases, such as `agent`, and write each event on the
    /// way as one line of JSON: `ack`, `event`, `gap` and `final` in `type`. An error is the last line.
    #[arg(long)]
    pub(crate) stream: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Ask a gateway how it is doing.
///
/// Measures the round trip of one call. Exit code 7 when the gateway answers that it is not well.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = format!("{HEALTH_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Show what the runs of the last days consumed, and what that cost.
///
/// Days are those of UTC, today included. Answers of models whose price nobody told are counted, and named; runs that
/// failed or were ended before their answer was whole are not in it.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = format!("{USAGE_COST_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct UsageCostArgs {
    /// How many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3660))]
    pub(crate) days: u64,

    /// The runs of this agent alone.
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) agent: Option<String>,

    /// The runs of all agents: what this gateway answers by default; a stock gateway must be asked.
    #[arg(long, conflicts_with = "agent")]
    pub(crate) all_agents: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Options of every command that concerns the service.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ServiceArgs {
    /// The service of the machine, not that of the account. Without it, the one that is installed.
    #[arg(long)]
    pub(crate) system: bool,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of the commands that wait for the gateway.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// How long to wait for the effect, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    pub(crate) timeout: u64,
}

/// Make the gateway a service of this machine.
///
/// It starts at login, or with the machine, and again after a crash, but not over a faulty configuration. It is not
/// started now: `openclaw gateway start` does. What is there already and would change is shown, and replaced only
/// with `--force`.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = INSTALL_EXAMPLES)]
pub(crate) struct InstallArgs {
    /// Listen on this port. By default `OPENCLAW_GATEWAY_PORT`, then what the configuration says at each start.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// The token that callers must present. It is kept in a file that only you can read, not in the service's
    /// definition. Others on this machine can read it in the list of processes now: `--token-file` is safer.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) token: Option<String>,

    /// Read that token from a file. Line ends at its end are left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Accepted for scripts written for stock OpenClaw. There is one runtime: this program.
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<String>,

    /// Set a variable for the service. One whose name looks like a secret is kept in a file that only you can read.
    /// May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,

    /// Replace a service that differs, also one of another installation. `uninstall` puts that one's file back.
    #[arg(long)]
    pub(crate) force: bool,

    /// Show every file and every command, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

/// Start the service.
///
/// Waits until the gateway is ready. One that runs already is left alone.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = SERVICE_EXAMPLES)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Stop the service.
///
/// Waits until the gateway has stopped. A gateway in the state directory that no service runs is stopped too. The
/// service starts again at the next login or boot.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = SERVICE_EXAMPLES)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,

    /// Accepted for scripts written for stock OpenClaw. This program never asks.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Restart the service.
///
/// Waits until a new instance is ready. A gateway that no service runs is asked to restart in its process.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = SERVICE_EXAMPLES)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Remove the service.
///
/// It is stopped first. What `install` wrote is removed, what it replaced is put back; sessions, logs and other
/// state of the gateway stay.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = SERVICE_EXAMPLES)]
pub(crate) struct UninstallArgs {
    /// Remove a service of another installation too.
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Show the gateway of this machine: its service, whether it answers, and what to do next.
///
/// Without `--require-rpc` the exit code is 0 whatever it finds. `--timeout` bounds the look at the gateway; asking the
/// service manager may take longer. Nothing is changed, and nothing is left behind.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = format!("{STATUS_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct StatusArgs {
    /// Show the service alone; do not call the gateway.
    #[arg(long, conflicts_with = "require_rpc")]
    pub(crate) no_probe: bool,

    /// Look for services of other profiles too, and show what looks odd in the configuration.
    #[arg(long)]
    pub(crate) deep: bool,

    /// Call what needs the scope `operator.read` too, and fail unless all works: with 3 when no gateway answers, with 4
    /// when it refuses the credential, with 7 when it is not well.
    #[arg(long)]
    pub(crate) require_rpc: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Look at every gateway that may be meant, and say what works, with which rights, and what to do about the rest.
///
/// Those are: `--url`, a tunnel of ssh, the configured remote gateway, and the one on this machine. They are looked at
/// at once, within 3000 ms unless `--timeout` says otherwise; gateways that announce themselves are listed beside them.
/// `--token` and `--password` are presented to all of them.
/// Nothing is left behind: no device is made or paired.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = format!("{PROBE_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct ProbeArgs {
    /// Reach a gateway that listens on its own loopback alone, through the system's ssh: `user@host[:port]`. By default
    /// `gateway.remote.sshTarget` of the configuration.
    #[arg(long, value_name = "TARGET", allow_hyphen_values = true)]
    pub(crate) ssh: Option<String>,

    /// The file with the private key for it. By default `gateway.remote.sshIdentity`, then what ssh finds by itself.
    #[arg(long, value_name = "FILE")]
    pub(crate) ssh_identity: Option<PathBuf>,

    /// The same, to the host of the first gateway that announces itself.
    #[arg(long, conflicts_with = "ssh")]
    pub(crate) ssh_auto: bool,

    /// Fail with exit code 7 when a gateway answers, but says that it is not well or does not answer every call.
    #[arg(long)]
    pub(crate) require_rpc: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// List the methods.
///
/// Without `--live` no gateway is asked: the list is that of this program's own contract.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = METHODS_EXAMPLES)]
pub(crate) struct MethodsArgs {
    /// Ask the gateway what it serves.
    #[arg(long)]
    pub(crate) live: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Describe a method, a type or an event.
///
/// Without `--live` no gateway is asked: the description is that of this program's own contract.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = DESCRIBE_EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// The method, type or event.
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::names))]
    pub(crate) name: String,

    /// What the name is, where a method and an event share it.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<KindArg>,

    /// Ask the gateway, and describe what it serves.
    #[arg(long)]
    pub(crate) live: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// Something that can be called.
    Method,
    /// Something that the gateway sends.
    Event,
    /// The shape of a value.
    Type,
}

/// Write the contract as an OpenRPC document.
///
/// Without `--live` no gateway is asked: the document is that of this program's own contract.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = SCHEMA_EXAMPLES)]
pub(crate) struct SchemaArgs {
    /// Ask the gateway what it serves.
    #[arg(long)]
    pub(crate) live: bool,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Read the log of a gateway.
///
/// Shows the last lines, and with `--follow` each new one, over restarts of the gateway too. With `--json` every line
/// is one JSON object, as the gateway wrote it.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = format!("{LOGS_EXAMPLES}\n\n{}", exit_codes())
)]
pub(crate) struct LogsArgs {
    /// Go on with each new line, until Ctrl-C. When the gateway goes away, wait until it is back.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Only lines that are no older than this: a number with `ms`, `s`, `m`, `h` or `d`, such as `10m`.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) since: Option<Duration>,

    /// Only lines that are no less severe than this.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<SeverityArg>,

    /// Show at most this many lines, the last ones; 200 by default. With `--follow`, those before the new ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=5000))]
    pub(crate) limit: Option<u64>,

    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How severe a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum SeverityArg {
    /// Every step.
    Trace,
    /// How it happened.
    Debug,
    /// What happened.
    Info,
    /// What may fail.
    Warn,
    /// What failed.
    Error,
}

/// An age as people write it.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with `ms`, `s`, `m`, `h` or `d`, such as `10m`".to_owned();
    let unit_at = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    milliseconds.filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(wrong)
}

/// Options of every edit of the configuration file.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigEditArgs {
    /// Check and tell, but write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Should the file be written so that it cannot be edited in place, write all of it anew as plain JSON: without its
    /// comments.
    #[arg(long)]
    pub(crate) rewrite: bool,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Explain what callers of a gateway must present.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct AuthArgs {
    #[command(subcommand)]
    pub(crate) command: AuthCommand,
}

/// What to do about authentication.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    Explain(AuthExplainArgs),
}

/// Say where each credential of a gateway started here comes from, and which one counts.
///
/// No gateway is asked, nothing is started or changed, and no secret is shown: of long tokens the beginning of their
/// SHA-256, of passwords only that there is one. Exit code 78 when the start would be refused.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = AUTH_EXAMPLES)]
pub(crate) struct AuthExplainArgs {
    #[command(flatten)]
    pub(crate) access: AccessArgs,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Read and change the configuration, check it, and ask why it is as it is.
///
/// No gateway is asked or needed. Secrets are never shown.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = CONFIG_EXAMPLES
)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    Get(ConfigGetArgs),
    Set(ConfigSetArgs),
    Unset(ConfigUnsetArgs),
    Explain(ConfigExplainArgs),
    Validate(ConfigValidateArgs),
    Schema(ConfigSchemaArgs),
}

/// Put a value into the configuration file.
///
/// Comments and formatting of the rest stay. What the file would be is checked first as at a start: what would be
/// refused there is refused here, and nothing is written. The old content is kept as `openclaw.json.bak`. No gateway is
/// asked; one that runs takes the change over by itself.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = CONFIG_SET_EXAMPLES)]
pub(crate) struct ConfigSetArgs {
    /// Where: `gateway.auth.mode`, `list[0]`, `entries["a.b"]`. The place after the last one of a list adds to it.
    #[arg(value_name = "PATH")]
    pub(crate) path: String,

    /// What: JSON5, or else a text as it stands. Others on this machine can read it in the list of processes: for a
    /// secret, `--stdin` and `--value-file` are safer.
    #[arg(value_name = "VALUE", allow_hyphen_values = true, required_unless_present_any = ["stdin", "value_file"], conflicts_with_all = ["stdin", "value_file"])]
    pub(crate) value: Option<String>,

    /// Read the value from standard input. Line ends at its end are left out.
    #[arg(long, conflicts_with = "value_file")]
    pub(crate) stdin: bool,

    /// Read the value from a file. Line ends at its end are left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) value_file: Option<PathBuf>,

    /// Take the value as a text, whatever it looks like: `12` then is no number.
    #[arg(long, conflicts_with = "strict_json")]
    pub(crate) string: bool,

    /// Take the value as JSON, and refuse what is none.
    #[arg(long)]
    pub(crate) strict_json: bool,

    #[command(flatten)]
    pub(crate) edit: ConfigEditArgs,
}

/// Take a value out of the configuration file.
///
/// As `config set`. Exit code 1 when nothing is there.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = CONFIG_UNSET_EXAMPLES)]
pub(crate) struct ConfigUnsetArgs {
    /// Which: `gateway.auth.mode`, `list[0]`, `entries["a.b"]`.
    #[arg(value_name = "PATH")]
    pub(crate) path: String,

    #[command(flatten)]
    pub(crate) edit: ConfigEditArgs,
}

/// Show what the configuration file says: one value, a section, or all of it.
///
/// Files that it includes are put in; defaults and the environment are not, `explain` tells them. A text or a number is
/// written bare, anything else as JSON. Exit code 1 when the key is not set, 2 when nobody knows it.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = CONFIG_EXAMPLES)]
pub(crate) struct ConfigGetArgs {
    /// The key: `gateway.port`, `models.providers.local.models[0]`, `agents.defaults.models["local/m.1"]`.
    #[arg(value_name = "PATH", add = ArgValueCandidates::new(completion::config_keys))]
    pub(crate) path: Option<String>,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Say of each key what it is, who said so, what else was given and does not count, and when a change applies.
///
/// Flags come before the environment, that before the file; for token and password the file comes before the
/// environment. The flags below are those of a `gateway run` that is imagined.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = CONFIG_EXAMPLES)]
pub(crate) struct ConfigExplainArgs {
    /// A key, or a section. By default every key that is read.
    #[arg(value_name = "PATH", add = ArgValueCandidates::new(completion::config_keys))]
    pub(crate) path: Option<String>,

    /// As for `gateway run`.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// As for `gateway run`.
    #[arg(long, value_name = "WHERE")]
    pub(crate) bind: Option<BindArg>,

    /// As for `gateway run`.
    #[arg(long, value_name = "MODE")]
    pub(crate) auth: Option<AuthArg>,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check the configuration: every fault with its file and line, and what would refuse a start.
///
/// Exit code 78 when something is wrong.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = CONFIG_EXAMPLES)]
pub(crate) struct ConfigValidateArgs {
    /// Check this file as if it were the configuration.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Write the JSON Schema of the configuration file, for editors and programs.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = CONFIG_EXAMPLES)]
pub(crate) struct ConfigSchemaArgs {
    /// The schema is JSON with and without it; of errors it makes JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Look for gateways on the networks of this machine, and in wide-area domains.
///
/// Asks with multicast DNS, and name servers about the wide-area domains. What is found is not trusted: the address
/// comes from DNS, names and fingerprints are hints. Finding none is no error.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = DISCOVER_EXAMPLES)]
pub(crate) struct DiscoverArgs {
    /// How long to look at most, in milliseconds. It ends sooner when nothing more is to be expected.
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,

    /// Look in this wide-area domain, such as `openclaw.internal`; may be repeated. By default
    /// `discovery.wideArea.domain` of the configuration and `OPENCLAW_WIDE_AREA_DOMAIN`.
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Vec<String>,

    /// Ask this name server about wide-area domains: an IP address, with or without a port. By default
    /// `discovery.wideArea.dnsServer` of the configuration, then the system's.
    #[arg(long, value_name = "ADDRESS", value_parser = name_server)]
    pub(crate) dns_server: Option<SocketAddr>,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    openclaw_gateway::config::name_server(text)
        .ok_or_else(|| "it must be an IP address, with or without a port".to_owned())
}

/// Make the DNS records by which a gateway on this machine is found in a wide-area domain.
///
/// Nothing is installed or changed: the records are shown as a zone file, as a block for CoreDNS and as lines for
/// dnsmasq. `--write` keeps the zone file in the state directory; its serial number grows when something changed.
#[derive(Debug, Args)]
#[command(args_override_self = true, after_help = DNS_EXAMPLES)]
pub(crate) struct DnsArgs {
    /// The wide-area domain, such as `openclaw.internal`. By default `discovery.wideArea.domain` of the
    /// configuration, then `OPENCLAW_WIDE_AREA_DOMAIN`.
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,

    /// An address where others reach this machine; may be repeated. By default that in the tailnet.
    #[arg(long, value_name = "IP")]
    pub(crate) address: Vec<IpAddr>,

    /// The gateway's port. By default that of the gateway that runs, then as for `gateway run`.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// Show this alone, ready for a file.
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["write", "json"])]
    pub(crate) format: Option<DnsFormat>,

    /// Write the zone file.
    #[arg(long)]
    pub(crate) write: bool,

    /// Where the zone file is, or is to be. By default `dns/DOMAIN.db` in the state directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) zone_file: Option<PathBuf>,

    /// Write exactly one JSON document to standard output and nothing else, errors included.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a name server reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DnsFormat {
    /// A zone file: CoreDNS, BIND, NSD, Knot.
    Zone,
    /// A server block for a Corefile.
    Coredns,
    /// Lines for dnsmasq, which reads no zone files.
    Dnsmasq,
}

/// Write the script that makes a shell complete `openclaw`.
///
/// It completes commands, options, method names after `call` and `describe`, and the flags of the method.
#[derive(Debug, Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(crate) struct CompletionArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_parser = completion::shells())]
    pub(crate) shell: String,
}
