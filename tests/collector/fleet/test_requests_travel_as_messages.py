"""A request becomes a message and rows again: what is good travels as it came, and nothing good is lost on the way."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from asynctrace._contracts import Resource, Scope, StatusCode
from asynctrace.collector._keys import RequestKey
from asynctrace.collector._rows import Received
from asynctrace.collector.fleet import _requests as requests
from asynctrace.collector.receiving import Refused, Sent
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.collector.receiving._signals import JSON, PROTOBUF, READERS, Signal
from asynctrace.stream import Message
from asynctrace.wire import (
    Log,
    encode_log,
    encode_request,
    encode_resource,
    encode_scope,
    encode_span,
    frame,
    json_request,
)

from ..traffic import COMPRESSORS, START, checkout, group, protobuf, span
from ..traffic import received as rows_of

KEY = RequestKey("6f1f5a52-0000-4000-8000-000000000001", 7, 3)


def read(sent: Sent, key: RequestKey | None = None) -> Received:
    """As receiving reads it, without compression."""
    intake = READERS[sent.signal, sent.content_type](Scanner(), sent.body)
    return Received(
        origins=intake.origins,
        rows=intake.rows,
        logs=intake.logs,
        rejected=intake.rejected,
        reason=intake.reason,
        key=key,
        size=len(sent.body),
    )


def seen(received: Received) -> list[tuple[object, ...]]:
    """What a store makes of it: every row with its origin."""
    rows = [(received.origins[row.origin], row._replace(origin=0)) for row in received.rows]
    return [*rows, *((received.origins[row.origin], row._replace(origin=0)) for row in received.logs)]


def travelled(received: Received, sent: Sent) -> tuple[Message, Received]:
    message = requests.message_of(received, sent)
    assert message is not None
    return message, requests.received_of(Scanner(), Message.from_fields(message.to_fields()))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_good_compressed_body_travels_as_it_came(encoding: str) -> None:
    plain = protobuf([checkout()])
    sent = Sent(Signal.TRACES, PROTOBUF, encoding, COMPRESSORS[encoding](plain))
    message, arrived = travelled(rows_of(checkout(), key=KEY), sent)
    assert (message.body, message.codec) == (sent.body, encoding)
    assert (message.key, message.records) == (f"{KEY.log_id}:7:3", 3)
    assert seen(arrived) == seen(rows_of(checkout()))
    assert arrived.key == KEY


def test_a_body_that_is_not_compressed_is_and_a_small_one_is_not() -> None:
    large = group(*(span(1, number, attributes={"input.value": "tea " * 50}) for number in range(1, 40)))
    message, arrived = travelled(rows_of(large), Sent(Signal.TRACES, PROTOBUF, "identity", protobuf([large])))
    assert message.codec == "zstd"
    assert len(message.body) < len(protobuf([large])) / 3
    assert seen(arrived) == seen(rows_of(large))
    small = Sent(Signal.TRACES, PROTOBUF, "identity", protobuf([checkout()]))
    message, _ = travelled(rows_of(checkout()), small)
    assert (message.body, message.codec) == (small.body, "identity")


def mixed(chance: random.Random) -> tuple[bytes, int]:
    """A request of several resources and scopes in which some spans have no id, and how many have one."""
    groups, good = [], 0
    for number in range(chance.randrange(1, 5)):
        spans = []
        for each in range(chance.randrange(6)):
            is_good = chance.random() < 0.6
            good += is_good
            spans.append(span(number + 1, each + 1 if is_good else 0, status=StatusCode.ERROR))
        groups.append(group(*spans, service=f"service-{number % 2}"))
    return protobuf(groups), good


def check_partial_refusals(message_of: Callable[[Received, Sent], Message | None]) -> None:
    chance = random.Random(7)
    for _ in range(60):
        body, good = mixed(chance)
        sent = Sent(Signal.TRACES, PROTOBUF, "identity", body)
        received = read(sent)
        message = message_of(received, sent)
        assert (message is None) == (good == 0)
        if message is not None:
            arrived = requests.received_of(Scanner(), message)
            assert message.records == good
            assert arrived.rejected == 0
            assert seen(arrived) == seen(received)


def test_what_was_good_in_a_request_with_refusals_travels_alone() -> None:
    check_partial_refusals(requests.message_of)


def _as_it_came(received: Received, sent: Sent) -> Message | None:
    return requests.message_of(msgspec.structs.replace(received, rejected=0), sent)


def _one_origin(received: Received, sent: Sent) -> Message | None:
    rows = [row._replace(origin=0) for row in received.rows]
    return requests.message_of(msgspec.structs.replace(received, rows=rows, rejected=1), sent)


@pytest.mark.parametrize("mutant", [_as_it_came, _one_origin])
def test_a_message_with_what_was_refused_or_under_another_service_is_caught(
    mutant: Callable[[Received, Sent], Message | None],
) -> None:
    with pytest.raises(AssertionError):
        check_partial_refusals(mutant)


def test_json_travels_as_protobuf() -> None:
    schemas = ("https://example.org/1", "https://example.org/2")
    later = group(*checkout(2).spans, schemas=schemas)
    sent = Sent(Signal.TRACES, JSON, "identity", json_request([checkout(), later]))
    received = read(sent, RequestKey(KEY.log_id, 0, 6))
    message, arrived = travelled(received, sent)
    assert message.records == 6
    assert seen(arrived) == seen(received)
    assert arrived.key == received.key
    assert [each.key[2:] for each in arrived.origins] == [("", ""), schemas]


def test_logs_travel_too() -> None:
    log = Log(trace_id="01" * 16, span_id="02" * 8, time_ns=START, severity=9, body="tea", attributes={"n": 1})
    body = _log_request(log, log)
    sent = Sent(Signal.LOGS, PROTOBUF, "identity", body)
    received = read(sent)
    assert len(received.logs) == 2
    message, arrived = travelled(received, sent)
    assert (message.signal, message.body) == ("logs", body)
    assert seen(arrived) == seen(received)
    # and written anew
    message, arrived = travelled(msgspec.structs.replace(received, rejected=1), sent)
    assert seen(arrived) == seen(received)


def _log_request(*logs: Log) -> bytes:
    records = [frame(encode_log(each)) for each in logs]
    resource, scope = encode_resource(Resource(attributes={"service.name": "shop"})), encode_scope(Scope(name="tests"))
    return b"".join(encode_request(resource, scope, records))


def test_notices_of_open_spans_go_nowhere() -> None:
    notice = span(1, 1, duration=0, attributes={"asynctrace.state": "open"})
    alone = Sent(Signal.TRACES, PROTOBUF, "identity", protobuf([group(notice)]))
    assert requests.message_of(read(alone), alone) is None
    beside = Sent(Signal.TRACES, JSON, "identity", json_request([group(notice, span(1, 2))]))
    _, arrived = travelled(read(beside), beside)
    assert [row.span_id for row in arrived.rows] == [bytes(7) + b"\x02"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(records=1, body=b"\x0a\xff"), "no OTLP traces request"),
        (Message(records=1, body=b"no gzip", codec="gzip"), "damaged"),
        (Message(records=1, body=protobuf([group(span(1, 0))])), "nothing in it can be kept"),
    ],
    ids=["no OTLP", "damaged", "nothing good"],
)
def test_a_message_that_holds_nothing_says_why(message: Message, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        requests.received_of(Scanner(), message)


def test_a_key_that_counts_other_records_is_not_believed() -> None:
    message = Message(records=3, key=f"{KEY.log_id}:0:9", body=protobuf([checkout()]))
    assert requests.received_of(Scanner(), message).key is None


def test_a_span_is_encoded_as_ever() -> None:
    """The rows that travel are those that were read: their bytes are the sender's."""
    one = span(3, 4, attributes={"a": "b"})
    _, arrived = travelled(rows_of(group(one)), Sent(Signal.TRACES, PROTOBUF, "identity", protobuf([group(one)])))
    assert [row.message for row in arrived.rows] == [encode_span(one)]
