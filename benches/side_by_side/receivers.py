"""Storage SCPs: this project's node, and other people's, each in a fresh folder."""

import json
import os
import pathlib
import shutil
import sqlite3
import sys

from .processes import Failed, Program, accepts, free_ports, get, version, wait

READY_SECONDS = 120
ORTHANC_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Receiver:
    """A program that takes in objects; `durable` says what its success promises."""

    durable = False
    environment = {}

    def __init__(self, tools):
        pass

    def available(self):
        return self.program is not None

    def start(self, folder):
        """Starts in an empty folder and waits until it listens."""
        self.folder = pathlib.Path(folder)
        (self.port,) = free_ports(1)
        self.running = Program(self.command(), self.folder / "log", self.environment)
        self.wait_ready()

    def wait_ready(self):
        def ready():
            if not self.running.alive():
                raise Failed(f"{self.name} ended at start: {self.running.said()}")
            return accepts(self.port)

        wait(f"{self.name} to listen", READY_SECONDS, ready)

    def stop(self):
        self.running.stop()

    def store(self):
        """Where received files go."""
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        return store

    def files(self):
        return [path for path in self.store().rglob("*") if path.is_file()]


class Triaged(Receiver):
    name = "triaged"
    short = "triaged"
    durable = True

    def __init__(self, tools, program, **settings):
        self.program = program
        self.settings = settings

    def version(self):
        return version([self.program, "--version"])

    def start(self, folder):
        (self.web,) = free_ports(1)
        super().start(folder)

    def command(self):
        self.environment = {
            "TRIAGED__DATA_DIR": str(self.folder / "data"),
            "TRIAGED__DIMSE__LISTEN": "127.0.0.1",
            "TRIAGED__DIMSE__PORT": str(self.port),
            "TRIAGED__WEB__LISTEN": f"127.0.0.1:{self.web}",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **self.settings,
        }
        return [self.program, "serve"]

    def wait_ready(self):
        def ready():
            if not self.running.alive():
                raise Failed(f"{self.name} ended at start: {self.running.said()}")
            answer = get(f"http://127.0.0.1:{self.web}/readyz")
            return answer and answer[0] == 200

        wait(f"{self.name} to be ready", READY_SECONDS, ready)

    def database(self):
        return sqlite3.connect(f"file:{self.folder}/data/triaged.db?mode=ro", uri=True, timeout=60)

    def ask(self, sql):
        database = self.database()
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def files(self):
        """The files that the ledger names: a file without a row would not count."""
        return [self.folder / "data" / path for (path,) in self.ask("SELECT path FROM instances")]


class DcmtkStorescp(Receiver):
    name = "DCMTK storescp"
    short = "storescp"

    def __init__(self, tools):
        self.program = shutil.which("storescp")

    def version(self):
        return version([self.program, "--version"])

    def command(self):
        return [self.program, "-od", self.store(), str(self.port)]


class DcmtkFork(DcmtkStorescp):
    name = "DCMTK storescp --fork"
    short = "storescp --fork"

    def command(self):
        return [self.program, "--fork", "-od", self.store(), str(self.port)]


class Orthanc(Receiver):
    name = "Orthanc"
    short = "Orthanc"
    durable = True

    def __init__(self, tools):
        self.program = shutil.which("Orthanc", path=ORTHANC_PATH)

    def version(self):
        return version([self.program, "--version"])

    def command(self):
        (self.http,) = free_ports(1)
        configuration = self.folder / "orthanc.json"
        # Defaults but for ports, folders and what a peer must be allowed to do.
        configuration.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(self.store()),
                    "IndexDirectory": str(self.folder / "index"),
                    "DicomPort": self.port,
                    "HttpPort": self.http,
                    "RemoteAccessAllowed": False,
                    "DicomAlwaysAllowStore": True,
                    "DicomCheckCalledAet": False,
                    "Plugins": [],
                }
            )
        )
        return [self.program, str(configuration)]

    def files(self):
        """Orthanc keeps a JSON summary beside some objects; only Part 10 files count."""
        return [path for path in super().files() if path.read_bytes()[128:132] == b"DICM"]


# `python -m pynetdicom`, whose storescp takes ten associations and has no option for more.
PYNETDICOM = """
import runpy
from pynetdicom import AE
begin = AE.__init__
def roomy(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    self.maximum_associations = 64
AE.__init__ = roomy
runpy.run_module("pynetdicom", run_name="__main__", alter_sys=True)
"""


class Pynetdicom(Receiver):
    name = "pynetdicom storescp"
    short = "pynetdicom"

    def __init__(self, tools):
        self.program = sys.executable

    def version(self):
        import pynetdicom

        return f"pynetdicom {pynetdicom.__version__}"

    def command(self):
        return [self.program, "-c", PYNETDICOM, "storescp", str(self.port), "-od", self.store()]


class DicomRsStorescp(Receiver):
    name = "dicom-rs storescp"
    short = "dicom-rs"

    def __init__(self, tools):
        self.program = shutil.which("dicom-storescp", path=tools)

    def version(self):
        return version([self.program, "--version"])

    def command(self):
        return [self.program, "--non-blocking", "-p", str(self.port), "-o", self.store()]


PEERS = [DcmtkStorescp, DcmtkFork, Orthanc, Pynetdicom, DicomRsStorescp]
