"""Bounds are kept to the day; what is pinned stays; what is deleted is gone at once; percentiles are those of the spans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asynctrace._contracts import StatusCode
from asynctrace.collector.clickhouse import ClickHouseStore
from asynctrace.collector.clickhouse import _keeping as keeping
from asynctrace.collector.clickhouse import _roll as roll
from asynctrace.collector.clickhouse._client import Client
from asynctrace.collector.clickhouse._schema import PARTITIONED
from asynctrace.collector.store import Bounds, Swept
from asynctrace.collector.store._roll import bucket_of

from ..traffic import START, checkout, group, received, span
from .traffic import log, with_logs

DAY = 86_400.0
NOON = 19_700 * DAY + DAY / 2
"""Of a day."""
Make = Callable[..., ClickHouseStore]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(url: str, clock: Clock) -> Iterator[Make]:
    made: list[ClickHouseStore] = []

    def one(**bounds: Any) -> ClickHouseStore:
        made.append(ClickHouseStore(url, bounds=Bounds(**bounds), time=clock))
        return made[-1]

    yield one
    for store in made:
        store.close()


def hexadecimal(trace: int) -> str:
    return f"{trace:032x}"


def over_days(store: ClickHouseStore, clock: Clock, last: int, *, first: int = 1) -> None:
    """Trace n arrives on day n, at noon; the clock stands at noon of the last day."""
    for day in range(first, last + 1):
        clock.now = NOON + (day - 1) * DAY
        own = group(span(day, 4, parent=1), service=f"service {day}")
        store.add([with_logs(received(checkout(day), own), log(day, 1, "said"))])


def there(store: ClickHouseStore) -> list[int]:
    return sorted(int(run.trace_id, 16) for run in store.runs(100).traces)


def test_what_is_older_than_the_bound_goes_with_its_day(make: Make, clock: Clock, client: Client) -> None:
    store = make(age=2 * DAY)
    over_days(store, clock, 5)
    swept = store.sweep()
    assert (swept.segments, swept.traces, swept.spans) == (2, 2, 8)
    assert swept.size > 0
    assert there(store) == [3, 4, 5]
    for table in PARTITIONED:
        assert client.ask(f"SELECT min(intDiv(arrived, 86400000000000)) FROM {table}") == b"19702\n", table
    assert store.sweep() == Swept()


def test_what_is_within_the_bounds_stays(make: Make, clock: Clock) -> None:
    store = make(age=30 * DAY, size=2**40)
    over_days(store, clock, 3)
    assert store.sweep() == Swept()
    assert there(store) == [1, 2, 3]


def test_the_oldest_days_go_when_there_is_too_much_and_never_the_newest(make: Make, clock: Clock) -> None:
    store = make(size=1)
    over_days(store, clock, 3)
    assert store.sweep().segments == 2
    assert there(store) == [3]
    assert store.sweep() == Swept()


def check_a_pinned_trace_stays(make: Make, clock: Clock) -> None:
    store = make(age=DAY)
    over_days(store, clock, 2)
    assert store.pin(hexadecimal(1))
    before = store.spans_of(hexadecimal(1))
    over_days(store, clock, 6, first=3)
    assert store.sweep().traces == 3
    assert there(store) == [1, 5, 6]
    after = make().spans_of(hexadecimal(1))  # another process, which remembers nothing
    assert before is not None
    assert after is not None
    assert (after.rows, after.logs) == (before.rows, before.logs)
    assert after.origins == before.origins
    assert store.unpin(hexadecimal(1))
    assert there(store) == [5, 6], "it was beyond the bounds for long"


def test_a_pinned_trace_outlives_its_day_until_it_is_unpinned(make: Make, clock: Clock) -> None:
    check_a_pinned_trace_stays(make, clock)


def test_a_trace_can_be_unpinned_while_it_is_within_the_bounds(make: Make, clock: Clock) -> None:
    store = make(age=DAY)
    over_days(store, clock, 1)
    assert store.pin(hexadecimal(1))
    assert store.unpin(hexadecimal(1))
    assert there(store) == [1]


def test_what_comes_to_a_pinned_trace_later_stays_too(make: Make, clock: Clock) -> None:
    store = make(age=DAY)
    over_days(store, clock, 1)
    store.pin(hexadecimal(1))
    clock.now = NOON + 2 * DAY
    store.add([received(group(span(1, 9, parent=1)))])
    for day in (3, 6, 9):
        clock.now = NOON + day * DAY
        store.sweep()
    found = store.spans_of(hexadecimal(1))
    assert found is not None
    assert [row.span_id[-1] for row in found.rows] == [1, 2, 3, 4, 9]


def test_two_processes_sweep_at_once(make: Make, clock: Clock) -> None:
    stores = [make(age=DAY) for _ in range(3)]
    over_days(stores[0], clock, 5)
    stores[0].pin(hexadecimal(2))
    threads = [threading.Thread(target=store.sweep) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there(stores[0]) == [2, 4, 5]
    assert stores[0].statistics().spans == 12


@pytest.mark.parametrize("trace_id", ["00" * 15 + "01", "01" + "00" * 15, "a0" * 16])
def test_a_deleted_trace_leaves_no_row_in_any_table(trace_id: str, make: Make, client: Client) -> None:
    store = make()
    number = int(trace_id, 16)
    store.add([with_logs(received(checkout(number), checkout(7)), log(7, 1, "stays"))])
    store.add([with_logs(received(group(span(number, 9, start=3600 * 10**9))), log(number, 1, "goes"))])
    assert store.delete(trace_id)
    for table in PARTITIONED:
        if table != "origins":
            rows = int(client.ask(f"SELECT count() FROM {table} WHERE hex(trace_id) = '{trace_id.upper()}'"))
            assert rows == 0, table
    assert there(store) == [7]
    assert not store.delete(trace_id)
    store.add([received(checkout(number))])
    assert there(store) == sorted([7, number])


# ── percentiles ─────────────────────────────────────────────────────────────────────────────────────────────


def some_spans(minutes: int = 3) -> list[Any]:
    return [
        span(
            trace,
            1,
            name=f"step {trace % 3}",
            start=trace % minutes * 60 * 10**9,
            duration=0 if trace == 4 else 7**trace,
            status=StatusCode.ERROR if trace % 5 == 0 else StatusCode.OK,
        )
        for trace in range(1, 20)
    ]


def check_what_is_rolled_up_says_the_same(make: Make, clock: Clock, client: Client) -> None:
    store = make()
    store.add([received(group(*some_spans()))])
    fresh = store.stats()
    clock.now += 2 * roll.QUIET
    store.sweep()
    assert int(client.ask("SELECT uniqExact(minute) FROM roll")) == 3, "nothing was summed up"
    assert store.stats() == fresh
    store.add([received(group(span(4, 1, name="step 1", start=60 * 10**9, duration=5)))])
    again = store.stats()
    assert sum(each.count for each in again.rows) == 19, "the open version counts beside the ended one"
    clock.now += 2 * roll.QUIET
    store.sweep()
    assert store.stats() == again


def test_percentiles_of_quiet_minutes_are_those_of_their_spans(make: Make, clock: Clock, client: Client) -> None:
    check_what_is_rolled_up_says_the_same(make, clock, client)


def test_a_minute_that_is_not_quiet_is_not_summed_up_yet(make: Make, clock: Clock, client: Client) -> None:
    store = make()
    store.add([received(group(*some_spans()))])
    store.sweep()
    assert client.ask("SELECT count() FROM roll") == b"0\n"


def test_percentiles_forget_what_was_deleted_and_what_went(make: Make, clock: Clock) -> None:
    store = make(age=DAY)
    store.add([received(checkout(1)), received(checkout(2))])
    clock.now += 2 * roll.QUIET
    store.sweep()
    store.delete(hexadecimal(1))
    assert sum(each.count for each in store.stats().rows) == 3
    store.sweep()
    clock.now += 3 * DAY
    store.sweep()
    assert store.stats().rows == ()
    clock.now += 2 * roll.QUIET
    store.sweep()
    assert store.stats().rows == ()


def check_percentiles_forget_what_was_unpinned(make: Make, clock: Clock) -> None:
    store = make(age=DAY)
    over_days(store, clock, 1)
    store.pin(hexadecimal(1))
    over_days(store, clock, 4, first=4)
    store.sweep()
    clock.now += 2 * roll.QUIET
    store.sweep()
    assert sum(each.count for each in store.stats().rows) == 8
    assert store.unpin(hexadecimal(1))
    assert sum(each.count for each in store.stats().rows) == store.statistics().spans == 4
    clock.now += 2 * roll.QUIET
    store.sweep()
    assert sum(each.count for each in store.stats().rows) == 4


def test_percentiles_forget_what_was_unpinned_beyond_the_bounds(make: Make, clock: Clock) -> None:
    check_percentiles_forget_what_was_unpinned(make, clock)


def test_buckets_are_those_of_the_embedded_store(client: Client) -> None:
    durations = [0, 1, 7, 8, 9, 15, 16, 17, 1000, 2**20 - 1, 2**20, 10**9, 10**12, 2**53 - 1, 2**53, 2**53 + 1]
    values = ", ".join(map(str, durations))
    start = f"(SELECT arrayJoin([{values}]) AS d, toUInt64({START}) AS start_ns, start_ns + d AS end_ns)"
    found = client.ask(f"SELECT {roll.BUCKET} FROM {start}", database="").split()
    assert list(map(int, found)) == [bucket_of(each) for each in durations]


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_that_does_not_copy_what_is_pinned_is_caught(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_copy", lambda table: "SELECT 1")
    with pytest.raises(AssertionError):
        check_a_pinned_trace_stays(make, clock)


def test_a_sweep_that_forgets_the_origins_is_caught(make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = keeping._copy
    monkeypatch.setattr(keeping, "_copy", lambda table: "SELECT 1" if table == "origins" else copy(table))
    with pytest.raises(AssertionError):
        check_a_pinned_trace_stays(make, clock)


def test_percentiles_that_count_every_version_are_caught(
    make: Make, clock: Clock, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roll, "MAKE", roll.MAKE.replace("trace_id, span_id", "trace_id, span_id, version"))
    with pytest.raises(AssertionError):
        check_what_is_rolled_up_says_the_same(make, clock, client)


def test_percentiles_that_keep_what_was_unpinned_are_caught(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "DIRTY", f"{keeping.DIRTY} 0 AND")
    with pytest.raises(AssertionError):
        check_percentiles_forget_what_was_unpinned(make, clock)
