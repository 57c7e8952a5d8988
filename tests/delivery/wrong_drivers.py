"""Drivers and homes that are wrong in one place each, as patches. `test_driver_life.py` catches every one of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from asynctrace.delivery import _delivery, _driver, _home
from asynctrace.delivery._lane import Lane

Fault = Callable[[pytest.MonkeyPatch], Any]


def without_a_first_step(patch: pytest.MonkeyPatch) -> None:
    """A task is cancelled before it began like any other."""
    patch.setattr(_driver, "AtLeastOneStep", lambda work, on_cancelled: work)


def reads_the_clock_twice(patch: pytest.MonkeyPatch) -> None:
    """Once to see what is to be sent, and then to see how long there is nothing to send."""
    wait = _driver.LaneDriver._wait
    patch.setattr(_driver.LaneDriver, "_wait", lambda driver, now: wait(driver, driver._loop.time()))


def without_a_drain(patch: pytest.MonkeyPatch) -> None:
    """The first cancellation is the end."""

    def leave(driver: Any) -> None:
        driver._is_cancelled = True
        driver._leave_by = driver._loop.time()

    patch.setattr(_driver.LaneDriver, "_drain", leave)


def deaf_to_the_second_cancellation(patch: pytest.MonkeyPatch) -> None:
    drain = _driver.LaneDriver._drain

    def drain_again(driver: Any) -> None:
        drain(driver)
        driver._leave_by = driver._loop.time() + 1.5

    patch.setattr(_driver.LaneDriver, "_drain", drain_again)


def forgets_what_it_gives_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "put_back", lambda lane, window: None)
    patch.setattr(Lane, "adopt", lambda lane, owner: setattr(lane, "owner", owner))


def waits_for_everybody(patch: pytest.MonkeyPatch) -> None:
    """Also for those who are not cancelled, and wait for the lane."""
    patch.setattr(
        _driver.LaneDriver,
        "_others",
        lambda driver: [task for task in asyncio.all_tasks(driver._loop) if task not in _driver._driver_tasks],
    )


def waits_for_nobody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_driver.LaneDriver, "_others", lambda driver: [])


def starts_once(patch: pytest.MonkeyPatch) -> None:
    """Whatever became of it."""

    async def started(driver: Any) -> None:
        if driver._starting is None:
            driver._starting = driver._loop.create_task(driver._exporter.start())
            await asyncio.wait([driver._starting])
            driver._starting.exception()

    patch.setattr(_driver.LaneDriver, "_started", started)


def starts_for_each_request(patch: pytest.MonkeyPatch) -> None:
    async def started(driver: Any) -> None:
        await driver._exporter.start()

    patch.setattr(_driver.LaneDriver, "_started", started)


def never_starts(patch: pytest.MonkeyPatch) -> None:
    async def started(driver: Any) -> None:
        pass

    patch.setattr(_driver.LaneDriver, "_started", started)


def hides_its_errors(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_driver, "_ERRORS_IN_A_ROW", 1 << 30)


def gives_up_at_the_first_error(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_driver, "_ERRORS_IN_A_ROW", 1)


def counts_errors_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Not those in a row: the third of a long life fails whoever happens to wait."""
    seen: dict[Any, int] = {}
    stumbled = _driver.LaneDriver._stumbled

    def stumble(driver: Any, error: Exception) -> None:
        seen[driver] = driver._errors_in_a_row = seen.get(driver, 0)
        stumbled(driver, error)
        seen[driver] += 1

    patch.setattr(_driver.LaneDriver, "_stumbled", stumble)


def keeps_what_was_under_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "adopt", lambda lane, owner: setattr(lane, "owner", owner))


def never_lets_go(patch: pytest.MonkeyPatch) -> None:
    async def let_go(driver: Any) -> None:
        pass

    patch.setattr(_driver.LaneDriver, "_let_go", let_go)


def closes_on_each_loop(patch: pytest.MonkeyPatch) -> None:
    let_go = _driver.LaneDriver._let_go

    async def close(driver: Any) -> None:
        must_close, driver._must_close = driver._must_close, True
        await let_go(driver)
        driver._must_close = must_close

    patch.setattr(_driver.LaneDriver, "_let_go", close)


def closes_where_it_is_told(patch: pytest.MonkeyPatch) -> None:
    """On the loop that shuts down, although the connections belong to another."""

    async def not_at_home(delivery: Any, home: Any, reason: str, close_timeout: float) -> bool:
        return False

    patch.setattr(_delivery.Delivery, "_finish_at_home", not_at_home)


def shows_its_requests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(asyncio, "_unregister_task", lambda task: None)


def a_thread_that_stays(patch: pytest.MonkeyPatch) -> Callable[[], None]:
    homes: list[Any] = []
    end = _home.Home._end

    def end_without_stopping(home: Any) -> None:
        owns_loop, home._owns_loop = home._owns_loop, False
        homes.extend([home] if owns_loop else [])
        end(home)

    def stop_after_all() -> None:
        for home in homes:
            home.loop.call_soon_threadsafe(home.loop.stop)

    patch.setattr(_home.Home, "_end", end_without_stopping)
    return stop_after_all


def a_thread_for_each_wake(patch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A thread beside the lanes' own."""
    threads: list[threading.Thread] = []
    go_home = threading.Event()
    on_ready = _delivery.Delivery.on_ready

    def in_a_thread(delivery: Any) -> None:
        on_ready(delivery)
        threads.append(threading.Thread(target=go_home.wait, args=(5.0,)))
        threads[-1].start()

    def join() -> None:
        go_home.set()
        for thread in threads:
            thread.join()

    patch.setattr(_delivery.Delivery, "on_ready", in_a_thread)
    return join
