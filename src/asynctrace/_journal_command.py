"""The commands `asynctrace journal …`: what processes wrote down and could not deliver yet.

    ls       which journals there are, and how many spans wait in them      show     one of them, as trees
    recover  deliver what dead processes left, now                          export   one of them, as lines of OTLP/JSON

`ls`, `show` and `export` change nothing, and work on the journal of a living process too. `recover` claims: what a living
process holds, it leaves alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ._contracts import Receipt, Span
from ._errors import AsynctraceError, ConfigurationError, DeliveryTimeout, WireError
from ._terminal import complain, terminal_width, write, write_tree

if TYPE_CHECKING:
    from .spanlog.journal import JournalDirectory, JournalEntry, OrphanLog
    from .spanlog.journal._look import JournalLook

__all__ = ["add_journal"]

DEFAULT_LANE: Final = "otlp"
DEFAULT_TIMEOUT: Final = 60.0
"""Seconds for one journal."""
SHORT_ID: Final = 8


def add_journal(parser: argparse.ArgumentParser) -> None:
    """Add the commands to the parser of `asynctrace journal`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_ls(commands.add_parser("ls", help="list the journals"))
    _add_show(commands.add_parser("show", help="print the spans of one journal as trees"))
    _add_export(commands.add_parser("export", help="write the spans of one journal as lines of OTLP/JSON"))
    _add_recover(commands.add_parser("recover", help="deliver what dead processes left, now"))


def _add_ls(parser: argparse.ArgumentParser) -> None:
    _add_path(parser)
    _add_state(parser)
    parser.set_defaults(run=_ls)


def _add_show(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    parser.add_argument("--no-details", action="store_true", help="names and durations only")
    parser.set_defaults(run=_show)


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    parser.add_argument("--output", metavar="FILE", type=Path, help="a file that is not there yet; default: stdout")
    parser.set_defaults(run=_export)


def _add_recover(parser: argparse.ArgumentParser) -> None:
    _add_path(parser)
    _add_state(parser)
    parser.add_argument(
        "--endpoint", metavar="URL", help="where to; default: as the OTEL_EXPORTER_OTLP_* variables say"
    )
    parser.add_argument("--lane", default=DEFAULT_LANE, help="the exporter whose spans are sent (%(default)s)")
    parser.add_argument(
        "--timeout", type=_seconds, default=DEFAULT_TIMEOUT, help="seconds for one journal (%(default)g)"
    )
    parser.set_defaults(run=_recover)


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="?", type=Path, help="a journal, or a directory of journals")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="JOURNAL", help="a journal's id, the beginning of one, or its directory")
    _add_state(parser)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="the state directory; default: $ASYNCTRACE_STATE_DIR, $XDG_STATE_HOME/asynctrace or ~/.local/state/asynctrace",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")
    return seconds


# ── which journals ──────────────────────────────────────────────────────────────────────────────────────────


def _state(options: argparse.Namespace) -> Path:
    from .runtime._environment import state_directory

    return options.state if options.state is not None else state_directory(os.environ)


def _entries(path: Path) -> list[JournalEntry]:
    """The journals of a state directory, of a service, or the one that is there."""
    from .spanlog.journal import list_journals

    if (path / "lock").exists() or (path / "meta").exists():
        return [entry for entry in list_journals(path.absolute().parent) if entry.path.name == path.absolute().name]
    services = sorted((path / "v1").iterdir()) if (path / "v1").is_dir() else [path]
    return [entry for service in services for entry in list_journals(service)]


def _the_one(options: argparse.Namespace) -> JournalEntry:
    """The only journal that the user can have meant."""
    state = _state(options)
    given = Path(options.name)
    found = _entries(given) if given.is_dir() else _entries(state)
    if not given.is_dir():
        found = [entry for entry in found if entry.path.name.startswith(options.name)]
    if not found:
        raise AsynctraceError(f"no journal begins with {options.name} in {state}: `asynctrace journal ls` lists them")
    if len(found) > 1:
        several = ", ".join(entry.path.stem for entry in found[:3]) + (", …" if len(found) > 3 else "")
        raise AsynctraceError(f"{options.name} names several journals: {several}")
    return found[0]


def _look(entry: JournalEntry) -> JournalLook:
    from .runtime._journal import boot_id
    from .spanlog.journal._look import JournalLook

    if entry.meta is None:
        raise AsynctraceError(f"the journal {entry.path} is {entry.state}: it cannot be read")
    return JournalLook(entry.path, entry.meta, boot_id=boot_id())


# ── ls ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _ls(options: argparse.Namespace) -> int:
    path = options.path if options.path is not None else _state(options)
    entries = _entries(path)
    if not entries:
        complain(f"no journals in {path}")
        return 0
    rows = [("JOURNAL", "STATE", "PID", "AGE", "OPEN", "SIZE", "SERVICE", "WAITING"), *map(_row, entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    width = terminal_width()
    for row in rows:
        cells = [
            cell.rjust(room) if column in (2, 3, 4, 5) else cell.ljust(room)
            for column, (cell, room) in enumerate(zip(row, widths, strict=False))
        ]
        write("  ".join([*cells, row[-1]])[:width].rstrip())
    return 0


def _row(entry: JournalEntry) -> tuple[str, ...]:
    name, size = entry.path.name[:SHORT_ID], _bytes(entry.size)
    if entry.meta is None:
        return name, entry.state, "", "", "", size, "?", "?"
    service = _printable(entry.meta.service)[:20]
    told = (name, entry.state, str(entry.meta.pid), _age(time.time_ns() - entry.meta.created_ns))
    try:
        with closing(_look(entry)) as look:
            waiting = ", ".join(f"{_printable(lane)} {'?' if n is None else n}" for lane, n in look.waiting().items())
            return *told, str(len(look.open_spans())), size, service, waiting
    except AsynctraceError:  # it went away, or a newer version wrote in it
        return *told, "", size, service, "?"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    size, unit = (count / 1024, "KiB") if count < 1 << 20 else (count / (1 << 20), "MiB")
    return f"{size:.1f} {unit}" if size < 10 else f"{size:.0f} {unit}"


def _age(nanoseconds: int) -> str:
    seconds = max(0, nanoseconds // 10**9)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


# ── show, export ────────────────────────────────────────────────────────────────────────────────────────────


def _show(options: argparse.Namespace) -> int:
    from .wire import decode_records, decode_span

    with closing(_look(_the_one(options))) as look:
        spans: list[Span] = []
        for piece in look.pieces():
            spans += [span for record in _sound(piece) for span in decode_records([record])]
        spans += [decode_span(body) for body in look.open_spans()]
        _tell_damage(look)
    if spans:
        write_tree(spans, details=not options.no_details)
    else:
        complain("no spans wait in this journal")
    return 0


def _export(options: argparse.Namespace) -> int:
    with closing(_look(_the_one(options))) as look:
        if options.output is None:
            _write_lines(look, sys.stdout.buffer)
        else:
            with open(_new_file(options.output), "wb") as file:
                _write_lines(look, file)
        if count := len(look.open_spans()):
            complain(f"{count} open spans are left out")
        _tell_damage(look)
    return 0


def _new_file(path: Path) -> int:
    """Spans hold what users said: the file is its owner's only."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror}") from error


def _write_lines(look: JournalLook, file: BinaryIO) -> None:
    """Each line a whole export request (OpenTelemetry specification, "OpenTelemetry Protocol File Exporter")."""
    from .wire import decode_request, encode_request, json_request

    for piece in look.pieces():
        records = list(_sound(piece))
        request = b"".join(encode_request(look.meta.resource, look.meta.scope, records))
        file.write(json_request(decode_request(request)) + b"\n")


def _sound(piece: bytes) -> Iterable[bytes]:
    """The records that can be decoded: a frame may be whole, and what it holds damaged."""
    from .wire import decode_records, scan_records

    try:
        decode_records([piece])
    except WireError:
        return _each_sound([piece[start:end] for start, end in scan_records(piece)])
    return [piece]


def _each_sound(records: list[bytes]) -> Iterator[bytes]:
    from .wire import decode_records

    for record in records:
        try:
            decode_records([record])
        except WireError:
            complain("a damaged span is left out")
        else:
            yield record


def _tell_damage(look: JournalLook) -> None:
    if look.damaged:
        complain(f"{look.damaged} spans of this journal are damaged or gone")


# ── recover ─────────────────────────────────────────────────────────────────────────────────────────────────


def _recover(options: argparse.Namespace) -> int:
    from .spanlog.journal import JournalState, claim

    path = options.path if options.path is not None else _state(options)
    entries = _entries(path)
    is_done = True
    for entry in entries:
        if entry.state is not JournalState.ORPHAN:
            complain(f"{entry.path.name[:SHORT_ID]} is {entry.state}: left alone")
        elif (directory := claim(entry.path)) is not None:
            try:
                is_done &= asyncio.run(_deliver(directory, options))
            finally:
                directory.release()
    if not entries:
        complain(f"no journals in {path}")
    return 0 if is_done else 1


async def _deliver(directory: JournalDirectory, options: argparse.Namespace) -> bool:
    """Whether everything of this lane is settled."""
    from .runtime._journal import boot_id
    from .spanlog.journal import OrphanLog

    name, lane = directory.path.name[:SHORT_ID], options.lane
    with closing(OrphanLog.open(directory, boot_id=boot_id())) as orphan:
        lanes = orphan.lane_names() or [lane]
        if lane not in lanes:
            complain(f"{name} has no lane {lane}, but {', '.join(map(_printable, lanes))}: see --lane")
            return False
        before = orphan.lane_file(lane).accepted
        receipt = await _send(orphan, options)
        accepted = orphan.lane_file(lane).accepted - before
        write(
            f"{name}  {accepted} accepted, {receipt.rejected} rejected, {receipt.dropped} dropped, {_left(receipt)} left"
        )
        waiting = [other for other in lanes if orphan.lane_file(other).cursor < orphan.appended]
        if not waiting and not orphan.unclosed:
            directory.remove()
        elif lane not in waiting:
            complain(f"{name} is kept: spans wait for {', '.join(map(_printable, waiting))}")
        return lane not in waiting and not orphan.unclosed


def _left(receipt: Receipt) -> int:
    return receipt.pending + receipt.spooled


async def _send(orphan: OrphanLog, options: argparse.Namespace) -> Receipt:
    import random
    from contextvars import Context

    from ._diagnostics import Diagnostics
    from .delivery import Delivery, DeliveryOptions, Origin
    from .exporters import OTLPExporter
    from .runtime._environment import read_environment

    environment = read_environment()
    exporter = OTLPExporter(options.endpoint, ca_file=environment.ca_file, name=options.lane).with_defaults(
        endpoint=environment.endpoint,
        headers=environment.headers,
        timeout=environment.timeout,
        compression=environment.compression,
    )
    delivery = Delivery(
        orphan,
        [(options.lane, exporter)],
        options=DeliveryOptions(),
        origin=Origin.recorded(orphan.journal_id, orphan.resource_bytes, orphan.scope_bytes),
        drain_timeout=1.0,
        diagnostics=Diagnostics(time.monotonic_ns),
        random=random.random,
        new_context=Context,
    )
    delivery.resume({options.lane: orphan.lane_file(options.lane)})
    try:
        await delivery.flush(orphan.appended, options.timeout)
    except DeliveryTimeout:
        complain(f"{options.endpoint or exporter.endpoint} did not take everything within {options.timeout:g} s")
    finally:
        await delivery.finish("shutdown", 1.0)
    return delivery.receipt()
