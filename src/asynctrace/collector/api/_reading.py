"""`GET /api/v1/…`: what can be read, one call each. Everything that blocks is done in threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Final

from aiohttp import hdrs, web

from ..query import Query, parse
from ..query._match import matches
from ..query._terms import Attribute, Contains, Not, Term, When
from ..store._store import LARGEST
from ._answers import Handler, Missing, answering, aside, json_answer, packed, whole_number
from ._critical_path import critical_path
from ._detail import detail
from ._diff import compare_traces
from ._export import FILES, exported
from ._following import Following
from ._view import View, Whole

__all__ = ["Reading", "trace_id_of"]

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1000
MOST_SPANS: Final = 10**9
MOST_VIEWED: Final = 8
"""Traces whose ids are remembered, for `@index`."""


class Reading:
    """The routes that change nothing."""

    def __init__(self, view: View, following: Following) -> None:
        self._view, self._following = view, following
        self._ids: OrderedDict[tuple[str, int], list[str]] = OrderedDict()

    def routes(self) -> list[web.AbstractRouteDef]:
        """What can be read."""
        get: dict[str, Handler] = {
            "/traces": self._list,
            "/traces/{trace_id}.otlp.json": partial(self._file, kind="otlp.json"),
            "/traces/{trace_id}.md": partial(self._file, kind="md"),
            "/traces/{trace_id}.html": partial(self._file, kind="html"),
            "/traces/{trace_id}": self._summary,
            "/traces/{trace_id}/skeleton": self._skeleton,
            "/traces/{trace_id}/span/{span_id}": self._span,
            "/traces/{trace_id}/find": self._find,
            "/traces/{trace_id}/critical-path": self._critical_path,
            "/diff": self._diff,
            "/values": self._values,
            "/stats": self._stats,
            "/sessions": self._sessions,
        }
        return [web.get(f"/api/v1{path}", answering(handler)) for path, handler in get.items()]

    # Lists -------------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        """`limit` (1 to 1000, else 50) traces after `cursor` for which `q` holds, newest start first."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        query = parse(request.query.get("q", ""))
        page = await aside(self._view.page, query, limit, request.query.get("cursor"))
        return await json_answer(request, page)

    async def _values(self, request: web.Request) -> web.Response:
        """Values of `key` that begin with `prefix`, the most frequent first; without `key` the known keys."""
        limit = whole_number(request, "limit", 20, 1, MAX_LIMIT)
        key, prefix = request.query.get("key", ""), request.query.get("prefix", "")
        values = await aside(self._view.store.values, key.removeprefix("attr."), prefix, limit)
        return await json_answer(request, {"values": values})

    async def _stats(self, request: web.Request) -> web.Response:
        """Counts and percentiles `by` name, service, model or type, and over time in steps of `step` seconds, of the spans
        for which `q` holds."""
        step = whole_number(request, "step", 60, 60, 86400 * 366)
        since_ns, until_ns, query = _between(
            (*parse(request.query.get("q", "")).terms, *_edge(request, "since"), *_edge(request, "until")),
            self._view.live.now_ns(),
        )
        found = await aside(
            self._view.store.stats,
            request.query.get("by", "name"),
            step=step,
            since_ns=since_ns,
            until_ns=until_ns,
            query=query,
        )
        return await json_answer(request, found)

    async def _sessions(self, request: web.Request) -> web.Response:
        """`limit` sessions after `cursor`, the one with the latest trace first, of the traces for which `q` holds."""
        limit = whole_number(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        query = parse(request.query.get("q", ""))
        page = await aside(self._view.sessions, query, limit, request.query.get("cursor"))
        return await json_answer(request, page)

    # One trace ---------------------------------------------------------------------------------------------------

    async def _summary(self, request: web.Request) -> web.Response:
        trace_id = trace_id_of(request)
        summary = await aside(self._view.summary, trace_id)
        if summary is None:
            raise Missing(f"no trace {trace_id}")
        return await json_answer(request, summary)

    async def _skeleton(self, request: web.Request) -> web.Response:
        """The spans from `after` on; from the first one when `order` is another than the trace has."""
        after = whole_number(request, "after", 0, 0, MOST_SPANS)
        order = request.query.get("order")
        trace_id = trace_id_of(request)
        found = await aside(self._following.skeleton, trace_id, after, order)
        if found is None:
            raise Missing(f"no trace {trace_id}")
        return await json_answer(request, found)

    async def _span(self, request: web.Request) -> web.Response:
        """One span: 16 hex digits, or `@` and its index."""
        trace_id, span_id = trace_id_of(request), request.match_info["span_id"].lower()
        index = None
        if span_id.startswith("@"):
            index, span_id = await self._id_at(trace_id, span_id[1:])
        found = await aside(self._view.span, trace_id, _span_id(span_id))
        if found is None:
            raise Missing(f"no span {span_id} in {trace_id}")
        if index is None:
            index = await self._place_of(trace_id, span_id)
        return await json_answer(request, await aside(detail, found, 0, index))

    async def _find(self, request: web.Request) -> web.Response:
        """The spans of a trace for which `q` holds."""
        query = parse(request.query.get("q", ""))
        whole = await self._whole(trace_id_of(request), messages=_asks_messages(query))
        found = await aside(_matching, whole, query, self._view.live.now_ns())
        return await json_answer(request, {"matches": found, "scanned": len(whole.rows), "order": whole.order})

    async def _critical_path(self, request: web.Request) -> web.Response:
        whole = await self._whole(trace_id_of(request), messages=False)
        return await json_answer(request, {"path": await aside(critical_path, whole, self._view.live.now_ns())})

    async def _file(self, request: web.Request, *, kind: str) -> web.Response:
        """The trace as a file: what people read without its secrets unless `redact=0`, OTLP as it came unless `redact=1`."""
        whole = await self._whole(trace_id_of(request))
        is_redacted = request.query.get("redact", "0" if kind == "otlp.json" else "1") not in ("", "0")
        body = await aside(exported, whole, kind, self._view.live.now_ns(), is_redacted=is_redacted)
        answer = await packed(request, body, FILES[kind])
        answer.headers[hdrs.CONTENT_DISPOSITION] = f'inline; filename="{whole.summary.trace_id[:16]}.{kind}"'
        return answer

    async def _diff(self, request: web.Request) -> web.Response:
        """Traces `a` and `b` side by side."""
        a = await self._whole(request.query.get("a", "").lower())
        b = await self._whole(request.query.get("b", "").lower())
        return await json_answer(request, await aside(compare_traces, a, b))

    async def _whole(self, trace_id: str, *, messages: bool = True) -> Whole:
        whole = await aside(self._view.whole, trace_id, messages=messages)
        if whole is None:
            raise Missing(f"no trace {trace_id}")
        return whole

    async def _id_at(self, trace_id: str, place: str) -> tuple[int, str]:
        """The id of the span with this index. Indexes only grow, so what was looked up once stays true."""
        if not place.isascii() or not place.isdigit():
            raise ValueError(f"@ stands before an index, not before {place[:40]!r}")
        index = int(place[:9])
        order = self._view.live.open.order_of(bytes.fromhex(trace_id))
        key = (trace_id, order.number if order is not None else 0)
        if len(self._ids.get(key, ())) <= index:
            whole = await self._whole(trace_id, messages=False)
            key = (trace_id, whole.order)
            self._ids[key] = [row.span_id.hex() for row in whole.rows]
            while len(self._ids) > MOST_VIEWED:
                self._ids.popitem(last=False)
        if len(self._ids[key]) <= index:
            raise Missing(f"{trace_id} has no span {index}")
        return index, self._ids[key][index]

    async def _place_of(self, trace_id: str, span_id: str) -> int | None:
        """The index of a span: a link names it by its id, a page draws it by its index."""
        rows = (await self._whole(trace_id, messages=False)).rows
        return next((index for index, row in enumerate(rows) if row.span_id.hex() == span_id), None)

    def forget(self, trace_id: str) -> None:
        """It was deleted: its indexes may be dealt anew."""
        for key in [key for key in self._ids if key[0] == trace_id]:
            del self._ids[key]


def _matching(whole: Whole, query: Query, now_ns: int) -> list[int]:
    return [index for index in range(len(whole.rows)) if matches(query, whole.candidate(index), whole.summary, now_ns)]


def _asks_messages(query: Query) -> bool:
    plain = (term.term if isinstance(term, Not) else term for term in query.terms)
    return any(isinstance(term, Attribute | Contains) for term in plain)


def _edge(request: web.Request, name: str) -> tuple[Term, ...]:
    text = request.query.get(name, "")
    return parse(f'{name}:"{text}"').terms if text else ()


def _between(terms: Iterable[Term], now_ns: int) -> tuple[int, int, Query]:
    """Since, until, and what else is asked: statistics ask the times of spans, not of traces."""
    since_ns, until_ns, others = 0, LARGEST, []
    for term in terms:
        if not isinstance(term, When):
            others.append(term)
        elif term.edge == "since":
            since_ns = max(since_ns, term.moment(now_ns))
        else:
            until_ns = min(until_ns, term.moment(now_ns))
    return since_ns, until_ns, Query(tuple(others))


def trace_id_of(request: web.Request) -> str:
    """The trace that the path names."""
    trace_id = request.match_info["trace_id"].lower()
    if len(trace_id) != 32 or set(trace_id) - set("0123456789abcdef"):
        raise ValueError(f"a trace id has 32 hex digits, not {trace_id[:40]!r}")
    return trace_id


def _span_id(text: str) -> str:
    if len(text) != 16 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"a span is 16 hex digits, or @ and its index, not {text[:40]!r}")
    return text
