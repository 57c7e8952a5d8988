"""The commands on the page are those that a user of the stream needs: with them everything works, and nothing else is
even tried; without any one of those that scripts call something does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asynctrace._errors import StreamError
from asynctrace.stream._router import Router

from .load import at
from .places import Place
from .servers import Node, Servers
from .streams import a_message, a_whole_life, drained, opened

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "the-stream.md"
(LINE,) = re.findall(r"^ACL SETUSER asynctrace on >password (.*)$", PAGE.read_text(), re.MULTILINE)
DOCUMENTED = [word for word in LINE.split() if word.startswith("+")]
MAY_BE_REFUSED = {"+hello", "+info", "+ping", "+cluster|info", "+auth"}
ELSEWHERE = {"+wait", "+asking", "+cluster|slots"}
"""Needed where there are replicas, or a cluster."""


def make_user(nodes: list[Node], prefix: str, commands: list[str]) -> tuple[str, str]:
    rules = [word.replace("~at:", f"~{prefix}:") for word in LINE.split() if not word.startswith("+")]
    for node in nodes:
        node.ask("ACL", "SETUSER", prefix, "reset", "on", ">secret", *rules, *commands)
        node.ask("ACL", "LOG", "RESET")
    return prefix, "secret"


def denied(nodes: list[Node]) -> set[bytes]:
    """What anybody tried and was not allowed, as the servers remember it, but for redis-py that says its name."""
    found = set()
    for node in nodes:
        for entry in node.ask("ACL", "LOG"):
            told = dict(zip(entry[::2], entry[1::2], strict=True))
            found.add(told[b"object"])
    return found - {b"client|setinfo", b"client"}


async def test_with_the_documented_commands_everything_works(everywhere: Place, prefix: str) -> None:
    if everywhere.username:
        pytest.skip("a place that comes with a user")
    login = make_user(everywhere.nodes, prefix, DOCUMENTED)
    async with opened(everywhere, prefix, shards=1, dead=1, credentials=lambda: login) as stream:
        await a_whole_life(stream, everywhere.nodes, prefix)
    assert denied(everywhere.nodes) == set()


async def test_what_may_be_refused_is_not_needed(everywhere: Place, prefix: str) -> None:
    if everywhere.username:
        pytest.skip("a place that comes with a user")
    login = make_user(everywhere.nodes, prefix, [each for each in DOCUMENTED if each not in MAY_BE_REFUSED])
    async with opened(everywhere, prefix, shards=1, dead=1, credentials=lambda: login) as stream:
        await a_whole_life(stream, everywhere.nodes, prefix)


@pytest.mark.parametrize("command", [each for each in DOCUMENTED if each not in MAY_BE_REFUSED | ELSEWHERE])
async def test_a_command_that_is_missing_is_noticed(standalone: Place, prefix: str, command: str) -> None:
    login = make_user(standalone.nodes, prefix, [each for each in DOCUMENTED if each != command])
    async with opened(standalone, prefix, shards=1, dead=1, block=0.1, credentials=lambda: login) as stream:
        with pytest.raises((StreamError, AssertionError)):
            await a_whole_life(stream, standalone.nodes, prefix)
    assert denied(standalone.nodes)


async def test_a_user_who_may_not_is_told_which_command(servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    make_user([node], prefix, ["+@all", "-eval"])
    async with opened(at(f"redis://{prefix}:secret@{node.address}"), prefix) as stream:
        with pytest.raises(StreamError, match=r"does not let this user do what a stream needs: .*'eval'") as raised:
            await stream.append(a_message(1))
    assert "\n" not in str(raised.value)


async def unconfirmed_but_taken(servers: Servers, prefix: str) -> None:
    """A service that has replicas and refuses `WAIT`."""
    master, _ = servers.replicated()
    login = make_user([master], prefix, [each for each in DOCUMENTED if each != "+wait"])
    async with opened(at(master.url), prefix, credentials=lambda: login) as stream:
        await stream.append(a_message(1))
        assert stream.statistics().repeated == 0
        assert await drained(stream) == [a_message(1).body]


async def test_where_replicas_cannot_be_waited_for_it_is_told(
    servers: Servers, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await unconfirmed_but_taken(servers, prefix)
    assert "stream.unconfirmed" in capsys.readouterr().err


async def test_waiting_where_it_is_refused_is_noticed(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def always(*_: object) -> bool:
        return True

    monkeypatch.setattr(Router, "_may_wait", always)
    with pytest.raises(StreamError):
        await unconfirmed_but_taken(servers, prefix)
