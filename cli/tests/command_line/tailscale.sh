#!/bin/sh
# A stand-in for tailscale where no tailnet is: it answers as the real one does, and brings nothing to anybody.
#
# $STANDIN has: calls (what was called), env (the environment of the last call), play (what goes wrong; absent when
# nothing does).
mkdir -p "$STANDIN"
echo "$*" >>"$STANDIN/calls"
env >"$STANDIN/env"
play=$(cat "$STANDIN/play" 2>/dev/null)
status() {
    echo "{\"BackendState\": \"$1\", \"Self\": {\"DNSName\": \"${2-ada.tail1234.ts.net.}\"}}"
}
case "$1 $2" in
"status --json")
    case $play in
    no-daemon)
        echo "failed to connect to local tailscaled; it doesn't appear to be running" >&2
        exit 1
        ;;
    hangs) exec sleep 600 ;;
    no-name) status Running "" ;;
    nonsense) echo "it is fine" ;;
    starting)
        # Once.
        rm "$STANDIN/play"
        status Starting
        ;;
    NeedsLogin | NeedsMachineAuth | Stopped) status "$play" ;;
    *) status Running ;;
    esac
    ;;
"serve --yes" | "funnel --yes")
    # Asks for nothing that would stay when it ends.
    [ "$3" = --bg=false ] || exit 64
    case $play in
    denied)
        echo "sending serve config: Access denied: serve config denied (key tskey-auth-canary)" >&2
        exit 1
        ;;
    not-enabled)
        printf '\nFunnel is not enabled on your tailnet.\nTo enable, visit:\n\n         https://login.tailscale.com/f/funnel?node=n1\n\n'
        exec sleep 600
        ;;
    esac
    trap 'echo "$1 ended" >>"$STANDIN/calls"; kill $!; exit 0' TERM
    printf 'Available within your tailnet:\n\nhttps://ada.tail1234.ts.net/\n|-- proxy http://127.0.0.1:%s\n\nPress Ctrl+C to exit.\n' "$4"
    if [ "$play" = dies ]; then
        rm "$STANDIN/play"
        # Not before it is heard to serve.
        sleep 0.3
        echo "error: the daemon went away" >&2
        exit 1
    fi
    sleep 600 &
    wait
    ;;
"serve reset" | "funnel reset") ;;
*)
    echo "stand-in: not known: $*" >&2
    exit 64
    ;;
esac
