"""The life of a lane's task and its home: begun, cancelled, stumbling, left behind, moved, gone without a trace.

A promise is a plain function `check_…()`, which runs loops of its own. `wrong_drivers.py` breaks the driver or
the home in one place each, and every check must notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pytest

from asynctrace import DeliveryError, DeliveryOptions, ExportResult, Tracer
from asynctrace.delivery import _delivery
from asynctrace.delivery._lane import Lane
from asynctrace.exporters import OTLPExporter
from asynctrace.testing import Delay, FaultServer

from ..patience import patient
from . import wrong_drivers
from .harness import BROKEN, QUICK, Broken, assert_balanced, assert_complete, end_spans, end_spans_sync, until, within


class Keeps:
    """An exporter that keeps what it got, and a diary of what was called on which loop."""

    name = "keeps"

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.keys: list[str] = []
        self.diary: list[tuple[str, asyncio.AbstractEventLoop]] = []

    def note(self, what: str) -> None:
        self.diary.append((what, asyncio.get_running_loop()))

    async def start(self) -> None:
        self.note("start")

    async def export(self, batch: Any) -> ExportResult:
        self.note("export")
        self.keys.append(batch.key)
        await self.answer()
        self.ids += [span.span_id for span in batch.spans()]
        return ExportResult.all_accepted(batch)

    async def answer(self) -> None:
        """What a far side does before it takes the batch."""

    async def release(self) -> None:
        self.note("release")

    async def aclose(self) -> None:
        self.note("aclose")

    def assert_has(self, ids: set[str]) -> None:
        assert sorted(self.ids) == sorted(ids), f"{len(self.ids)} arrived, {len(ids)} were made"


class Waits(Keeps):
    """Takes nothing before `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def answer(self) -> None:
        await self.gate.wait()


def make_tracer(exporter: Any, **options: Any) -> Tracer:
    return Tracer(
        service="shop",
        exporters=[exporter],
        **{"delivery": QUICK, "shutdown_timeout": 30.0, "journal": False, **options},
    )


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def lane_task() -> asyncio.Task[Any]:
    (task,) = [task for task in others() if task.get_name().startswith("asynctrace lane")]
    return task


def run(main: Callable[[], Coroutine[Any, Any, Any]], seconds: float = 8.0) -> None:
    """`asyncio.run()`, and the end of the run has a deadline too."""
    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < patient(seconds), "the end of the run took too long"


# ── cancelled ───────────────────────────────────────────────────────────────────────────────────────────────


def check_a_lane_cancelled_before_its_first_step_delivers() -> None:
    """`asyncio.run()` does that to a program whose last act is its first span."""
    exporter = Keeps()
    tracer = make_tracer(exporter)
    ids: set[str] = set()

    async def main() -> None:
        ids.update(await end_spans(tracer, 5))  # gives up control nowhere
        task = lane_task()
        task.cancel()
        await asyncio.wait([task], timeout=patient(3.0))

    run(main)
    try:
        exporter.assert_has(ids)
        assert tracer.statistics().lanes["keeps"].interruptions == 1
    finally:
        tracer.shutdown_sync(0.5)


def check_a_cancelled_lane_drains_and_the_second_cancellation_ends_it() -> None:
    exporter = Waits()
    tracer = make_tracer(exporter, shutdown_timeout=2.0)

    async def main() -> None:
        ids = await end_spans(tracer, 5)
        await until(lambda: exporter.keys)
        task = lane_task()
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        assert not task.done(), "something is not settled, and there is time"
        task.cancel()
        await asyncio.wait([task], timeout=patient(1.0))
        assert task.done(), "told twice"
        assert task.cancelled()
        assert tracer.receipt().pending == 5
        exporter.gate.set()
        assert_complete(await within(1.0, tracer.flush(), "flush"), 5)
        exporter.assert_has(ids)
        assert len(set(exporter.keys)) == 1, "the request that was given up is repeated under its key"

    try:
        run(main)
    finally:
        tracer.shutdown_sync(0.5)


def check_a_cancelled_lane_takes_along_what_others_end_while_they_are_cancelled() -> None:
    exporter = Keeps()
    tracer = make_tracer(exporter)
    ids: set[str] = set()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            ids.update(await end_spans(tracer, 5))

    async def main() -> None:
        working = asyncio.create_task(work())
        ids.update(await end_spans(tracer, 1))
        await until(lambda: exporter.ids)
        task = lane_task()
        for each in (task, working):
            each.cancel()
        await asyncio.wait([task, working], timeout=patient(3.0))
        assert task.done()
        assert len(ids) == 6

    run(main)
    try:
        exporter.assert_has(ids)
    finally:
        tracer.shutdown_sync(0.5)


def check_a_task_that_cancels_all_others_does_not_wait_for_the_drain_timeout() -> None:
    """The end of a test runner, of a framework: whoever cancels is itself a task that does not end before the lane."""
    exporter = Keeps()
    tracer = make_tracer(exporter)

    async def main() -> None:
        ids = await end_spans(tracer, 5)

        async def cancel_all_others() -> None:
            tasks = others() - {main_task}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        main_task = asyncio.current_task()
        for _ in range(2):
            await within(1.0, asyncio.create_task(cancel_all_others()), "the gather")
            exporter.assert_has(ids)
        ids |= await end_spans(tracer, 5)
        assert_complete(await within(3, tracer.flush(), "flush"), 10)

    try:
        run(main)
    finally:
        tracer.shutdown_sync(0.5)


# ── stumbling ───────────────────────────────────────────────────────────────────────────────────────────────


class StartsLate(Keeps):
    """Its far side is not there yet: the first `start()`s fail, and an export before a start that worked is a breach."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.breaches = 0
        self._is_ready = False

    async def start(self) -> None:
        await super().start()
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("not there yet")
        self._is_ready = True

    async def answer(self) -> None:
        self.breaches += not self._is_ready


def check_an_exporter_whose_start_fails_gets_another() -> None:
    exporter = StartsLate(3)

    async def main() -> None:
        async with make_tracer(exporter) as tracer:
            ids = await end_spans(tracer, 5)
            assert_complete(await within(5, tracer.flush(), "flush"), 5)
            ids |= await end_spans(tracer, 5)
            assert_complete(await within(5, tracer.flush(), "flush"), 10)
            exporter.assert_has(ids)
        assert exporter.breaches == 0, "a batch before the start"
        called = [what for what, _ in exporter.diary]
        assert called == ["start"] * 4 + ["export"] * 2 + ["aclose"], f"{called}"

    run(main)


def check_requests_that_begin_together_start_the_exporter_once() -> None:
    exporter = StartsLate(0)
    options = DeliveryOptions(batch_spans=5, batch_spans_most=5, max_in_flight=4, linger=0.01)

    async def main() -> None:
        async with make_tracer(exporter, delivery=options) as tracer:
            ids = await end_spans(tracer, 20)
            assert_complete(await within(5, tracer.flush(), "flush"), 20)
            exporter.assert_has(ids)
        called = [what for what, _ in exporter.diary]
        assert called == ["start"] + ["export"] * 4 + ["aclose"], f"{called}"

    run(main)


class Defect:
    """`times` calls of a method of ours raise. The defect is in our own code, so it has to be put there."""

    def __init__(self, owner: type, method: str, times: int) -> None:
        self.owner, self.method, self.left = owner, method, times
        self.original = getattr(owner, method)

    def __enter__(self) -> Defect:
        def stumble(*arguments: Any, **options: Any) -> Any:
            if self.left:
                self.left -= 1
                raise ZeroDivisionError("a defect in a lane")
            return self.original(*arguments, **options)

        setattr(self.owner, self.method, stumble)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.owner, self.method, self.original)


def check_three_errors_in_a_row_fail_those_who_wait() -> None:

    async def main() -> None:
        async with make_tracer(Keeps()) as tracer:
            await end_spans(tracer, 5)
            with Defect(Lane, "take", 1_000_000):
                waiting = [asyncio.create_task(tracer.flush()) for _ in range(3)]
                with pytest.raises(DeliveryError, match="ZeroDivisionError") as caught:
                    await within(1.0, waiting[0], "flush() of a lane that cannot go on")
                for task in waiting[1:]:
                    with pytest.raises(DeliveryError):
                        await within(1.0, task, "the others who wait")
                assert caught.value.receipt is not None
                assert_balanced(caught.value.receipt)
                assert caught.value.receipt.pending == 5
                assert tracer.statistics().lanes["keeps"].interruptions >= 3
            assert_complete(await within(3, tracer.flush(), "flush, once it is mended"), 5)

    run(main)


def check_two_errors_in_a_row_disturb_nobody() -> None:
    async def main() -> None:
        async with make_tracer(Keeps()) as tracer:
            for n in (5, 10):
                with Defect(Lane, "take", 2) as defect:
                    await end_spans(tracer, 5)
                    try:
                        assert_complete(await within(3, tracer.flush(), "flush"), n)
                    except DeliveryError as error:
                        raise Broken("told of two errors") from error
                    assert not defect.left
            assert tracer.statistics().lanes["keeps"].interruptions == 4

    run(main)


def check_an_error_over_an_answer_forgets_no_record(owner: type, method: str) -> None:
    """The error comes after the far side answered: what it answered for is asked again, or those who wait are told."""

    async def main() -> None:
        async with make_tracer(Keeps(), shutdown_timeout=0.3) as tracer:
            await end_spans(tracer, 5)
            with Defect(owner, method, 1), contextlib.suppress(DeliveryError):
                await within(1.0, tracer.flush(), f"flush() after an error in {method}")
            await end_spans(tracer, 1)
            assert_complete(await within(1.0, tracer.flush(), "flush, once it is mended"), 6)

    run(main)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Lane, "answered"),
        (Lane, "_pass"),
        (_delivery.Delivery, "_progressed"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_error_over_an_answer_forgets_no_record(owner: type, method: str) -> None:
    check_an_error_over_an_answer_forgets_no_record(owner, method)


class GivesAReasonThatIsNoText(Keeps):
    async def export(self, batch: Any) -> ExportResult:
        if not self.keys:
            self.keys.append(batch.key)
            return ExportResult.try_again(reason={"code": 503})  # type: ignore[arg-type]
        return await super().export(batch)


def test_an_answer_that_the_lane_cannot_read_is_no_answer() -> None:
    exporter = GivesAReasonThatIsNoText()

    async def main() -> None:
        async with make_tracer(exporter, shutdown_timeout=0.5) as tracer:
            ids = await end_spans(tracer, 5)
            assert_complete(await within(1.0, tracer.flush(), "flush"), 5)
            exporter.assert_has(ids)

    run(main)


# ── several loops ───────────────────────────────────────────────────────────────────────────────────────────


def check_a_loop_that_stands_still_keeps_nothing_for_itself() -> None:
    """A loop that was stopped and not closed may go on later, may never go on; both loops belong to one program."""
    exporter = Waits()
    tracer = make_tracer(exporter, shutdown_timeout=1.0)
    first = asyncio.new_event_loop()

    async def begin() -> set[str]:
        ids = await end_spans(tracer, 5)
        await until(lambda: exporter.keys)
        return ids

    async def go_on() -> None:
        gate.set()
        await asyncio.sleep(0.1)

    async def elsewhere(ids: set[str]) -> None:
        exporter.gate = asyncio.Event()
        exporter.gate.set()
        assert_complete(await within(1.0, tracer.flush(), "flush"), 5)
        exporter.assert_has(ids)

    try:
        ids = first.run_until_complete(begin())
        gate = exporter.gate
        asyncio.run(elsewhere(ids))
        assert len(exporter.keys) == 2
        assert len(set(exporter.keys)) == 1, "a repetition that can be recognized"
        first.run_until_complete(go_on())
        assert_complete(tracer.receipt(), 5)  # the late answer settles nothing a second time
        assert tracer.statistics().lanes["keeps"].in_flight == 0
        asyncio.run(_one_more(tracer, 6))
    finally:
        tracer.shutdown_sync(0.5)
        _close(first)


def test_a_driver_that_was_left_behind_leaves_when_its_loop_goes_on() -> None:
    exporter = Waits()
    tracer = make_tracer(exporter, shutdown_timeout=1.0)
    first = asyncio.new_event_loop()

    async def begin() -> None:
        await end_spans(tracer, 5)
        await until(lambda: exporter.keys)

    async def elsewhere() -> None:
        exporter.gate = asyncio.Event()
        exporter.gate.set()
        await within(1.0, tracer.flush(), "flush")

    async def go_on() -> None:
        gate.set()
        await until(lambda: not others(), 1.0)
        assert ("release", first) in exporter.diary

    try:
        first.run_until_complete(begin())
        gate = exporter.gate
        asyncio.run(elsewhere())
        first.run_until_complete(go_on())
    finally:
        tracer.shutdown_sync(0.5)
        _close(first)


async def _one_more(tracer: Tracer, n: int) -> None:
    await end_spans(tracer, 1)
    assert_complete(await within(3, tracer.flush(), "flush"), n)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=patient(2.0)))
    loop.close()


def check_an_exporter_is_started_and_let_go_on_each_loop() -> None:
    exporter = Keeps()
    tracer = make_tracer(exporter)
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await end_spans(tracer, 3)
        await within(3, tracer.flush(), "flush")

    async def last() -> None:
        await main()
        await within(3, tracer.shutdown(), "shutdown")

    run(main)
    run(main)
    run(last)
    expected = [(what, loop) for loop in loops for what in ("start", "export", "release")]
    expected[-1] = ("aclose", loops[-1])
    assert exporter.diary == expected, f"{[(what, loops.index(loop)) for what, loop in exporter.diary]}"


def check_a_shutdown_from_another_loop_closes_on_the_lanes_own_loop() -> None:
    exporter = Keeps()
    tracer = make_tracer(exporter)

    async def main() -> None:
        await end_spans(tracer, 3)
        await within(3, tracer.flush(), "flush")
        await within(5, asyncio.to_thread(tracer.shutdown_sync), "shutdown_sync() in another thread")
        assert [what for what, _ in exporter.diary] == ["start", "export", "aclose"]
        assert {loop for _, loop in exporter.diary} == {asyncio.get_running_loop()}

    run(main)


# ── nothing is left ─────────────────────────────────────────────────────────────────────────────────────────


def threads() -> int:
    """All of the interpreter's, those that `threading` does not know included."""
    return len(sys._current_frames())


def settles_at(count: Callable[[], int], wanted: int, what: str, *, timeout: float = 1.5) -> None:
    """Threads and descriptors go a moment after the call that ends them has returned."""
    deadline = time.monotonic() + timeout
    while (found := count()) > wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found <= wanted, f"{found - wanted} more {what} than before"


def check_the_owner_thread_delivers_and_ends() -> None:
    before = threads()
    for _ in range(3):
        exporter = Keeps()
        tracer = make_tracer(exporter)
        ids = end_spans_sync(tracer, 10)
        assert_complete(tracer.flush_sync(5.0), 10)
        exporter.assert_has(ids)
        assert threads() == before + 1, "one thread for the lanes"
        tracer.shutdown_sync()
        assert [what for what, _ in exporter.diary][-1] == "aclose"
        assert len({loop for _, loop in exporter.diary}) == 1, "closed where it was opened"
        settles_at(threads, before, "threads")
        (loop,) = {loop for _, loop in exporter.diary}
        assert loop.is_closed()


class LooksAround(Keeps):
    """Notes which task it is called in, and whether anybody could see and cancel it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def note(self, what: str) -> None:
        super().note(what)
        task = asyncio.current_task()
        if task in asyncio.all_tasks():
            self.seen.append(what)


def check_requests_are_not_among_all_tasks() -> None:
    exporter = LooksAround()

    async def main() -> None:
        async with make_tracer(exporter) as tracer:
            await end_spans(tracer, 5)
            assert_complete(await within(3, tracer.flush(), "flush"), 5)
            assert {"start", "export"}.isdisjoint(exporter.seen), f"{exporter.seen}"
            assert len(others()) == 1, "the lane itself is there, or the loop would end over it"

    run(main)


class HoldsASocket(Keeps):
    """A connection for each loop, and each has to be given back."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets: list[socket.socket] = []

    async def start(self) -> None:
        self.sockets += socket.socketpair()

    def let_go(self) -> None:
        while self.sockets:
            self.sockets.pop().close()

    async def release(self) -> None:
        self.let_go()

    async def aclose(self) -> None:
        self.let_go()


def check_nothing_is_left() -> None:
    exporter = HoldsASocket()
    tracer = make_tracer(exporter)
    try:

        async def main(is_last: bool = False) -> None:
            await end_spans(tracer, 5)
            await within(3, tracer.flush(), "flush")
            assert exporter.sockets
            if is_last:
                await within(3, tracer.shutdown(), "shutdown")
                assert not exporter.sockets
                assert not others(), f"{others()}"

        before = threads()
        run(main)
        assert not exporter.sockets, "the loop is gone and its connection is not"
        assert threads() == before
        run(lambda: main(True))
        assert threads() == before
    finally:
        exporter.let_go()
        tracer.shutdown_sync(0.5)


def test_no_descriptor_thread_or_task_is_left_by_real_connections() -> None:
    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    with FaultServer.in_thread(default=Delay(0.01)) as server:
        asyncio.run(asyncio.sleep(0))
        before = descriptors(), threads()
        for _ in range(3):
            tracer = Tracer(service="shop", exporters=[OTLPExporter(server.url)], delivery=QUICK, journal=False)

            async def main(tracer: Tracer = tracer) -> None:
                await end_spans(tracer, 20)
                await within(5, tracer.flush(), "flush")

            asyncio.run(main())
            asyncio.run(main())
            end_spans_sync(tracer, 20)
            assert_complete(tracer.shutdown_sync(5.0), 60)
        settles_at(threads, before[1], "threads")
        settles_at(descriptors, before[0], "descriptors", timeout=10.0)  # the server's end of the connections too


# ── a processor that is taken away ──────────────────────────────────────────────────────────────────────────


class Interrupted(asyncio.SelectorEventLoop):
    """As on a machine with more to do than processors: each time the clock is read, milliseconds have gone by."""

    def __init__(self) -> None:
        super().__init__()
        self.taken_away = 0.0

    def time(self) -> float:
        self.taken_away += 0.004
        return super().time() + self.taken_away


class RefusesOften(Keeps):
    """Takes a batch at the hundredth attempt."""

    async def export(self, batch: Any) -> ExportResult:
        self.keys.append(batch.key)
        return ExportResult.all_accepted(batch) if len(self.keys) > 100 else ExportResult.try_again(reason="busy")


def check_what_falls_due_while_the_driver_looks_is_sent() -> None:
    """A back-off may end at any instant, between two statements of the driver too."""
    exporter = RefusesOften()
    tracer = make_tracer(exporter, delivery=msgspec.structs.replace(QUICK, backoff_max=0.05), shutdown_timeout=1.0)

    async def main() -> None:
        await end_spans(tracer, 5)
        task = asyncio.ensure_future(tracer.flush())
        began = time.monotonic()  # not this loop's time
        while not task.done():
            assert time.monotonic() - began < patient(4.0), f"attempt {len(exporter.keys)} was the last one"
            await asyncio.sleep(0.001)
        assert_complete(task.result(), 5)

    try:
        with asyncio.Runner(loop_factory=Interrupted) as runner:
            runner.run(main())
    finally:
        tracer.shutdown_sync(0.5)


# ── the checks notice ───────────────────────────────────────────────────────────────────────────────────────

FAULTS: dict[Callable[[], None], list[wrong_drivers.Fault]] = {
    check_a_lane_cancelled_before_its_first_step_delivers: [
        wrong_drivers.without_a_first_step,
        wrong_drivers.without_a_drain,
    ],
    check_a_cancelled_lane_drains_and_the_second_cancellation_ends_it: [
        wrong_drivers.without_a_drain,
        wrong_drivers.deaf_to_the_second_cancellation,
        wrong_drivers.forgets_what_it_gives_up,
    ],
    check_a_cancelled_lane_takes_along_what_others_end_while_they_are_cancelled: [
        wrong_drivers.without_a_drain,
        wrong_drivers.waits_for_nobody,
    ],
    check_a_task_that_cancels_all_others_does_not_wait_for_the_drain_timeout: [wrong_drivers.waits_for_everybody],
    check_an_exporter_whose_start_fails_gets_another: [
        wrong_drivers.starts_once,
        wrong_drivers.starts_for_each_request,
        wrong_drivers.never_starts,
    ],
    check_requests_that_begin_together_start_the_exporter_once: [wrong_drivers.starts_for_each_request],
    check_three_errors_in_a_row_fail_those_who_wait: [wrong_drivers.hides_its_errors],
    check_two_errors_in_a_row_disturb_nobody: [
        wrong_drivers.gives_up_at_the_first_error,
        wrong_drivers.counts_errors_for_ever,
    ],
    check_a_loop_that_stands_still_keeps_nothing_for_itself: [
        wrong_drivers.keeps_what_was_under_way,
    ],
    check_an_exporter_is_started_and_let_go_on_each_loop: [
        wrong_drivers.never_lets_go,
        wrong_drivers.closes_on_each_loop,
        wrong_drivers.never_starts,
    ],
    check_a_shutdown_from_another_loop_closes_on_the_lanes_own_loop: [wrong_drivers.closes_where_it_is_told],
    check_the_owner_thread_delivers_and_ends: [wrong_drivers.a_thread_that_stays, wrong_drivers.a_thread_for_each_wake],
    check_requests_are_not_among_all_tasks: [wrong_drivers.shows_its_requests],
    check_nothing_is_left: [wrong_drivers.never_lets_go],
    check_what_falls_due_while_the_driver_looks_is_sent: [wrong_drivers.reads_the_clock_twice],
}


@pytest.mark.parametrize("check", FAULTS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_driver_keeps_its_promises(check: Callable[[], None]) -> None:
    check()


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize(
    ("check", "fault"),
    [(check, fault) for check, faults in FAULTS.items() for fault in faults],
    ids=lambda value: value.__name__.removeprefix("check_"),
)
def test_each_check_notices_a_fault_of_the_driver(
    check: Callable[[], None], fault: wrong_drivers.Fault, patch: pytest.MonkeyPatch
) -> None:
    clean_up = fault(patch)
    try:
        with pytest.raises(BROKEN):
            check()
    finally:
        if clean_up is not None:
            clean_up()
