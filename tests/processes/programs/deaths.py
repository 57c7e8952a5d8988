"""Workers that die, and a parent that collects what they ended: `deaths.py WAY METHOD URL STATE SECONDS FAULT`.

Workers print `log ID`, and `ended ID` and `open ID`, each once it is true. The parent prints `before CHILDREN`, then
`collected CHILDREN RECOVERED`, and leaves by `os._exit()` at once: what arrives later did not arrive by then. It collects for
SECONDS; where that is `-` nobody collects, and it lives for as long as its standard input is open.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import asynctrace
from asynctrace import processes
from asynctrace.exporters import OTLPExporter

_, WAY, METHOD, URL, STATE, SECONDS, FAULT = sys.argv
SPANS = 10
PATIENCE = 60.0
READY = Path(STATE) / "ready"

exec(FAULT)

tracer = asynctrace.Tracer(service="workers", exporters=[OTLPExporter(URL)], journal=Path(STATE) / "journals")
if "LINE_OF_DESCENT" in os.environ:
    tracer._parent_log = os.environ["LINE_OF_DESCENT"]  # where it comes from: a bound function brings that along


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(leaves: str) -> None:
    """`leaves`: how the worker leaves its task, if it does."""
    say("log", tracer._delivery._origin.log_id)
    for number in range(SPANS):
        with tracer.trace_component(f"ended-{number}") as component:
            pass
        say("ended", component.span_id)
    if leaves == "returns":
        return
    with tracer.trace("open") as run:
        say("open", run.span_id)
        (READY / str(os.getpid())).touch()
        if leaves == "os._exit":
            os._exit(7)
        time.sleep(PATIENCE)


def ready(workers: int) -> list[int]:
    """The ids of that many processes, once each of them is in the middle of its task."""
    deadline = time.monotonic() + PATIENCE
    while len(found := os.listdir(READY)) < workers:
        if time.monotonic() > deadline:
            raise TimeoutError(found)
        time.sleep(0.01)
    return [int(name) for name in found]


def process(leaves: str, end: Callable[[Any], object]) -> None:
    child = context.Process(target=work, args=(leaves,))
    child.start()
    ready(1)
    end(child)
    child.join()


def pool_terminated() -> None:
    with context.Pool(2) as pool:
        tasks = [pool.apply_async(work, ("",)) for _ in range(2)]
        ready(2)
        pool.terminate()
        pool.join()
    del tasks


def pool_with_a_killed_worker() -> None:
    """What the worker was at is lost to the pool, which gets another worker."""
    with context.Pool(2) as pool:
        pool.apply_async(work, ("",))
        os.kill(ready(1)[0], signal.SIGKILL)
        pool.map(work, ["returns"] * 2, chunksize=1)
    pool.join()


def pool_of_one_task_each() -> None:
    with context.Pool(2, maxtasksperchild=1) as pool:
        pool.map(work, ["returns"] * 4, chunksize=1)
        pool.close()
        pool.join()


def executor_of_one_task_each() -> None:
    with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as executor:
        list(executor.map(work, ["returns"] * 3))


def executor_with_a_killed_worker(kind: Callable[..., ProcessPoolExecutor] = ProcessPoolExecutor) -> None:
    """The executor is broken, and ends its other workers by SIGTERM."""
    with kind(2, mp_context=context) as executor:
        tasks = [executor.submit(work, "") for _ in range(2)]
        ready(2)
        os.kill(next(iter(executor._processes)), signal.SIGKILL)  # one that starts later it may not watch
        with suppress(BrokenProcessPool):
            tasks[0].result(PATIENCE)


WAYS: dict[str, Callable[[], object]] = {
    "Process.terminate": lambda: process("", lambda child: child.terminate()),
    "Process.kill": lambda: process("", lambda child: child.kill()),
    "os._exit": lambda: process("os._exit", lambda child: None),
    "Pool.terminate": pool_terminated,
    "Pool, a worker is killed": pool_with_a_killed_worker,
    "Pool(maxtasksperchild=1)": pool_of_one_task_each,
    "ProcessPoolExecutor(max_tasks_per_child=1)": executor_of_one_task_each,
    "ProcessPoolExecutor, a worker is killed": executor_with_a_killed_worker,
    "our executor, a worker is killed": lambda: executor_with_a_killed_worker(
        partial(processes.ProcessPoolExecutor, tracer=tracer)
    ),
}


if __name__ == "__main__":
    READY.mkdir()
    context: Any = multiprocessing.get_context(METHOD)
    with tracer.trace("parent"):
        pass
    if SECONDS != "-" and not WAY.startswith("our"):
        os.environ["LINE_OF_DESCENT"] = tracer._line_of_descent
        tracer._has_children = True
    WAYS[WAY]()
    say("before", tracer.receipt().children)
    if SECONDS != "-":
        receipt = processes.collect_children_sync(float(SECONDS), tracer=tracer)
        say("collected", receipt.children, receipt.recovered)
    else:
        sys.stdin.read()
    os._exit(0)
