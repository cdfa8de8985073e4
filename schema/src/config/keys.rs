//! The JSON Schema of the configuration file, and finding a key in it.
//!
//! The schema has no references, so that a key is found by walking down. Beside the keywords of draft-07, a key has
//! `x-openclaw-reload` (`live` or `restart`), `x-openclaw-secret` where its value is one, and `x-openclaw-ignored`
//! where it is OpenClaw's and has no effect here. Making the schema takes a while: nothing that starts or calls a
//! gateway does it.

use schemars::{JsonSchema as _, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Sections,
    ignored::{self, Others},
};
use crate::{
    document::{strip_null, tidy},
    problem,
};

/// The keyword that says when a change applies.
const RELOAD: &str = "x-openclaw-reload";
/// The keyword of secrets.
const SECRET: &str = "x-openclaw-secret";
/// The keyword of keys that are OpenClaw's alone.
const IGNORED: &str = "x-openclaw-ignored";
/// Stands for the content of another file, in any object.
pub const INCLUDE: &str = "$include";

/// The schema of the file: draft-07, the same bytes for the same declarations.
#[must_use]
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let meta_schema = settings.meta_schema.take();
    let mut schema = Sections::json_schema(&mut settings.into_generator()).to_value();
    finish(&mut schema, &mut Vec::new(), "restart", true);
    tidy(&mut schema);
    let mut document = Map::new();
    document.insert("$schema".into(), json!(meta_schema));
    document.insert("title".into(), json!("OpenClaw configuration"));
    if let Value::Object(members) = schema {
        document.extend(members);
    }
    Value::Object(document)
}

/// Puts right what schemars cannot know of the key at `path`, and below. `inherited` is the mark of the parent,
/// `may_be_empty` whether a text may.
fn finish(schema: &mut Value, path: &mut Vec<String>, inherited: &str, may_be_empty: bool) {
    let Some(object) = schema.as_object_mut() else { return };
    let mark = object.get(RELOAD).and_then(Value::as_str).unwrap_or(inherited).to_owned();
    object.insert(RELOAD.into(), json!(mark));
    if object.get("type") == Some(&json!("string"))
        && !may_be_empty
        && ["enum", "const", SECRET].iter().all(|keyword| !object.contains_key(*keyword))
    {
        object.insert("minLength".into(), json!(1));
    }
    let ignored = match ignored::of(path) {
        Others::Listed(names) => names,
        Others::Anything => &[],
    };
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties.iter_mut() {
            strip_null(property);
            path.push(name.clone());
            finish(property, path, &mark, false);
            path.pop();
        }
        for name in ignored {
            properties.insert(
                (*name).to_owned(),
                json!({ "description": "OpenClaw's. It has no effect on this gateway.", IGNORED: true }),
            );
        }
    }
    if let Some(values) = object.get_mut("additionalProperties").filter(|values| values.is_object()) {
        path.push("*".to_owned());
        finish(values, path, &mark, false);
        path.pop();
        let include = json!({
            "description": "The content of another file, or of several, stands here: paths, relative to this file.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
        });
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        properties[INCLUDE] = include;
    }
    if let Some(items) = object.get_mut("items") {
        path.push("[]".to_owned());
        finish(items, path, &mark, true);
        path.pop();
    }
    for branch in object.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
        finish(branch, path, &mark, false);
        if let Some(branch) = branch.as_object_mut() {
            branch.remove(RELOAD);
        }
    }
}

/// When a change of a key applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// At once.
    Live,
    /// When the gateway starts again.
    Restart,
}

impl Applies {
    /// Its name, as in `x-openclaw-reload`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Restart => "restart",
        }
    }
}

/// A key, or a section, of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a>(&'a Value);

impl<'a> Key<'a> {
    /// The whole file, from what [`schema`] makes.
    #[must_use]
    pub const fn root(schema: &'a Value) -> Self {
        Self(schema)
    }

    /// The key at `path`, if this gateway or OpenClaw knows it. An index of a list is `[n]`.
    #[must_use]
    pub fn find(self, path: &[String]) -> Option<Self> {
        path.iter().try_fold(self, |key, name| key.child(name))
    }

    /// The key of that name in this section.
    #[must_use]
    pub fn child(self, name: &str) -> Option<Self> {
        if name.starts_with('[') {
            return self.0.get("items").map(Self);
        }
        let own = self.0.get("properties").and_then(|properties| properties.get(name));
        let any = || self.0.get("additionalProperties").filter(|values| values.is_object());
        let branches = || self.branches().find_map(|branch| branch.child(name).map(|key| key.0));
        own.or_else(any).or_else(branches).map(Self)
    }

    fn branches(self) -> impl Iterator<Item = Self> {
        self.0.get("anyOf").and_then(Value::as_array).into_iter().flatten().map(Key)
    }

    /// The names in this section, those that have no effect left out.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        let own = self.0.get("properties").and_then(Value::as_object).into_iter().flatten();
        own.filter(|(name, key)| key.get(IGNORED).is_none() && *name != INCLUDE)
            .map(|(name, _)| name.as_str())
    }

    /// What it is.
    #[must_use]
    pub fn description(self) -> &'a str {
        self.0.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    /// What holds when nobody says anything, if that is always the same.
    #[must_use]
    pub fn default(self) -> Option<&'a Value> {
        self.0.get("default")
    }

    /// Whether its value is a secret.
    #[must_use]
    pub fn is_secret(self) -> bool {
        self.0.get(SECRET).is_some()
    }

    /// Whether it is OpenClaw's and has no effect here.
    #[must_use]
    pub fn is_ignored(self) -> bool {
        self.0.get(IGNORED).is_some()
    }

    /// When a change applies.
    #[must_use]
    pub fn applies(self) -> Applies {
        match self.0.get(RELOAD).and_then(Value::as_str) {
            Some("live") => Applies::Live,
            _ => Applies::Restart,
        }
    }

    /// Whether other keys lie in it, and no value of its own.
    #[must_use]
    pub fn is_section(self) -> bool {
        let has_any = self.0.get("additionalProperties").is_some_and(Value::is_object);
        has_any || self.0.get("properties").is_some()
    }

    /// Every key in it that has a value, with its path. `*` stands for a name that the user chooses, `[]` for each
    /// entry of a list.
    #[must_use]
    pub fn leaves(self) -> Vec<(Vec<String>, Self)> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), &mut found);
        found
    }

    fn collect(self, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Self)>) {
        let mut below = |name: &str, key: Self| {
            path.push(name.to_owned());
            key.collect(path, found);
            path.pop();
        };
        for name in self.names() {
            below(name, Self(&self.0["properties"][name]));
        }
        if let Some(values) = self.0.get("additionalProperties").filter(|values| values.is_object()) {
            below("*", Self(values));
        }
        let items = self.0.get("items").filter(|items| Self(items).is_section());
        if let Some(items) = items {
            below("[]", Self(items));
        }
        if !self.is_section() && items.is_none() {
            found.push((path.clone(), self));
        }
    }

    /// `path` with its first unknown name replaced by the known one that was probably meant, if there is one.
    #[must_use]
    pub fn nearest(self, path: &[String]) -> Option<String> {
        let mut key = self;
        for (index, name) in path.iter().enumerate() {
            match key.child(name) {
                Some(child) => key = child,
                None => {
                    let nearest = problem::nearest(name, key.names())?;
                    let mut meant = path[..index].to_vec();
                    meant.push(nearest.to_owned());
                    return Some(joined(&meant));
                }
            }
        }
        None
    }
}

/// The parts of a path as it is typed: names joined by dots, `[0]` for an entry of a list, `["a.b"]` for a name with
/// dots. Empty for the whole file.
///
/// # Errors
///
/// A sentence that says what is wrong with it.
pub fn parse_path(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(bracket) = rest.strip_prefix('[') {
            let open = || format!("`{text}` has a `[` without a `]`");
            let quote = bracket.chars().next().filter(|quote| matches!(quote, '"' | '\''));
            if let Some(quote) = quote {
                let (name, after) = bracket[1..].split_once(quote).ok_or_else(open)?;
                rest = after.strip_prefix(']').ok_or_else(open)?;
                parts.push(name.to_owned());
            } else {
                let (inside, after) = bracket.split_once(']').ok_or_else(open)?;
                if inside.parse::<usize>().is_err() {
                    return Err(format!("`[{inside}]` in `{text}` is neither a number nor a quoted name"));
                }
                rest = after;
                parts.push(format!("[{inside}]"));
            }
        } else {
            let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            rest = after;
            parts.push(name.to_owned());
        }
        if parts.last().is_some_and(String::is_empty) {
            return Err(format!("`{text}` has an empty part"));
        }
        match rest.strip_prefix('.') {
            Some("") => return Err(format!("`{text}` ends with a dot")),
            Some(after) => rest = after,
            None if rest.is_empty() || rest.starts_with('[') => {}
            None => return Err(format!("`{text}` has no dot after a `]`")),
        }
    }
    Ok(parts)
}

/// The path of `parts`, as errors and sources show it: names joined by dots, entries of lists as `[0]`.
#[must_use]
pub fn joined(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        parse_path(text).expect("a path")
    }

    #[test]
    fn the_schema_is_one_and_has_no_references() {
        let schema = schema();
        jsonschema::draft7::meta::validate(&schema).expect("it is draft-07");
        let text = schema.to_string();
        for word in ["$ref", "\"null\"", "uint"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn every_key_says_what_it_is() {
        let schema = schema();
        for (path, key) in Key::root(&schema).leaves() {
            let text = key.description();
            assert!(text.ends_with('.') || path.contains(&"*".to_owned()), "{path:?}: {text:?}");
        }
    }

    #[test]
    fn what_applies_live_is_what_was_decided() {
        let schema = schema();
        let root = Key::root(&schema);
        let live: Vec<String> = root
            .leaves()
            .into_iter()
            .filter(|(_, key)| key.applies() == Applies::Live)
            .map(|(path, _)| joined(&path))
            .collect();
        let areas = [
            "gateway.auth.",
            "gateway.limits.",
            "gateway.remote.",
            "gateway.reload.",
            "gateway.nodes.",
            "gateway.trustedProxies",
            "gateway.controlUi.allowedOrigins",
            "logging.",
            "discovery.",
            "commands.restart",
        ];
        for area in areas {
            assert!(live.iter().any(|key| key.starts_with(area)), "{area}");
        }
        for key in live {
            assert!(areas.iter().any(|area| key.starts_with(area)), "{key}");
        }
    }

    #[test]
    fn secrets_are_marked() {
        let schema = schema();
        let root = Key::root(&schema);
        for secret in [
            "gateway.auth.token",
            "gateway.auth.password",
            "gateway.remote.token",
            "gateway.remote.password",
            "models.providers.x.apiKey",
            "models.providers.x.headers.y",
            "agents.defaults.cliBackends.x.env.Y",
            "env.vars.X",
        ] {
            assert!(root.find(&path(secret)).expect(secret).is_secret(), "{secret}");
        }
        assert!(!root.find(&path("gateway.port")).expect("a key").is_secret());
    }

    #[test]
    fn a_key_is_found_by_its_path() {
        let schema = schema();
        let root = Key::root(&schema);
        let find = |text: &str| root.find(&path(text));
        assert_eq!(find("gateway.bind").expect("a key").default(), Some(&json!("loopback")));
        assert!(find("gateway.auth").expect("a section").is_section());
        assert!(find("models.providers.local.models[0].cost.input").is_some());
        assert!(find("agents.entries.main.model.primary").is_some());
        assert!(find("agents.defaults.models[\"local/m.1\"].alias").is_some());
        assert!(find("gateway.auth.allowTailscale").expect("a key").is_ignored());
        assert!(find("gateway.prot").is_none());
        for (given, meant) in [
            ("gateway.prot", Some("gateway.port")),
            ("gatway.port", Some("gateway")),
            ("gateway.auth.tokn.x", Some("gateway.auth.token")),
            ("zzz", None),
        ] {
            assert_eq!(root.nearest(&path(given)).as_deref(), meant, "{given}");
        }
    }

    #[test]
    fn paths_are_typed_in_three_ways() {
        for (text, parts) in [
            ("", &[][..]),
            ("a.b", &["a", "b"]),
            ("a[0].b", &["a", "[0]", "b"]),
            ("a[\"x.y\"].b", &["a", "x.y", "b"]),
            ("a['x']", &["a", "x"]),
        ] {
            assert_eq!(parse_path(text).expect("a path"), parts, "{text}");
        }
        assert_eq!(joined(&path("a[0].b")), "a[0].b");
        for bad in ["a..b", "a.", ".a", "a[", "a[x]"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
    }
}
