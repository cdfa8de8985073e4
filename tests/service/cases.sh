#!/usr/bin/env bash
# What `systemd.sh` runs inside: the cases, and their table. Ends with 1 when one did not go as it should.
set -uo pipefail
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
failures=0

row() { printf '%-6s %-58s %s\n' "$1" "$2" "${3:-}" | sed 's/ *$//'; [ "$1" = ok ] || failures=$((failures + 1)); }
# check <what> <command…>: the command succeeds.
check() { local what=$1; shift; local out; if out=$("$@" 2>&1); then row ok "$what"; else row FAIL "$what" "$out"; fi; }
# says <what> <part> <command…>: the output has the part, whatever the exit code.
says() { local what=$1 part=$2; shift 2; local out; out=$("$@" 2>&1); case $out in *"$part"*) row ok "$what";; *) row FAIL "$what" "$out";; esac; }
# soon <what> <command…>: the command succeeds within 30 s.
soon() { local what=$1; shift; for _ in $(seq 150); do "$@" >/dev/null 2>&1 && { row ok "$what"; return; }; sleep 0.2; done; row FAIL "$what" "not within 30 s"; }
tree() { (cd "$1" && find . -printf '%p %y %m %l\n' | sort); }

systemctl --version | head -1
useradd --create-home --shell /bin/bash ada
cp -a /home/ada /tmp/ada.before
tree /home/ada >/tmp/tree.before
ada() { runuser -u ada -- env -i HOME=/home/ada USER=ada PATH="$PATH" "$@"; }

says "no session: install names the one command" "sudo loginctl enable-linger ada" ada openclaw gateway install
tree /home/ada | diff /tmp/tree.before - >/dev/null && row ok "a refused install leaves nothing" || row FAIL "a refused install leaves nothing"
loginctl enable-linger ada
soon "the service manager of the account runs" test -S "/run/user/$(id -u ada)/systemd/private"
[ "$failures" = 0 ] || { systemctl status "user@$(id -u ada).service" user-runtime-dir@* systemd-logind dbus --no-pager -l; journalctl -b --no-pager -n 40; echo "cases: 1"; exit 1; }

ada openclaw gateway install --dry-run --json >/tmp/dry.json
tree /home/ada | diff /tmp/tree.before - >/dev/null && row ok "a dry run leaves nothing" || row FAIL "a dry run leaves nothing"
check "install" ada openclaw gateway install --port 18999 --token hush-token --env TEST_API_KEY=hush-key
unit=/home/ada/.config/systemd/user/openclaw-gateway.service
ada env XDG_RUNTIME_DIR="/run/user/$(id -u ada)" systemd-analyze --user verify --man=no "$unit" >/tmp/verify 2>&1 && [ ! -s /tmp/verify ] \
    && row ok "systemd-analyze verify has nothing to say" || row FAIL "systemd-analyze verify has nothing to say" "$(cat /tmp/verify)"
says "install again finds nothing to change" "already-installed" ada openclaw gateway install --port 18999 --token hush-token --env TEST_API_KEY=hush-key --json
says "a unit that differs is shown as a diff" "+ ExecStart" ada openclaw gateway install --port 19000 --token hush-token --env TEST_API_KEY=hush-key
check "uninstall before the first start" ada openclaw gateway uninstall
tree /home/ada | diff /tmp/tree.before - >/tmp/diff && row ok "uninstall leaves the tree as before" || row FAIL "uninstall leaves the tree as before" "$(cat /tmp/diff)"
check "install once more" ada openclaw gateway install --port 18999 --token hush-token --env TEST_API_KEY=hush-key
check "start waits until the gateway is ready" ada openclaw gateway start
check "health finds the gateway and its token by itself" ada openclaw gateway health
says "start again leaves it alone" "already-running" ada openclaw gateway start --json
uid=$(id -u ada)
user() { ada env XDG_RUNTIME_DIR="/run/user/$uid" systemctl --user "$@"; }
property() { user show openclaw-gateway.service --property="$1" --value; }
[ "$(property Type)" = notify ] && [ -n "$(property StatusText)" ] && row ok "the gateway said that it is ready: $(property StatusText)" || row FAIL "readiness"
pid=$(property MainPID)
grep -qz '^TEST_API_KEY=hush-key$' "/proc/$pid/environ" && row ok "the gateway has the secret variable" || row FAIL "the gateway has the secret variable"
ps axww -o args | grep -q '[h]ush' && row FAIL "no secret in the list of processes" || row ok "no secret in the list of processes"
grep -rl hush "$unit" /home/ada/.config >/dev/null && row FAIL "no secret in the unit" || row ok "no secret in the unit"
user show openclaw-gateway.service | grep -q hush && row FAIL "no secret in what systemctl shows" || row ok "no secret in what systemctl shows"

[ "${pid:-0}" != 0 ] || { echo "there is no gateway to go on with"; echo "cases: 1"; exit 1; }
another() { [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ] && ada openclaw gateway health; }
kill -ABRT "$pid"; soon "a crash: the gateway comes back" another "$pid"
pid=$(property MainPID)
check "restart waits for a new instance" ada openclaw gateway restart
[ "$(property MainPID)" != "$pid" ] && row ok "it is another process" || row FAIL "it is another process"
pid=$(property MainPID)
kill -STOP "$pid"; soon "a stuck gateway: the watchdog starts another" sh -c 'for _ in 1 2 3 4 5 6 7; do [ "$(runuser -u ada -- env HOME=/home/ada XDG_RUNTIME_DIR=/run/user/'"$uid"' systemctl --user show openclaw-gateway --property=MainPID --value)" = '"$pid"' ] || exit 0; sleep 5; done; exit 1'
soon "and that one serves" ada openclaw gateway health
check "stop" ada openclaw gateway stop
says "stop again has nothing to do" "not-loaded" ada openclaw gateway stop --json
property NRestarts >/dev/null

cp /home/ada/.openclaw/openclaw.json /tmp/good.json
echo '{ gateway: { mode: "local", port: "no" } }' >/home/ada/.openclaw/openclaw.json
says "a broken configuration: start shows why" "exit code 78" ada openclaw gateway start
starts=$(property NRestarts); sleep 5
[ "$(property ActiveState)" = failed ] && [ "$(property ExecMainStatus)" = 78 ] && [ "$(property NRestarts)" = 0 ] \
    && row ok "it was started once and stays down, exit 78" || row FAIL "it was started once and stays down" "restarts=$starts state=$(property ActiveState)"
cp /tmp/good.json /home/ada/.openclaw/openclaw.json; chown ada: /home/ada/.openclaw/openclaw.json
check "mended, it starts" ada openclaw gateway start

# A gateway that ends at once, each time: the pauses between its starts grow.
mkdir -p /home/ada/.config/systemd/user/openclaw-gateway.service.d
printf '[Service]\nExecStart=\nExecStart=/bin/sh -c "date +%%%%s.%%%%N >>/tmp/starts; exit 75"\n' >/home/ada/.config/systemd/user/openclaw-gateway.service.d/crash.conf
user daemon-reload; rm -f /tmp/starts; touch /tmp/starts; chmod 666 /tmp/starts; user stop openclaw-gateway.service
user start --no-block openclaw-gateway.service
for _ in $(seq 200); do [ "$(wc -l </tmp/starts 2>/dev/null || echo 0)" -ge 6 ] && break; sleep 0.2; done
user stop openclaw-gateway.service
pauses=$(awk 'NR > 1 { printf "%.1f ", $1 - last } { last = $1 }' /tmp/starts)
echo "$pauses" | awk '{ for (i = 2; i <= NF; i++) if ($i <= $(i - 1)) exit 1; exit NF < 4 }' \
    && row ok "exit 75: the pauses grow: $pauses" || row FAIL "exit 75: the pauses grow" "$pauses"
rm -r /home/ada/.config/systemd/user/openclaw-gateway.service.d; user daemon-reload; user reset-failed

# An orphan on the port.
ada openclaw gateway run --port 18999 >/dev/null 2>&1 & orphan=$!
soon "a gateway by hand" ada openclaw gateway health
says "start with an orphan names the one command" "openclaw gateway stop" ada openclaw gateway start
says "restart tells what it does with it" "no service runs" ada openclaw gateway restart
check "stop ends the orphan" ada openclaw gateway stop
wait "$orphan" 2>/dev/null
python=$(command -v python3 || true)
check "uninstall" ada openclaw gateway uninstall
tree /home/ada | grep -v '^\./\.openclaw' | diff <(grep -v '^\./\.openclaw' /tmp/tree.before) - >/tmp/diff && row ok "nothing but the state is left" || row FAIL "nothing but the state is left" "$(cat /tmp/diff)"
user show openclaw-gateway.service --property=LoadState --value | grep -q not-found && row ok "systemd knows it no more" || row FAIL "systemd knows it no more"

# A unit of stock OpenClaw.
mkdir -p /home/ada/.config/systemd/user
printf '[Service]\nExecStart=/usr/bin/node /x/dist/index.js gateway\nEnvironment=OPENCLAW_GATEWAY_TOKEN=hush-stock\nEnvironment=OPENCLAW_SERVICE_MARKER=openclaw\n' >"$unit"
chown -R ada: /home/ada/.config; cp "$unit" /tmp/stock.service
says "a stock unit is not taken over" "stock OpenClaw installation" ada openclaw gateway install
ada openclaw gateway install 2>&1 | grep -q hush && row FAIL "its token is not shown" || row ok "its token is not shown"
check "with --force it is" ada openclaw gateway install --force
check "uninstall puts it back" ada openclaw gateway uninstall
cmp -s "$unit" /tmp/stock.service && row ok "byte for byte" || row FAIL "byte for byte"

# The machine's own.
mkdir -p /tmp/none
says "--system without root names the one command" "sudo openclaw gateway install --system" ada openclaw gateway install --system
sudo() { env SUDO_USER=ada "$@"; }
check "--system: install" sudo openclaw gateway install --system --port 18998
check "--system: start" sudo openclaw gateway start --system
[ "$(ps -o user= -p "$(systemctl show openclaw-gateway --property=MainPID --value)")" = ada ] && row ok "--system: it runs as the account" || row FAIL "--system: it runs as the account"
check "--system: the account finds it" ada openclaw gateway health
check "--system: restart" sudo openclaw gateway restart --system
[ "$(stat -c %U /var/lib/openclaw-gateway/openclaw-gateway.service.json)" = root ] && row ok "--system: what root will remove is root's to say" || row FAIL "--system: what root will remove is root's to say"
systemctl is-enabled openclaw-gateway >/dev/null && row ok "--system: it starts at boot" || row FAIL "--system: it starts at boot"
check "--system: uninstall" sudo openclaw gateway uninstall --system
[ ! -e /etc/systemd/system/openclaw-gateway.service ] && row ok "--system: the unit is gone" || row FAIL "--system: the unit is gone"
[ ! -e /var/lib/openclaw-gateway ] && row ok "--system: nothing of root's is left" || row FAIL "--system: nothing of root's is left"
echo "$failures did not go as they should"
echo "cases: $((failures > 0))"
