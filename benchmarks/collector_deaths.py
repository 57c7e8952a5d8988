"""How many acknowledged spans are lost when a collector is killed?

A collector gets requests over eight connections and is killed (SIGKILL) after a number of answers that differs each time;
the next one starts on the same directory. After the last death every span of every request that was answered 200 is looked
for in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _collectors
import aiohttp
from _common import Benchmark, Figure, Scale, main

from asynctrace.collector import SQLiteReader


async def send_until_death(
    url: str, process: subprocess.Popen[str], requests: list[bytes], answers: int
) -> list[bytes]:
    """Trace ids of what was acknowledged before the process died."""
    acknowledged: list[bytes] = []
    headers = {"Content-Type": "application/x-protobuf"}

    async def send() -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while requests:
                body = requests.pop()
                async with session.post(f"{url}/v1/traces", data=body, headers=headers) as answer:
                    if answer.status == 200:
                        acknowledged.append(trace_of(body))
                if len(acknowledged) >= answers:
                    process.kill()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(send() for _ in range(8)))
    return acknowledged


def trace_of(body: bytes) -> bytes:
    """All spans of a body are of one trace."""
    place = body.index(b"\x0a\x10")
    return body[place + 2 : place + 18]


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    chance = random.Random(5)
    acknowledged: list[bytes] = []
    deaths = scale.pick(20, 5, 2)
    with tempfile.TemporaryDirectory() as directory:
        for number in range(deaths):
            command = [sys.executable, "-m", "asynctrace.cli", "serve", "--port", "0", "--no-open", "--data", directory]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                requests = _collectors.bodies(scale.pick(100, 40, 12), seed=number)
                answers = chance.randrange(1, len(requests) // 2)
                acknowledged += asyncio.run(send_until_death(url, process, requests, answers))
                process.kill()
        reader = SQLiteReader(Path(directory))
        there = sum(len(group.spans) for trace in acknowledged for group in reader.trace(trace.hex()))
    spans = len(acknowledged) * _collectors.SPANS_IN_A_BODY
    lost = Figure(
        name=f"acknowledged spans lost in {deaths} deaths",
        measured=spans - there,
        unit="spans",
        must=0,
        note=f"of {spans:,}",
    )
    return [lost], {"acknowledged": spans, "found": there}


if __name__ == "__main__":
    main(
        Benchmark(question="How many acknowledged spans are lost when a collector is killed?", measure=measure),
        __file__,
    )
