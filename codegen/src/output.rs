//! The only file that touches the disk: writes what emitters made, or compares it with what is there.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// What an emitter makes: the text of each file.
pub type Files = BTreeMap<RelativePath, String>;

/// The path of a generated file, from the root of the workspace, with `/` between its parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelativePath(String);

impl RelativePath {
    /// The path written in `path`.
    ///
    /// # Panics
    ///
    /// When the path leaves the root. Emitters make their paths from constants and checked names.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
        assert!(path.split('/').all(plain), "`{path}` is no plain relative path");
        Self(path)
    }

    fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a file on disk compares with the text it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is the same, byte for byte.
    Current,
    /// It does not exist.
    Missing,
    /// It differs. Holds the first lines that do.
    Stale(String),
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct DiskError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Compares each file with what is on disk.
///
/// # Errors
///
/// When a file exists and cannot be read.
pub fn compare(root: &Path, files: &Files) -> Result<Vec<(RelativePath, State)>, DiskError> {
    files.iter().map(|(path, text)| Ok((path.clone(), state(root, path, text)?))).collect()
}

/// Writes the files that differ and says how each was before. A file is replaced as a whole or not at all.
///
/// # Errors
///
/// When a file cannot be read or written. Files before it are written.
pub fn write(root: &Path, files: &Files) -> Result<Vec<(RelativePath, State)>, DiskError> {
    let mut before = Vec::new();
    for (path, text) in files {
        let state = state(root, path, text)?;
        if state != State::Current {
            replace(&path.below(root), text)?;
        }
        before.push((path.clone(), state));
    }
    Ok(before)
}

fn state(root: &Path, path: &RelativePath, text: &str) -> Result<State, DiskError> {
    let path = path.below(root);
    match fs::read(&path) {
        Ok(found) if found == text.as_bytes() => Ok(State::Current),
        Ok(found) => Ok(State::Stale(difference(&String::from_utf8_lossy(&found), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::Missing),
        Err(source) => Err(DiskError { action: "read", path, source }),
    }
}

#[expect(clippy::disallowed_methods, reason = "writes a draft, which then takes the place of the file")]
fn replace(path: &Path, text: &str) -> Result<(), DiskError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|source| DiskError {
        action: "create folder",
        path: folder.to_owned(),
        source,
    })?;
    // In the same folder, because a rename is atomic within one file system only.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", std::process::id()));
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
    written.map_err(|source| {
        // The draft may not exist, and the first error is the one to tell.
        let _ = fs::remove_file(&draft);
        DiskError { action: "write", path: path.to_owned(), source }
    })
}

/// How many differences are shown, and how many lines of each side of one.
const SHOWN: usize = 4;
const SHOWN_LINES: usize = 8;
/// How far apart lines may be and still be matched. Beyond it, all that follows is one difference.
const REACH_LINES: usize = 200;

/// The first differences, by line on disk: `-` on disk, `+` generated.
fn difference(found: &str, wanted: &str) -> String {
    let found: Vec<&str> = found.split_inclusive('\n').collect();
    let wanted: Vec<&str> = wanted.split_inclusive('\n').collect();
    let (mut at, mut to) = (0, 0);
    let (mut text, mut shown) = (String::new(), 0);
    while at < found.len() || to < wanted.len() {
        if found.get(at) == wanted.get(to) {
            (at, to) = (at + 1, to + 1);
            continue;
        }
        if shown == SHOWN {
            text.push_str("… and more further down\n");
            break;
        }
        shown += 1;
        let (old, new) = match_again(&found[at..], &wanted[to..]);
        text.push_str(&format!("@@ line {} @@\n", at + 1));
        show(&mut text, '-', &found[at..at + old]);
        show(&mut text, '+', &wanted[to..to + new]);
        (at, to) = (at + old, to + new);
    }
    text
}

/// How many lines of each side to pass over until both go on alike.
fn match_again(found: &[&str], wanted: &[&str]) -> (usize, usize) {
    for distance in 1..=REACH_LINES {
        for old in 0..=distance {
            let new = distance - old;
            if found.get(old).is_some_and(|line| wanted.get(new) == Some(line)) {
                return (old, new);
            }
        }
    }
    (found.len(), wanted.len())
}

fn show(text: &mut String, sign: char, lines: &[&str]) {
    for line in lines.iter().take(SHOWN_LINES) {
        // Line ends may be all that differs, so they are shown when they are not the usual ones.
        match line.strip_suffix('\n') {
            Some(line) => text.push_str(&format!("{sign}{}\n", line.replace('\r', "\\r"))),
            None => text.push_str(&format!("{sign}{line} (no final newline)\n")),
        }
    }
    if lines.len() > SHOWN_LINES {
        text.push_str(&format!("{sign}… {} more lines\n", lines.len() - SHOWN_LINES));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests prepare files of their own")]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        pairs.iter().map(|(path, text)| (RelativePath::new(*path), (*text).to_owned())).collect()
    }

    fn states(states: Vec<(RelativePath, State)>) -> Vec<State> {
        states.into_iter().map(|(_, state)| state).collect()
    }

    #[test]
    fn what_was_written_is_current() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let files = files(&[("a/b/c.md", "one\n"), ("d.json", "{}\n")]);
        assert_eq!(states(compare(root.path(), &files).expect("readable")), [State::Missing, State::Missing]);
        assert_eq!(states(write(root.path(), &files).expect("writable")), [State::Missing, State::Missing]);
        assert_eq!(states(compare(root.path(), &files).expect("readable")), [State::Current, State::Current]);
        let names: Vec<_> = fs::read_dir(root.path().join("a/b"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["c.md"], "drafts are left behind");
    }

    #[test]
    fn a_current_file_is_not_written_again() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let files = files(&[("a.md", "one\n")]);
        write(root.path(), &files).expect("writable");
        let path = root.path().join("a.md");
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        let file = fs::File::options().append(true).open(&path).expect("a file");
        file.set_modified(long_ago).expect("a file of ours");
        write(root.path(), &files).expect("writable");
        assert_eq!(fs::metadata(&path).and_then(|meta| meta.modified()).expect("a file"), long_ago);
    }

    #[test]
    fn a_stale_file_shows_the_lines_that_differ() {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::write(root.path().join("a.md"), "one\ntwo\nthree\n").expect("writable");
        let states = states(compare(root.path(), &files(&[("a.md", "one\n2\nthree\n")])).expect("readable"));
        assert_eq!(states, [State::Stale("@@ line 2 @@\n-two\n+2\n".to_owned())]);
    }

    #[test]
    fn differences_are_short_and_tell_line_ends() {
        assert_eq!(difference("a\r\n", "a\n"), "@@ line 1 @@\n-a\\r\n+a\n");
        assert_eq!(difference("a", "a\n"), "@@ line 1 @@\n-a (no final newline)\n+a\n");
        assert_eq!(difference("a\nb\n", "a\nb\nc\n"), "@@ line 3 @@\n+c\n");
        assert_eq!(
            difference("a\nb\nc\nd\n", "a\nB\nc\nnew\nd\n"),
            "@@ line 2 @@\n-b\n+B\n@@ line 4 @@\n+new\n"
        );
        let far = |mark: &str| (0..10).map(|line| format!("{line}\n{mark}\n")).collect::<String>();
        assert!(
            difference(&far("x"), &far("y")).ends_with("@@ line 8 @@\n-x\n+y\n… and more further down\n")
        );
        let long: String = (0..20).map(|line| format!("{line}\n")).collect();
        assert!(difference("", &long).ends_with("+7\n+… 12 more lines\n"));
    }

    #[test]
    fn a_folder_in_the_way_is_an_error_that_names_the_path() {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(root.path().join("a.md")).expect("writable");
        let error = write(root.path(), &files(&[("a.md", "one\n")])).expect_err("a folder is no file");
        assert!(error.to_string().ends_with("a.md"), "{error}");
    }

    #[test]
    fn paths_stay_below_the_root() {
        for bad in ["/etc/passwd", "../x", "a//b", "a/../b", "a\\b", ""] {
            let made = std::panic::catch_unwind(|| RelativePath::new(bad));
            assert!(made.is_err(), "`{bad}` was accepted");
        }
    }
}
