"""Collectors as processes of their own, seen from outside, and what is sent to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp

from asynctrace._contracts import Resource, Scope
from asynctrace.wire import (
    encode_attributes,
    encode_request,
    encode_resource,
    encode_scope,
    encode_status,
    frame,
    length_delimited,
)

__all__ = [
    "SPANS_IN_A_BODY",
    "Collecting",
    "asynctrace_program",
    "asynctrace_serve",
    "bodies",
    "number_of",
    "phoenix_serve",
    "post_all",
]

SPANS_IN_A_BODY = 512
CONNECTIONS = 8
STARTED_WITHIN = 180.0
"""Seconds; Phoenix needs most of a minute on a busy machine."""
WORDS = (
    *("compare", "vector", "databases", "for", "a", "small", "team", "that", "keeps", "its", "documents", "on"),
    *("one", "machine", "and", "asks", "about", "tea"),
)
PHOENIX = "ASYNCTRACE_BENCH_PHOENIX"
"""The variable with the path of the command `phoenix`, where it is not on the path itself."""


def bodies(count: int, seed: int = 1, spans: int = SPANS_IN_A_BODY) -> list[bytes]:
    """`count` requests of `spans` spans: calls of a model, 850 bytes each, with a prompt and an answer."""
    chance = random.Random(seed)
    resource = encode_resource(Resource(attributes={"service.name": "benchmark", "service.version": "1.0"}))
    scope = encode_scope(Scope(name="benchmark"))
    return [_body(chance, resource, scope, spans) for _ in range(count)]


def _body(chance: random.Random, resource: bytes, scope: bytes, spans: int) -> bytes:
    trace_id = chance.randbytes(16)
    root = chance.randbytes(8)
    ids = [root, *(chance.randbytes(8) for _ in range(spans - 1))]
    records = [frame(_span(chance, trace_id, each, b"" if each == root else root)) for each in ids]
    return b"".join(encode_request(resource, scope, records))


def _span(chance: random.Random, trace_id: bytes, span_id: bytes, parent_id: bytes) -> bytes:
    start = time.time_ns() + chance.randrange(10**9)
    said = " ".join(chance.choices(WORDS, k=47))
    attributes = {
        "openinference.span.kind": "LLM",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.usage.input_tokens": chance.randrange(20, 2000),
        "gen_ai.usage.output_tokens": chance.randrange(20, 500),
        "session.id": f"session-{chance.randrange(50)}",
        "user.id": f"user-{chance.randrange(20)}",
        "input.value": f"{said} {chance.randrange(10**6)}",
        "output.value": " ".join(chance.choices(WORDS, k=47)),
    }
    times = b"\x30\x03\x39" + start.to_bytes(8, "little") + b"\x41" + (start + 5_000_000).to_bytes(8, "little")
    parts = [b"\x0a\x10" + trace_id, b"\x12\x08" + span_id, b"\x22\x08" + parent_id if parent_id else b""]
    parts += [length_delimited(b"\x2a", b"chat gpt-x"), times, encode_attributes(b"\x4a", attributes), encode_status(1)]
    return b"".join(parts)


class Collecting:
    """A collector's process and its address."""

    def __init__(self, process: subprocess.Popen[str], url: str, directory: Path, started_after: float) -> None:
        self.process = process
        self.url = url
        self.directory = directory
        self.started_after = started_after
        """Seconds until it was ready."""

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_megabytes(self) -> float:
        """Memory now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextlib.contextmanager
def asynctrace_serve() -> Iterator[Collecting]:
    """`asynctrace serve` with an empty directory."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "asynctrace.cli", "serve", "--port", "0", "--no-open", "--data", directory]
        begin = time.monotonic()
        with _running(command) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            _wait_until_ready(f"{url}/readyz", process)
            yield Collecting(process, url, Path(directory), time.monotonic() - begin)


@contextlib.contextmanager
def asynctrace_program(name: str, *flags: str) -> Iterator[Collecting]:
    """`asynctrace ingest`, `worker` or `view`."""
    command = [sys.executable, "-m", "asynctrace.cli", name, *flags, "--port", "0"]
    begin = time.monotonic()
    with _running(command) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        _wait_until_ready(f"{url}/readyz", process)
        yield Collecting(process, url, Path(), time.monotonic() - begin)


def number_of(url: str, name: str) -> float:
    """One number of `/metrics`; 0 while it is not there."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def phoenix_command() -> str | None:
    """Where `phoenix` is, None where it is not installed."""
    return os.environ.get(PHOENIX) or shutil.which("phoenix")


@contextlib.contextmanager
def phoenix_serve(command: str) -> Iterator[Collecting]:
    """Phoenix with an empty directory."""
    with tempfile.TemporaryDirectory() as directory:
        port, other = _free_ports(2)
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = inherited | {
            "PHOENIX_WORKING_DIR": directory,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(port),
            "PHOENIX_GRPC_PORT": str(other),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        begin = time.monotonic()
        with _running([command, "serve"], environment, stdout=subprocess.DEVNULL) as process:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(f"{url}/healthz", process)
            yield Collecting(process, url, Path(directory), time.monotonic() - begin)


def spans_in_phoenix(collecting: Collecting) -> int:
    """How many spans Phoenix has stored."""
    with contextlib.closing(sqlite3.connect(f"file:{collecting.directory}/phoenix.db?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM spans").fetchone()[0])


async def post_all(url: str, requests: Sequence[bytes]) -> None:
    """Post each body over one of a few connections; an answer other than 200 is an error, but "come again" is obeyed."""
    waiting = list(reversed(requests))
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(_post_some(session, url, waiting) for _ in range(CONNECTIONS)))


async def _post_some(session: aiohttp.ClientSession, url: str, waiting: list[bytes]) -> None:
    while waiting:
        body = waiting.pop()
        if not await _is_taken(session, url, body):
            waiting.append(body)
            await asyncio.sleep(0.1)


async def _is_taken(session: aiohttp.ClientSession, url: str, body: bytes) -> bool:
    headers = {"Content-Type": "application/x-protobuf"}
    async with session.post(f"{url}/v1/traces", data=body, headers=headers) as answer:
        if answer.status not in (200, 429, 503):
            raise RuntimeError(f"{answer.status}: {await answer.text()}")
        return answer.status == 200


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str] | None = None, *, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.01)
    raise RuntimeError(f"{url} did not answer: the process ended with {process.poll()}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
