"""What does it cost to put spans into the stream, and to take them out?

Messages of 512 spans, 40,000 bytes each (about what zstd leaves of them), go into a Redis on the same machine, at
most 64 at once: by `RedisStream.append()`, and by plain `xadd()` of redis-py's asyncio client. Then into one that has
a replica: by `append()`, which waits until the replica has it too, and by `xadd()` and `wait()` in one pipeline for
each. The measure is the CPU of the client's process. The stream's messages are claimed and acknowledged afterwards,
and counted: a round in which one is missing raises. Needs `redis-server` (Debian: redis-server).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from _common import Benchmark, Figure, Incomplete, Scale, Task, main, run_child

SPANS = 512
BODY = os.urandom(40_000)
AT_ONCE = 64
MUST = 60_000
"""Spans for each second of CPU."""
OURS, PEER = "append()", "xadd() of redis-py"


@contextlib.contextmanager
def servers(replicas: int) -> Iterator[int]:
    """A Redis with so many replicas that have caught up; its port."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("needs redis-server (Debian: apt install redis-server)")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ended:
        ports: list[int] = []
        for _ in range(1 + replicas):
            port = _free_port()
            follow = ["--replicaof", "127.0.0.1", str(ports[0])] if ports else []
            command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder, *follow]
            process = subprocess.Popen([*command, "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL)
            ended.callback(process.wait)
            ended.callback(process.kill)
            ports.append(port)
        _wait_for(ports[0], replicas)
        yield ports[0]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(port: int, replicas: int) -> None:
    from redis import Redis
    from redis.exceptions import RedisError

    end = time.monotonic() + 30
    with Redis(port=port) as client:
        while time.monotonic() < end:
            with contextlib.suppress(RedisError):
                if client.wait(replicas, 100) >= replicas:
                    return
            time.sleep(0.05)
    sys.exit("Redis did not start")


async def child(task: Task) -> dict[str, Any]:
    port, messages, replicas = task.options["port"], task.options["messages"], task.options["replicas"]
    return await (_ours if task.options["way"] == OURS else _peers)(port, messages, replicas)


async def _ours(port: int, messages: int, replicas: int) -> dict[str, Any]:
    from asynctrace.stream import Message, RedisStream

    stream = RedisStream(
        f"redis://127.0.0.1:{port}", prefix=f"b{os.getpid()}", linger=0.0, block=1.0, max_bytes=1 << 40
    )

    async def append(number: int) -> None:
        await stream.append(Message(key=f"log:{number}:{SPANS}", records=SPANS, body=BODY))

    await stream.check()
    spent = await _cpu_of(append, messages)
    began = time.process_time()
    taken = 0
    while (claim := await stream.claim("benchmark")) is not None:
        taken += len(claim.deliveries)
        await stream.acknowledge(claim)
    out = time.process_time() - began
    await stream.aclose()
    if taken != messages:
        raise Incomplete(f"{taken} of {messages} messages came out")
    return {"in": messages * SPANS / spent, "out": messages * SPANS / out}


async def _peers(port: int, messages: int, replicas: int) -> dict[str, Any]:
    from redis.asyncio import Redis

    async with Redis(port=port) as client:

        async def append(number: int) -> None:
            entry = {b"key": b"log:%d:%d" % (number, SPANS), b"n": b"%d" % SPANS, b"body": BODY}
            if not replicas:
                await client.xadd(f"b{os.getpid()}", entry)
                return
            pipeline = client.pipeline(transaction=False)
            pipeline.xadd(f"b{os.getpid()}", entry)
            pipeline.wait(replicas, 5_000)
            await pipeline.execute()

        spent = await _cpu_of(append, messages)
        if await client.xlen(f"b{os.getpid()}") != messages:
            raise Incomplete("messages are missing")
        await client.delete(f"b{os.getpid()}")
    return {"in": messages * SPANS / spent}


async def _cpu_of(append: Callable[[int], Awaitable[None]], messages: int) -> float:
    """Seconds of this process, all threads."""
    numbers = iter(range(messages))

    async def one_after_the_other() -> None:
        for number in numbers:
            await append(number)

    await append(next(numbers))  # connections are open, modules are loaded
    began = time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return time.process_time() - began


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for replicas in (0, 1):
        with servers(replicas) as port:
            rounds = _rounds(scale, port, replicas)
        figures += _figures(rounds, "with a replica" if replicas else "one server")
        details["with a replica" if replicas else "one server"] = rounds
    return figures, details


def _rounds(scale: Scale, port: int, replicas: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    options = {"port": port, "messages": scale.pick(4_000, 1_000, 40), "replicas": replicas}
    return [
        (_run(OURS, options), _run(PEER, options))  # in turns: a neighbor on the machine slows both
        for _ in range(scale.pick(7, 3, 1))
    ]


def _run(way: str, options: dict[str, Any]) -> dict[str, float]:
    return run_child(__file__, Task(contender="asynctrace", options={"way": way, **options}))


def _figures(rounds: list[tuple[dict[str, float], dict[str, float]]], where: str) -> list[Figure]:
    ratio = statistics.median(ours["in"] / peer["in"] for ours, peer in rounds)
    peers = statistics.median(peer["in"] for _, peer in rounds)
    return [
        Figure(
            name=f"spans appended to the stream for a second of CPU, {where}",
            measured=statistics.median(ours["in"] for ours, _ in rounds),
            unit="spans/s",
            must=MUST,
            better="higher",
            note=f"{ratio:.2f} times {PEER} ({peers:,.0f})",
        ),
        Figure(
            name=f"spans claimed and acknowledged for a second of CPU, {where}",
            measured=statistics.median(ours["out"] for ours, _ in rounds),
            unit="spans/s",
            better="higher",
        ),
    ]


if __name__ == "__main__":
    main(
        Benchmark(
            question="What does it cost to put spans into the stream, and to take them out?",
            measure=measure,
            child=child,
        ),
        __file__,
    )
