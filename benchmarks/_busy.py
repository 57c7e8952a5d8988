"""What makes a machine busy beside what is measured: a thread that never rests, a process that writes and syncs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_WRITER = """
import os, sys
block = os.urandom(1 << 20)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
print("ready", flush=True)
while True:
    os.lseek(fd, 0, os.SEEK_SET)
    for number in range(256):
        os.write(fd, block)
        if number % 8 == 7:
            os.fsync(fd)
"""


@contextlib.contextmanager
def busy_disk(folder: Path) -> Iterator[None]:
    """A process that writes and syncs as fast as the disk takes it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder / "traffic")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """A thread that holds the interpreter for as long as it may."""
    is_over = False

    def work() -> None:
        while not is_over:
            sum(range(50))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over = True
        thread.join()
