"""Steps with a time limit each, under one limit for all of them; what a step said before it was stopped is kept."""

import json
import os
import signal
import subprocess
import time


class Clock:
    """The time that all steps have together, in seconds."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def left(self):
        return self.end - time.monotonic()


class Stopped(Exception):
    """A program ended badly, or was stopped at its limit; `said` is what it had written on standard output."""

    def __init__(self, why, said=""):
        super().__init__(why)
        self.said = said


def run(command, seconds, environment=None):
    """Standard output of a program; it and its children are killed at the limit.

    Raises Stopped with the last lines of what it wrote on standard error.
    """
    if seconds <= 0:
        raise Stopped("there was no time left")
    merged = dict(os.environ, **(environment or {}))
    process = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=merged, start_new_session=True)
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        raise Stopped(f"stopped at its limit of {seconds:.0f} s", out.decode(errors="replace")) from None
    out, errors = out.decode(errors="replace"), errors.decode(errors="replace")
    if process.returncode != 0:
        last = " | ".join(errors.strip().splitlines()[-3:])
        raise Stopped(f"exit code {process.returncode}: {last[-600:]}", out)
    return out


def lines_of(said):
    """The JSON values that a program wrote, one a line; a last line that was cut off is left out."""
    values = []
    for line in said.splitlines():
        try:
            values.append(json.loads(line))
        except ValueError:
            continue
    return values


class Steps:
    """Runs steps one after the other and notes of each what it found, how long it took and why it failed, if it did."""

    def __init__(self, clock, say=print):
        self.clock = clock
        self.say = say
        self.results = {}

    def step(self, name, limit, work):
        """`work` gets the seconds it may take and returns what it found. Whatever it raises fails this step alone."""
        began = time.monotonic()
        result = {"limit_s": limit}
        seconds = min(limit, self.clock.left())
        try:
            if seconds <= 0:
                raise Stopped("there was no time left")
            result["found"] = work(seconds)
            result["ok"] = True
        except Exception as error:  # A step must not end the others.
            result["ok"] = False
            result["why"] = f"{type(error).__name__}: {error}" if not isinstance(error, Stopped) else str(error)
            partial = getattr(error, "partial", None)
            if partial is not None:
                result["found"] = partial
        result["seconds"] = round(time.monotonic() - began, 1)
        self.results[name] = result
        state = "ok" if result["ok"] else "FAILED: " + result["why"]
        self.say(f"{name}: {result['seconds']} s, {state}", flush=True)
        return result.get("found")
