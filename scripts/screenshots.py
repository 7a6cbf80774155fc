#!/usr/bin/env python3
"""Draws every page into docs/pictures: `make screenshots`.

    scripts/screenshots.py target/release/triaged docs/pictures

Starts a node of its own as the demo does, sends synthetic series, acknowledges one, and takes pictures with Debian's Chromium
at 1440 and 390 pixels, light and dark. Every patient is invented.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import urllib.request

import pydicom
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from demo import Demo, wait

PATIENTS = [
    ("Okonkwo^Adaeze", "19540312", "F", "CT HEAD WITHOUT CONTRAST", "ER-CT-1", ["--lesion", "epidural", "--seed", "11"]),
    ("Lindqvist^Gösta", "19391130", "M", "CT HEAD WITHOUT CONTRAST", "ER-CT-1", ["--seed", "12"]),
    ("Yamada^Tarou=山田^太郎", "19710504", "M", "CT Schädel nativ", "CT-2", ["--lesion", "intraparenchymal", "--seed", "13"]),
    ("Dubois^Amélie", "20190822", "F", "CT HEAD TRAUMA", "ER-CT-1", ["--seed", "14"]),
    ("Moreno^Luis", "19480215", "M", "CT HEAD STROKE", "CT-2", ["--seed", "15"]),
]


def send(demo, number, patient):
    name, birth, sex, description, station, options = patient
    folder = demo.folder / f"series-{number}"
    demo.triaged("phantom", "--out", folder, *options, capture=True)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.SpecificCharacterSet = "ISO_IR 192"
        data.PatientName, data.PatientBirthDate, data.PatientSex = name, birth, sex
        data.PatientID, data.AccessionNumber = f"P{40213 + 7 * number}", f"A2026-{1180 + number}"
        data.StudyDescription, data.StationName = description, station
        data.StudyDate = "20261126"
        data.save_as(path)
    if number == len(PATIENTS):
        # One that is not whole.
        for path in sorted(folder.iterdir())[10:16]:
            path.unlink()
    demo.triaged("send", "--to", f"127.0.0.1:{demo.dimse}", folder, capture=True)


def small(path):
    """The picture in few colours: half of the bytes, and nobody sees it."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main(program, pictures):
    pictures = pathlib.Path(pictures).absolute()
    pictures.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if not chromium:
        sys.exit("screenshots: there is no chromium (make test-deps)")
    with tempfile.TemporaryDirectory(prefix="triaged-pictures-") as scratch:
        demo = Demo(os.path.abspath(program), scratch, "http://127.0.0.1:9/alert")
        demo.environment["TRIAGED__NOTIFY__WEBHOOK__URL"] = ""
        # What a machine without a GPU says of that belongs in no picture.
        demo.environment["TRIAGED__INFERENCE__DEVICE"] = "cpu"
        demo.environment["TRIAGED__WEB__VIEWER_URL"] = "https://pacs.example.org/viewer?StudyInstanceUIDs={study_uid}"
        demo.start()
        try:
            for number, patient in enumerate(PATIENTS, 1):
                send(demo, number, patient)
            wait("all studies to be decided", 300, lambda: all(row["state"] == "decided" for row in demo.worklist().values()))
            rows = sorted(demo.worklist().values(), key=lambda row: -(row["score"] or 0))
            flagged = [row["study_uid"] for row in rows if row["flagged"]]
            if len(flagged) > 1:
                demo.triaged("ack", flagged[1], "--by", "Dr. Haddad", "--note", "called neurosurgery", capture=True)
            shots(demo, chromium, pictures, flagged[0] if flagged else rows[0]["study_uid"])
        finally:
            demo.stop()


def shots(demo, chromium, pictures, study):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--no-proxy-server"])
        for width, height in ((1440, 900), (390, 844)):
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                for name, path in (("worklist", "/"), ("study", f"/studies/{study}"), ("node", "/admin")):
                    page.goto(f"http://127.0.0.1:{demo.web}{path}", wait_until="load")
                    # Not wait_for_function: the policy of the pages allows no eval.
                    wait("the pictures", 60, lambda: page.evaluate("Array.from(document.images).every((image) => image.complete)"))
                    page.wait_for_timeout(300)
                    file = pictures / f"{name}-{width}-{scheme}.png"
                    page.screenshot(path=str(file))
                    small(file)
                context.close()
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
