"""The scanner against `opentelemetry-proto`: the same spans, the same values, the same judgement of what is no OTLP.

A promise is a function `check_…(scanner)`; the last tests give it scanners with a fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2

from asynctrace import WireError
from asynctrace._contracts import Span
from asynctrace.collector._rows import EMPTY, Facts, SpanRow
from asynctrace.collector.receiving import _attributes as attributes
from asynctrace.collector.receiving import _scan as scan
from asynctrace.collector.receiving._attributes import Attributes, before_text
from asynctrace.collector.receiving._dialects import RULES, facts_from, know_by, know_event, rules_for
from asynctrace.collector.receiving._intake import Intake, TooMany
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.wire import ResourceSpans, decode_resource, encode_any_value, length_delimited

from ..wire import _official as official

KNOWN_KEYS = [key for key in RULES if key not in ("asynctrace.state", "logfire.span_type")]
"""Of the dialects; notices of open spans have tests of their own."""

conversations = st.sampled_from(
    [
        '[{"role":"user","content":"hi"}]',
        '{"messages":[{"role":"user","content":[{"text":"a"}]}]}',
        '{"role"',
        "0.5",
        "7",
    ]
)
spoken = st.dictionaries(
    st.sampled_from([*KNOWN_KEYS, "gen_ai.prompt.0.content", "gen_ai.prompt.1.content"]),
    official.values | conversations,
    max_size=5,
)
spans = st.builds(
    lambda span, said, code: msgspec.structs.replace(span, attributes={**said, **span.attributes}, status_message=code),
    official.spans,
    spoken,
    st.sampled_from(["", "", "no"]),
)
plain = st.builds(
    lambda span: msgspec.structs.replace(
        span, trace_state="", dropped_attributes=0, dropped_events=0, dropped_links=0, status_message=""
    ),
    spans,
)
"""Of the shape that the scanner reads without help."""
group = st.builds(
    ResourceSpans,
    resource=official.resources,
    scope=official.scopes,
    spans=st.lists(plain | spans, max_size=3).map(tuple),
)
groups = st.lists(group, max_size=2)
some_groups = st.lists(group, min_size=1, max_size=2)


# ── what must be ────────────────────────────────────────────────────────────────────────────────────────────


def wanted(request: ExportTraceServiceRequest) -> tuple[list[Any], int]:
    """What the rows have to say, and how many spans OTLP calls invalid."""
    said, rejected = [], 0
    for outer in request.resource_spans:
        for inner in outer.scope_spans:
            for span in inner.spans:
                if is_valid(span):
                    said.append((outer.resource, inner.scope, span, official.span_of(span), facts_of(span)))
                else:
                    rejected += 1
    return said, rejected


def is_valid(span: trace_pb2.Span) -> bool:
    return (
        (len(span.trace_id), len(span.span_id)) == (16, 8)
        and any(span.trace_id)
        and any(span.span_id)
        and len(span.parent_span_id) in (0, 8)
    )


def facts_of(message: trace_pb2.Span) -> Facts:
    span = official.span_of(message)
    known = [know_by(key, rules_for(key), value) for key, value in span.attributes.items()]
    found = [finding for _, each in known for finding in each]
    found += [finding for event in span.events for finding in know_event(event.name, event.attributes)]
    return facts_from(tuple(token for each, _ in known for token in each), found, len(span.events), len(span.links))


def got(intake: Intake) -> list[Any]:
    return [
        (
            Resource.FromString(intake.origins[row.origin].resource),
            InstrumentationScope.FromString(intake.origins[row.origin].scope),
            trace_pb2.Span.FromString(row.message),
            row,
            row.facts,
        )
        for row in intake.rows
    ]


def check_rows(read: Callable[[bytes], Intake], body: bytes) -> None:
    """Our reading of `body` is the official one."""
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        assert not is_taken_whole(read, body), "taken, and it is no OTLP"
        return
    said, rejected = wanted(request)
    intake = read(body)
    assert intake.rejected == rejected, intake.reason
    for ours, theirs in zip(got(intake), said, strict=True):
        assert ours[:3] == theirs[:3] or "nan" in str(ours[:3])
        check_row(ours[3], theirs[3])
        assert official.exact(unordered(ours[4])) == official.exact(unordered(theirs[4]))


def unordered(facts: Facts) -> list[Any]:
    return [sorted(set(facts.tokens)), *facts[1:]]


def is_taken_whole(read: Callable[[bytes], Intake], body: bytes) -> bool:
    try:
        return not read(body).rejected
    except WireError:
        return False


def check_row(row: SpanRow, span: Span) -> None:
    assert row.trace_id.hex() == span.trace_id
    assert row.span_id.hex() == span.span_id
    assert row.parent_id.hex() == ("" if span.parent_id == "0" * 16 else span.parent_id)
    assert (row.name, row.kind, row.status) == (span.name, span.kind, span.status)
    assert (row.start_ns, row.end_ns) == (span.start_ns, span.end_ns)


# ── any request ─────────────────────────────────────────────────────────────────────────────────────────────


SCANNER = Scanner()
"""One for all examples: what it remembers of one must not change another."""


@given(groups)
@settings(max_examples=80, deadline=None)
def test_requests_of_the_official_encoder(read: list[ResourceSpans]) -> None:
    body = official.official_request(read).SerializeToString()
    check_rows(SCANNER.request, body)
    check_rows(SCANNER.request, body)  # and once more, out of memory


def in_any_order(message: Any, chance: random.Random) -> bytes:
    """The same message with its fields in another order, every submessage too, and unknown fields between them."""
    parts = []
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            single = type(message)()
            if field.message_type is None:
                getattr(single, field.name).append(one) if field.is_repeated else setattr(single, field.name, one)
                parts.append(single.SerializeToString())
            else:
                content = in_any_order(one, chance)
                parts.append(tag_of(field.number) + varint(len(content)) + content)
    parts += chance.sample([b"\xf8\x06\x01", b"\xfa\x06\x02hi", b"\xfd\x06abcd", b"\xf9\x06abcdefgh"], 1)
    chance.shuffle(parts)
    return b"".join(parts)


def tag_of(number: int) -> bytes:
    return varint(number << 3 | 2)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(groups, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_fields_in_any_order_with_unknown_ones_between_them(read: list[ResourceSpans], seed: int) -> None:
    body = in_any_order(official.official_request(read), random.Random(seed))
    check_rows(SCANNER.request, body)


@given(some_groups, st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=3)), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_requests_with_changed_bytes(read: list[ResourceSpans], changes: list[tuple[int, bytes]]) -> None:
    body = official.official_request(read).SerializeToString()
    for place, noise in changes:
        place %= len(body) + 1
        body = body[:place] + noise + body[place + len(noise) :]
    check_rows(SCANNER.request, body)


@given(some_groups, st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_request_that_is_cut_anywhere(read: list[ResourceSpans], place: int) -> None:
    body = official.official_request(read).SerializeToString()
    check_rows(SCANNER.request, body[: place % len(body)])


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_bytes(body: bytes) -> None:
    check_rows(SCANNER.request, body)


# ── one span ────────────────────────────────────────────────────────────────────────────────────────────────


def usual() -> trace_pb2.Span:
    """A span as SDKs send it."""
    span = trace_pb2.Span(
        trace_id=bytes(range(16)), span_id=b"12345678", parent_span_id=b"87654321", name="chat", kind=3, flags=256
    )
    span.start_time_unix_nano, span.end_time_unix_nano = 1_700_000_000_000_000_000, 1_700_000_001_000_000_000
    attributes = {
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.input_tokens": 812,
        "input.value": "é" * 300,
        "n": 70_000,
    }
    span.attributes.extend(official.official_attributes(attributes))
    span.status.code = 1  # type: ignore[assignment]
    return span


def body_of(*messages: bytes) -> bytes:
    framed = b"".join(b"\x12" + varint(len(message)) + message for message in messages)
    scope = b"\x12" + varint(len(framed)) + framed
    return b"\x0a" + varint(len(scope)) + scope


def check_the_usual_shape(read: Callable[[bytes], Intake]) -> None:
    check_rows(read, body_of(usual().SerializeToString()))


def test_a_span_as_sdks_send_it_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_the_usual_shape(Scanner().request)
    monkeypatch.delattr(scan, "decode_span")
    check_the_usual_shape(Scanner().request)


@pytest.mark.parametrize(
    "change",
    [
        {"trace_id": bytes(16)},
        {"trace_id": b"short"},
        {"trace_id": b""},
        {"span_id": bytes(8)},
        {"span_id": b"ninebytes"},
        {"parent_span_id": b"7bytes!"},
        {"parent_span_id": bytes(8)},
        {"parent_span_id": b""},
        {"parent_span_id": b"12345678"},
        {"name": ""},
        {"name": "n" * 127},
        {"name": "n" * 128},
        {"name": "é"},
        {"kind": 0},
        {"kind": 77},
        {"start_time_unix_nano": 0},
        {"end_time_unix_nano": 0},
        {"end_time_unix_nano": 1},
        {"start_time_unix_nano": 2**64 - 1, "end_time_unix_nano": 2**64 - 1},
        {"trace_state": "a=b"},
        {"flags": 0},
        {"dropped_attributes_count": 3},
    ],
    ids=str,
)
def test_spans_of_which_one_thing_is_unusual(change: dict[str, Any]) -> None:
    span = usual()
    for name, value in change.items():
        setattr(span, name, value)
    check_rows(SCANNER.request, body_of(usual().SerializeToString(), span.SerializeToString()))


@pytest.mark.parametrize("place", range(0, len(usual().SerializeToString()), 3))
def test_a_span_with_a_changed_byte_spoils_no_other(place: int) -> None:
    good = usual().SerializeToString()
    for byte in (0x00, 0x7F, 0x80, 0xFF):
        bad = good[:place] + bytes([byte]) + good[place + 1 :]
        intake = SCANNER.request(body_of(good, bad, good))
        assert len(intake.rows) + intake.rejected == 3
        assert [row.message for row in intake.rows].count(good) >= 2
        check_rows(SCANNER.request, body_of(bad))


def attribute(key: bytes, value: bytes) -> bytes:
    """With a text as value."""
    text = b"\x0a" + varint(len(value)) + value
    return b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(text)) + text


def in_two_bytes(number: int) -> bytes:
    """A small number, in one byte more than it needs."""
    return bytes([number | 0x80, 0])


def without_flags() -> bytes:
    """A span as SDKs send it, to which attributes can be added."""
    span = usual()
    span.ClearField("flags")
    return span.SerializeToString()


def check_lengths_in_more_bytes_than_they_need(read: Callable[[bytes], Intake]) -> None:
    for content in (attribute(b"session.id", b"s1"), attribute(b"session.id", b"s2"), b"\xff\xff"):
        wide = b"\x4a" + in_two_bytes(len(content)) + content
        bare = usual().SerializeToString()[:64]
        check_rows(read, body_of(bare + wide))
        check_rows(read, body_of(without_flags() + wide))


def test_lengths_in_more_bytes_than_they_need() -> None:
    check_lengths_in_more_bytes_than_they_need(Scanner().request)


@pytest.mark.parametrize("flags", ["8501", "858100", "8502", "8581", "85010000000000"])
@pytest.mark.parametrize("padding", range(7))
def test_flags_and_what_looks_like_them(flags: str, padding: int) -> None:
    """A tag that is longer than it needs to be, that of another field, and one that is cut."""
    check_rows(SCANNER.request, body_of(without_flags() + bytes.fromhex(flags) + bytes(padding)))


def check_lengths_of_three_bytes(read: Callable[[bytes], Intake]) -> None:
    """Of a text under a known key: what is there; and more, where the first two bytes alone would be right."""
    head = attribute(b"input.value", b"")[:-4] + b"\x12"
    text = b"\x0a\xfd\x7f" + b"a" * 0x3FFD
    for content in (head + b"\x80\x80\x01" + text, head + b"\x80\x80" + text):
        check_rows(read, body_of(without_flags() + b"\x4a" + varint(len(content)) + content))


def test_lengths_of_three_bytes() -> None:
    check_lengths_of_three_bytes(Scanner().request)


def check_memory_is_bounded(memory: Attributes) -> None:
    scanner = Scanner(memory)
    for number in range(40):
        span = usual()
        span.attributes.extend(official.official_attributes({"m": number, "several": [number, number + 1]}))
        check_rows(scanner.request, body_of(span.SerializeToString(), span.SerializeToString()))
        assert max(map(len, (memory.known, memory._earlier, memory._others))) <= 8


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "MOST_REMEMBERED", 8)
    check_memory_is_bounded(Attributes())


def test_an_attribute_that_says_several_things_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "MOST_REMEMBERED", 2)  # one that is found needs no room
    span = usual()
    del span.attributes[:]
    span.attributes.extend(official.official_attributes({"several": [1, 2], "others": ["a", "b"]}))
    scanner = Scanner()
    check_rows(scanner.request, body_of(span.SerializeToString()))
    monkeypatch.delattr(attributes, "decode_attribute")
    check_rows(scanner.request, body_of(span.SerializeToString()))
    check_rows(scanner.request, body_of(span.SerializeToString()))


def test_a_text_stands_behind_its_lengths() -> None:
    sizes = {len(length_delimited(b"\x12", encode_any_value("a" * length))): length for length in range(17_000)}
    for size in range(max(sizes) + 1):
        before = before_text(size)
        if size in sizes:
            text = "a" * sizes[size]
            assert before is not None
            assert before + text.encode() == length_delimited(b"\x12", encode_any_value(text))
        else:
            assert before is None, size


def test_more_spans_than_are_cut_out_together() -> None:
    span = usual()
    messages = []
    for number in range(2 * scan.TOGETHER + 1):
        span.span_id = number.to_bytes(8, "big")  # the first is refused
        messages.append(span.SerializeToString())
    check_rows(Scanner().request, body_of(*messages))


MOST_TOGETHER = 256


class CountsThem(Scanner):
    most = 0

    def spans(self, messages: Iterable[bytes], origin: int, intake: Intake) -> None:
        together = [*messages]
        self.most = max(self.most, len(together))
        super().spans(together, origin, intake)


def check_few_are_cut_out_together() -> None:
    """Also of those whose tag is longer than it needs to be: what is not counted yet is bounded."""
    framed = b"\x12\x00" * (MOST_TOGETHER - 1) + b"\x92\x00\x00" + b"\x12\x00" * MOST_TOGETHER
    scanner = CountsThem()
    intake = scanner.request(length_delimited(b"\x0a", length_delimited(b"\x12", framed)))
    assert intake.rejected == 2 * MOST_TOGETHER
    assert scanner.most <= MOST_TOGETHER


def test_few_are_cut_out_together() -> None:
    check_few_are_cut_out_together()


def test_a_scanner_that_cuts_all_of_them_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "TOGETHER", 10**9)
    with pytest.raises(AssertionError):
        check_few_are_cut_out_together()


def test_a_status_that_comes_twice() -> None:
    for first, second in ((1, 2), (2, 1), (0, 2), (2, 0), (1, 1)):
        for flags in (b"", b"\x85\x01\x01\x01\x00\x00"):
            twice = b"".join(b"\x7a\x02\x18" + bytes([status]) for status in (first, second))
            check_rows(SCANNER.request, body_of(without_flags() + twice + flags))


def test_parts_are_counted_alike_however_often_they_were_seen() -> None:
    span = usual()
    span.attributes.extend(official.official_attributes({"several": [1, 2, 3], "none": [], "long": "a" * 200}))
    span.events.add(name="e").attributes.extend(official.official_attributes({"a": 1}))
    span.links.add(trace_id=bytes(16), span_id=bytes(8))
    body, scanner = body_of(span.SerializeToString()), Scanner()
    assert [scanner.request(body).parts for _ in range(3)] == [1 + 1 + 1 + 7 + 2 + 1] * 3


def many_scopes(size: int, scopes: int) -> bytes:
    attributes = b"".join(
        length_delimited(b"\x0a", attribute(b"k%d" % number, b"v" * 40)) for number in range(size // 56)
    )
    resource = length_delimited(b"\x0a", attributes)
    each = (
        length_delimited(b"\x12", length_delimited(b"\x0a", length_delimited(b"\x0a", b"%d" % n)))
        for n in range(scopes)
    )
    return length_delimited(b"\x0a", resource + b"".join(each))


def test_a_large_resource_of_many_scopes_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    body = many_scopes(2 * scan.LARGEST_ORIGIN, 100)
    scanner, read = Scanner(), []
    monkeypatch.setattr(scan, "decode_resource", lambda resource: read.append(resource) or decode_resource(resource))
    first, *others = scanner.request(body).origins
    assert len(read) == 1
    assert len(others) == 99
    assert all(other.tokens is first.tokens for other in others)


def check_a_large_resource_counts() -> None:
    assert len(Scanner().request(many_scopes(100_000, 500)).origins) == 500
    with pytest.raises(TooMany):
        Scanner().request(many_scopes(1_000_000, 70))


def test_a_large_resource_counts_for_each_of_its_scopes() -> None:
    check_a_large_resource_counts()


def test_a_resource_that_counts_for_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PART_OF_A_RESOURCE", 10**9)
    with pytest.raises(pytest.fail.Exception):
        check_a_large_resource_counts()


def test_a_resource_without_spans_is_looked_at_too() -> None:
    check_rows(SCANNER.request, b"\x0a\x02\x0a\x00")
    check_rows(SCANNER.request, b"\x0a\x04\x0a\x02\x0a\x05")
    check_rows(SCANNER.request, b"\x0a\x03\x1a\x01\x80")
    check_rows(SCANNER.request, b"\x0a\x05\x12\x03\x1a\x01\x80")


def test_a_span_without_attributes_shares_the_empty_facts() -> None:
    span = usual()
    del span.attributes[:]
    (row,) = SCANNER.request(body_of(span.SerializeToString())).rows
    assert row.facts is EMPTY


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


class KnowsThemByTheirKeys(Attributes):
    """Remembers what the first attribute with a key said."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[bytes, Any] = {}

    def learn(self, field: bytes) -> Any:
        return self._said.setdefault(field[: field[3] + 4][2:], super().learn(field))


class ReadsThemByTheirKeys(Attributes):
    """Answers with what the first attribute with a key said, where it is not remembered by its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[bytes, Any] = {}

    def read(self, content: bytes) -> Any:
        return self._said.setdefault(content[: content[1] + 2], super().read(content))


class TakesLongOnesUnseen(Attributes):
    def read(self, content: bytes) -> Any:
        try:
            return super().read(content)
        except WireError:
            return (), ()


class ForgetsNothing(Attributes):
    def _remember(self, field: bytes, remembered: attributes.Remembered) -> None:
        self.known[field] = remembered


class TakesSpansUnseen(Scanner):
    """Does not look at what it does not need."""

    def spans(self, messages: Iterable[bytes], origin: int, intake: Intake) -> None:
        for message in messages:
            kept = Intake()
            super().spans([message[:64]], origin, kept)
            intake.rows += [row._replace(message=message, status=1) for row in kept.rows]


class KeepsQuietAboutWhatIsWrong(Scanner):
    def spans(self, messages: Iterable[bytes], origin: int, intake: Intake) -> None:
        kept = Intake()
        super().spans(messages, origin, kept)
        intake.rows += kept.rows


class ForgetsTheLastOnes(Scanner):
    """Reads spans only when enough are together."""

    def spans(self, messages: Iterable[bytes], origin: int, intake: Intake) -> None:
        together = [*messages]
        if len(together) == scan.TOGETHER:
            super().spans(together, origin, intake)


class ReadsTheFirstScopeOnly(Scanner):
    def request(self, body: bytes) -> Intake:
        intake = super().request(body)
        intake.rows = [row for row in intake.rows if row.origin == 0]
        return intake


def two_scopes() -> bytes:
    return body_of(usual().SerializeToString()) * 2


def other_values() -> bytes:
    span = usual()
    span.attributes[1].value.int_value = 4
    return body_of(usual().SerializeToString(), span.SerializeToString())


@pytest.mark.parametrize(
    ("broken", "body"),
    [
        (lambda: Scanner(KnowsThemByTheirKeys()), other_values()),
        (ForgetsTheLastOnes, body_of(usual().SerializeToString())),
        (TakesSpansUnseen, body_of(usual().SerializeToString())),
        (TakesSpansUnseen, body_of(usual().SerializeToString()[:-8] + b"\xff" * 8)),
        (
            KeepsQuietAboutWhatIsWrong,
            body_of(usual().SerializeToString()[:2] + bytes(16) + usual().SerializeToString()[18:]),
        ),
        (ReadsTheFirstScopeOnly, two_scopes()),
    ],
)
def test_a_scanner_with_a_fault_is_caught(broken: Callable[[], Scanner], body: bytes) -> None:
    check_rows(Scanner().request, body)
    with pytest.raises((AssertionError, ValueError)):
        check_rows(broken().request, body)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (ReadsThemByTheirKeys, check_lengths_in_more_bytes_than_they_need),
        (TakesLongOnesUnseen, check_lengths_of_three_bytes),
    ],
)
def test_a_scanner_that_misreads_lengths_is_caught(
    broken: type[Attributes], check: Callable[[Callable[[bytes], Intake]], None]
) -> None:
    check_the_usual_shape(Scanner(broken()).request)
    with pytest.raises(AssertionError):
        check(Scanner(broken()).request)


def test_a_scanner_that_forgets_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "MOST_REMEMBERED", 8)
    with pytest.raises(AssertionError):
        check_memory_is_bounded(ForgetsNothing())
