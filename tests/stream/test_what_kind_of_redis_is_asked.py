"""What kind of Redis an address leads to is asked, with whatever the server lets us ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from asynctrace._errors import StreamError
from asynctrace.stream import _topology
from asynctrace.stream._topology import Kind, Memory, Topology, look, memory_of

from .places import Place
from .servers import Node, Servers, eventually

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def asked(node: Node, **options: Any) -> AsyncIterator[Redis]:
    async with Redis(host="127.0.0.1", port=node.port, protocol=2, **options) as server:
        yield server


async def found_at(node: Node, name: str = "", **options: Any) -> Topology:
    async with asked(node, **options) as server:
        return await look(server, ("127.0.0.1", node.port), name=name)


async def found(place: Place) -> Topology:
    secure = {"ssl": True, "ssl_ca_certs": str(place.ca_file)} if place.ca_file else {}
    host, port = place.entrances[0]
    login = {"username": place.username or None, "password": place.password or None}
    async with Redis(host=host, port=port, protocol=2, **login, **secure) as server:
        return await look(server, (host, port), name=place.name)


async def test_every_kind_is_recognized(everywhere: Place) -> None:
    topology = await found(everywhere)
    assert topology.kind == everywhere.kind
    assert len(topology.masters) == everywhere.masters
    assert {port for _, port in topology.masters} <= {node.port for node in everywhere.nodes}
    assert topology.replicas == everywhere.replicas
    assert topology.unserved == 0
    assert topology.version.startswith("7.")


async def test_a_managed_server_is_known_by_the_name_it_gives(find_place: Callable[[str], Place]) -> None:
    place = find_place("serverless")
    topology = await found(place)
    assert topology.masters == (("localhost", place.nodes[0].port),)
    assert topology.memory == Memory()  # it may not be asked, and nothing is said about it


REFUSALS = {
    "HELLO": "-hello",
    "HELLO and INFO": "-hello -info",
    "all but CLUSTER SLOTS": "-hello -info -cluster|info -wait",
}


@pytest.mark.parametrize("refused", REFUSALS)
@pytest.mark.parametrize("kind", ["standalone", "cluster of 3"])
async def test_what_is_refused_is_found_otherwise(
    find_place: Callable[[str], Place], kind: str, refused: str, prefix: str
) -> None:
    place = find_place(kind)
    for node in place.nodes:
        node.ask("ACL", "SETUSER", prefix, "on", ">secret", "+@all", *REFUSALS[refused].split())
    topology = await found_at(place.nodes[0], username=prefix, password="secret")
    assert topology.kind == place.kind
    assert len(topology.masters) == place.masters


async def test_where_even_the_slots_are_refused_one_address_serves_all(cluster_of_3: Place, prefix: str) -> None:
    node = cluster_of_3.nodes[0]
    node.ask("ACL", "SETUSER", prefix, "on", ">secret", "+@all", "-cluster|slots")
    topology = await found_at(node, username=prefix, password="secret")
    assert (topology.kind, topology.masters) == (Kind.CLUSTER, (("127.0.0.1", node.port),))


async def test_replicas_are_counted_where_info_is_refused(find_place: Callable[[str], Place], prefix: str) -> None:
    master = find_place("with a replica").nodes[0]
    master.ask("ACL", "SETUSER", prefix, "on", ">secret", "+@all", "-info")
    async with asyncio.timeout(30):
        # a replica that is behind for a moment is not counted, and nobody tells when it is not any more
        while (await found_at(master, username=prefix, password="secret")).replicas != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_address_of_a_replica_leads_to_its_master(find_place: Callable[[str], Place]) -> None:
    master, replica = find_place("with a replica").nodes
    assert (await found_at(replica)).masters == (("127.0.0.1", master.port),)


async def test_sentinels_lead_to_the_new_master(servers: Servers) -> None:
    setup = servers.sentinels()
    assert (await found_at(setup.watchers[0])).masters == (("127.0.0.1", setup.master.port),)
    eventually(lambda: setup.watchers[0].ask("SENTINEL", "FAILOVER", setup.name), "a failover begins")
    eventually(lambda: setup.current() is setup.replica, "the replica is the master")
    assert (await found_at(setup.watchers[0], name=setup.name)).masters == (("127.0.0.1", setup.replica.port),)


async def test_of_several_masters_one_has_to_be_named(servers: Servers) -> None:
    setup, other = servers.sentinels(), servers.standalone()
    watcher = setup.watchers[0]
    watcher.ask("SENTINEL", "MONITOR", "other", "127.0.0.1", other.port, 2)
    assert (await found_at(watcher, "other")).masters == (("127.0.0.1", other.port),)
    with pytest.raises(
        StreamError, match=rf"watches {setup.name}, other: name one in the URL, as in redis://127.0.0.1:\d+/"
    ):
        await found_at(watcher)
    with pytest.raises(StreamError, match=f"knows no master 'another': it watches {setup.name}, other"):
        await found_at(watcher, "another")


async def test_a_master_is_named_to_sentinels_only(standalone: Place) -> None:
    with pytest.raises(StreamError, match="is no Sentinel: leave 'mine' out of the URL"):
        await found_at(standalone.nodes[0], "mine")


async def test_a_server_that_is_too_old_is_named(standalone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_topology, "OLDEST", (99, 0))
    with pytest.raises(StreamError, match=r"is 7\.\d+\.\d+: Redis 99\.0 or Valkey is needed"):
        await found_at(standalone.nodes[0])


async def test_slots_that_nobody_serves_are_counted(servers: Servers) -> None:
    cluster = servers.cluster(1)
    cluster.nodes[0].ask("CLUSTER", "DELSLOTSRANGE", 100, 149)
    assert (await found_at(cluster.nodes[0])).unserved == 50


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_policy_that_throws_entries_away_is_told(servers: Servers, policy: str) -> None:
    node = servers.standalone("--maxmemory-policy", policy, "--maxmemory", "64mb")
    async with asked(node) as server:
        memory = await memory_of(server)
    assert (memory.policy, memory.limit) == (policy, 64 << 20)
    assert memory.used is not None
    warning = memory.warning("127.0.0.1:6379")
    assert ("maxmemory-policy is " + policy in warning) is (policy != "noeviction")
    assert "\n" not in warning
