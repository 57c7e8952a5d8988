"""A program writes to the stream, a worker stores, a viewer shows: no ingest node between."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from asynctrace import Tracer
from asynctrace.exporters import RedisExporter

from ...stream.servers import Node
from .programs import eventually, running

RUNS = 30


async def trace_some(exporter: RedisExporter) -> None:
    async with Tracer(service="shop", exporters=[exporter]) as tracer:
        for number in range(RUNS):
            async with tracer.trace(f"run {number}", inputs={"order": number}), tracer.trace_component("charge"):
                pass
        assert (await tracer.flush()).complete


def test_what_a_program_writes_is_seen(
    tmp_path: Path, redis: Node, stream: tuple[str, ...], prefix: str, place: str
) -> None:
    asyncio.run(trace_some(RedisExporter(redis.url, prefix=prefix, shards=8, timeout=30)))
    with (
        running(tmp_path / "worker", "worker", *stream, "--store", place),
        running(tmp_path / "view", "view", "--store", place) as view,
    ):
        eventually(lambda: sum(view.traces().values()) == 2 * RUNS, "every span is shown")
        assert list(view.traces().values()) == [2] * RUNS
        page = json.loads(view.get("/api/v1/traces?q=name:%22run%207%22")[1])
        (line,) = page["traces"]
        assert (line["service"], line["spans"]) == ("shop", 2)


def test_what_was_handed_over_twice_is_seen_once(
    tmp_path: Path, redis: Node, stream: tuple[str, ...], prefix: str, place: str
) -> None:
    """As after an answer that was lost: the same batches again, under their keys."""

    class Doubting(RedisExporter):
        async def export(self, batch: object) -> object:  # type: ignore[override]
            await super().export(batch)  # type: ignore[arg-type]
            return await super().export(batch)  # type: ignore[arg-type]

    asyncio.run(trace_some(Doubting(redis.url, prefix=prefix, shards=8, timeout=30)))
    with running(tmp_path / "worker", "worker", *stream, "--store", place) as worker:
        eventually(lambda: worker.count("asynctrace_stream_entries") == 0, "the stream is empty")
        with running(tmp_path / "view", "view", "--store", place) as view:
            eventually(lambda: sum(view.traces().values()) >= 2 * RUNS, "every span is shown")
            assert list(view.traces().values()) == [2] * RUNS
