"""`GET /api/v1/…`: the store as JSON.

Each call reads in a thread over a read-only connection of its own, so a large trace holds up neither the
event loop nor the writer. Errors are `{"error": "…"}` with 400 (a parameter), 404 (no such trace) or 503 (the
store).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..wire import json_request
from ._store import StoreError, StoreReader

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "routes"]

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
JSON = "application/json"

Result = TypeVar("Result")
Handler = Callable[[web.Request], Awaitable[web.Response]]


def routes(store: StoreReader) -> list[web.RouteDef]:
    """What can be read from `store`."""
    return [
        web.get("/api/v1/traces", _answering(partial(_list, store))),
        web.get(r"/api/v1/traces/{trace_id}.otlp.json", _answering(partial(_export, store))),
    ]


async def _list(store: StoreReader, request: web.Request) -> web.Response:
    """`limit` (1 to 1000, else 50) traces after `cursor`, newest start first."""
    limit = _limit(request.query.get("limit", str(DEFAULT_LIMIT)))
    page = await _read(store.runs, limit, request.query.get("cursor"))
    return web.Response(body=msgspec.json.encode(page), content_type=JSON)


async def _export(store: StoreReader, request: web.Request) -> web.Response:
    """One trace as an OTLP/JSON `ExportTraceServiceRequest`."""
    trace_id = request.match_info["trace_id"]
    body = await _read(_otlp_json, store, trace_id)
    if body is None:
        return _error(404, f"no trace {trace_id}")
    return web.Response(body=body, content_type=JSON)


def _otlp_json(store: StoreReader, trace_id: str) -> bytes | None:
    groups = store.trace(trace_id)
    return json_request(groups) if groups else None


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise ValueError(f"limit must be a number from 1 to {MAX_LIMIT}, not {text!r}")
    return int(text[:9])


async def _read(function: Callable[..., Result], *arguments: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))


def _answering(handler: Handler) -> Handler:
    """Turn the errors that a reader may meet into answers."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except ValueError as error:
            return _error(400, str(error))
        except StoreError as error:
            return _error(503, str(error))

    return answer


def _error(status: int, reason: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": reason}), content_type=JSON)
