"""The look at every command sees what it should: each of these, sent by redis-py to a real server, is a violation."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis, RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisError

from . import slots
from .places import Place

pytestmark = pytest.mark.anyio

HERE, THERE = "{00}:in", "{01}:in"
READING = """#!lua
-- redis.call('GET', 'a comment')
redis.call("XGROUP", "CREATE", KEYS[1], "g", "0")
redis.call('DEL', KEYS[2])
return redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', tonumber(ARGV[1]), 'STREAMS', KEYS[1], '>')
"""
TAGGED = "#!lua\nreturn redis.call('GET', KEYS[1])"


async def _transaction(client: Redis, *commands: tuple[str, ...]) -> None:
    async with client.pipeline(transaction=True) as pipe:
        for words in commands:
            pipe.execute_command(*words)
        await pipe.execute()


async def _watch_of_another_slot(client: Redis) -> None:
    async with client.pipeline(transaction=True) as pipe:
        await pipe.watch(HERE)
        pipe.multi()
        pipe.set(THERE, 1)
        await pipe.execute()


async def _unseen_script(client: Redis) -> None:
    await client.evalsha("0" * 40, 1, HERE)


FAULTS: dict[str, tuple[str, Callable[[Redis], Awaitable[Any]]]] = {
    "two keys of two slots": ("mixes slots", lambda client: client.delete(HERE, THERE)),
    "a transaction over two slots": ("one transaction", lambda c: _transaction(c, ("INCR", HERE), ("INCR", THERE))),
    "a transaction on what was watched elsewhere": ("one transaction", _watch_of_another_slot),
    "two streams in one read": ("mixes slots", lambda client: client.xread({HERE: "0", THERE: "0"})),
    "a blocking read of two lists": ("mixes slots", lambda client: client.blpop([HERE, THERE], timeout=0.01)),
    "a script with keys of two slots": ("mixes slots", lambda client: client.eval(TAGGED, 2, HERE, THERE)),
    "a script that a cluster does not check": (
        "without #!lua",
        lambda client: client.eval("return redis.call('GET', KEYS[1])", 1, HERE),
    ),
    "a script with a key of its own": (
        "undeclared key",
        lambda client: client.eval("#!lua\nreturn redis.call('GET', 'at:{00}:bytes')", 1, HERE),
    ),
    "a script that builds a key": (
        "undeclared key",
        lambda client: client.eval("#!lua\nreturn redis.call('XLEN', ARGV[1] .. ':in')", 1, HERE, "at"),
    ),
    "a script that reads a stream it was not given": (
        "undeclared key",
        lambda client: client.eval(
            "#!lua\nreturn redis.call('XREADGROUP', 'GROUP', 'g', 'c', 'COUNT', tonumber(ARGV[1]), 'STREAMS', ARGV[2], '>')",
            1,
            HERE,
        ),
    ),
    "a script that calls what it is told": (
        "undeclared key",
        lambda client: client.eval("#!lua\nreturn redis.call(unpack(ARGV))", 1, HERE, "GET", "somewhere"),
    ),
    "a loaded script with an undeclared key": (
        "undeclared key",
        lambda client: client.script_load("#!lua\nreturn redis.pcall('XINFO', 'STREAM', ARGV[1])"),
    ),
    "a script that allows itself other slots": (
        "allows itself other slots",
        lambda client: client.eval("#!lua flags=allow-cross-slot-keys\nreturn 1", 1, HERE),
    ),
    "a script that nobody saw": ("nobody has seen", _unseen_script),
    "SELECT": ("may not be sent", lambda client: client.execute_command("SELECT", 1)),
    "KEYS": ("may not be sent", lambda client: client.keys("*")),
    "SCAN": ("may not be sent", lambda client: client.scan()),
    "CONFIG SET": ("may not be sent", lambda client: client.config_set("maxmemory", 0)),
    "CONFIG GET": ("may not be sent", lambda client: client.config_get("maxmemory-policy")),
    "something blocking inside MULTI": (
        "blocks inside a transaction",
        lambda client: _transaction(client, ("INCR", HERE), ("XREAD", "BLOCK", "1", "STREAMS", HERE, "$")),
    ),
    "WAIT inside MULTI": (
        "blocks inside a transaction",
        lambda client: _transaction(client, ("INCR", HERE), ("WAIT", "0", "1")),
    ),
    "WAIT without a write": ("waits on a connection that has written nothing", lambda client: client.wait(1, 1)),
    "a command that nobody looked up": ("is not known", lambda client: client.execute_command("GEORADIUS", HERE)),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_it_notices(standalone: Place, fault: str) -> None:
    expected, send = FAULTS[fault]
    with slots.checked() as found:
        async with Redis.from_url(standalone.url) as client:
            with contextlib.suppress(RedisError):
                await send(client)
    with pytest.raises(AssertionError, match=expected):
        found.raise_for_violations()


async def test_it_notices_a_mix_in_a_pipeline_of_a_cluster_client(cluster_of_3: Place) -> None:
    with slots.checked() as found:
        async with RedisCluster.from_url(cluster_of_3.url) as client:
            node = client.get_node_from_key(HERE)
            with contextlib.suppress(RedisError):
                await client.execute_command("DEL", HERE, THERE, target_nodes=node)
    with pytest.raises(AssertionError, match="mixes slots"):
        found.raise_for_violations()


async def test_what_may_be_sent_is_no_violation(standalone: Place, checked: slots.Checked, prefix: str) -> None:
    stream, counter = f"{prefix}:{{00}}:in", f"{prefix}:{{00}}:bytes"
    async with Redis.from_url(standalone.url) as client:
        async with client.pipeline(transaction=True) as pipe:
            await pipe.watch(counter)
            pipe.multi()
            pipe.xadd(stream, {"body": b"\r\n*1\r\n$4\r\nKEYS\r\n"})  # bytes that look like a command
            pipe.incrby(counter, 5)
            await pipe.execute()
        async with client.pipeline(transaction=False) as pipe:
            pipe.incrby(counter, 1)
            pipe.execute_command("INCR", f"{prefix}:{{01}}:bytes")
            pipe.execute_command("WAIT", 0, 1)
            await pipe.execute()
        assert await client.eval(TAGGED, 2, counter, stream) == b"6"
        assert await client.eval(READING, 2, stream, counter, 1)
        assert await client.xread({stream: "0"}, block=1)
        await client.delete(counter, stream)
    assert {"WATCH", "MULTI", "XADD", "INCRBY", "EXEC", "WAIT", "EVAL", "XREAD", "DEL"} <= set(checked.commands)


PROGRAM = """
import asyncio, os, signal, sys
from redis.asyncio import Redis
async def main():
    async with Redis.from_url(sys.argv[1]) as client:
        await client.delete(*sys.argv[2:])
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def _run(environment: dict[str, str], *arguments: str) -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=os.environ | environment, capture_output=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()


def test_it_notices_what_a_program_sends_that_is_killed(standalone: Place, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="mixes slots"),
        slots.watched_programs(tmp_path / "slots") as environment,
    ):
        _run(environment, standalone.url, HERE, THERE)


def test_what_a_program_may_send_is_looked_at_and_no_violation(standalone: Place, tmp_path: Path) -> None:
    with slots.watched_programs(tmp_path / "slots") as environment:
        _run(environment, standalone.url, HERE)
    assert [report.read_text() for report in (tmp_path / "slots").iterdir()] == [""]


@given(st.binary(min_size=1, max_size=40) | st.text("{}:ab", min_size=1).map(str.encode))
def test_its_slots_are_those_of_the_client_library(key: bytes) -> None:
    assert slots.slot_of(key) == key_slot(key)


def test_slots_of_the_cluster_specification() -> None:
    assert slots.slot_of(b"123456789") == 0x31C3
    assert slots.slot_of(b"{user1000}.following") == slots.slot_of(b"user1000")
    assert slots.slot_of(b"foo{}{bar}") != slots.slot_of(b"bar")
    assert slots.slot_of(b"foo{{bar}}zap") == slots.slot_of(b"{bar")
    assert slots.slot_of(b"foo{bar}{zap}") == slots.slot_of(b"bar")
