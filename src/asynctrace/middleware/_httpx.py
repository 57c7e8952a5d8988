"""A client span for each request of an httpx client: a transport around its own.

    httpx.AsyncClient(transport=AsyncHTTPXTransport())          httpx.Client(transport=HTTPXTransport())

    transport called ── status and headers ── body iterated ── stream closed: span ends

The span ends when the stream is closed: httpx does so at the end of a body, and where a response is left unread. Redirects
that httpx follows and requests it repeats for authentication are requests of their own here, and spans of their own.

A client that is given a transport does not look for proxies in the environment:
`AsyncHTTPXTransport(httpx.AsyncHTTPTransport(proxy=…))` names one. Promises: see `_client.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self, TypeVar

import httpx

from .._contracts import Ending
from .._errors import MisuseError
from ..runtime import Tracer
from ._client import Call, Caller, Request

__all__ = ["AsyncHTTPXTransport", "HTTPXTransport"]

Inner = TypeVar("Inner", httpx.AsyncBaseTransport, httpx.BaseTransport)


class AsyncHTTPXTransport(httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=AsyncHTTPXTransport())`, around any transport; around `httpx.AsyncHTTPTransport()` where
    none is given.

    None is the default tracer, looked up with each request. With `start_traces=False` requests outside any trace make no
    span; with `propagate=False` no header is set, for far sides that should not know of the trace. Raises `MisuseError`
    for what is no transport and no tracer. Source: OpenTelemetry semantic conventions, HTTP client spans.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        tracer: Tracer | None = None,
        *,
        start_traces: bool = True,
        propagate: bool = True,
    ) -> None:
        usage = "httpx.AsyncClient(transport=AsyncHTTPXTransport())"
        self._caller = Caller(tracer, usage, _request_of, start_traces=start_traces, propagate=propagate)
        self._inner = httpx.AsyncHTTPTransport() if inner is None else _checked(inner, "handle_async_request", usage)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = self._caller.open(request, request.headers)
        if call is None:
            return await self._inner.handle_async_request(request)
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            call.fail(error, _ending_of(error))
            raise
        call.answer(response.status_code, _version(response))
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _AsyncBody(response.stream, call)
        return response

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        await self._inner.aclose()


class HTTPXTransport(httpx.BaseTransport):
    """`httpx.Client(transport=HTTPXTransport())`: the same for clients without a loop, around `httpx.HTTPTransport()`."""

    def __init__(
        self,
        inner: httpx.BaseTransport | None = None,
        tracer: Tracer | None = None,
        *,
        start_traces: bool = True,
        propagate: bool = True,
    ) -> None:
        usage = "httpx.Client(transport=HTTPXTransport())"
        self._caller = Caller(tracer, usage, _request_of, start_traces=start_traces, propagate=propagate)
        self._inner = httpx.HTTPTransport() if inner is None else _checked(inner, "handle_request", usage)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        call = self._caller.open(request, request.headers)
        if call is None:
            return self._inner.handle_request(request)
        try:
            response = self._inner.handle_request(request)
        except BaseException as error:
            call.fail(error, _ending_of(error))
            raise
        call.answer(response.status_code, _version(response))
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Body(response.stream, call)
        return response

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        self._inner.close()


class _AsyncBody(httpx.AsyncByteStream):
    """The body of a response, which tells when it is over."""

    def __init__(self, inner: httpx.AsyncByteStream, call: Call) -> None:
        self._inner = inner
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                yield part
        except GeneratorExit:  # nobody wants more of it; closing follows
            raise
        except BaseException as error:
            self._call.fail(error, _ending_of(error))
            raise

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._call.finish()


class _Body(httpx.SyncByteStream):
    """The same without a loop."""

    def __init__(self, inner: httpx.SyncByteStream, call: Call) -> None:
        self._inner = inner
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._inner
        except GeneratorExit:
            raise
        except BaseException as error:
            self._call.fail(error, _ending_of(error))
            raise

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._call.finish()


def _checked(inner: Inner, ability: str, usage: str) -> Inner:
    if not hasattr(inner, ability):
        raise MisuseError(f"{usage}: in its brackets stands a transport of httpx, or tracer=…, not {inner!r:.80}")
    return inner


def _request_of(request: httpx.Request) -> Request:
    url = request.url
    path, _, query = url.raw_path.decode("ascii", "replace").partition("?")
    return Request(
        method=request.method,
        scheme=url.scheme,
        authority=url.netloc.decode("ascii", "replace"),
        path=path,
        query=query,
        has_credentials=bool(url.userinfo),
    )


def _version(response: httpx.Response) -> str:
    """`HTTP/2` is `2` (OpenTelemetry, `network.protocol.version`)."""
    return response.http_version.removeprefix("HTTP/")


def _ending_of(error: BaseException) -> Ending | None:
    """httpx's timeouts are no `TimeoutError`."""
    return Ending.TIMEOUT if isinstance(error, httpx.TimeoutException) else None
