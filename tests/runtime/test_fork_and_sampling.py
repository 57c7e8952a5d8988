"""A forked child counts its traces for itself: neither does it go on with its parent's count, nor take from it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os
from asynctrace import RateLimit, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.tracing import Recorder
from asynctrace.testing import ManualClock

tracer = Tracer(service="shop", exporters=[MemoryExporter()], journal=False, sampler=RateLimit(2), clock=ManualClock())
{fault}

def recorded(tries):
    count = 0
    for _ in range(tries):
        with tracer.trace("run") as run:
            count += run.is_sampled
    return count

before = recorded(1)
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, str(recorded(5)).encode())
    os._exit(0)
os.close(writing)
in_child = os.read(reading, 10).decode()
os.waitpid(child, 0)
print(before, in_child, recorded(5))
"""


def check(fault: str = "") -> None:
    program = [sys.executable, "-c", PROGRAM.format(fault=fault)]
    told = subprocess.run(program, capture_output=True, check=True, timeout=60)
    assert told.stdout.split() == [b"1", b"2", b"1"], told.stderr


def test_a_child_counts_for_itself() -> None:
    check()


def test_a_child_that_goes_on_with_its_parents_count_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check("Recorder._begin_sampling = lambda self: None")
