"""Slots that move, nodes that go, masters that change: spans flow on, and all that were answered come out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from asynctrace.stream._slots import shard_keys

from .load import Load, Workers, at, message, within
from .places import Place
from .servers import KEPT, Cluster, Node, Servers
from .streams import opened

pytestmark = pytest.mark.anyio


async def test_slots_move_while_spans_flow(servers: Servers, prefix: str) -> None:
    """By the operator's own tool, which migrates key by key: MOVED, ASK and TRYAGAIN come as they do in earnest."""
    cluster = servers.cluster(3)
    # each shard's slot is moved: those are the only slots that hold anything
    slots = sorted(shard_keys(prefix, shard).slot for shard in range(8))
    async with opened(at(cluster.url), prefix) as stream, Workers(stream, 2) as workers:
        async with Load(stream, 1_000, prefix) as load:
            await load.reach(20)
            for slot in slots:
                source = cluster.master_of(slot)
                target = next(node for node in cluster.nodes if node is not source)
                await asyncio.to_thread(move_slot, cluster, slot, source, target)
            await load.reach(20)
        assert not load.errors
        assert stream.statistics().redirected > 0
        await workers.have(load.safe)
        assert max(workers.stored.values()) == 1


def move_slot(cluster: Cluster, slot: int, source: Node, target: Node) -> None:
    """One slot, with everything in it, as the specification says; the tool can only move the first ones of a node."""
    for _ in _moving(cluster, slot, source, target):
        pass


def _moving(cluster: Cluster, slot: int, source: Node, target: Node) -> Iterator[None]:
    """Stops after each step: the slot is on its way; a key has gone."""
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id())
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id())
    yield
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.ask("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
        yield
    for node in (target, source, *cluster.nodes):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.node_id())


async def test_a_slot_that_is_half_moved_is_waited_for(servers: Servers, prefix: str) -> None:
    """Some keys here, some there: the cluster says TRYAGAIN, or ASK, until the move goes on."""
    cluster = servers.cluster(3)
    slot = shard_keys(prefix, 0).slot
    source = cluster.master_of(slot)
    target = next(node for node in cluster.nodes if node is not source)
    async with opened(at(cluster.url), prefix, shards=1, linger=0.0) as stream:
        for number in range(3):
            await stream.append(message(number))
        claim = await stream.claim("worker")
        assert claim is not None
        moving = _moving(cluster, slot, source, target)
        next(moving)
        next(moving)  # one key has gone, others have not
        waiting = [asyncio.create_task(stream.append(message(number))) for number in range(3, 6)]
        done, _ = await asyncio.wait(waiting, timeout=0.5)
        for _ in moving:
            pass
        await asyncio.gather(*waiting)
        await stream.acknowledge(claim)
        async with Workers(stream) as workers:
            await workers.have({message(number).key for number in range(3, 6)})
        assert set(workers.stored) == {message(number).key for number in range(3, 6)}
        assert stream.statistics().redirected + len(waiting) - len(done) > 0


async def test_slots_move_by_the_tool_of_operators(servers: Servers, prefix: str) -> None:
    cluster = servers.cluster(3)
    async with opened(at(cluster.url), prefix, shards=64) as stream, Workers(stream) as workers:
        async with Load(stream, 1_000, prefix) as load:
            await load.reach(10)
            first, second, _ = cluster.masters()
            await asyncio.to_thread(cluster.move, 400, first, second)
            await load.reach(10)
        assert not load.errors
        await workers.have(load.safe)
        assert max(workers.stored.values()) == 1


async def test_a_cluster_that_is_down_for_some_seconds_is_waited_for(servers: Servers, prefix: str) -> None:
    """CLUSTERDOWN: a master without replica is gone, and so the whole cluster, until it is back."""
    cluster = servers.cluster(3, *KEPT)
    async with opened(at(cluster.url), prefix) as stream, Workers(stream) as workers:
        async with Load(stream, 500, prefix) as load:
            await load.reach(5)
            cluster.nodes[1].kill()
            await within(30, lambda: all(map(_is_down, (cluster.nodes[0], cluster.nodes[2]))), "the cluster is down")
            await _nothing_goes_for_a_while(load)
            await asyncio.to_thread(cluster.nodes[1].start)
            await asyncio.to_thread(cluster.wait_until_well)
            await load.reach(5)
        assert not load.refused
        await workers.have(load.safe)


async def _nothing_goes_for_a_while(load: Load) -> None:
    """What the cluster took over before it was down may still be answered."""
    for _ in range(3):
        safe = len(load.safe)
        await asyncio.sleep(1.0)  # that it is down for a while is what is tried
        if len(load.safe) == safe:
            return
    raise AssertionError("it is not down")


def _is_down(node: Node) -> bool:
    return b"cluster_state:fail" in node.ask("CLUSTER", "INFO")


async def test_a_failover_by_hand_loses_nothing(servers: Servers, prefix: str) -> None:
    """READONLY and MOVED from the old master, which lives on as a replica."""
    cluster = servers.cluster(6)
    async with opened(at(cluster.url), prefix) as stream, Workers(stream) as workers:
        async with Load(stream, 1_000, prefix) as load:
            await load.reach(10)
            for master in cluster.masters():
                replica = cluster.replica_of(master)
                replica.ask("CLUSTER", "FAILOVER")
                await within(30, lambda replica=replica: replica in cluster.masters(), "the replica took over")
            await load.reach(10)
        assert not load.refused
        await workers.have(load.safe)


async def test_a_node_that_is_removed_is_forgotten(servers: Servers, prefix: str) -> None:
    cluster = servers.cluster(3)
    leaving = servers.another_member(cluster)
    slots = {shard_keys(prefix, shard).slot for shard in range(4)}
    for slot in slots:
        move_slot(cluster, slot, cluster.master_of(slot), leaving)
    async with opened(at(f"{leaving.url},{cluster.nodes[0].address}"), prefix) as stream, Workers(stream) as workers:
        async with Load(stream, 500, prefix) as load:
            await load.reach(5)
            for slot in slots:
                await asyncio.to_thread(move_slot, cluster, slot, leaving, cluster.nodes[0])
            for node in cluster.nodes[:-1]:
                node.ask("CLUSTER", "FORGET", leaving.node_id())
            leaving.kill()
            await load.reach(10)
        assert not load.refused
        await workers.have(load.safe)


async def test_sentinels_name_another_master(servers: Servers, prefix: str) -> None:
    setup = servers.sentinels()
    async with opened(at(setup.url), prefix) as stream, Workers(stream) as workers:
        async with Load(stream, 1_000, prefix) as load:
            await load.reach(10)
            setup.master.kill()
            await within(60, lambda: setup.current() is setup.replica, "the Sentinels name the replica")
            await load.reach(10)
        assert not load.refused
        await workers.have(load.safe)


async def test_a_master_that_becomes_a_replica_is_left(servers: Servers, prefix: str) -> None:
    """READONLY without a cluster: the server is told to follow its replica, and the stream goes where the writes go."""
    master, replica = servers.replicated()
    async with (
        opened(at(f"redis://{master.address},{replica.address}"), prefix, wait=0) as stream,
        Workers(stream) as workers,
    ):
        async with Load(stream, 500, prefix) as load:
            await load.reach(5)
            master.ask("CLIENT", "PAUSE", 20_000, "WRITE")
            target = int(master.section("replication")["master_repl_offset"])
            await within(10, lambda: _offset(replica) >= target, "the replica has everything")
            replica.ask("REPLICAOF", "NO", "ONE")
            master.ask("REPLICAOF", "127.0.0.1", replica.port)
            master.ask("CLIENT", "UNPAUSE")
            await load.reach(5)
        assert not load.refused
        await workers.have(load.safe)


def _offset(replica: Node) -> int:
    return int(replica.section("replication")["slave_repl_offset"])


async def test_sixty_four_shards_are_spread_over_three_masters(cluster_of_3: Place, prefix: str) -> None:
    async with opened(cluster_of_3, prefix, shards=64) as stream:
        topology = await stream.check()
    counts = dict.fromkeys(topology.masters, 0)
    for shard in range(64):
        slot = shard_keys(prefix, shard).slot
        place = next((each.host, each.port) for each in topology.ranges if each.first <= slot <= each.last)
        counts[place] += 1
    assert len(counts) == 3
    assert max(counts.values()) / min(counts.values()) < 2, counts
