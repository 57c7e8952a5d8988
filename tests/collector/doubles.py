"""Stores with a fault, each named after it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import msgspec

from asynctrace.collector import SQLiteStore, StoreError
from asynctrace.collector._rows import Received, SpanRow
from asynctrace.wire import decode_span, encode_span


class StoreThatHolds(SQLiteStore):
    """Commits nothing before `release` is set."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__(directory)
        self.entered = threading.Event()
        self.release = threading.Event()

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        self.entered.set()
        self.release.wait(30)
        super().add(received)


class StoreThatRemembers(SQLiteStore):
    """The real one; what it was given can be looked at."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__(directory)
        self.given: list[Received] = []

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        super().add(received)
        self.given += received


class StoreOnAFullDisk(SQLiteStore):
    """Cannot commit while `full`."""

    full = True

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        if self.full:
            raise StoreError("the store cannot grow, the disk is full: free some space")
        super().add(received)


class StoreThatChokes(SQLiteStore):
    """Fails on a span named `choke`, in a way nobody foresaw."""

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        if any(row.name == "choke" for each in received for row in each.rows):
            raise RuntimeError("unforeseen")
        super().add(received)


class StoreThatCountsTwice(SQLiteStore):
    """Takes a span that comes again for a new one."""

    _arrivals = 0

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        super().add([self._renamed(each) for each in received])

    def _renamed(self, received: Received) -> Received:
        self._arrivals += 1
        rows = [renamed(row, self._arrivals.to_bytes(4, "big") + row.span_id[4:]) for row in received.rows]
        return msgspec.structs.replace(received, rows=rows)


def renamed(row: SpanRow, span_id: bytes) -> SpanRow:
    """The same span under another id."""
    span = msgspec.structs.replace(decode_span(row.message), span_id=span_id.hex())
    return row._replace(span_id=span_id, message=encode_span(span))


class StoreThatTrustsTheLatest(SQLiteStore):
    """Lets what arrives last win, even an open version over an ended one. For traces of one span."""

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        if self._connection is not None:
            self._connection.execute("DELETE FROM span")
            self._connection.execute("DELETE FROM trace")
        super().add(received)
