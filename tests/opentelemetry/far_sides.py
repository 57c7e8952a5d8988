"""What instrumented libraries talk to: an HTTP server that also speaks OpenAI's API, a Redis server, an ASGI server."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn

__all__ = ["HTTPServer", "asgi_server", "http_server", "redis_server"]

DEADLINE = 30.0
"""Seconds."""

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


class HTTPServer:
    """Where it is, and the headers of the requests that came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: list[dict[str, str]] = []


@contextlib.contextmanager
def http_server() -> Iterator[HTTPServer]:
    """GET answers 200, or the status in the path; POST answers as OpenAI's chat completions do, streamed if asked to."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.headers.append({name.lower(): value for name, value in self.headers.items()})
            self._answer(int(self.path.strip("/") or 200), b"{}", "application/json")

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if asked["model"] == "missing":
                self._answer(404, b'{"error": {"message": "no such model"}}', "application/json")
            elif asked.get("stream"):
                self._answer(200, _streamed(asked["model"]), "text/event-stream")
            else:
                self._answer(200, json.dumps(_completion(asked["model"])).encode(), "application/json")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *ignored: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = HTTPServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE)


def _completion(model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "tea"}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {**_about("chat.completion", model), "choices": [choice], "usage": USAGE}


def _streamed(model: str) -> bytes:
    about = _about("chat.completion.chunk", model)
    deltas = [{"role": "assistant", "content": "t"}, {"content": "ea"}, {}]
    chunks: list[dict[str, Any]] = [
        {**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in deltas
    ]
    chunks.append({**about, "choices": [], "usage": USAGE})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def _about(kind: str, model: str) -> dict[str, Any]:
    return {"id": "c-1", "object": kind, "created": 1, "model": model}


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The path of the socket of a Redis of its own."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server (Debian: redis-server)")
    socket = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        _wait_until(socket.exists)
        yield str(socket)
    finally:
        process.terminate()
        process.wait(DEADLINE)


@contextlib.contextmanager
def asgi_server(app: Any) -> Iterator[str]:
    """The URL of a uvicorn that serves `app` in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE)


def _wait_until(is_so: Callable[[], bool]) -> None:
    """For what has no event to wait for."""
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
