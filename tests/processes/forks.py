"""Programs that fork, for the tests of what is their children's: a head that they share, and running them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryFile

from asynctrace import Span
from asynctrace.testing import FaultServer

__all__ = ["WARNINGS", "arrived", "names", "run"]

WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
"""All are errors, but what CPython 3.12 and later say of each fork of a process with threads: that is what is tested."""

HEAD = """
import asyncio, os, signal, sys, threading, time, traceback
import asynctrace
from asynctrace import DeliveryTimeout, ExportResult, MisuseError, Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.processes import collect_children, collect_children_sync

class Door(OTLPExporter):
    is_shut = False
    was_tried = threading.Event()

    async def export(self, batch):
        Door.was_tried.set()
        return ExportResult.try_again(after=0.01) if Door.is_shut else await super().export(batch)

def fail(*error):
    traceback.print_exception(*error)
    os._exit(1)

sys.excepthook = fail

SECONDS = 60.0

{fault}
def make_tracer(**options):
    return Tracer(**{"service": "shop", "exporters": [Door(sys.argv[1])], "journal": sys.argv[2], **options})

tracer = make_tracer()

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def end_spans(n, name):
    for i in range(n):
        with tracer.trace_component(name):
            pass

def leave_open(name):
    tracer.trace(name).__enter__()

def die():
    os._exit(0)

def fork(work):
    '''A child that does `work()`, and ends without another word.'''
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        os.write(2, repr(error).encode())
    finally:
        os._exit(code)

def join(*pids):
    '''The exit codes; "hangs" for what has not ended in time, and is killed.'''
    deadline, codes = time.monotonic() + SECONDS, []
    for pid in pids:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                codes.append(os.waitstatus_to_exitcode(status))
                break
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                codes.append("hangs")
                break
            time.sleep(0.002)
    return codes
"""


def run(program: str, server: FaultServer, state: Path, *arguments: str, fault: str = "", timeout: float = 120) -> str:
    """What the program said. Raises `AssertionError` for one whose deadline passed, `RuntimeError` for other errors."""
    source = HEAD.replace("{fault}", fault) + program
    command = [sys.executable, *WARNINGS, "-c", source, server.url, str(state), *arguments]
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        try:
            _wait_unreaped(process.pid, timeout)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it, and whatever it forked; its number is nobody else's yet
            process.wait()
        out.seek(0)
        err.seek(0)
        said, errors = out.read(), err.read()
    assert "DeliveryTimeout" not in errors, errors
    if process.returncode != 0:
        raise RuntimeError(errors)
    return said


def _wait_unreaped(pid: int, seconds: float) -> None:
    """Until the child has ended. It stays a zombie, whose number no other process and no other group is given."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the program {pid} has not ended after {seconds} s")
        time.sleep(0.005)


def arrived(server: FaultServer) -> list[tuple[int, Span]]:
    """(process, span) of all that came, once for each key, as a far side that knows the keys has it."""
    by_key = {request.key: request for request in server.requests if request.spans}
    return [
        (int(str(request.resource.attributes["process.pid"])), span)
        for request in by_key.values()
        for span in request.spans
    ]


def names(server: FaultServer) -> Counter[tuple[str, str]]:
    """How many spans came of each name and ending."""
    return Counter((span.name, str(span.ending)) for _, span in arrived(server))
