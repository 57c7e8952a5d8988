"""A request that comes again is acknowledged and not stored again.

A promise is a function `check_…(store_type)`; the test gives it `SQLiteStore`, the last test a store with a fault.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace.collector import RequestKey, SQLiteStore, StoreError
from asynctrace.collector._keys import parse_key
from asynctrace.collector._rows import Received
from asynctrace.collector.store import _seen as seen

from .traffic import Sender, collecting, group, protobuf, received, span

LOG = "3f0c1d2a-9b8e-4f60-8a5c-0123456789ab"

Collecting = Callable[..., contextlib.AbstractAsyncContextManager[Sender]]


def key(first: int, count: int, log_id: str = LOG) -> RequestKey:
    return RequestKey(log_id, first, count)


class CountingStore(SQLiteStore):
    """The real one; it counts the spans that were added."""

    added = 0

    def add(self, received: Sequence[Received]) -> None:
        super().add(received)
        self.added += sum(len(each.rows) for each in received)


def only_key(request_key: RequestKey) -> Received:
    """A request whose spans do not matter."""
    return Received(origins=[], rows=[], key=request_key)


def body(first: int, count: int) -> bytes:
    return protobuf([group(*(span(1, number + 1) for number in range(first, first + count)))])


async def send(sender: Sender, first: int, count: int, log_id: str = LOG) -> None:
    header = {"x-asynctrace-key": f"{log_id}:{first}:{count}"}
    status, answer, _ = await sender.post(body(first, count), **header)
    assert (status, answer) == (200, b"")


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────


async def check_a_repeated_request_is_not_stored_again(store_type: type[SQLiteStore], directory: Path) -> None:
    class Counting(CountingStore, store_type):  # type: ignore[misc, valid-type]
        """Counts what the store under test is given."""

    store = Counting(directory)
    async with collecting(store) as sender:
        await send(sender, 0, 8)
        await send(sender, 0, 8)  # its answer was lost
        await send(sender, 0, 4)  # then it was refused, and came in parts
        await send(sender, 4, 2)
        await send(sender, 6, 2)
        assert store.added == 8, "stored again"
        await send(sender, 8, 8)
        await send(sender, 4, 8)  # cut anew, over two requests that touch
        assert store.added == 16, "a part was not recognized"
        await send(sender, 12, 8)  # only its first half is known
        assert store.added == 24, "what is new in it was not stored"
        await send(sender, 0, 8, log_id="another")
        assert store.added == 32, "another log's records are others"
        (trace,) = await sender.traces()
        assert trace["spans"] == 20
    with contextlib.closing(Counting(directory)) as again:
        assert again.has(key(0, 20)), "forgotten with the process"


@pytest.mark.anyio
async def test_a_repeated_request_is_acknowledged_and_not_stored_again(tmp_path: Path) -> None:
    await check_a_repeated_request_is_not_stored_again(SQLiteStore, tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "header",
    ["", "x", "log:0", "log:0:2:3", "log:-1:2", "log:0:0", "log:0:3", "log:00:2", ":0:2", "lög:0:2", "log:0:2\t:",
     f"{'l' * 65}:0:2", f"log:{'9' * 19}:2", "log:٣:2", f"log:0:2{' ' * 5000}x"],
)  # fmt: skip
async def test_a_malformed_key_is_ignored(tmp_path: Path, header: str) -> None:
    store = CountingStore(tmp_path)
    async with collecting(store) as sender:
        for first in (0, 2):
            status, _, _ = await sender.post(body(first, 2), **{"x-asynctrace-key": header})
            assert status == 200
        assert store.added == 4
        assert [run["spans"] for run in await sender.traces()] == [4]


def test_only_one_whole_believable_key_counts() -> None:
    assert parse_key([f"{LOG}:7:2"], 2) == key(7, 2)
    assert parse_key([f"{LOG}:7:2"], 3) is None
    assert parse_key([f"{LOG}:7:2"] * 2, 2) is None
    assert parse_key([], 2) is None
    assert key(10**18 - 1, 10**18 - 1).end < 2**63


@pytest.mark.anyio
async def test_a_request_with_a_flaw_is_judged_anew_each_time(tmp_path: Path) -> None:
    flawed = protobuf([group(span(1, 1), msgspec.structs.replace(span(1, 2), span_id="00" * 8))])
    async with collecting(tmp_path) as sender:
        answers = [await sender.post(flawed, **{"x-asynctrace-key": f"{LOG}:0:2"}) for _ in range(2)]
    assert [(status, answer != b"") for status, answer, _ in answers] == [(200, True), (200, True)]


def check_a_failed_commit_leaves_no_key(store_type: type[SQLiteStore], directory: Path) -> None:
    with contextlib.closing(store_type(directory)) as store:
        good = received(group(span()), key=key(0, 1))
        bad = msgspec.structs.replace(good, rows=[good.rows[0]._replace(name=None)])  # type: ignore[arg-type]
        with contextlib.suppress(TypeError, AttributeError):
            store.add([bad])
        assert not store.has(key(0, 1)), "the key is there, the span is not"


def test_a_failed_commit_leaves_no_key(tmp_path: Path) -> None:
    check_a_failed_commit_leaves_no_key(SQLiteStore, tmp_path)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.has(key(0, 1))


RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=12)


def check_runs_are_the_union_of_the_requests(store_type: type[SQLiteStore], ranges: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.closing(store_type(directory)) as store:
        known: set[int] = set()
        for first, count in ranges:
            store.add([only_key(key(first, count))])
            known |= set(range(first, first + count))
        for first, count in itertools.product(range(-1, 42), (1, 2, 5)):
            assert store.has(key(first, count)) is (set(range(first, first + count)) <= known)
        assert not store.has(key(0, 1, "another"))


@settings(max_examples=40, deadline=None)
@given(ranges=RANGES)
def test_what_is_known_is_the_union_of_the_requests(ranges: list[tuple[int, int]]) -> None:
    check_runs_are_the_union_of_the_requests(SQLiteStore, ranges)


def rows_of(directory: Path) -> int:
    with contextlib.closing(sqlite3.connect(directory / "books.db")) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM request").fetchone()
    return int(rows)


def test_a_log_that_arrives_in_order_is_one_row(tmp_path: Path) -> None:
    with contextlib.closing(SQLiteStore(tmp_path)) as store:
        for first in range(0, 1000, 10):
            store.add([only_key(key(first, 10))])
    assert rows_of(tmp_path) == 1


def check_keys_are_bounded(store_type: type[SQLiteStore], directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "MOST_KEYS", 50)
    monkeypatch.setattr(seen, "BETWEEN_PRUNINGS", 10)
    now = [1_000_000.0]
    with contextlib.closing(store_type(directory, time=lambda: now[0])) as store:
        for number in range(100):
            now[0] += 1
            store.add([only_key(key(2 * number, 1))])
        assert rows_of(directory) <= 60
        assert store.has(key(198, 1))
        assert not store.has(key(0, 1))
        now[0] += seen.KEYS_KEPT - 5
        for number in range(1000, 1011):
            store.add([only_key(key(2 * number, 1))])
        assert store.has(key(198, 1)), "forgotten before its time"
        now[0] += 10
        for number in range(2000, 2011):
            store.add([only_key(key(2 * number, 1))])
        assert not store.has(key(198, 1)), "kept for ever"


def test_keys_are_bounded_in_number_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_keys_are_bounded(SQLiteStore, tmp_path, monkeypatch)


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


class ForgetsKeys(SQLiteStore):
    def has(self, key: RequestKey) -> bool:
        return False


class KnowsWholeRequestsOnly(SQLiteStore):
    """As if the key were a text."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory)
        self._keys: set[RequestKey] = set()

    def add(self, received: Sequence[Received]) -> None:
        super().add(received)
        self._keys |= {each.key for each in received if each.key is not None}

    def has(self, key: RequestKey) -> bool:
        return key in self._keys


class KnowsWhatItHasHalf(SQLiteStore):
    """One known record is enough."""

    def has(self, key: RequestKey) -> bool:
        return any(super(KnowsWhatItHasHalf, self).has(RequestKey(key.log_id, n, 1)) for n in range(key.first, key.end))


class ForgetsTheLog(SQLiteStore):
    """Record numbers of all logs are one."""

    def add(self, received: Sequence[Received]) -> None:
        super().add([msgspec.structs.replace(each, key=each.key and self._nameless(each.key)) for each in received])

    @staticmethod
    def _nameless(key: RequestKey) -> RequestKey:
        return RequestKey("", key.first, key.count)

    def has(self, key: RequestKey) -> bool:
        return super().has(RequestKey("", key.first, key.count))


class RemembersInMemory(KnowsWholeRequestsOnly):
    """The keys die with the process."""

    def has(self, key: RequestKey) -> bool:
        known = {number for each in self._keys if each.log_id == key.log_id for number in range(each.first, each.end)}
        return set(range(key.first, key.end)) <= known


@pytest.mark.anyio
@pytest.mark.parametrize(
    "wrong", [ForgetsKeys, KnowsWholeRequestsOnly, KnowsWhatItHasHalf, ForgetsTheLog, RemembersInMemory]
)
async def test_a_store_that_mistakes_requests_is_caught(wrong: type[SQLiteStore], tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        await check_a_repeated_request_is_not_stored_again(wrong, tmp_path)


class KeyBeforeTheSpans(SQLiteStore):
    """The key has a transaction of its own."""

    def add(self, received: Sequence[Received]) -> None:
        super().add([only_key(each.key) for each in received if each.key is not None])
        super().add([msgspec.structs.replace(each, key=None) for each in received])


def test_a_key_that_is_written_before_its_spans_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the span is not"):
        check_a_failed_commit_leaves_no_key(KeyBeforeTheSpans, tmp_path)


def test_runs_that_are_joined_over_a_gap_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "END_WITHIN", seen.END_WITHIN.replace("first BETWEEN ? AND ?", "? < ? + first"))
    with pytest.raises(AssertionError):
        check_runs_are_the_union_of_the_requests(SQLiteStore, [(10, 2), (0, 2)])


def test_keys_that_are_never_removed_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_prune", lambda *_: None)
    with pytest.raises(AssertionError):
        check_keys_are_bounded(SQLiteStore, tmp_path, monkeypatch)
