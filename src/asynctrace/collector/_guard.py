"""Who may talk to the collector: decided before any handler runs.

Promises:

- Bound to a loopback address, it answers only requests that name a loopback host. A web page that lets its
  own name resolve to 127.0.0.1 (DNS rebinding) gets 403.
- Reading (everything but OTLP) with an `Origin` of another site gets 403. OTLP may come from pages on
  localhost (CORS); a foreign page gets no CORS header, so its browser does not send.
- With a token, everything but `/healthz` and `/readyz` needs it, compared in constant time: as `Authorization: Bearer
  TOKEN`; as the password of `Authorization: Basic`, which is what Langfuse's SDKs send; or as the cookie that a browser
  gets for opening the page once with `?token=TOKEN`.
"""

from __future__ import annotations

import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from .receiving import AGENTOPS_PATH, OTLP_PATHS

__all__ = ["Guard", "is_loopback"]

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", AGENTOPS_PATH})
"""Answered without a token; the last one looks for it in the body."""
COOKIE = "asynctrace-token"


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine (RFC 1122 3.2.1.3, RFC 4291 2.5.3, RFC 6761 6.3)."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """The middleware of one collector, bound to `host`, with or without a token."""

    def __init__(self, host: str, token: str | None) -> None:
        self._only_loopback = is_loopback(host)
        self._token = token.encode() if token is not None else None

    def middleware(self) -> Middleware:
        """An aiohttp middleware."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            origin = request.headers.get(hdrs.ORIGIN)
            is_otlp = request.path in OTLP_PATHS
            refusal = self._refusal(request, origin, is_otlp=is_otlp)
            if refusal is not None:
                return refusal
            if request.method == hdrs.METH_GET and request.query.get("token", "").encode() == self._token:
                return _remembered(request)
            response = await handler(request)
            if is_otlp and origin is not None and is_loopback(_host(origin)):
                _allow(response, origin)
            return response

        return guard

    def _refusal(self, request: web.Request, origin: str | None, *, is_otlp: bool) -> web.Response | None:
        host = request.headers.get(hdrs.HOST, "")
        if self._only_loopback and not is_loopback(_host(f"//{host}")):
            return _refuse(403, f"this collector answers to localhost only, not to {host!r}")
        if not is_otlp and origin is not None and origin.lower().partition("://")[2] != host.lower():
            return _refuse(403, f"pages of {origin!r} may not read from this collector")
        is_preflight = is_otlp and request.method == hdrs.METH_OPTIONS  # browsers send it without credentials
        if request.path in PUBLIC_PATHS or is_preflight or self._token is None or self._is_authorized(request):
            return None
        refusal = _refuse(
            401, "send the collector's token: Authorization: Bearer TOKEN, or open /?token=TOKEN in a browser"
        )
        refusal.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
        return refusal

    def _is_authorized(self, request: web.Request) -> bool:
        expected = self._token or b""
        return any(hmac.compare_digest(given, expected) for given in _tokens(request))


def _tokens(request: web.Request) -> list[bytes]:
    """Everything in the request that could be the token."""
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    found = [request.cookies.get(COOKIE, ""), request.query.get("token", "")]
    if scheme.lower() == "bearer":
        found.append(given.strip())
    if scheme.lower() == "basic":
        found.append(_password(given))
    return [text.encode("utf-8", "surrogateescape") for text in found if text]


def _password(credentials: str) -> str:
    """RFC 7617."""
    try:
        return binascii.a2b_base64(credentials).decode().partition(":")[2]
    except (binascii.Error, UnicodeError, ValueError):
        return ""


def _remembered(request: web.Request) -> web.Response:
    """Once more without the token in the address, which would stay in the browser's history."""
    answer = web.Response(status=303, headers={hdrs.LOCATION: str(request.rel_url.without_query_params("token"))})
    answer.set_cookie(COOKIE, request.query["token"], httponly=True, samesite="Strict", path="/")
    return answer


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _allow(response: web.StreamResponse, origin: str) -> None:
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "POST"
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "content-type, content-encoding, authorization"
    response.headers[hdrs.VARY] = hdrs.ORIGIN


def _refuse(status: int, reason: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": reason}), content_type="application/json")
