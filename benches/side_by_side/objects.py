"""The CT objects that are sent, and the proof that they arrived."""

import hashlib
import os
import pathlib
import subprocess

import pydicom
from pydicom.uid import generate_uid

from .processes import Failed


def identity(path):
    """(SOP Instance UID, digest of the pixel data) of a file."""
    with pydicom.dcmread(path) as one:
        return str(one.SOPInstanceUID), hashlib.sha256(one.PixelData).hexdigest()


def make_series(program, folder, slices, lesion=None):
    """A synthetic head CT series of the project's own generator: 512 × 512 × 16 bit, uncompressed, 0.5 MB a slice."""
    command = [program, "phantom", "--out", folder, "--slices", str(slices)]
    if lesion:
        command += ["--lesion", lesion]
    subprocess.run([str(each) for each in command], check=True, stdout=subprocess.DEVNULL)
    return sorted(pathlib.Path(folder).glob("**/*.dcm"))


def make_objects(program, folder, count, scored):
    """`count` CT objects with pixels of their own, of one study. A node scores heads; localizers, of the same pixels, it stores alone."""
    folder = pathlib.Path(folder)
    templates = make_series(program, folder / "templates", 20, "epidural")
    made = folder / "objects"
    made.mkdir()
    study, series = generate_uid(), generate_uid()
    identities = {}
    for number in range(count):
        one = pydicom.dcmread(templates[number % len(templates)])
        one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID = study, series, generate_uid()
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.InstanceNumber = number + 1
        if not scored:
            # Another body part is not enough: a node looks at the pixels before it believes that.
            one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        pixels = bytearray(one.PixelData)
        # No two objects have the same pixels.
        pixels[:4] = number.to_bytes(4, "little")
        one.PixelData = bytes(pixels)
        path = made / f"{number:05}.dcm"
        one.save_as(path, enforce_file_format=True)
        identities[str(one.SOPInstanceUID)] = hashlib.sha256(one.PixelData).hexdigest()
    for template in templates:
        template.unlink()
    return Objects(made, identities)


class Objects:
    """Files to send, and what must arrive."""

    def __init__(self, folder, identities, files=None):
        self.folder, self.identities = folder, identities
        self.files = files or sorted(folder.glob("*.dcm"))

    def __len__(self):
        return len(self.files)

    def first(self, count):
        """The first `count` of them; files and identities are in the same order."""
        return Objects(self.folder, dict(list(self.identities.items())[:count]), self.files[:count])

    def shares(self, count, folder):
        """Folders of hard links, one a sender, each with every `count`-th file."""
        shares = []
        for index in range(count):
            share = pathlib.Path(folder) / f"share-{index}"
            share.mkdir(parents=True)
            for file in self.files[index::count]:
                os.link(file, share / file.name)
            shares.append(share)
        return shares

    def verify(self, files):
        """Every object is among the received files, once, pixel for pixel."""
        found = {}
        for file in files:
            uid, digest = identity(file)
            if uid in found:
                raise Failed(f"{uid} was stored twice")
            found[uid] = digest
        missing = self.identities.keys() - found.keys()
        if missing:
            raise Failed(f"{len(missing)} of {len(self)} objects were not stored")
        if found != self.identities:
            wrong = sum(found[uid] != digest for uid, digest in self.identities.items())
            raise Failed(f"{wrong} objects were stored with other pixels, {len(found) - len(self)} were never sent")
