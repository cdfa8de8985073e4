//! Says what is wrong with given params: where, why, what is allowed, and what was probably meant.
//!
//! The hot path parses params once. Only when that fails are they parsed again here, with path tracking.

use serde::de::DeserializeOwned;

use crate::error::{ErrorCode, RpcError};

/// What is wrong with given params.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamProblem {
    /// Where: a JSON Pointer (RFC 6901); empty for the params object itself.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
    /// The names or values that are allowed there.
    pub allowed: Vec<String>,
    /// The allowed name or value nearest to the given one.
    pub nearest: Option<String>,
}

impl ParamProblem {
    /// The error that a caller of `method` sees.
    #[must_use]
    pub fn into_error(self, method: &str) -> RpcError {
        let place = if self.path.is_empty() { String::new() } else { format!(" at {}", self.path) };
        let hint =
            self.nearest.as_ref().map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
        let mut error = RpcError::new(
            ErrorCode::InvalidParams,
            format!("invalid {method} params{place}: {}{hint}", self.reason),
        );
        error.data.method = Some(method.to_owned());
        error.data.path = Some(self.path);
        error.data.reason = Some(self.reason);
        error.data.allowed = self.allowed;
        error.data.nearest = self.nearest;
        error
    }
}

/// Parses `text` as the params type `T`, with path tracking.
///
/// # Errors
///
/// The first problem found.
pub(crate) fn check<T: DeserializeOwned>(text: &str) -> Result<(), ParamProblem> {
    // A struct also reads a JSON array, by position: the contract has no positional params.
    if !text.trim_start().starts_with('{') {
        return Err(not_an_object(text));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let error = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let mut path = pointer(error.path());
    let mut reason = error.into_inner().to_string();
    // The position in one-line JSON helps nobody.
    if let Some(position) = reason.rfind(" at line ") {
        reason.truncate(position);
    }
    let quoted: Vec<String> = reason.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let mut problem = ParamProblem { path: String::new(), reason, allowed: Vec::new(), nearest: None };
    if let Some((given, allowed)) = quoted.split_first()
        && (problem.reason.starts_with("unknown field") || problem.reason.starts_with("unknown variant"))
    {
        problem.nearest = nearest(given, allowed.iter().map(String::as_str)).map(str::to_owned);
        problem.allowed = allowed.to_vec();
        // serde's path ends at the unknown field itself; the fault lies with the object that holds it.
        if problem.reason.starts_with("unknown field") {
            if let Some(parent) = path.strip_suffix(&format!("/{}", escape(given))) {
                path.truncate(parent.len());
            }
            problem.reason = format!("unknown field `{given}`");
        } else {
            problem.reason = format!("unknown value `{given}`");
        }
        if !problem.allowed.is_empty() {
            problem.reason.push_str("; allowed: ");
            problem.reason.push_str(&problem.allowed.join(", "));
        }
    }
    problem.path = path;
    Err(problem)
}

/// The problem of params that are no object: by name is the only way (JSON-RPC 2.0 section 4.2).
#[must_use]
pub fn not_an_object(text: &str) -> ParamProblem {
    let kind = match text.trim_start().as_bytes().first() {
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    let reason = format!("params must be an object (by name), not {kind}");
    ParamProblem { path: String::new(), reason, allowed: Vec::new(), nearest: None }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The candidate that was probably meant, if one is near enough: equal but for case, or alike by at least
/// 0.7 on the Jaro-Winkler scale.
#[must_use]
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::logs::LogsTailParams;

    fn problem(text: &str) -> ParamProblem {
        check::<LogsTailParams>(text).expect_err("the params are wrong")
    }

    #[test]
    fn unknown_field_offers_the_nearest() {
        let problem = problem(r#"{"sinceMS": 1}"#);
        assert_eq!(problem.path, "");
        assert_eq!(problem.nearest.as_deref(), Some("sinceMs"));
        assert!(problem.reason.starts_with("unknown field `sinceMS`; allowed: "), "{}", problem.reason);
    }

    #[test]
    fn wrong_type_and_bound_name_the_path() {
        assert_eq!(problem(r#"{"limit": "many"}"#).path, "/limit");
        let bound = problem(r#"{"limit": 0}"#);
        assert_eq!((bound.path.as_str(), bound.reason.as_str()), ("/limit", "must be from 1 to 5000, not 0"));
    }

    #[test]
    fn positional_params_are_refused() {
        assert_eq!(problem("[60000]").reason, "params must be an object (by name), not an array");
    }

    #[test]
    fn nearest_is_silent_when_nothing_is_near() {
        assert_eq!(nearest("zzz", ["limit", "cursor"]), None);
        assert_eq!(nearest("LIMIT", ["limit", "cursor"]), Some("limit"));
    }
}
