//! `cli/REFERENCE.md`: the command line, walked from its `clap` tree.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::{
    markdown::{cell, code, header, table},
    output::{Files, RelativePath},
};

/// The page of `command`.
#[must_use]
pub fn emit(command: &Command) -> Files {
    Files::from([(RelativePath::new("cli/REFERENCE.md"), reference(command))])
}

/// The reference of a command and all below it: usage, arguments, options, defaults and environment.
///
/// Hidden commands and options are left out; options that hold everywhere are told once, at the top.
#[must_use]
pub fn reference(command: &Command) -> String {
    let mut command = command.clone();
    // Gives each command its full name for the usage line.
    command.build();
    let mut page = header("the arguments in `cli/src/`");
    let _ = write!(page, "# Command line reference\n\n");
    overview(&mut page, &command, &mut Vec::new());
    page.push('\n');
    walk(&mut page, &command, &mut Vec::new());
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

/// The list of commands, nested as they are.
fn overview(page: &mut String, command: &Command, path: &mut Vec<String>) {
    let depth = path.len();
    path.push(command.get_name().to_owned());
    let name = path.join(" ");
    let about =
        command.get_about().map(|about| format!(": {}", cell(&about.to_string()))).unwrap_or_default();
    let _ = writeln!(page, "{}- [`{name}`](#{}){about}", "  ".repeat(depth), anchor(&name));
    for child in children(command) {
        overview(page, child, path);
    }
    path.pop();
}

fn walk(page: &mut String, command: &Command, path: &mut Vec<String>) {
    let is_root = path.is_empty();
    path.push(command.get_name().to_owned());
    let name = path.join(" ");
    let _ = write!(page, "<a id=\"{}\"></a>\n\n## `{name}`\n\n", anchor(&name));
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        let _ = write!(page, "{}\n\n", about.to_string().trim());
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(page, "```sh\n{}\n```\n\n", usage.trim_start_matches("Usage:").trim());
    let aliases: Vec<String> = command.get_visible_aliases().map(code).collect();
    if !aliases.is_empty() {
        let _ = write!(page, "Also: {}\n\n", aliases.join(", "));
    }

    let shown = |arg: &&Arg| !arg.is_hide_set() && (is_root || !arg.is_global_set()) && !is_builtin(arg);
    let (positionals, options): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(shown).partition(|arg| arg.is_positional());
    let rows: Vec<Vec<String>> = positionals.iter().map(|arg| vec![spelling(arg), meaning(arg)]).collect();
    page.push_str(&table(&["Argument", "Meaning"], &rows));
    let rows: Vec<Vec<String>> = options.iter().map(|arg| vec![spelling(arg), meaning(arg)]).collect();
    page.push_str(&table(&["Option", "Meaning"], &rows));
    if is_root && options.iter().any(|arg| arg.is_global_set()) {
        let global: Vec<String> = options
            .iter()
            .filter(|arg| arg.is_global_set())
            .filter_map(|arg| arg.get_long())
            .map(|long| code(&format!("--{long}")))
            .collect();
        let _ = write!(page, "Every command also takes {}.\n\n", global.join(", "));
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        let _ = write!(page, "```text\n{}\n```\n\n", after.to_string().trim());
    }
    for child in children(command) {
        walk(page, child, path);
    }
    path.pop();
}

fn children(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help")
}

/// `--help` and `--version` are everywhere and say nothing.
fn is_builtin(arg: &Arg) -> bool {
    matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

/// As it is typed: `-p`, `--port <PORT>`, `<METHOD>`, `[PARAMS]...`.
fn spelling(arg: &Arg) -> String {
    let repeats =
        if matches!(arg.get_action(), ArgAction::Append) && arg.is_positional() { "..." } else { "" };
    let value: Vec<String> = match arg.get_value_names() {
        Some(names) => names.iter().map(|name| format!("<{name}>")).collect(),
        None => vec![format!("<{}>", arg.get_id().as_str().to_uppercase())],
    };
    let value = value.join(" ");
    if arg.is_positional() {
        let value = if arg.is_required_set() { value } else { value.replace('<', "[").replace('>', "]") };
        return code(&format!("{value}{repeats}"));
    }
    let takes_value = arg.get_action().takes_values();
    let optional = takes_value && arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let value = match (takes_value, optional) {
        (false, _) => String::new(),
        (true, false) => format!(" {value}"),
        (true, true) => format!(" [{value}]"),
    };
    let short =
        arg.get_short_and_visible_aliases().unwrap_or_default().into_iter().map(|short| format!("-{short}"));
    let long =
        arg.get_long_and_visible_aliases().unwrap_or_default().into_iter().map(|long| format!("--{long}"));
    let mut spellings: Vec<String> = short.chain(long).collect();
    if let Some(last) = spellings.last_mut() {
        last.push_str(&value);
    }
    let spellings: Vec<String> = spellings.iter().map(|text| code(text)).collect();
    spellings.join(", ")
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut sentences = vec![cell(&help)];
    if arg.is_required_set() && !arg.is_positional() {
        sentences.push("Required.".to_owned());
    }
    let takes_values = arg.get_action().takes_values();
    let values: Vec<_> =
        arg.get_possible_values().into_iter().filter(|value| takes_values && !value.is_hide_set()).collect();
    if !values.is_empty() {
        let values: Vec<String> = values
            .iter()
            .map(|value| match value.get_help() {
                Some(help) => {
                    format!("{} ({})", code(value.get_name()), cell(&help.to_string()).trim_end_matches('.'))
                }
                None => code(value.get_name()),
            })
            .collect();
        sentences.push(format!("One of: {}.", values.join(", ")));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| code(&value.to_string_lossy())).collect();
    if takes_values && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        sentences.push(format!("Default: {}.", defaults.join(", ")));
    }
    // The name alone: a value would be that of the machine that makes the page.
    if let Some(variable) = arg.get_env().filter(|_| !arg.is_hide_env_set()) {
        sentences.push(format!("Environment: {}.", code(&variable.to_string_lossy())));
    }
    sentences.retain(|sentence| !sentence.is_empty());
    if let [help, _, ..] = &mut sentences[..]
        && !help.ends_with(['.', '!', '?', ':'])
    {
        // Help of one sentence has no full stop; here another sentence follows it.
        help.push('.');
    }
    sentences.join(" ")
}

fn anchor(name: &str) -> String {
    name.replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use clap::{builder::PossibleValue, value_parser};

    use super::*;

    fn lamp() -> Command {
        let level = Arg::new("level").long("level").short('l').value_name("PERCENT").default_value("50");
        let colour = Arg::new("colour")
            .required(true)
            .value_parser([PossibleValue::new("red").help("Like roses."), PossibleValue::new("blue")]);
        let room = Arg::new("room").long("room").global(true).env("LAMP_ROOM").help("The room | hall.");
        let count = Arg::new("count").long("count").required(true).value_parser(value_parser!(u8));
        Command::new("lamp")
            .about("Controls lamps")
            .arg(room)
            .subcommand(
                Command::new("on")
                    .about("Switches on")
                    .long_about("Switches on.\n\nStays on.")
                    .visible_alias("up")
                    .after_help("Examples:\n  lamp on red")
                    .args([level.help("How bright"), colour.help("Which colour"), count.help("How many")])
                    .arg(Arg::new("quiet").long("quiet").action(ArgAction::SetTrue).help("Say nothing"))
                    .arg(Arg::new("secret").long("secret").hide(true))
                    .arg(Arg::new("extra").num_args(0..).action(ArgAction::Append).help("More")),
            )
            .subcommand(Command::new("debug").hide(true))
    }

    #[test]
    fn a_tree_becomes_a_page() {
        let expected = "\
<!-- Written by `cargo codegen` from the arguments in `cli/src/`. Do not edit it: change the source and run `cargo codegen`. -->

# Command line reference

- [`lamp`](#lamp): Controls lamps
  - [`lamp on`](#lamp-on): Switches on

<a id=\"lamp\"></a>

## `lamp`

Controls lamps

```sh
lamp [OPTIONS] [COMMAND]
```

| Option | Meaning |
| --- | --- |
| `--room <ROOM>` | The room \\| hall. Environment: `LAMP_ROOM`. |

Every command also takes `--room`.

<a id=\"lamp-on\"></a>

## `lamp on`

Switches on.

Stays on.

```sh
lamp on [OPTIONS] --count <count> <colour> [extra]...
```

Also: `up`

| Argument | Meaning |
| --- | --- |
| `<COLOUR>` | Which colour. One of: `red` (Like roses), `blue`. |
| `[EXTRA]...` | More |

| Option | Meaning |
| --- | --- |
| `-l`, `--level <PERCENT>` | How bright. Default: `50`. |
| `--count <COUNT>` | How many. Required. |
| `--quiet` | Say nothing |

```text
Examples:
  lamp on red
```
";
        assert_eq!(reference(&lamp()), expected);
    }

    #[test]
    fn the_page_is_the_same_whatever_the_environment_holds() {
        // `env` is read when the command is parsed; the page shows its name alone.
        assert!(!reference(&lamp()).contains("LAMP_ROOM="));
    }
}
