"""`install_signal_handlers()`: who is called and when, what is put back, and that no line is a bad one to interrupt."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import asynctrace
from asynctrace import ConfigurationError, MisuseError
from asynctrace.testing import Delay, FaultServer

HEAD = """
import asyncio, atexit, os, signal, sys, time
import asynctrace
from asynctrace.exporters import OTLPExporter
from asynctrace.delivery import Outside
tracer = asynctrace.Tracer(service="shop", exporters=[OTLPExporter(sys.argv[1])], journal=False)

def end_spans(n, name="span"):
    for i in range(n):
        with tracer.trace_component(f"{name}-{i}"):
            pass

def stop():
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def run(program: str, server: FaultServer) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + program, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


# Being installed ---------------------------------------------------------------------------------------------------


def test_restoring_puts_back_what_was_there() -> None:
    def mine(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGUSR1, mine)
    with asynctrace.install_signal_handlers([signal.SIGUSR1]) as handlers:
        assert signal.getsignal(signal.SIGUSR1) is not mine
        assert asynctrace.install_signal_handlers([signal.SIGUSR1]) is handlers
        assert repr(handlers) == "<SignalHandlers SIGUSR1>"
    assert signal.getsignal(signal.SIGUSR1) is mine


def test_what_somebody_put_on_top_stays() -> None:
    handlers = asynctrace.install_signal_handlers([signal.SIGUSR1])
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    handlers.restore()
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    asynctrace.install_signal_handlers([signal.SIGUSR1])
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN


def test_another_thread_is_told_that_it_may_not() -> None:
    caught: list[BaseException] = []

    def install() -> None:
        try:
            asynctrace.install_signal_handlers()
        except MisuseError as error:
            caught.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_wrong_options_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="SIGTERM"):
        asynctrace.install_signal_handlers(["SIGTERM"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="no signal 99"):
        asynctrace.install_signal_handlers([99])
    with pytest.raises(ConfigurationError, match="timeout"):
        asynctrace.install_signal_handlers(timeout=-1)


# The program's own handler -----------------------------------------------------------------------------------------

OWN = """
signal.signal(signal.SIGTERM, lambda number, frame: (end_spans(1, "own"), print("own", number)))
asynctrace.install_signal_handlers(timeout=5)
end_spans(5)
stop()
"""

OWN_THAT_LEAVES = """
def leave(number, frame):
    sys.exit(9)

signal.signal(signal.SIGTERM, leave)
asynctrace.install_signal_handlers(timeout=5)
end_spans(6)
stop()
"""

OWN_ON_A_LOOP = """
async def main():
    stopping = asyncio.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: (print("own", number), stopping.set()))
    asynctrace.install_signal_handlers(timeout=5)
    end_spans(4)
    async with tracer.trace("request"):
        stop()
        await stopping.wait()
        async with tracer.trace_component("late", type="tool"):
            await asyncio.sleep(1.3)
    await asyncio.sleep(30)

asyncio.run(main())
"""


def check_the_own_handler_comes_first(program: str = OWN, fault: str = "") -> None:
    with FaultServer.in_thread(default=Delay(0.1)) as server:
        assert run(fault + program, server) == (-signal.SIGTERM, "own 15\n")
        assert len(server.accepted_ids) == 6


def test_the_programs_own_handler_is_called_first_and_what_it_ends_arrives() -> None:
    check_the_own_handler_comes_first()


def test_an_own_handler_that_leaves_ends_the_program_its_own_way() -> None:
    with FaultServer.in_thread() as server:
        assert run(OWN_THAT_LEAVES, server) == (9, "")
        assert len(server.accepted_ids) == 6


def test_spans_may_end_until_the_deadline_where_the_program_was_told_to_stop() -> None:
    with FaultServer.in_thread(default=Delay(0.1)) as server:
        assert run(OWN_ON_A_LOOP, server) == (-signal.SIGTERM, "own 15\n")
        endings = {span.name: span.attributes["asynctrace.ending"] for span in server.spans}
    assert endings["request"] == "ok"


# Bad lines to interrupt --------------------------------------------------------------------------------------------

INSIDE = {
    "in the middle of a store": """
from asynctrace.spanlog import SpanLog
store = SpanLog._store_together
def interrupted(log, records):
    if len(records) > 3:
        SpanLog._store_together = store
        stop()
    return store(log, records)
SpanLog._store_together = interrupted
asynctrace.install_signal_handlers(timeout=12)
end_spans(200)
time.sleep(14)
""",
    "while the lanes' thread is started": """
from asynctrace.delivery._home import Home
move = Home.move_into_own_thread
def interrupted(home):
    Home.move_into_own_thread = move
    stop()
    move(home)
Home.move_into_own_thread = interrupted
asynctrace.install_signal_handlers(timeout=12)
end_spans(1)
time.sleep(14)
""",
    "while a flush runs a loop of its own": """
asynctrace.install_signal_handlers(timeout=12)
end_spans(5)
press = tracer._delivery.press
def interrupted(*given):
    tracer._delivery.press = press
    stop()
    press(*given)
tracer._delivery.press = interrupted
tracer.flush_sync()
time.sleep(14)
""",
    "while threading holds its locks": """
import threading
asynctrace.install_signal_handlers(timeout=12)
end_spans(5)
with threading._active_limbo_lock:
    stop()
time.sleep(14)
""",
    "at exit, while the lanes deliver": """
asynctrace.install_signal_handlers(timeout=12)
cut = asynctrace.Tracer._cut_open
def interrupted(tracer):
    asynctrace.Tracer._cut_open = cut
    stop()
asynctrace.Tracer._cut_open = interrupted
end_spans(5)
""",
}


@pytest.mark.parametrize("where", INSIDE)
def test_no_line_is_a_bad_one_to_interrupt(where: str) -> None:
    check_interrupted(where)


def check_interrupted(where: str, fault: str = "") -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as server:
        began = time.monotonic()
        code, _ = run(fault + INSIDE[where], server)
        assert code == -signal.SIGTERM
        assert time.monotonic() - began < 11, "it waited for a lock that it held itself"
        if "exit" not in where:
            assert server.accepted_ids, "nothing arrived"


@pytest.mark.parametrize("where", ["in the middle of a store", "while the lanes' thread is started"])
def test_a_handler_that_waits_where_it_stands_is_noticed(where: str) -> None:
    with pytest.raises(AssertionError):
        check_interrupted(where, "Outside.call_when_free = lambda self, callback: False\n")


def test_a_handler_that_forgets_the_own_one_is_noticed() -> None:
    fault = (
        "from asynctrace.runtime import SignalHandlers\nSignalHandlers._tell_the_program = lambda self, *given: None\n"
    )
    with pytest.raises(AssertionError):
        check_the_own_handler_comes_first(fault=fault)
