"""The commands `asynctrace dead-letter …`: what far sides refused for good.

    ls     which letters there are, and why      show   one or several, with the answer and the spans
    retry  send them again, under their old keys; those that are accepted are removed

`ls` and `show` change nothing. A letter that is damaged, or of a newer version, is told of and left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._contracts import Exporter, ExportResult, Outcome
from ._errors import AsynctraceError, WireError
from ._terminal import complain, terminal_width, write, write_json, write_tree

if TYPE_CHECKING:
    from .delivery._dead_letters import DeadLetter

__all__ = ["add_dead_letter"]

ID_DIGITS: Final = 8


def add_dead_letter(parser: argparse.ArgumentParser) -> None:
    """Add the commands to the parser of `asynctrace dead-letter`."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    ls = commands.add_parser("ls", help="list the letters, oldest first")
    _add_place(ls)
    ls.add_argument("--json", action="store_true", help="print one JSON object a letter")
    ls.set_defaults(run=_ls)
    show = commands.add_parser("show", help="print the answers and the refused spans")
    _add_place(show)
    show.add_argument("--no-details", action="store_true", help="names and durations only")
    show.set_defaults(run=_show)
    retry = commands.add_parser("retry", help="send the letters again; remove those that are accepted")
    _add_place(retry)
    retry.add_argument("--endpoint", metavar="URL", help="where to; default: as the OTEL_EXPORTER_OTLP_* variables say")
    retry.add_argument("--lane", help="only what this exporter had sent; default: all")
    retry.set_defaults(run=_retry)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", metavar="PATH", nargs="?", help="a letter, the beginning of its name, or a directory; default: all"
    )
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        help="the state directory; default: $ASYNCTRACE_STATE_DIR, $XDG_STATE_HOME/asynctrace or ~/.local/state/asynctrace",
    )


# ── which letters ───────────────────────────────────────────────────────────────────────────────────────────


def _letters(options: argparse.Namespace) -> tuple[list[DeadLetter], bool]:
    """Those that can be read, and whether that is all of them; the others are complained of."""
    from .delivery._dead_letters import DeadLetterError, read_letter

    letters, is_whole = [], True
    for path in _paths(options):
        try:
            letters.append(read_letter(path))
        except FileNotFoundError:
            continue  # its process made room, or somebody else retried it
        except (DeadLetterError, OSError) as error:
            is_whole = False
            complain(str(error))
    return letters, is_whole


def _paths(options: argparse.Namespace) -> list[Path]:
    from .delivery._dead_letters import find_letters
    from .runtime._environment import state_directory

    state = options.state if options.state is not None else state_directory(os.environ)
    if options.path is None:
        return find_letters(state)
    if os.path.lexists(options.path):
        return find_letters(Path(options.path))
    found = [path for path in find_letters(state) if path.name.startswith(options.path)]
    if not found:
        raise AsynctraceError(
            f"no letter begins with {options.path} in {state}: `asynctrace dead-letter ls` lists them"
        )
    return found


# ── ls, show ────────────────────────────────────────────────────────────────────────────────────────────────


def _ls(options: argparse.Namespace) -> int:
    letters, is_whole = _letters(options)
    if options.json:
        for letter in letters:
            _write_json(letter)
    elif letters:
        _write_table(letters)
    elif is_whole:
        complain("no dead letters")
    return 0 if is_whole else 1


def _write_json(letter: DeadLetter) -> None:
    import msgspec

    told = msgspec.to_builtins(letter.header)
    write_json(msgspec.json.encode({"path": str(letter.path), **told}))


def _write_table(letters: Iterable[DeadLetter]) -> None:
    rows = [("LETTER", "TIME", "SPANS", "LANE", "SERVICE", "ANSWER"), *map(_row, letters)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [
            cell.rjust(room) if column == 2 else cell.ljust(room)
            for column, (cell, room) in enumerate(zip(row, widths, strict=False))
        ]
        write("  ".join([*cells, row[-1]])[: terminal_width()].rstrip())


def _row(letter: DeadLetter) -> tuple[str, ...]:
    header = letter.header
    texts = (_printable(header.lane)[:12], _printable(header.service)[:12], _printable(header.detail or header.reason))
    return (letter.path.name[:ID_DIGITS], _time(header.time_ns), _count(letter), *texts)


def _show(options: argparse.Namespace) -> int:
    from .wire import decode_records

    letters, is_whole = _letters(options)
    for letter in letters:
        header = letter.header
        write(f"{letter.path.name}  {_time(header.time_ns)}  {_printable(header.service)}  {_printable(header.lane)}")
        write(f"{_count(letter)} refused: {_printable(header.reason)}")
        if header.detail:
            write(_printable(header.detail))
        write(f"key {_printable(header.key)}")
        try:
            write_tree(decode_records([letter.payload]), details=not options.no_details)
        except WireError as error:
            complain(f"{letter.path} holds {header.size} bytes that are no spans: {error}")
        write("")
    if not letters and is_whole:
        complain("no dead letters")
    return 0 if is_whole else 1


def _count(letter: DeadLetter) -> str:
    header = letter.header
    return str(header.count) if header.count == header.records else f"{header.count} of {header.records}"


def _time(time_ns: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ns // 10**9):%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "?"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


# ── retry ───────────────────────────────────────────────────────────────────────────────────────────────────


def _retry(options: argparse.Namespace) -> int:
    letters, is_whole = _letters(options)
    chosen = [letter for letter in letters if options.lane in (None, letter.header.lane)]
    if not chosen:
        complain("no dead letters")
        return 0 if is_whole else 1
    accepted = asyncio.run(_send_all(_exporter(options.endpoint), chosen))
    kept = len(chosen) - accepted
    write(f"{accepted} accepted and removed, {kept} kept")
    return 0 if is_whole and not kept else 1


def _exporter(endpoint: str | None) -> Exporter:
    from .exporters import OTLPExporter
    from .runtime._environment import read_environment
    from .runtime._options import exporters_of
    from .runtime._sources import SystemClock

    (exporter,) = exporters_of([OTLPExporter(endpoint)], read_environment(), SystemClock())
    return exporter


async def _send_all(exporter: Exporter, letters: Iterable[DeadLetter]) -> int:
    """How many were accepted. Ends early where the far side is away: the next letter would fare no better."""
    accepted = 0
    try:
        for letter in letters:
            result = await _send(exporter, letter)
            if result.outcome is Outcome.SETTLED and result.accepted == letter.header.records:
                letter.path.unlink(missing_ok=True)
                accepted += 1
                continue
            complain(f"{letter.path.name} is kept: {_printable(result.detail or result.reason)}")
            if result.outcome in (Outcome.TRY_AGAIN, Outcome.BLOCKED):
                break
    finally:
        await exporter.aclose()
    return accepted


async def _send(exporter: Exporter, letter: DeadLetter) -> ExportResult:
    from .delivery import Origin, RecordBatch

    header = letter.header
    try:
        origin = Origin.recorded(header.key.partition(":")[0], header.resource, header.scope)
    except WireError as error:
        return ExportResult.refused("damaged", f"it cannot be sent: {error}")
    return await exporter.export(RecordBatch(origin, header.key, header.records, [letter.payload], is_scoped=True))
