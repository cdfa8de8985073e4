#!/usr/bin/env bash
# Gets Avahi and dnsmasq, with which the tests of discovery compare, into `target/tools/peers`: unpacked, not
# installed, so that no daemon starts and nothing of the machine changes. For Debian and its kin.
set -euo pipefail
cd "$(dirname "$0")/../.."

peers="$PWD/target/tools/peers"
packages=(
    avahi-daemon avahi-utils libavahi-core7 libavahi-common3 libavahi-client3 libdaemon0
    dbus-daemon libdbus-1-3 libexpat1 libapparmor1 libaudit1 libcap-ng0
    dnsmasq-base libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11 libjansson4 libxtables12 libmnl0
    libhogweed6 libnettle8 libgmp10 libidn2-0 libunistring2 libedit2 libbsd0 libmd0
)
if [[ -e "$peers/.complete" ]]; then
    exit 0
fi
mkdir -p "$peers/debs"
cd "$peers/debs"
apt-get -q update
# A machine of another release has some libraries under other names, and its own are used then.
for package in "${packages[@]}"; do
    apt-get -q -o APT::Sandbox::User=root download "$package" || echo "no package $package: skipped" >&2
done
for archive in *.deb; do
    dpkg-deb -x "$archive" "$peers"
done
touch "$peers/.complete"
