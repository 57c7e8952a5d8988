"""Spans straight into the stream that workers store from: no ingest node between.

    batch ─▶ one message, under the batch's key ─▶ stream ─▶ answer
                                                     │
        safe, as the stream says                     ├─▶ accepted
        StreamFull                                   ├─▶ try again, not before `retry_after`
        StreamAway                                   ├─▶ try again
        MessageTooLarge                              ├─▶ too large: the lane splits the batch
        any other StreamError                        └─▶ blocked: somebody has to change a setting

Promises: constructing does not load redis; one stream for each event loop, made in it; a repeated batch has the same key,
so that a store keeps its spans once; no message and no `repr` shows a credential; the commands are nobody's spans.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final, Literal

import msgspec

from .._contracts import Batch, ExportResult
from .._errors import ConfigurationError, MessageTooLarge, StreamAway, StreamError, StreamFull
from ..stream import Message, RedisStream, parse_address
from ._aside import loading, run_aside
from ._endpoint import checked_ca_file
from ._inherited import close_copy, keep
from ._packing import compressed, protobuf_request
from ._slices import Slices
from ._suppression import own_traffic

__all__ = ["RedisExporter", "RedisStatistics"]

DEFAULT_URL: Final = "redis://127.0.0.1:6379"

COMPRESSIONS: Final = ("gzip", "zstd", "none")

CODECS: Final = {"gzip": "gzip", "zstd": "zstd", "none": "identity"}
"""What a message calls them."""

CLOSE_WITHIN: Final = 2.0
"""Seconds for the stream of another thread's loop."""

_OF_ONE_PROCESS: Final = {"_streams", "_messages", "_sent_bytes", "_by_reason", "_slices"}


class RedisStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one exporter did so far."""

    messages: int
    """Batches handed to the stream, repetitions included."""
    sent_bytes: int
    """Bytes of their bodies, compressed."""
    by_reason: dict[str, int]
    """Answers that were no acceptance, by reason: "stream_away", "stream_full", …"""


class RedisExporter:
    """Appends to the stream that `asynctrace worker` stores from.

        RedisExporter("rediss://user:password@redis.example.org:6379", ca_file="ca.pem")

    `url`: one server, several nodes of a cluster, or Sentinels, with commas between; which of them it is, is found out.
    `prefix` and `shards`: as the workers'. `wait`: how many replicas confirm a batch before it is accepted; None: one
    where there are any. `max_bytes`: the stream refuses what would make it larger. `max_message`: bytes of one message,
    compressed. `timeout`: seconds for one batch, whatever has to be repeated meanwhile. `compression` None: zstd where it
    is installed, else gzip. `credentials`: gives user name and password each time a connection is opened, so that they may
    change; called in a thread.

    What is `None` is filled in by the tracer from `ASYNCTRACE_STREAM`, `ASYNCTRACE_STREAM_PREFIX` and
    `ASYNCTRACE_STREAM_CA`, else redis://127.0.0.1:6379 and the prefix `at`. Raises `ConfigurationError`, naming the
    setting, when something cannot work, and when redis-py is not installed (`pip install 'asynctrace[redis]'`).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str | None = None,
        shards: int = 64,
        wait: int | None = None,
        max_bytes: int = 1024 * 1024 * 1024,
        max_message: int = 8 * 1024 * 1024,
        timeout: float = 10.0,
        compression: Literal["gzip", "zstd", "none"] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        credentials: Callable[[], tuple[str, str]] | None = None,
        name: str = "redis",
    ) -> None:
        if find_spec("redis") is None:
            raise ConfigurationError("RedisExporter needs the package redis: pip install 'asynctrace[redis]'")
        self._name = name
        self._compression = _checked_compression(compression)
        self._limits: dict[str, Any] = {
            "shards": shards,
            "wait": wait,
            "max_bytes": max_bytes,
            "max_message": max_message,
            "timeout": timeout,
            "credentials": credentials,
        }
        self._given = (url, prefix, ca_file)
        self._url, self._prefix, self._ca_file = DEFAULT_URL, "at", checked_ca_file(ca_file)
        self._begin()
        self.with_defaults()

    def _begin(self) -> None:
        """What belongs to one process."""
        self._streams: dict[asyncio.AbstractEventLoop, RedisStream] = {}
        self._messages = 0
        self._sent_bytes = 0
        self._by_reason: Counter[str] = Counter()
        self._slices = Slices()

    def __getstate__(self) -> dict[str, object]:
        """For another process: the settings, secrets included. Connections and counters stay here."""
        return {name: value for name, value in vars(self).items() if name not in _OF_ONE_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._begin()

    def with_defaults(
        self, *, url: str | None = None, prefix: str | None = None, ca_file: str | os.PathLike[str] | None = None
    ) -> RedisExporter:
        """Fill in what was `None` at construction, before the first export; returns the same exporter."""
        own_url, own_prefix, own_ca_file = self._given
        self._url = (url or DEFAULT_URL) if own_url is None else own_url
        self._prefix = (prefix or "at") if own_prefix is None else own_prefix
        self._ca_file = checked_ca_file(ca_file if own_ca_file is None else own_ca_file)
        self._new_stream()  # it checks the settings, and connects to nothing
        return self

    @property
    def name(self) -> str:
        """The lane's name in the receipt."""
        return self._name

    @property
    def endpoint(self) -> str:
        """Scheme, hosts and ports of where the spans go."""
        return repr(parse_address(self._url))

    def statistics(self) -> RedisStatistics:
        """The counters at this moment."""
        return RedisStatistics(messages=self._messages, sent_bytes=self._sent_bytes, by_reason=dict(self._by_reason))

    async def start(self) -> None:
        """Load redis-py, beside the loop."""
        await run_aside(_load)

    async def export(self, batch: Batch) -> ExportResult:
        """Hand the batch over as one message."""
        body = await compressed(await protobuf_request(batch, self._slices), self._compression)
        message = Message(key=batch.key, records=batch.count, codec=CODECS[self._compression], body=body)
        self._messages += 1
        self._sent_bytes += len(body)
        result = await self._append(message)
        if result.reason:
            self._by_reason[result.reason] += 1
        return result

    async def release(self) -> None:
        """Close the connections of the running event loop; another loop can go on."""
        stream = self._streams.pop(asyncio.get_running_loop(), None)
        if stream is not None:
            await stream.aclose()

    def after_fork_in_child(self) -> None:
        """The connections are the parent's: let go of them without a word to the far side."""
        streams, self._streams = self._streams, {}
        for loop, stream in streams.items():
            keep((loop, stream))
            _abandon(stream)

    async def aclose(self) -> None:
        """Close all connections. Idempotent, from any loop."""
        await self.release()
        while self._streams:
            await _close_elsewhere(*self._streams.popitem())

    def __repr__(self) -> str:
        return f"RedisExporter({self.endpoint!r}, name={self._name!r})"

    # one message

    async def _append(self, message: Message) -> ExportResult:
        try:
            with own_traffic():
                await self._stream().append(message)
        except MessageTooLarge as error:
            return ExportResult.too_large("message_too_large", str(error))
        except StreamFull as error:
            return ExportResult.try_again(error.retry_after, "stream_full")
        except StreamAway:
            return ExportResult.try_again(reason="stream_away")
        except StreamError as error:
            return ExportResult.blocked("stream_refused", detail=str(error))
        return ExportResult(accepted=message.records)

    def _stream(self) -> RedisStream:
        """That of the running event loop."""
        loop = asyncio.get_running_loop()
        stream = self._streams.get(loop)
        if stream is None:
            for closed in [each for each in self._streams if each.is_closed()]:
                _abandon(self._streams.pop(closed))
            stream = self._streams[loop] = self._new_stream()
        return stream

    def _new_stream(self) -> RedisStream:
        return RedisStream(self._url, prefix=self._prefix, ca_file=self._ca_file, **self._limits)


def _load() -> None:
    with loading:
        import redis.asyncio  # noqa: F401  (what it takes is the time)


def _abandon(stream: RedisStream) -> None:
    """Where nothing can be awaited."""
    for writer in stream.taken_apart():
        keep(writer)
        close_copy(writer.transport)


async def _close_elsewhere(loop: asyncio.AbstractEventLoop, stream: RedisStream) -> None:
    if not loop.is_running():
        _abandon(stream)
    else:
        closing = asyncio.run_coroutine_threadsafe(stream.aclose(), loop)
        await asyncio.wait([asyncio.wrap_future(closing)], timeout=CLOSE_WITHIN)


def _checked_compression(compression: object) -> str:
    if compression is None:
        return "gzip" if find_spec("zstandard") is None else "zstd"
    if compression not in COMPRESSIONS:
        raise ConfigurationError('compression must be None, "gzip", "zstd" or "none"')
    if compression == "zstd" and find_spec("zstandard") is None:
        raise ConfigurationError('compression="zstd" needs the package zstandard: pip install "asynctrace[zstd]"')
    return str(compression)
