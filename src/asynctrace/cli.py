"""The command `asynctrace`: run a collector, and read what it holds.

    serve   receive OTLP until SIGTERM or Ctrl-C      ls     the newest traces
    demo    a workload, its receipt, its trees        show   one trace as a tree
    journal ls, show, export, recover: what processes wrote down and could not deliver
    dead-letter ls, show, retry: what far sides refused for good

`ls` and `show` read the store directly: they work with and without a running collector.

Exit status: 0 done · 1 it could not be done (no such trace, an unreadable store, a failed check) · 2 wrong
usage, or an address or directory that `serve` cannot have · 130 Ctrl-C · 141 the reader of a pipe went away.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._contracts import Span
from ._dead_letter_command import add_dead_letter
from ._errors import AsynctraceError, ConfigurationError
from ._journal_command import add_journal
from ._terminal import complain, terminal_width, write, write_json, write_tree

if TYPE_CHECKING:
    from .collector import SQLiteReader
    from .wire import ResourceSpans

__all__ = ["main"]

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4318
LIST_LIMIT: Final = 20
MAX_LIST_LIMIT: Final = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except AsynctraceError as error:
        complain(str(error))
        return 2 if isinstance(error, ConfigurationError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the interpreter flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────────────


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asynctrace", description="Receive traces on this machine and look at them.")
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands.add_parser("serve", help="receive OTLP over HTTP and keep it"))
    _add_ls(commands.add_parser("ls", help="list the newest traces"))
    _add_show(commands.add_parser("show", help="print one trace as a tree"))
    _add_demo(commands.add_parser("demo", help="trace a workload, collect it here, and count it"))
    add_dead_letter(commands.add_parser("dead-letter", help="what far sides refused: list, show, send it again"))
    add_journal(commands.add_parser("journal", help="what dead processes left to be delivered: list, show, send it"))
    return parser


class _Version(argparse.Action):
    """`--version`, looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"asynctrace {version('asynctrace')}")
        parser.exit()


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to bind (%(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to bind; 0 picks a free one (%(default)s)")
    _add_directory(parser)
    parser.add_argument("--no-open", action="store_true", help="open no browser (this version never does)")
    parser.add_argument("--token", help="secret that senders and readers must present; default: $ASYNCTRACE_TOKEN")
    parser.set_defaults(run=_serve)


def _add_ls(parser: argparse.ArgumentParser) -> None:
    _add_directory(parser)
    parser.add_argument("--limit", type=_limit, default=LIST_LIMIT, help="how many traces (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON as GET /api/v1/traces answers it")
    parser.set_defaults(run=_ls)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="a trace id, or the beginning of one")
    _add_directory(parser)
    parser.add_argument("--json", action="store_true", help="print the trace as OTLP/JSON")
    parser.add_argument("--no-details", action="store_true", help="names and durations only")
    parser.set_defaults(run=_show)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="keep the store, for ls and show")
    parser.set_defaults(run=_demo)


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        dest="directory",
        help="where traces are kept; default: $XDG_STATE_HOME/asynctrace or ~/.local/state/asynctrace",
    )


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIST_LIMIT:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_LIST_LIMIT} is needed, not {text!r}")
    return int(text)


def _directory(options: argparse.Namespace) -> Path:
    if options.directory is not None:
        return Path(options.directory)
    state = os.environ.get("XDG_STATE_HOME", "")
    # the XDG specification: a relative path is invalid and to be ignored
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "asynctrace"


# ── serve ───────────────────────────────────────────────────────────────────────────────────────────────────


def _serve(options: argparse.Namespace) -> int:
    token = options.token if options.token is not None else os.environ.get("ASYNCTRACE_TOKEN") or None
    asyncio.run(_run_collector(options, token))
    return 0


async def _run_collector(options: argparse.Namespace, token: str | None) -> None:
    import anyio

    from .collector import Collector, SQLiteStore, StoreError

    directory = _directory(options)
    try:
        store = SQLiteStore(directory)
    except StoreError as error:
        raise ConfigurationError(str(error)) from error
    try:
        async with Collector(store, host=options.host, port=options.port, token=token) as collector:
            # Left at the first signal, so that a second one ends the process at once.
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                print(collector.url, flush=True)
                complain(f"traces are kept in {directory}; Ctrl-C ends")
                await anext(signals)
    finally:
        store.close()


# ── ls, show ────────────────────────────────────────────────────────────────────────────────────────────────


def _ls(options: argparse.Namespace) -> int:
    from .collector import render_runs

    reader = _reader(options)
    page = reader.runs(options.limit)
    if options.json:
        import msgspec

        write_json(msgspec.json.encode(page))
    elif page.traces:
        write(render_runs(page.traces, width=terminal_width()))
    else:
        complain(f"no traces in {reader.directory} yet")
    return 0


def _show(options: argparse.Namespace) -> int:
    reader = _reader(options)
    trace_id = _the_one(reader, options.trace)
    groups = reader.trace(trace_id)
    if options.json:
        from .wire import json_request

        write_json(json_request(groups))
    else:
        write_tree(_spans_of(groups), details=not options.no_details)
    return 0


def _spans_of(groups: Sequence[ResourceSpans]) -> list[Span]:
    return [span for group in groups for span in group.spans]


def _reader(options: argparse.Namespace) -> SQLiteReader:
    from .collector import SQLiteReader

    return SQLiteReader(_directory(options))


def _the_one(reader: SQLiteReader, prefix: str) -> str:
    """The only trace id that begins with `prefix`."""
    try:
        found = reader.find(prefix.lower(), limit=4)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if not found:
        raise AsynctraceError(f"no trace begins with {prefix} in {reader.directory}: `asynctrace ls` lists them")
    if len(found) > 1:
        several = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise AsynctraceError(f"{prefix} is the beginning of several traces: {several}")
    return found[0]


# ── demo ────────────────────────────────────────────────────────────────────────────────────────────────────


def _demo(options: argparse.Namespace) -> int:
    from ._demo import run_demo

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]  # they are meant for other programs, and could turn tracing off
    directory = Path(tempfile.mkdtemp(prefix="asynctrace-demo-"))
    try:
        result = asyncio.run(run_demo(directory))
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    for groups in result.traces:
        write_tree(_spans_of(groups))
        write("")
    write(repr(result.receipt))
    write(f"the collector holds {result.stored} spans of {len(result.traces)} traces")
    if options.keep:
        write(f"look again: asynctrace ls --data {directory}")
    if result.is_whole:
        return 0
    complain(f"{result.receipt.accepted} spans were accepted, {result.stored} are in the store")
    return 1


if __name__ == "__main__":
    sys.exit(main())
