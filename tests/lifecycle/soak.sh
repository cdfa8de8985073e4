#!/usr/bin/env bash
# Memory and descriptors of a gateway at work: 50 sockets, 200 calls a second, 5 reconnects a second. Prints a row every
# 10 seconds and the slopes from minute 2 on; below 1 MB over the whole time is the aim.
#
#   tests/lifecycle/soak.sh          10 minutes
#   tests/lifecycle/soak.sh 180      3 minutes
set -euo pipefail
cd "$(dirname "$0")/../.."
exec cargo bench --quiet --locked -p openclaw-tests --bench soak -- "${1:-600}"
