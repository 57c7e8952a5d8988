"""A server that hangs, is away, is loading or has another password: calls end within their deadline, and go on by
themselves when it is well again."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from redis.credentials import CredentialProvider

from asynctrace._errors import StreamAway, StreamError
from asynctrace.stream import _connections
from asynctrace.stream._slots import shard_keys

from .fronts import front
from .load import Load, Workers, at, message, within
from .places import Place
from .servers import KEPT, Authority, Node, RedisRefused, Servers
from .streams import drained, opened

pytestmark = pytest.mark.anyio


async def test_a_server_that_accepts_and_never_answers_is_given_up(standalone: Place, prefix: str) -> None:
    async with front(standalone.nodes[0].port) as between:
        between.hung = True
        async with opened(at(between.url), prefix, timeout=1.0) as stream:
            with pytest.raises(StreamAway, match=r"for 1 s"):
                await stream.append(message(1))
            with pytest.raises(StreamAway):
                await stream.claim("worker")
            between.hung = False
            await stream.append(message(2))
            assert len(await drained(stream)) == 1


async def test_connections_that_died_silently_are_replaced(standalone: Place, prefix: str) -> None:
    async with front(standalone.nodes[0].port) as between, opened(at(between.url), prefix, timeout=3.0) as stream:
        await stream.append(message(1))
        for number in range(2, 5):
            before = between.taken
            between.drop_silently()
            await stream.append(message(number))
            assert between.taken > before
        # what was sent into the silence may have arrived: the same requests, never less
        assert len(set(await drained(stream))) == 4


async def test_a_server_that_hangs_keeps_nobody_from_the_others(servers: Servers, prefix: str) -> None:
    cluster = servers.cluster(3, "--cluster-require-full-coverage", "no")
    async with opened(at(cluster.url), prefix, shards=16, timeout=3.0) as stream:
        await stream.check()
        frozen = cluster.nodes[1]
        elsewhere = _shards_elsewhere(await stream.check(), frozen, prefix, 16)
        assert elsewhere
        frozen.freeze()
        sending = [asyncio.create_task(stream.append(message(number))) for number in range(60)]
        answers = await asyncio.gather(*sending, return_exceptions=True)
        frozen.thaw()
        assert all(isinstance(each, StreamAway | None) for each in answers)
        assert answers.count(None) >= 20  # some of the others
        await within(30, cluster.is_well, "the cluster is whole again")
        await stream.append(message(99))


def _shards_elsewhere(topology: object, node: Node, prefix: str, shards: int) -> list[int]:
    slots = {shard: shard_keys(prefix, shard).slot for shard in range(shards)}
    ranges = topology.ranges  # type: ignore[attr-defined]
    return [
        shard
        for shard, slot in slots.items()
        if any(each.first <= slot <= each.last and each.port != node.port for each in ranges)
    ]


async def test_redis_that_was_away_is_used_again(servers: Servers, prefix: str) -> None:
    node = servers.standalone(*KEPT)
    async with opened(at(node.url), prefix, timeout=1.0) as stream, Workers(stream) as workers:
        async with Load(stream, 1_000, prefix) as load:
            await load.reach(10)
            node.kill()
            await within(30, lambda: load.errors[StreamAway] > 20, "senders are told")
            node.start()
            await load.reach(20)
        assert set(load.errors) == {StreamAway}
        assert not any("TLS" in line for line in load.lines)  # it was right a moment ago
        assert not load.refused
        await workers.have(load.safe)


async def test_a_name_that_leads_elsewhere_is_followed(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As managed services do it: the name stays, its address is another machine's."""
    old, new = servers.standalone(), servers.standalone()
    lookup, leads_to = socket.getaddrinfo, ["127.0.0.1"]

    def answered(host: str, *rest: Any, **options: Any) -> Any:
        return lookup(leads_to[0] if host == "redis.example" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    async with (
        front(new.port, host="127.0.0.2", own=old.port),
        opened(at(f"redis://redis.example:{old.port}"), prefix) as stream,
    ):
        await stream.append(message(1))
        leads_to[0] = "127.0.0.2"
        old.kill()
        await stream.append(message(2))
        assert await drained(stream) == [message(2).body]


async def test_a_stream_may_be_made_before_there_is_a_redis(servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    node.kill()
    async with opened(at(node.url), prefix, timeout=0.5) as stream:
        with pytest.raises(StreamAway, match=f"127.0.0.1:{node.port}"):
            await stream.check()
        with pytest.raises(StreamAway):
            await stream.append(message(1))
        node.start()
        await stream.append(message(1))
        assert len(await drained(stream)) == 1


async def test_a_server_that_loads_is_waited_for(servers: Servers, prefix: str) -> None:
    node = servers.standalone("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024")
    for number in range(100):
        node.ask("SET", f"other:{number}", "x" * 1000)
    async with opened(at(node.url), prefix) as stream:
        await stream.append(message(1))
        node.ask("SAVE")
        node.kill()
        node.launch()
        await within(20, lambda: _is_loading(node), "the server loads")
        await stream.append(message(2))
        assert not _is_loading(node)
        assert len(await drained(stream)) == 2


def _is_loading(node: Node) -> bool:
    try:
        node.ask("GET", "other:1")
    except RedisRefused as refused:
        return str(refused).startswith("LOADING")
    except OSError:
        pass
    return False


async def test_somebodys_slow_script_is_waited_for(servers: Servers, prefix: str) -> None:
    node = servers.standalone("--busy-reply-threshold", "50")
    async with opened(at(node.url), prefix) as stream:
        await stream.append(message(1))
        slow = asyncio.create_task(asyncio.to_thread(_run, node, "while true do end"))
        await within(20, lambda: _is_busy(node), "the server is busy")
        waiting = asyncio.create_task(stream.append(message(2)))
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        node.ask("SCRIPT", "KILL")
        await waiting
        await slow
        assert len(await drained(stream)) == 2


def _run(node: Node, script: str) -> None:
    with suppress(RedisRefused):
        node.ask("EVAL", script, 0)


def _is_busy(node: Node) -> bool:
    try:
        node.ask("GET", "anything")
    except RedisRefused as refused:
        return str(refused).startswith("BUSY")
    return False


async def test_a_replica_without_its_master_is_no_place_to_write(servers: Servers, prefix: str) -> None:
    """MASTERDOWN: the URL leads to a replica, whose master comes back later."""
    master, replica = servers.replicated("--replica-serve-stale-data", "no", "--appendonly", "yes")
    async with opened(at(replica.url), prefix, timeout=1.0, wait=0) as stream:
        await stream.append(message(1))
        master.kill()
        with pytest.raises(StreamAway):
            await stream.append(message(2))
        master.start()
        await within(30, lambda: replica.section("replication")["master_link_status"] == "up", "the replica follows")
        await stream.append(message(3))


async def test_a_password_may_change_while_spans_flow(servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    password = ["first"]
    node.ask("ACL", "SETUSER", "tracer", "on", ">first", "+@all", "~*")
    async with opened(at(node.url), prefix, credentials=lambda: ("tracer", password[0])) as stream:
        async with Workers(stream) as workers, Load(stream, 500, prefix) as load:
            await load.reach(5)
            node.ask("ACL", "SETUSER", "tracer", ">second", "<first")
            node.ask("CLIENT", "KILL", "TYPE", "normal")  # the new one is not known here yet
            await within(30, lambda: stream.statistics().troubled > 0, "the old password is refused")
            password[0] = "second"
            await load.reach(10)
            await workers.have(set(load.safe))
        assert not load.refused


async def credentials_that_cannot_be_had_pass(servers: Servers, prefix: str) -> None:
    """A file that is just being replaced: the connection that nobody logged in on must not be used."""
    node = servers.standalone()
    node.ask("ACL", "SETUSER", "tracer", "on", ">word", "+@all", "~*")
    node.ask("ACL", "SETUSER", "default", "off")
    logins: list[tuple[str, str]] = []
    async with opened(at(node.url), prefix, timeout=2.0, credentials=lambda: logins[0]) as stream:
        with pytest.raises(StreamAway, match="the credentials cannot be had"):
            await stream.append(message(1))
        logins.append(("tracer", "word"))
        await stream.append(msgspec.structs.replace(message(2), body=b"x" * 20_000))


async def test_credentials_that_cannot_be_had_for_a_moment_are_asked_for_again(servers: Servers, prefix: str) -> None:
    await credentials_that_cannot_be_had_pass(servers, prefix)


async def test_a_connection_that_is_used_without_a_login_is_noticed(
    servers: Servers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asking(CredentialProvider):
        def __init__(self, credentials: Callable[[], tuple[str, str]]) -> None:
            self._credentials = credentials

        def get_credentials(self) -> tuple[str, str]:
            return self._credentials()

    monkeypatch.setattr(_connections, "_asking", Asking)
    with pytest.raises((StreamError, AssertionError)):
        await credentials_that_cannot_be_had_pass(servers, prefix)


async def test_a_password_that_is_wrong_for_good_is_told_at_once(servers: Servers, prefix: str) -> None:
    node = servers.standalone()
    node.ask("CONFIG", "SET", "requirepass", "right")
    url = f"redis://:wrong@{node.address}"
    async with opened(at(url), prefix) as stream:
        with pytest.raises(StreamError, match="refuses the user or the password") as raised:
            await stream.append(message(1))
        assert not isinstance(raised.value, StreamAway)


async def test_tls_is_checked_against_the_named_authority_and_asks_for_the_host(
    standalone: Place, prefix: str, servers: Servers
) -> None:
    authority = Authority(servers.folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.certificate, authority.key)
    async with front(standalone.nodes[0].port, context) as between:
        async with opened(at(between.url), prefix, ca_file=authority.ca_file) as stream:
            await stream.append(message(1))
            assert len(await drained(stream)) == 1
        assert set(between.names) == {"localhost"}
        async with opened(at(between.url), prefix) as stream:
            with pytest.raises(StreamError, match="is not trusted here: name its authority's file as ca_file"):
                await stream.append(message(2))
