"""A program may have its tasks begin at once (`asyncio.eager_task_factory`, from Python 3.12 on): the lanes do not mind."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asynctrace.testing import FaultServer, RejectWhen

from .harness import run_program

pytestmark = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks exist from Python 3.12 on")

PROGRAM = """
import asyncio, os, sys, threading
from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter

{fault}
threading.Timer(float(sys.argv[2]), os._exit, (9,)).start()  # a loop that is broken stops no more

async def work(tracer, number):
    async with tracer.trace(f"run-{{number}}"), tracer.trace_component("outer"):
        await asyncio.sleep(0)
        async with tracer.trace_component("inner"):
            pass

async def main():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    told = []
    async with Tracer(service="shop", exporters=[OTLPExporter(sys.argv[1])], on_reject=told.append) as tracer:
        await asyncio.gather(*(work(tracer, number) for number in range(50)))
        await tracer.flush()
        async with tracer.trace("refused"):
            pass
        await tracer.flush()
        while not told:
            await asyncio.sleep(0.01)
        me = asyncio.current_task()
        receipt = await tracer.shutdown()
        assert asyncio.current_task() is me
    print(receipt)

asyncio.run(main())
os._exit(0)
"""

AS_THE_PROGRAM_SAYS = """
from asynctrace.delivery import _driver, _tasks
def create_task(loop, work, *, context, name):
    return loop.create_task(work, context=context, name=name)
_driver.create_task = _tasks.create_task = create_task
"""
"""Tasks of ours that begin at once too."""


def check_a_program_with_eager_tasks(fault: str = "", patience: float = 30.0) -> None:
    with FaultServer.in_thread(default=RejectWhen(lambda span: span.name == "refused")) as server:
        program = _run(PROGRAM.format(fault=fault), server, patience)
        assert program.returncode == 0, program.stderr
        assert program.stdout.startswith("Receipt(ended=151, accepted=150, rejected=1, "), program.stdout
        assert server.accepted_ids.total() == len(server.accepted_ids) == 150
        by_id = {span.span_id: span for span in server.spans}
        chains = [span for span in server.spans if span.name == "inner"]
        assert len(chains) == 50
        for inner in chains:
            outer = by_id[inner.parent_id]
            assert (outer.name, by_id[outer.parent_id].name[:4]) == ("outer", "run-")


def _run(source: str, server: FaultServer, patience: float) -> subprocess.CompletedProcess[str]:
    return run_program(source, server.url, str(patience), timeout=2 * patience)


def test_lanes_callbacks_and_shutdown_work_on_a_loop_with_eager_tasks() -> None:
    check_a_program_with_eager_tasks()


def test_a_lane_that_begins_its_requests_eagerly_is_noticed() -> None:
    with pytest.raises(AssertionError):
        check_a_program_with_eager_tasks(AS_THE_PROGRAM_SAYS, patience=5.0)
