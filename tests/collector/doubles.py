"""Stores with a fault, each named after it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import msgspec

from asynctrace.collector import RequestKey, SQLiteStore, StoreError
from asynctrace.wire import ResourceSpans


class StoreThatHolds(SQLiteStore):
    """Commits nothing before `release` is set."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__(directory)
        self.entered = threading.Event()
        self.release = threading.Event()

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        self.entered.set()
        self.release.wait(30)
        super().add(groups, keys)


class StoreOnAFullDisk(SQLiteStore):
    """Cannot commit while `full`."""

    full = True

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        if self.full:
            raise StoreError("the store cannot grow, the disk is full: free some space")
        super().add(groups, keys)


class StoreThatChokes(SQLiteStore):
    """Fails on a span named `choke`, in a way nobody foresaw."""

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        if any(span.name == "choke" for group in groups for span in group.spans):
            raise RuntimeError("unforeseen")
        super().add(groups, keys)


class StoreThatCountsTwice(SQLiteStore):
    """Takes a span that comes again for a new one."""

    _arrivals = 0

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        super().add([self._renamed(group) for group in groups], keys)

    def _renamed(self, group: ResourceSpans) -> ResourceSpans:
        self._arrivals += 1
        spans = tuple(
            msgspec.structs.replace(span, span_id=f"{self._arrivals:08x}{span.span_id[8:]}") for span in group.spans
        )
        return msgspec.structs.replace(group, spans=spans)


class StoreThatTrustsTheLatest(SQLiteStore):
    """Lets what arrives last win, even an open version over an ended one. For traces of one span."""

    def add(self, groups: Sequence[ResourceSpans], keys: Sequence[RequestKey] = ()) -> None:
        if self._connection is not None:
            self._connection.execute("DELETE FROM span")
            self._connection.execute("DELETE FROM trace")
        super().add(groups, keys)
