#!/bin/bash
# A stand-in for systemctl where no systemd runs: it keeps state, starts what a unit says, and refuses every call
# that it does not know. It restarts nothing by itself; tests/service/systemd.sh asks that of a real systemd.
#
# State is in $STANDIN: calls (what was called), enabled, pid, failed.
set -u
mkdir -p "$STANDIN"
echo "$*" >>"$STANDIN/calls"
[ "${1:-}" = --version ] && { echo "systemd 257 (257.13-1)"; exit 0; }
[ "${1:-}" = is-system-running ] && { echo running; exit 0; }
[ "${1:-}" = --user ] || { echo "stand-in: not for the account: $*" >&2; exit 64; }
shift
folder=$HOME/.config/systemd/user
verb=${1:-}
unit=${!#}
file=$folder/$unit
pid=$(cat "$STANDIN/pid" 2>/dev/null || true)
[ -n "$pid" ] && ! kill -0 "$pid" 2>/dev/null && { rm -f "$STANDIN/pid"; pid=; }
known() { [ -e "$file" ] || { echo "Unit $unit not found." >&2; exit 5; }; }
quit() {
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm -f "$STANDIN/pid"
}
begin() {
    # The words of tests have no blanks: what a unit quotes is told apart by unit tests.
    local command variables=()
    command=$(sed -n 's/^ExecStart=//p' "$file")
    while read -r variable; do variables+=("$variable"); done < <(sed -n 's/^Environment=//p' "$file")
    local secrets
    secrets=$(sed -n 's/^EnvironmentFile=//p' "$file")
    # shellcheck disable=SC2086
    (
        [ -z "$secrets" ] || { set -a; . "$secrets"; set +a; }
        exec env -u STANDIN -u XDG_RUNTIME_DIR "${variables[@]}" setsid $command
    ) </dev/null >"$STANDIN/out" 2>&1 &
    echo $! >"$STANDIN/pid"
}
case "$verb $#" in
    "show 4")
        active=inactive; sub=dead; load=loaded; state=disabled
        [ -e "$file" ] || load=not-found
        [ -e "$STANDIN/enabled" ] && state=enabled
        [ -n "$pid" ] && { active=active; sub=running; }
        printf 'LoadState=%s\nUnitFileState=%s\nActiveState=%s\nSubState=%s\nResult=success\nMainPID=%s\n' \
            "$load" "$state" "$active" "$sub" "${pid:-0}"
        printf 'ExecMainCode=0\nExecMainStatus=0\nNRestarts=0\nFragmentPath=%s\n' "$([ -e "$file" ] && echo "$file")"
        ;;
    "show 3") echo "$folder /usr/lib/systemd/user" ;;
    "daemon-reload 1") ;;
    "enable 2") known; [ ! -e "$STANDIN/refuse" ] || { echo "stand-in: refused as asked" >&2; exit 1; }; touch "$STANDIN/enabled" ;;
    "disable 3") known; [ "$2" = --now ] || exit 64; quit; rm -f "$STANDIN/enabled" ;;
    "reset-failed 2") ;;
    "start 3") known; [ "$2" = --no-block ] || exit 64; [ -n "$pid" ] || begin ;;
    "stop 3") known; [ "$2" = --no-block ] || exit 64; quit ;;
    "restart 3") known; [ "$2" = --no-block ] || exit 64; quit; begin ;;
    *) echo "stand-in: unknown call: $*" >&2; exit 64 ;;
esac
