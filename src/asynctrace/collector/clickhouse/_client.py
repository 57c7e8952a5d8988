"""ClickHouse's HTTP interface, for many threads.

    threads ── ask(), insert() ──▶ an event loop in a thread of its own ── one pool of connections ──▶ ClickHouse

Promises:

- Safe from any thread; a call waits for its answer, and never longer than its deadline.
- An error is a `StoreError` of one line that names the server and what to do; `ServerAway` where repeating helps. No message
  and no `repr` shows the password.
- An answer is whole or an error: the server sends it when it is complete (`wait_end_of_query`).
- A statement that only reads is repeated once when an idle connection turns out to be dead; one that writes never is: whoever
  gave it a deduplication token may.

https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

import aiohttp

from ..store import StoreError
from ._errors import ServerAway, refused
from ._url import Place, parse_url

__all__ = ["CONNECTIONS", "Client", "Settings"]

CONNECTIONS: Final = 32
"""At once. Calls beyond wait for a free one, within their deadline."""
CONNECT_WITHIN: Final = 5.0
"""Seconds."""
PIECE: Final = 256 * 1024
"""Bytes of a body that are written at once."""

COMMON: Final = {"wait_end_of_query": 1, "apply_mutations_on_fly": 1}
"""`apply_mutations_on_fly`: what was deleted is gone for who reads, before parts are written anew."""
READING: Final = {**COMMON, "cancel_http_readonly_queries_on_client_close": 1}
WRITING: Final = {**COMMON, "async_insert": 0}
"""`async_insert` would answer before, or without, deduplication of what views make of an insert."""

Settings = Mapping[str, str | int]
T = TypeVar("T")


class Client:
    """The database at `url`. `timeout`: seconds for a call that is given no other. `ca_file`: certificates in PEM form,
    trusted instead of the system's."""

    def __init__(self, url: str, *, timeout: float = 30.0, ca_file: str | None = None) -> None:
        self.place: Place = parse_url(url)
        self._timeout = timeout
        self._tls = _tls(self.place, ca_file)
        self._session: aiohttp.ClientSession | None = None
        self._loop = asyncio.new_event_loop()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="asynctrace-clickhouse", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Client({str(self.place)!r})"

    def ask(
        self,
        statement: str,
        parameters: Settings | None = None,
        *,
        settings: Settings | None = None,
        timeout: float | None = None,
        database: str | None = None,
    ) -> bytes:
        """The answer to a statement that reads. `parameters` fill `{name:Type}` in it."""
        url = {**READING, **(settings or {}), **_named(parameters)}
        return self._wait(self._ask(statement.encode(), url, timeout, database))

    def change(
        self,
        statement: str,
        parameters: Settings | None = None,
        *,
        settings: Settings | None = None,
        timeout: float | None = None,
        database: str | None = None,
    ) -> bytes:
        """The answer to a statement that changes something, which is sent once."""
        url = {**WRITING, **(settings or {}), **_named(parameters)}
        return self._wait(self._post(statement.encode(), url, {}, timeout, database))

    def insert(
        self,
        statement: str,
        body: bytes,
        *,
        encoding: str = "",
        settings: Settings | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send `body`, compressed as `encoding` says, to an INSERT without its rows."""
        headers = {"Content-Encoding": encoding} if encoding else {}
        url = {"query": statement, **WRITING, **(settings or {})}
        self._wait(self._post(body, url, headers, timeout, None))

    def close(self) -> None:
        """Calls under way end with a `StoreError`. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ── in the loop ─────────────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, body: bytes, url: Settings, timeout: float | None, database: str | None) -> bytes:
        try:
            return await self._post(body, url, {}, timeout, database)
        except _Dropped:
            return await self._post(body, url, {}, timeout, database)

    async def _post(
        self, body: bytes, url: Settings, headers: Mapping[str, str], timeout: float | None, database: str | None
    ) -> bytes:
        seconds = self._timeout if timeout is None else timeout
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=min(CONNECT_WITHIN, seconds))
        # Bytes of more than a megabyte are written piece by piece: aiohttp would copy them at once.
        content = body if len(body) <= PIECE else _pieces(body)
        sent = {**self._headers(database), **headers, "Content-Length": str(len(body))}
        try:
            async with self._opened().post(
                self.place.url, params=dict(url), data=content, headers=sent, timeout=limits, ssl=self._tls
            ) as answer:
                text = await answer.read()
                if answer.status == 200 and "X-ClickHouse-Exception-Code" not in answer.headers:
                    return text
                code = answer.headers.get("X-ClickHouse-Exception-Code", "")
                raise refused(str(self.place), text.decode("utf-8", "replace"), answer.status, code)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(error, seconds) from error

    def _headers(self, database: str | None) -> dict[str, str]:
        headers = {"X-ClickHouse-User": self.place.user, "Accept-Encoding": "identity"}
        if self.place.password:
            headers["X-ClickHouse-Key"] = self.place.password
        named = self.place.database if database is None else database
        return {**headers, "X-ClickHouse-Database": named} if named else headers

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=8.0)  # the server closes after 10 s
            self._session = aiohttp.ClientSession(connector=connector, skip_auto_headers=("User-Agent",))
        return self._session

    def _away(self, error: Exception, seconds: float) -> StoreError:
        place = str(self.place)
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            return StoreError(
                f"ClickHouse at {place} has a certificate that is not trusted: give its CA file ({error})"
            )
        if isinstance(error, TimeoutError):
            return ServerAway(f"ClickHouse at {place} did not answer within {seconds:g} seconds")
        if isinstance(error, aiohttp.ClientConnectorError):
            return ServerAway(
                f"ClickHouse at {place} cannot be reached: is it running, is the address right? ({error})"
            )
        if isinstance(error, aiohttp.InvalidURL | aiohttp.ClientResponseError):
            return StoreError(
                f"{place} answers, but not as ClickHouse does: its HTTP interface has port 8123, not 9000"
            )
        return _Dropped(f"ClickHouse at {place} broke the connection off ({error or type(error).__name__})")

    # ── the thread ──────────────────────────────────────────────────────────────────────────────────────────

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        if self._is_closed:
            call.close()
            raise StoreError(f"the store at {self.place} is closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise StoreError(f"the store at {self.place} is closed") from None
        except BaseException:
            future.cancel()  # the caller was interrupted: nobody waits for the answer any more
            raise

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            self._loop.close()

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


class _Dropped(ServerAway):
    """The connection ended before the answer did."""


def _named(parameters: Settings | None) -> dict[str, str | int]:
    return {f"param_{key}": value for key, value in (parameters or {}).items()}


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for first in range(0, len(body), PIECE):
        yield bytes(view[first : first + PIECE])


def _tls(place: Place, ca_file: str | None) -> ssl.SSLContext | bool:
    if place.scheme != "https" or ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise StoreError(f"the CA file {ca_file} cannot be read: {error}") from error
