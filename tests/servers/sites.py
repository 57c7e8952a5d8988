"""A real server with workers, on a port that the system chose, with a state directory of its own and a far side in this
process; what its programs noted of their spans, and what arrived.

Deadlines are long, because nothing here measures speed: they only end a test that would hang.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from asynctrace.spanlog.journal import list_journals, service_folder
from asynctrace.testing import FaultServer

__all__ = [
    "CELERY",
    "GUNICORN",
    "KINDS",
    "PATIENCE",
    "PRELOADED",
    "RELOADING",
    "UNPATIENT",
    "UVICORN",
    "UVICORNS",
    "WSGI",
    "Kind",
    "Notes",
    "Site",
    "is_alive",
    "wait_for",
]

PROGRAMS = Path(__file__).with_name("programs")
SOURCE = Path(__file__).parents[2] / "src"
PATIENCE = 40.0
"""Seconds for anything that happens within two on a quiet machine."""


@dataclass(frozen=True)
class Kind:
    """A server: how it is started, by what its log shows that `workers` of them serve, and whose signal hits whom."""

    name: str
    command: tuple[str, ...]
    ready: str
    workers: int = 1
    is_celery: bool = False

    @property
    def has_master(self) -> bool:
        """The process that was started is no worker."""
        return self.workers > 1 or self.is_celery

    def __str__(self) -> str:
        return self.name


_UVICORN = ("uvicorn", "web:app", "--host=127.0.0.1", "--port=0", "--timeout-graceful-shutdown=1")
_GUNICORN = ("gunicorn", "--bind=127.0.0.1:0", "--workers=2")
_SERVES = "Application startup complete"
_LISTENS = r"http://127\.0\.0\.1:(\d+) "

_CELERY = ("--pool=prefork", "--without-gossip", "--without-mingle", "--without-heartbeat")

UVICORN = Kind("uvicorn", _UVICORN, _SERVES)
UVICORNS = Kind("uvicorn --workers 4", (*_UVICORN, "--workers=4", "--timeout-worker-healthcheck=30"), _SERVES, 4)
RELOADING = Kind("uvicorn --reload", (*_UVICORN, "--reload"), _SERVES)
UNPATIENT = Kind("gunicorn", (*_GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker", "web:app"), _SERVES, 2)
GUNICORN = Kind("gunicorn", (*_GUNICORN, "--worker-class=web.Patient", "web:app"), _SERVES, 2)
PRELOADED = Kind("gunicorn --preload", (*GUNICORN.command, "--preload"), _SERVES, 2)
WSGI = Kind("gunicorn, WSGI", (*_GUNICORN, "plain:app"), "Booting worker", 2)
CELERY = Kind(
    "Celery prefork",
    ("celery", "--app=tasks", "worker", "--concurrency=2", "--loglevel=info", *_CELERY),
    r" ready\.",
    is_celery=True,
)
KINDS = [UVICORN, UVICORNS, GUNICORN, PRELOADED, WSGI, CELERY]


@dataclass
class Notes:
    """What the programs said: spans that were open, by id, each with its name and process; and those whose end returned."""

    opened: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Notes:
        notes = cls()
        for line in path.read_text().splitlines() if path.exists() else []:
            what, span, name, pid = line.split()
            if what == "open":
                notes.opened[span] = (name, int(pid))
            else:
                notes.ended.add(span)
        return notes

    def named(self, name: str) -> list[str]:
        return [span for span, (found, _) in self.opened.items() if found == name]

    @property
    def left_open(self) -> set[str]:
        return self.opened.keys() - self.ended


class Site:
    """One state directory and one far side, and one server after another."""

    def __init__(self, kind: Kind, folder: Path, far_side: FaultServer, *more: str, **environment: str) -> None:
        self.kind = kind
        self.far_side = far_side
        self.state = folder / "state"
        self._more = more
        self._folder = folder
        self._environment = environment
        self._starts = 0
        self.patience = PATIENCE
        """Seconds for spans to arrive."""
        for name in ("queue", "control", "processed", "staged"):
            (folder / name).mkdir()

    # Its life --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def started(self) -> Iterator[Site]:
        """From when its workers serve; whatever is left of it at the end of the block is killed."""
        self._starts += 1
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *self.kind.command, *self._more],
                cwd=self._folder,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # as a terminal does: Ctrl-C reaches all of it
            )
        self.pid, self._process = process.pid, process
        try:
            self.wait_for_log(self.kind.ready, self.kind.workers)
            if not self.kind.is_celery:
                self.wait_for_log(_LISTENS)
            yield self
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_"))}
        return kept | {
            "PYTHONPATH": os.pathsep.join([str(PROGRAMS), str(SOURCE)]),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(self._folder),
            "NOTES": str(self._folder / "notes"),
            "BROKER": str(self._folder),
            "FAR_SIDE": self.far_side.url,
            "ASYNCTRACE_STATE_DIR": str(self.state),
            **self._environment,
        }

    @property
    def _log(self) -> Path:
        return self._folder / f"log-{self._starts}"

    @property
    def log(self) -> str:
        """What the server has printed since its last start."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, pattern: str, times: int = 1) -> None:
        def is_there() -> bool:
            assert self._process.poll() is None, f"it ended by itself\n{self.log}"
            return len(re.findall(pattern, self.log)) >= times

        wait_for(is_there, f"{times} lines with {pattern!r}", self)

    def signal(self, *numbers: int, everybody: bool = False) -> None:
        """To the process that was started, or to `everybody` in it, as Ctrl-C does; the second once the first was taken."""
        for number in numbers:
            (os.killpg if everybody else os.kill)(self.pid, number)
            if number is not numbers[-1] or len(numbers) == 1:
                time.sleep(0.3 if len(numbers) > 1 else 0)  # nothing tells that a handler has run

    def wait_for_end(self) -> int:
        """Until the process that was started has ended; its exit code.

        Once in some hundred times Celery's warm shutdown does not end where a worker was being replaced when it began; what
        helps then is what its manual says, the signal for a cold one.
        """
        try:
            if self.kind.is_celery:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self._process.wait(PATIENCE / 2)
                self.signal(signal.SIGQUIT)
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end\n{self.log}") from None

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_for_end()

    # Its work --------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        found = re.search(_LISTENS, self.log)
        assert found is not None, self.log
        return int(found[1])

    def ask(self, what: str, **arguments: str) -> None:
        """A request, answered or not; a task, sent."""
        if self.kind.is_celery:
            self._send_task(what, arguments)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", f"/{what}?{urlencode(arguments)}")
            connection.getresponse().read()

    def ask_aside(self, what: str, **arguments: str) -> tuple[str, int]:
        """A request that will not be answered: the span that it opened, and the process."""
        before = set(self.notes().named(what))
        threading.Thread(target=self.ask, args=(what,), kwargs=arguments, daemon=True).start()
        wait_for(lambda: set(self.notes().named(what)) - before, f"a span {what!r}", self)
        (span,) = set(self.notes().named(what)) - before
        return span, self.notes().opened[span][1]

    def _send_task(self, what: str, arguments: dict[str, str]) -> None:
        staged = self._folder / "staged"
        with _sending:
            _celery(self._folder).send_task(what, kwargs=arguments, ignore_result=True)
            for message in staged.iterdir():
                message.rename(self._folder / "queue" / message.name)  # a worker never reads half of one

    @contextlib.contextmanager
    def loaded(self, requests: int = 60) -> Iterator[None]:
        """Under load until the end of the block, which begins after some `requests`."""
        enough = 3 * requests + len(self.notes().ended)
        stopped = threading.Event()
        threads = [threading.Thread(target=self._keep_asking, args=(stopped,)) for _ in range(self._askers)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: len(self.notes().ended) >= enough, f"{enough} spans", self)
            yield
        finally:
            stopped.set()
            for thread in threads:
                thread.join(PATIENCE)

    @property
    def _askers(self) -> int:
        return 1 if self.kind.is_celery else 4

    def _keep_asking(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            self.ask("work")
            stopped.wait(0.01)

    # What became of it -----------------------------------------------------------------------------------------------

    def notes(self) -> Notes:
        return Notes.read(self._folder / "notes")

    def arrived(self) -> Counter[str]:
        """How often each span was taken over, by a far side that knows a request by its key."""
        return Counter(span.span_id for span in self.spans())

    def spans(self) -> list[Any]:
        by_key = {request.key: request.spans for request in self.far_side.requests if request.status == 200}
        return [span for spans in by_key.values() for span in spans]

    def endings(self) -> dict[str, str]:
        return {span.span_id: str(span.attributes["asynctrace.ending"]) for span in self.spans()}

    def wait_for_all(self, of: int | None = None) -> None:
        """Until every span has arrived that was noted by now, of the process `of`."""
        noted = {span for span, (_, pid) in self.notes().opened.items() if of in (None, pid)}
        wait_for(lambda: noted <= self.arrived().keys(), "every span", self, self.patience)

    @property
    def recovered(self) -> bool:
        """Whether a process of the server that runs, or ran last, delivered what another one left."""
        return "runtime.recovered" in self.log

    def journals(self) -> list[Path]:
        return [entry.path for entry in list_journals(service_folder(self.state, "shop"))]

    def instances(self) -> dict[int, set[str]]:
        """By process that made spans, what their resources call it."""
        processes = {span: pid for span, (_, pid) in self.notes().opened.items()}
        found: dict[int, set[str]] = {}
        for request in self.far_side.requests:
            name = str(request.resource.attributes["service.instance.id"])
            for pid in {processes[span] for span in request.span_ids if span in processes}:
                found.setdefault(pid, set()).add(name)
        return found

    def check_books(self) -> None:
        """What ended has arrived, once; nothing is open for ever; nobody shares a name with another process."""
        notes, arrived, endings = self.notes(), self.arrived(), self.endings()
        missing = notes.ended - arrived.keys()
        assert not missing, f"{len(missing)} of {len(notes.ended)} spans that ended have not arrived\n{self.log}"
        assert not notes.opened.keys() - arrived.keys(), f"open for ever: {notes.opened.keys() - arrived.keys()}"
        assert set(arrived.values()) == {1}, {span: count for span, count in arrived.items() if count > 1}
        unknown = {endings[span] for span in arrived.keys() - notes.opened.keys()}
        assert unknown <= {"lost"}, unknown  # a process can be killed between an opened span and its note
        assert not {span for span in notes.ended if endings[span] == "lost"}, "spans that ended are called lost"
        names = self.instances().values()
        assert all(len(name) == 1 for name in names), names
        assert len(set.union(*names)) == len(names), "two processes share an instance id"

    def check_master_is_idle(self) -> None:
        """The process that was started, and forks, is not connected to the far side and keeps no journal."""
        folder = Path(f"/proc/{self.pid}")
        held = {os.readlink(link) for link in (folder / "fd").iterdir() if os.path.lexists(link)}
        lines = [line.split() for line in (folder / "net" / "tcp").read_text().splitlines()]
        connections = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{self.far_side.port:04X}")}
        assert not held & connections, "the master is connected to the far side"
        assert not {path for path in held if path.startswith(str(self.state))}, "the master keeps a journal"
        senders = {request.resource.attributes["process.pid"] for request in self.far_side.requests}
        assert self.pid not in senders, "the master has made a request"

    def check_nothing_is_left(self) -> None:
        """After a server has ended: no journal waits for anybody."""
        assert self.journals() == [], self.log


def wait_for(is_so: Callable[[], object], what: str, site: Site, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}\n{site.log}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


_sending = threading.Lock()


def _celery(folder: Path) -> Any:
    """A client whose messages are staged first."""
    if folder not in _clients:
        from celery import Celery

        client = Celery("client", broker="filesystem://", set_as_current=False)
        folders = {
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "staged"),
            "control_folder": str(folder / "control"),
        }
        client.conf.update(broker_transport_options=folders)
        _clients[folder] = client
    return _clients[folder]


_clients: dict[Path, Any] = {}
