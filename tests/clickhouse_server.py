"""A real, current ClickHouse server for tests, in a process of its own.

It comes out of the wheel of `chdb-core`: ClickHouse as a library, whose own HTTP interface is started inside a process that
then does nothing else. There is no Keeper in it, so no ReplicatedMergeTree; the rest is ClickHouse as everywhere.

    with ClickHouse(directory) as server:
        url = server.database()          # clickhouse://asynctrace:…@127.0.0.1:43211/t1, empty

What it holds survives `kill()` and `start()`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

__all__ = ["GRANTS", "PASSWORD", "USER", "ClickHouse", "is_installed", "shared"]

USER, PASSWORD = "asynctrace", "p@ss/word"
STARTS_WITHIN = 60.0
"""Seconds. It takes less than one on a quiet machine."""
PORTS_TRIED = 5
KEPT = 8
"""Databases."""

CONFIG = """
<clickhouse>
  <logger><level>none</level></logger>
  <listen_host>127.0.0.1</listen_host>
  <http_port>{port}</http_port>
  <mark_cache_size>67108864</mark_cache_size>
  <background_pool_size>2</background_pool_size>
  <users_config>users.xml</users_config>
</clickhouse>
"""
"""The library reads `config.xml` of the working directory."""

GRANTS = {
    "worker": (
        "GRANT SELECT, INSERT, ALTER DELETE, CREATE TABLE, CREATE VIEW, DROP TABLE ON granted.*",
        "GRANT TABLE ENGINE ON *",
        "GRANT SELECT ON system.parts",
    ),
    "viewer": ("GRANT SELECT ON granted.*", "GRANT SELECT ON system.parts"),
}
"""What the documentation asks for, for the database `granted`."""
_GRANTED = "".join(
    f"<{user}><password>{PASSWORD}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>"
    f"<quota>default</quota><grants>{''.join(f'<query>{each}</query>' for each in grants)}</grants></{user}>"
    for user, grants in GRANTS.items()
)
USERS = f"""
<clickhouse>
  <users>
    <default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
      <access_management>1</access_management></default>
    <{USER}><password>{PASSWORD}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
      <quota>default</quota></{USER}>
    {_GRANTED}
    <reader><password>{PASSWORD}</password><networks><ip>127.0.0.1</ip></networks><profile>readonly</profile>
      <quota>default</quota></reader>
  </users>
  <profiles><default><max_threads>2</max_threads></default><readonly><readonly>2</readonly></readonly></profiles>
  <quotas><default/></quotas>
</clickhouse>
"""
"""`reader` may change settings and nothing else."""

RUN = """
SYSTEM START LISTEN HTTP;
SELECT sleepEachRow(3) FROM numbers(1000000000) SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1
"""
"""The listener lives as long as the query does."""


class ClickHouse:
    """A server in `directory`, on a port of its own that it keeps."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._databases: dict[object, str] = {}

    def __enter__(self) -> ClickHouse:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        for _ in range(1 if self.port else PORTS_TRIED):
            port = self.port or _free_port()
            if self._answers(port):
                self.port = port
                return
        raise AssertionError((self.directory / "output").read_text())

    def kill(self) -> None:
        """As `kill -9`. What was committed is there after `start()`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It accepts connections and does not answer."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def database(self, of: object = None) -> str:
        """The URL of a database that belongs to `of`, new or known; of a new one. A few are kept: then the oldest goes."""
        owner = object() if of is None else of
        if owner not in self._databases:
            self._databases[owner] = name = f"t{next(self._numbers)}"
            self.ask(f"CREATE DATABASE {name}")
            if len(self._databases) > KEPT:
                self.ask(f"DROP DATABASE {self._databases.pop(next(iter(self._databases)))}")
        return self.url(self._databases[owner])

    def url(self, database: str, *, port: int = 0, user: str = USER) -> str:
        """Of a database that may be there or not; `port` of something in front of the server."""
        return f"clickhouse://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{port or self.port}/{database}"

    def ask(self, statement: str, **settings: str) -> str:
        """Run it as the user `default`, who may do everything; the answer as tab separated text."""
        address = f"http://127.0.0.1:{self.port}/?{urlencode(settings)}"
        try:
            with urllib.request.urlopen(address, data=statement.encode(), timeout=60) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def _answers(self, port: int) -> bool:
        self.directory.mkdir(exist_ok=True, parents=True)
        (self.directory / "config.xml").write_text(CONFIG.format(port=port))
        (self.directory / "users.xml").write_text(USERS)
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "store"],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return True
            time.sleep(0.05)
        self.kill()
        return False


def _free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port: int = each.getsockname()[1]
        return port


def is_installed() -> bool:
    """Whether the library is there: the dependency group `clickhouse`."""
    return importlib.util.find_spec("chdb") is not None


@functools.cache
def shared() -> ClickHouse:
    """One server for all tests of this process; each takes a `database()` of its own."""
    directory = tempfile.mkdtemp(prefix="clickhouse-")
    server = ClickHouse(Path(directory))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(server.kill)
    server.start()
    return server


# ── the process ─────────────────────────────────────────────────────────────────────────────────────────────


def _serve(path: str) -> None:
    """Runs until it is killed, or the process that started it ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of Linux
    _library().query(RUN, "TabSeparated", path=path)


@functools.cache
def _library() -> object:
    """`chdb` without its `__init__`, which opens a database of its own. Loaded as that does, or the allocators mix."""
    package = importlib.util.find_spec("chdb")
    assert package is not None
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "_chdb.abi3.so"
    sys.path.insert(0, str(file.parent))
    ctypes.CDLL(str(file), mode=sys.getdlopenflags() | os.RTLD_DEEPBIND)
    spec = importlib.util.spec_from_file_location("_chdb", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    _serve(sys.argv[1])
