"""Values of more than 64 KB: whole for whoever asks; in the file what they have in common once. The format before that."""

from __future__ import annotations

import contextlib
import gzip
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._contracts import AttributeValue, Event, Span
from asynctrace.collector import SQLiteReader, SQLiteStore
from asynctrace.collector._rows import LogRow, Received
from asynctrace.collector.query import parse
from asynctrace.collector.store import Bounds
from asynctrace.collector.store import _large as large
from asynctrace.collector.store._chunk import LOGS, SPANS
from asynctrace.wire import Log, encode_log, encode_span

from ..traffic import START, checkout, group, received, span
from .stores import STORES, Make, opened

FORMAT_2 = Path(__file__).parent / "formats" / "segments-2"
every_store = pytest.mark.parametrize("make", STORES.values(), ids=STORES)


def document(seed: int, size: int) -> str:
    """Text that no compressor makes small."""
    return random.Random(seed).randbytes(size // 2).hex()


def trace_id(number: int) -> str:
    return f"{number:032x}"


# ── apart and together ──────────────────────────────────────────────────────────────────────────────────────

LEAVES = st.one_of(st.text(max_size=60), st.binary(max_size=60), st.integers(-5, 5), st.booleans())
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
ATTRIBUTES: Any = st.dictionaries(st.text(max_size=5), VALUES, max_size=3)


def a_span(attributes: dict[str, AttributeValue], of_event: dict[str, AttributeValue]) -> bytes:
    return encode_span(span(attributes=attributes, events=(Event(time_ns=1, name="e", attributes=of_event),)))


def a_log(attributes: dict[str, AttributeValue], body: dict[str, AttributeValue]) -> bytes:
    return encode_log(Log(trace_id="1" * 32, body=body, attributes=attributes))


def check_nothing_is_lost(messages: list[bytes], kind: int) -> int:
    """How many blocks were taken out."""
    body, pieces = large.take_apart(messages, kind)
    assert large.put_together(body, pieces) == b"".join(messages)
    assert len(body) + sum(len(piece) for _, piece in pieces) == len(b"".join(messages))
    return len(pieces)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ATTRIBUTES, ATTRIBUTES), max_size=4))
def test_what_is_taken_apart_can_be_put_together(
    parts: list[tuple[dict[str, AttributeValue], dict[str, AttributeValue]]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "LARGE", 12)
        patch.setattr(large, "BLOCK", 5)
        check_nothing_is_lost([a_span(*each) for each in parts], SPANS)
        check_nothing_is_lost([a_log(*each) for each in parts], LOGS)


@pytest.mark.parametrize("where", ["attribute", "bytes", "array", "map", "event", "log body", "log attribute"])
def test_large_values_are_found_wherever_they_are(where: str) -> None:
    text = document(1, 5 * large.LARGE)
    value: AttributeValue = {"bytes": text.encode(), "array": ["a", text], "map": {"a": {"b": text}}}.get(where, text)
    if where.startswith("log"):
        message = a_log({"k": value}, {}) if where.endswith("attribute") else a_log({}, {"k": value})
    else:
        message = a_span({}, {"k": value}) if where == "event" else a_span({"k": value}, {})
    found = check_nothing_is_lost([b"no message", message, message], LOGS if where.startswith("log") else SPANS)
    assert found == 2 * (len(text) // large.BLOCK)


def test_small_values_stay_where_they_are() -> None:
    text = document(1, large.LARGE)
    assert check_nothing_is_lost([a_span({"a": text, "b": text, "c": text}, {})], SPANS) == 0


# ── in a store ──────────────────────────────────────────────────────────────────────────────────────────────


def talk(trace: int, calls: int, seed: int = 5) -> list[Span]:
    """Each call says what the one before said, and more."""
    said = document(seed, 3 * large.LARGE)
    spans = []
    for number in range(1, calls + 1):
        said += document(seed + number, 4000)
        spans.append(span(trace, number, start=number, attributes={"input.value": said, "n": number}))
    return spans


def check_large_values_come_back(make: Make, directory: Path) -> None:
    spans = talk(1, 6)
    body = encode_log(Log(trace_id=trace_id(1), span_id=f"{1:016x}", body=document(9, 3 * large.LARGE), time_ns=START))
    row = LogRow(bytes.fromhex(trace_id(1)), bytes.fromhex(f"{1:016x}"), START, 0, 0, body)
    with opened(make, directory) as store:
        for each in spans:
            store.add([received(group(each))])
        store.add([Received(origins=received(checkout()).origins, rows=[], logs=[row])])
        assert store.trace(trace_id(1)) == [group(*spans)]
        found = store.span_of(trace_id(1), spans[0].span_id)
        assert found is not None
        assert ([each.message for each in found.rows], [each.message for each in found.logs]) == (
            [encode_span(spans[0])],
            [body],
        )
        last: Any = spans[-1].attributes["input.value"]
        for word in (last[:50], last[70_000:70_050], last[-50:]):
            assert len(store.search(parse(f"input:{word}"), 9).traces) == 1
        assert store.search(parse(f"input:{document(77, 50)}"), 9).traces == ()


@every_store
def test_large_values_come_back_whole(make: Make, tmp_path: Path) -> None:
    check_large_values_come_back(make, tmp_path)


def blocks_of(directory: Path) -> tuple[int, int]:
    """How many blocks there are, and how many places they belong to."""
    with contextlib.closing(sqlite3.connect(directory / "seg-000001.db")) as file:
        (kept,) = file.execute("SELECT count(*) FROM large").fetchone()
        (places,) = file.execute("SELECT count(*) FROM apart").fetchone()
        return kept, places


def check_what_is_common_is_there_once(directory: Path) -> None:
    calls = 8
    with opened(SQLiteStore, directory) as store:
        for trace in (1, 2):  # the second says the same as the first
            for each in talk(trace, calls):
                store.add([received(group(each))])
        size = 3 * large.LARGE + calls * 4000
        kept, places = blocks_of(directory)
        assert kept <= size // large.BLOCK
        assert places > 10 * kept


def test_what_large_values_have_in_common_is_there_once(tmp_path: Path) -> None:
    check_what_is_common_is_there_once(tmp_path)


def check_deleting_takes_what_nobody_else_has(directory: Path) -> None:
    with opened(SQLiteStore, directory) as store:
        common = document(1, 2 * large.LARGE)
        store.add([received(group(span(1, attributes={"a": common, "b": document(2, 2 * large.LARGE)})))])
        store.add([received(group(span(2, attributes={"a": common})))])
        before = store.trace(trace_id(2))
        assert blocks_of(directory) == (16, 24)
        store.delete(trace_id(1))
        assert blocks_of(directory) == (8, 8), "what only the deleted trace had is still there"
        assert store.trace(trace_id(2)) == before
        store.delete(trace_id(2))
        assert blocks_of(directory) == (0, 0)
        assert document(2, 2 * large.LARGE)[:100].encode() not in (directory / "seg-000001.db").read_bytes()


def test_what_only_a_deleted_trace_had_is_taken_away(tmp_path: Path) -> None:
    check_deleting_takes_what_nobody_else_has(tmp_path)


def test_a_pinned_trace_takes_its_large_values_along(tmp_path: Path) -> None:
    clock = [1e9]
    with contextlib.closing(SQLiteStore(tmp_path, bounds=Bounds(age=60.0), time=lambda: clock[0])) as store:
        store.add([received(group(*talk(1, 3)))])
        store.add([received(group(*talk(2, 3)))])
        store.pin(trace_id(1))
        clock[0] += 1000
        store.add([received(checkout(3))])
        store.sweep()
        assert store.trace(trace_id(1)) == [group(*talk(1, 3))]
        assert store.trace(trace_id(2)) == []


# ── the format before ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store that a collector of format 2 wrote: a checkout and one span more, and a pinned trace of a bank."""
    for packed in FORMAT_2.iterdir():
        (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return tmp_path


def version(directory: Path) -> int:
    with contextlib.closing(sqlite3.connect(directory / "seg-000001.db")) as file:
        found: int = file.execute("PRAGMA user_version").fetchone()[0]
        return found


def check_what_was_there(store: SQLiteReader) -> None:
    first, *others = checkout().spans
    assert store.trace(trace_id(1)) == [group(first, span(1, 4, parent=1, name="late"), *others)]
    assert store.trace(trace_id(2)) == [group(span(2, 1, name="other", attributes={"n": 2}), service="bank")]
    assert [run.pinned for run in store.search(parse("attr.n=2"), 9).traces] == [True]


def test_a_reader_reads_a_file_of_format_2_as_it_is(old: Path) -> None:
    check_what_was_there(SQLiteReader(old))
    assert version(old) == 2


def test_a_file_of_format_2_is_written_on(old: Path) -> None:
    more = group(*talk(3, 2), schemas=("https://example.org/1", ""))
    with opened(SQLiteStore, old) as store:
        assert version(old) == 3
        store.add([received(more)])
        store.add([received(group(span(1, 5, parent=1)))])
        assert store.trace(trace_id(3)) == [more]
        assert store.spans_of(trace_id(1)).summary.spans == 5  # type: ignore[union-attr]
        store.delete(trace_id(1))
    check_after = SQLiteReader(old)
    assert check_after.trace(trace_id(1)) == []
    assert check_after.trace(trace_id(3)) == [more]


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "broken", "check"),
    [
        ("read_pieces", lambda connection, chunk: [], check_large_values_come_back),
        ("put_together", lambda body, pieces: body, check_large_values_come_back),
    ],
)
def test_values_that_stay_apart_are_noticed(
    name: str,
    broken: Callable[..., Any],
    check: Callable[[Make, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"asynctrace.collector.store._segments.{name}", broken)
    with pytest.raises((AssertionError, ValueError)):
        check(SQLiteStore, tmp_path)


def test_values_as_one_block_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(message: bytes, kind: int) -> list[tuple[int, int]]:
        return list(large._values(message, 0, len(message), "span")) if len(message) > large.LARGE else []

    monkeypatch.setattr(large, "_blocks", blocks)
    check_large_values_come_back(SQLiteStore, tmp_path / "whole")
    with pytest.raises(AssertionError):
        check_what_is_common_is_there_once(tmp_path / "once")


@pytest.mark.parametrize("broken", ["SELECT :first, :last", large.FORGET.partition("AND NOT EXISTS")[0]])
def test_deleting_too_little_and_too_much_are_noticed(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "FORGET", broken)
    with pytest.raises(AssertionError):
        check_deleting_takes_what_nobody_else_has(tmp_path)
