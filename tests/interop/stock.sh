#!/bin/sh
# Our command line on a stock OpenClaw gateway: starts one, makes calls, prints a table of what came.
#
#   PATH=<where openclaw 2026.9.6 and Node 24.16 are>:$PATH tests/interop/stock.sh [path to our binary]
#
# Not part of CI: the stock package is a large download (`npm i openclaw@2026.9.6`). Both sides get a home of their
# own; the gateway binds to loopback, and is stopped at the end. PORT chooses its port, 21480 by default; the next
# port is used as well.
set -u

ours=${1:-target/debug/openclaw}
port=${PORT:-21480}
work=$(mktemp -d)
gateway=
failed=0

case $ours in
    /*) ;;
    *) ours=$PWD/$ours ;;
esac
stock=$(command -v openclaw) || {
    echo "error: no stock openclaw on PATH; install it with \`npm i openclaw@2026.9.6\`" >&2
    exit 2
}
[ -x "$ours" ] || {
    echo "error: $ours is not there; build it with \`cargo build\`" >&2
    exit 2
}

stop() {
    if [ -n "$gateway" ]; then
        kill "$gateway" 2>/dev/null
        wait "$gateway" 2>/dev/null
    fi
    gateway=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Starts a stock gateway on port $1 with the flags that follow, and waits until it answers.
start() {
    on=$1
    shift
    HOME=$work/stock-$on "$stock" gateway run --bind loopback --port "$on" --allow-unconfigured "$@" \
        >"$work/gateway.log" 2>&1 &
    gateway=$!
    tries=0
    until curl -sf "http://127.0.0.1:$on/readyz" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 120 ] || ! kill -0 "$gateway" 2>/dev/null; then
            echo "error: the stock gateway did not start:" >&2
            tail -5 "$work/gateway.log" >&2
            exit 1
        fi
        sleep 0.5
    done
}

# One row: what is expected (exit code, then a text in the output), and the arguments of our command line.
row() {
    code=$1 text=$2
    shift 2
    output=$(HOME=$work/ours "$ours" "$@" 2>&1 </dev/null)
    got=$?
    verdict=ok
    if [ "$got" -ne "$code" ] || ! printf '%s\n' "$output" | grep -qF -- "$text"; then
        verdict=FAILED
        failed=1
    fi
    shown=$(printf '%s' "$*" | sed "s/ --url .*//; s/ --port .*//")
    printf '%-58s %4s %6s  %-7s %s\n' "$shown" "$code" "$got" "$verdict" "$text"
    if [ "$verdict" = FAILED ]; then
        printf '%s\n' "$output" | head -20 | sed 's/^/    /'
    fi
}

mkdir -p "$work/ours"
"$stock" --version
"$ours" --version
printf '%-58s %4s %6s  %-7s %s\n' command exit came verdict expected
url=ws://127.0.0.1:$port

start "$port" --token secret
set -- --url "$url" --token secret
row 0 '"ok": true' gateway call health "$@"
row 0 '"runtimeVersion"' gateway call status "$@"
row 0 '"lines": [' gateway call logs.tail --params '{"limit":5}' "$@"
row 0 '"mode": "gateway"' gateway call system-presence "$@"
row 0 '"sessions": [' gateway call sessions.list "$@"
row 0 '"status": "accepted"' gateway call agent --message hi "$@"
row 1 'error: the run failed' gateway call agent --message hi --expect-final "$@"
row 1 '"code": "UNAVAILABLE"' gateway call agent --message hi --expect-final --json "$@"
row 1 'unknown method: nope.nope' gateway call nope.nope "$@"
row 0 '"ok": true' gateway health --json "$@"
row 0 'OK (' gateway health "$@"
row 0 'OK: the gateway answers' gateway probe --timeout 10000 "$@"
row 0 'OK: the gateway answers' gateway status "$@"
row 0 '"ok": true' gateway call health --url "$url" --password secret
row 4 'gateway token mismatch' gateway call health --url "$url" --token wrong
row 4 '"AUTH_TOKEN_MISMATCH"' gateway call health --json --url "$url" --token wrong
stop

# Without a shared secret a gateway wants a device: the first call makes and pairs one, the next use its token.
start $((port + 1)) --auth none
row 0 '"ok": true' gateway call health --port $((port + 1))
row 0 '"approvedVia": "silent"' gateway call device.pair.list --port $((port + 1))
row 0 '"sessions": [' gateway call sessions.list --port $((port + 1))

exit $failed
