"""A program that gives work to other processes: `pools.py WAY METHOD URL STATE`.

It says where the work was asked for, and of each task, as soon as its result is there, which span the task made.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import multiprocessing
import os
import subprocess
import sys
from typing import Any

import anyio.to_process

import asynctrace
from asynctrace import processes
from asynctrace.exporters import OTLPExporter

WAY, METHOD, URL, STATE = sys.argv[1:] if len(sys.argv) == 5 else ("", "", "", "")
TASKS = 4


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def configure(url: str, state: str) -> asynctrace.Tracer:
    return asynctrace.configure(service="pools", exporters=[OTLPExporter(url)], journal=state, shutdown_timeout=30.0)


def task(number: int, again: int = 0) -> str:
    """Traced, one level deep; its span and its process."""
    with asynctrace.trace_component("task", type="tool") as component:
        component.set_attribute("number", number)
        with asynctrace.trace_component("inner"):
            pass
    return f"{component.span_id} {os.getpid()}"


def task_of_a_pair(pair: tuple[int, int]) -> str:
    return task(*pair)


def tell(results: Any) -> None:
    for result in results:
        say("returned", result)


def by_our_executor(context: Any) -> None:
    with processes.ProcessPoolExecutor(2, context) as pool:
        tell(future.result() for future in [pool.submit(task, number) for number in range(TASKS - 2)])
        tell(pool.map(task, range(2), chunksize=1))


def by_another_executor(context: Any) -> None:
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        bound = asynctrace.bind(task)
        tell(future.result() for future in [pool.submit(bound, number) for number in range(TASKS)])


def by_a_pool(context: Any) -> None:
    bound = asynctrace.bind(task)
    with context.Pool(2) as pool:
        tell([pool.apply(bound, (1,))])
        tell(pool.map(bound, [1]))
        tell(pool.imap(bound, [1]))
        tell(pool.starmap(bound, [(1, 2)]))


def by_a_pool_that_replaces_workers(context: Any) -> None:
    with context.Pool(2, maxtasksperchild=1) as pool:
        tell(pool.imap_unordered(asynctrace.bind(task), range(TASKS), chunksize=1))


def put(queue: Any, number: int) -> None:
    queue.put(task(number))


def by_processes(context: Any) -> None:
    for number in range(TASKS):
        queue = context.SimpleQueue()
        process = context.Process(target=asynctrace.bind(functools.partial(put, queue)), args=(number,))
        process.start()
        result = queue.get()
        process.join()
        tell([result])


async def in_executors(context: Any) -> None:
    loop = asyncio.get_running_loop()
    async with asynctrace.trace_component("asks"):
        say("asks", asynctrace.current_component().span_id)  # type: ignore[union-attr]
        with processes.ProcessPoolExecutor(2, context) as pool:
            tell(await asyncio.gather(*(loop.run_in_executor(pool, task, number) for number in range(TASKS))))


async def by_anyio() -> None:
    for number in range(TASKS):
        say("returned", await anyio.to_process.run_sync(asynctrace.bind(task), number))


def by_programs() -> None:
    for _ in range(TASKS):
        command = [sys.executable, __file__, "program", METHOD, URL, STATE]
        say("returned", subprocess.check_output(command, env=processes.environment(), text=True).strip())


def as_a_program() -> None:
    with configure(URL, STATE), asynctrace.trace("task", context=asynctrace.extract(os.environ)) as run:
        say(run.span_id, os.getpid())


WAYS = {
    "our executor": by_our_executor,
    "another executor": by_another_executor,
    "a pool": by_a_pool,
    "a pool that replaces workers": by_a_pool_that_replaces_workers,
    "processes": by_processes,
    "run_in_executor": lambda context: asyncio.run(in_executors(context)),
    "anyio": lambda context: asyncio.run(by_anyio()),
    "programs": lambda context: by_programs(),
}


def main() -> None:
    with (
        configure(URL, STATE),
        asynctrace.trace("job", session_id="s-1", user_id="u-7"),
        asynctrace.trace_component("ask") as asks,
    ):
        say("asks", asks.span_id)
        WAYS[WAY](multiprocessing.get_context(METHOD))


if __name__ == "__main__":
    if WAY == "program":
        as_a_program()
    else:
        main()
