//! What is read from the command line before clap reads it.
//!
//! Two things cannot be said in clap. Options before a gateway command count as if given after it
//! (`gateway --json health`), so they are moved. And the flags of `gateway call <method>` depend on the
//! method, so it is found first. Both walk over the options that the clap tree knows, and judge nothing: what
//! is wrong, clap says.

use std::ffi::OsString;

use clap::Command;

/// A command line before clap.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The arguments, the program's name included, options moved to where they belong.
    pub(crate) args: Vec<OsString>,
    /// What was said about the output.
    pub(crate) output: OutputFlags,
    /// Present for `gateway call`.
    pub(crate) call: Option<CallScan>,
}

/// The options that say what the output looks like. They hold for errors of the command line too.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OutputFlags {
    /// `--json`.
    pub(crate) json: bool,
    /// `--no-color`.
    pub(crate) no_color: bool,
    /// `--stream`.
    pub(crate) stream: bool,
}

/// What `gateway call` was given.
#[derive(Debug, Default)]
pub(crate) struct CallScan {
    /// The method, if one is there.
    pub(crate) method: Option<String>,
    /// Whether help is asked for.
    pub(crate) help: bool,
    /// Whether there are flags that must be the method's own.
    pub(crate) own_flags: bool,
    /// The command line without what only the method explains: what is needed to reach the gateway.
    pub(crate) known_args: Vec<OsString>,
}

/// One argument, or an option with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// An option of the tree and how many arguments it takes up.
    Option(usize),
    /// `-h`, `--help`.
    Help,
    /// Begins with `-`, but the tree does not know it.
    Unknown,
    /// Anything else.
    Positional,
    /// `--`: only positionals follow.
    End,
}

/// Reads `args`, the program's name first. `is_method` says which names the contract knows; `command` is the
/// tree.
pub(crate) fn scan(args: Vec<OsString>, command: &Command, is_method: impl Fn(&str) -> bool) -> Scan {
    let mut scan = Scan { args, ..Scan::default() };
    let globals: Vec<&Command> = vec![command];
    let Some(gateway_at) = positional(&scan.args, 1, &globals, &mut scan.output) else {
        return scan;
    };
    // Stock has these commands at the root.
    if scan.args[gateway_at] == "config" {
        scan.args.insert(gateway_at, "gateway".into());
    }
    let Some(gateway) =
        (scan.args[gateway_at] == "gateway").then(|| command.find_subcommand("gateway")).flatten()
    else {
        walk(&scan.args, gateway_at + 1, &globals, |token, arg| note(token, arg, &mut scan.output));
        return scan;
    };
    // Before the command, any option of any command may stand.
    let mut any = vec![command, gateway];
    any.extend(gateway.get_subcommands());
    let Some(sub_at) = positional(&scan.args, gateway_at + 1, &any, &mut scan.output) else {
        return scan;
    };
    scan.args[gateway_at + 1..=sub_at].rotate_right(1);
    let sub_at = gateway_at + 1;
    let Some(sub) = scan.args[sub_at].to_str().and_then(|name| gateway.find_subcommand(name)) else {
        return scan;
    };
    // The same for a command of a command, such as `auth explain`.
    if sub.has_subcommands() {
        any.push(sub);
        any.extend(sub.get_subcommands());
        if let Some(leaf_at) = positional(&scan.args, sub_at + 1, &any, &mut scan.output) {
            scan.args[sub_at + 1..=leaf_at].rotate_right(1);
        }
    }
    let known = [command, sub];
    if sub.get_name() != "call" {
        walk(&scan.args, sub_at + 1, &known, |token, arg| note(token, arg, &mut scan.output));
        return scan;
    }
    let mut call = CallScan { known_args: scan.args[..=sub_at].to_vec(), ..CallScan::default() };
    // The method is the first positional. One right after an unknown option may be that option's value: it
    // counts only when the contract knows it, or when there is no other.
    let (mut sure, mut perhaps) = (None::<String>, None::<String>);
    let mut after_unknown = false;
    let mut index = sub_at + 1;
    while index < scan.args.len() {
        let token = classify(&scan.args, index, &known);
        let arg = scan.args[index].to_string_lossy().into_owned();
        note(token, &arg, &mut scan.output);
        let mut taken = 1;
        match token {
            Token::Option(length) => {
                taken = length;
                call.known_args
                    .extend(scan.args[index..(index + length).min(scan.args.len())].iter().cloned());
            }
            Token::Help => call.help = true,
            Token::Unknown => call.own_flags = true,
            Token::Positional if arg.contains('=') => {}
            Token::Positional if after_unknown => {
                perhaps = perhaps.filter(|earlier| is_method(earlier)).or(Some(arg.clone()));
            }
            Token::Positional => sure = sure.or(Some(arg.clone())),
            Token::End => {
                let rest = scan.args[index + 1..].iter().filter_map(|arg| arg.to_str());
                sure = sure.or(rest.into_iter().find(|arg| !arg.contains('=')).map(str::to_owned));
                break;
            }
        }
        after_unknown = token == Token::Unknown && !arg.contains('=');
        index += taken;
    }
    call.method = sure.or(perhaps);
    if let Some(method) = &call.method {
        call.known_args.push(method.into());
    }
    scan.call = Some(call);
    scan
}

/// The index of the first positional from `from` on.
fn positional(args: &[OsString], from: usize, known: &[&Command], output: &mut OutputFlags) -> Option<usize> {
    let mut index = from;
    while index < args.len() {
        let token = classify(args, index, known);
        note(token, &args[index].to_string_lossy(), output);
        index += match token {
            Token::Option(length) => length,
            Token::Help | Token::Unknown => 1,
            Token::Positional => return Some(index),
            Token::End => return None,
        };
    }
    None
}

/// Shows each token from `from` on to `see`.
fn walk(args: &[OsString], from: usize, known: &[&Command], mut see: impl FnMut(Token, &str)) {
    let mut index = from;
    while index < args.len() {
        let token = classify(args, index, known);
        see(token, &args[index].to_string_lossy());
        index += match token {
            Token::Option(length) => length,
            Token::End => return,
            _ => 1,
        };
    }
}

fn note(token: Token, arg: &str, output: &mut OutputFlags) {
    if matches!(token, Token::Option(_) | Token::Unknown) {
        output.json |= arg == "--json";
        output.no_color |= arg == "--no-color";
        output.stream |= arg == "--stream";
    }
}

fn classify(args: &[OsString], index: usize, known: &[&Command]) -> Token {
    let Some(arg) = args[index].to_str() else { return Token::Positional };
    if arg == "--" {
        return Token::End;
    }
    if arg == "-h" || arg == "--help" {
        return Token::Help;
    }
    let Some(long) = arg.strip_prefix("--") else {
        return if arg.len() > 1 && arg.starts_with('-') { Token::Unknown } else { Token::Positional };
    };
    let (name, has_value) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
    let found = known.iter().flat_map(|command| command.get_arguments()).find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    });
    match found {
        Some(arg) if arg.get_action().takes_values() && !has_value => Token::Option(2),
        Some(_) => Token::Option(1),
        None => Token::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(line: &str) -> Scan {
        let args = line.split_whitespace().map(OsString::from).collect();
        scan(args, &crate::command(), |name| openclaw_schema::methods::find(name).is_some())
    }

    fn moved(line: &str) -> String {
        let args: Vec<String> =
            scanned(line).args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        args.join(" ")
    }

    fn method(line: &str) -> Option<String> {
        scanned(line).call.expect("it is a call").method
    }

    #[test]
    fn options_before_the_command_move_behind_it() {
        assert_eq!(moved("openclaw gateway --json health"), "openclaw gateway health --json");
        assert_eq!(
            moved("openclaw --dev gateway --token X --port 1 call status --json"),
            "openclaw --dev gateway call --token X --port 1 status --json"
        );
        assert_eq!(moved("openclaw gateway --port=1 health"), "openclaw gateway health --port=1");
        assert_eq!(moved("openclaw gateway --help call"), "openclaw gateway call --help");
    }

    #[test]
    fn a_bare_gateway_is_left_alone() {
        assert_eq!(moved("openclaw gateway --port 1 --dev"), "openclaw gateway --port 1 --dev");
        assert_eq!(moved("openclaw completion bash"), "openclaw completion bash");
        assert_eq!(moved("openclaw"), "openclaw");
    }

    #[test]
    fn the_method_is_found_among_known_and_unknown_options() {
        for line in [
            "openclaw gateway call logs.tail --since-ms 60000",
            "openclaw gateway call --since-ms 60000 logs.tail",
            "openclaw gateway call --params {} logs.tail",
            "openclaw gateway call --json --timeout 5 logs.tail limit=3",
            "openclaw gateway call limit=3 logs.tail",
            "openclaw gateway call --probe logs.tail",
            "openclaw gateway call --json -- logs.tail",
            "openclaw gateway --token health call logs.tail",
        ] {
            assert_eq!(method(line).as_deref(), Some("logs.tail"), "{line}");
        }
        assert_eq!(method("openclaw gateway call --json"), None);
        assert_eq!(method("openclaw gateway call --message health agent").as_deref(), Some("agent"));
    }

    #[test]
    fn what_reaches_the_gateway_is_kept_apart_from_what_the_method_explains() {
        let scan =
            scanned("openclaw --profile p gateway --token T call --colour red paint.mix --port 9 --help");
        let call = scan.call.expect("it is a call");
        assert_eq!(
            call.known_args,
            ["openclaw", "--profile", "p", "gateway", "call", "--token", "T", "--port", "9", "paint.mix"]
        );
        assert!(call.own_flags && call.help);
    }

    #[test]
    fn json_counts_as_an_option_and_not_as_a_value() {
        assert!(scanned("openclaw gateway call x --json").output.json);
        assert!(scanned("openclaw gateway --json call").output.json);
        assert!(!scanned("openclaw gateway call x --params --json").output.json);
        assert!(!scanned("openclaw gateway call x -- --json").output.json);
        assert!(scanned("openclaw gateway methods --json --no-color").output.no_color);
    }
}
