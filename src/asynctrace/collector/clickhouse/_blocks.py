"""The rows of one `add()` as the two blocks that ClickHouse gets: spans and logs.

Promises: what comes first of an origin carries its resource and scope, so that no span is there without them; notices of open
spans are passed over; `arrived` ascends with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final

from .._rows import LogRow, Origin, Received, SpanRow
from ._native import block, few_messages, few_texts, fixed, floats, integers, messages, texts, token_lists

__all__ = ["ORIGIN_BYTES", "Blocks", "origin_of"]

ORIGIN_BYTES: Final = 16
NO_SPAN: Final = bytes(8)

Column = tuple[str, str, bytes]


def origin_of(origin: Origin) -> bytes:
    """The name of a (resource, scope), with their schemas: the same from every process."""
    resource, scope, *schemas = origin.key
    parts = (resource, scope, *(each.encode("utf-8", "replace") for each in schemas))
    sizes = b"".join(len(each).to_bytes(8, "big") for each in parts)
    return blake2b(sizes + b"".join(parts), digest_size=ORIGIN_BYTES).digest()


class Blocks:
    """What a group of requests holds."""

    def __init__(self, received: Iterable[Received]) -> None:
        self._spans: list[SpanRow] = []
        self._span_origins: list[bytes] = []
        self._logs: list[LogRow] = []
        self._log_origins: list[bytes] = []
        self._origins: dict[bytes, Origin] = {}
        for each in received:
            self._take(each)

    @property
    def spans(self) -> int:
        return len(self._spans)

    @property
    def logs(self) -> int:
        return len(self._logs)

    def span_block(self, arrived: int) -> bytes:
        """For `spans_in`; the first row arrives at `arrived`."""
        return block(self.spans, [*self._span_columns(arrived), *self._origin_columns(self._span_origins)])

    def log_block(self, arrived: int) -> bytes:
        """For `logs_in`."""
        trace_ids, span_ids, times, severities, _, bodies = zip(*self._logs, strict=True)
        return block(
            self.logs,
            [
                ("trace_id", "FixedString(16)", fixed(trace_ids)),
                ("span_id", "FixedString(8)", fixed([each or NO_SPAN for each in span_ids])),
                ("arrived", "UInt64", integers("Q", range(arrived, arrived + self.logs))),
                ("time_ns", "UInt64", integers("Q", times)),
                ("severity", "Int32", integers("i", severities)),
                ("message", "String", messages(bodies)),
                *self._origin_columns(self._log_origins),
            ],
        )

    def _take(self, received: Received) -> None:
        names = [origin_of(each) for each in received.origins]
        self._origins.update(zip(names, received.origins, strict=True))
        spans = [row for row in received.rows if not row.facts.is_open]
        self._spans += spans
        self._span_origins += [names[row.origin] for row in spans]
        self._logs += received.logs
        self._log_origins += [names[row.origin] for row in received.logs]

    def _span_columns(self, arrived: int) -> list[Column]:
        trace_ids, span_ids, parents, names, kinds, starts, ends, statuses, _, bodies, facts = zip(
            *self._spans, strict=True
        )
        return [
            ("trace_id", "FixedString(16)", fixed(trace_ids)),
            ("span_id", "FixedString(8)", fixed(span_ids)),
            ("parent_id", "FixedString(8)", fixed([each or NO_SPAN for each in parents])),
            ("arrived", "UInt64", integers("Q", range(arrived, arrived + self.spans))),
            ("start_ns", "UInt64", integers("Q", starts)),
            ("end_ns", "UInt64", integers("Q", ends)),
            ("name", "String", texts(names)),
            ("kind", "Int32", integers("i", kinds)),
            ("status", "Int32", integers("i", statuses)),
            ("message", "String", messages(bodies)),
            *_fact_columns(tuple(zip(*facts, strict=True))),
        ]

    def _origin_columns(self, named: Sequence[bytes]) -> list[Column]:
        """Everything about an origin in its first row, nothing in the others."""
        rows = len(named)
        firsts = dict(zip(reversed(named), range(rows - 1, -1, -1), strict=True))
        new = {first: self._origins[name] for name, first in sorted(firsts.items(), key=itemgetter(1))}
        is_new = bytearray(rows)
        tokens: list[tuple[bytes, ...]] = [()] * rows
        for first, origin in new.items():
            is_new[first], tokens[first] = 1, origin.tokens
        return [
            ("origin", f"FixedString({ORIGIN_BYTES})", fixed(named)),
            ("service", "String", texts([self._origins[name].service for name in named])),
            ("resource", "String", few_messages({first: origin.resource for first, origin in new.items()}, rows)),
            ("scope", "String", few_messages({first: origin.scope for first, origin in new.items()}, rows)),
            (
                "resource_schema",
                "String",
                few_texts({first: origin.resource_schema for first, origin in new.items()}, rows),
            ),
            ("scope_schema", "String", few_texts({first: origin.scope_schema for first, origin in new.items()}, rows)),
            ("origin_tokens", "Array(UInt64)", token_lists(tokens)),
            ("is_new_origin", "UInt8", bytes(is_new)),
        ]


def _fact_columns(columns: Sequence[Sequence[Any]]) -> list[Column]:
    """`Facts`, transposed."""
    (
        tokens,
        ending,
        kind,
        inputs,
        outputs,
        session,
        user,
        model,
        tokens_in,
        tokens_out,
        cost,
        _,
        events,
        links,
        dropped,
    ) = columns
    return [
        ("tokens", "Array(UInt64)", token_lists(tokens)),
        ("ending", "String", texts(ending)),
        ("type", "String", texts(kind)),
        ("input", "String", texts(inputs)),
        ("output", "String", texts(outputs)),
        ("session", "String", texts(session)),
        ("user", "String", texts(user)),
        ("model", "String", texts(model)),
        ("input_tokens", "Int64", integers("q", tokens_in)),
        ("output_tokens", "Int64", integers("q", tokens_out)),
        ("cost", "Float64", floats(cost)),
        ("events", "UInt32", integers("I", events)),
        ("links", "UInt32", integers("I", links)),
        ("dropped", "Int64", integers("q", dropped)),
    ]
