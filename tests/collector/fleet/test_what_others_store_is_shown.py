"""`asynctrace view`: what other processes store is on the list within a second or two; nothing is received."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from asynctrace.collector import SQLiteReader, SQLiteStore
from asynctrace.collector.fleet import Viewer, _lookout
from asynctrace.collector.fleet._lookout import Lookout
from asynctrace.collector.fleet._metrics import Tally
from asynctrace.collector.live import Hub, Listener, News

from ..traffic import group, protobuf, received, span

pytestmark = pytest.mark.anyio

DEADLINE = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with contextlib.closing(SQLiteStore(tmp_path / "store")) as store:
        yield store


def add(store: SQLiteStore, trace: int, *numbers: int) -> str:
    """Spans with these numbers; each trace starts a second after the one before."""
    store.add([received(group(*(span(trace, number, start=trace * 10**9) for number in numbers)))])
    return f"{trace:032x}"


async def news_of(listener: Listener) -> News:
    async with asyncio.timeout(DEADLINE):
        return await listener.news()


# ── looking ─────────────────────────────────────────────────────────────────────────────────────────────────


Make = Callable[[SQLiteStore, Hub], Lookout]


def lookout(store: SQLiteStore, hub: Hub) -> Lookout:
    return Lookout(store, hub, Tally("test"))


async def check_what_is_new_is_told(make: Make, store: SQLiteStore) -> None:
    """What a list hears: new traces, changed ones, and those that are gone; nothing twice."""
    hub = Hub()
    looking = make(store, hub)
    old, grows, gone = add(store, 1, 1), add(store, 2, 1), add(store, 3, 1)
    await looking.look()
    listener = hub.join()
    new = add(store, 4, 1)
    add(store, 2, 2)
    store.delete(gone)
    await looking.look()
    assert await news_of(listener) == News([new, grows], [gone], 0)
    add(store, 1, 2)
    await looking.look()
    assert await news_of(listener) == News([old], [], 0)


async def test_what_is_new_changed_or_gone_is_told_once(store: SQLiteStore) -> None:
    await check_what_is_new_is_told(lookout, store)


class TellsNewTracesOnly(Lookout):
    """Compares ids instead of lines."""

    async def _look_at_the_newest(self) -> None:
        known = set(self._newest or {})
        await super()._look_at_the_newest()
        for listener in self._hub._listeners:
            for trace_id in known:
                listener._changed.pop(trace_id, None)


class TellsEverything(Lookout):
    """Remembers nothing."""

    async def _look_at_the_newest(self) -> None:
        self._newest = {} if self._newest is not None else None
        await super()._look_at_the_newest()


@pytest.mark.parametrize("wrong", [TellsNewTracesOnly, TellsEverything])
async def test_a_lookout_that_compares_wrongly_is_caught(store: SQLiteStore, wrong: type[Lookout]) -> None:
    with pytest.raises(AssertionError):
        await check_what_is_new_is_told(lambda store, hub: wrong(store, hub, Tally("test")), store)


async def test_more_than_a_look_can_name_is_said(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lookout, "NEWEST", 3)
    hub = Hub()
    looking = lookout(store, hub)
    for trace in range(1, 4):
        add(store, trace, 1)
    await looking.look()
    listener, follower = hub.join(), hub.follow("00" * 16)
    for trace in range(10, 16):
        add(store, trace, 1)
    await looking.look()
    assert (await news_of(listener)).dropped == 1
    assert (await news_of(follower)).dropped == 0  # who looks at one trace has no list to read anew


async def test_a_trace_that_somebody_looks_at_is_followed_however_old_it_is(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lookout, "NEWEST", 2)
    hub = Hub()
    looking = lookout(store, hub)
    old = add(store, 1, 1)
    for trace in range(2, 6):
        add(store, trace, 1)
    listener = hub.follow(old)
    await looking.look()
    assert await news_of(listener) == News([old], [], 0)  # it may have changed before anybody looked
    add(store, 1, 2)
    await looking.look()
    assert await news_of(listener) == News([old], [], 0)
    await looking.look()
    assert not listener._event.is_set()


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def viewing(store: SQLiteStore, **options: Any) -> AsyncIterator[tuple[Viewer, aiohttp.ClientSession]]:
    reader = SQLiteReader(store.directory)
    async with Viewer(reader, port=0, every=0.05, **options) as viewer, aiohttp.ClientSession() as session:
        yield viewer, session


async def test_what_is_stored_beside_it_is_told_to_who_listens(store: SQLiteStore) -> None:
    async with viewing(store) as (viewer, session), session.ws_connect(f"{viewer.url}/api/v1/live") as socket:
        await socket.send_json({"subscribe": "list", "q": ""})
        async with asyncio.timeout(DEADLINE):
            while (await socket.receive_json())["type"] != "subscribed":
                pass
            trace_id = await asyncio.to_thread(add, store, 1, 1, 2)
            while True:
                told = await socket.receive_json()
                if told["type"] == "list" and told["changed"]:
                    break
        assert [(line["trace_id"], line["spans"]) for line in told["changed"]] == [(trace_id, 2)]


async def test_an_open_trace_grows_while_one_looks_at_it(store: SQLiteStore) -> None:
    trace_id = add(store, 1, 1)
    async with viewing(store) as (viewer, session), session.ws_connect(f"{viewer.url}/api/v1/live") as socket:
        await socket.send_json({"subscribe": "trace", "trace_id": trace_id, "version": -1})
        await asyncio.to_thread(add, store, 1, 2)
        async with asyncio.timeout(DEADLINE):
            while True:
                told = await socket.receive_json()
                if told["type"] == "trace" and told["summary"]["spans"] == 2:
                    break


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("POST", "/v1/traces", 404, "asynctrace ingest"),
        ("POST", "/v1/logs", 404, "asynctrace ingest"),
        ("POST", "/api/v1/import", 405, "asynctrace ingest"),
        ("PUT", f"/api/v1/pins/{1:032x}", 405, "read only"),
        ("DELETE", f"/api/v1/traces/{1:032x}", 405, "read only"),
    ],
)
async def test_what_is_not_done_here_is_said(
    store: SQLiteStore, method: str, path: str, status: int, hint: str
) -> None:
    add(store, 1, 1)
    async with viewing(store) as (viewer, session):
        async with session.request(method, f"{viewer.url}{path}", data=protobuf([group(span())])) as answer:
            assert (answer.status, hint in (await answer.json())["error"]) == (status, True)
        async with session.get(f"{viewer.url}/api/v1/traces") as answer:
            assert [line["trace_id"] for line in msgspec.json.decode(await answer.read())["traces"]] == [f"{1:032x}"]


async def test_where_the_store_may_be_changed_traces_are_pinned_and_deleted(store: SQLiteStore) -> None:
    trace_id = add(store, 1, 1)
    async with viewing(store, changing=store) as (viewer, session):
        async with session.put(f"{viewer.url}/api/v1/pins/{trace_id}") as answer:
            assert answer.status == 200
        async with session.get(f"{viewer.url}/api/v1/traces/{trace_id}") as answer:
            assert (await answer.json())["pinned"] is True
        async with session.delete(f"{viewer.url}/api/v1/traces/{trace_id}") as answer:
            assert answer.status == 200


async def test_it_is_guarded_as_the_collector_is(store: SQLiteStore) -> None:
    async with viewing(store, token="word") as (viewer, session):
        for path, status in (("/api/v1/traces", 401), ("/metrics", 401), ("/readyz", 200), ("/healthz", 200)):
            async with session.get(f"{viewer.url}{path}") as answer:
                assert (path, answer.status) == (path, status)
        async with session.get(f"{viewer.url}/metrics", headers={"Authorization": "Bearer word"}) as answer:
            assert "asynctrace_view_listeners 0" in await answer.text()
        async with session.get(f"{viewer.url}/readyz", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403


async def test_it_shows_the_page(store: SQLiteStore) -> None:
    async with viewing(store) as (viewer, session), session.get(viewer.url) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
