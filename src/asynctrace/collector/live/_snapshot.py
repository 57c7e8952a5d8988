"""The open spans of a collector in a small file, for the one that comes after it.

Format 1: MessagePack of `_Snapshot`. Promises: the file is whole or is the one before; one that is damaged, of another
version or not there reads as empty; only its owner can read it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from .._rows import Facts, Origin, SpanRow
from ._open_spans import OpenSpan

__all__ = ["SNAPSHOT_FILE", "read_snapshot", "write_snapshot"]

FORMAT: Final = 1
SNAPSHOT_FILE: Final = "open-spans.msgpack"
"""Its name in the directory of a store."""
MOST_BYTES: Final = 4 * 1024 * 1024
"""Of messages: the latest notices; what does not fit is only forgotten by a restart."""


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    row: tuple[Any, ...]
    resource: bytes
    scope: bytes
    service: str
    heard_ns: int
    resource_schema: str = ""
    scope_schema: str = ""


class _Snapshot(msgspec.Struct, frozen=True):
    format: int
    spans: list[_Saved]


def write_snapshot(path: Path, spans: list[OpenSpan]) -> None:
    """Replace the file. Raises `OSError`."""
    saved, room = [], MOST_BYTES
    for span in reversed(spans):  # the latest first
        room -= len(span.row.message)
        if room < 0:
            break
        saved.append(_save(span))
    beside = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.msgpack.encode(_Snapshot(FORMAT, saved[::-1])))
    beside.replace(path)


def read_snapshot(path: Path) -> list[OpenSpan]:
    """What was written last; empty where there is nothing to be read."""
    try:
        snapshot = msgspec.msgpack.decode(path.read_bytes(), type=_Snapshot)
        return [_restored(saved) for saved in snapshot.spans] if snapshot.format == FORMAT else []
    except (OSError, msgspec.MsgspecError, TypeError, ValueError):
        return []


def _save(span: OpenSpan) -> _Saved:
    facts = span.row.facts._replace(tokens=())
    row = (*span.row[:8], span.row.message, tuple(facts))
    origin = span.origin
    schemas = (origin.resource_schema, origin.scope_schema)
    return _Saved(row, origin.resource, origin.scope, origin.service, span.heard_ns, *schemas)


def _restored(saved: _Saved) -> OpenSpan:
    *columns, message, facts = saved.row
    row = SpanRow._make((*columns, 0, message, Facts((), *facts[1:])))
    origin = Origin(
        resource=saved.resource,
        scope=saved.scope,
        service=saved.service,
        resource_schema=saved.resource_schema,
        scope_schema=saved.scope_schema,
    )
    return OpenSpan(row, origin, float("-inf"), saved.heard_ns)
