//! What `#[contract]` accepts, and what it says about each fault. See `contract/README.md`.

#[test]
fn declarations_build_or_say_what_is_wrong() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/contract/pass/*.rs");
    cases.compile_fail("tests/contract/fail/*.rs");
}
