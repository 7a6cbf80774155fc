"""Storage SCUs of other people: command lines that send a folder over one association."""

import shutil
import subprocess
import time

from .processes import Failed, version

SENDING_SECONDS = 300


class DcmtkStorescu:
    name = "DCMTK storescu"
    short = "storescu"

    def __init__(self, tools):
        self.program = shutil.which("storescu")

    def available(self):
        return self.program is not None

    def version(self):
        return version([self.program, "--version"])

    def command(self, port, folder):
        return [self.program, "-aec", "TRIAGED", "127.0.0.1", str(port), "+sd", str(folder)]


class DicomRsStorescu:
    name = "dicom-rs storescu"
    short = "dicom-rs"

    def __init__(self, tools):
        self.program = shutil.which("dicom-storescu", path=tools)

    def available(self):
        return self.program is not None

    def version(self):
        return version([self.program, "--version"])

    def command(self, port, folder):
        return [self.program, f"TRIAGED@127.0.0.1:{port}", "--fail-first", str(folder)]


ALL = [DcmtkStorescu, DicomRsStorescu]


def send(sender, port, folders):
    """A sender a folder, all at once; returns (monotonic begin, seconds until the last one ended)."""
    begin = time.monotonic()
    running = [
        subprocess.Popen(sender.command(port, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for folder in folders
    ]
    complaints = []
    for process in running:
        try:
            _, said = process.communicate(timeout=max(1.0, SENDING_SECONDS - (time.monotonic() - begin)))
        except subprocess.TimeoutExpired:
            for each in running:
                each.kill()
                each.wait()
            raise Failed(f"{sender.name} had not ended after {SENDING_SECONDS} s") from None
        if process.returncode != 0:
            complaints.append(f"{sender.name} ended with {process.returncode}: {said[-300:].strip()}")
    seconds = time.monotonic() - begin
    if complaints:
        raise Failed(complaints[0])
    return begin, seconds
