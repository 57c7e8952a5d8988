"""What commands print: results on stdout, complaints on stderr, nothing that the terminal could not show."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._contracts import Span

__all__ = ["Progress", "complain", "is_watched", "terminal_width", "write", "write_json", "write_tree"]

DEFAULT_WIDTH: Final = 80
"""Columns when the output is no terminal."""
NARROWEST: Final = 60
FIRST_WORD: Final = 0.5
NEXT_WORD: Final = 0.5
"""Seconds."""

FALLBACKS: Final = str.maketrans(dict(zip("●◌✕⊘├└│─…µ·×", "*ox/|`|-~u.x", strict=True)))  # noqa: RUF001
"""What stands for the characters of trees and tables where the output cannot show them."""


def write_tree(spans: Iterable[Span], *, details: bool = True) -> None:
    """Traces as trees, as wide as the terminal."""
    from ._tree import render_tree

    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    write(render_tree(spans, width=terminal_width(), color=color, details=details))


def is_watched() -> bool:
    """Whether results go to a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def terminal_width() -> int:
    """Columns."""
    if not sys.stdout.isatty():
        return DEFAULT_WIDTH
    return max(NARROWEST, shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns)


def write(text: str) -> None:
    """A result."""
    print(_showable(text, sys.stdout.encoding))


def write_json(body: bytes) -> None:
    """JSON is UTF-8 whatever the terminal speaks (RFC 8259, 8.1)."""
    sys.stdout.buffer.write(body + b"\n")


def complain(message: str) -> None:
    """What is no result: one line on stderr."""
    print(_showable(f"asynctrace: {message}", sys.stderr.encoding), file=sys.stderr, flush=True)


class Progress:
    """A block that may take long: after a moment a line on stderr says what it does and for how long, if that is a
    terminal; it is wiped away in the end."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _tell(self) -> None:
        waited = FIRST_WORD
        if self._ended.wait(FIRST_WORD):
            return
        while not self._ended.wait(NEXT_WORD):
            waited += NEXT_WORD
            print(f"\rasynctrace: {self._doing} … {waited:.0f} s", end="", file=sys.stderr, flush=True)
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _showable(text: str, encoding: str | None) -> str:
    """The text with other characters where the output could not show it; its columns stay."""
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(FALLBACKS).encode(encoding, "replace").decode(encoding)
    return text
