"""Traces printed where a person looks.

Promises: a batch is printed in one piece, grouped by trace; nothing in a span can act on the terminal (see
`_tree`); a stream that was closed or cannot be written to makes the exporter answer "try again", never
raise into the program.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final, TextIO

from .._contracts import Batch, ExportResult
from .._tree import tree_lines
from ._slices import Slices

__all__ = ["ConsoleExporter"]

DEFAULT_WIDTH: Final = 100
"""Columns where the stream is no terminal."""


class ConsoleExporter:
    """Prints trees of what each batch holds.

    `stream`: the standard output of the moment when `None`. `color`: `None` means on a terminal. `details`:
    inputs, outputs, logs and errors too. Spans of one trace that arrive in different batches are printed
    apart.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        color: bool | None = None,
        details: bool = True,
        name: str = "console",
    ) -> None:
        self._stream = stream
        self._color = color
        self._details = details
        self._name = name
        self._slices = Slices()
        self._writing = threading.Lock()

    def with_defaults(self, *, color: bool | None = None) -> ConsoleExporter:
        """Fill in `color` where it was `None` (see https://no-color.org); returns the same exporter."""
        if self._color is None:
            self._color = color
        return self

    @property
    def name(self) -> str:
        """The lane's name in the receipt."""
        return self._name

    async def export(self, batch: Batch) -> ExportResult:
        """Print the batch."""
        stream = self._stream if self._stream is not None else sys.stdout
        try:
            _print_to(stream, await self._text(stream, batch), self._writing)
        except (OSError, ValueError) as error:  # full, gone, closed
            return ExportResult.try_again(reason=f"console_{type(error).__name__}")
        return ExportResult.all_accepted(batch)

    def __getstate__(self) -> dict[str, object]:
        """For another process, which has its own lock; a stream that was given cannot go there."""
        return {name: value for name, value in vars(self).items() if name not in ("_slices", "_writing")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._slices = Slices()
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """A thread that was writing is not here."""
        self._writing = threading.Lock()

    async def aclose(self) -> None:
        """The stream belongs to whoever made it."""

    def __repr__(self) -> str:
        return f"ConsoleExporter(name={self._name!r})"

    async def _text(self, stream: TextIO, batch: Batch) -> str:
        spans = await self._slices.spans(batch)
        color = _is_terminal(stream) if self._color is None else self._color
        lines = tree_lines(spans, width=_width(stream), color=color, details=self._details)
        text = "\n".join(await self._slices.collect(lines))
        return _encodable(text, getattr(stream, "encoding", None))


def _print_to(stream: TextIO, text: str, writing: threading.Lock) -> None:
    with writing:
        stream.write(text + "\n")
        stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty is not None and isatty())


def _width(stream: TextIO) -> int:
    if not _is_terminal(stream):
        return DEFAULT_WIDTH
    try:
        return max(20, os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError, AttributeError):
        return DEFAULT_WIDTH


def _encodable(text: str, encoding: str | None) -> str:
    """The text with what the stream cannot hold replaced: a tree in ASCII is better than none."""
    if encoding is None:
        return text
    return text.encode(encoding, "replace").decode(encoding, "replace")
