"""Doors for frameworks: what a program of theirs says once, so that its spans are made and arrive.

No framework is loaded with this package: a door's module loads when its name is first used, and what it needs with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._aiohttp_client import trace_config
    from ._aiohttp_server import aiohttp_lifespan, aiohttp_middleware
    from ._asgi import ASGIMiddleware
    from ._httpx import AsyncHTTPXTransport, HTTPXTransport
    from ._lifespan import lifespan
    from ._logs import LoggingFilter, LoggingHandler, structlog_processor
    from ._trust import Trust

__all__ = [
    # servers
    "ASGIMiddleware",
    "aiohttp_middleware",
    "Trust",
    # a tracer's life with them
    "lifespan",
    "aiohttp_lifespan",
    # clients
    "trace_config",
    "AsyncHTTPXTransport",
    "HTTPXTransport",
    # logs
    "LoggingFilter",
    "LoggingHandler",
    "structlog_processor",
]

_HOMES = {
    "ASGIMiddleware": "_asgi",
    "aiohttp_middleware": "_aiohttp_server",
    "Trust": "_trust",
    "lifespan": "_lifespan",
    "aiohttp_lifespan": "_aiohttp_server",
    "trace_config": "_aiohttp_client",
    "AsyncHTTPXTransport": "_httpx",
    "HTTPXTransport": "_httpx",
    "LoggingFilter": "_logs",
    "LoggingHandler": "_logs",
    "structlog_processor": "_logs",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
