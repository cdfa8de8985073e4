#!/usr/bin/env bash
# Autobahn's fuzzing client on the gateway's WebSocket loop, on both paths: tests/interop/autobahn.sh [cases…]
#
#     tests/interop/autobahn.sh            # everything but compression, which is never negotiated: about a minute
#     tests/interop/autobahn.sh '7.*'      # some cases
#
# Prints a table, a row for each group of cases, and fails when a case does. The suite wants its messages back, so the
# test server's gateway is built with the feature `echo`: sockets opened with the query `echo` run through the same
# upgrade, loop, limits and close codes as all others, and send back what they receive.
#
# Needs Python 2.7, which the suite is written for: `python2.7` on the PATH, or pyenv with a 2.7. The suite is installed
# once, from PyPI, into target/tools. Not part of CI, whose machines have no Python 2.7.
set -euo pipefail
cd "$(dirname "$0")/../.."

suite=$PWD/target/tools/autobahn
reports=$PWD/target/autobahn

export PYENV_VERSION=${PYENV_VERSION:-2.7.18}
python2.7 --version >/dev/null 2>&1 || { echo "python2.7 is missing; install it, or pyenv with 2.7.18" >&2; exit 2; }
if [[ ! -e $suite/bin/wstest ]]; then
    python2.7 -m pip install --quiet --disable-pip-version-check --target "$suite" autobahntestsuite==25.10.1
    # Otherwise the package is hidden by the one of the same name that has it.
    touch "$suite/zope/__init__.py"
fi

# What `cargo test` builds is fast enough.
cargo build --quiet -p openclaw-tests --bin openclaw-test-server
coproc server { target/debug/openclaw-test-server; }
trap 'kill "$server_PID" 2>/dev/null || true' EXIT
read -r port _ <&"${server[0]}"

cases='"*"'
if (($#)); then
    printf -v cases '"%s",' "$@"
    cases=${cases%,}
fi
rm -rf "$reports"
mkdir -p "$reports"
cat >"$reports/fuzzing.json" <<JSON
{
    "outdir": "$reports",
    "servers": [
        { "agent": "JSON-RPC", "url": "ws://127.0.0.1:$port/rpc?echo" },
        { "agent": "frames", "url": "ws://127.0.0.1:$port/?echo" }
    ],
    "cases": [$cases],
    "exclude-cases": ["12.*", "13.*"],
    "exclude-agent-cases": {}
}
JSON
SECONDS=0
PYTHONPATH=$suite python2.7 "$suite/bin/wstest" -m fuzzingclient -s "$reports/fuzzing.json" >"$reports/log" 2>&1 ||
    { tail -20 "$reports/log" >&2; exit 2; }

PYTHONPATH='' python2.7 - "$reports/index.json" "$SECONDS" <<'PYTHON'
import collections, json, sys

agents = json.load(open(sys.argv[1]))
verdicts = ["OK", "NON-STRICT", "INFORMATIONAL", "FAILED"]
print("| path | group | cases | %s |" % " | ".join(verdicts))
print("| --- | ---: | ---: | %s |" % " | ".join("---:" for _ in verdicts))
failed = []
for agent, cases in sorted(agents.items()):
    # A case fails by what was said, or by how the connection ended.
    worst = {
        case: "FAILED" if "FAILED" in (seen["behavior"], seen["behaviorClose"]) else seen["behavior"]
        for case, seen in cases.items()
    }
    groups = collections.defaultdict(collections.Counter)
    for case, verdict in worst.items():
        groups[int(case.split(".")[0])][verdict] += 1
    for group, count in sorted(groups.items()):
        counted = " | ".join(str(count[verdict]) for verdict in verdicts)
        print("| %s | %d | %d | %s |" % (agent, group, sum(count.values()), counted))
    failed += ["%s %s" % (agent, case) for case, verdict in worst.items() if verdict not in verdicts[:3]]
print("\n%s seconds; details are in target/autobahn/index.html" % sys.argv[2])
if failed or not agents:
    sys.exit("failed: %s" % ", ".join(sorted(failed)))
PYTHON
