"""What the promise tests share.

A promise is a coroutine function `check_…(make_tracer)` that raises `AssertionError` when it is broken. The test of
the promise gives it `Tracer`; the test of the check gives it a faulty double from `doubles.py` and expects the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import pytest

from asynctrace import DeliveryOptions, Receipt, Tracer
from asynctrace.testing import FaultServer

from ..patience import patient

T = TypeVar("T")

MakeTracer = Callable[..., Tracer]

BATCH = 512
"""Spans in a request by default."""

QUICK = DeliveryOptions(linger=0.02, backoff_initial=0.02, backoff_max=0.1, blocked_interval=0.05, export_timeout=5.0)
"""The shape of the defaults, with waits that suit a test."""


class Broken(AssertionError):
    """A promise was broken in a way that is no comparison."""


BROKEN = (AssertionError, TimeoutError, pytest.fail.Exception)
"""What a check raises about a promise that is not kept."""


async def within(seconds: float, awaitable: Awaitable[T], what: str) -> T:
    """The result of `awaitable`; a deadline that passes is a broken promise, not a hanging test."""
    task = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait([task], timeout=patient(seconds))
    if not done:
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
        raise Broken(f"{what}: not within {patient(seconds)} s")
    return task.result()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Return when `condition()` is true: for counters, which have no event."""
    async with asyncio.timeout(patient(seconds)):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def end_spans(tracer: Tracer, n: int, name: str = "span") -> set[str]:
    """End `n` spans, each a run of its own; their ids."""
    ids = set()
    for i in range(n):
        async with tracer.trace(f"{name}-{i}") as run:
            ids.add(run.span_id)
    return ids


def end_spans_sync(tracer: Tracer, n: int, name: str = "span") -> set[str]:
    """`end_spans()` without a loop."""
    ids = set()
    for i in range(n):
        with tracer.trace(f"{name}-{i}") as run:
            ids.add(run.span_id)
    return ids


def assert_arrived(server: FaultServer, ids: Iterable[str]) -> None:
    """Every id was taken over by the server."""
    wanted, accepted = set(ids), server.accepted_ids
    missing = wanted - accepted.keys()
    assert not missing, f"{len(missing)} of {len(wanted)} spans have not arrived"


def assert_arrived_once(server: FaultServer, ids: Iterable[str]) -> None:
    """Exactly these ids were taken over, each once."""
    wanted = set(ids)
    assert_arrived(server, wanted)
    accepted = server.accepted_ids
    foreign = accepted.keys() - wanted
    assert not foreign, f"{len(foreign)} spans nobody made"
    twice = [span_id for span_id, times in accepted.items() if times > 1]
    assert not twice, f"{len(twice)} spans arrived more than once"


def assert_balanced(receipt: Receipt) -> None:
    """The equation of the books, for the whole and for each lane."""
    for name, lane in [("all", receipt), *receipt.lanes.items()]:
        settled = lane.accepted + lane.rejected + lane.dropped + lane.spooled
        assert lane.ended == settled + lane.pending, f"{name}: {lane!r}"
        assert min(lane.accepted, lane.rejected, lane.dropped, lane.spooled, lane.pending) >= 0, f"{name}: {lane!r}"
        assert lane.dropped == sum(lane.dropped_by_reason.values()), f"{name}: {lane.dropped_by_reason}"
        assert lane.rejected == sum(lane.rejected_by_reason.values()), f"{name}: {lane.rejected_by_reason}"


def assert_complete(receipt: Receipt, n: int) -> None:
    """All of `n` spans were accepted, and nothing else is in the books."""
    assert_balanced(receipt)
    assert (receipt.ended, receipt.accepted) == (n, n), f"{receipt!r}"
    assert receipt.complete


class Ticker:
    """The longest time between two turns of the event loop while the block runs, in seconds."""

    def __init__(self, interval: float = 0.001) -> None:
        self._interval = interval
        self.longest = 0.0

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(self._interval)
            now = time.perf_counter()
            self.longest = max(self.longest, now - last - self._interval)
            last = now


@contextlib.asynccontextmanager
async def producing(
    tracer: Tracer, *, every: float = 0.01, at_once: int = 10, name: str = "later"
) -> AsyncIterator[set[str]]:
    """A task that ends spans for as long as the block runs; yields the growing set of their ids."""
    ids: set[str] = set()

    async def produce() -> None:
        while True:
            ids.update(await end_spans(tracer, at_once, name))
            await asyncio.sleep(every)

    task = asyncio.create_task(produce())
    try:
        yield ids
    finally:
        task.cancel()
        await asyncio.wait([task])


def run_program(source: str, *arguments: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run `source` as a program of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


async def run_program_async(
    source: str, *arguments: str, timeout: float = 30.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """`run_program()` while the loop (and a server on it) goes on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        textwrap.dedent(source),
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise Broken(f"the program did not end within {timeout} s\n{out.decode()}\n{err.decode()}") from None
    code = process.returncode if process.returncode is not None else -1
    return subprocess.CompletedProcess(list(arguments), code, out.decode(), err.decode())
