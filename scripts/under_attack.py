#!/usr/bin/env python3
"""Measures a node while it is attacked: how long a bleeding patient waits for the alert, the memory of node and decoders, how much slower a healthy
sender is, and how long a start takes after a kill with many slices in the queue. Figures for docs/security.md.

Usage: scripts/under_attack.py PROGRAM [--queued 10000] [--recovery]

Starts nodes of its own, on free ports of the loopback address, in folders that it removes. Needs nothing but Python.
"""

import argparse
import contextlib
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

CT = b"1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, DEFLATED, JPEG = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.51"


class Node:
    def __init__(self, program, folder, **settings):
        self.program, self.folder = program, pathlib.Path(folder)
        self.environment = os.environ | {
            "TRIAGED__DATA_DIR": str(folder), "TRIAGED__DIMSE__PORT": "0", "TRIAGED__DIMSE__LISTEN": "127.0.0.1",
            "TRIAGED__WEB__LISTEN": "127.0.0.1:0", "TRIAGED__TRIAGE__QUIET_SECONDS": "2", "TRIAGED__INFERENCE__DEVICE": "cpu",
        } | settings
        self.start()

    def start(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([self.program, "serve"], env=self.environment, stderr=self.log)
        self.dimse = int(self.wait_for_log(r"DICOM on 127\.0\.0\.1:(\d+)"))
        self.web = int(self.wait_for_log(r"web on http://127\.0\.0\.1:(\d+)"))

    def wait_for_log(self, pattern):
        for _ in range(3000):
            if self.process.poll() is not None:
                sys.exit(f"the node ended with {self.process.returncode}")
            self.log.seek(0)
            if found := re.search(pattern, self.log.read()):
                return found.group(1)
            time.sleep(0.02)
        sys.exit(f"the node never logged {pattern}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def query(self, sql):
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'triaged.db'}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(sql).fetchone()[0]

    def memory(self):
        """The highest resident memory of the node and its decoder processes so far, in MiB."""
        total, node = 0, self.process.pid
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
                if node in (int(status.parent.name), int(fields["PPid"])) and "VmHWM" in fields:
                    total += int(fields["VmHWM"].split()[0])
        return total / 1024

    def send(self, folder, calling):
        command = [self.program, "send", str(folder), "--to", f"127.0.0.1:{self.dimse}", "--calling-ae", calling]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment)
        return time.monotonic() - began


class Alerts:
    """A webhook that notes when each study was flagged."""

    def __init__(self):
        self.at = {}
        alerts = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if body.get("kind") == "alert":
                    alerts.at.setdefault(body["study_uid"], time.monotonic())
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


def element(tag, vr, value):
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    long = vr in (b"OB", b"OW", b"SQ", b"UN")
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + (struct.pack("<xxI", len(value)) if long else struct.pack("<H", len(value))) + value


def head_ct(uid, frames, side, more=b""):
    def short(tag, value):
        return element(tag, b"US", struct.pack("<H", value))

    uid = uid.encode()
    return b"".join([
        element(0x00080016, b"UI", CT), element(0x00080018, b"UI", uid), element(0x00080060, b"CS", b"CT"), element(0x00180015, b"CS", b"HEAD"),
        element(0x0020000D, b"UI", uid + b".1"), element(0x0020000E, b"UI", uid + b".2"), short(0x00280002, 1),
        element(0x00280004, b"CS", b"MONOCHROME2"), element(0x00280008, b"IS", str(frames).encode()), short(0x00280010, side),
        short(0x00280011, side), short(0x00280100, 16), short(0x00280101, 12), short(0x00280102, 11), short(0x00280103, 0),
        element(0x00281052, b"DS", b"-1024"), element(0x00281053, b"DS", b"1"), more,
    ])


def pixels(length):
    return element(0x7FE00010, b"OW", bytes(length))


def request(calling, syntax):
    def item(kind, content):
        return struct.pack(">BxH", kind, len(content)) + content

    context = b"\x01\0\0\0" + item(0x30, CT) + item(0x40, syntax)
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    body = b"\0\1\0\0" + b"TRIAGED".ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def read(sock, length):
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


class Sender:
    def __init__(self, node, calling, syntax=EXPLICIT):
        self.socket = socket.create_connection(("127.0.0.1", node.dimse), timeout=300)
        self.socket.sendall(request(calling, syntax))
        self.pdu()
        self.message = 0

    def pdu(self):
        kind, length = struct.unpack(">BxI", read(self.socket, 6))
        return kind, read(self.socket, length)

    def store(self, uid, data):
        self.message += 1
        uid = uid.encode() + b"\0" * (len(uid) % 2)
        elements = [(0x2, CT + b"\0"), (0x100, b"\1\0"), (0x110, struct.pack("<H", self.message)), (0x700, b"\0\0"), (0x800, b"\1\0"), (0x1000, uid)]
        command = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in elements)
        self.value(3, struct.pack("<HHII", 0, 0, 4, len(command)) + command)
        pieces = [data[at:at + 65536] for at in range(0, len(data), 65536)]
        for number, piece in enumerate(pieces):
            self.value(2 if number == len(pieces) - 1 else 0, piece)
        _, answer = self.pdu()
        at = answer.index(b"\0\0\0\x09\x02\0\0\0") + 8
        return struct.unpack("<H", answer[at:at + 2])[0]

    def value(self, control, data):
        self.socket.sendall(struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, 1, control) + data)


def empty_elements(count):
    items = b""
    for begin in range(0, count, 60000):
        part = b"".join(struct.pack("<HH2sH", 0x11, 0x1000 + n, b"LO", 0) for n in range(min(60000, count - begin)))
        items += struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part
    return element(0x00291001, b"SQ", items)


def encapsulated(fragment):
    fragment += b"\0" * (len(fragment) % 2)
    head = struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    return head + struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def elements_and_frames(node, stop):
    sender, number = Sender(node, "ATTACKER"), 0
    data_set = empty_elements(950_000)
    while not stop.is_set():
        number += 1
        sender.store(f"2.25.10{number}", head_ct(f"2.25.10{number}", 400, 32, data_set) + pixels(400 * 32 * 32 * 2))


def deflated_bombs(node, stop):
    sender, number = Sender(node, "ATTACKER", DEFLATED), 0
    bomb = element(0x00291001, b"UN", bytes(240 << 20))
    while not stop.is_set():
        number += 1
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = deflate.compress(head_ct(f"2.25.20{number}", 1, 512, bomb) + pixels(512 * 512 * 2)) + deflate.flush()
        sender.store(f"2.25.20{number}", data)


def many_scans(node, stop):
    sender, number = Sender(node, "ATTACKER", JPEG), 0
    jpeg = b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64 + b"\xff\xc2\0\x0b\x0c\2\0\2\0\1\1\x11\0" + b"\xff\xc4\0\x14\x10\1" + bytes(15) + b"\xe0"
    jpeg += (b"\xff\xda\0\x08\1\1\0\1\x3f\1" + b"\0\0\0\x3f") * 40_000 + b"\xff\xd9"
    while not stop.is_set():
        number += 1
        sender.store(f"2.25.30{number}", head_ct(f"2.25.30{number}", 1, 512) + encapsulated(jpeg))


def frames_that_are_not_there(node, stop):
    sender, number = Sender(node, "ATTACKER"), 0
    while not stop.is_set():
        number += 1
        sender.store(f"2.25.40{number}", head_ct(f"2.25.40{number}", 16_384, 64) + pixels(32_768))


def idle_associations(node, stop):
    held = []
    for _ in range(64):
        held.append(socket.create_connection(("127.0.0.1", node.dimse)))
        held[-1].sendall(request("GREEDY", EXPLICIT))
    stop.wait()


def half_open(node, stop):
    held = []
    while not stop.is_set():
        if len(held) < 800:
            held.append(socket.create_connection(("127.0.0.1", node.dimse)))
            held.append(socket.create_connection(("127.0.0.1", node.web)))
            with contextlib.suppress(OSError):
                held[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        else:
            stop.wait(0.1)


ATTACKS = [None, elements_and_frames, deflated_bombs, many_scans, frames_that_are_not_there, idle_associations, half_open]


def phantom(program, folder, seed, *options):
    command = [program, "phantom", "--out", str(folder), "--slices", "32", "--seed", str(seed), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def under(program, attack):
    """Seconds from the last object to the alert, the time of the healthy sender, and memory."""
    alerts = Alerts()
    with tempfile.TemporaryDirectory() as folder:
        bleed, healthy = pathlib.Path(folder, "bleed"), pathlib.Path(folder, "healthy")
        phantom(program, bleed, 1, "--lesion", "epidural")
        phantom(program, healthy, 2)
        node = Node(program, pathlib.Path(folder, "var"), TRIAGED__NOTIFY__WEBHOOK__URL=alerts.url)
        stop, threads = threading.Event(), []
        try:
            if attack:
                def run():
                    with contextlib.suppress(OSError, ConnectionError):
                        attack(node, stop)

                threads = [threading.Thread(target=run, daemon=True)]
                threads[0].start()
                time.sleep(10)
            sending = node.send(healthy, "SCANNER")
            node.send(bleed, "SCANNER2")
            sent = time.monotonic()
            while not alerts.at and time.monotonic() < sent + 120:
                time.sleep(0.02)
            waited = min(alerts.at.values(), default=float("inf")) - sent
            return max(waited, 0), sending, node.memory()
        finally:
            stop.set()
            node.kill()


def recovery(program, queued):
    """Seconds from the start after a kill until the node takes objects, and until it has scored the first of those that waited."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(program, pathlib.Path(folder, "var"), TRIAGED__INFERENCE__BATCH_WAIT_MS="1000")
        sender, number = Sender(node, "SCANNER"), 0
        while node.query("SELECT count(*) FROM slices WHERE state = 'queued'") < queued:
            for _ in range(8):
                number += 1
                # Smaller frames are no slices to a node.
                status = sender.store(f"2.25.50{number}", head_ct(f"2.25.50{number}", 512, 32) + pixels(512 * 32 * 32 * 2))
                if status or not node.query("SELECT count(*) FROM slices WHERE state <> 'ineligible'"):
                    sys.exit(f"the node does not queue what was sent: status {status:04X}")
        node.kill()
        left = node.query("SELECT count(*) FROM slices WHERE state = 'queued'")
        scored = node.query("SELECT count(*) FROM scores")
        began = time.monotonic()
        node.start()
        ready = time.monotonic() - began
        while node.query("SELECT count(*) FROM scores") == scored:
            time.sleep(0.02)
        first = time.monotonic() - began
        node.kill()
        return left, ready, first


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--queued", type=int, default=10_000, help="slices that wait when the node is killed")
    parser.add_argument("--recovery", action="store_true", help="measure the start after a kill alone")
    arguments = parser.parse_args()
    quiet = None
    if not arguments.recovery:
        print("| attack | last object to alert | healthy sender, times as long | memory at most |\n|---|---|---|---|")
    for attack in [] if arguments.recovery else ATTACKS:
        waited, sending, memory = under(arguments.program, attack)
        quiet = quiet or sending
        name = attack.__name__.replace("_", " ") if attack else "none"
        print(f"| {name} | {waited:.1f} s | {sending / quiet:.1f} | {memory:.0f} MiB |", flush=True)
    left, ready, first = recovery(arguments.program, arguments.queued)
    print(f"\nAfter a kill with {left} slices in the queue: receives after {ready:.1f} s, scores after {first:.1f} s.")


if __name__ == "__main__":
    main()
