"""From values and errors to HTTP answers.

400 {"error": …, "at": offset}   a parameter is wrong; `at` and `end` count characters of `q`, null where it is no query
404 {"error": …}   there is no such thing         405 {"error": …}   not on this address
503 {"error": …}   the store cannot be read
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from ..query import QueryError
from ..store import StoreError

__all__ = [
    "JSON",
    "Handler",
    "Missing",
    "NotHere",
    "answering",
    "aside",
    "fault",
    "json_answer",
    "packed",
    "whole_number",
]

JSON: Final = "application/json"
WORTH_PACKING: Final = 1024
"""Bytes."""
LARGE: Final = 1 << 20
"""Bytes from which speed counts more than the last percent."""

Result = TypeVar("Result")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Missing(Exception):
    """What was asked for is not there; the message says what."""


class NotHere(Exception):
    """What was asked for is done elsewhere; the message says where."""


async def aside(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call what blocks, in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments, **options))


async def json_answer(request: web.Request, value: Any, status: int = 200) -> web.Response:
    """`value` as JSON, packed where the reader takes that."""
    body = msgspec.json.encode(value) if not isinstance(value, bytes) else value
    return await packed(request, body, JSON, status)


async def packed(request: web.Request, body: bytes, content_type: str, status: int = 200) -> web.Response:
    """An answer, compressed where it is worth it."""
    response = web.Response(status=status, content_type=content_type, headers={hdrs.CACHE_CONTROL: "no-store"})
    if content_type.startswith("text/"):
        response.charset = "utf-8"
    accepted = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    if len(body) >= WORTH_PACKING and ("gzip" in accepted or "zstd" in accepted):
        body, encoding = await aside(_pack, body, "zstd" in accepted)
        response.headers[hdrs.CONTENT_ENCODING] = encoding
        response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    response.body = body
    return response


def _pack(body: bytes, zstd_too: bool) -> tuple[bytes, str]:
    if zstd_too:
        try:
            import zstandard
        except ImportError:
            pass
        else:
            return zstandard.ZstdCompressor(level=6).compress(body), "zstd"
    return gzip.compress(body, compresslevel=4 if len(body) > LARGE else 6, mtime=0), "gzip"


def answering(handler: Handler) -> Handler:
    """Turn the errors that a reader may meet into answers."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except QueryError as error:
            return fault(400, error.message, at=error.start, end=error.end)
        except ValueError as error:
            return fault(400, str(error))
        except Missing as error:
            return fault(404, str(error))
        except NotHere as error:
            return fault(405, str(error))
        except StoreError as error:
            return fault(503, str(error))

    return answer


def fault(status: int, reason: str, **more: int) -> web.Response:
    """An error as JSON."""
    value = {"error": reason, "at": None, **more}
    return web.Response(status=status, body=msgspec.json.encode(value), content_type=JSON)


def whole_number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """A parameter of the address. `ValueError` for anything else."""
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not least <= int(text[:18]) <= most:
        raise ValueError(f"{name} must be a number from {least} to {most}, not {text[:40]!r}")
    return int(text[:18])
