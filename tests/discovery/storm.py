#!/usr/bin/env python3
"""A hostile LAN around one announced gateway: what it costs, and whether the gateway is still there.

    cargo build --release -p openclaw-cli
    tests/discovery/storm.py target/release/openclaw [PACKETS]

Makes two hosts on a bridge out of network namespaces (root, `ip`), runs the gateway on one and a peer that sends
mutated multicast DNS on the other, and prints a table. Fails when a bar is missed: the gateway lives, no record is
multicast more than once a second, the log does not grow, it idles at one percent of a core or less. Probes for the
gateway's own names are the exception of RFC 6762: each is answered, until there are too many.
"""

import collections
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

GROUP, PORT = "224.0.0.251", 5353
SERVICE = b"_openclaw-gw._tcp.local"
NAME = "Bob's Studio"
INSTANCE = f"{NAME} (OpenClaw)"
HOST = b"Bobs-Studio.local"
SO_TIMESTAMPNS = 35
# Answers to one question spread over 100 ms, and the clock of the counter is not that of the responder.
SECOND = 0.95


def labels(name):
    return b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"


def instance():
    label = INSTANCE.encode()
    return bytes([len(label)]) + label + labels(SERVICE)


def question(name, kind, flags=1):
    return name + struct.pack("!HH", kind, flags)


def record(name, kind, data, ttl=120):
    return name + struct.pack("!HHIH", kind, 0x8001, ttl, len(data)) + data


def message(flags, questions=(), answers=(), authorities=(), more=()):
    parts = (questions, answers, authorities, more)
    return struct.pack("!HH4H", 0, flags, *map(len, parts)) + b"".join(b"".join(part) for part in parts)


def seeds():
    host, kind = labels(HOST), labels(SERVICE)
    srv = struct.pack("!HHH", 0, 0, 1) + labels(b"other.local")
    txt = b"\x0crole=gateway\x05x=\xff\xfe\x00"
    all_kinds = [question(instance(), wanted) for wanted in (33, 16, 255)] + [question(host, w) for w in (1, 28, 255)]
    return [
        message(0, [question(kind, 12)]),
        message(0, all_kinds),
        message(0, [question(labels(b"_services._dns-sd._udp.local"), 12)]),
        # A probe for the same names, and answers that contest them.
        message(0, [question(instance(), 255)], authorities=[record(instance(), 33, srv)]),
        message(0x8400, answers=[record(instance(), 33, srv), record(instance(), 16, txt)]),
        message(0x8400, answers=[record(host, 1, b"\x0a\x4d\x00\x09"), record(host, 28, b"\xfe\x80" + b"\1" * 14)]),
        message(0x8400, answers=[record(kind, 12, instance(), 0)]),
        # A name that points at itself, and one that points past the end.
        message(0x8400, answers=[record(b"\xc0\x0c", 12, b"\xc0\xff")]),
        message(0x8400, more=[record(host, 47, host + b"\0\4\x40\0\0\8"), record(b"\0", 41, b"")]),
    ]


def mutated(source, rng):
    data = bytearray(rng.choice(source))
    for _ in range(rng.randint(1, 6)):
        kind = rng.randrange(6)
        at = rng.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at] = rng.choice((0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 40))
        elif kind == 4 and len(data) > 12:
            data[rng.randrange(4, 12)] = rng.randrange(256)
        elif kind == 5 and data:
            data[at:at] = data[rng.randrange(len(data)):][:64]
    lower = bytes(data).lower()
    if any(name in lower for name in (b"bob", b"openclaw", b"dns-sd")):
        # A probe for our names must be answered each time (RFC 6762 section 8.1): that is a phase of its own.
        data[8:10] = b"\0\0"
    return bytes(data[:9000])


def records_of(data):
    """The records of an answer, as (name, type, address); questions and probes have none."""
    if not data[2] & 0x80:
        return []

    def name_at(at, depth=0):
        out = b""
        while depth < 20:
            length = data[at]
            if length >= 0xC0:
                return out + name_at((length & 0x3F) << 8 | data[at + 1], depth + 1)[0], at + 2
            if length == 0:
                return out, at + 1
            out += data[at + 1:at + 1 + length] + b"."
            at += 1 + length
        raise ValueError

    questions, *counts = struct.unpack("!4H", data[4:12])
    at, found = 12, []
    for _ in range(questions):
        at = name_at(at)[1] + 4
    for _ in range(sum(counts)):
        name, at = name_at(at)
        kind, _, _, length = struct.unpack("!HHIH", data[at:at + 10])
        found.append((name.lower(), kind, data[at + 10:at + 10 + length] if kind in (1, 28) else b""))
        at += 10 + length
    return found


class Peer:
    """Runs inside the second host: sends, and counts what comes back."""

    def __init__(self):
        self.seen = collections.defaultdict(list)
        self.packets = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind(("", PORT))
        own = socket.inet_aton("10.77.0.2")
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + own)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            data, extra, _, (source, _) = self.socket.recvmsg(65536, 64)
            if source.startswith("10.77.0.2"):
                continue
            self.packets += 1
            # When the kernel had it: this thread is busy too.
            seconds, nanoseconds = struct.unpack("@qq", extra[0][2][:16])
            now = seconds + nanoseconds / 1e9
            try:
                for found in records_of(data):
                    self.seen[found].append(now)
            except (IndexError, ValueError, struct.error, RecursionError):
                self.seen[b"unreadable"].append(now)

    def send(self, count, rate, make):
        begun = time.monotonic()
        for number in range(count):
            try:
                self.socket.sendto(make(), (GROUP, PORT))
            except OSError:
                pass
            ahead = number / rate - (time.monotonic() - begun)
            if ahead > 0.002:
                time.sleep(ahead)
        return time.monotonic() - begun

    def worst(self):
        """The most often that one record came within a second."""
        worst, which = 0, None
        for found, times in self.seen.items():
            first = 0
            for last, at in enumerate(times):
                while at - times[first] >= SECOND:
                    first += 1
                if last - first + 1 > worst:
                    worst, which = last - first + 1, found
        return worst, str(which)


def peer(task, count):
    peer = Peer()
    rng, source = random.Random(1), seeds()
    took = 0
    if task == "mutated":
        took = peer.send(count, 20_000, lambda: mutated(source, rng))
    elif task == "questions":
        good = source[:3]
        took = peer.send(count, 1_000, lambda: rng.choice(good))
    elif task == "probes":
        took = peer.send(count, 1_000, lambda: source[3])
    else:
        time.sleep(count)
    time.sleep(1)
    worst, which = peer.worst()
    print(json.dumps({"packets": peer.packets, "worst": worst, "which": which, "seconds": took}))


class Lan:
    def __init__(self):
        self.name = f"storm{os.getpid()}"
        self.spaces = [f"{self.name}-{end}" for end in ("sw", "0", "1")]

    def __enter__(self):
        switch, *hosts = self.spaces
        for space in self.spaces:
            ip("netns", "add", space)
        ip("-n", switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        ip("-n", switch, "link", "set", "br0", "up")
        for number, space in enumerate(hosts):
            ip("-n", space, "link", "set", "lo", "up")
            self.plug(space, "eth0", f"port{number}", f"10.77.0.{number + 1}/24")
        return self

    def plug(self, space, name, port, address):
        switch = self.spaces[0]
        ip("link", "add", name, "netns", space, "type", "veth", "peer", "name", port, "netns", switch)
        ip("-n", switch, "link", "set", port, "master", "br0", "up")
        ip("-n", space, "link", "set", name, "up")
        ip("-n", space, "addr", "add", address, "dev", name)

    def __exit__(self, *_):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)

    def peer(self, task, count):
        command = ["ip", "netns", "exec", self.spaces[2], sys.executable, __file__, "--peer", task, str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ip(*args):
    subprocess.run(["ip", *args], check=True)


class Gateway:
    def __init__(self, lan, binary, home):
        self.log = os.path.join(home, "stderr")
        command = ["ip", "netns", "exec", lan.spaces[1], binary, "gateway", "run"]
        command += ["--allow-unconfigured", "--bind", "lan", "--port", "18799", "--token", "a-token-of-the-storm"]
        environment = {"HOME": home, "OPENCLAW_DISABLE_BONJOUR": "0", "OPENCLAW_MDNS_HOSTNAME": NAME}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        self.pid = self.process.pid

    def said(self):
        with open(self.log, encoding="utf-8") as log:
            return log.read()

    def lines(self):
        return self.said().count("\n")

    def cpu(self):
        with open(f"/proc/{self.pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024

    def drops(self):
        with open(f"/proc/{self.pid}/net/udp", encoding="utf-8") as table:
            return sum(int(line.split()[-1]) for line in table.readlines()[1:])

    def is_alive(self):
        return self.process.poll() is None


def main():
    binary = os.path.abspath(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    missed = []
    print("| what | packets out | most per record and second | CPU | memory | log lines | alive |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as home, Lan() as lan:
        gateway = Gateway(lan, binary, home)
        while "announced with multicast DNS" not in gateway.said():
            assert gateway.is_alive(), gateway.said()
            time.sleep(0.1)

        def phase(name, seconds_of_peer=("quiet", 10), during=None, idle=False, most=1, max_lines=10):
            lines, cpu, begun = gateway.lines(), gateway.cpu(), time.monotonic()
            other = lan.peer(*seconds_of_peer)
            if during:
                during()
            answer = json.loads(other.communicate()[0])
            took = time.monotonic() - begun
            alive = gateway.is_alive()
            share = 100 * (gateway.cpu() - cpu) / took if alive else 0
            more = gateway.lines() - lines
            memory = gateway.megabytes() if alive else 0
            print(f"| {name} | {answer['packets']} | {answer['worst']} | {share:.1f} % | {memory:.1f} MB | {more} | "
                  f"{'yes' if alive else 'NO'} |", flush=True)
            for bad, what in (
                (not alive, "the gateway ended"),
                (answer["worst"] > most, f"{answer['which']} came {answer['worst']} times in a second"),
                (idle and share > 1, f"{share:.1f} % of a core while idle"),
                (more > max_lines, f"{more} lines in the log"),
            ):
                if bad:
                    missed.append(f"{name}: {what}")

        def churn():
            space = lan.spaces[1]
            for number in range(100):
                ip("-n", space, "link", "add", "eth9", "type", "veth", "peer", "name", "peer9")
                ip("-n", space, "link", "set", "peer9", "up")
                ip("-n", space, "link", "set", "eth9", "up")
                ip("-n", space, "addr", "add", f"10.78.{number}.1/24", "dev", "eth9")
                time.sleep(0.3)
                ip("-n", space, "link", "del", "eth9")

        time.sleep(3)
        phase("idle", idle=True)
        phase("1000 good questions a second, 5 s", ("questions", 5_000))
        phase(f"{count} mutated packets", ("mutated", count))
        drops = gateway.drops()
        phase("an interface comes and goes 100 times", ("quiet", 40), churn)
        phase("a second interface on the same LAN", ("quiet", 15),
              lambda: lan.plug(lan.spaces[1], "eth1", "port9", "10.77.0.9/24"))
        phase("idle again", idle=True)
        # Twenty answers, and those that leave before the task hears of it.
        phase("1000 probes a second for its names, 5 s", ("probes", 5_000), most=60)
        phase("the silence after that, then idle", ("quiet", 15))
        command = ["ip", "netns", "exec", lan.spaces[2], binary, "gateway", "discover", "--json"]
        found = json.loads(subprocess.run(command, env={"HOME": home}, stdout=subprocess.PIPE, check=True).stdout)
        urls = [beacon["wsUrl"] for beacon in found["beacons"]]
        print(f"\nfound afterwards: {urls}; packets that the kernel dropped before the gateway read them: {drops}")
        if urls != ["ws://10.77.0.1:18799"]:
            missed.append(f"found afterwards: {urls}")
        gateway.process.terminate()
        print(f"exit code after SIGTERM: {gateway.process.wait(15)}")
        if os.environ.get("STORM_LOG"):
            print(gateway.said())
    for line in missed:
        print(f"MISSED: {line}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    if sys.argv[1] == "--peer":
        peer(sys.argv[2], int(sys.argv[3]))
    else:
        main()
