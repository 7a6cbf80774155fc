"""From the last slice's success to the alert at the webhook, one study at a time and eight at once."""

import http.server
import json
import pathlib
import tempfile
import threading
import time

import pydicom
from pydicom.uid import generate_uid

from . import receivers, senders
from .objects import make_series
from .processes import wait
from .statistics import percentile

SLICES = 30
ALERT_SECONDS = 300
# What a test must not wait for and a site may set: with it, what is left is the node's own time.
QUIET_SECONDS = 1


class Hears(http.server.BaseHTTPRequestHandler):
    """Notes when an alert's last byte was there, and answers 204."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.setdefault(body["study_uid"], time.time())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def measure(bench):
    """For 1 and 8 studies at once: seconds from the last success to the webhook (p50, p95), and to the verdict."""
    sender = bench.present(senders.ALL)[0]
    template = make_series(bench.program, bench.folder / "bleeding", SLICES, "epidural")
    rows = []
    for provisional in (True, False):
        for at_once in (1, 8):
            rows.append(studies(bench, sender, template, at_once, provisional))
            row = rows[-1]
            bench.say(
                f"latency, {at_once} at once, provisional alerts {'on' if provisional else 'off'}: "
                f"{row['alerted']} of {row['studies']} alerted, p50 {row['p50']} s, p95 {row['p95']} s"
            )
    return {"slices": SLICES, "quiet_seconds": QUIET_SECONDS, "rows": rows}


def studies(bench, sender, template, at_once, provisional):
    rounds = bench.latency_rounds if at_once == 1 else max(1, bench.latency_rounds // 4)
    hears = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hears)
    hears.heard = {}
    threading.Thread(target=hears.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(dir=bench.folder) as scratch:
        scratch = pathlib.Path(scratch)
        node = receivers.Triaged(
            bench.tools,
            bench.program,
            TRIAGED__INFERENCE__DEVICE="cpu",
            TRIAGED__TRIAGE__QUIET_SECONDS=str(QUIET_SECONDS),
            TRIAGED__TRIAGE__PROVISIONAL_ALERTS=str(provisional).lower(),
            TRIAGED__NOTIFY__WEBHOOK__URL=f"http://127.0.0.1:{hears.server_port}/",
        )
        node.start(scratch)
        try:
            sent = 0
            for turn in range(rounds):
                folders = [copy(template, scratch / "send" / f"{turn}-{index}") for index in range(at_once)]
                senders.send(sender, node.port, folders)
                sent += at_once
                decided = f"SELECT count(*) = {sent} AND total(state = 'receiving') = 0 FROM worklist"
                wait("the studies to be decided", ALERT_SECONDS, lambda: node.ask(decided)[0][0], pause=0.1)
                pending = "SELECT count(*) FROM notification_log WHERE state = 'pending'"
                wait("the alerts to be delivered", ALERT_SECONDS, lambda: not node.ask(pending)[0][0], pause=0.1)
            epoch = "(julianday({}) - 2440587.5) * 86400"
            last = dict(node.ask(f"SELECT study_uid, {epoch.format('last_received_at')} FROM worklist"))
            scored = dict(node.ask(f"SELECT study_uid, {epoch.format('max(scored_at)')} FROM slice_results GROUP BY study_uid"))
        finally:
            node.stop()
            hears.shutdown()
    seconds = [hears.heard[uid] - last[uid] for uid in last if uid in hears.heard]
    after_scores = [hears.heard[uid] - scored[uid] for uid in last if uid in hears.heard]
    return {
        "at_once": at_once,
        "provisional": provisional,
        "studies": sent,
        "alerted": len(seconds),
        "p50": round(percentile(seconds, 0.5), 3) if seconds else None,
        "p95": round(percentile(seconds, 0.95), 3) if seconds else None,
        "p50_after_last_score": round(percentile(after_scores, 0.5), 3) if seconds else None,
    }


def copy(template, folder):
    """The series again as another study."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    for file in template:
        one = pydicom.dcmread(file)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = study, series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.save_as(folder / file.name, enforce_file_format=True)
    return folder
