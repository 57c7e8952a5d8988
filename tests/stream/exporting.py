"""What lies in a stream after an exporter wrote to it, programs that trace into one, and exporters that break a promise."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from asynctrace import wire
from asynctrace._contracts import Batch, ExportResult
from asynctrace.exporters import RedisExporter
from asynctrace.stream import Message, RedisStream

from .places import Place

__all__ = ["WRONG_EXPORTERS", "exporter_of", "messages_at", "names_at", "program_of", "run_program", "spans_of"]

_OPENED: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
}


def _login(place: Place) -> dict[str, Any]:
    return {
        "ca_file": place.ca_file,
        "credentials": (lambda: (place.username, place.password)) if place.password else None,
    }


def exporter_of(place: Place, prefix: str, name: str = "", **options: Any) -> RedisExporter:
    """An exporter to a place; of a wrong kind, if one is named."""
    kind = WRONG_EXPORTERS.get(name, RedisExporter)
    return kind(place.url, prefix=prefix, **{"timeout": 30.0, **_login(place), **options})


async def messages_at(place: Place, prefix: str) -> list[Message]:
    """Everything in the stream, which is empty then."""
    stream = RedisStream(place.url, prefix=prefix, linger=0.0, block=0.3, timeout=30.0, **_login(place))
    found = []
    try:
        while (await stream.depth()).entries:
            claim = await stream.claim("reader")
            if claim is None:
                continue  # the servers are slow
            found += [each.message for each in claim.deliveries if each.message is not None]
            await stream.acknowledge(claim)
    finally:
        await stream.aclose()
    return found


def spans_of(message: Message) -> list[Any]:
    """The spans of a message, decoded."""
    request = wire.decode_request(_OPENED[message.codec](message.body))
    return [span for group in request for span in group.spans]


async def names_at(place: Place, prefix: str) -> list[str]:
    """The names of all spans in the stream, which is empty then; those of a message that came twice under its key once."""
    by_key = {message.key: message for message in await messages_at(place, prefix)}
    return [span.name for message in by_key.values() for span in spans_of(message)]


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}


def run_program(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A program of its own, which has to end well."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=_environment(),
    )
    assert done.returncode == 0, done.stderr
    return done


@contextlib.contextmanager
def program_of(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that is talked to, and killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# ── exporters that break a promise ──────────────────────────────────────────────────────────────────────────


class _AcceptsAtOnce(RedisExporter):
    """Says that the stream has it, and then hands it over."""

    async def _append(self, message: Message) -> ExportResult:
        self._task = asyncio.ensure_future(super()._append(message))
        return ExportResult(accepted=message.records)


class _NewKeys(RedisExporter):
    _attempts = 0

    async def _append(self, message: Message) -> ExportResult:
        self._attempts += 1
        return await super()._append(
            Message(key=f"{message.key}{self._attempts}", records=message.records, body=message.body)
        )


class _OneStream(RedisExporter):
    """The same connections in every loop."""

    _only: RedisStream | None = None

    def _stream(self) -> RedisStream:
        self._only = self._only or self._new_stream()
        return self._only


class _IsSeen(RedisExporter):
    """Whoever looks at Redis commands sees ours."""

    async def _append(self, message: Message) -> ExportResult:
        await self._stream().append(message)
        return ExportResult(accepted=message.records)


class _DropsThem(RedisExporter):
    """In a child, which has copies of its parent's connections: they say good-bye when they are collected."""

    def after_fork_in_child(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.taken_apart()


class _Rejects(RedisExporter):
    """Takes what it cannot hand over for refused."""

    async def export(self, batch: Batch) -> ExportResult:
        result = await super().export(batch)
        return result if result.accepted else ExportResult(rejected=batch.count, reason=result.reason)


class _TriesForEver(RedisExporter):
    """Takes a wrong password for a bad moment."""

    async def export(self, batch: Batch) -> ExportResult:
        result = await super().export(batch)
        return result if result.accepted else ExportResult.try_again(reason=result.reason)


WRONG_EXPORTERS: dict[str, type[RedisExporter]] = {
    "accepts at once": _AcceptsAtOnce,
    "new keys": _NewKeys,
    "one stream": _OneStream,
    "is seen": _IsSeen,
    "drops them": _DropsThem,
    "rejects": _Rejects,
    "tries for ever": _TriesForEver,
}
