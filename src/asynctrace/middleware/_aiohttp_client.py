"""A client span for each request of an aiohttp session: `aiohttp.ClientSession(trace_configs=[trace_config()])`.

    on_request_start ── on_request_redirect* ── on_request_end ── body read to its end, or released ── span ends
                    └── on_request_exception: span ends

aiohttp has no signal for the end of a body. It gives the connection back then, and tells whom the connection was asked
to tell; so the span ends when the connection is free again. A WebSocket's span lasts as long as the WebSocket.

Redirects that aiohttp follows are logs of one span, and `http.request.resend_count` counts them. Promises: see `_client.py`.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import aiohttp
from yarl import URL

from ..runtime import Tracer
from ._client import Call, Caller, Request, full_url

__all__ = ["trace_config"]


def trace_config(
    tracer: Tracer | None = None, *, start_traces: bool = True, propagate: bool = True
) -> aiohttp.TraceConfig:
    """For `aiohttp.ClientSession(trace_configs=[trace_config()])`; one may serve any number of sessions.

    None is the default tracer, looked up with each request. With `start_traces=False` requests outside any trace make no
    span; with `propagate=False` no header is set, for far sides that should not know of the trace. Raises `MisuseError`
    for what is no tracer. Source: OpenTelemetry semantic conventions, HTTP client spans.
    """
    usage = "aiohttp.ClientSession(trace_configs=[trace_config()])"
    signals = _Signals(Caller(tracer, usage, _request_of, start_traces=start_traces, propagate=propagate))
    config = aiohttp.TraceConfig()
    config.on_request_start.append(signals.start)
    config.on_request_redirect.append(signals.redirect)
    config.on_request_end.append(signals.end)
    config.on_request_exception.append(signals.exception)
    return config


class _Signals:
    """What aiohttp calls. The call lies in the namespace that it makes for each request."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def start(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        context.call = self._caller.open(params, params.headers)

    async def redirect(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        if (call := context.call) is not None:
            call.redirect(params.response.status, _onward(params.response))

    async def end(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        call, response = context.call, params.response
        if call is None:
            return
        call.answer(response.status, _version(response))
        connection = response.connection
        if connection is None:
            call.finish()
        else:
            content = response.content
            connection.add_callback(lambda: _body_ended(call, content))

    async def exception(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        call, error = context.call, params.exception
        if call is None:
            return
        if (status := _status_raised(error)) is not None:
            call.answer(status)
            call.finish()
        else:
            call.fail(error)


def _status_raised(error: BaseException) -> int | None:
    """What the far side answered where `raise_for_status` made an exception of it; a proxy's answer is a failure."""
    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status if error.status >= 400 else None
    return None


def _body_ended(call: Call, content: aiohttp.StreamReader) -> None:
    """The connection is given back: the body was read, or failed, or was not wanted any more, or is given up by a task that
    is being cancelled or has no time left."""
    error = content.exception()
    if type(error) is aiohttp.ClientConnectionError:  # a subclass of it is a failure; itself, that we closed
        error = sys.exception()
        if content.is_eof() or not isinstance(error, asyncio.CancelledError | TimeoutError):
            error = None
    if error is None:
        call.finish()
    else:
        call.fail(error)


def _request_of(params: aiohttp.TraceRequestStartParams) -> Request:
    return _described(params.method, params.url)


def _described(method: str, url: URL) -> Request:
    host = url.raw_host or ""
    return Request(
        method=method,
        scheme=url.scheme,
        authority=(f"[{host}]" if ":" in host else host) + (f":{url.explicit_port}" if url.explicit_port else ""),
        path=url.raw_path,
        query=url.raw_query_string,
        has_credentials=url.raw_user is not None or url.raw_password is not None,
    )


def _onward(response: aiohttp.ClientResponse) -> str:
    """Where a redirect leads; nothing where it leads nowhere."""
    try:
        target = URL(response.headers.get("Location") or response.headers.get("URI") or "")
        return full_url(_described("", response.url.join(target)))
    except ValueError:
        return ""


def _version(response: aiohttp.ClientResponse) -> str:
    version = response.version
    return f"{version.major}.{version.minor}" if version is not None else ""
