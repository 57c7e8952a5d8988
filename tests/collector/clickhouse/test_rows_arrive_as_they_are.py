"""What is written in the format Native is what ClickHouse reads."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from asynctrace.collector._rows import Facts, LogRow, Origin, Received, SpanRow
from asynctrace.collector.clickhouse import ClickHouseStore
from asynctrace.collector.clickhouse import _native as native
from asynctrace.collector.clickhouse._blocks import origin_of
from asynctrace.collector.clickhouse._native import block, floats, integers, messages, texts, token_lists

from ...clickhouse_server import shared

NO_SEARCH = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not for the smallest example that fails: each asks a server."""
TEXTS = st.text(max_size=300) | st.text("ab\0é\U0001f600\ud800", max_size=20000)
TOKENS = st.lists(st.binary(min_size=8, max_size=8), max_size=4)
NUMBERS = st.integers(-(2**66), 2**66)
ROWS = st.lists(
    st.tuples(st.binary(max_size=40), TEXTS, NUMBERS, st.floats(allow_nan=False), TOKENS), min_size=1, max_size=20
)
EXAMPLES = itertools.count()
Row = tuple[bytes, str, int, float, list[bytes]]


@pytest.fixture(scope="module")
def store() -> ClickHouseStore:
    """One for all examples."""
    made = ClickHouseStore(shared().database("rows arrive"))
    made._client.change(
        "CREATE TABLE IF NOT EXISTS seen (example UInt32, n UInt32, message String, text String, number UInt64, "
        "signed Int64, small Int32, amount Float64, tokens Array(UInt64)) ENGINE = Memory"
    )
    return made


def check_values_arrive(store: ClickHouseStore, rows: list[Row]) -> None:
    example = next(EXAMPLES)
    bodies, written, numbers, amounts, tokens = zip(*rows, strict=True)
    columns = [
        ("example", "UInt32", integers("I", [example] * len(rows))),
        ("n", "UInt32", integers("I", range(len(rows)))),
        ("message", "String", messages(bodies)),
        ("text", "String", texts(written)),
        ("number", "UInt64", integers("Q", numbers)),
        ("signed", "Int64", integers("q", numbers)),
        ("small", "Int32", integers("i", numbers)),
        ("amount", "Float64", floats(amounts)),
        ("tokens", "Array(UInt64)", token_lists(tokens)),
    ]
    store._client.insert("INSERT INTO seen FORMAT Native", block(len(rows), columns))
    answer = store._client.ask(
        "SELECT hex(message), hex(text), number, signed, small, amount, tokens "
        f"FROM seen WHERE example = {example} ORDER BY n FORMAT JSONCompactEachRow",
        settings={"output_format_json_quote_64bit_integers": 0},
    )
    found = [msgspec.json.decode(line) for line in answer.splitlines()]
    for row, (body, text, number, amount, some) in zip(found, rows, strict=True):
        assert bytes.fromhex(row[0]) == body
        assert bytes.fromhex(row[1]).decode() == text.encode("utf-8", "replace").decode()
        assert row[2] == max(0, min(number, 2**64 - 1))
        assert row[3] == max(-(2**63), min(number, 2**63 - 1))
        assert row[4] == max(-(2**31), min(number, 2**31 - 1))
        assert row[5] is None or float(row[5]) == amount  # JSON knows no infinity
        assert row[6] == [int.from_bytes(each, "little") for each in some]


@settings(max_examples=20, phases=NO_SEARCH)
@given(rows=ROWS)
def test_values_of_every_kind_arrive_as_they_are_or_cut(store: ClickHouseStore, rows: list[Row]) -> None:
    check_values_arrive(store, rows)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_lengths_of_every_number_of_bytes_arrive(size: int, store: ClickHouseStore) -> None:
    check_values_arrive(store, [(b"x" * size, "é" * (size // 2), size, 0.5, [b"12345678"] * (size % 1000))])


SHORT = st.text(max_size=5)
COUNTS = st.integers(0, 2**32 - 1)
AMOUNTS = st.integers(-(2**63), 2**63 - 1)
FACTS = st.builds(
    Facts, tokens=st.just(()), ending=SHORT, type=SHORT, input=st.just(""), output=st.just(""), session=SHORT, user=SHORT,
    model=SHORT, input_tokens=AMOUNTS, output_tokens=AMOUNTS, cost=st.floats(allow_nan=False, allow_infinity=False),
    is_open=st.just(False), events=COUNTS, links=COUNTS, dropped=AMOUNTS,
)  # fmt: skip


@settings(max_examples=5, phases=NO_SEARCH)
@given(facts=st.lists(FACTS, min_size=1, max_size=5))
def test_facts_of_every_span_arrive(store: ClickHouseStore, facts: list[Facts]) -> None:
    store.delete("0" * 31 + "5")
    rows = [
        SpanRow(
            b"\0" * 15 + b"\5", bytes((0, 0, 0, 0, 0, 0, 1, n)), b"", "name", 3, 2**64 - 2, 2**64 - 1, 2, 0, b"m", each
        )
        for n, each in enumerate(facts)
    ]
    origin = Origin(b"resource", b"scope", "service", resource_schema="https://x/1", scope_schema="https://x/2")
    store.add([Received(origins=[origin], rows=rows, logs=[LogRow(b"\0" * 15 + b"\5", b"", 2**64 - 1, 9, 0, b"log")])])
    found = store.spans_of("0" * 31 + "5")
    assert found is not None
    assert [row.facts for row in found.rows] == [*map(legible, facts)]
    assert [(row.start_ns, row.end_ns) for row in found.rows] == [(2**64 - 2, 2**64 - 1)] * len(rows)
    assert [(each.time_ns, each.message) for each in found.logs] == [(2**64 - 1, b"log")]
    assert found.origins == [origin]


def legible(facts: Facts) -> Facts:
    """As UTF-8 has it."""
    texts = {
        key: value.encode("utf-8", "replace").decode()
        for key, value in facts._asdict().items()
        if isinstance(value, str)
    }
    return facts._replace(**texts)


def test_an_origin_has_one_name_and_no_other_has_it() -> None:
    plain = [Origin(b"ab", b"c"), Origin(b"a", b"bc"), Origin(b"abc", b""), Origin(b"", b"abc"), Origin(b"", b"")]
    schemas = [("a", ""), ("", "a"), ("a", "b"), ("ab", "")]
    some = [*plain, *(Origin(b"", b"", resource_schema=one, scope_schema=other) for one, other in schemas)]
    assert len({origin_of(each) for each in some}) == len(some)
    assert origin_of(Origin(b"ab", b"c")).hex() == origin_of(Origin(b"ab", b"c", "other", (b"12345678",))).hex()


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


def test_numbers_that_wrap_around_are_caught(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(native.WIDTHS, "i", (-5, 5))
    with pytest.raises(AssertionError):
        check_values_arrive(store, [(b"", "", 2**40, 0.0, [])])


def test_lengths_in_one_byte_are_caught(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_length", lambda content: bytes([len(content) & 0x7F]))
    with pytest.raises((AssertionError, ValueError, Exception)):
        check_values_arrive(store, [(b"x" * 200, "", 0, 0.0, [])])
