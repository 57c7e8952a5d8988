"""The files of the page: script, style and one HTML document, from `static/` in the wheel.

Promises:

- Nothing but these files is served: a request names one of them, or gets 404. No path is joined.
- Every answer forbids scripts and styles that are not such files, frames, forms and other origins (`POLICY`), and no text
  can become markup (Trusted Types).
- A file is compressed once, without its comments. A browser that has it gets 304 (RFC 9110 13.1.2).
- The document names every module that the first screen needs, so that none is discovered late.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from aiohttp import hdrs, web

__all__ = ["POLICY", "PageFile", "document", "module_order", "page_file", "resolved", "routes"]

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # pictures that lie in a span's own attributes
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The Content-Security-Policy of every answer."""

SCREENS = {
    "/": "runs",
    "/trace/{trace_id}": "trace",
    "/sessions": "sessions",
    "/stats": "statistics",
    "/diff": "diff",
}
"""Addresses of the one document, and the module in `screens/` that shows it: the script reads the address."""

ENTRY = "app.js"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked for each time: a new version shows at once
    "Vary": "Accept-Encoding",
}
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
PLACE = "<!-- modules -->"
_COMMENT = re.compile(rb"^[ \t]*//.*\n", re.MULTILINE)
"""A line of its own in a script: no text of the page has one that begins so."""
_IMPORT = re.compile(r'^(?:import|export)\s*\{[^}]*\}\s*from\s*"(\.{1,2}/[^"]+)";', re.MULTILINE)


class PageFile(NamedTuple):
    """One file as it is sent."""

    body: bytes
    packed: bytes
    """The same as gzip."""
    tag: str
    """Of this content, without quotes."""
    content_type: str


def routes() -> list[web.AbstractRouteDef]:
    """The document under every address of `SCREENS`, and the files below `/page/`."""
    screens: list[web.AbstractRouteDef] = [web.get(address, _document(name)) for address, name in SCREENS.items()]
    return [*screens, web.get("/page/{name:.+}", _file)]


def page_file(name: str) -> PageFile | None:
    """The file of this name (`trace/tree.js`), or None where there is none."""
    return _known(name) if name in _sources() else None


@cache
def _known(name: str) -> PageFile:
    body = _sources()[name].read_bytes()
    return _ready(_COMMENT.sub(b"", body) if name.endswith(".js") else body, name)


@cache
def document(screen: str) -> PageFile:
    """The HTML document that begins with this screen (`runs`)."""
    body = _sources()["index.html"].read_bytes()
    return _ready(body.replace(PLACE.encode(), _preloads(f"screens/{screen}.js").encode()), "index.html")


def _ready(body: bytes, name: str) -> PageFile:
    return PageFile(body, _gzip(body), hashlib.sha256(body).hexdigest()[:20], TYPES[name.rpartition(".")[2]])


def module_order(entry: str) -> list[str]:
    """The modules that `entry` imports, each after those that it imports itself, `entry` last. `ValueError` where they go
    in a circle, `KeyError` where one is not there."""
    order: list[str] = []
    _visit(entry, (), order)
    return order


def _visit(name: str, above: tuple[str, ...], order: list[str]) -> None:
    if name in above:
        raise ValueError(f"modules import each other: {' -> '.join((*above, name))}")
    if name in order:
        return
    for wanted in _IMPORT.findall(_sources()[name].read_text(encoding="utf-8")):
        _visit(resolved(name, wanted), (*above, name), order)
    order.append(name)


def resolved(name: str, wanted: str) -> str:
    """The file that the module `name` means by the relative address `wanted`."""
    parts = name.split("/")[:-1]
    for step in wanted.split("/"):
        if step == "..":
            parts.pop()
        elif step != ".":
            parts.append(step)
    return "/".join(parts)


@cache
def _sources() -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    folders = [("", files(__name__.rpartition(".")[0]).joinpath("static"))]
    for prefix, folder in folders:
        for one in folder.iterdir():
            if one.is_dir():
                folders.append((f"{prefix}{one.name}/", one))
            elif one.name.rpartition(".")[2] in TYPES:
                found[prefix + one.name] = one
    return found


def _preloads(screen: str) -> str:
    names = dict.fromkeys((*module_order(ENTRY), *module_order(screen)))
    return "\n".join(f'<link rel="modulepreload" href="/page/{name}">' for name in names)


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: a gzip header without a time, so the same bytes each time
    return packer.compress(body) + packer.flush()


def _document(screen: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return _answer(request, document(screen))

    return answer


async def _file(request: web.Request) -> web.Response:
    return _answer(request, page_file(request.match_info["name"]))


def _answer(request: web.Request, file: PageFile | None) -> web.Response:
    if file is None:
        return web.Response(status=404, text="no such file\n", headers=HEADERS)
    packed = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    tag = f'"{file.tag}{"-gz" if packed else ""}"'
    headers = {**HEADERS, "ETag": tag}
    if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(
        body=file.packed if packed else file.body, headers=headers, content_type=file.content_type, charset="utf-8"
    )
