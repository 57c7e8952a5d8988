"""A parent can wait for what its children ended, and its receipt says how many of their journals are not delivered.

Each check runs a real program that leaves by `os._exit()` when it has collected: what arrives, had arrived by then.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from asynctrace import MisuseError, Receipt, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.processes import collect_children, collect_children_sync
from asynctrace.runtime._travel import describe, tracer_here
from asynctrace.testing import Delay, FaultServer

from .forks import names, run

pytestmark = pytest.mark.anyio

DEAD = """
def work():
    end_spans(5, "ended")
    leave_open("open")

join(*(fork(work) for _ in range(3)))
say(tracer.receipt().children)
say(tracer.receipt())
if sys.argv[3] == "sync":
    receipt = collect_children_sync(sys.argv[4:] and float(sys.argv[4]) or 60, tracer=tracer)
else:
    receipt = asyncio.run(collect_children(SECONDS, tracer=tracer))
say(receipt.children, receipt.recovered, receipt.ended, receipt.complete)
die()
"""

LIVING = """
told_in, told = os.pipe()
parent = os.getpid()

def work():
    leave_open("open")
    end_spans(5, "before")
    os.write(told, b"x")
    while os.getppid() == parent:
        end_spans(1, "later")
        time.sleep(0.001)

pid = fork(work)
os.read(told_in, 1)
say(tracer.receipt().children)
if sys.argv[3] == "sync":
    collect_children_sync(float(sys.argv[4]), tracer=tracer)
else:
    asyncio.run(collect_children(float(sys.argv[4]), tracer=tracer))
os.kill(pid, signal.SIGKILL)
die()
"""

GIVEN_UP = """
Door.is_shut = True
join(fork(lambda: end_spans(5, "ended")))
try:
    collect_children_sync(0.2, tracer=tracer)
except DeliveryTimeout as error:
    say(error.receipt.children, "0.2 s" in str(error))

async def main():
    Door.was_tried.clear()
    collecting = asyncio.create_task(collect_children(tracer=tracer))
    await asyncio.to_thread(Door.was_tried.wait)
    collecting.cancel()
    await asyncio.wait((collecting,))
    say(collecting.cancelled(), tracer.receipt().children)
    Door.is_shut = False
    receipt = await collect_children(SECONDS, tracer=tracer)
    say(receipt.children, receipt.recovered)

asyncio.run(main())
die()
"""

DESCENDANTS = """
lives, life = os.pipe()

def outlives(parent):
    Door.is_shut = True
    os.write(life, b"x")
    while os.getppid() == parent:
        time.sleep(0.002)
    end_spans(3, "of one that is gone")

def delivers_and_is_gone():
    os.close(lives)
    end_spans(1, "child")
    tracer.flush_sync(SECONDS)
    parent = os.getpid()  # asked for here: the child may run for the first time when its parent is gone
    fork(lambda: outlives(parent))
    tracer.shutdown_sync(SECONDS)

def traces_nothing():
    join(fork(lambda: join(fork(lambda: end_spans(3, "of one that traced nothing")))))

def makes_a_tracer_of_its_own():
    global tracer
    tracer = make_tracer()
    end_spans(3, "with a tracer of its own")

gone = fork(delivers_and_is_gone)
os.close(life)
os.read(lives, 1)
say(*join(gone))
os.read(lives, 1)  # until the last process that could write is gone, too
Door.is_shut = True  # so that no sibling recovers what another one left
say(*join(fork(traces_nothing), fork(makes_a_tracer_of_its_own)))
say(tracer.receipt().children)
Door.is_shut = False
say(collect_children_sync(SECONDS, tracer=tracer).children)
die()
"""

OTHERS = """
Door.is_shut = True

def somebody_else():
    global tracer
    tracer = make_tracer()
    tracer._parent_log = ""
    end_spans(5, "somebody else's")

join(fork(somebody_else))
end_spans(1, "own")
say(tracer.receipt().children, len([name for name in os.listdir(sys.argv[2] + "/v1/shop") if name.endswith(".j")]))
say(collect_children_sync(5, tracer=tracer).children)
die()
"""

AFTER_THE_SHUTDOWN = """
say(collect_children_sync(5, tracer=tracer).children)
Door.is_shut = True
join(fork(lambda: end_spans(5, "ended")))
say(tracer.shutdown_sync(0.1).children)
try:
    collect_children_sync(SECONDS, tracer=tracer)
except MisuseError as error:
    say("MisuseError")
die()
"""

LOOKS = """
looks = []
sys.addaudithook(lambda event, given: looks.append(event) if event in ("open", "os.listdir", "os.scandir") else None)
end_spans(5, "own")
tracer.flush_sync(SECONDS)
del looks[:]
tracer.receipt()
say(len(looks))
join(fork(lambda: end_spans(5, "ended")))
tracer.receipt()
say(len(looks) > 0)
tracer.shutdown_sync(SECONDS)
"""

ONLY_WHEN_ASKED = """
from asynctrace.runtime import _recovery
_recovery._PASS_INTERVAL = _recovery._SIBLING_INTERVAL = 1000.0
rest, rests = _recovery.Recovery._rest, threading.Event()

def rest_and_tell(*given):
    rests.set()
    return rest(*given)

_recovery.Recovery._rest = rest_and_tell
end_spans(1, "own")
tracer.flush_sync(SECONDS)
rests.wait(SECONDS)  # the first pass is over, and the next is not due
join(fork(lambda: end_spans(5, "ended")))
say(collect_children_sync(float(sys.argv[3]), tracer=tracer).recovered)
die()
"""


def check_the_dead(state: Path, how: str = "sync", fault: str = "", seconds: str = "60") -> None:
    with FaultServer.in_thread(default=Delay(0.1)) as server:
        before, printed, after = run(DEAD, server, state, how, seconds, fault=fault).splitlines()
        assert names(server) == {("ended", "ok"): 15, ("open", "lost"): 3}
    assert before == "3"
    assert printed.endswith("pending=0, children=3)")
    assert after == "0 18 0 True"


def check_the_living(state: Path, how: str = "sync", fault: str = "", seconds: str = "60") -> None:
    """Those spans that had ended are waited for; those that are open, or end meanwhile, are not."""
    with FaultServer.in_thread(default=Delay(0.3)) as server:
        assert run(LIVING, server, state, how, seconds, fault=fault) == "1\n"
        assert names(server)["before", "ok"] == 5


def check_giving_up(state: Path, fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(GIVEN_UP, server, state, fault=fault).splitlines() == ["1 True", "True 1", "0 5"]
        assert names(server) == {("ended", "ok"): 5}


def check_descendants(state: Path, fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(DESCENDANTS, server, state, fault=fault).splitlines() == ["0", "0 0", "3", "0"]
        assert names(server) == {
            ("child", "ok"): 1,
            ("of one that is gone", "ok"): 3,
            ("of one that traced nothing", "ok"): 3,
            ("with a tracer of its own", "ok"): 3,
        }


def check_others(state: Path, fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(OTHERS, server, state, fault=fault).splitlines() == ["0 2", "0"]


def check_programs_without_children(state: Path, fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(LOOKS, server, state, fault=fault).splitlines() == ["0", "True"]


def check_at_once(state: Path, fault: str = "", seconds: str = "60") -> None:
    with FaultServer.in_thread() as server:
        assert run(ONLY_WHEN_ASKED, server, state, seconds, fault=fault) == "5\n"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_the_dead_had_ended_and_had_open_has_arrived(how: str, tmp_path: Path) -> None:
    check_the_dead(tmp_path, how)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_the_living_had_ended_has_arrived_though_they_go_on(how: str, tmp_path: Path) -> None:
    check_the_living(tmp_path, how)


def test_who_stops_waiting_loses_nothing(tmp_path: Path) -> None:
    check_giving_up(tmp_path)


def test_children_of_children_count_also_when_the_one_between_is_gone(tmp_path: Path) -> None:
    check_descendants(tmp_path)


def test_other_processes_of_the_service_are_not_waited_for(tmp_path: Path) -> None:
    check_others(tmp_path)


def test_a_program_without_children_looks_at_no_file_for_its_receipt(tmp_path: Path) -> None:
    check_programs_without_children(tmp_path)


def test_the_dead_are_recovered_at_once_and_not_when_it_is_due(tmp_path: Path) -> None:
    check_at_once(tmp_path)


def test_after_the_shutdown_what_is_left_is_told(tmp_path: Path) -> None:
    with FaultServer.in_thread() as server:
        assert run(AFTER_THE_SHUTDOWN, server, tmp_path).splitlines() == ["0", "1", "MisuseError"]


async def test_without_a_journal_there_is_nothing_to_wait_for() -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
        async with tracer.trace("own"):
            pass
        receipt = await collect_children(tracer=tracer)
    assert (receipt.ended, receipt.children) == (1, 0)


async def test_in_a_running_loop_the_right_call_is_shown() -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()]) as tracer:
        with pytest.raises(MisuseError, match=r"await collect_children\(\)"):
            collect_children_sync(tracer=tracer)
        with pytest.raises(TypeError, match="timeout is a number of seconds"):
            await collect_children("soon", tracer=tracer)  # type: ignore[arg-type]


async def test_a_tracer_that_was_made_from_another_ones_settings_is_its_child(tmp_path: Path) -> None:
    async with Tracer(service="shop", exporters=[MemoryExporter()], journal=tmp_path) as tracer:
        described = describe(tracer)._replace(key="that of no tracer here", service="another")
        child = tracer_here(described)
        assert isinstance(child, Tracer)
        async with child.trace("the child's"):
            assert child._parent_log == tracer._log_id
        assert child._line_of_descent == f"{tracer._log_id}/{child._log_id}"
        assert tracer._has_children
        await child.shutdown()


def test_children_are_no_part_of_the_balance() -> None:
    receipt = Receipt(ended=1, accepted=1, children=2)
    assert receipt.complete
    receipt.raise_for_loss()
    assert repr(receipt) == "Receipt(ended=1, accepted=1, rejected=0, dropped=0, spooled=0, pending=0, children=2)"
    assert "children" not in repr(Receipt(ended=1, accepted=1))


WRONG = {
    "nobody is waited for": (check_the_dead, "from asynctrace.processes import _children\n"
    "_children._is_left = lambda targets, found: False"),
    "a child does not say where it comes from": (check_the_dead, "from asynctrace.runtime._journal import Journaling\n"
    "Journaling.line_of_descent = lambda self: ''"),
    "a fork is not noted": (check_the_dead, "from asynctrace.runtime import _tracer\n"
    "_tracer.Tracer._has_children = property(lambda self: False, lambda self, value: None)"),
    "the living are not waited for": (check_the_living, "from asynctrace.processes import _children\n"
    "_children._is_left = lambda targets, found: any(found[path].is_dead for path in targets if path in found)"),
    "the parent is all that a child knows": (check_descendants, "from asynctrace.spanlog import journal\n"
    "journal.line_of_descent = lambda parent, journal_id: journal_id"),
    "a tracer made in a child is nobody's": (check_descendants, "from asynctrace.runtime import _fork\n"
    "_fork.line_of_descent = lambda settings: ''"),
    "whoever shares the folder is a child": (check_others, "from asynctrace.spanlog.journal import _descendants\n"
    "class Anybody(str):\n    __eq__ = lambda self, other: True\n    __hash__ = str.__hash__\n"
    "_descendants.ancestors_of = lambda meta: [Anybody()]"),
    "every receipt looks": (check_programs_without_children, "from asynctrace.runtime import _tracer\n"
    "_tracer.Tracer._has_children = property(lambda self: True, lambda self, value: None)"),
}  # fmt: skip
WRONG_IN_TIME = {
    "it waits until the living are done": (check_the_living, "from asynctrace.processes import _children\n"
    "_children._is_left = lambda targets, found: bool(found)"),
    "the dead are recovered when it is due": (check_at_once, "from asynctrace.runtime._recovery import Recovery\n"
    "Recovery.hurry = lambda self, anew=False: None"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_way_to_collect_is_noticed(wrong: str, tmp_path: Path) -> None:
    check, fault = WRONG[wrong]
    with pytest.raises(AssertionError):
        check(tmp_path, fault=fault)


@pytest.mark.parametrize("wrong", WRONG_IN_TIME)
def test_a_way_to_collect_that_does_not_return_is_noticed(wrong: str, tmp_path: Path) -> None:
    check, fault = WRONG_IN_TIME[wrong]
    with pytest.raises(AssertionError):
        check(tmp_path, fault=fault, seconds="3")
