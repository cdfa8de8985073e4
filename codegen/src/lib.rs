#![doc = include_str!("../README.md")]

pub mod cli_reference;
pub mod config_schema;
pub mod markdown;
pub mod model;
pub mod openrpc;
pub mod output;
pub mod reference;

use std::{fmt, path::Path};

use serde_json::Value;

use crate::{
    model::{Api, Faults},
    output::{DiskError, Files, RelativePath, State},
};

/// Everything that artefacts are made from.
#[derive(Debug)]
pub struct Sources {
    /// The OpenRPC document.
    pub document: Value,
    /// The same, understood.
    pub api: Api,
}

impl Sources {
    /// Builds the document of the core contract and reads it.
    ///
    /// # Errors
    ///
    /// What is wrong with the document.
    pub fn gather() -> Result<Self, Faults> {
        let document = openclaw_schema::document::document();
        Ok(Self { api: Api::read(&document)?, document })
    }
}

/// Something that is generated.
#[derive(Debug, Clone, Copy)]
pub struct Artefact {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    /// Makes its files. The same sources give the same bytes.
    pub emit: fn(&Sources) -> Files,
}

/// Every artefact. To add one: write its emitter in a file of its own, and add a row.
pub const ARTEFACTS: &[Artefact] = &[
    Artefact {
        name: "openrpc",
        summary: "the contract as an OpenRPC document",
        emit: |sources| openrpc::emit(&sources.document),
    },
    Artefact {
        name: "config",
        summary: "the JSON Schema of the configuration file",
        emit: |_| config_schema::emit(&openclaw_schema::config::keys::schema()),
    },
    Artefact {
        name: "methods",
        summary: "the method reference",
        emit: |sources| reference::emit(&sources.api),
    },
    Artefact {
        name: "cli",
        summary: "the command line reference",
        emit: |_| cli_reference::emit(&openclaw_cli::command()),
    },
];

/// Why generating or checking failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document cannot be understood.
    #[error(transparent)]
    Document(#[from] Faults),
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// How the generated files compare, or compared before they were written.
#[derive(Debug, Clone)]
pub struct Report {
    /// Each file with the name of its artefact.
    pub files: Vec<(&'static str, RelativePath, State)>,
}

impl Report {
    /// Whether every file is as it should be.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.files.iter().all(|(_, _, state)| *state == State::Current)
    }
}

/// What is not as it should be, and the command that mends it. One line when all is well.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_current() {
            return writeln!(f, "{} generated files are up to date", self.files.len());
        }
        let mut artefacts = Vec::new();
        for (artefact, path, state) in &self.files {
            match state {
                State::Current => continue,
                State::Missing => writeln!(f, "{path} is missing")?,
                State::Stale(difference) => write!(f, "{path} is out of date\n{difference}")?,
            }
            if !artefacts.contains(artefact) {
                artefacts.push(*artefact);
            }
        }
        match artefacts[..] {
            [only] => writeln!(f, "to mend this, run: cargo codegen --only {only}"),
            _ => writeln!(f, "to mend this, run: cargo codegen"),
        }
    }
}

/// Writes the files of `artefacts` below `root`, those that differ. The report tells how they were before.
///
/// # Errors
///
/// When the document cannot be understood, or a file cannot be read or written.
pub fn generate(root: &Path, artefacts: &[Artefact]) -> Result<Report, Error> {
    each(artefacts, |files| output::write(root, files))
}

/// Compares the files of `artefacts` with those below `root`.
///
/// # Errors
///
/// When the document cannot be understood, or a file exists and cannot be read.
pub fn compare(root: &Path, artefacts: &[Artefact]) -> Result<Report, Error> {
    each(artefacts, |files| output::compare(root, files))
}

/// Compares every generated file with the one below `root`, the workspace.
///
/// # Errors
///
/// As [`compare`].
pub fn check(root: &Path) -> Result<Report, Error> {
    compare(root, ARTEFACTS)
}

fn each(
    artefacts: &[Artefact],
    handle: impl Fn(&Files) -> Result<Vec<(RelativePath, State)>, DiskError>,
) -> Result<Report, Error> {
    let sources = Sources::gather()?;
    let mut files = Vec::new();
    for artefact in artefacts {
        let states = handle(&(artefact.emit)(&sources))?;
        files.extend(states.into_iter().map(|(path, state)| (artefact.name, path, state)));
    }
    Ok(Report { files })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test changes a file to see it found")]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn names_and_paths_of_artefacts_are_unique() {
        let sources = Sources::gather().expect("the core contract is understood");
        let names: BTreeSet<_> = ARTEFACTS.iter().map(|artefact| artefact.name).collect();
        assert_eq!(names.len(), ARTEFACTS.len());
        let paths: Vec<_> =
            ARTEFACTS.iter().flat_map(|artefact| (artefact.emit)(&sources).into_keys()).collect();
        assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len());
    }

    #[test]
    fn emitters_make_tidy_text_and_the_same_each_time() {
        let make = || {
            let sources = Sources::gather().expect("the core contract is understood");
            ARTEFACTS.iter().map(|artefact| (artefact.emit)(&sources)).collect::<Vec<_>>()
        };
        assert_eq!(make(), make());
        for (path, text) in make().into_iter().flatten() {
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{path} does not end in one newline");
            assert!(!text.contains('\r'), "{path} has a carriage return");
            let blank = text.lines().position(|line| line.ends_with(' '));
            assert_eq!(blank, None, "{path} has a line with trailing blanks");
        }
    }

    #[test]
    fn a_fresh_root_is_stale_and_generating_mends_it() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let before = check(root.path()).expect("readable");
        assert!(!before.is_current());
        assert!(before.to_string().contains("schema/openrpc.json is missing\n"), "{before}");
        assert!(before.to_string().ends_with("to mend this, run: cargo codegen\n"), "{before}");
        generate(root.path(), ARTEFACTS).expect("writable");
        assert!(check(root.path()).expect("readable").is_current());
    }

    #[test]
    fn a_changed_file_is_shown_with_the_command_for_it_alone() {
        let root = tempfile::tempdir().expect("a temporary folder");
        generate(root.path(), ARTEFACTS).expect("writable");
        let path = root.path().join("schema/METHODS.md");
        let text = fs::read_to_string(&path).expect("a page");
        fs::write(&path, text.replace("# Method reference", "# Methods")).expect("writable");
        let report = check(root.path()).expect("readable").to_string();
        assert_eq!(
            report,
            "schema/METHODS.md is out of date\n@@ line 3 @@\n-# Methods\n+# Method reference\n\
             to mend this, run: cargo codegen --only methods\n"
        );
    }
}
