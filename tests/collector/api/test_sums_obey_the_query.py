"""`/stats` and `/sessions` of what a query finds, with what is open now; log records and schemas in the exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from asynctrace.collector.api import _export, _view
from asynctrace.wire import Log, encode_log, length_delimited, parse_json_request, read_json_logs

from ..traffic import PROTOBUF, START, checkout, group, span
from .asking import Reader, collecting
from .test_a_trace_is_shown_as_it_is import ID, TRACE, notice

pytestmark = pytest.mark.anyio

MINUTE = 60 * 10**9


def call(trace: int, session: str, *, at: int = 0, **attributes: Any) -> Any:
    said = {"session.id": session, "gen_ai.usage.input_tokens": 10, "n": trace, **attributes}
    return group(span(trace, 1, name="chat", start=at, attributes=said), span(trace, 2, parent=1, name="db"))


async def test_statistics_are_of_the_spans_that_a_query_finds(tmp_path: Path) -> None:
    calls = [call(11, "a"), call(12, "b", at=MINUTE), call(13, "a", at=10 * MINUTE)]
    async with collecting(tmp_path, [checkout(TRACE), *calls]) as reader:
        wanted: dict[str, dict[str, int]] = {
            "": {"chat": 3, "db": 3, "checkout": 1, "retrieve": 1, "pay": 1},
            "session:a": {"chat": 2, "db": 2},
            "session:a name:chat": {"chat": 2},
            "session:a attr.n=13": {"chat": 1},
            "-name:db tokens>0": {"chat": 3},
            "status:error": {"pay": 1},
            "session:a until:2023-11-14T22:20Z": {"chat": 1, "db": 2},
            "since:2023-11-14T22:20Z": {"chat": 1},
        }
        for query, counts in wanted.items():
            found = await reader.get("/stats", q=query)
            assert {row["key"]: row["count"] for row in found["rows"]} == counts, query
            assert sum(point["count"] for point in found["series"]) == sum(counts.values())
            assert found["counted_since_ns"] == 0


async def check_sessions_have_what_is_open(directory: Path) -> None:
    stored = [call(1, "a"), call(2, "a", at=MINUTE), call(3, "b", at=2 * MINUTE)]
    said = {"session.id": "a"}
    now_open = [
        notice(9, parent=1, trace=1, **said),
        notice(1, trace=8, **said),
        notice(1, trace=7, **{"session.id": "c"}),
    ]
    async with collecting(directory, stored) as reader:
        before = (await reader.get("/sessions"))["sessions"]
        assert counts_of(before) == {
            "a": (2, 4, 0),
            "b": (1, 2, 0),
        }
        await reader.send(group(*now_open))
        found = await all_sessions(reader, "")
        assert counts_of(found) == {
            "a": (3, 6, 2),
            "b": (1, 2, 0),
            "c": (1, 1, 1),
        }
        assert {each["session"]: each["input_tokens"] for each in found} == {"a": 20, "b": 10, "c": 0}
        assert [each["last_ns"] for each in found] == sorted((each["last_ns"] for each in found), reverse=True)
        for query, wanted in {
            "is:open": {"a": (2, 2), "c": (1, 1)},
            "is:ended": {"a": (1, 0), "b": (1, 0)},
            "attr.n=1": {"a": (1, 1)},
            "name:db": {"a": (2, 1), "b": (1, 0)},
            "session:c": {"c": (1, 1)},
        }.items():
            some = await all_sessions(reader, query)
            assert {each["session"]: (each["traces"], each["open"]) for each in some} == wanted, query


def counts_of(sessions: list[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    return {each["session"]: (each["traces"], each["spans"], each["open"]) for each in sessions}


async def all_sessions(reader: Reader, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await reader.get("/sessions", q=query, limit="1", **cursor)
        found += page["sessions"]
        if page["cursor"] is None:
            return found
        cursor = {"cursor": page["cursor"]}


async def test_sessions_count_what_is_open_once(tmp_path: Path) -> None:
    await check_sessions_have_what_is_open(tmp_path)


# ── exports ─────────────────────────────────────────────────────────────────────────────────────────────────

LOG = Log(
    time_ns=START + 5,
    observed_ns=START + 6,
    severity=9,
    severity_text="INFO",
    body={"said": ["a", 2, b"\x00"]},
    attributes={"k": 1.5},
    trace_id=ID,
    span_id=f"{2:016x}",
    event_name="cache.miss",
    flags=1,
)
SCHEMAS = ("https://opentelemetry.io/schemas/1.27.0", "https://opentelemetry.io/schemas/1.37.0")


async def check_a_file_holds_logs_and_schemas(directory: Path) -> None:
    sent = group(*checkout(TRACE).spans, schemas=SCHEMAS)
    async with collecting(directory, [sent]) as reader:
        records = length_delimited(b"\x12", encode_log(LOG)) + length_delimited(b"\x1a", SCHEMAS[0].encode())
        body = length_delimited(b"\x0a", length_delimited(b"\x12", records))
        async with reader.session.post(
            f"{reader.url}/v1/logs", data=body, headers={"Content-Type": PROTOBUF}
        ) as answer:
            assert answer.status == 200
        file = await reader.text(f"/traces/{ID}.otlp.json")
        assert parse_json_request(file) == [sent]
        ((_, scope, logs),) = read_json_logs(file)
        assert (logs, scope.schema_url) == ([LOG], SCHEMAS[0])
        shown = await reader.get(f"/traces/{ID}/span/@1")
        assert (shown["logs"][0]["event_name"], shown["logs"][0]["severity_text"]) == ("cache.miss", "INFO")
        await reader.ask("DELETE", f"/traces/{ID}")
        answer = await reader.ask("POST", "/import", body=file.encode())
        assert answer == {"traces": [ID], "spans": 3, "logs": 1, "rejected": 0}
        assert (await reader.get(f"/traces/{ID}/span/@1"))["logs"] == shown["logs"]
        assert msgspec.json.decode(await reader.text(f"/traces/{ID}.otlp.json")) == msgspec.json.decode(file)


async def test_a_file_holds_logs_and_schemas_and_gives_them_back(tmp_path: Path) -> None:
    await check_a_file_holds_logs_and_schemas(tmp_path)


# ── the checks themselves ───────────────────────────────────────────────────────────────────────────────────


async def test_sessions_that_count_an_open_trace_twice_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_trace(session: Any, trace: Any, sign: int = 1, with_trace: Any = _view._with_trace) -> Any:
        return with_trace(session, trace) if sign > 0 else session

    monkeypatch.setattr(_view, "_with_trace", with_trace)
    with pytest.raises(AssertionError):
        await check_sessions_have_what_is_open(tmp_path)


@pytest.mark.parametrize("name", ["_logs", "_scope", "_resource"])
async def test_a_file_that_leaves_something_out_is_noticed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(_export, name)
    broken = (lambda _: []) if name == "_logs" else (lambda *key: msgspec.structs.replace(whole(*key), schema_url=""))
    monkeypatch.setattr(_export, name, broken)
    with pytest.raises((AssertionError, ValueError)):
        await check_a_file_holds_logs_and_schemas(tmp_path)
