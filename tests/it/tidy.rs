//! Rules about the sources: who depends on whom, what every file says, what no file has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use openclaw_schema::methods;
use serde_json::Value;

use crate::drift::workspace;

/// Which members a member may depend on, tests and benches included. The table of the README's crate map.
const EDGES: &[(&str, &[&str])] = &[
    ("openclaw-schema", &["openclaw-schema-macros"]),
    ("openclaw-schema-macros", &[]),
    ("openclaw-gateway", &["openclaw-schema"]),
    ("openclaw-client", &["openclaw-schema"]),
    ("openclaw-cli", &["openclaw-schema", "openclaw-client", "openclaw-gateway"]),
    // The command line's reference is made from its arguments.
    ("openclaw-codegen", &["openclaw-schema", "openclaw-cli"]),
    (
        "openclaw-tests",
        &["openclaw-schema", "openclaw-gateway", "openclaw-client", "openclaw-cli", "openclaw-codegen"],
    ),
];

/// Each with the reason for the ban.
const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "a test that does not run proves nothing: assert today's behaviour and say why it is wrong"),
    ("#[should_panic", "assert the error itself"),
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
    ("TODO(correctness)", "nothing that is known to be wrong goes to main"),
    ("dbg!(", "for the moment of debugging alone"),
];

/// Every source file that is kept in the workspace.
fn sources() -> Vec<PathBuf> {
    let members = ["schema", "gateway", "client", "cli", "codegen", "tests"];
    let mut files = Vec::new();
    for member in members {
        collect(&workspace().join(member), &mut files);
    }
    assert!(files.len() > 80, "only {} sources were found", files.len());
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "node_modules") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a source is text")
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace()).expect("sources lie in the workspace").display().to_string()
}

#[test]
fn members_depend_on_each_other_as_the_table_says() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("a list") {
        let name = package["name"].as_str().expect("a name");
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        for dependency in package["dependencies"].as_array().expect("a list") {
            let on = dependency["name"].as_str().expect("a name");
            assert!(!on.starts_with("openclaw-") || may.contains(&on), "{name} must not depend on {on}");
        }
        seen.insert(name);
    }
    assert_eq!(seen, allowed.into_keys().collect(), "members and table");
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<String> = sources()
        .iter()
        // Samples of what users write, the faults included.
        .filter(|path| !path.starts_with(workspace().join("schema/tests/contract")))
        .filter(|path| {
            let text = read(path);
            !text.starts_with("//!") && !text.starts_with("#![doc = include_str!(")
        })
        .map(|path| shown(path))
        .collect();
    assert_eq!(silent, Vec::<String>::new(), "begin the file with `//!` and what it owns");
}

#[test]
fn nothing_banned_is_in_the_sources() {
    let mut findings = Vec::new();
    for path in sources().iter().filter(|path| !path.ends_with("it/tidy.rs")) {
        for (number, line) in read(path).lines().enumerate() {
            for (banned, reason) in BANNED {
                if line.contains(banned) {
                    findings.push(format!("{}:{}: {banned}: {reason}", shown(path), number + 1));
                }
            }
        }
    }
    assert_eq!(findings, Vec::<String>::new());
}

/// A literal that is a method's name, the whole of it, makes a second declaration. A name within a sentence, in a
/// comment or in a test is fine: it tells people, or checks the first declaration.
#[test]
fn no_source_outside_the_schema_names_a_method_by_a_literal() {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for record in methods::all() {
        // A name of one plain word, such as `agent`, is a word of its own right.
        names.extend(record.name.contains(['.', '-']).then(|| record.name.to_owned()));
        if let Some(subscription) = record.subscription {
            names.extend([subscription.notification.to_owned(), subscription.unsubscribe.to_owned()]);
        }
    }
    let mut findings = Vec::new();
    for member in ["gateway/src", "client/src", "cli/src", "codegen/src"] {
        let mut files = Vec::new();
        collect(&workspace().join(member), &mut files);
        for path in files.iter().filter(|path| !path.ends_with("tests.rs")) {
            let text = read(path);
            // Unit tests stand at the end of a file.
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            for (number, line) in
                code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
            {
                for name in names.iter().filter(|name| line.contains(&format!("\"{name}\""))) {
                    findings.push(format!("{}:{}: \"{name}\"", shown(path), number + 1));
                }
            }
        }
    }
    assert_eq!(findings, Vec::<String>::new(), "name the method through its `…Method` enum");
}

#[test]
fn no_unaccepted_snapshot_is_committed() {
    let output = Command::new("git").args(["ls-files", "*.snap.new"]).current_dir(workspace()).output();
    // Without git there is nothing committed to look at.
    if let Ok(output) = output {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "accept or delete them");
    }
}
