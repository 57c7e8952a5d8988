"""What a listener is told of a trace adds up to what reading all of it gives; and it is no more than what happened."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from asynctrace._contracts import AttributeValue, Span, StatusCode
from asynctrace.collector import SQLiteStore
from asynctrace.collector._rows import Received
from asynctrace.collector.api import _following as following
from asynctrace.collector.api import _skeleton as columns
from asynctrace.collector.api._following import Following, Told
from asynctrace.collector.api._skeleton import skeleton
from asynctrace.collector.api._view import View
from asynctrace.collector.live import Live
from asynctrace.collector.store import TraceSpans
from asynctrace.wire import Log, encode_log, length_delimited

from ..store.stores import NAMES
from ..traffic import group, received, span

ID = f"{1:032x}"
SECOND = 10**9


class Counted(SQLiteStore):
    """It counts the spans that it gave."""

    read = 0

    def spans_of(self, trace_id: str, *, messages: bool = True, since: int = 0) -> TraceSpans | None:
        found = super().spans_of(trace_id, messages=messages, since=since)
        self.read += len(found.rows) if found is not None else 0
        return found


class Forgetful(SQLiteStore):
    """A store that cannot tell what arrived since a version."""

    def spans_of(self, trace_id: str, *, messages: bool = True, since: int = 0) -> TraceSpans | None:
        return super().spans_of(trace_id, messages=messages)


class World:
    """A store, what is open, and a clock."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.now = 100.0
        self.live = Live(self._known, monotonic=lambda: self.now, time_ns=lambda: int(self.now * 1e9))
        self.view = View(store, self.live)
        self.following = Following(self.view)

    def _known(self, trace_id: bytes) -> list[bytes]:
        found = self.store.spans_of(trace_id.hex(), messages=False)
        return [row.span_id for row in found.rows] if found is not None else []

    def add(self, *spans: Span) -> None:
        by_service = (group(each, service="shop" if int(each.span_id, 16) % 3 else "bank") for each in spans)
        self.commit(received(*by_service))

    def commit(self, *some: Received) -> None:
        self.store.add(some)
        self.live.committed(some)

    def truth(self) -> list[dict[str, Any]]:
        whole = self.view.whole(ID, messages=False)
        assert whole is not None
        return spans_in(skeleton(whole))


@contextlib.contextmanager
def world(directory: Path, store: Callable[..., SQLiteStore] = Counted, **options: Any) -> Iterator[World]:
    with contextlib.closing(store(directory, **options)) as opened:
        yield World(opened)


def spans_in(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The columns of a skeleton as a page reads them."""
    found, at = [], 0
    for position, distance in enumerate(said["start"]):
        at += distance
        texts = {key: said[f"{key}s"][said[key][position]] for key in ("name", "type", "service", "scope", "ending")}
        numbers = {key: said[key][position] for key in ("duration", "status", "kind", "parent")}
        found.append(
            {**texts, **numbers, "start": said["t0_ns"] + at * 1000, **some_of(said, said["first"] + position)}
        )
    return found


def some_of(said: dict[str, Any], index: int) -> dict[str, Any]:
    """What only some spans have."""
    return {key: said[key].get(index) for key in ("tokens", "logs") if index in said[key]}


class Listener:
    """Knows what it was told."""

    def __init__(self, version: int = -1, spans: Sequence[dict[str, Any]] = ()) -> None:
        self.told = Told(version)
        self.spans = list(spans)
        self.heard = 0

    def listen(self, world: World) -> None:
        message = world.following.news(ID, self.told)
        if message is None:
            return
        if message.get("gone"):
            self.spans = []
            return
        said = message["skeleton"]
        self.heard += len(said["start"]) + len(message["changed"])
        self.spans = self.spans[: said["first"]] + spans_in(said)
        for index, each in enumerate(self.spans):
            each.update(some_of(said, index))
        for index, parent in said["moved"].items():
            self.spans[index]["parent"] = parent
        for index, duration, status, ending, parent in message["changed"]:
            self.spans[index] |= {"duration": duration, "status": status, "ending": ending, "parent": parent}


# ── what may happen ─────────────────────────────────────────────────────────────────────────────────────────


def a_span(rnd: random.Random, number: int, *, is_open: bool = False, fails: bool = False) -> Span:
    """The same each time, but whether it has ended and how."""
    chance = random.Random(number)
    attributes: dict[str, AttributeValue] = {"openinference.span.kind": chance.choice(["LLM", "TOOL", "CHAIN"])}
    if is_open:
        attributes["asynctrace.state"] = "open"
    else:
        attributes["llm.token_count.prompt"] = number
    return span(
        1,
        number,
        parent=chance.randint(0, 40),
        name=chance.choice(NAMES),
        start=number * 1000,
        duration=0 if is_open else SECOND + rnd.randint(0, 3) * 1000,
        status=StatusCode.ERROR if fails else StatusCode.UNSET,
        attributes=attributes,
    )


def something_happens(world: World, rnd: random.Random) -> None:
    numbers = [rnd.randint(1, 40) for _ in range(rnd.randint(1, 4))]
    match rnd.randint(0, 9):
        case 0 | 1 | 2:
            world.add(*(a_span(rnd, number) for number in numbers))
        case 3 | 4:
            world.add(*(a_span(rnd, number, is_open=True) for number in numbers))
        case 5:
            world.add(*(a_span(rnd, number, is_open=rnd.random() < 0.5, fails=True) for number in numbers))
        case 6:
            world.now += rnd.choice([1.0, 20.0])
        case 7:
            world.add(a_span(rnd, numbers[0]))
            world.add(a_span(rnd, numbers[-1]))
        case 8:
            world.commit(a_log(world, numbers[0]))
        case _:
            if rnd.random() < 0.2 and world.store.delete(ID):
                world.live.removed(ID)


def a_log(world: World, number: int) -> Received:
    from asynctrace.collector.receiving._logs import scan_logs
    from asynctrace.collector.receiving._scan import Scanner

    record = encode_log(Log(trace_id=ID, span_id=f"{number:016x}", time_ns=int(world.now), body="said"))
    intake = scan_logs(
        Scanner(), length_delimited(b"\x0a", length_delimited(b"\x12", length_delimited(b"\x12", record)))
    )
    return Received(origins=intake.origins, rows=[], logs=intake.logs)


def check_what_is_told_adds_up(
    directory: Path, seeds: Sequence[int], make: Callable[..., SQLiteStore], **options: Any
) -> None:
    for seed in seeds:
        rnd = random.Random(seed)
        with world(directory / str(seed), make, **options) as now:
            listeners = [Listener(), Listener()]
            for _ in range(40):
                something_happens(now, rnd)
                listening = listeners if rnd.random() < 0.2 else listeners[:1]
                for each in listening:
                    each.listen(now)
                if rnd.random() < 0.2 and (said := now.following.skeleton(ID, 0, None)) is not None:
                    assert spans_in(said) == now.truth()
                    listeners[rnd.randint(0, 1)] = Listener(said["version"], spans_in(said))
                if now.view.whole(ID, messages=False) is not None:
                    listeners[0].listen(now)
                    assert listeners[0].spans == now.truth(), f"seed {seed}"


@pytest.mark.parametrize(
    ("make", "options"),
    [(Counted, {}), (Counted, {"segment_size": 1}), (Forgetful, {})],
    ids=["one segment", "a segment for each commit", "a store that cannot tell"],
)
def test_what_is_told_adds_up_to_what_there_is(
    make: Callable[..., SQLiteStore], options: dict[str, Any], tmp_path: Path
) -> None:
    check_what_is_told_adds_up(tmp_path, range(4), make, **options)


# ── no more than what happened ──────────────────────────────────────────────────────────────────────────────

MANY = 3000


def check_only_what_happened_is_read_and_told(directory: Path) -> None:
    with world(directory) as now:
        now.add(a_span(random.Random(1), MANY + 1, is_open=True))
        now.add(*(span(1, number, parent=1, start=number * 1000) for number in range(1, MANY + 1)))
        said = now.following.skeleton(ID, 0, None)
        assert said is not None
        assert isinstance(now.store, Counted)
        page = Listener(said["version"], spans_in(said))
        page.listen(now)
        assert page.heard == 0, "it was read over HTTP just now"
        now.add(span(1, MANY + 2, parent=1), a_span(random.Random(1), MANY + 1))
        late = Listener(said["version"], spans_in(said))  # it begins to listen when something has happened already
        now.store.read = 0
        for each in (page, late):
            each.listen(now)
            assert (each.heard, each.spans) == (2, now.truth())
        assert now.store.read - 2 * (MANY + 2) == 2, "what was known was read again"  # `truth()` reads all, twice


def test_only_what_happened_is_read_and_told(tmp_path: Path) -> None:
    check_only_what_happened_is_read_and_told(tmp_path)


def test_a_trace_that_nobody_looks_at_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_SPANS", 10)
    with world(tmp_path) as now:
        for trace in range(1, 5):
            now.add(*(span(trace, number) for number in range(1, 7)))
            assert now.following.skeleton(f"{trace:032x}", 0, None) is not None
        assert len(now.following._traces) == 2, "the last, and the one before, which was there when that came"


def test_ids_that_nobody_knows_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_TRACES", 3)
    with world(tmp_path) as now:
        for trace in range(1, 9):
            assert now.following.skeleton(f"{trace:032x}", 0, None) is None
        assert len(now.following._traces) == 3


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


BROKEN: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "changes that are not remembered": (following.Followed, "since", lambda self, version: (self.size, [])),
    "parents that are not told": (columns.Numbering, "_adopted", lambda self, span_id: []),
    "tokens that are not told": (
        following,
        "skeleton",
        lambda whole, after, numbering, _=(): skeleton(whole, after, numbering),
    ),
    "spans that end as others did": (following, "mark", lambda whole, index, parent: (index, 0, 0, "ok", parent)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_listener_that_is_told_wrong_things_is_noticed(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*BROKEN[fault])
    with pytest.raises((AssertionError, IndexError, KeyError)):
        check_what_is_told_adds_up(tmp_path, range(6), Counted)


@pytest.mark.parametrize("fault", ["a store that cannot tell", "a listener that is told everything"])
def test_reading_and_telling_too_much_is_noticed(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault.startswith("a store"):
        monkeypatch.setattr(following.Followed, "_add", lambda *_: False)
    else:
        monkeypatch.setattr(following.Followed, "since", lambda *_: (0, []))
    with pytest.raises(AssertionError):
        check_only_what_happened_is_read_and_told(tmp_path)
