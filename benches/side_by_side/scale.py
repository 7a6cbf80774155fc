"""What a ledger with a million instances costs: ingest rate and worklist queries, beside an empty one."""

import pathlib
import sqlite3
import tempfile
import time

from . import receivers, senders
from .objects import make_objects
from .processes import Failed, get
from .statistics import Sample

SLICES_A_STUDY = 40
SQL_WORKLIST = "SELECT * FROM worklist WHERE flagged = 1 AND acknowledged_at IS NULL ORDER BY score DESC"


def measure(bench):
    """Rows of {instances, bytes, ingest, worklist page, API, SQL}, the empty ledger first; times in milliseconds."""
    # Other objects in each run: duplicates would write no row.
    series = [
        make_objects(bench.program, bench.folder / f"scale-{turn}", bench.objects, scored=False) for turn in range(bench.repeats)
    ]
    sender = bench.present(senders.ALL)[0]
    rows = []
    for instances in (0, bench.ledger_rows):
        with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
            scratch = pathlib.Path(scratch)
            node = receivers.Triaged(bench.tools, bench.program)
            node.start(scratch)
            node.stop()
            database = scratch / "data" / "triaged.db"
            if instances:
                fill(database, instances)
            begin = time.monotonic()
            node.start(scratch)
            start = time.monotonic() - begin
            try:
                page = times(bench, lambda: fetch(node, "/"))
                api = times(bench, lambda: fetch(node, "/api/v1/studies"))
                sql = times(bench, lambda: node.ask(SQL_WORKLIST))
                rates = []
                before = node.ask("SELECT count(*) FROM instances")[0][0]
                for turn, objects in enumerate(series):
                    shares = objects.shares(4, scratch / f"send-{turn}")
                    rates.append(len(objects) / senders.send(sender, node.port, shares)[1])
                stored = node.ask("SELECT count(*) FROM instances")[0][0] - before
                if stored != sum(map(len, series)):
                    raise Failed(f"{stored} instances in the ledger after sending {sum(map(len, series))}")
            finally:
                node.stop()
            rows.append(
                {
                    "instances": instances,
                    "database_mib": round(database.stat().st_size / 2**20),
                    "start_seconds": round(start, 2),
                    "ingest": Sample.of(rates).plain(),
                    "page_ms": page,
                    "api_ms": api,
                    "sql_ms": sql,
                }
            )
            bench.say(f"ledger with {instances} instances: {rows[-1]}")
    return rows


def fetch(node, path):
    status, _ = get(f"http://127.0.0.1:{node.web}{path}")
    if status != 200:
        raise Failed(f"GET {path} answered {status}")


def times(bench, ask):
    """Milliseconds of repeated asking."""
    values = []
    for _ in range(max(5, bench.repeats)):
        begin = time.monotonic()
        ask()
        values.append((time.monotonic() - begin) * 1000)
    return Sample.of(values).plain()


def fill(database, instances):
    """As many instances as years of work leave, each with a scored slice, a tenth of the studies flagged, nobody having read the last hundred."""
    connection = sqlite3.connect(database, isolation_level=None)
    # Nothing here needs to survive: the file is thrown away after the measurement.
    connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF;")
    studies = instances // SLICES_A_STUDY
    connection.create_function("digest", 1, lambda n: f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4, deterministic=True)
    connection.create_function("noise", 1, lambda n: (n * 2654435761 % 2**32) / 2**32, deterministic=True)
    time_of = "strftime('%Y-%m-%dT%H:%M:%fZ', 1600000000 + {0} * 6000, 'unixepoch')"
    connection.execute("BEGIN")
    connection.execute(
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {studies})
        INSERT INTO studies (study_uid, accession_number, patient_id, state, revision, flagged, score, threshold,
            first_received_at, last_received_at, opened_at, decided_at, acknowledged_at)
        SELECT '1.2.826.0.1.3680043.8.498.' || i, 'A' || i, 'P' || (i % 9973), 'decided', 1, i % 10 = 0,
            noise(i), 0.5, {time_of.format('i')}, {time_of.format('i')}, {time_of.format('i')}, {time_of.format('i')},
            CASE WHEN i <= {studies - 1000} THEN {time_of.format('i')} END FROM n"""
    )
    connection.execute(
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {studies * SLICES_A_STUDY})
        INSERT INTO instances (id, sop_uid, sop_class_uid, transfer_syntax, study_uid, series_uid, instance_number, digest,
            path, size, calling_ae, peer, received_at)
        SELECT i, '1.2.826.0.1.3680043.8.498.' || (i * 7919), '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1',
            '1.2.826.0.1.3680043.8.498.' || ((i - 1) / {SLICES_A_STUDY} + 1),
            '1.2.826.0.1.3680043.8.498.' || ((i - 1) / {SLICES_A_STUDY} + 1) || '.1', i % {SLICES_A_STUDY},
            digest(i), 'archive/' || substr(digest(i), 1, 2) || '/' || substr(digest(i), 3, 24) || '.dcm', 526000, 'CT1',
            '10.0.0.1', {time_of.format(f'(i / {SLICES_A_STUDY})')} FROM n"""
    )
    connection.execute(
        """INSERT INTO scores (id, slice_id, probability, positive, threshold, model, model_sha256, provider, software,
            claimed_at, decoded_at, scored_at)
        SELECT id, id, noise(id), noise(id) > 0.5, 0.5, 'm10 1', digest(1), 'CPUExecutionProvider', 'triaged', received_at,
            received_at, received_at FROM instances"""
    )
    connection.execute(
        """INSERT INTO slices (id, instance_id, study_uid, frame, state, attempts, claims, score_id)
        SELECT id, id, study_uid, 1, 'scored', 1, 1, id FROM instances"""
    )
    connection.execute("COMMIT")
    connection.close()
