"""What the disk itself allows: files of an object's size written and synced, nothing else."""

import concurrent.futures
import os
import pathlib
import tempfile
import time

from .statistics import Sample

FILES = 60


def measure(bench, size):
    """Synced files of `size` bytes a second, with 1, 4 and 16 writers: write, fsync, rename, fsync of the folder."""
    rows = []
    for writers in (1, 4, 16):
        rates = []
        for _ in range(bench.repeats):
            with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
                rates.append(once(pathlib.Path(folder), size, writers))
        rows.append({"writers": writers, "rate": Sample.of(rates).plain()})
        bench.say(f"disk, {writers} writers: {rows[-1]['rate']['median']:.0f} synced files/s")
    return rows


def once(folder, size, writers):
    content = os.urandom(size)

    def write(index):
        part, kept = folder / f"{index}.part", folder / f"{index}"
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, kept)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(FILES)))
    return FILES / (time.monotonic() - begin)
