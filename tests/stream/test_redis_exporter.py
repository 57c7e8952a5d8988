"""RedisExporter: what becomes of a batch, whatever the stream says."""

from __future__ import annotations

import asyncio
import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog

import asynctrace
from asynctrace import ConfigurationError, Tracer
from asynctrace._contracts import Outcome
from asynctrace.exporters import RedisExporter

from ..exporters.conftest import a_span, batch_of
from .exporting import exporter_of, messages_at, names_at, spans_of
from .places import Place
from .servers import Servers

pytestmark = pytest.mark.anyio


# ── a batch is a message ────────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_is_one_message_under_its_key(everywhere: Place, prefix: str) -> None:
    exporter = exporter_of(everywhere, prefix)
    spans = [a_span(number) for number in range(1, 8)]
    result = await exporter.export(batch_of(spans, key="log:0:7"))
    await exporter.aclose()
    assert (result.accepted, result.outcome) == (7, Outcome.SETTLED)
    (message,) = await messages_at(everywhere, prefix)
    assert (message.signal, message.key, message.records) == ("traces", "log:0:7", 7)
    assert spans_of(message) == spans


@pytest.mark.parametrize(
    ("compression", "codec"), [(None, "zstd"), ("zstd", "zstd"), ("gzip", "gzip"), ("none", "identity")]
)
async def test_a_message_says_how_it_is_compressed(
    standalone: Place, prefix: str, compression: Any, codec: str
) -> None:
    exporter = exporter_of(standalone, prefix, compression=compression)
    spans = [a_span(number, size=1000) for number in range(1, 100)]
    await exporter.export(batch_of(spans))
    (message,) = await messages_at(standalone, prefix)
    assert (message.codec, spans_of(message)) == (codec, spans)
    assert exporter.statistics().sent_bytes == len(message.body)
    await exporter.aclose()


async def check_a_batch_keeps_its_key(place: Place, prefix: str, name: str = "") -> None:
    exporter = exporter_of(place, prefix, name)
    for _ in range(2):
        await exporter.export(batch_of([a_span(1)], key="log:41:1"))
    await exporter.aclose()
    assert {message.key for message in await messages_at(place, prefix)} == {"log:41:1"}


async def test_a_batch_that_is_repeated_has_the_same_key(standalone: Place, prefix: str) -> None:
    await check_a_batch_keeps_its_key(standalone, prefix)


async def test_new_keys_are_noticed(standalone: Place, prefix: str) -> None:
    with pytest.raises(AssertionError):
        await check_a_batch_keeps_its_key(standalone, prefix, "new keys")


async def test_the_keys_of_a_tracer_are_those_that_a_collector_reads(standalone: Place, prefix: str) -> None:
    from asynctrace.collector._keys import parse_key

    async with Tracer(service="shop", exporters=[exporter_of(standalone, prefix)]) as tracer:
        for number in range(20):
            async with tracer.trace(f"run {number}"):
                pass
    messages = await messages_at(standalone, prefix)
    keys = [parse_key([message.key], message.records) for message in messages]
    assert sum(key.count for key in keys if key is not None) == 20


async def test_records_with_scopes_of_their_own_stand_below_them(standalone: Place, prefix: str) -> None:
    async with (
        Tracer(service="shop", exporters=[exporter_of(standalone, prefix)]) as tracer,
        tracer.trace("run") as run,
    ):
        run.set_attribute("otel.scope.name", "a.library")
    (message,) = await messages_at(standalone, prefix)
    assert b"a.library" in _plain(message)
    assert [span.name for span in spans_of(message)] == ["run"]


def _plain(message: Any) -> bytes:
    from .exporting import _OPENED

    return _OPENED[message.codec](message.body)


# ── what the stream says ────────────────────────────────────────────────────────────────────────────────────


async def test_a_full_stream_is_tried_again_when_it_says(standalone: Place, prefix: str) -> None:
    exporter = exporter_of(standalone, prefix, max_bytes=64 * 400, compression="none")
    results = [await exporter.export(batch_of([a_span(1, size=300)], key=f"log:{number}:1")) for number in range(200)]
    await exporter.aclose()
    refused = [result for result in results if not result.accepted]
    assert refused
    assert {(result.outcome, result.reason) for result in refused} == {(Outcome.TRY_AGAIN, "stream_full")}
    assert all(result.after is not None and result.after > 0 for result in refused)
    assert len(await messages_at(standalone, prefix)) == 200 - len(refused)
    assert exporter.statistics().by_reason == {"stream_full": len(refused)}


async def check_nothing_is_accepted_while_away(servers: Servers, name: str = "") -> None:
    node = servers.standalone()
    place = Place(node.url, 1, False, "standalone", [node])
    exporter = exporter_of(place, "t", name, timeout=0.5)
    node.kill()
    result = await exporter.export(batch_of([a_span(1)]))
    assert (result.outcome, result.reason, result.accepted) == (Outcome.TRY_AGAIN, "stream_away", 0)
    node.start()
    assert (await exporter.export(batch_of([a_span(1)]))).accepted == 1
    await exporter.aclose()


async def test_a_stream_that_is_away_is_tried_again(servers: Servers) -> None:
    await check_nothing_is_accepted_while_away(servers)


@pytest.mark.parametrize("name", ["accepts at once", "rejects"])
async def test_a_wrong_answer_for_a_stream_that_is_away_is_caught(servers: Servers, name: str) -> None:
    with pytest.raises(AssertionError):
        await check_nothing_is_accepted_while_away(servers, name)


async def check_large_batches_are_split(place: Place, prefix: str, name: str = "") -> None:
    exporter = exporter_of(place, prefix, name, max_message=100_000, compression="none")
    async with Tracer(service="shop", exporters=[exporter]) as tracer:
        for number in range(12):
            async with tracer.trace(f"run {number}") as run:
                run.set_attribute("text", "x" * 60_000)
        receipt = await tracer.flush()
        assert (receipt.accepted, receipt.rejected) == (12, 0)
    assert sorted(await names_at(place, prefix)) == sorted(f"run {number}" for number in range(12))


async def test_a_batch_over_the_limit_is_split_until_it_fits(standalone: Place, prefix: str) -> None:
    await check_large_batches_are_split(standalone, prefix)


async def test_a_large_batch_that_is_rejected_instead_is_caught(standalone: Place, prefix: str) -> None:
    with pytest.raises(AssertionError):
        await check_large_batches_are_split(standalone, prefix, "rejects")


async def check_a_wrong_password_blocks(servers: Servers, name: str = "") -> None:
    node = servers.standalone("--requirepass", "right-password")
    place = Place(f"redis://:wrong-password@{node.address}", 1, False, "standalone", [node])
    with structlog.testing.capture_logs() as lines:
        async with Tracer(service="shop", exporters=[exporter_of(place, "t", name)], shutdown_timeout=0) as tracer:
            async with tracer.trace("run"):
                pass
            with pytest.raises(asynctrace.DeliveryTimeout):
                await tracer.flush(timeout=5)
    (line,) = [line for line in lines if line["event"] == "delivery.blocked"]
    assert line["reason"] == "stream_refused"
    assert "password" in line["hint"]
    assert "wrong-password" not in str(lines)
    assert "\n" not in line["hint"]


async def test_a_wrong_password_blocks_the_lane_with_one_line_that_says_so(servers: Servers) -> None:
    await check_a_wrong_password_blocks(servers)


async def test_a_wrong_password_that_is_tried_for_ever_is_noticed(servers: Servers) -> None:
    with pytest.raises((AssertionError, ValueError)):
        await check_a_wrong_password_blocks(servers, "tries for ever")


# ── settings ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_environment_fills_in_what_was_not_given(
    standalone: Place, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STREAM", standalone.url)
    monkeypatch.setenv("ASYNCTRACE_STREAM_PREFIX", prefix)
    async with Tracer(service="shop", exporters=[RedisExporter()]) as tracer, tracer.trace("run"):
        pass
    assert await names_at(standalone, prefix) == ["run"]


def test_what_was_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_STREAM", "redis://elsewhere:1")
    exporter = RedisExporter("redis://here:2")
    Tracer(service="shop", exporters=[exporter]).shutdown_sync()
    assert exporter.endpoint == "redis://here:2"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ASYNCTRACE_STREAM", "http://127.0.0.1"), ("ASYNCTRACE_STREAM_CA", "/nowhere/ca.pem")],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        Tracer(service="shop", exporters=[RedisExporter()])


@pytest.mark.parametrize(
    "make",
    [
        lambda: RedisExporter("http://127.0.0.1:6379"),
        lambda: RedisExporter("redis://:secret@host:no-port"),
        lambda: RedisExporter(""),
        lambda: RedisExporter(prefix=""),
        lambda: RedisExporter(shards=0),
        lambda: RedisExporter(timeout=0),
        lambda: RedisExporter(compression="brotli"),  # type: ignore[arg-type]
        lambda: RedisExporter(ca_file="/nowhere/ca.pem"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(make: Callable[[], RedisExporter]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        make()
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_without_redis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("asynctrace.exporters._redis.find_spec", lambda name: None if name == "redis" else found(name))
    with pytest.raises(ConfigurationError, match=r"pip install 'asynctrace\[redis\]'"):
        RedisExporter()


def test_constructing_does_not_load_redis() -> None:
    program = """
import sys
from asynctrace import Tracer
from asynctrace.exporters import RedisExporter
Tracer(service="shop", exporters=[RedisExporter("redis://127.0.0.1:1")], journal=False).shutdown_sync()
print([name for name in sys.modules if name.partition(".")[0] in ("redis", "aiohttp")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_no_text_shows_a_credential() -> None:
    exporter = RedisExporter("rediss://user:hunter2@host:1,other:2")
    assert repr(exporter) == "RedisExporter('rediss://host:1,other:2', name='redis')"
    assert "hunter2" not in repr(exporter) + exporter.endpoint


async def test_it_travels_to_another_process(standalone: Place, prefix: str) -> None:
    exporter = RedisExporter(standalone.url, prefix=prefix)
    await exporter.export(batch_of([a_span(1)], key="log:0:1"))
    other = pickle.loads(pickle.dumps(exporter))
    await other.export(batch_of([a_span(2)], key="log:1:1"))
    assert (exporter.statistics().messages, other.statistics().messages) == (1, 1)
    await asyncio.gather(exporter.aclose(), other.aclose())
    assert sorted(await names_at(standalone, prefix)) == ["span 1", "span 2"]
