//! Committed files that are generated are what the sources make of them now.

use std::path::Path;

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the suite is a folder of the workspace")
}

#[test]
fn generated_files_are_up_to_date() {
    let report = openclaw_codegen::check(workspace()).expect("the files can be read");
    assert!(report.is_current(), "{report}");
}
