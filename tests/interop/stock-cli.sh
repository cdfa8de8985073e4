#!/usr/bin/env bash
# The stock command line on this gateway. Prints a table; not part of CI, as the stock package is a large download.
#
#   npm install --prefix ~/peers node@24.16 openclaw@2026.9.6
#   STOCK=~/peers/node_modules tests/interop/stock-cli.sh target/release/openclaw
set -euo pipefail

ours=$(realpath "${1:-target/release/openclaw}")
stock=${STOCK:?set STOCK to the node_modules directory that has node and openclaw}
port=${PORT:-21996}
home=$(mktemp -d)
export PATH="$stock/node/bin:$stock/.bin:$PATH"

HOME=$home "$ours" gateway run --allow-unconfigured --bind loopback --port "$port" --token secret \
    >"$home/out.log" 2>&1 &
gateway=$!
trap 'kill "$gateway" 2>/dev/null; wait "$gateway" 2>/dev/null; rm -rf "$home"' EXIT
until curl -sf "http://127.0.0.1:$port/readyz" >/dev/null; do sleep 0.1; done

failed=0
row() {
    local want=$1 expected=$2
    shift 2
    local said code=0 verdict=ok
    said=$(HOME=$home timeout 30 openclaw gateway "$@" --url "ws://127.0.0.1:$port" --token "${TOKEN:-secret}" 2>&1) || code=$?
    if [[ $code != "$want" || $said != *"$expected"* ]]; then
        verdict=FAILED
        failed=1
    fi
    printf '%-72s %4s  %-6s %s\n' "$*" "$code" "$verdict" "$expected"
}

printf '%-72s %4s  %-6s %s\n' 'openclaw gateway …' exit verdict expected
row 0 '"ok": true' call health
row 0 '"runtimeVersion"' call status
row 0 '"lines": [' call logs.tail --params '{"limit":5}'
row 0 '"mode": "gateway"' call system-presence
row 0 '"status": "accepted"' call agent --params '{"message":"hi","idempotencyKey":"k1"}'
row 0 'You said: hi' call agent --params '{"message":"hi","idempotencyKey":"k2"}' --expect-final
row 0 '"status": "started"' call chat.send --params '{"sessionKey":"main","message":"hello","idempotencyKey":"k3"}'
row 0 '"messages": [' call chat.history --params '{"sessionKey":"main"}'
row 0 '"sessions": [' call sessions.list
row 0 '"paired": [' call device.pair.list
row 1 'unknown method: nope' call nope
row 0 'OK (' health
row 0 'Reachable: yes' probe
TOKEN=wrong row 1 'gateway token mismatch' call health
exit "$failed"
