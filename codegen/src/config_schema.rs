//! `schema/config.schema.json`: what may stand in the configuration file.

use serde_json::Value;

use crate::output::{Files, RelativePath};

/// The schema, indented, with a final newline.
#[must_use]
pub fn emit(schema: &Value) -> Files {
    Files::from([(RelativePath::new("schema/config.schema.json"), format!("{schema:#}\n"))])
}
