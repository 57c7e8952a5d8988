"""A WSGI application: all it knows of tracing is `configure()` and its spans."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs

import configured  # noqa: F401
from notes import noted

import asynctrace
from endings import leave


def app(environ: dict[str, str], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    query = parse_qs(environ.get("QUERY_STRING", ""))
    name = environ["PATH_INFO"].strip("/")
    with noted(asynctrace.trace(name)):
        if name == "work":
            for part in ("look_up", "answer"):
                with noted(asynctrace.trace_component(part)):
                    pass
        if name == "hold":
            time.sleep(float(os.environ.get("HOLDS_FOR", "60")))
        if name == "flush":
            asynctrace.flush_sync()
        if name == "end":
            leave(query["how"][0], query.get("group", [""])[0])
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"done"]
