"""A collector in this process, and a reader of its API."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from asynctrace.collector import Collector, SQLiteStore
from asynctrace.wire import ResourceSpans

from ..traffic import PROTOBUF, protobuf

Json = Any


class Reader:
    """Asks one collector."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def send(self, *groups: ResourceSpans) -> None:
        """As a program would."""
        body = protobuf(groups)
        async with self.session.post(f"{self.url}/v1/traces", data=body, headers={"Content-Type": PROTOBUF}) as answer:
            assert answer.status == 200, await answer.text()

    async def get(self, path: str, status: int = 200, **parameters: str) -> Json:
        """The JSON at a path of the API."""
        async with self.session.get(f"{self.url}/api/v1{path}", params=parameters) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    async def text(self, path: str, **parameters: str) -> str:
        async with self.session.get(f"{self.url}/api/v1{path}", params=parameters) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def ask(self, method: str, path: str, status: int = 200, body: bytes | None = None, **headers: str) -> Json:
        async with self.session.request(method, f"{self.url}/api/v1{path}", data=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json()

    @contextlib.asynccontextmanager
    async def live(self) -> AsyncIterator[Listening]:
        async with self.session.ws_connect(f"{self.url}/api/v1/live") as socket:
            listening = Listening(socket)
            assert (await listening.next())["type"] == "hello"
            yield listening


class Listening:
    """One WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: object) -> None:
        await self.socket.send_json(message)

    async def next(self) -> Json:
        """The next message, but those that confirm."""
        while (message := await self.confirmation())["type"] == "subscribed":
            pass
        return message

    async def confirmation(self) -> Json:
        """The next message of any kind."""
        async with asyncio.timeout(30):
            return await self.socket.receive_json()

    async def until(self, wanted: Any) -> list[Json]:
        """Messages up to the first for which `wanted(message)` is true."""
        messages = [await self.next()]
        while not wanted(messages[-1]):
            messages.append(await self.next())
        return messages


@contextlib.asynccontextmanager
async def collecting(directory: Path, groups: Sequence[ResourceSpans] = ()) -> AsyncIterator[Reader]:
    with contextlib.closing(SQLiteStore(directory)) as store:
        async with (
            Collector(store, port=0, snapshot=directory / "open-spans.msgpack") as collector,
            aiohttp.ClientSession() as session,
        ):
            reader = Reader(session, collector.url)
            if groups:
                await reader.send(*groups)
            yield reader
