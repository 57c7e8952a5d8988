"""How many spans does a collector take in a second of CPU time?

`asynctrace serve` is a process of its own, with an empty directory. Requests of 512 spans (850 bytes each, with a prompt and
an answer) are posted over eight connections; each is answered after its commit. What counts is the user and system time
of the collector's process between the first request and the last answer. Phoenix gets the same requests, fewer of them;
it answers before it has stored them, so its time is taken until they are there. It is measured where it is installed
(`pip install arize-phoenix`, best in an environment of its own: ASYNCTRACE_BENCH_PHOENIX is the path of its command).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import urllib.request
from typing import Any

import _collectors
from _common import Benchmark, Figure, Incomplete, Scale, main

MUST = 60_000
AIM = 80_000
RATIO_MUST = 100
STORED_WITHIN = 240.0
"""Seconds that Phoenix has to store what it answered."""


def spans_a_second(requests: int, seed: int) -> dict[str, float]:
    """One round with a new collector: spans for each second of CPU time and of the clock, and its memory."""
    with _collectors.asynctrace_serve() as collecting:
        sent = _collectors.bodies(requests, seed)
        asyncio.run(_collectors.post_all(collecting.url, _collectors.bodies(4, seed + 1000)))
        cpu, clock = collecting.cpu_seconds(), time.monotonic()
        asyncio.run(_collectors.post_all(collecting.url, sent))
        cpu, clock = collecting.cpu_seconds() - cpu, time.monotonic() - clock
        spans = requests * _collectors.SPANS_IN_A_BODY
        _expect(collecting.url, spans + 4 * _collectors.SPANS_IN_A_BODY)
        return {"cpu": spans / max(cpu, 0.01), "clock": spans / clock, "megabytes": collecting.resident_megabytes()}


def _expect(url: str, spans: int) -> None:
    with urllib.request.urlopen(f"{url}/api/v1/status", timeout=60) as answer:
        stored = json.load(answer)["store"]["spans"]
    if stored != spans:
        raise Incomplete(f"{stored} spans are stored, {spans} were acknowledged")


def phoenix_spans_a_second(command: str, requests: int) -> float:
    """Spans that Phoenix stores for each second of its CPU time."""
    with _collectors.phoenix_serve(command) as collecting:
        cpu = collecting.cpu_seconds()
        asyncio.run(_collectors.post_all(collecting.url, _collectors.bodies(requests)))
        spans = requests * _collectors.SPANS_IN_A_BODY
        deadline = time.monotonic() + STORED_WITHIN
        while (stored := _collectors.spans_in_phoenix(collecting)) < spans:
            if time.monotonic() > deadline:
                raise Incomplete(f"Phoenix stored {stored} of {spans} spans")
            time.sleep(0.5)
        return spans / (collecting.cpu_seconds() - cpu)


def measure(scale: Scale) -> tuple[list[Figure], dict[str, Any]]:
    requests = scale.pick(400, 80, 4)
    command = _collectors.phoenix_command() if scale is not Scale.TINY else None
    ours, theirs = [], []
    for number in range(scale.pick(5, 2, 1)):
        ours.append(spans_a_second(requests, number))
        if command is not None and number < 2:
            theirs.append(phoenix_spans_a_second(command, scale.pick(8, 2, 1)))
    best = max(each["cpu"] for each in ours)
    figures = [
        Figure(
            name="spans acknowledged for each CPU second, quickest round",
            measured=best,
            unit="spans/s",
            must=MUST,
            aim=AIM,
            better="higher",
            note="850 B with prompt and answer",
        ),
        Figure(
            name="of the clock",
            measured=statistics.median(each["clock"] for each in ours),
            unit="spans/s",
            better="higher",
        ),
        Figure(name="memory while it receives", measured=max(each["megabytes"] for each in ours), unit="MB"),
    ]
    if theirs:
        ratio = best / max(theirs)
        figures.append(
            Figure(name="the same against Phoenix", measured=ratio, unit="x", must=RATIO_MUST, better="higher")
        )
    return figures, {"asynctrace": ours, "phoenix": theirs or "not installed"}


if __name__ == "__main__":
    main(Benchmark(question="How many spans does a collector take in a second of CPU time?", measure=measure), __file__)
