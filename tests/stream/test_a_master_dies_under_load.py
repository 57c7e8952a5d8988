"""A request that was answered is not lost, whatever becomes of the master that took it."""

from __future__ import annotations

import time

import pytest

from asynctrace.stream import RedisStream

from .load import Load, Workers, at, within
from .servers import Cluster, Node, Servers, eventually
from .streams import opened

pytestmark = pytest.mark.anyio


async def _killed(
    cluster: Cluster, prefix: str, spans_per_second: int, seconds: float = 1.0, **options: object
) -> Load:
    """Kills a master under load, waits until the stream flows again; everything that was safe has to come out."""
    victim = cluster.masters()[0]
    async with opened(at(cluster.url), prefix, **options) as stream:
        assert (await stream.check()).replicas == 1
        async with Load(stream, spans_per_second, prefix) as load:
            await load.reach(int(spans_per_second / 50 * seconds))
            victim.kill()
            await within(30, lambda: cluster.is_well() and victim not in cluster.masters(), "a replica took over")
            await load.reach(int(spans_per_second / 50 * seconds))
        assert not load.refused
        async with Workers(stream, 2) as workers:
            await workers.have(load.safe)
        _account(load, workers, stream)
    return load


def _cut_off(cluster: Cluster, master: Node) -> Node:
    """The replica of the master, which gets nothing more from it."""
    replica = cluster.replica_of(master)
    replica.freeze()
    master.ask("CLIENT", "KILL", "TYPE", "replica")
    return replica


def _account(load: Load, workers: Workers, stream: RedisStream) -> None:
    """What came out more than once was sent more than once."""
    twice = sum(times - 1 for times in workers.stored.values())
    assert twice <= stream.statistics().repeated + sum(load.errors.values())


async def test_what_was_answered_is_there_after_a_master_died(servers: Servers, prefix: str) -> None:
    await _killed(servers.cluster(6), prefix, 2_000)


async def test_without_waiting_for_a_replica_the_check_notices_the_loss(servers: Servers, prefix: str) -> None:
    """The mutant: WAIT left out. The master is cut off from its replica and answers all the same."""
    cluster = servers.cluster(6)
    victim = cluster.masters()[0]
    replica = _cut_off(cluster, victim)
    async with opened(at(cluster.url), prefix, wait=0) as stream:
        async with Load(stream, 2_000, prefix) as load:
            await load.reach(100)
        victim.kill()
        replica.thaw()
        await within(30, lambda: cluster.is_well() and replica in cluster.masters(), "a replica took over")
        async with Workers(stream) as workers:
            with pytest.raises(AssertionError, match="lost"):
                await workers.have(load.safe, seconds=2)


async def test_a_master_that_is_cut_off_from_its_replica_answers_nobody(servers: Servers, prefix: str) -> None:
    """The other side of the same: with WAIT, what the replica does not have is not answered."""
    cluster = servers.cluster(6)
    victim = cluster.masters()[0]
    async with opened(at(cluster.url), prefix) as stream:
        await stream.check()
        replica = _cut_off(cluster, victim)
        async with Load(stream, 1_000, prefix) as load:
            await load.reach(20)
            victim.kill()
            replica.thaw()
            await within(30, lambda: cluster.is_well() and replica in cluster.masters(), "a replica took over")
            await load.reach(20)
        async with Workers(stream) as workers:
            await workers.have(load.safe)


@pytest.mark.long
async def test_ten_masters_die_under_five_thousand_spans_a_second(servers: Servers, prefix: str) -> None:
    cluster = servers.cluster(6)
    for run in range(10):
        before = time.monotonic()
        dead = cluster.masters()[0]
        load = await _killed(cluster, f"{prefix}-{run}", 5_000, 2.0)
        print(f"run {run}: {len(load.safe) * 50:,} spans safe, 0 lost, errors {dict(load.errors)}, "
              f"{time.monotonic() - before:.1f} s")  # fmt: skip
        dead.start()
        eventually(lambda dead=dead: dead in cluster.replicas(), "the old master follows the new one")
        cluster.wait_until_known()
