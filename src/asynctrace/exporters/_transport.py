"""HTTP for exporters: aiohttp, one session for each event loop. Loaded by the first request, not before.

Promises:

- `post()` sends once. It answers with what the server said, or raises `TransportFailure` with the name of
  what went wrong; after `timeout` seconds at the latest. A cancelled request closes its connection.
- Redirects go nowhere else: one 307 or 308 within the same scheme, host and port is followed, body and all.
- Nothing is taken from the environment: no proxy, no `.netrc`; cookies are not kept.
- Numeric hosts need no resolver, names no executor: both work while the interpreter exits.

Failures and what they mean:

    connect_timeout  connect_error  dns_error     nothing was sent
    read_timeout     reset          stalled       ambiguous: the server may have taken the batch over
    tls_error                                     the settings of one side are wrong
    protocol_error                                the answer is no HTTP
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Final, TypeAlias
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from yarl import URL

from .._errors import ConfigurationError
from ._answers import MAX_ANSWER, Answer
from ._aside import run_aside
from ._endpoint import parse_endpoint
from ._inherited import close_copy, keep

__all__ = ["Transport", "TransportFailure", "ssl_context_of"]

CONNECTIONS: Final = 16
"""More than a lane has requests in flight; a bound all the same."""

KEEP_ALIVE: Final = 4.0
"""Seconds an idle connection is kept: less than the 5 of uvicorn, so that the client gives up first. A server
that closes while a request is on its way costs an ambiguous attempt."""

PIECE: Final = 256 * 1024
"""Bytes written before the connection is asked whether it keeps up."""

Body: TypeAlias = Sequence[bytes | memoryview]

CLOSE_WITHIN: Final = 2.0
"""Seconds for the good-bye of TLS connections, or of a session in another thread's loop."""


class TransportFailure(Exception):
    """No answer; `reason` is one of the names in the module's docstring."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Progress(SimpleNamespace):
    """How far a request has come, in the words for what a deadline then means."""

    phase = "connect_timeout"


class Transport:
    """Posts to one origin. Sessions are made in the loop that uses them, and closed by `release()` there."""

    def __init__(self, *, headers: Mapping[str, str], timeout: float, tls: ssl.SSLContext | None) -> None:
        self._headers = dict(headers)
        self._timeout = timeout
        self._tls = tls
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def post(self, url: str, body: Body, headers: Mapping[str, str]) -> Answer:
        """Send `body`, its parts end to end, once; at most one redirect within the origin."""
        progress = _Progress()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._post_once(url, body, headers, progress)
                onward = _onward(url, answer)
                if onward is not None:
                    answer = await self._post_once(onward, body, headers, progress)
                return answer
        except TimeoutError:
            raise TransportFailure(progress.phase) from None
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise TransportFailure(_reason_of(error, progress)) from error

    async def release(self) -> None:
        """Close the running loop's session; a later request opens another."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await _close(session)

    async def aclose(self) -> None:
        """Close the sessions of all loops, from any of them."""
        await self.release()
        while self._sessions:
            loop, session = self._sessions.popitem()
            await _close_elsewhere(loop, session)

    def forget(self) -> None:
        """In a forked child: close its copies of the sockets, and touch neither the far side nor the parent's loops."""
        while self._sessions:
            _forget(self._sessions.popitem()[1])

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            self._forget_closed_loops()
            session = self._sessions[loop] = _new_session(self._headers, self._tls)
        return session

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._sessions if loop.is_closed()]:
            _abandon(self._sessions.pop(loop))

    async def _post_once(self, url: str, body: Body, headers: Mapping[str, str], progress: _Progress) -> Answer:
        progress.phase = "connect_timeout"
        response = await self._session().post(
            URL(url, encoded=url.isascii()),
            data=_Parts(body),
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=progress,
        )
        progress.phase = "stalled"
        try:
            answer = await _body_of(response, patience=min(1.0, self._timeout / 4))
            return Answer(status=response.status, headers=response.headers, body=answer)
        finally:
            if not response.content.at_eof():
                response.close()


async def _body_of(response: aiohttp.ClientResponse, patience: float) -> bytes:
    """At most `MAX_ANSWER` bytes. Only a 2xx needs its body whole: any other status speaks for itself."""
    parts: list[bytes] = []
    room = MAX_ANSWER
    try:
        async with asyncio.timeout(None if response.status < 300 else patience):
            while room > 0 and (part := await response.content.read(room)):
                parts.append(part)
                room -= len(part)
    except (aiohttp.ClientError, OSError):
        if response.status < 300:
            raise
    return b"".join(parts)


def _onward(url: str, answer: Answer) -> str | None:
    """Where a redirect leads, when it keeps method, body and origin."""
    location = answer.headers.get("Location", "")
    if answer.status not in (307, 308) or not location:
        return None
    try:
        here, there = parse_endpoint(url), parse_endpoint(urljoin(url, location))
    except (ConfigurationError, ValueError):
        return None
    return there.url if _same_origin(here.url, there.url) and not there.authorization else None


def _same_origin(one: str, other: str) -> bool:
    return URL(one).origin() == URL(other).origin()


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────


def _reason_of(error: Exception, progress: _Progress) -> str:
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | aiohttp.ServerFingerprintMismatch):
        return "tls_error"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "dns_error" if isinstance(error.os_error, socket.gaierror) else "connect_error"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError | OSError):
        return "reset" if progress.phase != "connect_timeout" else "connect_error"
    return "protocol_error"


async def _connected(_session: object, context: SimpleNamespace, _event: object) -> None:
    """From here on bytes are on their way: what fails now is ambiguous."""
    context.trace_request_ctx.phase = "read_timeout"


# ── sessions ────────────────────────────────────────────────────────────────────────────────────────────────


def _new_session(headers: Mapping[str, str], tls: ssl.SSLContext | None) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_connected)
    trace.on_connection_reuseconn.append(_connected)
    connector = aiohttp.TCPConnector(
        limit=CONNECTIONS,
        keepalive_timeout=KEEP_ALIVE,
        resolver=_Resolver(),
        ttl_dns_cache=30,
        ssl=tls if tls is not None else True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # post() keeps the one deadline
        auto_decompress=False,
        trust_env=False,
        trace_configs=[trace],
    )


def ssl_context_of(ca_file: str | None) -> ssl.SSLContext:
    """A client's context. With `ca_file` nothing else is trusted, whatever the environment says."""
    return ssl.create_default_context(cafile=ca_file)


async def _close(session: aiohttp.ClientSession) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_WITHIN):
            await session.close()


async def _close_elsewhere(loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession) -> None:
    if not loop.is_running():
        _abandon(session)
        return
    closing = asyncio.run_coroutine_threadsafe(_close(session), loop)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_WITHIN):
            await asyncio.wrap_future(closing)


def _abandon(session: aiohttp.ClientSession) -> None:
    """Let go of a session whose loop does not run: nothing can be awaited there any more."""
    connector = session.connector
    session.detach()
    if connector is not None:
        connector._close()


def _forget(session: aiohttp.ClientSession) -> None:
    connector = session.connector
    session.detach()
    if connector is None:
        return
    held = [connection for pool in connector._conns.values() for connection, *_ in pool]
    held += connector._acquired
    keep((connector, list(held)))
    connector._conns.clear()
    connector._acquired.clear()
    connector._closed = True
    for connection in held:
        transport = getattr(connection, "transport", None)
        keep(transport)
        close_copy(transport)


class _Parts(aiohttp.payload.Payload):
    """A body in parts, written in pieces, so that a slow connection holds back the writer, not the loop. Joining the
    parts first takes twice as long for a large batch, and aiohttp copies joined bytes once more."""

    def __init__(self, parts: Body) -> None:
        super().__init__(parts)
        self._size = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._value:
            view = memoryview(part)
            for start in range(0, len(view), PIECE):
                await writer.write(view[start : start + PIECE])


class _Resolver(AbstractResolver):
    """`getaddrinfo` beside the loop; in place when no thread can be started."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        look_up = functools.partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        try:
            found = await run_aside(look_up)
        except UnicodeError as error:  # a label that is empty or too long
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Holds nothing."""
