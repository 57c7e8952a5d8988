"""Who listens hears of what was committed, in order, with the place of each span; a collector that was killed comes back."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from pathlib import Path

import aiohttp
import msgspec
import pytest

from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter

from ..processes import serving
from ..traffic import PROTOBUF, checkout, group, protobuf, span
from .asking import Json, collecting
from .test_a_trace_is_shown_as_it_is import ID, TRACE, notice

pytestmark = pytest.mark.anyio

MS = 1_000_000


# ── the list ────────────────────────────────────────────────────────────────────────────────────────────────


def changed(message: Json) -> list[str]:
    return [trace["name"] for trace in message.get("changed", ())]


async def test_who_subscribes_to_the_list_is_told_from_when_on(tmp_path: Path) -> None:
    async with collecting(tmp_path) as reader, reader.live() as live:
        await live.say(subscribe="list", q="")
        confirmation = await live.confirmation()
        assert (confirmation["type"], confirmation["to"]) == ("subscribed", "list")
        await reader.send(group(notice(1, name="agent")))
        assert changed((await live.until(changed))[-1]) == ["agent"]


async def test_a_new_trace_is_told_of_and_one_that_no_longer_fits_is_removed(tmp_path: Path) -> None:
    async with collecting(tmp_path) as reader, reader.live() as live:
        await live.say(subscribe="list", q="is:open")
        await live.say(subscribe="nothing")  # answered in order: by now the list is subscribed to
        await live.until(lambda message: message["type"] == "error")
        await reader.send(checkout(5))
        await reader.send(group(notice(1, name="agent")))
        messages = await live.until(changed)
        assert changed(messages[-1]) == ["agent"]
        assert messages[-1]["changed"][0]["open"] == 1
        await reader.send(group(span(TRACE, 1, name="agent")))
        (*_, message) = await live.until(lambda message: ID in message["removed"])
        assert changed(message) == []
        assert abs(message["now_ms"] - time.time() * 1000) < 60_000


async def test_what_a_client_read_before_it_listened_is_removed_when_it_no_longer_fits(tmp_path: Path) -> None:
    async with collecting(tmp_path, [group(notice(1, name="agent"))]) as reader, reader.live() as live:
        assert len((await reader.get("/traces", q="is:open"))["traces"]) == 1
        await live.say(subscribe="list", q="is:open")
        await live.say(subscribe="nothing")
        await live.until(lambda message: message["type"] == "error")
        await reader.send(group(span(TRACE, 1, name="agent")))
        await live.until(lambda message: ID in message["removed"])


async def test_what_is_deleted_is_removed(tmp_path: Path) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader, reader.live() as live:
        await live.say(subscribe="list")
        await live.say(subscribe="nothing")
        await live.until(lambda message: message["type"] == "error")
        await reader.ask("DELETE", f"/traces/{ID}")
        (*_, message) = await live.until(lambda message: message.get("removed"))
        assert message["removed"] == [ID]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"subscribe": "list", "q": "is:hot"}, "is: knows"),
        ({"subscribe": "trace", "trace_id": "12"}, "subscribe to"),
        ({"subscribe": 7}, "Expected"),
        ([1], "Expected"),
    ],
)
async def test_what_is_not_understood_is_said(tmp_path: Path, said: object, reason: str) -> None:
    async with collecting(tmp_path) as reader, reader.live() as live:
        await live.socket.send_str(msgspec.json.encode(said).decode())
        message = await live.next()
    assert (message["type"], reason in message["error"]) == ("error", True)


# ── a trace ─────────────────────────────────────────────────────────────────────────────────────────────────


class Shown:
    """What a page makes of the messages about one trace."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rows: list[list[Json]] = []

    def take(self, message: Json) -> None:
        columns = message["skeleton"]
        del self.rows[columns["first"] :]
        for name, duration, parent in zip(columns["name"], columns["duration"], columns["parent"], strict=True):
            self.rows.append([columns["names"][name], duration, parent])
        for index, duration, _, _, parent in message["changed"]:
            self.rows[index][1:] = [duration, parent]


async def test_a_trace_that_is_watched_is_shown_as_it_is_read(tmp_path: Path) -> None:
    async with collecting(tmp_path, [group(span(TRACE, 9, parent=1, name="first"))]) as reader, reader.live() as live:
        before = await reader.get(f"/traces/{ID}/skeleton")
        shown = Shown()
        shown.take({"skeleton": before, "changed": []})
        await live.say(subscribe="trace", trace_id=ID, version=before["version"])
        steps = [
            [notice(1), notice(2, parent=1, name="step")],
            [span(TRACE, 3, parent=2, name="leaf"), span(TRACE, 2, parent=1, name="step", duration=5 * MS)],
            [span(TRACE, n, parent=1, name=f"n{n}") for n in range(10, 400)],
            [span(TRACE, 1, name="agent", duration=9 * MS)],
        ]
        for step in steps:
            await reader.send(group(*step))
        wanted = 3 + 1 + 390
        async with asyncio.timeout(30):
            while len(shown.rows) < wanted or shown.rows[1][1] != 9000:
                message = await live.next()
                assert message["type"] == "trace"
                shown.take(message)
        after = await reader.get(f"/traces/{ID}/skeleton")
        names = [after["names"][number] for number in after["name"]]
        assert shown.rows == [list(row) for row in zip(names, after["duration"], after["parent"], strict=True)]


async def test_who_knows_another_version_gets_all_of_it_and_who_waits_gets_a_trace_when_it_comes(
    tmp_path: Path,
) -> None:
    async with collecting(tmp_path) as reader, reader.live() as live:
        await live.say(subscribe="trace", trace_id=ID, version=77)
        assert (await live.next())["gone"]
        await reader.send(checkout(TRACE))
        message = await live.next()
        assert (message["skeleton"]["first"], message["skeleton"]["count"]) == (0, 3)
        await live.say(unsubscribe="trace")
        await live.say(subscribe="nothing")
        await live.until(lambda message: message["type"] == "error")
        await reader.send(group(span(TRACE, 50)))
        await live.say(subscribe="nothing")
        assert (await live.next())["type"] == "error"


async def test_a_client_gets_at_most_ten_messages_a_second_and_misses_nothing(tmp_path: Path) -> None:
    async with collecting(tmp_path) as reader, reader.live() as live:
        await live.say(subscribe="list")
        await live.say(subscribe="trace", trace_id=ID, version=-1)
        sending = asyncio.create_task(_many(reader))
        seen: dict[str, int] = {}
        moments = []
        loop = asyncio.get_running_loop()
        while seen.get(ID) != 60:
            message = await live.next()
            moments.append(loop.time())
            for trace in message.get("changed", ()) if message["type"] == "list" else ():
                seen[trace["trace_id"]] = trace["spans"]
        await sending
    assert len(moments) <= 12 + 10 * (moments[-1] - moments[0])


async def _many(reader: Json) -> None:
    for number in range(1, 61):
        await reader.send(group(span(TRACE, number)))


async def test_a_listener_that_reads_nothing_holds_up_nobody(tmp_path: Path) -> None:
    async with collecting(tmp_path) as reader, reader.live() as deaf:
        await deaf.say(subscribe="list")
        deaf.socket._conn.protocol.pause_reading()  # type: ignore[union-attr]
        async with asyncio.timeout(30):
            for number in range(1, 200):
                await reader.send(checkout(number))
        assert (await reader.get("/status"))["store"]["traces"] == 199


async def test_tail_prints_a_line_for_each_change(tmp_path: Path) -> None:
    async with (
        collecting(tmp_path) as reader,
        reader.session.get(f"{reader.url}/api/v1/tail", params={"q": "name:checkout"}) as answer,
    ):
        assert answer.content_type == "application/x-ndjson"
        await reader.send(group(span(7, 1, name="other")))
        await reader.send(checkout(TRACE))
        async with asyncio.timeout(30):
            line = msgspec.json.decode(await answer.content.readline())
        assert (line["trace_id"], line["spans"]) == (ID, 3)


async def test_the_end_of_the_collector_is_told(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with collecting(tmp_path) as reader:
            socket = await session.ws_connect(f"{reader.url}/api/v1/live")
            await socket.receive_json()
            tail = await session.get(f"{reader.url}/api/v1/tail")
            leaving = asyncio.create_task(_closed(socket))
        async with asyncio.timeout(30):
            assert await leaving in (1000, 1001)
            assert await _ended(tail)
        tail.close()


async def _ended(answer: aiohttp.ClientResponse) -> bool:
    """Whatever it ended with."""
    try:
        return await answer.content.read() == b""
    except aiohttp.ClientError:
        return True


async def _closed(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    while not socket.closed:
        await socket.receive()
    return socket.close_code


# ── programs ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_program_that_runs_is_seen_with_its_open_spans_and_their_end(tmp_path: Path) -> None:
    async with collecting(tmp_path) as reader, reader.live() as live:
        await live.say(subscribe="list")
        async with Tracer("shop", [OTLPExporter(reader.url)], journal=False) as tracer:
            async with tracer.trace("warm up"):
                pass
            await tracer.flush()
            async with tracer.trace("agent", session_id="s-1", inputs={"q": "tea"}) as run:
                (*_, message) = await live.until(lambda message: "agent" in changed(message))
                (trace,) = (trace for trace in message["changed"] if trace["name"] == "agent")
                assert (trace["open"], trace["ending"], trace["duration"]) == (1, "open", None)
                assert (trace["session"], trace["input"]) == ("s-1", '{"q":"tea"}')
                shown = await reader.get(f"/traces/{run.trace_id}/span/{run.span_id}")
                assert shown["input"]["text"] == '{"q":"tea"}'
            await tracer.flush()
            ended = await reader.get(f"/traces/{run.trace_id}")
        assert (ended["open"], ended["ending"], ended["spans"]) == (0, "ok", 1)
        assert (await reader.get("/status"))["receiving"]["notices"] >= 1


def test_after_a_kill_formerly_open_spans_are_lost_and_nothing_acknowledged_is_missing(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        _post(served.url, protobuf([checkout(5), group(notice(1, name="agent"), notice(2, parent=1, name="step"))]))
        deadline = time.monotonic() + 30
        while not (tmp_path / "open-spans.msgpack").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        served.process.kill()
        served.process.wait(30)
    with serving(tmp_path) as served:
        traces = _get(served.url, "/traces")["traces"]
        assert {trace["name"]: (trace["ending"], trace["open"], trace["lost"]) for trace in traces} == {
            "agent": ("interrupted", 0, 2),
            "checkout": ("ok", 0, 0),
        }
        shown = _get(served.url, f"/traces/{ID}/skeleton")
        assert shown["duration"] == [-2, -2]
        _post(served.url, protobuf([group(notice(1, name="agent"))]))
        shown = _get(served.url, f"/traces/{ID}/skeleton")
        assert (shown["duration"], shown["summary"]["ending"]) == ([-1, -2], "open")
        _post(served.url, protobuf([group(span(TRACE, 1, name="agent"), span(TRACE, 2, parent=1, name="step"))]))
        assert _get(served.url, f"/traces/{ID}")["lost"] == 0


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(f"{url}/v1/traces", body, {"Content-Type": PROTOBUF})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def _get(url: str, path: str) -> Json:
    with urllib.request.urlopen(f"{url}/api/v1{path}", timeout=30) as answer:
        return msgspec.json.decode(answer.read())
