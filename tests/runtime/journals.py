"""Exporters, and dead journals, for the tests of what a tracer does with a journal."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from asynctrace import ExportResult, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.spanlog.journal import JournalState, list_journals, service_folder

SERVICE = "shop"
LANE = "memory"


class Away:
    """A far side that answers nothing but: later."""

    name = LANE

    async def export(self, batch: Any) -> ExportResult:
        return ExportResult.try_again(reason="away")

    async def aclose(self) -> None:
        return None


class Keys(MemoryExporter):
    """Remembers under which keys the spans came, and from which process."""

    def __init__(self) -> None:
        super().__init__(name=LANE)
        self.keys: list[str] = []
        self.pids: set[object] = set()

    async def export(self, batch: Any) -> ExportResult:
        self.keys.append(batch.key)
        self.pids.add(batch.resource.attributes.get("process.pid"))
        return await super().export(batch)


def make_tracer(state: Path, exporter: Any, **options: Any) -> Tracer:
    return Tracer(service=SERVICE, exporters=[exporter], journal=state, **{"shutdown_timeout": 5.0, **options})


async def leave_spooled(state: Path, n: int, exporter: Any = None, **options: Any) -> None:
    """A journal with `n` spans, left by a tracer whose far side is away."""
    tracer = make_tracer(state, exporter or Away(), **options)
    for i in range(n):
        async with tracer.trace(f"left-{i}"):
            pass
    receipt = await tracer.shutdown(0.05)
    assert (receipt.spooled, receipt.dropped, receipt.pending) == (n, 0, 0)


DIES = """
import os, sys
sys.path.insert(0, {path!r})
from tests.runtime.journals import Away, make_tracer
import asyncio, signal
from pathlib import Path

async def main():
    tracer = make_tracer(Path({state!r}), Away())
    async with tracer.trace("run"):
        for i in range({ended}):
            async with tracer.trace_component(f"ended-{{i}}"):
                pass
        component = tracer.trace_component("open", attributes={{"n": 1}}).start()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def die(state: Path, ended: int) -> None:
    """A process that has ended so many components, and is killed in the middle of one more and of its run."""
    root = str(Path(__file__).parents[2])
    source = textwrap.dedent(DIES).format(path=root, state=str(state), ended=ended)
    process = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert process.returncode == -9, process.stderr


def states(state: Path, service: str = SERVICE) -> list[JournalState]:
    return [entry.state for entry in list_journals(service_folder(state, service))]
