//! `schema/openrpc.json`: the document itself.

use serde_json::Value;

use crate::output::{Files, RelativePath};

/// The document, indented, with a final newline.
#[must_use]
pub fn emit(document: &Value) -> Files {
    Files::from([(RelativePath::new("schema/openrpc.json"), format!("{document:#}\n"))])
}
