#!/usr/bin/env python3
"""The whole way of a head CT through a node of its own, on synthetic series: `make demo`.

    scripts/demo.py target/release/triaged

Starts a node on free ports of 127.0.0.1 with a data folder that is removed afterwards and a webhook that ends here, makes a
healthy and a bleeding phantom, sends both with C-STORE, and shows the verdicts and the alert. Nothing is special-cased: the
verdicts are the shipped model's. Exit code 0: the bleeding one was flagged, its alert arrived, and the healthy one was
not flagged; 1: anything else.
"""

import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

READY_SECONDS = 120
DECIDED_SECONDS = 180
ALERT_SECONDS = 30
STOP_SECONDS = 60


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps each alert's body and answers 204."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.alerts.append(body.decode("utf-8", "replace"))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def free_ports(count):
    """Ports that the system says are free; held all at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Demo:
    def __init__(self, program, folder, webhook):
        self.program, self.folder = program, pathlib.Path(folder)
        self.dimse, self.web = free_ports(2)
        self.log = self.folder / "node.log"
        self.environment = dict(
            os.environ,
            TRIAGED__DATA_DIR=str(self.folder / "data"),
            TRIAGED__DIMSE__LISTEN="127.0.0.1",
            TRIAGED__DIMSE__PORT=str(self.dimse),
            TRIAGED__WEB__LISTEN=f"127.0.0.1:{self.web}",
            TRIAGED__TRIAGE__QUIET_SECONDS="2",
            TRIAGED__NOTIFY__WEBHOOK__URL=webhook,
            # A proxy of the surroundings has no part in talk to ourselves.
            NO_PROXY="127.0.0.1",
            no_proxy="127.0.0.1",
        )

    def triaged(self, *arguments, capture=False):
        """Runs the program to its end; with `capture` its output is returned, otherwise it is shown."""
        if not capture:
            say("$ triaged " + " ".join(str(each) for each in arguments))
        done = subprocess.run(
            [self.program, *arguments], env=self.environment, text=True, stdout=subprocess.PIPE if capture else None
        )
        if done.returncode != 0:
            raise Failed(f"triaged {arguments[0]} ended with exit code {done.returncode}")
        return done.stdout

    def start(self):
        with open(self.log, "wb") as log:
            self.node = subprocess.Popen(
                [self.program, "serve"], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ready():
            if self.node.poll() is not None:
                raise Failed(f"the node ended with exit code {self.node.returncode} before it was ready")
            try:
                return direct.open(f"http://127.0.0.1:{self.web}/readyz", timeout=5).status == 200
            except OSError:
                return False

        wait("the node to be ready", READY_SECONDS, ready)

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.node.poll() is None:
            self.node.send_signal(signal.SIGTERM)
            try:
                self.node.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.node.kill()
                self.node.wait()
                raise Failed(f"the node did not stop within {STOP_SECONDS} s of SIGTERM")
        return self.node.returncode

    def worklist(self):
        """Study Instance UID to worklist row."""
        return {row["study_uid"]: row for row in json.loads(self.triaged("results", "--format", "json", capture=True))}

    def push(self, name, *phantom):
        """Makes a phantom and sends it; returns the Study Instance UID under which the node now has it."""
        before = set(self.worklist())
        series = self.folder / name
        self.triaged("phantom", "--out", series, *phantom)
        self.triaged("send", "--to", f"127.0.0.1:{self.dimse}", series)
        new = set(self.worklist()) - before
        if len(new) != 1:
            raise Failed(f"{len(new)} new studies after sending one")
        return new.pop()


class Failed(Exception):
    pass


def say(text):
    print(text, flush=True)


def wait(what, seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(0.2)


def run(program, folder):
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    receiver.alerts = []
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    demo = Demo(program, folder, f"http://127.0.0.1:{receiver.server_port}/alert")
    say(f"A node on 127.0.0.1:{demo.dimse} (DICOM) and http://127.0.0.1:{demo.web}/, alerts to this script\n")
    try:
        demo.start()
        healthy = demo.push("healthy")
        bleeding = demo.push("bleeding", "--lesion", "epidural", "--seed", "2")

        def decided():
            rows = demo.worklist()
            return all(rows[uid]["state"] == "decided" for uid in (healthy, bleeding))

        wait("both studies to be decided", DECIDED_SECONDS, decided)
        flagged = {uid: row["flagged"] for uid, row in demo.worklist().items()}
        if any(flagged.values()):
            wait("the alert", ALERT_SECONDS, lambda: receiver.alerts)
        say("")
        demo.triaged("results")
        for alert in receiver.alerts:
            try:
                alert = json.dumps(json.loads(alert), indent=2)
            except ValueError:
                pass
            say(f"\nThe webhook heard:\n{alert}")
        code = demo.stop()
        verdict = {True: "flagged", False: "not flagged", None: "not triaged"}
        say(f"\nhealthy phantom: {verdict[flagged[healthy]]}; bleeding phantom: {verdict[flagged[bleeding]]}; "
            f"alerts: {len(receiver.alerts)}; the node stopped with exit code {code}")
        return flagged[healthy] is False and flagged[bleeding] is True and len(receiver.alerts) == 1 and code == 0
    except Failed as error:
        say(f"\ndemo: {error}; the node's log:")
        if demo.log.exists():
            say(demo.log.read_text(errors="replace"))
        return False
    finally:
        if getattr(demo, "node", None) and demo.node.poll() is None:
            demo.node.kill()
            demo.node.wait()
        receiver.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="triaged-demo-") as scratch:
        good = run(os.path.abspath(sys.argv[1]), scratch)
    sys.exit(0 if good else 1)
