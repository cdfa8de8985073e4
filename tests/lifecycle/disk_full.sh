#!/usr/bin/env bash
# What becomes of the log when the disk is full, and when it is read-only: one warning on stderr, lines shown there, calls
# served as ever, and the file goes on when there is room again. Needs root, for a file system of 256 KiB in a mount
# namespace of its own.
#
#   tests/lifecycle/disk_full.sh [path/to/openclaw]
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
    root=$(cd "$(dirname "$0")/../.." && pwd)
    exec unshare --mount bash "$0" --inside "$(realpath "${1:-$root/target/release/openclaw}")"
fi
binary=$2
home=$(mktemp -d)
pid=
finish() {
    [[ -z $pid ]] || kill -TERM "$pid" 2>/dev/null || true
    [[ -z $pid ]] || wait "$pid" 2>/dev/null || true
    umount "$home/disk" 2>/dev/null || true
    rm -rf "$home"
}
trap finish EXIT
fail() {
    echo "FAILED: $*" >&2
    tail -20 "$home/err" >&2
    exit 1
}
within() { # seconds command…
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}
run() { env -i HOME="$home" PATH="$PATH" "$binary" "$@"; }
says() { grep -qF -- "$1" "$home/err"; }
logged() { grep -qsF -- "$1" "$home/disk/openclaw.log"; }
warnings() { grep -c "cannot be written" "$home/err" || true; }
serves() { run gateway call health >/dev/null 2>&1; }
# Some lines of the log, at debug level: each connection has its own.
write_lines() { run gateway call health >/dev/null; }

mkdir -p "$home/disk" "$home/.openclaw"
chmod 700 "$home/.openclaw"
mount -t tmpfs -o size=256k tmpfs "$home/disk"
echo "{ gateway: { mode: 'local' }, logging: { file: '$home/disk/openclaw.log', level: 'debug', consoleLevel: 'error' } }" \
    >"$home/.openclaw/openclaw.json"
chmod 600 "$home/.openclaw/openclaw.json"
env -i HOME="$home" PATH="$PATH" "$binary" gateway run --port 0 >"$home/out" 2>"$home/err" &
pid=$!
within 10 logged "listening on" || fail "the gateway does not start"

dd if=/dev/zero of="$home/disk/ballast" bs=1k count=1000 2>/dev/null || true
# What is left of the last page is filled too.
for _ in {1..40}; do write_lines; done
within 10 says "cannot be written" || fail "a full disk is not told"
within 10 says "WebSocket open" || fail "lines are not shown on stderr"
run gateway call health >/dev/null || fail "calls are not served"
rm "$home/disk/ballast"
within 10 says "is written again" || fail "it does not recover"
[[ $(warnings) == 1 ]] || fail "$(warnings) warnings instead of one"
before=$(wc -l <"$home/disk/openclaw.log")
write_lines
more() { (($(wc -l <"$home/disk/openclaw.log") > before)); }
within 10 more || fail "the file does not go on"
while read -r line; do
    [[ $line == "{"*"}" ]] || fail "half a line: $line"
done <"$home/disk/openclaw.log"
echo "ok: a full disk"

kill -TERM "$pid"
wait "$pid" || fail "exit $?"
pid=
mount -o remount,ro "$home/disk"
env -i HOME="$home" PATH="$PATH" "$binary" gateway run --port 0 >"$home/out" 2>"$home/err" &
pid=$!
within 10 says "cannot be written" || fail "a read-only disk is not told"
within 10 serves || fail "calls are not served"
mount -o remount,rw "$home/disk"
within 10 says "is written again" || fail "it does not recover"
[[ $(warnings) == 1 ]] || fail "$(warnings) warnings instead of one"
echo "ok: a read-only disk"
