"""The node from C-STORE over loopback to scores, and how long a lone slice takes."""

import datetime
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import time

from limits import Stopped, run


class Node:
    """A running `triaged serve` in a folder, on ports of the system's choice."""

    def __init__(self, program, folder, settings, seconds):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        variables = {
            "TRIAGED__DATA_DIR": self.folder / "var",
            "TRIAGED__DIMSE__PORT": 0,
            "TRIAGED__DIMSE__LISTEN": "127.0.0.1",
            "TRIAGED__WEB__LISTEN": "127.0.0.1:0",
            "TRIAGED__ARCHIVE__MIN_FREE_MIB": 1,
            **settings,
        }
        self.log = self.folder / "log"
        environment = dict(os.environ, **{name: str(value) for name, value in variables.items()})
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(program), "serve"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                env=environment, start_new_session=True)
        end = time.monotonic() + seconds
        while True:
            said = self.log.read_text(errors="replace")
            listening = re.search(r"DICOM on (\S+)", said)
            if listening:
                self.address = listening.group(1)
                return
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise Stopped("the node did not start: " + " | ".join(said.strip().splitlines()[-3:])[-600:])
            time.sleep(0.05)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def ask(self, question):
        path = self.folder / "var" / "triaged.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(question).fetchall()
        finally:
            connection.close()

    def wait_for(self, slices, seconds):
        """Until so many slices have ended; raises Stopped at the limit."""
        end = time.monotonic() + seconds
        while True:
            (ended,) = self.ask("SELECT count(*) FROM slice_results WHERE state != 'queued'")[0]
            if ended >= slices:
                return
            if self.process.poll() is not None:
                raise Stopped("the node ended: " + " | ".join(self.log.read_text(errors="replace").splitlines()[-3:]))
            if time.monotonic() > end:
                raise Stopped(f"{ended} of {slices} slices had ended at the limit")
            time.sleep(0.02)


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def phantoms(program, folder, studies, slices, seconds):
    """Phantom studies, every second one bleeding, made in parallel; returns their folders."""
    folders = [pathlib.Path(folder) / f"study-{number}" for number in range(studies)]
    end = time.monotonic() + seconds
    waiting = list(enumerate(folders))
    running = []
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            number, path = waiting.pop()
            lesion = ["none", "epidural"][number % 2]
            running.append(subprocess.Popen(
                [str(program), "phantom", "--out", str(path), "--lesion", lesion, "--slices", str(slices),
                 "--seed", str(900_000 + number)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for process in [process for process in running if process.poll() is not None]:
            running.remove(process)
            if process.returncode != 0:
                raise Stopped(f"phantoms could not be made: exit code {process.returncode}")
        if time.monotonic() > end:
            for process in running:
                process.kill()
            raise Stopped("phantoms were not made within the limit")
        time.sleep(0.01)
    return folders


def measure(program, folder, studies, slices, settings, seconds, lone=10, senders=8):
    """Slices a second from the first that came to the last that was scored, and a lone slice's way."""
    end = time.monotonic() + seconds
    left = lambda: end - time.monotonic()
    folder = pathlib.Path(folder)
    made = phantoms(program, folder / "phantoms", studies, slices, left())
    alone = sorted(phantoms(program, folder / "lone", 1, lone, left())[0].glob("*.dcm"))
    node = Node(program, folder / "node", settings, left())
    try:
        total = studies * slices
        groups = [made[number::senders] for number in range(min(senders, len(made)))]
        began = time.time()
        sending = [
            subprocess.Popen(
                [str(program), "send", *map(str, group), "--to", node.address, "--calling-ae", f"SENDER{number}"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for number, group in enumerate(groups)]
        for process in sending:
            _, errors = process.communicate(timeout=max(left(), 1))
            if process.returncode != 0:
                raise Stopped("a sender failed: " + errors.decode(errors="replace").strip()[-300:])
        sent = time.time()
        node.wait_for(total, left())
        states = dict(node.ask("SELECT state, count(*) FROM slice_results GROUP BY state"))
        (first, received, scored) = node.ask(
            "SELECT min(received_at), max(received_at), max(scored_at) FROM slice_results")[0]
        provider = [name for (name,) in node.ask("SELECT DISTINCT provider FROM slice_results WHERE provider IS NOT NULL")]
        ways = []
        for path in alone:
            before = node.ask("SELECT count(*) FROM slice_results WHERE state != 'queued'")[0][0]
            run([program, "send", path, "--to", node.address], max(left(), 1))
            node.wait_for(before + 1, left())
            ((came, done),) = node.ask(
                "SELECT received_at, scored_at FROM slice_results WHERE scored_at IS NOT NULL ORDER BY scored_at DESC LIMIT 1")
            ways.append((moment(done) - moment(came)) * 1000)
        ways.sort()
        return {
            "slices": total,
            "states": states,
            "provider": provider,
            "senders": len(groups),
            "cores": os.cpu_count(),
            "slices_a_second": total / (moment(scored) - moment(first)),
            "received_a_second": total / max(moment(received) - moment(first), 1e-3),
            "sending_seconds": sent - began,
            "lone_ms": ways[len(ways) // 2] if ways else None,
            "lone_ms_largest": ways[-1] if ways else None,
        }
    finally:
        node.stop()
