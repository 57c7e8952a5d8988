"""A listener is told of what changed since it last asked: once, bounded, and not more often than ten times a second."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from asynctrace.collector.live import Hub, Listener, News
from asynctrace.collector.live import _hub as limits

pytestmark = pytest.mark.anyio


async def news_of(listener: Listener) -> News:
    async with asyncio.timeout(30):
        return await listener.news()


async def check_changes_are_told_once(make: Callable[[], Hub]) -> None:
    hub = make()
    listener, other = hub.join(), hub.join(lambda trace_id: trace_id == "b")
    for _ in range(50):
        hub.changed(["a", "b", "c"])
    hub.removed("c")
    assert await news_of(listener) == News(["a", "b"], ["c"], 0)
    assert await news_of(other) == News(["b"], [], 0)
    hub.changed(["a"])
    hub.leave(other)
    assert await news_of(listener) == News(["a"], [], 0)
    assert len(hub) == 1


async def test_what_changed_many_times_is_told_once() -> None:
    await check_changes_are_told_once(Hub)


class TellsEveryChange(Hub):
    """A list instead of a set of what changed."""

    def join(self, wants: Callable[[str], bool] = lambda trace_id: True) -> Listener:
        listener = super().join(wants)
        news = listener.news

        async def with_repetitions(rest: float = 0.0) -> News:
            told = await news(rest)
            return told._replace(changed=told.changed * 2)

        listener.news = with_repetitions  # type: ignore[method-assign]
        return listener


async def test_a_hub_that_tells_every_change_is_caught() -> None:
    with pytest.raises(AssertionError):
        await check_changes_are_told_once(TellsEveryChange)


async def test_a_listener_that_does_not_listen_is_bounded_and_told_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MOST_NOTED", 100)
    hub = Hub()
    slow = hub.join()
    for number in range(1000):
        hub.changed([str(number)])
    hub.changed(["5"])
    told = await news_of(slow)
    assert (len(told.changed), told.dropped) == (100, 900)


async def test_who_listens_is_told_how_many_went_when_nobody_says_which() -> None:
    hub = Hub()
    listeners = [hub.join(), hub.join(lambda trace_id: trace_id == "a")]
    hub.changed(["a"])
    hub.swept(7)
    assert [await news_of(listener) for listener in listeners] == [News(["a"], [], 7)] * 2


async def test_messages_to_one_listener_are_a_tenth_of_a_second_apart() -> None:
    hub = Hub()
    listener = hub.join()
    loop = asyncio.get_running_loop()
    moments = []
    for _ in range(4):
        hub.changed(["a"])
        await news_of(listener)
        moments.append(loop.time())
    assert all(after - before >= limits.INTERVAL * 0.99 for before, after in itertools.pairwise(moments))
