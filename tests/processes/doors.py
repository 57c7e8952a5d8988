"""The ways into another thread, or into a callback of the loop: each calls `work` there and gives what it returned.

A door is given `carry`, which is `asynctrace.bind`, a double of it, or `plainly` where something else has to carry.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any

import anyio.from_thread
import anyio.to_thread
import pytest
import uvloop

__all__ = [
    "BOUND",
    "BY_THEMSELVES",
    "CALLBACKS",
    "LOOPS",
    "PATIENCE",
    "Door",
    "answer_in_thread",
    "plainly",
    "pool_of_one",
    "run_on",
]

PATIENCE = 30.0
"""Seconds for what takes milliseconds on a quiet machine."""

Work = Callable[[], Any]
Carry = Callable[[Any], Any]
Door = Callable[[Carry, Work], Awaitable[Any]]

LOOPS = ["asyncio", "uvloop", *(["eager tasks"] if sys.version_info >= (3, 12) else [])]


def run_on(kind: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main()` on an event loop of that kind."""

    async def started() -> Any:
        if kind == "eager tasks":
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            return await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        return runner.run(started())


def plainly(function: Any) -> Any:
    """Carries nothing."""
    return function


def answer_in_thread(answer: Future[Any], work: Work) -> None:
    """Put what `work` returns or raises into `answer`."""
    try:
        answer.set_result(work())
    except BaseException as error:
        answer.set_exception(error)


_pools: list[ThreadPoolExecutor] = []


def pool_of_one() -> ThreadPoolExecutor:
    """The same pool, with one thread, for all tests: whatever one leaves in the thread meets the next."""
    if not _pools:
        pool = ThreadPoolExecutor(1)
        Context().run(pool.submit, threading.get_ident).result(PATIENCE)
        _pools.append(pool)
    return _pools[0]


# Into a thread -----------------------------------------------------------------------------------------------


async def to_thread(carry: Carry, work: Work) -> Any:
    return await asyncio.to_thread(work)


async def anyio_to_thread(carry: Carry, work: Work) -> Any:
    return await anyio.to_thread.run_sync(work)


async def default_executor(carry: Carry, work: Work) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, carry(work))


async def given_executor(carry: Carry, work: Work) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool_of_one(), carry(work))


async def submitted(carry: Carry, work: Work) -> Any:
    return await asyncio.wrap_future(pool_of_one().submit(carry(work)))


async def mapped(carry: Carry, work: Work) -> Any:
    (result,) = pool_of_one().map(carry(lambda _: work()), [0], timeout=PATIENCE)
    return result


async def thread(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    threading.Thread(target=carry(answer_in_thread), args=(answer, work)).start()
    return await asyncio.wrap_future(answer)


async def timer(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    threading.Timer(0.001, carry(answer_in_thread), (answer, work)).start()
    return await asyncio.wrap_future(answer)


async def nested_pools(carry: Carry, work: Work) -> Any:
    def outer() -> Any:
        with ThreadPoolExecutor(1) as inner:
            return inner.submit(carry(work)).result(PATIENCE)

    return await asyncio.wrap_future(pool_of_one().submit(carry(outer)))


async def done_callback(carry: Carry, work: Work) -> Any:
    """Called in the pool's thread, after the work that it belongs to."""
    answer: Future[Any] = Future()
    may_end = threading.Event()
    ended = pool_of_one().submit(may_end.wait, PATIENCE)
    ended.add_done_callback(carry(lambda _: answer_in_thread(answer, work)))
    may_end.set()
    return await asyncio.wrap_future(answer)


# And back into the loop ----------------------------------------------------------------------------------------------


async def from_thread_run(carry: Carry, work: Work) -> Any:
    async def in_loop() -> Any:
        await asyncio.sleep(0)
        return work()

    return await anyio.to_thread.run_sync(anyio.from_thread.run, in_loop)


async def coroutine_threadsafe(carry: Carry, work: Work) -> Any:
    loop = asyncio.get_running_loop()

    async def in_loop() -> Any:
        await asyncio.sleep(0)
        return work()

    def there() -> Any:
        return asyncio.run_coroutine_threadsafe(in_loop(), loop).result(PATIENCE)

    return await asyncio.to_thread(there)


async def call_soon_threadsafe(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, answer_in_thread, answer, work)
    return await asyncio.wrap_future(answer)


# Callbacks of the loop -----------------------------------------------------------------------------------------------


async def call_soon(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    asyncio.get_running_loop().call_soon(answer_in_thread, answer, work)
    return await asyncio.wrap_future(answer)


async def call_later(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    asyncio.get_running_loop().call_later(0.001, answer_in_thread, answer, work)
    return await asyncio.wrap_future(answer)


async def task_done_callback(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: answer_in_thread(answer, work))
    await task
    return await asyncio.wrap_future(answer)


async def signal_handler(carry: Carry, work: Work) -> Any:
    """Python's own: it interrupts the code that is running."""
    answer: Future[Any] = Future()
    before = signal.signal(signal.SIGUSR1, lambda *_: answer_in_thread(answer, work))
    try:
        signal.raise_signal(signal.SIGUSR1)
        return await asyncio.wrap_future(answer)
    finally:
        signal.signal(signal.SIGUSR1, before)


async def signal_handler_of_the_loop(carry: Carry, work: Work) -> Any:
    answer: Future[Any] = Future()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, carry(answer_in_thread), answer, work)
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        return await asyncio.wrap_future(answer)
    finally:
        loop.remove_signal_handler(signal.SIGUSR2)


def _by_name(*doors: Door) -> list[Any]:
    return [pytest.param(door, id=getattr(door, "__name__", "").replace("_", " ")) for door in doors]


BY_THEMSELVES = _by_name(to_thread, anyio_to_thread, from_thread_run, coroutine_threadsafe, call_soon_threadsafe)
BOUND = _by_name(default_executor, given_executor, submitted, mapped, thread, timer, nested_pools, done_callback)
CALLBACKS = _by_name(call_soon, call_later, task_done_callback, signal_handler, signal_handler_of_the_loop)
