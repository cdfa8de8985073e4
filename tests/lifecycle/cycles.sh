#!/usr/bin/env bash
# Starts a gateway again and again, and ends it by SIGKILL and by SIGTERM, with work in flight: nothing may be left over
# that the next start trips on.
#
#   tests/lifecycle/cycles.sh                      100 cycles each, with target/release/openclaw
#   tests/lifecycle/cycles.sh 10 path/to/openclaw
#
# Prints a table, and exits with 1 when a start failed or took a second, a process was left, or a file was truncated.
set -euo pipefail

cycles=${1:-100}
root=$(cd "$(dirname "$0")/../.." && pwd)
binary=$(realpath "${2:-$root/target/release/openclaw}")
home=$(mktemp -d)
state=$home/.openclaw/gateway
port=${OPENCLAW_CYCLES_PORT:-}
pid=

finish() {
    [[ -z $pid ]] || kill -KILL "$pid" 2>/dev/null || true
    rm -rf "$home"
}
trap finish EXIT

run() { env -i HOME="$home" PATH="$PATH" "$binary" "$@"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# The first start takes a free port; all others must get the same one.
start() {
    env -i HOME="$home" PATH="$PATH" "$binary" gateway run --allow-unconfigured --port "${port:-0}" \
        >"$home/out" 2>"$home/err" &
    pid=$!
}

# Waits until the gateway answers over HTTP that it is ready.
await_ready() {
    local begun=$1 line
    while (($(now_ms) - begun < 10000)); do
        kill -0 "$pid" 2>/dev/null || return 1
        if [[ -z $port ]]; then
            port=$(sed -n 's/.*ws:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$home/err" | head -1)
        elif { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; then
            printf 'GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n' >&3
            read -r line <&3 || line=
            exec 3>&-
            [[ $line == *" 200 "* ]] && return 0
        fi
        sleep 0.002
    done
    return 1
}

# Whether a file is whole: JSON ends with a brace, a text with a line end.
whole() {
    [[ ! -e $1 ]] && return 0
    case $1 in
    *.json) [[ $(tr -d '[:space:]' <"$1" | tail -c 1) == '}' ]] ;;
    *) [[ -s $1 && $(tail -c 1 "$1" | od -An -c | tr -d ' ') == '\n' ]] ;;
    esac
}

# Gateways of this home other than the one that runs. Only processes of this very binary are looked into.
others() {
    local count=0 entry
    for entry in /proc/[0-9]*; do
        [[ ${entry#/proc/} != "$pid" && $(readlink "$entry/exe" 2>/dev/null) == "$binary" ]] || continue
        if { tr '\0' '\n' <"$entry/environ"; } 2>/dev/null | grep -qxF "HOME=$home"; then
            count=$((count + 1))
        fi
    done
    echo "$count"
}

quantile() { # share values…
    local share=$1
    shift
    printf '%s\n' "$@" | sort -n | awk -v share="$share" '{ v[NR] = $1 } END { print v[int((NR - 1) * share + 0.5) + 1] }'
}

failed=0
echo "| signal | cycles | start p50 | start max | end p50 | end max | failed starts | left processes | truncated files |"
echo "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
for signal in KILL TERM; do
    starts=() ends=() bad_starts=0 left=0 truncated=0
    for ((cycle = 1; cycle <= cycles; cycle++)); do
        begun=$(now_ms)
        start
        if ! await_ready "$begun"; then
            bad_starts=$((bad_starts + 1))
            sed 's/^/    /' "$home/err" >&2
            kill -KILL "$pid" 2>/dev/null || true
            wait "$pid" 2>/dev/null || true
            continue
        fi
        starts+=($(($(now_ms) - begun)))
        # A run that is in flight at the end, and a log that is being written.
        run gateway call agent --message "$(printf 'word %.0s' {1..60})" >/dev/null 2>&1 &
        caller=$!
        sleep "0.0$((RANDOM % 9))"
        begun=$(now_ms)
        kill "-$signal" "$pid"
        wait "$pid" 2>/dev/null || true
        ends+=($(($(now_ms) - begun)))
        wait "$caller" 2>/dev/null || true
        left=$((left + $(others)))
        for file in token identity.json runtime.json; do
            whole "$state/$file" || truncated=$((truncated + 1))
        done
        # After SIGKILL the last line may be cut: the next start ends it.
        [[ $signal == KILL ]] || whole "$state/logs/openclaw.log" || truncated=$((truncated + 1))
        if [[ $signal == TERM && -e $state/runtime.json ]]; then
            truncated=$((truncated + 1))
            echo "    the record was left after SIGTERM" >&2
        fi
    done
    start_max=$(quantile 1 "${starts[@]}")
    echo "| SIG$signal | $cycles | $(quantile 0.5 "${starts[@]}") ms | $start_max ms |" \
        "$(quantile 0.5 "${ends[@]}") ms | $(quantile 1 "${ends[@]}") ms | $bad_starts | $left | $truncated |"
    ((bad_starts == 0 && left == 0 && truncated == 0 && start_max < 1000)) || failed=1
done
exit "$failed"
