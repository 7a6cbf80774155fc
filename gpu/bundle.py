#!/usr/bin/env python3
"""Makes the bundle for a bare x86-64 machine with an NVIDIA card and no network (`make gpu-bundle`).

    gpu/bundle.py --programs FOLDER --onnxruntime FOLDER --out gpu-bundle

FOLDER of the programs is that of a release build with `--features triaged-training/cuda`. What is written: parts of at most
60 MiB, SHA256SUMS, and join.py, which puts them together again on the other side.
"""

import argparse
import hashlib
import io
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
PART = 60 << 20
# The CUDA provider and what loads it. TensorRT's own libraries (2 GB) are not carried, so neither is its provider.
LIBRARIES = ("libonnxruntime.so", "libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so")
CARDS = ("m11", "m10")
STUDIES, SLICES, REAL = 4, 32, 96


def say(text):
    print(f"gpu-bundle: {text}", flush=True)


def run(*command, environment=None):
    subprocess.run([str(part) for part in command], check=True, env=environment, stdin=subprocess.DEVNULL)


def programs(folder, stage):
    for name in ("triaged", "triaged-training"):
        source = folder / name
        if not source.is_file():
            sys.exit(f"gpu-bundle: {source} is not there: build it first (`make gpu-bundle` does)")
        target = stage / "bin" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        run("strip", "--strip-all", target)
        target.chmod(0o755)


def onnxruntime(folder, stage):
    (stage / "bin" / "lib").mkdir(parents=True)
    for name in LIBRARIES:
        source = folder / name
        if not source.is_file():
            sys.exit(f"gpu-bundle: {source} is not there: `scripts/onnxruntime.py cuda {folder}` brings it")
        shutil.copyfile(source, stage / "bin" / "lib" / name)
    for licence in folder.glob("onnxruntime-*"):
        shutil.copyfile(licence, stage / "bin" / "lib" / licence.name)


def models(stage, folder, library):
    """The float32 models, and half-precision copies of them: the shipped ones where there are, else made here."""
    target = stage / "bin" / "models"
    target.mkdir(parents=True)
    trainer = stage / "bin" / "triaged-training"
    phantoms = folder / "labelled"
    environment = {"PATH": "/usr/bin:/bin", "ORT_DYLIB_PATH": str(library)}
    for name in CARDS:
        for kind in ("json", "md", "onnx"):
            shutil.copyfile(ROOT / "models" / f"{name}.{kind}", target / f"{name}.{kind}")
        half = f"{name}-fp16"
        if (ROOT / "models" / f"{half}.json").is_file():
            for kind in ("json", "md", "onnx"):
                shutil.copyfile(ROOT / "models" / f"{half}.{kind}", target / f"{half}.{kind}")
            continue
        if not phantoms.exists():
            run(trainer, "phantoms", "--out", phantoms, "--studies", 4, "--slices", 12)
        run(trainer, "half", "--card", target / f"{name}.json", "--data", phantoms, "--out", target, environment=environment)


def slices(stage, real):
    """Uncompressed slices: of phantoms, and where this workplace has real ones, some of those; none is in the repository."""
    target = stage / "slices"
    target.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        for study in range(STUDIES):
            folder = pathlib.Path(scratch) / str(study)
            lesion = ["none", "epidural", "intraparenchymal", "subdural"][study % 4]
            run(stage / "bin" / "triaged", "phantom", "--out", folder, "--slices", SLICES, "--seed", 500 + study,
                "--lesion", lesion)
            for path in sorted(folder.glob("*.dcm")):
                shutil.copyfile(path, target / f"phantom-{study}-{path.name}")
    if not real:
        return
    try:
        import pydicom
    except ImportError:
        say("no pydicom: real slices are left out")
        return
    files = sorted(path for folder in real for path in folder.rglob("*.dcm"))
    random.Random(2019).shuffle(files)
    for number, path in enumerate(files[:REAL]):
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress()
        dataset.save_as(target / f"real-{number:04}.dcm")


def pack(stage, out):
    """One compressed archive in parts, the digests of the parts beside them, those of the files within."""
    contents = []
    for path in sorted(path for path in stage.rglob("*") if path.is_file()):
        contents.append(f"{digest(path)}  {path.relative_to(stage)}\n")
    (stage / "CONTENTS").write_text("".join(contents))
    compress = subprocess.Popen(["xz", "-T0", "-6", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    parts = Parts(out)
    # A thread writes into one pipe while the other is read.
    def write():
        with tarfile.open(fileobj=compress.stdin, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(stage.rglob("*")):
                if path.is_file():
                    information = archive.gettarinfo(path, str(path.relative_to(stage)))
                    # The same files make the same bundle, whoever made it when.
                    information.mtime, information.uid, information.gid = 0, 0, 0
                    information.uname = information.gname = ""
                    with open(path, "rb") as file:
                        archive.addfile(information, file)
        compress.stdin.close()

    writer = threading.Thread(target=write)
    writer.start()
    while block := compress.stdout.read(1 << 20):
        parts.write(block)
    writer.join()
    compress.stdout.close()
    if compress.wait() != 0:
        sys.exit("gpu-bundle: xz failed")
    return parts.close()


class Parts:
    """Files part-01, part-02 … of at most PART bytes."""

    def __init__(self, folder):
        self.folder, self.digests, self.file, self.left = folder, [], None, 0

    def write(self, block):
        view = io.BytesIO(block)
        while piece := view.read(self.left or PART):
            if self.left == 0:
                self.next()
            self.file.write(piece)
            self.left -= len(piece)

    def next(self):
        self.finish()
        self.path = self.folder / f"part-{len(self.digests) + 1:02}"
        self.file, self.left = open(self.path, "wb"), PART

    def finish(self):
        if self.file is not None:
            self.file.close()
            self.digests.append((digest(self.path), self.path.name))

    def close(self):
        self.finish()
        (self.folder / "SHA256SUMS").write_text("".join(f"{sha}  {name}\n" for sha, name in self.digests))
        return [self.folder / name for _, name in self.digests]


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--onnxruntime", type=pathlib.Path, required=True, help="folder of ONNX Runtime's GPU build")
    parser.add_argument("--onnxruntime-cpu", type=pathlib.Path, help="a library that runs here, for the copies' figures [the GPU build's]")
    parser.add_argument("--real", type=pathlib.Path, action="append", default=[], help="a folder of real slices; may be given more than once")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "gpu-bundle")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        stage = pathlib.Path(folder) / "stage"
        stage.mkdir()
        programs(args.programs, stage)
        onnxruntime(args.onnxruntime, stage)
        models(stage, pathlib.Path(folder), args.onnxruntime_cpu or stage / "bin" / "lib" / LIBRARIES[0])
        slices(stage, [path for path in args.real if path.is_dir()])
        shutil.copytree(ROOT / "gpu" / "check", stage / "gpu-check", ignore=shutil.ignore_patterns("__pycache__"))
        parts = pack(stage, args.out)
    shutil.copyfile(ROOT / "gpu" / "join.py", args.out / "join.py")
    for part in parts:
        say(f"{part.relative_to(args.out)}: {part.stat().st_size / (1 << 20):.1f} MiB")
    say(f"{args.out} is ready; on the other side: python3 join.py && python3 bundle/gpu-check")


if __name__ == "__main__":
    main()
