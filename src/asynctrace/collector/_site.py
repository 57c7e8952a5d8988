"""An HTTP application at an address: what every program of the collector needs before it can answer.

Promises:

- An address that is not loopback needs a token: without one it is refused (`ConfigurationError`).
- A program that cannot begin leaves nothing behind; one that ends closes its parts in the opposite order of their beginning.
- What ends stops listening first, and answers the requests that are there, for `GRACE` seconds at most.
- What is no HTTP, or has a longer first line than any question, gets 400 and its reason, and nothing is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from aiohttp import http, web

from .._errors import ConfigurationError
from ._guard import is_loopback

__all__ = ["DEFAULT_HOST", "Site", "answer_on", "beside", "bind", "check_access", "url_of"]

DEFAULT_HOST = "127.0.0.1"
LONGEST_TARGET = 64 * 1024
"""Bytes of a request's first line: the longest query, each character escaped (at most 12 bytes), has room."""
GRACE = 10.0
"""Seconds that requests have to finish after the end began."""
LOGGER = logging.getLogger("asynctrace.collector")


class Site(ABC):
    """A program that answers at `host`:`port` (0: a free one), from `start()` to `aclose()`; or for an `async with`.

    Settings that cannot work raise `ConfigurationError`.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        check_access(host, token, port)
        self._host, self._port, self._token = host, port, token
        self._closers = AsyncExitStack()
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        if self._url is None:
            raise RuntimeError("there is no address before start()")
        return self._url

    async def start(self) -> None:
        """Bind and answer. `ConfigurationError` when the address cannot be used."""
        async with AsyncExitStack() as closers:
            listener = closers.enter_context(contextlib.closing(bind(self._host, self._port)))
            await self._begin(listener, closers)
            self._url = url_of(listener)
            self._closers = closers.pop_all()

    @abstractmethod
    async def _begin(self, listener: socket.socket, closers: AsyncExitStack) -> None:
        """Begin every part, and give what ends it to `closers`: the last one ends first."""

    async def aclose(self) -> None:
        """Stop accepting, finish what is there, then stop. Idempotent."""
        await self._closers.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def check_access(host: str, token: str | None, *ports: int) -> None:
    """Whether an application may be offered there. `ConfigurationError`."""
    if token is not None and not token.strip():
        raise ConfigurationError("the token is empty: give a secret of your own, or no token at all")
    for number in ports:
        if not 0 <= number <= 65535:
            raise ConfigurationError(f"{number} is no port: give 1 to 65535, or 0 for a free one")
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other machines: give a token (--token or ASYNCTRACE_TOKEN), "
            f"or bind to {DEFAULT_HOST}"
        )


def bind(host: str, port: int) -> socket.socket:
    """A listener. `ConfigurationError` when the address cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is in use: stop the program that holds it, or give another --port (0 picks a free one)"
        else:
            reason = f"cannot be used: {error.strerror}"
        raise ConfigurationError(f"{host}:{port} {reason}") from error


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run `work` until the block is left."""
    task = asyncio.create_task(work, name=f"asynctrace {name}")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def url_of(listener: socket.socket) -> str:
    """Its address, without a slash at the end."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def answer_on(listeners: Sequence[socket.socket], application: web.Application, closers: AsyncExitStack) -> None:
    """Answer until `closers` are closed."""
    LOGGER.addFilter(_is_ours)
    # the receiver undoes compression itself, within bounds
    runner = web.AppRunner(
        application,
        auto_decompress=False,
        access_log=None,
        logger=LOGGER,
        shutdown_timeout=GRACE,
        max_line_size=LONGEST_TARGET,
    )
    closers.push_async_callback(runner.cleanup)
    await runner.setup()
    for listener in listeners:
        await web.SockSite(runner, listener).start()


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether something failed here. What a sender gets wrong is told to the sender."""
    return record.exc_info is None or not isinstance(record.exc_info[1], http.HttpProcessingError)
