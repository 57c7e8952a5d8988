"""Whoever gives the wrong address, password or certificate reads one line that says what to change: at once, not after
retries without end. Whether it may pass by itself is in the error's type."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from asynctrace._errors import ConfigurationError, StreamAway, StreamError
from asynctrace.stream import parse_address
from asynctrace.stream._topology import explain, look

from .places import Place
from .servers import Authority, Servers, free_ports

pytestmark = pytest.mark.anyio

FindPlace = Callable[[str], Place]


async def told(host: str, port: int, **options: Any) -> StreamError:
    """What somebody reads who gives this address."""
    patience = {"socket_timeout": 10, "socket_connect_timeout": 10, "retry": Retry(NoBackoff(), 0)}
    async with Redis(host=host, port=port, protocol=2, **(patience | options)) as server:
        try:
            await look(server, (host, port))
        except (RedisError, OSError, StreamError) as error:
            line = explain(error, (host, port), secure=bool(options.get("ssl")))
        else:
            raise AssertionError("nothing is wrong")
    assert "\n" not in str(line)
    assert f"{host}:{port}" in str(line)
    return line


async def test_a_wrong_password(find_place: FindPlace) -> None:
    place = find_place("tls")
    secure = {"ssl": True, "ssl_ca_certs": str(place.ca_file)}
    for password in ("wrong", None):
        line = await told("localhost", place.nodes[0].port, password=password, **secure)
        assert "refuses the user or the password: write redis://user:password@host:port" in str(line)
        assert not isinstance(line, StreamAway)


async def test_a_password_that_is_not_wanted(standalone: Place) -> None:
    assert "wants no password: leave it out" in str(
        await told("127.0.0.1", standalone.nodes[0].port, password="secret")
    )


async def test_tls_spoken_to_a_server_without(standalone: Place) -> None:
    # Redis waits for the end of the command
    line = await told("127.0.0.1", standalone.nodes[0].port, ssl=True, socket_connect_timeout=1)
    assert "if it speaks no TLS, write redis:// instead of rediss://" in str(line)


async def test_tls_spoken_to_something_that_answers_otherwise() -> None:
    async with answering(b"-ERR Protocol error\r\n") as port:
        line = await told("127.0.0.1", port, ssl=True)
    assert "speaks no TLS: write redis:// instead of rediss://" in str(line)
    assert not isinstance(line, StreamAway)


async def test_no_tls_spoken_to_a_server_with(find_place: FindPlace) -> None:
    assert "if it speaks TLS, write rediss:// instead" in str(await told("127.0.0.1", find_place("tls").nodes[0].port))


async def test_a_certificate_of_an_unknown_authority(find_place: FindPlace) -> None:
    line = await told("localhost", find_place("tls").nodes[0].port, ssl=True, password="secret")
    assert "a certificate that is not trusted here: name its authority's file as ca_file" in str(line)
    assert not isinstance(line, StreamAway)


async def test_a_certificate_for_another_name(servers: Servers) -> None:
    authority = Authority(servers.folder, ("elsewhere.example",))
    node = servers.secured_unasked(authority)
    line = await told("localhost", node.port, ssl=True, ssl_ca_certs=str(authority.ca_file), ssl_check_hostname=True)
    assert "has a certificate for another name" in str(line)
    assert not isinstance(line, StreamAway)


async def test_nobody_there() -> None:
    (port,) = free_ports(1)
    assert isinstance(await told("127.0.0.1", port), StreamAway)


async def test_a_name_that_nobody_knows() -> None:
    assert isinstance(await told("redis.invalid", 6379), StreamAway)


async def test_a_user_without_the_commands(standalone: Place, prefix: str) -> None:
    standalone.nodes[0].ask("ACL", "SETUSER", prefix, "on", ">secret", "-@all")
    async with Redis(port=standalone.nodes[0].port, protocol=2, username=prefix, password="secret") as server:
        with pytest.raises(RedisError) as raised:
            await server.execute_command("EVAL", "#!lua\nreturn 1", 1, f"{prefix}:{{00}}:in")
    line = explain(raised.value, ("localhost", 6379))
    assert "does not let this user do what a stream needs" in str(line)
    assert "'eval' command" in str(line)
    assert not isinstance(line, StreamAway)


@contextlib.asynccontextmanager
async def answering(words: bytes) -> AsyncIterator[int]:
    """Something that answers everything in the same way."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(words)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
async def test_something_that_is_no_redis(words: bytes) -> None:
    async with answering(words) as port:
        line = await told("127.0.0.1", port)
    assert "is no Redis: it does not speak the protocol" in str(line)
    assert not isinstance(line, StreamAway)


PASSING = {
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "no master": b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    "a cluster that is down": b"-CLUSTERDOWN The cluster is down\r\n",
    "somebody's slow script": b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
    "too many clients": b"-ERR max number of clients reached\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("state", PASSING)
async def test_what_may_pass_is_told_as_that(state: str) -> None:
    async with answering(PASSING[state]) as port:
        assert isinstance(await told("127.0.0.1", port), StreamAway)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://user:q1q/q2q@host:6379", "inside a password it is %2F"),
        ("redis://user:11/q2q@host:6379", "inside a password it is %2F"),
        ("redis://user:q1q?q2q@host:6379", "inside a password they are %3F and %23"),
        ("user:q1q@host:6379", "its scheme is 'missing'"),
        ("redis:/user:q1q@host", "its scheme is 'missing'"),
        ("user:q1q://host", "its scheme is 'missing'"),
        ("http://user:q1q@host", "its scheme is 'http'"),
        ("redis://host:²", "no host and port"),
        ("redis://host:6379/1", "leave /1 out"),
    ],
)
def test_a_url_that_names_no_stream_is_told_without_its_password(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_address(url)
    line = str(raised.value)
    assert what in line
    assert "\n" not in line
    assert not any(part in line for part in ("q1q", "q2q", "11/"))
