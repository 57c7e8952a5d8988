"""Every call ends within its deadline, whatever became of the server, and works again when that does."""

from __future__ import annotations

import asyncio
import time

import pytest

from asynctrace._errors import StreamAway, StreamError
from asynctrace.stream import RedisStream, _lane
from asynctrace.stream._router import Router
from asynctrace.stream._slots import shard_keys

from .fronts import front
from .places import Place
from .servers import Servers, free_ports
from .streams import a_message, drained, opened

pytestmark = pytest.mark.anyio

QUIET = 60.0
"""Seconds in which anything with a deadline of one or two is over, on any machine."""


def through(url: str) -> Place:
    return Place(url, 1, False, "standalone", [])


async def test_nobody_listens(prefix: str) -> None:
    (port,) = free_ports(1)
    async with asyncio.timeout(QUIET), opened(through(f"redis://127.0.0.1:{port}"), prefix, timeout=0.5) as stream:
        with pytest.raises(StreamAway, match=f"127.0.0.1:{port}"):
            await stream.append(a_message(1))
        with pytest.raises(StreamAway):
            await stream.claim("w")
        with pytest.raises(StreamAway):
            await stream.check()
        assert stream.statistics().refused_away == 1


async def test_an_append_without_an_answer_is_repeated_under_its_key(standalone: Place, prefix: str) -> None:
    async with (
        asyncio.timeout(QUIET),
        front(standalone.nodes[0].port) as between,
        opened(through(between.url), prefix, shards=1) as stream,
    ):
        await stream.check()
        between.cuts_after = b"XADD"
        await stream.append(a_message(1))
        assert stream.statistics().repeated == 1
        claim = await stream.claim("w")
        assert claim is not None
        assert {each.message.key for each in claim.deliveries if each.message is not None} == {a_message(1).key}
        assert len(claim.deliveries) == 2


async def test_who_leaves_while_a_server_hangs_is_gone_soon(servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    async with asyncio.timeout(QUIET):
        async with opened(through(node.url), prefix, timeout=QUIET * 10) as stream:
            await stream.append(a_message(1))
            assert await stream.claim("w") is not None
            node.freeze()
            waiting = asyncio.create_task(stream.append(a_message(2)))
            await asyncio.sleep(0)
        with pytest.raises(StreamAway):
            await waiting
    node.thaw()


async def another_server_behind_the_name_is_found(servers: Servers, prefix: str, timeout: float) -> None:
    """As a managed service fails over: the name means another address from now on, the old server lives on as a replica, and
    nobody may ask it what it is. Connections that are open stay with the old one."""
    old, new = servers.standalone(), servers.standalone()
    for node in (old, new):
        node.ask("ACL", "SETUSER", "default", "-info", "-hello", "-role")
    async with front(old.port) as name, opened(through(name.url), prefix, timeout=timeout) as stream:
        await stream.append(a_message(1))
        old.ask("REPLICAOF", "127.0.0.1", new.port)
        name.leads_to(new.port)
        await stream.append(a_message(2))
        assert await drained(stream) == [a_message(2).body]


async def test_another_server_behind_the_name_is_found(servers: Servers, prefix: str) -> None:
    await another_server_behind_the_name_is_found(servers, prefix, QUIET)


async def test_connections_that_are_kept_after_a_failover_are_noticed(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kept(*_: object) -> None:
        pass

    monkeypatch.setattr(Router, "_connect_anew", kept)
    with pytest.raises(StreamAway):
        await another_server_behind_the_name_is_found(servers, prefix, 2.0)


async def test_more_replicas_than_there_are_is_told(standalone: Place, prefix: str) -> None:
    async with opened(standalone, prefix, wait=2) as stream:
        with pytest.raises(StreamError, match="wait=2, but there is a master with fewer replicas"):
            await stream.check()


async def test_somebody_elses_key_stops_its_shard_only(standalone: Place, prefix: str) -> None:
    keys = shard_keys(prefix, 1)
    standalone.nodes[0].ask("SET", keys.entries, "what is this?")
    async with opened(standalone, prefix) as stream:
        answers = await asyncio.gather(*(stream.append(a_message(n)) for n in range(40)), return_exceptions=True)
        refused = {str(answer) for answer in answers if isinstance(answer, StreamError)}
        taken = answers.count(None)
        assert 0 < taken < 40
        assert all("a key of somebody else under this prefix: choose another prefix" in line for line in refused)
        assert not any("\n" in line for line in refused)
        assert len(await drained(stream)) == taken


async def test_waiting_for_ever_is_noticed(servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call without a deadline of its own, at a server that hangs."""
    node = servers.standalone()
    stream = RedisStream(node.url, prefix=prefix, timeout=1.0)
    monkeypatch.setattr(stream._router, "_timeout", 1e6)
    await stream.append(a_message(1))
    node.freeze()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.0):
            await stream.append(a_message(2))
    assert time.monotonic() - began >= 3.0
    node.thaw()
    await stream.aclose()


async def test_calls_made_together_share_a_confirmation(find_place: object, prefix: str) -> None:
    assert callable(find_place)
    place: Place = find_place("with a replica")
    sent: list[int] = []

    class Counted(_lane.Lane):
        async def _exchange(self, calls: list[_lane._Call]) -> tuple[list[object], object]:
            sent.append(len(calls))
            return await super()._exchange(calls)

    async with opened(place, prefix) as stream:
        await stream.check()
        stream._router._lanes = {
            key: Counted(lane._client, lane._confirming) for key, lane in stream._router._lanes.items()
        }
        await asyncio.gather(*(stream.append(a_message(number)) for number in range(64)))
        assert sum(sent) == 64
        assert len(sent) <= 16
