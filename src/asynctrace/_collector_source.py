"""Where commands read traces: from a running collector, over its API, or from the directory that it keeps them in.

Promises: both give the same answers to the same query; a directory can be read with and without a collector; every failure
is an `AsynctraceError` of one line.
"""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from ._errors import AsynctraceError
from .collector.api._diff import compare_traces
from .collector.api._export import exported
from .collector.api._view import View, Whole
from .collector.live import SNAPSHOT_FILE, Live, read_snapshot
from .collector.query import Query, parse
from .collector.receiving._kept import read_kept
from .collector.store import RunPage, RunSummary, SpanStatistics, SQLiteReader

__all__ = ["Directory", "Running", "Source", "source_of"]

TIMEOUT: Final = 60.0
"""Seconds for an answer: a text search over a million spans takes three."""
LOOK_EVERY: Final = 0.5
"""Seconds between two looks into a directory."""
WATCHED: Final = 200
"""The newest traces of a directory, which are watched."""


class Source(Protocol):
    """What commands ask for."""

    where: str
    """The address or directory, for people."""

    def traces(self, query: Query, limit: int) -> RunPage:
        """The newest for which the query holds."""
        ...

    def find(self, prefix: str) -> list[str]:
        """At most four trace ids that begin so."""
        ...

    def whole(self, trace_id: str) -> Whole:
        """A trace."""
        ...

    def compare(self, a: str, b: str) -> dict[str, Any]:
        """As `GET /api/v1/diff` answers."""
        ...

    def file(self, trace_id: str, kind: str, *, is_redacted: bool) -> bytes:
        """A trace as a file of this kind."""
        ...

    def statistics(self, by: str, seconds: int) -> SpanStatistics:
        """As `GET /api/v1/stats` answers, of the spans of the last so many seconds."""
        ...

    def changes(self, query: Query) -> Iterator[RunSummary]:
        """Traces for which the query holds, each time one changes, for ever."""
        ...


def source_of(url: str | None, directory: Path, token: str | None) -> Source:
    """The collector at `url`, or the directory."""
    return Directory(directory) if url is None else Running(url, token)


class Directory:
    """The store in a directory. What a collector holds in memory is read from its snapshot, which is seconds old."""

    def __init__(self, directory: Path) -> None:
        self.where = str(directory)
        live = Live()
        live.open.restore(read_snapshot(directory / SNAPSHOT_FILE), is_running=True)
        self._view = View(SQLiteReader(directory), live)

    def traces(self, query: Query, limit: int) -> RunPage:
        return self._view.page(query, limit)

    def find(self, prefix: str) -> list[str]:
        found = self._view.store.find(prefix, 4)
        opened = (trace_id.hex() for trace_id in self._view.live.open.traces())
        return list(dict.fromkeys([*found, *(each for each in opened if each.startswith(prefix))]))[:4]

    def whole(self, trace_id: str) -> Whole:
        whole = self._view.whole(trace_id)
        if whole is None:
            raise AsynctraceError(f"no trace {trace_id} in {self.where}")
        return whole

    def compare(self, a: str, b: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(compare_traces(self.whole(a), self.whole(b)))
        return found

    def file(self, trace_id: str, kind: str, *, is_redacted: bool) -> bytes:
        return exported(self.whole(trace_id), kind, time.time_ns(), is_redacted=is_redacted)

    def statistics(self, by: str, seconds: int) -> SpanStatistics:
        return self._view.store.stats(by, since_ns=time.time_ns() - seconds * 10**9)

    def changes(self, query: Query) -> Iterator[RunSummary]:
        before = {trace.trace_id: trace for trace in self.traces(query, WATCHED).traces}
        while True:
            time.sleep(LOOK_EVERY)
            now = {trace.trace_id: trace for trace in self.traces(query, WATCHED).traces}
            yield from (trace for trace_id, trace in reversed(now.items()) if before.get(trace_id) != trace)
            before = now


class Running:
    """The collector at `url`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.where = url.rstrip("/")
        if not _is_address(self.where):
            raise AsynctraceError(f"{url} is no address of a collector: http://127.0.0.1:4318")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def traces(self, query: Query, limit: int) -> RunPage:
        found: list[RunSummary] = []
        cursor: str | None = None
        while True:
            page = msgspec.json.decode(
                self._get(
                    "/traces", q=str(query), limit=str(min(limit, 1000)), **({"cursor": cursor} if cursor else {})
                ),
                type=RunPage,
            )
            found += page.traces
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return RunPage(traces=tuple(found[:limit]), cursor=cursor, scanned=page.scanned)

    def find(self, prefix: str) -> list[str]:
        return [trace.trace_id for trace in self.traces(parse(f"id:{prefix}"), 4).traces]

    def whole(self, trace_id: str) -> Whole:
        summary = msgspec.json.decode(self._get(f"/traces/{trace_id}"), type=RunSummary)
        received = read_kept(self._get(f"/traces/{trace_id}.otlp.json"))
        is_lost = summary.lost and not summary.open
        return Whole(
            summary=summary,
            origins=received.origins,
            rows=received.rows,
            logs=[],
            version=0,
            order=0,
            lost=frozenset(index for index, row in enumerate(received.rows) if is_lost and not row.end_ns),
        )

    def compare(self, a: str, b: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self._get("/diff", a=a, b=b))
        return found

    def file(self, trace_id: str, kind: str, *, is_redacted: bool) -> bytes:
        return self._get(f"/traces/{trace_id}.{kind}", redact="1" if is_redacted else "0")

    def statistics(self, by: str, seconds: int) -> SpanStatistics:
        return msgspec.json.decode(self._get("/stats", by=by, since=f"{seconds}s"), type=SpanStatistics)

    def changes(self, query: Query) -> Iterator[RunSummary]:
        with self._open("/tail", None, q=str(query)) as answer:
            for line in answer:
                with contextlib.suppress(msgspec.ValidationError):  # of a trace that was deleted
                    yield msgspec.json.decode(line, type=RunSummary)
        raise AsynctraceError(f"the collector at {self.where} has ended")

    def _get(self, path: str, **parameters: str) -> bytes:
        with self._open(path, TIMEOUT, **parameters) as answer:
            return answer.read()

    def _open(self, path: str, timeout: float | None, **parameters: str) -> IO[bytes]:
        address = f"{self.where}/api/v1{path}?{urllib.parse.urlencode(parameters)}"
        request = urllib.request.Request(address, headers=self._headers)  # noqa: S310  (http or https, see above)
        try:
            opened: IO[bytes] = _opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise AsynctraceError(_reason(error)) from error
        except (OSError, ValueError) as error:
            raise AsynctraceError(f"no collector answers at {self.where}: {getattr(error, 'reason', error)}") from error
        return opened


_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A collector is near: nothing is sent to a proxy of the environment."""


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        said = msgspec.json.decode(error.read(), type=dict[str, Any])["error"]
    except (msgspec.DecodeError, KeyError, OSError):
        return f"the collector answered {error.code}"
    return str(said)
