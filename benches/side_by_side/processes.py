"""Programs under measurement: started on free ports of 127.0.0.1, watched, ended."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request

STOP_SECONDS = 60


class Failed(Exception):
    """A measurement that could not be taken, and why."""


def free_ports(count):
    """Ports that the system says are free; held all at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait(what, seconds, condition, pause=0.02):
    """Asks until `condition` holds; returns what it gave."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(pause)
    return answer


def accepts(port):
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def get(url):
    """GET without any proxy: status and body; None while nobody answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None


class Program:
    """A running program, its log in a file."""

    def __init__(self, command, log, environment=None):
        self.log = log
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [str(each) for each in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                # So that the children of a forking receiver end with it. No session of its own: Linux may share the cores out
                # among sessions (sched_autogroup), and priorities within a receiver would mean nothing to its senders.
                process_group=0,
            )

    def said(self):
        return self.log.read_text(errors="replace")[-2000:]

    def alive(self):
        return self.process.poll() is None

    def peak_resident_mib(self):
        """The largest resident set so far (VmHWM)."""
        return self._status("VmHWM") / 1024

    def resident_mib(self):
        return self._status("VmRSS") / 1024

    def _status(self, key):
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
        raise Failed(f"no {key} of process {self.process.pid}")

    def stop(self):
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def version(command):
    """The first line that says a version."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return None
    lines = [line for line in (said.stdout + said.stderr).splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip().strip("$").strip() if lines else None
