//! Changes of the configuration that callers ask for. They have seen it without its secrets, and perhaps some time ago: the
//! hash says of which content they speak, and secrets that they send back hidden are put back.

use openclaw_schema::methods::config::REDACTED;
use serde_json::{Map, Value};

use super::{
    ConfigError, ConfigFile,
    edit::{EditError, changed_paths, has_comments, lay, plain, written},
    json5,
    save::save,
};
use crate::reload::Refused;

/// What is to become of the configuration.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// This takes the place of all of it.
    Replace {
        /// JSON5.
        raw: String,
    },
    /// This is merged into it (RFC 7396).
    Patch {
        /// JSON5.
        raw: String,
        /// Arrays that may lose entries.
        replace_paths: Vec<String>,
    },
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The configuration as it is now, secrets hidden.
    pub(crate) config: Map<String, Value>,
    /// Names the content of the file.
    pub(crate) hash: String,
    /// The paths that differ from before; empty when the file was left alone.
    pub(crate) paths: Vec<String>,
}

/// Why the configuration was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(
        "the configuration exists, so baseHash must say which content is changed: send `hash` of config.get"
    )]
    BaseMissing,
    #[error("the configuration has changed since baseHash: read it again with config.get, and send its hash")]
    BaseStale,
    #[error("{0}")]
    Raw(String),
    #[error("{path} is {REDACTED}, and no secret is stored there: give the secret, or leave it out")]
    NothingHidden { path: String },
    #[error(
        "{path} would lose entries: send all of them, or name {path} in replacePaths if that is what you want"
    )]
    Shrinks { path: String },
    #[error("{0}")]
    Invalid(Refused),
    #[error(transparent)]
    Edit(#[from] EditError),
}

impl From<ConfigError> for ChangeError {
    fn from(error: ConfigError) -> Self {
        Self::Edit(error.into())
    }
}

impl ConfigFile {
    /// Changes the file, whose content `base` names, if `check` finds nothing wrong with what it would be. Blocks.
    pub(crate) fn change(
        &self,
        change: &Change,
        base: Option<&str>,
        check: &dyn Fn(&str) -> Result<(), Refused>,
    ) -> Result<Changed, ChangeError> {
        let (Change::Replace { raw } | Change::Patch { raw, .. }) = change;
        let given = json5::parse(raw, "raw".as_ref()).map_err(|error| {
            // The lines after the first are an excerpt.
            ChangeError::Raw(error.to_string().lines().next().unwrap_or_default().to_owned())
        })?;
        if !given.is_object() {
            return Err(ChangeError::Raw("raw must be an object".to_owned()));
        }
        let mut outcome = None;
        save(self.path(), |text| {
            self.ensure_base(text, base)?;
            let (old, new, after) = self.edited(change, &given, text)?;
            check(&after).map_err(ChangeError::Invalid)?;
            outcome = Some(Changed {
                config: self.secrets(&new).redact(&new).as_object().cloned().unwrap_or_default(),
                hash: self.hash(true, &after),
                paths: changed_paths(&old, &new),
            });
            Ok::<_, ChangeError>(after)
        })?;
        Ok(outcome.expect("what was saved was made"))
    }

    fn ensure_base(&self, text: Option<&str>, base: Option<&str>) -> Result<(), ChangeError> {
        match (text, base) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(ChangeError::BaseMissing),
            (text, Some(base)) if base == self.hash(text.is_some(), text.unwrap_or_default()) => Ok(()),
            (_, Some(_)) => Err(ChangeError::BaseStale),
        }
    }

    /// The values before and after a change, and the text after it.
    fn edited(
        &self,
        change: &Change,
        given: &Value,
        text: Option<&str>,
    ) -> Result<(Value, Value, String), ChangeError> {
        let text = text.unwrap_or_default();
        let old = json5::parse(text, self.path());
        match change {
            Change::Replace { raw } => {
                // A file that is broken can be replaced; of its secrets none is known.
                let (text, old) = match old {
                    Ok(old) => (text, old),
                    Err(_) => ("", Value::Object(Map::new())),
                };
                let mut new = given.clone();
                self.put_back(&mut new, &old)?;
                // Who writes comments means them. Otherwise those of the file stay, which the caller has never seen.
                let own = || lay(raw, &new, "raw".as_ref());
                let after = if text.trim().is_empty() || has_comments(raw) {
                    own()
                } else {
                    lay(text, &new, self.path()).or_else(|_| own())
                };
                let after = after.unwrap_or_else(|_| plain(&new));
                Ok((old, new, after))
            }
            Change::Patch { replace_paths, .. } => {
                let old = old?;
                let shown = self.secrets(&old).redact(&old);
                let mut new = old.clone();
                merge(&mut new, &shown, given, "", replace_paths)?;
                self.put_back(&mut new, &old)?;
                let after = lay(text, &new, self.path())?;
                Ok((old, new, after))
            }
        }
    }

    /// Puts the secrets of `old` in the places of `new` where they are hidden.
    fn put_back(&self, new: &mut Value, old: &Value) -> Result<(), ChangeError> {
        put_back(new, Some((old, &self.secrets(old).redact(old))), &mut Vec::new())
    }
}

/// `old` is what is stored at the place of `new`, and how it is shown.
fn put_back(
    new: &mut Value,
    old: Option<(&Value, &Value)>,
    way: &mut Vec<String>,
) -> Result<(), ChangeError> {
    let nothing = |way: &[String]| Err(ChangeError::NothingHidden { path: written(way) });
    match new {
        Value::String(text) if text.contains(REDACTED) => match old {
            Some((old, Value::String(shown))) if shown == REDACTED && text == REDACTED => {
                *new = old.clone();
                Ok(())
            }
            _ => nothing(way),
        },
        Value::Object(map) => {
            for (key, value) in map {
                way.push(key.clone());
                if key.contains(REDACTED) {
                    return nothing(way);
                }
                let old = old.and_then(|(old, shown)| Some((old.get(key)?, shown.get(key)?)));
                put_back(value, old, way)?;
                way.pop();
            }
            Ok(())
        }
        Value::Array(items) => {
            let stored = old.and_then(|(old, shown)| Some((old.as_array()?, shown.as_array()?)));
            let length = items.len();
            for (place, item) in items.iter_mut().enumerate() {
                way.push(place.to_string());
                let old = stored.and_then(|(old, shown)| {
                    let place = counterpart(item, place, length, shown)?;
                    Some((old.get(place)?, shown.get(place)?))
                });
                put_back(item, old, way)?;
                way.pop();
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// The place of a stored array that an entry of a new one stands for: by its id, by its looks, or by its own place if
/// the arrays are equally long.
fn counterpart(item: &Value, place: usize, length: usize, shown: &[Value]) -> Option<usize> {
    if let Some(id) = id_of(item) {
        return shown.iter().position(|shown| id_of(shown) == Some(id));
    }
    if shown.get(place) == Some(item) {
        return Some(place);
    }
    let mut alike = shown.iter().enumerate().filter(|(_, shown)| *shown == item).map(|(place, _)| place);
    match (alike.next(), alike.next()) {
        (Some(only), None) => Some(only),
        // Two that look alike may hide different secrets.
        (Some(_), Some(_)) => None,
        (None, _) => (length == shown.len()).then_some(place),
    }
}

fn id_of(item: &Value) -> Option<&str> {
    item.get("id").and_then(Value::as_str)
}

/// Merges `patch` into `target`, which is shown as `shown` (RFC 7396). Arrays lose no entries unless their paths are
/// among `replace`: what callers have seen may have been cut.
fn merge(
    target: &mut Value,
    shown: &Value,
    patch: &Value,
    path: &str,
    replace: &[String],
) -> Result<(), ChangeError> {
    let Value::Object(patch) = patch else {
        let is_allowed = replace.iter().any(|allowed| allowed == path);
        match (&mut *target, patch) {
            (Value::Array(old), Value::Array(new)) if !is_allowed => {
                let shown = shown.as_array().map_or(&[][..], Vec::as_slice);
                return merge_array(old, shown, new, path, replace);
            }
            _ => ensure_may_go(target, path, replace)?,
        }
        *target = patch.clone();
        return Ok(());
    };
    if !target.is_object() {
        ensure_may_go(target, path, replace)?;
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    for (key, value) in patch {
        let path = below(path, key);
        if value.is_null() {
            if let Some(old) = target.get(key) {
                ensure_may_go(old, &path, replace)?;
            }
            target.shift_remove(key);
            continue;
        }
        let shown = shown.get(key).unwrap_or(&Value::Null);
        merge(target.entry(key.clone()).or_insert(Value::Null), shown, value, &path, replace)?;
    }
    Ok(())
}

/// Merges the entries of an array: by their ids where all have one, otherwise the new ones must contain the old ones.
fn merge_array(
    old: &mut Vec<Value>,
    shown: &[Value],
    new: &[Value],
    path: &str,
    replace: &[String],
) -> Result<(), ChangeError> {
    let have_ids = |items: &[Value]| !items.is_empty() && items.iter().all(|item| id_of(item).is_some());
    if have_ids(old) && have_ids(new) {
        let path = format!("{path}[]");
        for item in new {
            match old.iter().position(|old| id_of(old) == id_of(item)) {
                Some(place) => {
                    let shown = shown.get(place).unwrap_or(&Value::Null);
                    merge(&mut old[place], shown, item, &path, replace)?;
                }
                None => old.push(item.clone()),
            }
        }
        return Ok(());
    }
    let mut left: Vec<&Value> = new.iter().collect();
    for (place, item) in old.iter().enumerate() {
        let is_it = |new: &&Value| **new == *item || shown.get(place) == Some(*new);
        let found = left.iter().position(is_it);
        left.swap_remove(found.ok_or_else(|| ChangeError::Shrinks { path: path.to_owned() })?);
    }
    *old = new.to_vec();
    Ok(())
}

/// Whether what stands at `path` may go: the arrays in it must be among `replace`, the outermost ones.
fn ensure_may_go(value: &Value, path: &str, replace: &[String]) -> Result<(), ChangeError> {
    match value {
        Value::Array(_) if replace.iter().any(|allowed| allowed == path) => Ok(()),
        Value::Array(_) => Err(ChangeError::Shrinks { path: path.to_owned() }),
        Value::Object(map) => {
            map.iter().try_for_each(|(key, value)| ensure_may_go(value, &below(path, key), replace))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn below(path: &str, key: &str) -> String {
    let key = written(&[key]);
    if path.is_empty() || key.starts_with('[') { format!("{path}{key}") } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::Auth;

    struct Bench {
        directory: tempfile::TempDir,
        file: ConfigFile,
    }

    const TEXT: &str = "// mine\n{\n  gateway: {\n    mode: 'local', // here\n    auth: {token: 'hush-one'},\n  },\n  list: ['a', 'b'],\n  bots: [{id: 'x', token: 'hush-x'}, {id: 'y', token: 'hush-y'}],\n}\n";

    impl Bench {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("openclaw.json");
            std::fs::write(&path, text).expect("it writes");
            let file = ConfigFile::new(path, &Auth::None).expect("there are random numbers");
            Self { directory, file }
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.directory.path().join("openclaw.json")).expect("it reads")
        }

        fn change(&self, change: &Change) -> Result<Changed, ChangeError> {
            let hash = self.file.read().hash;
            self.file.change(change, Some(&hash), &|_| Ok(()))
        }

        fn patch(&self, raw: &Value, replace: &[&str]) -> Result<Changed, ChangeError> {
            let replace_paths = replace.iter().map(|path| (*path).to_owned()).collect();
            self.change(&Change::Patch { raw: raw.to_string(), replace_paths })
        }

        fn replace(&self, raw: &str) -> Result<Changed, ChangeError> {
            self.change(&Change::Replace { raw: raw.to_owned() })
        }

        fn value(&self) -> Value {
            json5::parse(&self.text(), self.file.path()).expect("JSON5")
        }
    }

    #[test]
    fn a_patch_keeps_comments_and_deletes_with_null() {
        let bench = Bench::new(TEXT);
        let patch =
            json!({ "gateway": { "mode": null, "port": 19001 }, "logging": { "level": "debug", "x": null } });
        let changed = bench.patch(&patch, &[]).expect("it is patched");
        assert_eq!(changed.paths, ["gateway.mode", "gateway.port", "logging"]);
        assert!(bench.text().starts_with("// mine") && !bench.text().contains("local"), "{}", bench.text());
        assert_eq!(bench.value()["logging"], json!({ "level": "debug" }));
        assert_eq!(changed.config["gateway"]["auth"]["token"], REDACTED);
        assert_eq!(changed.hash, bench.file.read().hash);
        assert!(
            bench.patch(&json!({ "gateway": { "port": 19001 } }), &[]).expect("nothing").paths.is_empty()
        );
    }

    #[test]
    fn hidden_secrets_are_put_back_and_refused_where_there_is_none() {
        let bench = Bench::new(TEXT);
        let seen = bench.file.read().raw.expect("it is shown");
        let changed = bench.replace(&seen).expect("what was seen is sent back");
        assert!(changed.paths.is_empty(), "{:?}", changed.paths);
        assert_eq!(bench.text(), TEXT, "not one byte differs");
        let turned = json!({ "bots": [{ "id": "y", "token": REDACTED }, { "id": "x", "token": REDACTED }] });
        bench.replace(&turned.to_string()).expect("by their ids");
        assert_eq!(bench.value()["bots"][0]["token"], "hush-y");
        for (raw, path) in [
            (json!({ "gateway": { "auth": { "password": REDACTED } } }), "gateway.auth.password"),
            (json!({ "gateway": { "mode": REDACTED } }), "gateway.mode"),
            (json!({ "x": format!("Bearer {REDACTED}") }), "x"),
            (json!({ "bots": [{ "id": "z", "token": REDACTED }] }), "bots.2.token"),
        ] {
            let before = bench.text();
            let error = bench.patch(&raw, &[]).expect_err("there is no such secret");
            assert!(error.to_string().starts_with(&format!("{path} is {REDACTED}")), "{error}");
            assert_eq!(bench.text(), before);
        }
    }

    #[test]
    fn a_stale_or_missing_hash_is_a_conflict() {
        let bench = Bench::new(TEXT);
        let change = Change::Patch { raw: "{a: 1}".to_owned(), replace_paths: Vec::new() };
        let old = bench.file.read().hash;
        let refused = |base| bench.file.change(&change, base, &|_| Ok(())).expect_err("it is refused");
        assert!(matches!(refused(None), ChangeError::BaseMissing));
        bench.patch(&json!({ "b": 1 }), &[]).expect("it is patched");
        assert!(matches!(refused(Some(&old)), ChangeError::BaseStale));
        std::fs::remove_file(bench.file.path()).expect("it goes");
        assert!(matches!(refused(Some(&old)), ChangeError::BaseStale), "a file that is gone has changed");
        bench.file.change(&change, None, &|_| Ok(())).expect("a first configuration needs no hash");
    }

    #[test]
    fn an_array_loses_entries_only_if_that_is_said() {
        let bench = Bench::new(TEXT);
        for (patch, path) in [
            (json!({ "list": ["a"] }), "list"),
            (json!({ "list": null }), "list"),
            (json!({ "list": 1 }), "list"),
            (json!({ "bots": null }), "bots"),
        ] {
            let error = bench.patch(&patch, &[]).expect_err("entries would be lost");
            assert!(matches!(&error, ChangeError::Shrinks { path: told } if told == path), "{error}");
        }
        bench.patch(&json!({ "list": ["b", "c", "a"] }), &[]).expect("nothing is lost");
        bench.patch(&json!({ "list": ["c"] }), &["list"]).expect("it is said");
        bench.patch(&json!({ "bots": [{ "id": "y", "name": "Bee" }] }), &[]).expect("by ids");
        assert_eq!(bench.value()["list"], json!(["c"]));
        assert_eq!(bench.value()["bots"][0]["token"], "hush-x");
        assert_eq!(bench.value()["bots"][1], json!({ "id": "y", "token": "hush-y", "name": "Bee" }));
    }

    #[test]
    fn comments_of_the_caller_count_and_otherwise_those_of_the_file_stay() {
        let bench = Bench::new("// mine\n{a: 1, b: 2}\n");
        bench.replace("{\"a\": 1, \"b\": 3}").expect("it is replaced");
        assert_eq!(bench.text(), "// mine\n{a: 1, b: 3}\n");
        bench.replace("{a: 4} // yours\n").expect("it is replaced");
        assert_eq!(bench.text(), "{a: 4} // yours\n");
    }

    #[test]
    fn a_broken_file_can_be_replaced_but_not_patched() {
        let bench = Bench::new("{a: 1 oops");
        let error = bench.patch(&json!({ "a": 1 }), &[]).expect_err("there is nothing to merge into");
        assert!(error.to_string().contains("openclaw.json:1:"), "{error}");
        bench.replace("{a: 2}").expect("it is replaced");
        assert_eq!(bench.text(), "{a: 2}");
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let bench = Bench::new(TEXT);
        let hash = bench.file.read().hash;
        let refuse = |_: &str| Err(Refused { message: "no".to_owned(), key: None });
        let change = Change::Replace { raw: "{a: 1}".to_owned() };
        assert!(matches!(bench.file.change(&change, Some(&hash), &refuse), Err(ChangeError::Invalid(_))));
        for raw in ["[1]", "{a: ", "1"] {
            assert!(matches!(bench.replace(raw), Err(ChangeError::Raw(_))), "{raw}");
        }
        assert_eq!(bench.text(), TEXT);
    }
}
