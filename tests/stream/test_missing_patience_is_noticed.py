"""What a stream does for a call that does not succeed at once, each with the mutant that does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from asynctrace._errors import StreamError
from asynctrace.stream import _connections, _router
from asynctrace.stream._connections import Connections
from asynctrace.stream._router import Router
from asynctrace.stream._slots import shard_keys

from .load import at, message
from .servers import Node, Servers, free_ports
from .streams import drained, opened
from .test_a_cluster_changes_under_load import move_slot

pytestmark = pytest.mark.anyio

Scenario = Callable[[Servers, str], Awaitable[None]]
TIMEOUT = 4.0
"""Seconds: a mutant waits as long in vain."""


async def a_slot_that_moved_is_followed(servers: Servers, prefix: str) -> None:
    cluster = servers.cluster(3)
    slot = shard_keys(prefix, 0).slot
    async with opened(at(cluster.url), prefix, shards=1, timeout=TIMEOUT) as stream:
        await stream.append(message(1))
        source = cluster.master_of(slot)
        move_slot(cluster, slot, source, next(node for node in cluster.nodes if node is not source))
        await stream.append(message(2))
        assert len(await drained(stream)) == 2


async def another_master_is_looked_for(servers: Servers, prefix: str) -> None:
    master, replica = servers.replicated()
    async with opened(at(f"{master.url},{replica.address}"), prefix, timeout=TIMEOUT, wait=0) as stream:
        await stream.append(message(1))
        replica.ask("REPLICAOF", "NO", "ONE")
        master.ask("REPLICAOF", "127.0.0.1", replica.port)
        await stream.append(message(2))


async def the_next_address_is_tried(servers: Servers, prefix: str) -> None:
    (nobody,) = free_ports(1)
    async with opened(at(f"redis://127.0.0.1:{nobody},{_address(servers)}"), prefix, timeout=TIMEOUT) as stream:
        await stream.append(message(1))


def _address(servers: Servers) -> str:
    return servers.standalone().address


async def a_password_is_asked_for_each_time(servers: Servers, prefix: str) -> None:
    node, password = servers.standalone(), ["first"]
    _let_in(node, "first")
    async with opened(at(node.url), prefix, timeout=TIMEOUT, credentials=lambda: ("tracer", password[0])) as stream:
        await stream.append(message(1))
        _let_in(node, "second")
        node.ask("CLIENT", "KILL", "TYPE", "normal")
        sending = asyncio.create_task(stream.append(message(2)))
        await asyncio.wait([sending], timeout=0.3)  # the two sides disagree for a while
        password[0] = "second"
        await sending


def _let_in(node: Node, password: str) -> None:
    node.ask("ACL", "SETUSER", "tracer", "reset", "on", f">{password}", "+@all", "~*")


SCENARIOS: list[Scenario] = [
    a_slot_that_moved_is_followed,
    another_master_is_looked_for,
    the_next_address_is_tried,
    a_password_is_asked_for_each_time,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
async def test_it_holds(scenario: Scenario, servers: Servers, prefix: str) -> None:
    await scenario(servers, prefix)


async def _look_once(self: Router, last: list[StreamError]) -> None:
    if self.topology is None:
        await self.look()


def _first_password(credentials: Callable[[], tuple[str, str]]) -> Any:
    known = credentials()
    return _asking(lambda: known)


_asking = _connections._asking

MUTANTS: dict[str, tuple[Scenario, object, str, Any]] = {
    "MOVED is an error": (a_slot_that_moved_is_followed, Router, "_redirected", lambda *_: None),
    "nothing passes": (another_master_is_looked_for, _router, "_passes", lambda _: False),
    "the map is made once": (another_master_is_looked_for, Router, "_know", _look_once),
    "one address is asked": (
        the_next_address_is_tried,
        Router,
        "_candidates",
        lambda s: s._connections.address.hosts[:1],
    ),
    "a password is for ever": (a_password_is_asked_for_each_time, _connections, "_asking", _first_password),
    "a password is wrong for ever": (a_password_is_asked_for_each_time, Connections, "can_rotate", False),
}


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_it_is_noticed(mutant: str, servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, owner, name, instead = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((StreamError, AssertionError)):
        await scenario(servers, prefix)
