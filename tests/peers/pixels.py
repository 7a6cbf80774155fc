"""Objects in every transfer syntax that the node takes, and objects with faults in their headers, with the Hounsfield units that
each must give: `pixels.py FOLDER` writes the objects and `truth.json`, a map of name to Hounsfield units, row by row.

What was encoded without loss must come out as it went in. Of lossy JPEG, the decoding of DCMTK (12 bits) and of libjpeg (8 bits) is
the reference. Faulty objects have the units of the sound one that they were made from; how many of them pydicom, GDCM and DCMTK read
alike is printed, with the names of those that a peer reads to other units.
"""

import io
import json
import random
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian,
    JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, JPEGLSNearLossless, RLELossless,
)

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
noise = np.random.default_rng(20260301)
chance = random.Random(20260301)
truth = {}


def image(rows, columns, bits, signed):
    y, x = np.mgrid[:rows, :columns]
    most = (1 << bits) - 1
    smooth = (np.sin(x / 5) + np.cos(y / 7) + 2) / 4 * most * 0.8
    values = np.clip(np.rint(smooth + noise.normal(0, most / 60, (rows, columns))), 0, most).astype(int)
    return values - (1 << bits - 1) if signed else values


def data_set(values, bits, signed=0, allocated=16, slope=1, intercept=0):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = CTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = "2.25.1"
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality, d.PatientID = "2.25.2", "2.25.3", "CT", "PEERS"
    d.Manufacturer, d.StationName, d.PatientName = "Invented", "ROOM 1", "Invented^Peer"
    d.ReferencedImageSequence = [Dataset()]
    d.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "2.25.9"
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = values.shape
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = allocated, bits, bits - 1, signed
    d.RescaleIntercept, d.RescaleSlope = str(intercept), str(slope)
    pixels = values.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    d.PixelData = pixels + b"\0" * (len(pixels) % 2)
    d["PixelData"].VR = "OW" if allocated == 16 else "OB"
    return d


def units(values, slope=1, intercept=0):
    return np.maximum(np.asarray(values).astype(float) * slope + intercept, -1024)


def keep(name, d, values):
    """`values` are the stored ones; DCMTK changes the rescale where it codes 12 bits of fewer."""
    d.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    truth[name] = units(values, float(d.RescaleSlope), float(d.RescaleIntercept)).ravel().tolist()


def dcmtk(tool, *options):
    source, target = folder / "source", folder / "target"
    subprocess.run([tool, *options, source, target], check=True, capture_output=True)
    return pydicom.dcmread(target)


def transfer_syntaxes():
    for rows, columns in [(33, 47), (64, 64)]:
        for bits, signed in [(12, 0), (12, 1), (16, 1), (16, 0), (10, 0)]:
            values = image(rows, columns, bits, signed)
            case = f"{rows}x{columns}-{bits}-{'signed' if signed else 'unsigned'}"
            for name, syntax in [("implicit", ImplicitVRLittleEndian), ("explicit", ExplicitVRLittleEndian),
                                 ("deflated", DeflatedExplicitVRLittleEndian)]:
                d = data_set(values, bits, signed)
                d.file_meta.TransferSyntaxUID = syntax
                keep(f"{name}-{case}", d, values)
            data_set(values, bits, signed).save_as(folder / "source", enforce_file_format=True)
            keep(f"big-{case}", dcmtk("dcmconv", "+tb"), values)
            for predictor in range(1, 8):
                keep(f"lossless{predictor}-{case}", dcmtk("dcmcjpeg", "+el", "+sv", str(predictor)), values)
            lossy = [("shifted", ["+e1", "+pt", "2"]), ("extended30", ["+ee", "+q", "30"]), ("extended95", ["+ee", "+q", "95"])]
            for name, options in lossy if bits <= 12 and not signed else []:
                d = dcmtk("dcmcjpeg", *options)
                d.save_as(folder / "source", enforce_file_format=True)
                keep(f"{name}-{case}", d, dcmtk("dcmdjpeg").pixel_array)
                data_set(values, bits, signed).save_as(folder / "source", enforce_file_format=True)
            for name, syntax in [("rle", RLELossless), ("jpegls", JPEGLSLossless), ("jpeg2000", JPEG2000Lossless)]:
                d = data_set(values, bits, signed)
                d.compress(syntax, generate_instance_uid=False)
                keep(f"{name}-{case}", d, values)
            if not signed:
                d = data_set(values, bits, signed)
                d.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
                keep(f"near-{case}", d, d.pixel_array)
        values = image(rows, columns, 8, 0)
        for name, options in {
            "baseline": {}, "optimized": {"optimize": True}, "coarse": {"quality": 5},
            "restart": {"restart_marker_blocks": 3}, "restart-rows": {"restart_marker_rows": 1},
            "progressive": {"progressive": True}, "progressive-coarse": {"progressive": True, "quality": 20},
            "progressive-restart": {"progressive": True, "restart_marker_blocks": 5},
        }.items():
            stream = io.BytesIO()
            Image.fromarray(values.astype("u1")).save(stream, "JPEG", **options)
            d = data_set(values, 8, allocated=8)
            d.PixelData = encapsulate([stream.getvalue()])
            d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
            d.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
            keep(f"{name}-{rows}x{columns}", d, np.asarray(Image.open(stream)))


LONG = {b"OB", b"OW", b"SQ", b"UN", b"UT"}


def element(tag, vr, value, length=None):
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<HI", 0, length) if vr in LONG else struct.pack("<H", length)) + value


def item(content, length=None):
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if length is None else length) + content


ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
UNUSED = [0x00080070, 0x00081010, 0x00081140]


def elements(d):
    """The elements of the data set, encoded: a list of tag and bytes."""
    encoded = []
    for one in d:
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        single = Dataset()
        single.add(one)
        write_dataset(stream, single)
        encoded.append((int(one.tag), stream.getvalue()))
    return encoded


def put(encoded, tag, raw):
    rest = [pair for pair in encoded if pair[0] != tag]
    return sorted(rest + [(tag, raw)], key=lambda pair: pair[0])


def fault(encoded):
    """One fault of structure, by chance: its name and the elements with it."""
    nested = element(0x00081150, b"UI", b"1.2\0") + element(0x00081155, b"UI", b"2.25.8")
    kind = chance.choice(["vr", "implicit", "behind", "order", "stray", "delimiter", "short", "long", "garbage", "private",
                          "text", "odd", "group", "one-for-both"])
    if kind in ("vr", "implicit"):
        tag, raw = chance.choice([pair for pair in encoded if 0x00080060 <= pair[0] < 0x7FE00000 and pair[1][4:6] != b"SQ"])
        value = raw[8:]
        if kind == "vr":
            vr = chance.choice([b"  ", b"--", b"??", b"RE", b"ZZ"])
            return kind, put(encoded, tag, raw[:4] + vr + struct.pack("<H", len(value)) + value)
        return kind, put(encoded, tag, raw[:4] + struct.pack("<I", len(value)) + value)
    if kind == "behind":
        moved = chance.sample([pair for pair in encoded if 0x00280000 <= pair[0] < 0x7FE00000], 2)
        return kind, [pair for pair in encoded if pair not in moved] + moved
    if kind == "order":
        i = chance.randrange(2, len(encoded) - 3)
        return kind, encoded[:i] + [encoded[i + 1], encoded[i]] + encoded[i + 2:]
    if kind == "text":
        tag = chance.choice(UNUSED[:2])
        value = b"Invented"
        return kind, put(encoded, tag, element(tag, b"LO", value, chance.choice([3, 5, 9, 11, 39, 60000])))
    if kind == "odd":
        tag = chance.choice(UNUSED[:2])
        return kind, put(encoded, tag, element(tag, b"LO", b"Invente", chance.choice([7, 8])))
    if kind == "group":
        return kind, put(encoded, 0x00280000, element(0x00280000, b"UL", struct.pack("<I", chance.randrange(1 << 31))))
    if kind in ("garbage", "private"):
        tag = UNUSED[2] if kind == "garbage" else 0x00091001
        junk = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 80)))
        return kind, put(encoded, tag, element(tag, b"SQ", chance.choice([junk, item(junk)])))
    whole = item(nested)
    raw = {
        "stray": element(UNUSED[2], b"SQ", whole) + chance.choice([SEQUENCE_END, ITEM_END, ITEM_END + SEQUENCE_END]),
        "delimiter": element(UNUSED[2], b"SQ", item(nested, 0xFFFFFFFF) + SEQUENCE_END + SEQUENCE_END, 0xFFFFFFFF),
        "one-for-both": element(UNUSED[2], b"SQ", item(nested, 0xFFFFFFFF) + SEQUENCE_END, 0xFFFFFFFF),
        "short": element(UNUSED[2], b"SQ", whole, len(whole) - chance.choice([1, 2, 4, 8, 14])),
        "long": element(UNUSED[2], b"SQ", whole, len(whole) + chance.choice([1, 2, 4, 7])),
    }[kind]
    return kind, put(encoded, UNUSED[2], raw)


def read_by_pydicom(path):
    d = pydicom.dcmread(path)
    return units(d.pixel_array, float(d.RescaleSlope), float(d.RescaleIntercept))


def read_by_gdcm(path):
    # Not before: its own zlib and Python's do not go together, and deflated objects are written above.
    import gdcm

    gdcm.Trace.WarningOff(), gdcm.Trace.ErrorOff(), gdcm.Trace.DebugOff()
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError("unreadable")
    picture = reader.GetImage()
    form = picture.GetPixelFormat()
    kind = f"<{'i' if form.GetPixelRepresentation() else 'u'}{form.GetBitsAllocated() // 8}"
    values = np.frombuffer(picture.GetBuffer().encode("utf-8", errors="surrogateescape"), kind)
    return units(values, picture.GetSlope(), picture.GetIntercept())


def read_by_dcmtk(path):
    target = folder / "target"
    subprocess.run(["dcmconv", "+te", path, target], check=True, capture_output=True)
    return read_by_pydicom(target)


def faulty():
    peers = {"pydicom": read_by_pydicom, "GDCM": read_by_gdcm, "DCMTK": read_by_dcmtk}
    alike, others = dict.fromkeys(peers, 0), []
    for number in range(240):
        bits, signed = chance.choice([(12, 0), (12, 1), (16, 1), (16, 0)])
        slope, intercept = chance.choice([(1, -1024), (2, -1024), (1, 0), (0.5, -100)])
        values = image(*chance.choice([(16, 24), (15, 17)]), bits, signed)
        d = data_set(values, bits, signed, slope=slope, intercept=intercept)
        kind, encoded = fault(elements(d))
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, False
        stream.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(stream, d.file_meta, enforce_standard=False)
        name = f"fault-{number:03}-{kind}"
        path = folder / f"{name}.dcm"
        tail = bytes(chance.choice([0, 0, 2, 130]))
        path.write_bytes(stream.getvalue() + b"".join(raw for _, raw in encoded) + tail)
        right = units(values, slope, intercept).ravel()
        truth[name] = right.tolist()
        for peer, read in peers.items():
            try:
                seen = read(path).ravel()
            except Exception:
                continue
            if seen.shape == right.shape and np.allclose(seen, right, atol=1e-3):
                alike[peer] += 1
            else:
                others.append(f"{peer}: {name}")
    print("240 faulty objects; read alike by", alike, "; to other units:", others)


transfer_syntaxes()
faulty()
(folder / "truth.json").write_text(json.dumps(truth))
