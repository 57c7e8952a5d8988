"""`/v1/logs`: what belongs to a trace goes to the store, before its span, with it or after it."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from asynctrace.wire import Log, decode_log, encode_log

from ..wire import _official as official
from .doubles import StoreThatRemembers
from .traffic import JSON, START, collecting, group, protobuf, span

pytestmark = pytest.mark.anyio

TRACE, SPAN = f"{1:032x}", f"{1:016x}"


def record(trace: str = TRACE, span_id: str = SPAN, text: str = "cache miss") -> LogRecord:
    made = LogRecord(
        trace_id=bytes.fromhex(trace), span_id=bytes.fromhex(span_id), time_unix_nano=START, severity_number=9
    )
    made.body.string_value = text
    return made


def logs(*records: LogRecord) -> bytes:
    request = ExportLogsServiceRequest()
    outer = request.resource_logs.add()
    outer.resource.attributes.extend(official.official_attributes({"service.name": "shop"}))
    inner = outer.scope_logs.add()
    inner.scope.name = "logger"
    inner.log_records.extend(records)
    return request.SerializeToString()


@pytest.mark.parametrize("order", list(itertools.permutations(["span", "log"])), ids=" then ".join)
async def test_a_log_may_come_before_its_span_and_after_it(tmp_path: Path, order: tuple[str, ...]) -> None:
    store = StoreThatRemembers(tmp_path)
    async with collecting(store) as sender:
        for what in order:
            body, path = (protobuf([group(span())]), "/v1/traces") if what == "span" else (logs(record()), "/v1/logs")
            assert (await sender.post(body, path=path))[0] == 200
        (log,) = [log for received in store.given for log in received.logs]
        assert (log.trace_id.hex(), log.span_id.hex(), log.time_ns, log.severity) == (TRACE, SPAN, START, 9)
        assert decode_log(log.message).body == "cache miss"


async def test_json_says_the_same_and_the_origin_is_kept(tmp_path: Path) -> None:
    as_json = msgspec.json.encode(
        {
            "resourceLogs": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
                    "scopeLogs": [
                        {
                            "scope": {"name": "logger"},
                            "logRecords": [
                                {
                                    "traceId": TRACE,
                                    "spanId": SPAN,
                                    "timeUnixNano": str(START),
                                    "severityNumber": 9,
                                    "body": {"stringValue": "cache miss"},
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    )
    store = StoreThatRemembers(tmp_path)
    async with collecting(store) as sender:
        assert (await sender.post(logs(record()), path="/v1/logs"))[:2] == (200, b"")
        assert (await sender.post(as_json, path="/v1/logs", content_type=JSON))[:2] == (200, b"{}")
        first, second = store.given
        assert first.logs == second.logs
        assert first.origins == second.origins
        assert first.origins[0].service == "shop"


async def test_a_log_of_no_trace_is_passed_over_and_counted(tmp_path: Path) -> None:
    store = StoreThatRemembers(tmp_path)
    async with collecting(store) as sender:
        assert (await sender.post(logs(record("", ""), record(span_id="")), path="/v1/logs"))[:2] == (200, b"")
        ((log,),) = [received.logs for received in store.given]
        assert log.span_id == b""
        assert "asynctrace_collector_ignored_total 1\n" in (await sender.get("/metrics"))[1].decode()


async def test_a_log_with_a_bad_id_is_rejected_alone(tmp_path: Path) -> None:
    async with collecting(StoreThatRemembers(tmp_path)) as sender:
        status, answer, _ = await sender.post(logs(record("00ff"), record()), path="/v1/logs")
        assert status == 200
        assert ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records == 1


async def test_a_log_posted_twice_is_one(tmp_path: Path) -> None:
    store = StoreThatRemembers(tmp_path)
    async with collecting(store) as sender:
        for _ in range(2):
            assert (await sender.post(logs(record()), path="/v1/logs"))[0] == 200
        assert (await sender.post(logs(record(text="another")), path="/v1/logs"))[0] == 200
        assert [decode_log(log.message).body for received in store.given for log in received.logs] == [
            "cache miss",
            "another",
        ]


async def test_logs_that_are_none_are_refused(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.post(logs(record())[:-3], path="/v1/logs"))[0] == 400
        assert (await sender.post(b"[]", path="/v1/logs", content_type=JSON))[0] == 400


records = st.builds(
    Log,
    time_ns=official.times,
    observed_ns=official.times,
    severity=st.integers(0, 24),
    severity_text=official.texts,
    body=official.values,
    attributes=official.attributes,
    trace_id=official.trace_ids,
    span_id=official.span_ids,
    event_name=official.texts,
    dropped_attributes=official.counts,
    flags=official.counts,
)


@given(records)
@settings(max_examples=100, deadline=None)
def test_a_log_record_is_read_and_written_like_the_official_one(log: Log) -> None:
    message = LogRecord.FromString(encode_log(log))
    read = Log(
        time_ns=message.time_unix_nano,
        observed_ns=message.observed_time_unix_nano,
        severity=message.severity_number,
        severity_text=message.severity_text,
        body=official.value_of(message.body),
        attributes=official.attributes_of(message.attributes),
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        event_name=message.event_name,
        dropped_attributes=message.dropped_attributes_count,
        flags=message.flags,
    )
    assert official.exact(read) == official.exact(log)
    assert official.exact(decode_log(message.SerializeToString())) == official.exact(log)
