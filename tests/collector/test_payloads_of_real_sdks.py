"""Bodies that real SDKs sent (`payloads/`, with the names of machines and files taken out), as they are and with changes.

The changes are the same in every run. Whatever comes: an answer, and what is taken can be read again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from asynctrace import WireError
from asynctrace.collector._rows import LogRow, SpanRow
from asynctrace.collector.receiving import _dialects as dialects
from asynctrace.collector.receiving._intake import Intake, TooMany
from asynctrace.collector.receiving._scan import Scanner
from asynctrace.collector.receiving._signals import READERS, Signal
from asynctrace.wire import decode_log, decode_resource, decode_scope, decode_span

from .clients import model
from .traffic import JSON, PROTOBUF, collecting

PAYLOADS = sorted((Path(__file__).parent / "payloads").iterdir())
CHANGED = 150
"""Bodies made of each payload."""


def read(path: Path, body: bytes | None = None) -> Intake:
    return READERS[signal_of(path), kind_of(path)](Scanner(), path.read_bytes() if body is None else body)


def signal_of(path: Path) -> Signal:
    return Signal.LOGS if ".logs." in path.name else Signal.TRACES


def kind_of(path: Path) -> str:
    return JSON if path.suffix == ".json" else PROTOBUF


def rows_of(name: str) -> dict[str, SpanRow]:
    (path,) = [path for path in PAYLOADS if path.name == name]
    intake = read(path)
    assert intake.rejected == 0
    return {row.name: row for row in intake.rows}


# ── as they are ─────────────────────────────────────────────────────────────────────────────────────────────


def test_agentops() -> None:
    rows = rows_of("agentops.pb")
    types = {name: row.facts.type for name, row in rows.items()}
    assert types == {
        "search.tool": "tool",
        "researcher.agent": "agent",
        "fail.task": "chain",
        "checkout.session": "session",
    }
    search = rows["search.tool"].facts
    assert ("tea" in search.input, search.output, search.cost) == (True, "about tea", 0.05)
    assert rows["fail.task"].facts.events == 2


def test_logfire() -> None:
    rows = rows_of("logfire.pb")
    assert list(rows) == ["cache miss", "pay", "checkout {customer}"]
    assert {row.parent_id for row in rows.values()} == {b"", rows["checkout {customer}"].span_id}
    assert rows["pay"].status == 2


def test_pending_spans_of_logfire() -> None:
    rows = rows_of("logfire-pending.pb")
    assert (rows["checkout"].facts.is_open, rows["checkout"].end_ns, rows["checkout"].parent_id) == (True, 0, b"")
    assert not rows["pay"].facts.is_open
    assert rows["pay"].parent_id == rows["checkout"].span_id


@pytest.mark.parametrize("name", ["langfuse.pb", "langfuse-js.json"])
def test_langfuse(name: str) -> None:
    rows = rows_of(name)
    assert rows["answer"].parent_id == rows["research"].span_id
    answer, research = rows["answer"].facts, rows["research"].facts
    assert (answer.type, answer.model, answer.input_tokens, answer.output_tokens) == ("llm", "gpt-x", 12, 3)
    assert (answer.input, answer.output.strip('"{}').endswith("green")) == ("tea?", True)
    assert (research.input, research.output.strip('"')) == ('{"q":"tea"}' if ".js" in name else '{"q": "tea"}', "green")


@pytest.mark.parametrize("name", ["opentelemetry-js.pb", "opentelemetry-js.json"])
def test_opentelemetry_for_javascript(name: str) -> None:
    (path,) = [path for path in PAYLOADS if path.name == name]
    intake = read(path)
    assert [row.name for row in intake.rows] == ["step", "step", "step", "pay", "checkout"]
    assert intake.origins[0].service == "node"
    assert intake.rows[-1].facts.input == "té"
    assert decode_span(intake.rows[-1].message).attributes["large"] == 2**53


MODELS = {
    "openinference-openai": "ChatCompletion",
    "openinference-anthropic": "messages.create",
    "openinference-langchain": "ChatOpenAI",
    "genai-attributes": "chat gpt-x",
    "genai-logs": "chat gpt-x",
    "openllmetry-openai": "openai.chat",
    "openllmetry-anthropic": "anthropic.chat",
    "logfire-openai": "Chat Completion with {request_data[model]!r}",
    "logfire-anthropic": "Message with {request_data[model]!r}",
}
"""What the instrumentations of `clients/with_a_model.py` call a model call."""


def check_the_calls_of_a_model(name: str) -> None:
    """First a question, answered with the call of a tool; then its result, answered with words."""
    asked, answered = [row for row in all_rows_of(f"{name}.pb") if row.name == MODELS[name]]
    for row in (asked, answered):
        assert (row.facts.type, row.facts.input_tokens, row.facts.output_tokens) == ("llm", *model.TOKENS)
        assert row.facts.model in ("gpt-x-2026", "claude-y-2026")
    if name == "genai-logs":
        assert [log.message.count(model.ANSWER.encode()) for log in logs_of(name)] == [0, 1]
        assert {log.span_id for log in logs_of(name)} == {asked.span_id, answered.span_id}
        return
    assert asked.facts.input == model.QUESTION
    assert asked.facts.output.replace(" ", "") == 'lookup_order({"order":"A-17"})'
    assert answered.facts.input == model.RESULT
    assert answered.facts.output == model.ANSWER
    assert model.SYSTEM.encode() in answered.message


@pytest.mark.parametrize("name", MODELS)
def test_the_calls_of_a_model(name: str) -> None:
    check_the_calls_of_a_model(name)


def all_rows_of(name: str) -> list[SpanRow]:
    (path,) = [path for path in PAYLOADS if path.name == name]
    intake = read(path)
    assert intake.rejected == 0
    return sorted(intake.rows, key=lambda row: row.start_ns)


def logs_of(name: str) -> list[LogRow]:
    (path,) = [path for path in PAYLOADS if path.name == f"{name}.logs.pb"]
    return sorted(read(path).logs, key=lambda log: log.time_ns)


@pytest.mark.parametrize(
    ("name", "instrumentation"),
    [
        ("TABLE", "openinference-openai"),
        ("MESSAGES_IN", "openinference-langchain"),
        ("ARGUMENTS_IN", "logfire-anthropic"),
        ("LONGEST_PARSED", "genai-attributes"),
    ],
)
def test_a_dialect_that_is_not_known_is_noticed(
    name: str, instrumentation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialects, name, 0 if name.startswith("LONG") else ())
    if name == "TABLE":
        monkeypatch.setattr(dialects, "RULES", {})
    with pytest.raises(AssertionError):
        check_the_calls_of_a_model(instrumentation)


# ── changed ─────────────────────────────────────────────────────────────────────────────────────────────────


def changed(body: bytes, chance: random.Random) -> bytes:
    """The body with one to four changes: bytes of another value, gone, doubled, moved, or put in."""
    for _ in range(chance.randint(1, 4)):
        first = chance.randrange(len(body) + 1)
        last = min(len(body), first + chance.choice([1, 1, 1, 2, 8, 100]))
        piece = body[first:last]
        other = chance.choice([b"", piece * 2, chance.randbytes(len(piece)), piece[::-1], b"\xff" * len(piece), b"\0"])
        body = body[:first] + other + body[last:]
    return body


def check_what_is_taken_can_be_read(intake: Intake) -> None:
    for log in intake.logs:
        record = decode_log(log.message)
        assert (record.trace_id, record.span_id) == (log.trace_id.hex(), log.span_id.hex() or record.span_id)
    for row in intake.rows:
        span = decode_span(row.message)
        assert (len(row.trace_id), len(row.span_id), len(row.parent_id) in (0, 8)) == (16, 8, True)
        assert (span.trace_id, span.span_id) == (row.trace_id.hex(), row.span_id.hex())
        decode_resource(intake.origins[row.origin].resource)
        decode_scope(intake.origins[row.origin].scope)


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.name)
def test_a_changed_payload_is_taken_so_that_it_can_be_read_or_refused(path: Path) -> None:
    chance = random.Random(path.name)
    taken = refused = 0
    for _ in range(CHANGED):
        try:
            intake = read(path, changed(path.read_bytes(), chance))
        except (WireError, TooMany):
            refused += 1
        else:
            taken += 1
            check_what_is_taken_can_be_read(intake)
    assert taken
    assert refused


@pytest.mark.anyio
async def test_a_collector_that_gets_changed_payloads_answers_and_stays_whole(tmp_path: Path) -> None:
    chance = random.Random(11)
    async with collecting(tmp_path) as sender:
        for path in PAYLOADS:
            bodies = [changed(path.read_bytes(), chance) for _ in range(12)]
            to = {"content_type": kind_of(path), "path": f"/v1/{signal_of(path).value}"}
            answers = await asyncio.gather(*(sender.post(body, **to) for body in bodies))
            assert {status for status, _, _ in answers} <= {200, 400}
            assert (await sender.post(path.read_bytes(), **to))[0] == 200
        traces = await sender.traces()
        assert len(traces) >= len(PAYLOADS) - 2
        for trace in traces:
            status, body, _ = await sender.get(f"/api/v1/traces/{trace['trace_id']}.otlp.json")
            assert (status, bool(msgspec.json.decode(body))) == (200, True)


class KeepsWhatItDoesNotUnderstand(Scanner):
    def spans(self, messages: Iterable[bytes], origin: int, intake: Intake) -> None:
        for message in messages:
            super().spans([message], origin, intake)
            if intake.rejected:
                intake.rejected = 0
                intake.rows.append(intake.rows[-1]._replace(message=message) if intake.rows else None)  # type: ignore[arg-type]


def test_a_scanner_that_keeps_what_it_does_not_understand_is_caught() -> None:
    (path,) = [path for path in PAYLOADS if path.name == "logfire.pb"]
    chance = random.Random(path.name)
    with pytest.raises((AssertionError, ValueError, AttributeError)):  # noqa: PT012
        for _ in range(CHANGED):
            try:
                intake = KeepsWhatItDoesNotUnderstand().request(changed(path.read_bytes(), chance))
            except WireError:
                continue
            check_what_is_taken_can_be_read(intake)
