"""A small group of processes, which the kernel kills for their memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["little_memory"]

CGROUPS = Path("/sys/fs/cgroup/memory")
MEMORY = 220 * 1024 * 1024


@contextlib.contextmanager
def little_memory(is_wanted: bool) -> Iterator[str]:
    """The file that takes a process into the group; "" where none is wanted. Skips the test where the kernel cannot."""
    if not is_wanted:
        yield ""
        return
    group = CGROUPS / f"asynctrace-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(MEMORY))
    except OSError as error:
        pytest.skip(f"the kernel cannot be made to kill one process for its memory here: {error}")
    try:
        yield str(group / "cgroup.procs")
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.02)
