#!/usr/bin/env bash
# The service commands on a real systemd: installs, starts, crashes, breaks, restarts and removes a gateway, as an
# account and as the machine, and prints a table of what happened.
#
# usage: tests/service/systemd.sh <openclaw> [<root>]
#
# <root> is the root file system of a Debian with systemd; without it, one is made with debootstrap (once, in
# target/service-root). systemd runs as process 1 of that root alone: its own mounts, processes, network and control
# group. It never sees the files of this machine: a systemd that boots on them cleans /tmp and rewrites /etc.
# Needs root, unshare, and a control group version 2 that can be written. Where one of them is missing, it says
# SKIPPED and ends with 77.
set -euo pipefail

skip() { echo "SKIPPED: $*" >&2; exit 77; }

binary=$(realpath "${1:?usage: systemd.sh <openclaw> [<root>]}")
here=$(cd "$(dirname "$0")" && pwd)
base=${2:-$here/../../target/service-root}
[ "$(id -u)" = 0 ] || skip "root is needed to start a systemd"
command -v unshare >/dev/null || skip "there is no unshare"
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
[ -n "$groups" ] && [ -w "$groups/cgroup.procs" ] || skip "there is no control group version 2 that can be written"

if [ ! -x "$base/lib/systemd/systemd" ]; then
    command -v debootstrap >/dev/null || skip "there is no debootstrap, and no root file system was given"
    mkdir -p "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libpam-systemd,iproute2,procps trixie "$base"
fi
base=$(realpath "$base")
[ "$base" != / ] || skip "the root file system of this machine is not one to boot"

work=$(mktemp -d)
group="$groups/openclaw-service-$$"
mkdir "$group"
finish() {
    # Process 1 of the namespace ends everything in it.
    [ -z "${init:-}" ] || { kill -KILL "$init" 2>/dev/null || true; wait "$init" 2>/dev/null || true; }
    for _ in $(seq 100); do
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [ -d "$group" ] || break
        sleep 0.1
    done
    rm -f "$work/out"
    rmdir "$work/root" "$work" || true
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

mkdir "$work/root"
mkfifo "$work/out"
export base work binary here
# Everything is mounted below the new root, which lies in memory over the given one, and the old root is let go
# before systemd starts.
sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" \
    unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child --propagation private bash -euc '
    mount -t tmpfs -o mode=755 layer "$work/root"
    mkdir "$work/root/upper" "$work/root/work" "$work/root/new"
    mount -t overlay -o "lowerdir=$base,upperdir=$work/root/upper,workdir=$work/root/work" overlay "$work/root/new"
    new=$work/root/new
    mkdir -p "$new/old" "$new/usr/local/bin"
    cp "$binary" "$new/usr/local/bin/openclaw"
    cp "$here/cases.sh" "$new/cases.sh"
    chmod 755 "$new/usr/local/bin/openclaw" "$new/cases.sh"
    mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
    mount --bind "$new/proc/sys" "$new/proc/sys" && mount -o remount,bind,ro "$new/proc/sys"
    mount -t sysfs -o ro sysfs "$new/sys"
    mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 dev "$new/dev"
    # Nodes of its own, so that not even their modes are shared with the machine.
    for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
        set -- $node
        mknod -m 666 "$new/dev/$1" c "$2" "$3"
    done
    mkdir "$new/dev/pts" "$new/dev/shm"
    mount -t tmpfs shm "$new/dev/shm"
    for folder in run tmp; do mount -t tmpfs -o mode=1777 "$folder" "$new/$folder"; done
    chmod 755 "$new/run"
    cd "$new" && pivot_root . old
    umount -l /old
    [ ! -e /old/etc ] || exit 1
    ip link set lo up
    # What a real machine starts and this one does without.
    for unit in systemd-udevd systemd-sysctl systemd-networkd systemd-resolved systemd-firstboot systemd-timesyncd \
        systemd-modules-load apt-daily.timer apt-daily-upgrade.timer; do
        case $unit in *.timer) ;; *) unit=$unit.service ;; esac
        ln -sf /dev/null "/etc/systemd/system/$unit"
    done
    cat >/etc/systemd/system/cases.service <<UNIT
[Unit]
After=systemd-user-sessions.service dbus.socket systemd-logind.service
[Service]
Type=oneshot
ExecStart=/cases.sh
StandardOutput=truncate:/cases.out
StandardError=inherit
TimeoutStartSec=600
[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -sf ../cases.service /etc/systemd/system/multi-user.target.wants/cases.service
    touch /cases.out
    tail -n +1 -F /cases.out 2>/dev/null >&3 &
    # Modules, the clock, the kernel log and the power are the machine'"'"'s.
    exec env -i container=openclaw-service PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set -sys_module,-sys_time,-sys_boot,-sys_rawio,-syslog,-audit_control \
        /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-level=warning --log-target=null
' 3<>"$work/out" </dev/null &
init=$!

# The last line says how it went. How the systemd ends is of no interest: it is ended then.
exec 4<>"$work/out"
while IFS= read -r -t 300 -u 4 line; do
    case $line in
        "cases: "*) exit "${line#cases: }" ;;
    esac
    printf '%s\n' "$line"
done
echo "FAIL   nothing was heard for five minutes" >&2
exit 1
