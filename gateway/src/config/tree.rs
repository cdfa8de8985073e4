//! The configuration as values: a file, and the files that it includes, put together; and which file each value is
//! from.
//!
//! `{"$include": "a.json5"}` stands for the content of that file, `{"$include": ["a.json5", "b.json5"]}` for that of
//! several, the later on top. What stands beside `$include` goes on top of them. Objects are merged key by key, lists
//! are joined, of anything else the upper one counts. Paths are relative to the file that names them, and lead to files
//! in the directory of the configuration alone. As in stock: its page on configuration.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_schema::config::{
    Source,
    keys::{self, INCLUDE},
};
use serde_json::{Map, Value};

use super::{ConfigError, json5};

/// How deep files may include each other. As in stock.
const MAX_DEPTH: usize = 10;
/// The largest file that is included, in bytes. As in stock: 2 MB.
const MAX_INCLUDED_BYTES: u64 = 2_000_000;
/// The longest path of an included file, in bytes. As in stock.
const MAX_PATH_BYTES: usize = 4096;

/// The configuration as values.
#[derive(Clone)]
pub(super) struct Tree {
    /// The values, includes resolved.
    pub(super) value: Value,
    /// The values of the file itself, includes as they are written.
    pub(super) written: Value,
    /// The files that were read, the configuration itself first.
    files: Vec<File>,
    origin: Origin,
}

impl fmt::Debug for Tree {
    /// The files alone: values may be secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.files.iter().map(|file| &file.path)).finish()
    }
}

/// A file that was read. One that is included twice is here twice.
#[derive(Clone)]
struct File {
    path: Arc<Path>,
    text: String,
    /// The key that its content stands at.
    mount: Vec<String>,
}

/// Which file a value is from, and those of what lies in it that are from another.
#[derive(Debug, Clone, Default)]
struct Origin {
    file: usize,
    parts: BTreeMap<String, Self>,
}

impl Origin {
    fn of(file: usize) -> Self {
        Self { file, parts: BTreeMap::new() }
    }

    fn child(&self, name: &str) -> Self {
        self.parts.get(name).cloned().unwrap_or_else(|| Self::of(self.file))
    }

    fn is_plain(&self, file: usize) -> bool {
        self.file == file && self.parts.is_empty()
    }
}

/// Where a value is from, on the way down a [`Tree`].
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    file: usize,
    origin: Option<&'a Origin>,
}

impl At<'_> {
    /// That of the value `name` within this one.
    pub(super) fn child(self, name: &str) -> Self {
        let origin = self.origin.and_then(|origin| origin.parts.get(name));
        Self { file: origin.map_or(self.file, |origin| origin.file), origin }
    }
}

impl Tree {
    /// Reads `text`, the content of the file at `path`, and what it includes.
    ///
    /// # Errors
    ///
    /// A file that is not JSON5; an include that cannot be followed.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let written = json5::parse(text, path)?;
        let file = File { path: path.into(), text: text.to_owned(), mount: Vec::new() };
        if !text.contains(INCLUDE) {
            let origin = Origin::default();
            return Ok(Self { value: written.clone(), written, files: vec![file], origin });
        }
        let mut loader = Loader { files: vec![file], chain: vec![real(path)], key: Vec::new() };
        let (value, origin) = loader.expand(written.clone(), 0)?;
        Ok(Self { value, written, files: loader.files, origin })
    }

    /// Where the root is from.
    pub(super) fn root(&self) -> At<'_> {
        At { file: self.origin.file, origin: Some(&self.origin) }
    }

    /// Where the configuration itself is, whatever it includes.
    pub(super) fn main(&self) -> At<'_> {
        At { file: 0, origin: None }
    }

    /// The source of the value at `path`.
    pub(super) fn source(&self, path: &[String]) -> Source {
        let at = path.iter().fold(self.root(), |at, name| at.child(name));
        Source::File { path: Arc::clone(self.file(at)), key: keys::joined(path) }
    }

    /// Puts `new` in the place of `old` at `path`. Says whether `old` stood there.
    pub(super) fn replace(&mut self, path: &[String], old: &Value, new: Value) -> bool {
        let found = path.iter().try_fold(&mut self.value, |value, name| child_mut(value, name));
        match found.filter(|value| *value == old) {
            Some(value) => {
                *value = new;
                true
            }
            None => false,
        }
    }

    /// The file of a place.
    pub(super) fn file(&self, at: At<'_>) -> &Arc<Path> {
        &self.files[at.file].path
    }

    /// The files beside the configuration itself that were read.
    pub(super) fn included(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.files.iter().skip(1).map(|file| &file.path)
    }

    /// The file of the value at `path`, and its line there, from 1. Without a line of its own it has that of what it
    /// lies in.
    pub(super) fn place(&self, path: &[String]) -> (&Arc<Path>, Option<usize>) {
        let at = path.iter().fold(self.root(), |at, name| at.child(name));
        let file = &self.files[at.file];
        let within = path.strip_prefix(file.mount.as_slice()).unwrap_or_default();
        let lines = super::lines::lines(&file.text);
        let line = (0..=within.len()).rev().find_map(|length| lines.get(&within[..length]).copied());
        (&file.path, line)
    }

    /// Takes the value at `path` out. Says whether there was one.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let mut value = &mut self.value;
        for name in parents {
            let Some(child) = child_mut(value, name) else { return false };
            value = child;
        }
        match value {
            Value::Object(map) => map.shift_remove(last).is_some(),
            Value::Array(items) => match index(last).filter(|index| *index < items.len()) {
                Some(index) => {
                    items.remove(index);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }
}

/// The value at `path`; an entry of a list is `[n]`, or `n`.
pub(super) fn find<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(map) => map.get(name),
        Value::Array(items) => items.get(index(name)?),
        _ => None,
    })
}

fn child_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(name),
        Value::Array(items) => items.get_mut(index(name)?),
        _ => None,
    }
}

fn index(name: &str) -> Option<usize> {
    name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name).parse().ok()
}

/// Follows includes.
struct Loader {
    files: Vec<File>,
    /// The files that include each other down to the present one, without symbolic links.
    chain: Vec<PathBuf>,
    /// The key of the present value.
    key: Vec<String>,
}

impl Loader {
    /// `value` of the file with that index, with its includes followed.
    fn expand(&mut self, value: Value, file: usize) -> Result<(Value, Origin), ConfigError> {
        let mut origin = Origin::of(file);
        match value {
            Value::Object(mut map) => {
                let include = map.shift_remove(INCLUDE);
                let mut own = Map::new();
                for (name, value) in map {
                    let value = self.below(&name, value, file, &mut origin)?;
                    own.insert(name, value);
                }
                let Some(include) = include else { return Ok((Value::Object(own), origin)) };
                let mut merged = self.included(&include, file)?;
                if !own.is_empty() {
                    if !merged.0.is_object() {
                        return Err(self.refuse(
                            file,
                            "must name a file that holds an object, because keys stand beside it",
                        ));
                    }
                    merged = merge(merged, (Value::Object(own), origin));
                }
                Ok(merged)
            }
            Value::Array(items) => {
                let mut own = Vec::with_capacity(items.len());
                for (index, value) in items.into_iter().enumerate() {
                    own.push(self.below(&format!("[{index}]"), value, file, &mut origin)?);
                }
                Ok((Value::Array(own), origin))
            }
            scalar => Ok((scalar, origin)),
        }
    }

    fn below(
        &mut self,
        name: &str,
        value: Value,
        file: usize,
        origin: &mut Origin,
    ) -> Result<Value, ConfigError> {
        self.key.push(name.to_owned());
        let (value, from) = self.expand(value, file)?;
        self.key.pop();
        if !from.is_plain(file) {
            origin.parts.insert(name.to_owned(), from);
        }
        Ok(value)
    }

    /// What `include`, the value of `$include`, stands for.
    fn included(&mut self, include: &Value, file: usize) -> Result<(Value, Origin), ConfigError> {
        let wrong =
            |loader: &Self| loader.refuse(file, "must be the path of a file, or a list of such paths");
        let paths: Vec<&str> = match include {
            Value::String(path) => vec![path],
            Value::Array(paths) => {
                let texts: Option<Vec<_>> = paths.iter().map(Value::as_str).collect();
                texts.ok_or_else(|| wrong(self))?
            }
            _ => return Err(wrong(self)),
        };
        let mut merged = None;
        for path in paths {
            let read = self.read(path, file)?;
            merged = Some(match merged {
                Some(below) => merge(below, read),
                None => read,
            });
        }
        Ok(merged.unwrap_or_else(|| (Value::Object(Map::new()), Origin::of(file))))
    }

    /// The content of the file at `path`, as the file with that index names it.
    fn read(&mut self, path: &str, by: usize) -> Result<(Value, Origin), ConfigError> {
        if path.is_empty() || path.contains('\0') || path.len() >= MAX_PATH_BYTES {
            return Err(self.refuse(by, "must be a path, shorter than 4096 bytes and without null bytes"));
        }
        if self.chain.len() > MAX_DEPTH {
            return Err(self.refuse(by, &format!("lies more than {MAX_DEPTH} includes deep")));
        }
        let directory = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        let full = directory(&self.files[by].path).join(path);
        let unreadable = |loader: &Self, source| ConfigError::Include {
            origin: loader.source(by),
            path: full.clone(),
            source,
        };
        let root = directory(&self.chain[0]);
        let escapes = |loader: &Self| ConfigError::IncludeOutside {
            origin: loader.source(by),
            path: path.to_owned(),
            directory: root.clone(),
        };
        // What lies outside is not even looked at.
        let written = super::locations::absolute(&full);
        if !normal(&written).starts_with(directory(&self.files[0].path))
            && !normal(&written).starts_with(&root)
        {
            return Err(escapes(self));
        }
        let found = fs::canonicalize(&full).map_err(|error| unreadable(self, error))?;
        if !found.starts_with(&root) {
            return Err(escapes(self));
        }
        if self.chain.contains(&found) {
            let chain: Vec<String> =
                self.chain.iter().chain([&found]).map(|path| path.display().to_string()).collect();
            return Err(self.refuse(by, &format!("includes itself: {}", chain.join(" -> "))));
        }
        let length = fs::metadata(&found).map_err(|error| unreadable(self, error))?.len();
        if length > MAX_INCLUDED_BYTES {
            let problem = format!("names {path}, which is larger than {MAX_INCLUDED_BYTES} bytes");
            return Err(self.refuse(by, &problem));
        }
        let text = fs::read_to_string(&found).map_err(|error| unreadable(self, error))?;
        let full = normal(&full);
        let value = json5::parse(&text, &full)?;
        let file = self.files.len();
        self.files.push(File { path: full.into(), text, mount: self.key.clone() });
        self.chain.push(found);
        let expanded = self.expand(value, file)?;
        self.chain.pop();
        Ok(expanded)
    }

    fn source(&self, file: usize) -> Source {
        let mut key = self.key.clone();
        key.push(INCLUDE.to_owned());
        Source::File { path: Arc::clone(&self.files[file].path), key: keys::joined(&key) }
    }

    fn refuse(&self, file: usize, problem: &str) -> ConfigError {
        ConfigError::BadValue { origin: self.source(file), problem: problem.to_owned(), nearest: None }
    }
}

/// `path` without symbolic links, so far as it is there.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|error| {
        let directory = path.parent().filter(|_| error.kind() == io::ErrorKind::NotFound);
        let real = directory.and_then(|directory| fs::canonicalize(directory).ok());
        match (real, path.file_name()) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => path.to_owned(),
        }
    })
}

/// `path` with `.` and `..` taken literally.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// `upper` on top of `lower`.
fn merge(lower: (Value, Origin), upper: (Value, Origin)) -> (Value, Origin) {
    let ((lower, below), (upper, above)) = (lower, upper);
    match (lower, upper) {
        (Value::Object(mut map), Value::Object(more)) => {
            let mut origin = Origin::of(below.file);
            origin.parts = map.keys().map(|name| (name.clone(), below.child(name))).collect();
            for (name, value) in more {
                let from = above.child(&name);
                let (value, from) = match (map.get_mut(&name), origin.parts.remove(&name)) {
                    (Some(lower), Some(lower_from)) => merge((lower.take(), lower_from), (value, from)),
                    _ => (value, from),
                };
                origin.parts.insert(name.clone(), from);
                map.insert(name, value);
            }
            (Value::Object(map), origin)
        }
        (Value::Array(mut items), Value::Array(more)) => {
            let mut origin = Origin::of(below.file);
            let name = |index: usize| format!("[{index}]");
            for index in 0..items.len() {
                origin.parts.insert(name(index), below.child(&name(index)));
            }
            for index in 0..more.len() {
                origin.parts.insert(name(items.len() + index), above.child(&name(index)));
            }
            items.extend(more);
            (Value::Array(items), origin)
        }
        (_, upper) => (upper, above),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            for (name, text) in files {
                let path = directory.path().join(name);
                fs::create_dir_all(path.parent().expect("it has one")).expect("it creates");
                fs::write(path, text).expect("it writes");
            }
            Self(directory)
        }

        fn load(&self) -> Result<Tree, ConfigError> {
            let path = self.0.path().join("openclaw.json");
            Tree::parse(&fs::read_to_string(&path).expect("it is there"), &path)
        }

        fn error(&self) -> String {
            let error = self.load().expect_err("it is refused").to_string();
            error.replace(&self.0.path().display().to_string(), "DIR")
        }
    }

    fn place(tree: &Tree, path: &str) -> (String, Option<usize>) {
        let (file, line) = tree.place(&keys::parse_path(path).expect("a path"));
        (file.file_name().expect("a name").to_string_lossy().into_owned(), line)
    }

    #[test]
    fn files_are_merged_as_stock_merges_them() {
        let files = Files::new(&[
            (
                "openclaw.json",
                "{ gateway: {mode: 'local', trustedProxies: ['1.1.1.1'], $include: ['./a.json5', './sub/b.json5']},\n\
                 agents: {$include: 'agents.json5'} }",
            ),
            ("a.json5", "{ trustedProxies: ['2.2.2.2'], port: 1001,\n remote: {url: 'ws://127.0.0.1:1'} }"),
            (
                "sub/b.json5",
                "{ trustedProxies: ['3.3.3.3'],\n port: 1002, auth: {$include: './auth.json5'}, remote: {sshTarget: 'a@b'} }",
            ),
            ("sub/auth.json5", "{\n\n mode: 'none' }"),
            ("agents.json5", "{ entries: { a: {} } }"),
        ]);
        let tree = files.load().expect("it loads");
        // What `openclaw config get gateway` of 2026.9.6 answers for the same files.
        assert_eq!(
            tree.value,
            json!({
                "gateway": {
                    "mode": "local",
                    "port": 1002,
                    "auth": { "mode": "none" },
                    "trustedProxies": ["2.2.2.2", "3.3.3.3", "1.1.1.1"],
                    "remote": { "url": "ws://127.0.0.1:1", "sshTarget": "a@b" },
                },
                "agents": { "entries": { "a": {} } },
            })
        );
        for (path, file, line) in [
            ("gateway.mode", "openclaw.json", 1),
            ("gateway.port", "b.json5", 2),
            ("gateway.auth.mode", "auth.json5", 3),
            ("gateway.remote.url", "a.json5", 2),
            ("gateway.remote.sshTarget", "b.json5", 2),
            ("gateway.trustedProxies[1]", "b.json5", 1),
            ("agents.entries.a", "agents.json5", 1),
        ] {
            assert_eq!(place(&tree, path), (file.to_owned(), Some(line)), "{path}");
        }
        assert_eq!(tree.included().count(), 4);
    }

    #[test]
    fn an_include_that_cannot_be_followed_is_refused_with_its_place() {
        let include = |text: &str| ("openclaw.json", format!("{{gateway: {{$include: {text}}}}}"));
        let key = "gateway.$include in DIR/openclaw.json";
        for (text, other, expected) in [
            ("1", "{}", format!("{key} must be the path of a file, or a list of such paths")),
            ("'../x.json5'", "{}", format!("{key} leads out of DIR: ../x.json5")),
            ("'/etc/hostname'", "{}", format!("{key} leads out of DIR: /etc/hostname")),
            ("'none.json5'", "{}", format!("{key} names DIR/none.json5, which cannot be read")),
            (
                "'a.json5'",
                "{$include: './openclaw.json'}",
                "gateway.$include in DIR/a.json5 includes itself: DIR/openclaw.json -> DIR/a.json5 -> DIR/openclaw.json"
                    .to_owned(),
            ),
            (
                "'a.json5', mode: 'local'",
                "[]",
                format!("{key} must name a file that holds an object, because keys stand beside it"),
            ),
        ] {
            let (name, text) = include(text);
            let files = Files::new(&[(name, &text), ("a.json5", other)]);
            assert_eq!(files.error(), expected, "{text}");
        }
        let broken = Files::new(&[("openclaw.json", "{$include: 'a.json5'}"), ("a.json5", "{,}")]);
        assert!(broken.error().starts_with("DIR/a.json5:1:2 is not valid JSON5"), "{}", broken.error());
    }

    #[test]
    fn a_link_that_leads_out_is_refused() {
        let outside = Files::new(&[("x.json5", "{}")]);
        let files = Files::new(&[("openclaw.json", "{$include: 'link.json5'}")]);
        std::os::unix::fs::symlink(outside.0.path().join("x.json5"), files.0.path().join("link.json5"))
            .expect("it links");
        assert_eq!(files.error(), "$include in DIR/openclaw.json leads out of DIR: link.json5");
    }

    #[test]
    fn includes_lie_ten_deep_at_most() {
        let name = |depth: usize| format!("{depth}.json5");
        let chain = |depth: usize| {
            let texts: Vec<(String, String)> = (1..=depth)
                .map(|level| {
                    let text = if level == depth {
                        "{}".to_owned()
                    } else {
                        format!("{{$include: '{}'}}", name(level + 1))
                    };
                    (name(level), text)
                })
                .chain([("openclaw.json".to_owned(), format!("{{$include: '{}'}}", name(1)))])
                .collect();
            Files::new(&texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>())
        };
        chain(10).load().expect("ten are allowed");
        assert_eq!(chain(11).error(), "$include in DIR/10.json5 lies more than 10 includes deep");
    }
}
