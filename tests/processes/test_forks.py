"""Forks at any moment and to any depth: each process ends its own spans, in its own log, over its own connections.

Each check runs a real program; the same check is given programs that break one thing, and must notice.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from asynctrace.testing import FaultServer, PartialSuccess, Status

from .forks import arrived, names, run

WHILE_TWO_THREADS_APPEND = """
import random
SPANS, AT_ONCE = 5, 4
forks = int(sys.argv[3])
stop = threading.Event()

def append():
    while not stop.is_set():
        end_spans(20, "thread's")
        time.sleep(random.random() / 100)

def work(number):
    end_spans(SPANS, f"child's {number}")
    if number % 2:
        die()  # the parent delivers
    tracer.shutdown_sync(SECONDS)

threads = [threading.Thread(target=append) for _ in range(2)]
for thread in threads:
    thread.start()
codes, running = set(), []
for number in range(forks):
    time.sleep(random.random() / 500)
    running.append(fork(lambda: work(number)))
    say("child", number, running[-1])
    if len(running) == AT_ONCE:
        codes.update(join(running.pop(0)))
        if codes != {0}:
            break
codes.update(join(*running))
stop.set()
for thread in threads:
    thread.join()
say("codes", *codes)
say("left", collect_children_sync(SECONDS, tracer=tracer).children)
say("parent", os.getpid(), tracer.shutdown_sync(SECONDS).accepted)
"""

WHILE_A_LOCK_IS_HELD = """
import gc, itertools
from types import FunctionType, ModuleType
LOCKS = type(threading.Lock()), type(threading.RLock())

def ours(found):
    is_container = isinstance(found, (dict, list, tuple, set))
    return is_container or (type(found).__module__ or "").partition(".")[0] == "asynctrace"

def locks_below(*roots):
    seen, found, left = set(), [], list(roots)
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, LOCKS):
            found.append(one)
        elif ours(one):
            left += [below for below in gc.get_referents(one) if not isinstance(below, (ModuleType, type, FunctionType))]
    return found

with tracer.trace("warm-up", session_id="s", tags=["a"], metadata={"k": 1}, inputs="i"):
    end_spans(1, "warm")
tracer.flush_sync(SECONDS)
modules = [vars(module) for name, module in sys.modules.items() if name.startswith("asynctrace.")]
own = {id(scope) for scope in modules}
locks = locks_below(tracer, *({name: value for name, value in scope.items() if id(value) not in own} for scope in modules))

def hold(lock, held):
    with lock:
        held.set()
        time.sleep(0.01)

def work():
    with tracer.trace("child's", session_id="s", tags=["a"], metadata={"k": 1}, inputs="i") as run:
        run.add_log("here", n=1)
        end_spans(1, "below")
    tracer.receipt(), tracer.statistics()
    assert tracer.shutdown_sync(SECONDS).complete

codes = []
for number, lock in zip(range(int(sys.argv[3]) or len(locks)), itertools.cycle(locks)):
    held = threading.Event()
    thread = threading.Thread(target=hold, args=(lock, held))
    thread.start()
    held.wait()
    codes += join(fork(work))
    thread.join()
    if codes[-1]:
        break
say(len(codes), len(locks))
say(*set(codes))
"""

IMPORTS_IN_THREADS = """
from asynctrace import _diagnostics
from asynctrace.exporters import _aside

class Finder:
    def find_spec(self, name, path, target=None):
        if not any(lock._is_owned() for lock in (_aside.loading, _diagnostics.loading)):
            say(name)

def work():
    with tracer.trace("run", session_id="s", tags=["a"], metadata={"k": 1}, inputs={"q": [1, 2]}) as run:
        run.add_log("here", n=1)
        try:
            with tracer.trace_component("fails"):
                raise LookupError
        except LookupError:
            pass
    tracer.flush_sync(SECONDS)
    join(fork(lambda: end_spans(1, "child's")))
    tracer.receipt()
    collect_children_sync(SECONDS, tracer=tracer)
    tracer.shutdown_sync(SECONDS)

sys.meta_path.insert(0, Finder())
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""

NESTED = """
def level(depth):
    with tracer.trace_component(f"open {depth}"):
        end_spans(2, f"ended {depth}")
        if depth < 3:
            say(*join(fork(lambda: level(depth + 1))))
    if depth:
        tracer.shutdown_sync(SECONDS)

level(0)
say(tracer.shutdown_sync(SECONDS).complete)
"""

SOCKETS = """
def sockets(pid="self"):
    names = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    links = [os.readlink(name) for name in names if os.path.lexists(name)]
    return {link for link in links if link.startswith("socket:")}

def tcp():
    return {f"socket:[{line.split()[9]}]" for line in open("/proc/self/net/tcp")}

def work(only):
    end_spans(3, "child's")
    tracer.flush_sync(SECONDS)
    mine, parents = sockets(), sockets(os.getppid())
    assert mine, "it has sent, and has no connection"
    say(len(mine & parents & only()))
    tracer.shutdown_sync(SECONDS)

async def main():
    async with tracer.trace("parent's"):
        pass
    await tracer.flush()
    say(bool(sockets() & tcp()))
    pid = fork(lambda: threads(lambda: work(tcp)))
    say(*await asyncio.to_thread(join, pid))
    await tracer.shutdown()

def threads(function):
    '''Beside the event loop, which is the parent's and never runs again here.'''
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

if sys.argv[3] == "async":
    asyncio.run(main())
else:
    end_spans(1, "parent's")
    tracer.flush_sync(SECONDS)
    say(bool(sockets()))
    say(*join(fork(lambda: work(sockets))))
    tracer.shutdown_sync(SECONDS)
"""

BLOCKS_ARE_LEFT = """
class Aside(Exception):
    pass

def both(number):
    '''Two processes leave these blocks; only one of them made the spans.'''
    pid = -1
    try:
        with tracer.trace("run") as run, tracer.trace_component("open") as component:
            pid = os.fork()
            if not pid:
                component.set_outputs("the child's")
                end_spans(1, "below")
                if number % 2:
                    raise Aside
            else:
                say(*join(pid))
    except Aside:
        pass
    return pid

async def both_in_a_loop():
    async with tracer.trace("run"):
        async with tracer.trace_component("open"):
            pid = os.fork()
            if pid:
                say(*join(pid))
    return pid

for number in range(3):
    pid = both(number) if number < 2 else asyncio.run(both_in_a_loop())
    if not pid:
        asyncio._set_running_loop(None)
        end_spans(1, "after")
        late = sum(tracer.statistics().late_calls.values())
        os._exit(0 if tracer.shutdown_sync(SECONDS).complete and late else 1)
say(tracer.shutdown_sync(SECONDS).complete)
"""

SIBLINGS = """
def work():
    for _ in range(100):
        with tracer.trace("run") as run:
            pass
        say(run.trace_id, run.span_id, tracer._delivery._origin.log_id)

end_spans(1, "parent's")  # the source of ids has been used
for _ in range(int(sys.argv[3])):
    join(fork(work))
work()
die()
"""


def check_child_logs(state: Path, fault: str = "", forks: int = 40) -> None:
    with FaultServer.in_thread() as server:
        said = [
            line.split() for line in run(WHILE_TWO_THREADS_APPEND, server, state, str(forks), fault=fault).splitlines()
        ]
        found = arrived(server)
    words = {kind: [line[1:] for line in said if line[0] == kind] for kind in ("child", "codes", "left", "parent")}
    assert words["codes"] == [["0"]]
    assert words["left"] == [["0"]]
    ((parent, ended),) = words["parent"]
    children = {int(pid): f"child's {number}" for number, pid in words["child"]}
    assert len({span.span_id for _, span in found}) == len(found), "a span came in two batches"
    logs = {pid: Counter(span.name for of, span in found if of == pid) for pid in {pid for pid, _ in found}}
    assert logs.pop(int(parent)) == {"thread's": int(ended)}
    assert logs == {pid: {name: 5} for pid, name in children.items()}, f"{forks - len(logs)} of {forks} are missing"


def check_held_locks(state: Path, fault: str = "", forks: int = 0) -> None:
    with FaultServer.in_thread() as server:
        said = run(WHILE_A_LOCK_IS_HELD, server, state, str(forks), fault=fault, timeout=1200)
        done, locks = map(int, said.splitlines()[0].split())
        assert said.splitlines()[1] == "0"
        found = names(server)
    assert locks >= 8, "the program did not find our locks"
    assert done == (forks or locks)
    assert found["child's", "ok"] == found["below", "ok"] == done


def check_imports(state: Path, fault: str = "") -> None:
    """What a thread imports while another one forks stays half done in the child, which then waits for it for ever. So our
    threads import under locks that a fork waits for."""
    with FaultServer.in_thread() as server:
        server.plan(Status(503), PartialSuccess(rejected=1))
        assert run(IMPORTS_IN_THREADS, server, state, fault=fault) == ""


def check_nesting(state: Path, fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(NESTED, server, state, fault=fault).split() == ["0", "0", "0", "True"]
        found = arrived(server)
    assert Counter(span.name for _, span in found) == {f"open {n}": 1 for n in range(4)} | {
        f"ended {n}": 2 for n in range(4)
    }
    assert len({pid for pid, _ in found}) == 4
    open_spans = {span.name: (pid, span) for pid, span in found if span.name.startswith("open")}
    for level in range(4):
        pid, span = open_spans[f"open {level}"]
        assert span.ending == "ok"
        assert {(at, ended.parent_id) for at, ended in found if ended.name == f"ended {level}"} == {(pid, span.span_id)}
        assert not level or span.parent_id == open_spans[f"open {level - 1}"][1].span_id
    assert len({span.trace_id for _, span in found}) == 1


def check_sockets(state: Path, how: str = "sync", fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(SOCKETS, server, state, how, fault=fault).split() == ["True", "0", "0"]
        assert names(server) == {("parent's", "ok"): 1, ("child's", "ok"): 3}


def check_blocks(state: Path, fault: str = "") -> None:
    with FaultServer.in_thread() as server:
        assert run(BLOCKS_ARE_LEFT, server, state, fault=fault).split() == ["0", "0", "0", "True"]
        found = arrived(server)
    assert Counter(span.name for _, span in found) == {"run": 3, "open": 3, "below": 2, "after": 3}
    parents = {(pid, span.span_id): span for pid, span in found if span.name in ("run", "open")}
    assert len({pid for pid, _ in parents}) == 1, "a child ended a span of its parent"
    assert {span.ending for span in parents.values()} == {"ok"}
    assert not any("output.value" in span.attributes for span in parents.values())


def check_ids(state: Path, fault: str = "", siblings: int = 8) -> None:
    with FaultServer.in_thread() as server:
        lines = [line.split() for line in run(SIBLINGS, server, state, str(siblings), fault=fault).splitlines()]
    made = 100 * (siblings + 1)
    assert len(lines) == made
    trace_ids, span_ids, logs = (set(column) for column in zip(*lines, strict=True))
    assert (len(trace_ids), len(span_ids), len(logs)) == (made, made, siblings + 1)


def test_each_child_of_a_process_whose_threads_append_has_a_log_of_its_own(tmp_path: Path) -> None:
    check_child_logs(tmp_path)


@pytest.mark.long
def test_three_hundred_child_logs_are_exact(tmp_path: Path) -> None:
    check_child_logs(tmp_path, forks=300)


def test_a_child_works_whichever_of_our_locks_a_thread_held(tmp_path: Path) -> None:
    check_held_locks(tmp_path)


def test_no_thread_of_ours_is_in_the_middle_of_an_import_when_a_process_forks(tmp_path: Path) -> None:
    check_imports(tmp_path)


@pytest.mark.long
def test_five_hundred_forks_while_a_thread_holds_one_of_our_locks(tmp_path: Path) -> None:
    check_held_locks(tmp_path, forks=500)


def test_forks_in_forks_three_deep_stay_one_trace(tmp_path: Path) -> None:
    check_nesting(tmp_path)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_no_child_shares_a_socket_with_its_parent(how: str, tmp_path: Path) -> None:
    check_sockets(tmp_path, how)


def test_a_block_that_is_left_in_the_child_ends_no_span_of_the_parent(tmp_path: Path) -> None:
    check_blocks(tmp_path)


def test_siblings_never_draw_the_same_ids(tmp_path: Path) -> None:
    check_ids(tmp_path)


@pytest.mark.long
def test_a_hundred_siblings_never_draw_the_same_ids(tmp_path: Path) -> None:
    check_ids(tmp_path, siblings=100)


WRONG = {
    "a child that keeps its parent's log": (check_child_logs, "from asynctrace.runtime import _fork\n"
    "_fork._renew = lambda tracer: tracer._log.after_fork_in_parent()"),
    "a child that has its parent's journal locked": (check_child_logs, "from asynctrace.spanlog.journal import _lock\n"
    "_lock.after_fork_in_child = lambda: None"),
    "a child that takes its parent's resource": (check_child_logs, "from asynctrace.runtime import _parts\n"
    "made, first = _parts.make_resource, []\n"
    "_parts.make_resource = lambda *given: first[0] if first else (first.append(made(*given)), first[0])[1]"),
    "a thread that imports whenever it likes": (check_imports, "from asynctrace.spanlog.journal import _populate\n"
    "populate = _populate._madvise\n"
    "def import_late():\n"
    "    import wave\n"
    "    return populate()\n"
    "_populate._madvise = import_late"),
    "a grandchild that is not made anew": (check_nesting, "from asynctrace.runtime import _fork\n"
    "renew, times = _fork._renew, []\n"
    "_fork._renew = lambda tracer: times.append(1) or (renew(tracer) if len(times) < 2 else "
    "tracer._log.after_fork_in_parent())"),
    "connections that are kept": (check_sockets, "OTLPExporter.after_fork_in_child = lambda self: None"),
    "a loop that is kept": (check_sockets, "from asynctrace.delivery import _home\n"
    "_home.Home.forget_in_child = lambda self: None"),
    "a child that ends what its parent has open": (check_blocks, "from asynctrace.tracing._open_spans import OpenSpans\n"
    "OpenSpans.abandon = lambda self: []"),
    "ids that are the parent's": (check_ids, "from asynctrace.runtime import _parts\n"
    "same = _parts.RandomIds()\n_parts.RandomIds = lambda: same"),
    "a log that has its parent's name": (check_ids, "from asynctrace.runtime import _parts\n"
    "_parts.uuid4 = lambda: '00000000-0000-4000-8000-000000000001'"),
    "a lock of a module that stays held": (check_held_locks, "from asynctrace.tracing import _placement\n"
    "class Lock:\n"
    "    def __init__(self): self.lock = threading.Lock()\n"
    "    def __enter__(self): self.lock.acquire()\n"
    "    def __exit__(self, *error): self.lock.release()\n"
    "    def _at_fork_reinit(self): pass\n"
    "Lock.__module__ = 'asynctrace'\n"
    "_placement._extras_lock = Lock()"),
    "a lock of a tracer that stays held": (check_held_locks, "own = Tracer._own\n"
    "def own_again(self):\n"
    "    kept = getattr(self, '_life_lock', None)\n"
    "    log = own(self)\n"
    "    self._life_lock = kept or self._life_lock\n"
    "    return log\n"
    "Tracer._own = own_again"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_fork_is_noticed(wrong: str, tmp_path: Path) -> None:
    check, fault = WRONG[wrong]

    def check_again_and_again() -> None:
        """What goes wrong by chance need not go wrong the first time."""
        for attempt in range(4):
            state = tmp_path / str(attempt)
            state.mkdir()
            check(state, fault=f"SECONDS = 3.0\n{fault}")

    with pytest.raises(AssertionError):
        check_again_and_again()
