"""The card, and NVIDIA's libraries that came with Python packages."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig


def card():
    """What nvidia-smi says of the first card; None where there is no card or no driver."""
    program = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    fields = ["name", "driver_version", "memory.total", "compute_cap", "power.limit", "clocks.max.sm"]
    try:
        said = subprocess.run(
            [program, "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line for line in said.splitlines() if line.strip()]
    if not lines:
        return None
    return dict(zip(fields, (value.strip() for value in lines[0].split(","))))


def memory_used():
    """MiB of the first card's memory that are in use, by whomever; None where it cannot be told."""
    program = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    try:
        said = subprocess.run(
            [program, "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=10, check=True).stdout
        return int(said.splitlines()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def site_packages():
    """Folders of installed Python packages."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    found = []
    for path in paths:
        if path and path.endswith(("site-packages", "dist-packages")) and pathlib.Path(path).is_dir():
            found.append(pathlib.Path(path))
    return list(dict.fromkeys(found))


def library_folders(packages=None):
    """Folders with NVIDIA's libraries: those of its wheels (nvidia/*/lib), the driver's, and a toolkit's."""
    found = []
    for package in site_packages() if packages is None else packages:
        found += sorted({library.parent for library in package.glob("nvidia/*/lib/*.so*")})
        found += sorted({library.parent for library in package.glob("nvidia/*/lib/*/*.so*")})
    for path in ("/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/local/cuda/lib64"):
        if pathlib.Path(path).is_dir():
            found.append(pathlib.Path(path))
    return list(dict.fromkeys(found))


def headers(packages=None):
    """A folder whose `include` has CUDA's headers, from which Burn's kernels are compiled; None where there is none."""
    candidates = [pathlib.Path(path) for path in (os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda") if path]
    for package in site_packages() if packages is None else packages:
        candidates += [include.parent for include in sorted(package.glob("nvidia/*/include"))]
    for folder in candidates:
        if (folder / "include" / "cuda_runtime.h").is_file():
            return folder
    return None


def environment(packages=None):
    """The environment variables with which our programs find all that."""
    variables = {}
    folders = [str(folder) for folder in library_folders(packages)]
    before = os.environ.get("LD_LIBRARY_PATH")
    if folders:
        variables["LD_LIBRARY_PATH"] = ":".join(folders + ([before] if before else []))
    cuda = headers(packages)
    if cuda is not None:
        variables["CUDA_PATH"] = str(cuda)
    return variables


if __name__ == "__main__":
    # For a shell: eval "$(python3 surroundings.py)"
    import shlex

    for name, value in environment().items():
        print(f"export {name}={shlex.quote(value)}")
