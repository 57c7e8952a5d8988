"""What AgentOps' SDK asks for beside OTLP: a token for its key, and a place for what it printed, which is not kept.

The token is sent back as `Authorization: Bearer`, which is how the collector wants its own. Where the collector has one, the
SDK's key has to be that.
"""

from __future__ import annotations

import hmac

import msgspec
from aiohttp import web

from ._signals import AGENTOPS_PATH, JSON

__all__ = ["token_routes"]

UPLOAD_PATH = "/v4/logs/upload/"
LARGEST = 64 * 1024
"""Bytes of the question."""


class _Question(msgspec.Struct):
    api_key: str = ""


def token_routes(token: str | None) -> list[web.AbstractRouteDef]:
    """Where the token is asked for."""

    async def answer(request: web.Request) -> web.Response:
        try:
            key = msgspec.json.decode(await request.content.read(LARGEST), type=_Question).api_key
        except msgspec.DecodeError as error:
            return _json(400, {"error": f'send {{"api_key": …}}: {error}'})
        if token is not None and not hmac.compare_digest(key.encode(), token.encode()):
            return _json(401, {"error": "give AgentOps the collector's token as its API key"})
        return _json(200, {"token": token or "local", "project_id": "local"})

    return [web.post(AGENTOPS_PATH, answer), web.post(UPLOAD_PATH, _pass_over)]


async def _pass_over(request: web.Request) -> web.Response:
    return _json(200, {"url": "", "size": 0})


def _json(status: int, answer: dict[str, str | int]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(answer), content_type=JSON)
