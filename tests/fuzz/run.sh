#!/usr/bin/env bash
# Fuzzes one decoder: tests/fuzz/run.sh frame|connect [seconds]
#
# Needs no nightly toolchain and no cargo-fuzz: the instrumentation is asked of the stable compiler. With cargo-fuzz
# installed, `cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none frame` does the same. No sanitizer: the workspace
# has no unsafe code. New inputs go to a folder under target/, so that the committed corpus stays small; what is found is
# written to artifacts/, and belongs into corpus/ once it is mended, where the property tests replay it.
set -euo pipefail
cd "$(dirname "$0")"

target=${1:?usage: tests/fuzz/run.sh frame|connect [seconds]}
seconds=${2:-60}
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions"
host=$(rustc -vV | sed -n 's/^host: //p')

# With a target named, build scripts and macros are left as they are.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$coverage" cargo build --release --target "$host" --bin "$target"
mkdir -p "target/corpus/$target" artifacts
"target/$host/release/$target" -max_total_time="$seconds" -max_len=4096 -artifact_prefix="artifacts/$target-" \
    -print_final_stats=1 "target/corpus/$target" "corpus/$target"
