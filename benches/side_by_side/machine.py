"""What one run would otherwise leave to the next: the machine's part in a measurement, made the same for all."""

import contextlib
import mmap
import subprocess

# More than a run's objects take in the page cache.
WARM_BYTES = 450 << 20
PAGE = 4096


def spread(folder):
    """Asks ext4 to lay the folders of each run far apart (chattr +T), where it is ext4.

    Without a journal it does not give an inode out again for a minute after its file was removed, and looks past all
    those of the runs before when a file is made next to them: a receiver would pay for the one before it.
    """
    with contextlib.suppress(OSError):
        subprocess.run(["chattr", "+T", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def warm_memory():
    """Touches as much memory as a run fills, and gives it back, so that the run gets pages that were in use before.

    A virtual machine's memory comes from its host page by page at the first touch, which takes longer than all that a
    receiver does to an object; whether a run meets such pages is chance.
    """
    with mmap.mmap(-1, WARM_BYTES) as memory:
        for offset in range(0, WARM_BYTES, PAGE):
            memory[offset] = 1
