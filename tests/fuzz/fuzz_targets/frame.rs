//! Fuzzes the decoder of a message of a connection that is past its handshake. The body is in `tests/src/decoding.rs`.

#![no_main]

#[path = "../../src/decoding.rs"]
#[allow(dead_code, reason = "each target calls one function of it")]
mod decoding;

libfuzzer_sys::fuzz_target!(|text: &str| decoding::frame(text));
