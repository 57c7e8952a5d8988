"""One server process: its address, its life, and a word with it beside redis-py, so that what a test does to a server is
never taken for what the code under test sent to it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["DEADLINE", "Node", "PortTaken", "RedisRefused", "eventually", "free_ports", "program_called"]

DEADLINE = 30.0
"""Seconds, for anything a healthy server does at once."""


def eventually(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """What `condition` returns, as soon as it is true. Errors of a server that is not there yet count as "no"."""
    end = time.monotonic() + deadline
    wrong: BaseException | None = None
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except (OSError, RedisRefused) as error:
            wrong = error
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline:g} s: {what}") from wrong


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class RedisRefused(Exception):
    """An error reply."""


class PortTaken(Exception):
    """By somebody else, or by a process that has not quite gone."""


@dataclass
class Node:
    """One server process. Its address and its folder stay the same when it is started again."""

    port: int
    folder: Path
    program: str
    options: list[str]
    secure: ssl.SSLContext | None = None
    password: str = ""
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def start(self) -> Node:
        self.launch()
        eventually(self.answers, f"{self.program} on port {self.port} answers")
        return self

    def launch(self) -> None:
        """Starts the process and does not wait for it."""
        command = [program_called(self.program), *self.options, "--logfile", str(self.folder / "log")]
        self.process = subprocess.Popen(
            [*_dies_with_us(), *command], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            told = self.log()
            raise (PortTaken if "Address already in use" in told else AssertionError)(f"{self.program} ended:\n{told}")
        with contextlib.suppress(RedisRefused):  # it may want a password: it is there
            self.ask("PING")
        return True

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.stopped = False

    def freeze(self) -> None:
        """It keeps its sockets and answers nobody."""
        self.signal(signal.SIGSTOP)
        self.stopped = True

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        self.stopped = False

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ask(self, *words: str | int | bytes, user: tuple[str, str] | None = None, asking: bool = False) -> Any:
        """The reply to one command, over a connection of its own. An error reply raises."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as plain,
            contextlib.ExitStack() as held,
        ):
            line = plain
            if self.secure is not None:
                line = held.enter_context(self.secure.wrap_socket(plain, server_hostname="localhost"))
            stream = held.enter_context(line.makefile("rwb"))
            login = user or ((self.password,) if self.password else ())
            first = ([("AUTH", *login)] if login else []) + ([("ASKING",)] if asking else [])
            for request in [*first, words]:
                stream.write(_packed(request))
                stream.flush()
                reply = _reply(stream)
            return reply

    def section(self, name: str) -> dict[str, str]:
        """A section of INFO."""
        lines = self.ask("INFO", name).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def node_id(self) -> str:
        found: str = self.ask("CLUSTER", "MYID").decode()
        return found


def _packed(words: tuple[Any, ...]) -> bytes:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _reply(stream: Any) -> Any:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the server closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RedisRefused(rest.decode())
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if int(rest) < 0:
        return None
    if kind == b"$":
        return stream.read(int(rest) + 2)[:-2]
    return [_reply(stream) for _ in range(int(rest))]


def program_called(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian: redis-server redis-sentinel redis-tools)")
    return found


def _dies_with_us() -> list[str]:
    """The kernel ends what is started so with the thread that started it, whatever becomes of that."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "KILL", "--"] if found else []
