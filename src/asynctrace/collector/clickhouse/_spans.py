"""Spans, logs and their origins, out of the rows of tables."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Final

from .._rows import Facts, LogRow, Origin, SpanRow
from ._client import Client
from ._lines import MOST_AT_ONCE, Place, among, held, portions, within
from ._select import IDENTITY, SPAN_IDENTITY, Bound, Row, select

__all__ = ["Found", "Known", "find_logs", "find_spans", "find_trace"]

COLUMNS: Final = (
    *("parent_id", "name", "kind", "start_ns", "end_ns", "status", "origin"),
    *(
        "ending",
        "type",
        "session",
        "user",
        "model",
        "input_tokens",
        "output_tokens",
        "cost",
        "events",
        "links",
        "dropped",
    ),
)
SHOWN: Final = ", ".join(f"lower(hex({each}))" if each in ("parent_id", "origin") else each for each in COLUMNS)
MOST_REMEMBERED: Final = 10_000
UNKNOWN: Final = Origin(b"", b"")
NO_SPAN: Final = "0" * 16
ROW_ORIGIN: Final = 3 + COLUMNS.index("origin")

SPANS: Final = "SELECT lower(hex(trace_id)), lower(hex(span_id)), {message}, {shown} FROM ({spans}) AS s {joined}"
MESSAGES: Final = " LEFT JOIN ({messages}) AS io USING (trace_id, span_id)"
PLACED: Final = """
LEFT JOIN (
    SELECT trace_id, span_id, min(arrived) AS came FROM arrivals WHERE {among} GROUP BY trace_id, span_id
) AS a USING (trace_id, span_id)
ORDER BY if(came = 0, 18446744073709551615, came)
"""
LOGS: Final = """
SELECT lower(hex(span_id)), time_ns, severity, lower(hex(origin)), base64Encode(any(message)), max(arrived)
FROM logs WHERE {where} GROUP BY span_id, time_ns, severity, origin, digest ORDER BY time_ns, min(arrived)
"""
ORIGINS: Final = """
SELECT lower(hex(origin)), base64Encode(any(resource)), base64Encode(any(scope)), any(service), any(resource_schema),
    any(scope_schema)
FROM origins WHERE origin IN (SELECT toFixedString(unhex(arrayJoin({digests})), 16)) GROUP BY origin
"""


class Known:
    """Origins that were read before, by the hash that is their name: they never change. For many threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._origins: dict[str, Origin] = {}

    def origins(self, digests: Iterable[str]) -> dict[str, Origin]:
        """Those with these names."""
        known = self._origins
        wanted = set(digests)
        found = {digest: known[digest] for digest in wanted if digest in known}
        for some in portions(sorted(wanted - found.keys()), MOST_AT_ONCE):
            bound = Bound()
            statement = ORIGINS.format(digests=bound(list(some), "Array(String)"))
            for digest, resource, scope, service, *schemas in select(self._client, statement, bound):
                found[digest] = Origin(b64decode(resource), b64decode(scope), service, (), *schemas)
        if len(known) + len(found) > MOST_REMEMBERED:
            self._origins = {}
        self._origins.update(found)
        return found


class Found:
    """What was read, and where it came from: the index of each row is one of `origins`."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.origins: list[Origin] = []
        self._indices: dict[str, int] = {}

    def spans(self, rows: Sequence[Row]) -> list[SpanRow]:
        """Rows that `find_spans` gave."""
        self._read_origins(row[ROW_ORIGIN] for row in rows)
        return [self._span(row) for row in rows]

    def logs(self, trace_id: str, rows: Sequence[Row]) -> list[LogRow]:
        """Rows that `find_logs` gave."""
        self._read_origins(row[3] for row in rows)
        return [
            LogRow(
                bytes.fromhex(trace_id),
                bytes.fromhex(span_id) if span_id != NO_SPAN else b"",
                time_ns,
                severity,
                self._indices[origin],
                b64decode(message),
            )
            for span_id, time_ns, severity, origin, message, _ in rows
        ]

    def _span(self, row: Row) -> SpanRow:
        trace_id, span_id, message, parent_id, name, kind, start_ns, end_ns, status, origin, *facts = row
        return SpanRow(
            bytes.fromhex(trace_id),
            bytes.fromhex(span_id),
            bytes.fromhex(parent_id) if parent_id != NO_SPAN else b"",
            name,
            kind,
            start_ns,
            end_ns,
            status,
            self._indices[origin],
            b64decode(message),
            _facts(*facts),
        )

    def _read_origins(self, digests: Iterable[str]) -> None:
        """In order of first appearance."""
        new = [digest for digest in dict.fromkeys(digests) if digest not in self._indices]
        known = self._known.origins(new)
        for digest in new:
            self._indices[digest] = len(self.origins)
            self.origins.append(known.get(digest, UNKNOWN))


def find_spans(client: Client, where: str, bound: Bound, *, messages: bool, order: str = "") -> list[Row]:
    """The spans of which `where` takes all versions. Its values are in `bound`."""
    joined = MESSAGES.format(messages=held(("message",), where, table="span_io")) if messages else ""
    message = "base64Encode(message)" if messages else "''"
    spans = held(COLUMNS, where)
    return select(client, SPANS.format(message=message, shown=SHOWN, spans=spans, joined=joined + order), bound)


def find_trace(client: Client, place: Place, *, messages: bool, only: str = "") -> list[Row]:
    """The spans of a trace in order of first arrival, or the one with an id."""
    bound = Bound()
    where = within([place], bound)
    if only:
        where += f" AND span_id = {SPAN_IDENTITY.format(bound(only, 'String'))}"
    return find_spans(
        client, where, bound, messages=messages, order=PLACED.format(among=among([place.trace_id], bound))
    )


def find_logs(client: Client, trace_id: str, span_id: str = "") -> list[Row]:
    """The logs of a trace, or of a span of it, by time."""
    bound = Bound()
    where = f"trace_id = {IDENTITY.format(bound(trace_id, 'String'))}"
    if span_id:
        where += f" AND span_id = {SPAN_IDENTITY.format(bound(span_id, 'String'))}"
    return select(client, LOGS.format(where=where), bound)


def _facts(
    ending: str,
    type_: str,
    session: str,
    user: str,
    model: str,
    tokens_in: int,
    tokens_out: int,
    cost: float,
    *numbers: int,
) -> Facts:
    """In the order of `COLUMNS`. Traces are large: by position."""
    return Facts((), ending, type_, "", "", session, user, model, tokens_in, tokens_out, float(cost), False, *numbers)
