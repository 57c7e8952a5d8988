"""What changes the store: pins, deletes, imports; and how the collector is."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from ...runtime._resource import SDK_VERSION
from ..receiving import Behind, Counters, Receiver, Refused
from ..receiving._kept import encoding_of, kind_of
from ..store import Store
from ._answers import Missing, NotHere, answering, aside, fault, json_answer
from ._reading import Reading, trace_id_of
from ._view import View

__all__ = ["Changing"]

LONGEST_IMPORT: Final = 32 * 1024 * 1024
"""Bytes, compressed or not: as for a request of spans."""


class Changing:
    """The routes that are no mere reading."""

    def __init__(
        self,
        view: View,
        reading: Reading,
        store: Store | None,
        receiver: Receiver | None,
        counters: Counters | None,
        *,
        needs_token: bool,
    ) -> None:
        self._view, self._reading = view, reading
        self._changeable = store
        self._receiver, self._counters = receiver, counters
        self._needs_token = needs_token

    @property
    def _store(self) -> Store:
        if self._changeable is None:
            raise NotHere("traces cannot be pinned or deleted here: this store is read only, another process writes it")
        return self._changeable

    def routes(self) -> list[web.AbstractRouteDef]:
        """What can be done."""
        return [
            web.put("/api/v1/pins/{trace_id}", answering(self._pin)),
            web.delete("/api/v1/pins/{trace_id}", answering(self._unpin)),
            web.delete("/api/v1/traces/{trace_id}", answering(self._delete)),
            web.post("/api/v1/import", answering(self._import)),
            web.get("/api/v1/status", answering(self._status)),
        ]

    async def _pin(self, request: web.Request) -> web.Response:
        """Keep a trace beyond the bounds."""
        trace_id = trace_id_of(request)
        if not await aside(self._store.pin, trace_id):
            raise Missing(f"no trace {trace_id}")
        self._view.live.changed(trace_id)
        return await json_answer(request, {"trace_id": trace_id, "pinned": True})

    async def _unpin(self, request: web.Request) -> web.Response:
        trace_id = trace_id_of(request)
        await aside(self._store.unpin, trace_id)
        self._view.live.changed(trace_id)
        return await json_answer(request, {"trace_id": trace_id, "pinned": False})

    async def _delete(self, request: web.Request) -> web.Response:
        """Take a trace away, what is open of it too."""
        trace_id = trace_id_of(request)
        was_open = bool(self._view.live.open.of(bytes.fromhex(trace_id)))
        if not await aside(self._store.delete, trace_id) and not was_open:
            raise Missing(f"no trace {trace_id}")
        self._view.live.removed(trace_id)
        self._reading.forget(trace_id)
        return await json_answer(request, {"trace_id": trace_id, "deleted": True})

    async def _import(self, request: web.Request) -> web.Response:
        """Take over an OTLP request, as JSON or protobuf, compressed or not: each time anew."""
        if self._receiver is None:
            raise NotHere("nothing is received here: send OTLP where `asynctrace ingest` runs")
        body = await _body_of(request)
        encoding = encoding_of(body, request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower())
        try:
            received = await self._receiver.keep(body, kind_of(body, encoding), encoding)
        except Refused as refusal:
            return fault(refusal.status, refusal.reason)
        except Behind as behind:
            return fault(behind.status, behind.reason)
        traces = list(dict.fromkeys(row.trace_id.hex() for row in received.rows))
        answer = {"traces": traces, "spans": len(received.rows), "rejected": received.rejected}
        answer["logs"] = len(received.logs)
        return await json_answer(request, answer)

    async def _status(self, request: web.Request) -> web.Response:
        """How much there is, what came, who listens."""
        found = await aside(self._view.store.statistics)
        store: dict[str, Any] = msgspec.to_builtins(found)
        bounds = getattr(self._view.store, "bounds", None)
        store |= {"bytes": found.size, "limit_bytes": None, "limit_age": None}
        if bounds is not None:
            store |= {"limit_bytes": bounds.size, "limit_age": bounds.age}
        answer = {
            "version": SDK_VERSION,
            "now_ms": self._view.live.now_ns() / 1e6,
            "store": store,
            "receiving": self._counters.now() if self._counters is not None else None,
            "clients": len(self._view.live.hub),
            "needs_token": self._needs_token,
        }
        return await json_answer(request, answer)


async def _body_of(request: web.Request) -> bytes:
    body = bytearray()
    while piece := await request.content.readany():
        body += piece
        if len(body) > LONGEST_IMPORT:
            raise ValueError(f"the body is larger than {LONGEST_IMPORT} bytes")
    return bytes(body)
