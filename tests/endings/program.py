"""A program that ends in one of the ways of the table: `program.py ENDING WHERE URL JOURNAL TIMEOUT`.

It prints the id of each span once the span's end has returned, then how it is going to end, and ends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
import time
from typing import Any

import asynctrace
from asynctrace.exporters import OTLPExporter

_, ENDING, WHERE, URL, JOURNAL, TIMEOUT = sys.argv
SPANS = 20


def make_tracer() -> asynctrace.Tracer:
    options: dict[str, Any] = {"journal": JOURNAL} if JOURNAL != "-" else {"journal": False}
    return asynctrace.Tracer(
        service="endings", exporters=[OTLPExporter(URL)], shutdown_timeout=float(TIMEOUT), **options
    )


tracer = make_tracer()


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def end_spans() -> None:
    for number in range(SPANS):
        with tracer.trace_component(f"ended-{number}") as component:
            pass
        say("ended", component.span_id)


def eat() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * (8 << 20))


def leave() -> None:
    """The endings that the program brings about itself."""
    if ENDING.startswith("sys.exit"):
        sys.exit(3)
    if ENDING.startswith("exception"):
        raise LookupError("nobody handles this")
    if ENDING.startswith("os._exit"):
        os._exit(7)
    if ENDING == "out of memory":
        eat()


async def main() -> None:
    end_spans()
    if ENDING in ("return", "backend down"):
        return
    async with tracer.trace("open") as run:
        say("open", run.span_id)
        say("ready", os.getpid())
        leave()
        await asyncio.sleep(60)


def main_without_a_loop() -> None:
    end_spans()
    if ENDING == "loop never started":
        return
    with tracer.trace("open") as run:
        say("open", run.span_id)
        say("ready", os.getpid())
        leave()
        time.sleep(60)


def main_with_a_daemon_thread() -> None:
    is_open = threading.Event()

    def work() -> None:
        with tracer.trace("open") as run:
            say("open", run.span_id)
            is_open.set()
            time.sleep(60)

    threading.Thread(target=work, daemon=True).start()
    is_open.wait()
    end_spans()


def work() -> None:
    if "handler" in ENDING:
        asynctrace.install_signal_handlers()
    if ENDING == "daemon thread":
        main_with_a_daemon_thread()
    elif "loop never started" in ENDING:
        main_without_a_loop()
    else:
        asyncio.run(main())


def restart() -> None:
    """What comes after a death: it only has to live for as long as recovery takes."""
    with tracer, tracer.trace("restart"):
        pass
    asyncio.run(wait_for_recovery())


async def wait_for_recovery() -> None:
    """Until the sink has what it waits for: it then ends the program."""
    await asyncio.sleep(60)


if __name__ == "__main__":
    if ENDING == "restart":
        restart()
    elif WHERE == "script":
        work()
    else:
        child = multiprocessing.get_context(WHERE).Process(target=work)
        child.start()
        child.join()
        say("code", child.exitcode)
