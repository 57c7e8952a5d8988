"""What a forked child has of its own, what it leaves to its parent, and that a fork may happen at any moment.

Each check runs a real program; the same check is given programs that break one of the hooks, and must notice.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from asynctrace.testing import Delay, FaultServer

HEAD = """
import gc, os, sys, threading, time
import asynctrace
from asynctrace import Tracer
from asynctrace.exporters import OTLPExporter
from asynctrace.runtime import _fork, _registry
from asynctrace.exporters import _otlp
from asynctrace.delivery import _delivery, _home

{fault}
tracer = Tracer(service="shop", exporters=[OTLPExporter(sys.argv[1])], shutdown_timeout=5, journal=False)

def end_spans(n, name):
    for i in range(n):
        with tracer.trace_component(f"{name}-{i}"):
            pass

def in_child(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            tracer.shutdown_sync(5)
            code = 0
        except BaseException as error:
            os.write(2, repr(error).encode())
        finally:
            os._exit(code)
    return pid

def wait_for(pid, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hangs"
"""

OPEN_QUEUED_AND_UNDER_WAY = """
end_spans(5, "sent")
time.sleep(0.3)  # the first request is under way
end_spans(5, "queued")
with tracer.trace("parent's") as run:
    with tracer.trace_component("open") as component:
        def work():
            with tracer.trace_component("child's"):
                pass
            component.set_attribute("late", 1)
            component.end()
            with tracer.trace_component("after"):
                pass
            assert tracer.statistics().late_calls, "leaving the parent's span is counted"
            assert tracer.receipt().ended == 2, tracer.receipt()
        print(wait_for(in_child(work)))
    end_spans(5, "later")
print(tracer.shutdown_sync(5).complete)
"""

NESTED = """
def inner():
    end_spans(1, "grandchild")

def outer():
    end_spans(1, "child")
    assert wait_for(in_child(inner)) == 0
    end_spans(1, "child-again")

end_spans(1, "parent")
print(wait_for(in_child(outer)))
print(tracer.shutdown_sync(5).complete)
"""

IDENTITY = """
end_spans(1, "parent")
pid = in_child(lambda: end_spans(1, "child"))
print(wait_for(pid))
pid = in_child(lambda: end_spans(1, "other"))
print(wait_for(pid))
tracer.shutdown_sync(5)
"""

BUSY = """
import random
stop = threading.Event()
def append():
    while not stop.is_set():
        end_spans(20, "thread")
        time.sleep(random.random() / 100)

threads = [threading.Thread(target=append) for _ in range(2)]
for thread in threads:
    thread.start()
codes = []
for number in range(int(sys.argv[2])):
    time.sleep(random.random() / 500)
    codes.append(wait_for(in_child(lambda: tracer.trace_component("child").start().end()), 10.0))
    if codes[-1] == "hangs":
        break
stop.set()
for thread in threads:
    thread.join()
print(sorted(map(str, set(codes))))
receipt = tracer.shutdown_sync(30)
print(receipt.complete or receipt)
"""

FINALISED = """
class Interrupts:
    def __del__(self):
        end_spans(1, "finaliser")

os.register_at_fork(before=lambda: Interrupts(), after_in_parent=lambda: Interrupts(), after_in_child=lambda: Interrupts())
end_spans(1, "parent")
print(wait_for(in_child(lambda: end_spans(1, "child"))))
print(tracer.shutdown_sync(5).complete)
"""

DESCRIPTORS = """
import socket

def connections():
    port = int(sys.argv[1].rpartition(":")[2])
    lines = [line.split() for line in open("/proc/self/net/tcp")]
    ours = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}")}
    return [link for link in links() if link in ours]

def links():
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [os.readlink(name) for name in names if os.path.lexists(name)]

def selectors():
    return [link for link in links() if "eventpoll" in link]

end_spans(1, "parent")
tracer.flush_sync(5)
assert connections() and selectors()

def work():
    assert not connections(), connections()
    assert not selectors(), selectors()
    end_spans(1, "child")

print(wait_for(in_child(work)))
kept = connections()
end_spans(1, "parent-again")
tracer.flush_sync(5)
print(connections() == kept)
print(tracer.shutdown_sync(5).complete)
"""

IMPORTING = """
import importlib.abc, importlib.machinery

class Slowly(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "aiohttp":
            begun.set()
            time.sleep(0.5)

begun = threading.Event()
sys.meta_path.insert(0, Slowly())
end_spans(1, "parent")
assert begun.wait(5)
print(wait_for(in_child(lambda: end_spans(1, "child"))))
print(tracer.shutdown_sync(5).complete)
"""


def run(program: str, server: FaultServer, *arguments: str, fault: str = "") -> str:
    source = HEAD.replace("{fault}", fault) + program
    ended = subprocess.run(
        [sys.executable, "-c", source, server.url, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    return ended.stdout


def check_each_span_arrives_once(fault: str = "") -> None:
    """An open span, queued spans and a request under way: the parent's stay the parent's."""
    with FaultServer.in_thread(default=Delay(0.4)) as server:
        assert run(OPEN_QUEUED_AND_UNDER_WAY, server, fault=fault).split() == ["0", "True"]
        spans = server.spans
        assert set(server.accepted_ids.values()) == {1}, f"{server.accepted_ids}"
    by_name = {span.name: span for span in spans}
    assert Counter(name.partition("-")[0] for name in by_name) == {
        "sent": 5, "queued": 5, "later": 5, "open": 1, "parent's": 1, "child's": 1, "after": 1
    }  # fmt: skip
    assert by_name["child's"].parent_id == by_name["open"].span_id
    assert by_name["open"].attributes["asynctrace.ending"] == "ok"
    assert "late" not in by_name["open"].attributes


def check_a_child_is_somebody_else(fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(IDENTITY, server, fault=fault).split() == ["0", "0"]
        resources = [request.resource.attributes for request in server.requests]
        spans = server.spans
    assert len({resource["service.instance.id"] for resource in resources}) == 3
    assert len({resource["process.pid"] for resource in resources}) == 3
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 3
    assert len({request.key for request in server.requests}) == 3


def check_a_grandchild_delivers(fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(NESTED, server, fault=fault).split() == ["0", "True"]
        assert Counter(span.name for span in server.spans) == Counter(
            ["parent-0", "child-0", "grandchild-0", "child-again-0"]
        )


def check_forks_while_others_append(fault: str = "", forks: int = 60) -> None:
    with FaultServer.in_thread() as server:
        codes, complete = run(BUSY, server, str(forks), fault=fault).splitlines()
        assert (codes, complete) == ("['0']", "True")
        assert set(server.accepted_ids.values()) == {1}
        assert sum(span.name == "child" for span in server.spans) == forks


def check_a_finaliser_between_the_hooks(fault: str = "") -> None:
    """Whatever the parent's hooks end arrives from the parent; in the child, after its hook, from the child."""
    with FaultServer.in_thread() as server:
        assert run(FINALISED, server, fault=fault).split() == ["0", "True"]
        assert set(server.accepted_ids.values()) == {1}
        assert Counter(span.name for span in server.spans) == {"parent-0": 1, "child-0": 1, "finaliser-0": 3}


def check_a_child_has_none_of_its_parents_descriptors(fault: str = "") -> None:
    """And the parent's connection and loop go on as before."""
    with FaultServer.in_thread() as server:
        assert run(DESCRIPTORS, server, fault=fault).split() == ["0", "True", "True"]
        assert Counter(span.name for span in server.spans) == {"parent-0": 1, "child-0": 1, "parent-again-0": 1}


def check_a_fork_in_the_middle_of_an_import(fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(IMPORTING, server, fault=fault).split() == ["0", "True"]
        assert Counter(span.name for span in server.spans) == {"parent-0": 1, "child-0": 1}


FAULTS = {
    check_each_span_arrives_once: {
        "keeps the parent's log and lanes": "Tracer._begin_anew = lambda self: self._log._lock.release()",
        "ends the parent's spans": "from asynctrace.tracing._open_spans import OpenSpans\n"
        "OpenSpans.abandon = lambda self: []",
    },
    check_a_child_has_none_of_its_parents_descriptors: {
        "keeps the connections": "_otlp.OTLPExporter.after_fork_in_child = lambda self: None",
        "says good-bye": "import asyncio\n"
        "_otlp.OTLPExporter.after_fork_in_child = lambda self: [\n"
        "    held[0].transport._sock.shutdown(2) for session in self._transport._sessions.values()\n"
        "    for pool in session.connector._conns.values() for held in pool]",
        "keeps the loop": "_home.Home.forget_in_child = lambda self: None",
        "closes the loop as if it were its own": "def close(self):\n"
        "    self.loop._thread_id = None\n"
        "    self.loop.close()\n"
        "_home.Home.forget_in_child = close",
    },
    check_a_child_is_somebody_else: {
        "keeps the ids": "from asynctrace.runtime import _parts\n"
        "same = _parts.RandomIds()\n_parts.RandomIds = lambda: same",
        "keeps the resource": "from asynctrace.runtime import _parts\n"
        "made = _parts.make_resource\nfirst = []\n"
        "def make_resource(*given):\n"
        "    first.append(made(*given))\n"
        "    return first[0]\n"
        "_parts.make_resource = make_resource",
    },
    check_forks_while_others_append: {
        "leaves its locks to whoever had them": "from asynctrace.spanlog import SpanLog\n"
        "SpanLog.after_fork_in_child = lambda self: None\n"
        "Tracer._own = lambda self, own=Tracer._own: self._log if hasattr(self, '_log') else own(self)\n"
        "SpanLog.before_fork = lambda self: None\n"
        "SpanLog.after_fork_in_parent = lambda self: None",
    },
    check_a_fork_in_the_middle_of_an_import: {
        "does not wait for the import": "_fork._locks_of_imports = lambda: []",
    },
}


@pytest.mark.parametrize(
    "check",
    [
        check_each_span_arrives_once,
        check_a_child_is_somebody_else,
        check_a_grandchild_delivers,
        check_forks_while_others_append,
        check_a_finaliser_between_the_hooks,
        check_a_child_has_none_of_its_parents_descriptors,
        check_a_fork_in_the_middle_of_an_import,
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_a_fork_keeps_its_promises(check) -> None:  # type: ignore[no-untyped-def]
    check()


@pytest.mark.long
def test_five_hundred_forks_while_others_append() -> None:
    check_forks_while_others_append(forks=500)


@pytest.mark.parametrize(
    ("check", "fault"),
    [(check, fault) for check, faults in FAULTS.items() for fault in faults],
    ids=lambda value: value if isinstance(value, str) else value.__name__.removeprefix("check_"),
)
def test_each_check_notices_a_hook_that_is_wrong(check, fault: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError):
        check(FAULTS[check][fault])
