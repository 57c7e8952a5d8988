"""The servers are what they claim to be, and none is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .places import Place
from .servers import RedisRefused, eventually, running

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.stream.servers import Servers
servers = Servers(Path(sys.argv[2]))
print(servers.standalone().process.pid, flush=True)
sys.stdin.read()
"""


def test_a_place_is_what_its_name_says(everywhere: Place) -> None:
    node = everywhere.nodes[0]
    hello = node.ask("HELLO", 2)
    told = dict(zip(hello[::2], hello[1::2], strict=True))
    assert told[b"mode"] == (b"cluster" if everywhere.kind == "cluster" else b"standalone")
    assert told[b"role"] == b"master"
    slots = node.ask("CLUSTER", "SLOTS") if everywhere.kind == "cluster" else []
    assert len({entry[2][1] for entry in slots}) == (everywhere.masters if slots else 0)
    assert int(node.section("replication")["connected_slaves"]) == everywhere.replicas


@pytest.mark.parametrize("command", ["CONFIG GET maxmemory-policy", "KEYS *", "MONITOR", "SELECT 1", "INFO memory"])
def test_the_serverless_look_refuses(find_place: Callable[[str], Place], command: str) -> None:
    place = find_place("serverless")
    with pytest.raises(RedisRefused, match="NOPERM"):
        place.nodes[0].ask(*command.split(), user=(place.username, place.password))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with running(tmp_path) as servers:
        nodes = [servers.standalone(), *servers.replicated()]
        nodes[0].freeze()
    assert all(node.process is not None and node.process.poll() is not None for node in nodes)


@pytest.mark.skipif(not Path("/usr/bin/setpriv").exists(), reason="needs setpriv (Linux)")
def test_nothing_is_left_behind_when_the_tests_are_killed(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    tests = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, root, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert tests.stdout is not None
    pid = int(tests.stdout.readline())
    tests.kill()
    tests.communicate()
    eventually(lambda: not _is_running(pid), "the server is gone")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
