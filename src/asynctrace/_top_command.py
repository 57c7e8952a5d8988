"""`asynctrace top`: what is going on at this moment, again and again until Ctrl-C; once where nobody watches."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

from ._collector_commands import add_source, source_for
from ._terminal import is_watched, terminal_width, write, write_json

if TYPE_CHECKING:
    from .collector import Top

__all__ = ["add_top"]

EVERY: Final = 2.0
MINUTES: Final = 15
MOST_MINUTES: Final = 7 * 24 * 60
MOST_OPEN: Final = 1000
"""Traces."""
HEIGHT: Final = 24
"""Lines where the output is no terminal."""
BY: Final = ("name", "service", "model", "type")

ENTER: Final = "\x1b[?1049h\x1b[?25l"
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
"""To the terminal's other screen, without a cursor; and back."""
HOME: Final = "\x1b[H"
END_OF_LINE: Final = "\x1b[K"
END_OF_SCREEN: Final = "\x1b[J"
"""The cursor's way back; what an earlier look left is wiped away."""


def add_top(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    add_source(parser)
    parser.add_argument("--by", choices=BY, default=BY[0], help="what the spans are counted by (%(default)s)")
    parser.add_argument("--minutes", type=_minutes, default=MINUTES, help="how far back they are counted (%(default)s)")
    parser.add_argument("--every", type=_seconds, default=EVERY, help="seconds between two looks (%(default)s)")
    parser.add_argument("--once", action="store_true", help="print it once; without a terminal that is what it does")
    parser.add_argument("--json", action="store_true", help="print one look as JSON")
    parser.set_defaults(run=_top)


def _minutes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_MINUTES:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MOST_MINUTES} is needed, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f"a number from 0.1 to 3600 is needed, not {text!r}")
    return seconds


def _top(options: argparse.Namespace) -> int:
    import msgspec

    from .collector import render_top

    if options.json:
        write_json(msgspec.json.encode(_look(options)))
    elif options.once or not is_watched():
        write(render_top(_look(options), width=terminal_width(), height=HEIGHT))
    else:
        _watch(options)
    return 0


def _look(options: argparse.Namespace) -> Top:
    from .collector import Top
    from .collector.query import parse

    # opened for each look: what a directory says of open spans is read when it is opened
    source = source_for(options)
    seconds = 60 * options.minutes
    opened = source.traces(parse("is:open"), MOST_OPEN).traces
    return Top(
        now_ns=time.time_ns(),
        seconds=seconds,
        by=options.by,
        open=tuple(sorted(opened, key=lambda run: run.start_ns)),
        statistics=source.statistics(options.by, seconds),
    )


def _watch(options: argparse.Namespace) -> None:
    from .collector import render_top

    look = _look(options)  # a collector that is not there is said on the screen that stays
    sys.stdout.write(ENTER)
    try:
        while True:
            size = shutil.get_terminal_size((terminal_width(), HEIGHT))
            shown = render_top(look, width=terminal_width(), height=size.lines - 1)
            sys.stdout.write(HOME)
            for line in shown.split("\n"):
                write(line + END_OF_LINE)
            sys.stdout.write(END_OF_SCREEN)
            sys.stdout.flush()
            time.sleep(options.every)
            look = _look(options)
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
