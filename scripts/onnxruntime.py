#!/usr/bin/env python3
"""Puts ONNX Runtime's shared library, version and SHA-256 pinned, into a folder.

    scripts/onnxruntime.py cpu  FOLDER     the CPU build
    scripts/onnxruntime.py cuda FOLDER     the GPU build (CUDA and TensorRT providers)
    scripts/onnxruntime.py keep FOLDER     the build that is there already; the CPU build where none is

The library comes from the Python wheel of the same name, fetched once by pip with --require-hashes and kept unpacked
in .cache/onnxruntime/, so that neither `cargo clean` nor a second checkout of the version needs the network again.
Every file is compared with onnxruntime.sha256 when it is unpacked and again each time it is copied from the cache.

The GPU build loads these at run time, from the system's library path or LD_LIBRARY_PATH:
    the NVIDIA driver (libcuda.so.1), 580 or newer
    CUDA 13: libcudart.so.13, libcublas.so.13, libcublasLt.so.13, libcurand.so.10, libcufft.so.12, libnvrtc.so.13
    cuDNN 9 for CUDA 13: libcudnn.so.9
    only for inference.device = "tensorrt": TensorRT 10, libnvinfer.so.10 and libnvonnxparser.so.10
They come with NVIDIA's Debian packages (cuda-libraries-13-*, libcudnn9-cuda-13) or with the wheels nvidia-cuda-runtime,
nvidia-cublas, nvidia-curand, nvidia-cufft, nvidia-cuda-nvrtc (13.*, 10.*, 12.*) and nvidia-cudnn-cu13 (9.*). `triaged
check` says which provider really runs.
"""

import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "onnxruntime"
LICENCES = ("LICENSE", "ThirdPartyNotices.txt")
# Names the build in the target folder, and, being written last, says that the folder is complete.
STAMP = "onnxruntime.build"


def fail(text):
    sys.exit(f"onnxruntime: {text}")


def pins(variant, arch):
    """File name to SHA-256 for one build; fails where none is published."""
    found = {}
    for line in (HERE / "onnxruntime.sha256").read_text().splitlines():
        if line and not line.startswith("#"):
            digest, of_variant, of_arch, name = line.split()
            if (of_variant, of_arch) == (variant, arch):
                found[name] = digest
    if not found:
        fail(f"no {variant} build is published for {arch}; set ORT_DYLIB_PATH to a library of your own")
    return found


def requirement(variant):
    """The requirements file and the version it pins."""
    path = HERE / f"onnxruntime-{variant}.txt"
    line = next(line for line in path.read_text().splitlines() if line.startswith("onnxruntime"))
    return path, line.split("==")[1].split()[0]


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def complete(folder, expected):
    return all((folder / name).is_file() and digest(folder / name) == sha for name, sha in expected.items())


def fetch(variant, arch, expected, folder):
    """Downloads the wheel and unpacks the pinned files and the licences into `folder`, all or nothing."""
    path, version = requirement(variant)
    print(f"onnxruntime: fetching {path.name} ({version}, {variant}, {arch})", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        scratch = pathlib.Path(scratch)
        # --platform and --abi name the wheel outright, so that any python3 fetches the one that is pinned.
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--require-hashes", "--requirement", path, "--dest", scratch]
        pip += ["--implementation", "cp", "--python-version", "311", "--abi", "cp311"]
        pip += ["--platform", f"manylinux_2_28_{arch}"]
        environment = dict(os.environ, PIP_REQUIRE_VIRTUALENV="0", PIP_NO_INPUT="1", PIP_ROOT_USER_ACTION="ignore")
        if subprocess.run(pip, env=environment, stdin=subprocess.DEVNULL).returncode != 0:
            fail("pip could not fetch the wheel (see above); with no network, set ORT_DYLIB_PATH to a library you have")
        wheel = next(scratch.glob("*.whl"))
        unpacked = scratch / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            members = {name: f"onnxruntime/capi/{name}" for name in expected}
            members.update({name: f"onnxruntime/{name}" for name in LICENCES})
            for name, member in members.items():
                with archive.open(member) as source, open(unpacked / name, "wb") as target:
                    shutil.copyfileobj(source, target)
        if not complete(unpacked, expected):
            fail("a file in the wheel differs from its SHA-256 in scripts/onnxruntime.sha256; nothing was installed")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unpacked, folder)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("cpu", "cuda", "keep"):
        sys.exit(__doc__)
    variant, target = sys.argv[1], pathlib.Path(sys.argv[2])
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    stamp = target / STAMP
    present = stamp.read_text().split() if stamp.is_file() else []
    if variant == "keep":
        variant = present[1] if len(present) == 3 else "cpu"
    expected, (_, version) = pins(variant, arch), requirement(variant)
    library = target / "libonnxruntime.so"
    if present == [version, variant, arch] and library.is_file():
        return
    cached = CACHE / f"{version}-{variant}-{arch}"
    if not complete(cached, expected):
        fetch(variant, arch, expected, cached)
    # Files of another build must not stay beside this one: ONNX Runtime loads its providers from its own folder.
    target.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for old in target.glob("libonnxruntime*.so*"):
        old.unlink()
    for name in [*expected, *LICENCES]:
        plain = "libonnxruntime.so" if name.startswith("libonnxruntime.so.") else name
        plain = f"onnxruntime-{name}" if name in LICENCES else plain
        # Copied beside and renamed, so that a node that has the old file mapped keeps it whole.
        shutil.copyfile(cached / name, target / f".{plain}.new")
        os.replace(target / f".{plain}.new", target / plain)
    stamp.write_text(f"{version} {variant} {arch}\n")
    print(f"onnxruntime: {version} ({variant}, {arch}) is in {target}")
    if variant == "cuda":
        print("onnxruntime: it needs CUDA 13 and cuDNN 9 at run time; scripts/onnxruntime.py lists the libraries")


main()
