"""Nobody writes down whether a journal or a dead letter holds records of other scopes: those are always looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asynctrace import ExportResult, Tracer
from asynctrace._dead_letter_command import _send
from asynctrace.delivery._dead_letters import DeadLetter, Header
from asynctrace.exporters import OTLPExporter
from asynctrace.opentelemetry import TracerProvider
from asynctrace.spanlog.journal import OrphanLog
from asynctrace.testing._faults import FaultServer

from ..tracing.recording import Recording


class Away:
    """A far side that answers nothing but: later."""

    name = "otlp"

    async def export(self, batch: Any) -> ExportResult:
        return ExportResult.try_again(reason="away")

    async def aclose(self) -> None:
        return None


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer.in_thread() as running:
        yield running


def scopes_of(server: FaultServer) -> dict[str, list[str]]:
    """The names of the spans, by scope."""
    found: dict[str, list[str]] = {}
    for request in server.requests:
        for outer in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            for inner in outer.scope_spans:
                found.setdefault(inner.scope.name, []).extend(span.name for span in inner.spans)
    return found


def recover(server: FaultServer, state: Path) -> dict[str, list[str]]:
    """What the next process sends of a journal that was left behind; it makes no span of another scope itself."""

    async def main() -> None:
        tracer = Tracer(service="shop", exporters=[Away()], journal=state)
        with tracer.trace_component("ours"):
            TracerProvider(tracer).get_tracer("library").start_span("theirs").end()
        assert (await tracer.shutdown(0.05)).spooled == 2
        async with Tracer(service="shop", exporters=[OTLPExporter(server.url)], journal=state):
            await server.wait_for_spans(2, 30)

    asyncio.run(main())
    return scopes_of(server)


def test_a_recovered_journal_is_sent_in_its_scopes(server: FaultServer, tmp_path: Path) -> None:
    assert recover(server, tmp_path) == {"asynctrace": ["ours"], "library": ["theirs"]}


def test_a_journal_that_is_not_looked_through_is_noticed(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrphanLog, "is_scoped", False)
    assert recover(server, tmp_path) != {"asynctrace": ["ours"], "library": ["theirs"]}


def test_a_dead_letter_is_sent_again_in_its_scopes(server: FaultServer, tmp_path: Path) -> None:
    recording = Recording()
    TracerProvider(recording.tracer).get_tracer("library").start_span("theirs").end()  # type: ignore[arg-type]
    payload = b"".join(recording.sink.records)
    header = Header(
        lane="otlp",
        key="log:0:1",
        records=1,
        count=1,
        reason="http_400",
        detail="",
        time_ns=1,
        service="shop",
        resource=b"",
        scope=b"",
        size=len(payload),
    )

    async def send() -> None:
        exporter = OTLPExporter(server.url)
        assert (await _send(exporter, DeadLetter(tmp_path, header, payload))).accepted == 1
        await exporter.aclose()

    asyncio.run(send())
    assert scopes_of(server) == {"library": ["theirs"]}
