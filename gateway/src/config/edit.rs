//! Edits of a configuration: one key by its path, or other values laid into the text, comments and formatting kept.
//!
//! Invariant: a text that [`lay`] gives reads as exactly the values that it was asked for. Whatever the library behind it
//! makes of an odd file, nothing else is ever written.

use std::{fmt, io, path::Path, path::PathBuf, str::FromStr};

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstObjectProp, CstRootNode, ObjectPropName},
};
use openclaw_schema::{config::keys, methods::config::REDACTED};
use serde_json::{Map, Value};

use super::{
    Config, ConfigError, Env, Locations, ReloadMode, json5,
    save::{Saved, save},
    serve::preview_settings,
};
use crate::{Reloaded, reload::ProcessSettings, state::StateError};

/// Why a configuration was not changed. In no case was anything written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// A text is no path to a key.
    #[error("`{given}` is not a path to a key: {problem}")]
    Path {
        /// The text.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A path leads through a value that has no keys.
    #[error("{at} is {found}, so it has no `{step}`")]
    NoContainer {
        /// The path to the value.
        at: String,
        /// What is there.
        found: &'static str,
        /// The key that was looked for in it.
        step: String,
    },
    /// A path names a place of an array that it does not have.
    #[error("{at} has {length} entries, so there is no place `{step}`")]
    NoPlace {
        /// The path to the array.
        at: String,
        /// How long it is.
        length: usize,
        /// The place.
        step: String,
    },
    /// There is nothing to take away.
    #[error("{path} is not set in {}", file.display())]
    Missing {
        /// The path.
        path: String,
        /// The file.
        file: PathBuf,
    },
    /// The file is written so that only all of it could be written anew.
    #[error("{} cannot be edited in place: its comments and formatting would be lost", file.display())]
    Rewrites {
        /// The file.
        file: PathBuf,
    },
    /// A value is what is shown in the place of a secret.
    #[error("{REDACTED} stands in the place of a secret, and is none: give the secret itself")]
    Hidden,
    /// What the file says now, or would say, is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Somebody else has written the file meanwhile.
    #[error("{} was changed by somebody else meanwhile", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Somebody else is writing the file, and does not end.
    #[error("another program has been writing {} for five seconds", file.display())]
    Busy {
        /// The file.
        file: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The directory of the file could not be made.
    #[error(transparent)]
    State(#[from] StateError),
}

impl EditError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// What to do. Absent where the error's sentence says it already.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Path { .. } => {
                Some("write it like `gateway.auth.mode`, `list[0]` or `entries[\"a.b\"]`".into())
            }
            Self::Rewrites { .. } => {
                Some("change it with an editor, or pass --rewrite to have it written as plain JSON".into())
            }
            Self::Config(error) => error.hint(),
            Self::Changed { .. } | Self::Busy { .. } => Some("try again".into()),
            Self::Io { source, path, .. } if is_forbidden(source) => {
                Some(format!("the user who runs this may not write in {}", directory(path).display()))
            }
            Self::NoContainer { .. }
            | Self::NoPlace { .. }
            | Self::Missing { .. }
            | Self::Hidden
            | Self::Io { .. }
            | Self::State(_) => None,
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The directory that a path lies in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The way to a value: `gateway.auth.mode`, `agents.entries["a.b"].model`, `list[0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath {
    /// At least one; a place of an array is its number.
    steps: Vec<String>,
}

impl FromStr for KeyPath {
    type Err = EditError;

    fn from_str(given: &str) -> Result<Self, EditError> {
        let wrong = |problem| EditError::Path { given: given.to_owned(), problem };
        let parts = keys::parse_path(given.trim()).map_err(wrong)?;
        if parts.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        let place = |part: &String| Some(part.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        let steps = parts.into_iter().map(|part| place(&part).unwrap_or(part)).collect();
        Ok(Self { steps })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&written(&self.steps))
    }
}

impl KeyPath {
    /// The value there, if there is one.
    #[must_use]
    pub fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(root, |value, step| match value {
            Value::Object(map) => map.get(step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Puts a value there. Objects on the way are made.
    pub(super) fn set(&self, root: &mut Value, new: Value) -> Result<(), EditError> {
        let mut value = root;
        for (index, step) in self.steps.iter().enumerate() {
            let at = || written(&self.steps[..index]);
            value = match value {
                Value::Object(map) => map.entry(step.clone()).or_insert_with(|| Value::Object(Map::new())),
                Value::Array(items) => {
                    let length = items.len();
                    // The place after the last one adds to the array.
                    let place = step.parse::<usize>().ok().filter(|place| *place <= length);
                    let place =
                        place.ok_or_else(|| EditError::NoPlace { at: at(), length, step: step.clone() })?;
                    if place == length {
                        items.push(Value::Object(Map::new()));
                    }
                    &mut items[place]
                }
                other => {
                    return Err(EditError::NoContainer { at: at(), found: kind(other), step: step.clone() });
                }
            };
        }
        *value = new;
        Ok(())
    }

    /// Takes away what is there. Says whether there was something.
    pub(super) fn unset(&self, root: &mut Value) -> bool {
        let Some((last, way)) = self.steps.split_last() else { return false };
        let parent = way.iter().try_fold(root, |value, step| match value {
            Value::Object(map) => map.get_mut(step),
            Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
            _ => None,
        });
        match parent {
            // The order of the rest stays.
            Some(Value::Object(map)) => map.shift_remove(last).is_some(),
            Some(Value::Array(items)) => match last.parse::<usize>() {
                Ok(place) if place < items.len() => {
                    items.remove(place);
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// Steps as one text, which reads back as the same steps.
pub(super) fn written<S: AsRef<str>>(steps: &[S]) -> String {
    let mut text = String::new();
    for step in steps {
        let step = step.as_ref();
        if step.contains(['.', '[', ']']) || step.trim() != step {
            let quote = if step.contains('"') { '\'' } else { '"' };
            text.push_str(&format!("[{quote}{step}{quote}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(step);
        }
    }
    text
}

/// One edit.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Puts a value at a path. Objects on the way are made.
    Set(KeyPath, Value),
    /// Takes away what is at a path.
    Unset(KeyPath),
}

/// How an edit is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct EditOptions {
    /// Only look what would come of it.
    pub dry_run: bool,
    /// Write all of the file anew, as plain JSON, where it cannot be edited in place.
    pub rewrite: bool,
}

/// What came of an edit.
#[derive(Debug)]
pub struct Edited {
    /// What was written.
    pub saved: Saved,
    /// Whether comments and formatting of the file are gone.
    pub rewritten: bool,
    /// What a gateway that runs with the file takes over, and what waits for a restart: as far as can be told without
    /// its flags.
    pub effect: Reloaded,
    /// What looks odd but is not refused, a sentence each.
    pub warnings: Vec<String>,
}

/// Edits the configuration file. What it would be is checked first as at a start. No gateway is asked. Blocks.
///
/// # Errors
///
/// Why nothing was written.
pub fn edit_file(
    locations: &Locations,
    env: &Env,
    edit: &Edit,
    options: EditOptions,
) -> Result<Edited, EditError> {
    let path = locations.config_file();
    if let Edit::Set(_, value) = edit
        && value.to_string().contains(REDACTED)
    {
        return Err(EditError::Hidden);
    }
    let mut outcome = None;
    let mut change = |text: Option<&str>| {
        let text = text.unwrap_or_default();
        let mut value = json5::parse(text, path)?;
        match edit {
            Edit::Set(at, new) => at.set(&mut value, new.clone())?,
            Edit::Unset(at) => {
                if !at.unset(&mut value) {
                    return Err(EditError::Missing { path: at.to_string(), file: path.to_owned() });
                }
            }
        }
        let mut rewritten = false;
        let after = match lay(text, &value, path) {
            Err(EditError::Rewrites { .. }) if options.rewrite => {
                rewritten = true;
                plain(&value)
            }
            laid => laid?,
        };
        let (effect, warnings) = effect(locations, env, text, &after)?;
        let changed = after != text;
        outcome = Some(Edited { saved: Saved { changed, backup: None }, rewritten, effect, warnings });
        Ok(after)
    };
    let saved = if options.dry_run {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(EditError::io("read", path)(error)),
        };
        change(text.as_deref())?;
        None
    } else {
        Some(save(path, change)?)
    };
    let mut edited = outcome.expect("what was saved was made");
    if let Some(saved) = saved {
        edited.saved = saved;
    }
    Ok(edited)
}

/// Checks what the file would be, and says what a gateway makes of the difference.
fn effect(
    locations: &Locations,
    env: &Env,
    before: &str,
    after: &str,
) -> Result<(Reloaded, Vec<String>), EditError> {
    let path = locations.config_file();
    let config = Config::parse(after, path)?;
    let mut warnings = config.warnings.clone();
    let next = preview_settings(locations, &config, env, &mut warnings)?;
    let now = Config::parse(before, path)
        .and_then(|config| preview_settings(locations, &config, env, &mut Vec::new()))
        .unwrap_or_default();
    let (Some(now), Some(next)) = (now, next) else { return Ok((Reloaded::default(), warnings)) };
    let mut effect = Reloaded::between(&now.settings, &next.settings);
    let mut process = ProcessSettings::of(&now).differences(&next, true);
    effect.applied.append(&mut process.applied);
    effect.waits_for_restart.append(&mut process.waits_for_restart);
    if next.reload == ReloadMode::Off {
        effect.waits_for_restart.append(&mut effect.applied);
    }
    Ok((effect, warnings))
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The paths at which two values differ: the deepest objects that both have are looked into, arrays are not.
pub(super) fn changed_paths(old: &Value, new: &Value) -> Vec<String> {
    fn collect(old: &Value, new: &Value, way: &mut Vec<String>, found: &mut Vec<String>) {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let added = new.keys().filter(|key| !old.contains_key(*key));
                for key in old.keys().chain(added) {
                    way.push(key.clone());
                    match (old.get(key), new.get(key)) {
                        (Some(old), Some(new)) => collect(old, new, way, found),
                        _ => found.push(written(way)),
                    }
                    way.pop();
                }
            }
            _ if old == new => {}
            _ => found.push(written(way)),
        }
    }
    let mut found = Vec::new();
    collect(old, new, &mut Vec::new(), &mut found);
    found
}

/// `text`, the content of the file at `path`, with the values of `new` instead of its own. Comments and formatting of
/// all that stays are kept.
pub(super) fn lay(text: &str, new: &Value, path: &Path) -> Result<String, EditError> {
    let old = json5::parse(text, path)?;
    if old == *new {
        return Ok(text.to_owned());
    }
    if text.trim().is_empty() {
        return Ok(plain(new));
    }
    let impossible = || EditError::Rewrites { file: path.to_owned() };
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|_| impossible())?;
    let (Some(object), Value::Object(old), Value::Object(new_map)) = (root.object_value(), &old, new) else {
        return Err(impossible());
    };
    lay_object(&object, old, new_map).ok_or_else(impossible)?;
    let laid = root.to_string();
    if json5::parse(&laid, path).is_ok_and(|read| read == *new) { Ok(laid) } else { Err(impossible()) }
}

/// `None` where the text is not what its values say, as with a key that is there twice.
fn lay_object(object: &CstObject, old: &Map<String, Value>, new: &Map<String, Value>) -> Option<()> {
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        object.get(key)?.remove();
    }
    for (key, value) in new {
        match old.get(key) {
            None => {
                let is_bare =
                    object.ancestors().filter_map(|node| node.as_object()).any(|outer| has_bare_keys(&outer))
                        || has_bare_keys(object);
                let property = object.append(key, input(value));
                if is_bare {
                    bare(&property);
                }
            }
            Some(before) if before == value => {}
            Some(before) => {
                let property = object.get(key)?;
                match (before, value) {
                    (Value::Object(before), Value::Object(value)) => {
                        lay_object(&property.object_value()?, before, value)?;
                    }
                    (Value::Array(before), Value::Array(value)) => {
                        lay_array(&property.array_value()?, before, value)?;
                    }
                    _ => property.set_value(input(value)),
                }
            }
        }
    }
    Some(())
}

/// Whether an object is written like `{a: 1}`.
fn has_bare_keys(object: &CstObject) -> bool {
    object.properties().first().is_some_and(|first| matches!(first.name(), Some(ObjectPropName::Word(_))))
}

/// Takes the quotation marks from keys that need none, to match those beside them.
fn bare(property: &CstObjectProp) {
    if let (Some(ObjectPropName::String(name)), Some(key)) = (property.name(), property.decoded_name())
        && key.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        name.set_raw_value(key);
    }
    if let Some(object) = property.object_value() {
        object.properties().iter().for_each(bare);
    }
}

fn lay_array(array: &CstArray, old: &[Value], new: &[Value]) -> Option<()> {
    let same = |pairs: &mut dyn Iterator<Item = (&Value, &Value)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut old.iter().zip(new));
    let tail = same(&mut old[head..].iter().rev().zip(new[head..].iter().rev()));
    let (old_middle, new_middle) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let elements = array.elements();
    if elements.len() != old.len() {
        return None;
    }
    let both = old_middle.len().min(new_middle.len());
    for place in 0..both {
        lay_value(elements[head + place].clone(), &old_middle[place], &new_middle[place])?;
    }
    for element in &elements[head + both..head + old_middle.len()] {
        element.clone().remove();
    }
    for (place, value) in new_middle.iter().enumerate().skip(both) {
        array.insert(head + place, input(value));
    }
    Some(())
}

fn lay_value(node: CstNode, old: &Value, new: &Value) -> Option<()> {
    match (old, new) {
        _ if old == new => Some(()),
        (Value::Object(old), Value::Object(new)) => lay_object(&node.as_object()?, old, new),
        (Value::Array(old), Value::Array(new)) => lay_array(&node.as_array()?, old, new),
        _ => {
            let new = input(new);
            match node {
                CstNode::Container(container) => match container.as_object() {
                    Some(object) => object.replace_with(new),
                    None => container.as_array()?.replace_with(new),
                },
                CstNode::Leaf(_) => {
                    if let Some(leaf) = node.as_string_lit() {
                        leaf.replace_with(new)
                    } else if let Some(leaf) = node.as_number_lit() {
                        leaf.replace_with(new)
                    } else if let Some(leaf) = node.as_boolean_lit() {
                        leaf.replace_with(new)
                    } else if let Some(leaf) = node.as_word_lit() {
                        leaf.replace_with(new)
                    } else {
                        node.as_null_keyword()?.replace_with(new)
                    }
                }
            };
            Some(())
        }
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(map) => {
            CstInputValue::Object(map.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

/// Whether there is a comment in a text.
pub(super) fn has_comments(text: &str) -> bool {
    fn has(nodes: Vec<CstNode>) -> bool {
        nodes.into_iter().any(|node| node.is_comment() || has(node.children()))
    }
    CstRootNode::parse(text, &ParseOptions::default()).is_ok_and(|root| has(root.children()))
}

/// A configuration as plain JSON.
pub(super) fn plain(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::LocationFlags;

    fn path(text: &str) -> KeyPath {
        text.parse().expect("a path")
    }

    fn file() -> &'static Path {
        Path::new("/state/openclaw.json")
    }

    fn set(text: &str, at: &str, value: Value) -> String {
        let mut root = json5::parse(text, file()).expect("JSON5");
        path(at).set(&mut root, value).expect("it can be set");
        lay(text, &root, file()).expect("it can be laid")
    }

    fn unset(text: &str, at: &str) -> String {
        let mut root = json5::parse(text, file()).expect("JSON5");
        assert!(path(at).unset(&mut root), "it is there");
        lay(text, &root, file()).expect("it can be laid")
    }

    #[test]
    fn a_path_has_dots_brackets_and_quotation_marks() {
        for (text, steps) in [
            ("gateway", &["gateway"][..]),
            ("gateway.auth.mode", &["gateway", "auth", "mode"]),
            ("agents.entries[\"a.b\"].model", &["agents", "entries", "a.b", "model"]),
            ("list[0].x", &["list", "0", "x"]),
            ("list.0", &["list", "0"]),
            ("['x']", &["x"]),
        ] {
            assert_eq!(path(text).steps, steps, "{text}");
            assert_eq!(path(&path(text).to_string()), path(text), "{text}");
        }
        for text in ["", " ", ".", "a.", "a..b", ".a", "a[", "a['b]", "a[0]b", "a[]"] {
            assert!(text.parse::<KeyPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn comments_and_formatting_of_the_rest_are_kept() {
        let text = "// mine\n{\n  gateway: {\n    mode: 'local', // here\n    /* the usual */ port: 18789,\n    auth: {token: 'x'},\n  },\n\n  // others\n  channels: {telegram: {enabled: true}},\n}\n";
        assert_eq!(
            set(text, "gateway.port", json!(19001)),
            text.replace("18789", "19001"),
            "one value changes and nothing else"
        );
        let added = set(text, "logging.level", json!("debug"));
        assert!(added.starts_with(text.trim_end().trim_end_matches('}').trim_end()), "{added}");
        assert!(added.ends_with("  logging: {\n    level: \"debug\",\n  },\n}\n"), "{added}");
        let inner = set(text, "gateway.bind", json!("lan"));
        assert!(
            inner.contains("// here") && inner.contains("/* the usual */") && inner.contains("// others")
        );
        let without = unset(text, "gateway.auth");
        assert!(!without.contains("auth") && without.contains("// here"), "{without}");
        assert_eq!(set(text, "gateway.port", json!(18789)), text, "nothing changes");
    }

    #[test]
    fn arrays_change_where_they_differ() {
        let text = "{\n  list: [\n    'a', // first\n    'b', // second\n    'c'\n  ]\n}\n";
        let added = set(text, "list[3]", json!("d"));
        assert!(added.contains("// first") && added.contains("// second") && added.contains("\"d\""));
        let without = unset(text, "list[1]");
        assert!(without.contains("// first") && !without.contains("'b'"), "{without}");
        let other = set(text, "list[0]", json!({ "x": 1 }));
        assert!(other.contains("// second"), "{other}");
    }

    #[test]
    fn full_json5_is_edited_too() {
        let text = "{a: +0x1F, b: .5, c: Infinity, 'd': 'it\\'s \\\n long', e: [1,], // end\n}";
        let laid = set(text, "e", json!([1, 2]));
        assert!(laid.contains("+0x1F") && laid.contains("// end"), "{laid}");
    }

    #[test]
    fn a_file_that_is_not_what_it_seems_is_left_alone() {
        // Of a key that is there twice, the last one counts.
        let text = "{a: {b: 1}, a: {b: 2}}";
        let mut root = json5::parse(text, file()).expect("JSON5");
        path("a.b").set(&mut root, json!(3)).expect("it can be set");
        let error = lay(text, &root, file()).expect_err("it would not read as asked");
        assert!(matches!(error, EditError::Rewrites { .. }), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--rewrite")));
    }

    #[test]
    fn a_change_applies_when_the_schema_says_that_it_does() {
        let schema = keys::schema();
        let root = keys::Key::root(&schema);
        let home = tempfile::tempdir().expect("a directory can be made");
        let directory = home.path().to_str().expect("a text");
        let env: Env = [("HOME", directory), (super::super::env::DISABLE_BONJOUR, "0")].into_iter().collect();
        let locations = Locations::resolve(&LocationFlags::default(), &env).expect("there is a home");
        // The value, and what else the file has to say for it to count.
        let samples = [
            ("gateway.port", json!(1), ""),
            ("gateway.bind", json!("lan"), ""),
            ("gateway.customBindHost", json!("127.0.0.2"), "gateway.bind custom"),
            ("gateway.auth.mode", json!("password"), "gateway.auth.password correct-horse"),
            ("gateway.auth.token", json!("another-token-another"), ""),
            ("gateway.auth.password", json!("another-horse"), "gateway.auth.mode password"),
            ("gateway.auth.rateLimit.maxAttempts", json!(3), ""),
            ("gateway.auth.rateLimit.windowMs", json!(5000), ""),
            ("gateway.auth.rateLimit.lockoutMs", json!(5000), ""),
            ("gateway.auth.rateLimit.exemptLoopback", json!(false), ""),
            ("gateway.tls.enabled", json!(true), ""),
            ("gateway.nodes.pairing.autoApproveLocal", json!(false), ""),
            ("gateway.controlUi.allowedOrigins", json!(["https://a.example"]), ""),
            ("gateway.trustedProxies", json!(["10.0.0.1"]), ""),
            ("gateway.tailscale.mode", json!("serve"), ""),
            ("gateway.tailscale.resetOnExit", json!(true), "gateway.tailscale.mode serve"),
            ("gateway.limits.maxPayloadBytes", json!(70_000), ""),
            ("gateway.limits.maxBufferedBytes", json!(70_000_000), ""),
            ("gateway.limits.maxConnections", json!(100), ""),
            ("gateway.limits.maxUnauthenticated", json!(10), ""),
            ("gateway.limits.maxInFlight", json!(10), ""),
            ("gateway.limits.maxBatch", json!(10), ""),
            ("gateway.limits.maxSubscriptions", json!(10), ""),
            ("gateway.limits.authenticationTimeoutMs", json!(2000), ""),
            ("gateway.limits.sendTimeoutMs", json!(2000), ""),
            ("gateway.limits.callTimeoutMs", json!(2000), ""),
            ("gateway.limits.drainTimeoutMs", json!(2000), ""),
            ("logging.level", json!("debug"), ""),
            ("logging.consoleLevel", json!("debug"), ""),
            ("logging.file", json!("other.log"), ""),
            ("logging.maxFileBytes", json!(1000), ""),
            ("logging.consoleStyle", json!("json"), ""),
            ("logging.redactPatterns", json!(["x+"]), ""),
            ("logging.filters.*", json!("debug"), ""),
            ("commands.restart", json!(false), ""),
            ("discovery.mdns.mode", json!("full"), ""),
            ("discovery.mdns.interfaces.allow", json!(["eth0"]), ""),
            ("discovery.mdns.interfaces.deny", json!(["eth0"]), ""),
        ];
        // Others read these, or they count for a start alone.
        let apart = [
            "gateway.mode",
            "gateway.tls.",
            "gateway.remote.",
            "gateway.reload.",
            "discovery.wideArea.",
            "agents.",
            "models.",
            "env.",
        ];
        for (key, _) in root.leaves() {
            let key = keys::joined(&key);
            let is_known = samples.iter().any(|(sample, ..)| *sample == key);
            assert!(is_known || apart.iter().any(|apart| key.starts_with(apart)), "{key} has no sample");
        }
        for (key, value, beside) in samples {
            let mut before = json!({ "gateway": { "mode": "local", "auth": {
                "mode": "token", "token": "0123456789abcdef0123",
            } } });
            if let Some((at, value)) = beside.split_once(' ') {
                path(at).set(&mut before, json!(value)).expect("it can be set");
            }
            if beside.contains("mode password") {
                path("gateway.auth.password")
                    .set(&mut before, json!("correct-horse"))
                    .expect("it can be set");
            }
            if beside.contains("custom") {
                path(key).set(&mut before, json!("127.0.0.1")).expect("it can be set");
            }
            let mut after = before.clone();
            path(&key.replace('*', "store")).set(&mut after, value).expect("it can be set");
            let (effect, warnings) = effect(&locations, &env, &before.to_string(), &after.to_string())
                .unwrap_or_else(|error| panic!("{key}: {error}"));
            let parts: Vec<String> = keys::parse_path(key).expect("a path");
            let applies = root.find(&parts).expect("a key").applies();
            let found = (effect.applied.is_empty(), effect.waits_for_restart.is_empty());
            let expected = match applies {
                keys::Applies::Live => (false, true),
                keys::Applies::Restart => (true, false),
            };
            assert_eq!(found, expected, "{key}: {effect:?} {warnings:?}");
        }
    }

    #[test]
    fn a_path_through_a_value_is_refused_with_what_is_there() {
        let mut root = json!({ "gateway": { "port": 1 }, "list": [1] });
        let error = |path: &str, root: &mut Value| {
            path.parse::<KeyPath>().expect("a path").set(root, json!(1)).expect_err("refused").to_string()
        };
        assert_eq!(error("gateway.port.x", &mut root), "gateway.port is a number, so it has no `x`");
        assert_eq!(error("list[2]", &mut root), "list has 1 entries, so there is no place `2`");
    }

    #[test]
    fn what_has_changed_is_told_by_its_paths() {
        let old = json!({ "a": { "b": 1, "c": [1] }, "d": 1, "g": { "h": 1 } });
        let new = json!({ "a": { "b": 2, "c": [1] }, "e.f": 1, "g": 1 });
        assert_eq!(changed_paths(&old, &new), ["a.b", "d", "g", "[\"e.f\"]"]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z\"'\\\\/ ü]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_laid_reads_as_it_was_asked_for(
            old in prop::collection::btree_map("[a-d]{1,2}", value(), 0..4),
            new in prop::collection::btree_map("[a-d]{1,2}", value(), 0..4),
        ) {
            let (old, new): (Value, Value) = (
                Value::Object(old.into_iter().collect()), Value::Object(new.into_iter().collect()),
            );
            for text in [format!("// first\n{old:#}"), old.to_string()] {
                // The check in `lay` refuses whatever is not right; here nothing may have to be refused.
                let laid = lay(&text, &new, file()).expect("it can be laid");
                prop_assert_eq!(&json5::parse(&laid, file()).expect("JSON5"), &new);
            }
        }
    }
}
