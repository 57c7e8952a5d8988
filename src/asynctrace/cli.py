"""The command `asynctrace`: run a collector, and read what it holds.

    serve   receive OTLP until SIGTERM or Ctrl-C
    ingest, worker, view: the same as programs of their own, on several machines
    ls, show, tail, diff, export, open: what a collector holds, see `_collector_commands`
    top     what is open and what is busy, until Ctrl-C
    demo    a workload, its receipt, its trees
    journal ls, show, export, recover: what processes wrote down and could not deliver
    dead-letter ls, show, retry: what far sides refused for good

Exit status: 0 done · 1 it could not be done (no such trace, an unreadable store, a failed check) · 2 wrong
usage, or an address, directory, stream or store that a program cannot have · 130 Ctrl-C · 141 the reader of a pipe went away.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ._collector_commands import add_collector_commands
from ._dead_letter_command import add_dead_letter
from ._errors import AsynctraceError, ConfigurationError
from ._fleet_commands import add_fleet_commands
from ._journal_command import add_journal
from ._serve_command import add_serve
from ._terminal import complain, write, write_tree
from ._top_command import add_top

__all__ = ["main"]


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
    add_serve(commands.add_parser("serve", help="receive OTLP over HTTP and keep it"))
    add_fleet_commands(commands)
    add_collector_commands(commands)
    add_top(commands.add_parser("top", help="what is open, and what is busy, at this moment"))
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


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="keep the store, for ls and show")
    parser.set_defaults(run=_demo)


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
        write_tree([span for group in groups for span in group.spans])
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
