"""Traces as text, so that a failing test shows a picture.

    checkout ok
      retrieve [retriever] ok
      answer [llm] timeout

One line for each span: name, type in brackets where it has one, ending; children are indented by two spaces,
siblings stand in the order of their start, then of their name. A span whose parent is not among the spans
stands at the margin and says so; a span that arrived twice stands there twice. Nothing that differs from run
to run (ids, times) is shown unless it is asked for.
"""

from __future__ import annotations

import difflib
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from .._contracts import Span

__all__ = ["assert_tree", "tree_text"]

_INDENT = "  "


def tree_text(spans: Iterable[Span], *, attributes: Sequence[str] = (), durations: bool = False) -> str:
    """The traces of `spans` as text, without a newline at the end.

    `attributes` names those to show as `key=value`; `durations` adds each span's milliseconds.
    """
    return "\n".join(
        _INDENT * depth + _line(span, attributes, durations) + (f" {remark}" if remark else "")
        for span, depth, remark in _walk(spans)
    )


def assert_tree(
    spans: Iterable[Span], expected: str, *, attributes: Sequence[str] = (), durations: bool = False
) -> None:
    """Raise `AssertionError` with both pictures' difference unless `spans` look like `expected`.

    `expected` may be indented as a whole and begin and end with empty lines, like a triple-quoted string.
    """
    __tracebackhide__ = True
    actual = tree_text(spans, attributes=attributes, durations=durations)
    wanted = _dedent(expected)
    if actual != wanted:
        difference = "\n".join(difflib.ndiff(wanted.splitlines(), actual.splitlines()))
        raise AssertionError(f"the trace differs ('-' expected, '+' recorded):\n{difference}")


def _dedent(text: str) -> str:
    return "\n".join(line.rstrip() for line in textwrap.dedent(text).strip("\n").splitlines()).rstrip()


def _walk(spans: Iterable[Span]) -> Iterator[tuple[Span, int, str]]:
    """Every span once, depth first; without recursion, as a trace may be deeper than Python's stack."""
    every = sorted(spans, key=_order)
    ids = {(span.trace_id, span.span_id) for span in every}
    children: defaultdict[tuple[str, str], list[Span]] = defaultdict(list)
    tops: list[Span] = []
    for span in every:
        parent = (span.trace_id, span.parent_id)
        (children[parent] if parent in ids else tops).append(span)
    for top in tops:
        yield from _below(top, children, "(parent not here)" if top.parent_id else "")
    # Whatever no top leads to is its own ancestor: shown too, or a broken trace would look like an empty one.
    for rest in [span for siblings in children.values() for span in siblings]:
        yield rest, 0, "(parents form a cycle)"


def _below(
    top: Span, children: defaultdict[tuple[str, str], list[Span]], remark: str
) -> Iterator[tuple[Span, int, str]]:
    stack = [(top, 0)]
    while stack:
        span, depth = stack.pop()
        yield span, depth, "" if depth else remark
        # Taken, not read: of two spans with one id only the first gets the children, and no cycle is walked
        # twice.
        siblings = children.pop((span.trace_id, span.span_id), [])
        stack.extend((child, depth + 1) for child in reversed(siblings))


def _order(span: Span) -> tuple[int, str, str]:
    return span.start_ns, span.name, span.span_id


def _line(span: Span, attributes: Sequence[str], durations: bool) -> str:
    kind = span.attributes.get("openinference.span.kind")
    parts = [span.name if span.name.isprintable() else repr(span.name)]
    if isinstance(kind, str):
        parts.append(f"[{kind.lower()}]")
    parts.append(span.ending if span.end_ns else "open")
    parts.extend(f"{key}={span.attributes[key]!r}" for key in attributes if key in span.attributes)
    if durations:
        parts.append(f"{span.duration_ns / 1e6:.3f}ms")
    return " ".join(parts)
