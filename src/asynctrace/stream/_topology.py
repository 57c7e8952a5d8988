"""What kind of Redis this is, by asking, and what to tell whoever set it up when it cannot be used.

    asked               tells                                        where it is refused
    HELLO               mode, version                                INFO server, CLUSTER INFO and SLOTS, SENTINEL MASTERS
    CLUSTER SLOTS       who serves which slots, with replicas        one address serves all; redirections correct that
    SENTINEL MASTERS    the masters that a Sentinel watches          (a Sentinel without it is of no use)
    INFO replication    whom this server follows, its replicas       WAIT 0 0: how many replicas answer
    INFO memory         the eviction policy, the limit               unknown, and nothing is said about it

Promises: nothing is asked that a managed server punishes (no CONFIG, KEYS, SELECT); each question is asked once, with the
deadline of the `Server` that is asked; a refusal costs what it would have told, nothing else.

Sources: the Redis command reference (HELLO, INFO, CLUSTER SLOTS, SENTINEL, WAIT), "Redis cluster specification".
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from .._errors import StreamAway, StreamError
from ._slots import SLOTS

__all__ = ["OLDEST", "Kind", "Memory", "Range", "Server", "Topology", "explain", "look", "memory_of"]

OLDEST: Final = (7, 0)
"""Scripts that a cluster checks (`#!lua`) came with Redis 7.0; every Valkey has them."""

Address = tuple[str, int]


class Server(Protocol):
    """One server, asked over one connection or several: a `redis.asyncio.Redis`."""

    def execute_command(self, *words: Any) -> Awaitable[Any]: ...


class Kind(StrEnum):
    STANDALONE = "standalone"
    """One server, with or without replicas."""
    SENTINEL = "sentinel"
    """Sentinels that know where the master is at the moment."""
    CLUSTER = "cluster"
    """Slots on one or more masters, behind an address each or all behind one."""


class Range(msgspec.Struct, frozen=True):
    """Slots that lie together on one master."""

    first: int
    last: int
    """Included."""
    host: str
    port: int
    replicas: int | None = None
    """How many replicas the master has; None: it does not tell."""


class Memory(msgspec.Struct, frozen=True):
    """What one master does when its memory is full."""

    policy: str = ""
    """The eviction policy; "" where it may not be read."""
    limit: int | None = None
    """Bytes; 0: none; None where it may not be read."""
    used: int | None = None

    def warning(self, address: str) -> str:
        """One line where the server may throw entries away to make room, else ""."""
        if self.policy in ("", "noeviction"):
            return ""
        return (
            f"Redis at {address} may throw spans away: maxmemory-policy is {self.policy}, not noeviction; "
            "change it there (CONFIG SET maxmemory-policy noeviction, and in its configuration file)"
        )


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """What was found behind an address."""

    kind: Kind
    version: str = ""
    """Of the server that was asked; "" where it does not tell."""
    ranges: tuple[Range, ...]
    """All slots that are served, in order. Standalone and Sentinel: one range, the master's."""
    memory: Memory = Memory()
    """Of the server that was asked, where that is a master; `memory_of` asks others."""

    @property
    def masters(self) -> tuple[Address, ...]:
        """Every server that takes writes, each once."""
        return tuple(dict.fromkeys((each.host, each.port) for each in self.ranges))

    @property
    def replicas(self) -> int | None:
        """How many replicas the master has that has fewest; None: unknown."""
        counts = [each.replicas for each in self.ranges if each.replicas is not None]
        return min(counts, default=None)

    @property
    def unserved(self) -> int:
        """Slots that no master serves at the moment."""
        return SLOTS - sum(each.last - each.first + 1 for each in self.ranges)

    def __str__(self) -> str:
        version = f"Redis {self.version}" if self.version else "Redis"
        masters = f"{len(self.masters)} master{'s' * (len(self.masters) != 1)}"
        what = f"{self.kind} of {masters}" if self.kind is Kind.CLUSTER else str(self.kind)
        replicas = {None: "replicas unknown", 0: "no replicas"}.get(self.replicas, f"{self.replicas} replicas at least")
        return f"{version}, {what}, {replicas}, {self.memory.policy or 'eviction policy unknown'}"


async def look(server: Server, address: Address, *, name: str = "") -> Topology:
    """What lies behind a server. `address` is where it was asked; `name` is a master's, needed where Sentinels watch several.

    Raises what redis-py raises where the server does not answer at all (`explain` makes it a line), `StreamError` where it
    answers and cannot be used, `StreamAway` where that may pass.
    """
    hello = await _hello(server)
    kind, version = await _kind(server, hello), hello.get("version", "")
    _require_recent(version, address)
    if kind is Kind.SENTINEL:
        return Topology(kind=kind, version=version, ranges=(await _watched(server, name, address),))
    if name:
        raise StreamError(f"{_at(address)} is no Sentinel: leave {name!r} out of the URL")
    memory = await memory_of(server)
    ranges = await _slots(server, address) if kind is Kind.CLUSTER else (await _alone(server, address),)
    return Topology(kind=kind, version=version, ranges=ranges, memory=memory)


async def memory_of(server: Server) -> Memory:
    """The eviction policy and the memory of one server, where it tells."""
    told = await _section(server, "memory")
    return Memory(str(told.get("maxmemory_policy", "")), told.get("maxmemory"), told.get("used_memory"))


def explain(error: BaseException, address: Address, *, secure: bool = False, met: bool = False) -> StreamError:
    """The error of a connection or a command as one line that says what to change: `StreamAway` where waiting may help.

    `secure`: whether TLS was spoken. `met`: whether the stream has been used before, so that its URL is not in question.
    """
    if isinstance(error, StreamError):
        return error
    where = _at(address)
    for line in (*_of_tls(error, where), *_of_replies(error, where)):
        return StreamError(line)
    text = " ".join((str(error) or type(error).__name__).split())
    hint = "" if met else _hint(text.lower(), secure)
    return StreamAway(f"{where} cannot be used at the moment: {text}{hint}")


def _hint(text: str, secure: bool) -> str:
    """Servers answer neither TLS they do not expect nor its absence: one waits for more, the other goes away."""
    if secure and "timeout connecting" in text:
        return "; if it speaks no TLS, write redis:// instead of rediss://"
    if not secure and any(gone in text for gone in ("closed by", "reset by peer", "connection lost")):
        return "; if it speaks TLS, write rediss:// instead of redis://"
    return ""


def _at(address: Address) -> str:
    return f"Redis at {address[0]}:{address[1]}"


def _of_tls(error: BaseException, where: str) -> Iterator[str]:
    for each in _causes(error):
        text = str(each)
        if isinstance(each, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
            why = getattr(each, "verify_message", "") or text
            if "ostname mismatch" in why or "IP address mismatch" in why:
                yield f"{where} has a certificate for another name: write the name that its certificate has ({why})"
            else:
                yield f"{where} has a certificate that is not trusted here: name its authority's file as ca_file ({why})"
        elif isinstance(each, ssl.SSLError) and ("WRONG_VERSION" in text or "RECORD_LAYER" in text):
            yield f"{where} speaks no TLS: write redis:// instead of rediss://"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it; redis-py hands on an error of TLS as the argument of its own."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [a for a in (each.__cause__, each.__context__, *each.args) if isinstance(a, BaseException)]


def _of_replies(error: BaseException, where: str) -> Iterator[str]:
    """Lines for what a server answers and will go on answering."""
    from redis import exceptions as redis

    text = " ".join(str(error).split())
    if "without any password configured" in text:
        yield f"{where} wants no password: leave it out of the URL ({text})"
    elif isinstance(error, redis.AuthenticationError | redis.AuthenticationWrongNumberOfArgsError):
        yield f"{where} refuses the user or the password: write redis://user:password@host:port ({text})"
    elif isinstance(error, redis.NoPermissionError):
        yield f"{where} does not let this user do what a stream needs: {text}; the commands are listed in the documentation"
    elif isinstance(error, redis.ClusterCrossSlotError):
        yield f"{where} refuses keys of more than one slot: {text}"
    elif isinstance(error, redis.InvalidResponse) or text.startswith("Protocol Error"):
        yield f"{where} is no Redis: it does not speak the protocol ({text})"
    elif "unknown command" in text.lower() or "Unexpected engine" in text:
        yield f"{where} is too old or limited, Redis {OLDEST[0]}.{OLDEST[1]} or Valkey is needed: {text}"


async def _hello(server: Server) -> dict[str, str]:
    """What a server says of itself; nothing where it does not let us ask."""
    reply = await _or_refused(server, "HELLO")
    pairs = reply.items() if isinstance(reply, dict) else zip(*[iter(reply or ())] * 2, strict=False)
    return {_text(key): _text(value) for key, value in pairs}


async def _kind(server: Server, hello: dict[str, str]) -> Kind:
    mode = hello.get("mode") or (await _section(server, "server")).get("redis_mode", "")
    if mode in tuple(Kind):
        return Kind(mode)
    if "cluster_state" in _text(await _or_refused(server, "CLUSTER", "INFO")):
        return Kind.CLUSTER
    if await _or_refused(server, "CLUSTER", "SLOTS"):
        return Kind.CLUSTER
    return Kind.SENTINEL if await _or_refused(server, "SENTINEL", "MASTERS") else Kind.STANDALONE


def _require_recent(version: str, address: Address) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        raise StreamError(f"{_at(address)} is {version}: Redis {OLDEST[0]}.{OLDEST[1]} or Valkey is needed")


async def _watched(server: Server, name: str, address: Address) -> Range:
    """The master that a Sentinel watches under this name; the only one, where no name is given."""
    masters = [_pairs(flat) for flat in await server.execute_command("SENTINEL", "MASTERS")]
    names = sorted(each["name"] for each in masters)
    if not name and len(names) != 1:
        raise StreamError(
            f"the Sentinel at {address[0]}:{address[1]} watches {', '.join(names) or 'no master'}: "
            f"name one in the URL, as in redis://{address[0]}:{address[1]}/{names[0] if names else 'name'}"
        )
    for each in masters:
        if each["name"] == (name or names[0]):
            # During a failover the list still has the old address.
            host, port = await server.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", each["name"])
            return Range(0, SLOTS - 1, _text(host), int(port), int(each.get("num-slaves", 0)))
    raise StreamError(
        f"the Sentinel at {address[0]}:{address[1]} knows no master {name!r}: it watches {', '.join(names)}"
    )


async def _alone(server: Server, address: Address) -> Range:
    """A server that is no cluster, or the master that it follows."""
    told = await _section(server, "replication")
    if told.get("role") == "slave":
        return Range(0, SLOTS - 1, str(told["master_host"]), int(told["master_port"]))
    replicas = told.get("connected_slaves")
    if replicas is None:
        replicas = await _or_refused(server, "WAIT", 0, 0)
    return Range(0, SLOTS - 1, *address, replicas if isinstance(replicas, int) else None)


async def _slots(server: Server, address: Address) -> tuple[Range, ...]:
    """Who serves which slots. A node whose name is not known has that of the one that was asked."""
    reply = await _or_refused(server, "CLUSTER", "SLOTS")
    if reply is None:
        return (Range(0, SLOTS - 1, *address),)
    found = []
    for first, last, (host, port, *_), *replicas in reply:
        host = _text(host or b"")
        found.append(Range(first, last, address[0] if host in ("", "?") else host, port, len(replicas)))
    return tuple(sorted(found, key=lambda each: each.first))


async def _section(server: Server, name: str) -> dict[str, Any]:
    """A section of INFO, parsed by redis-py; nothing where it is refused."""
    reply = await _or_refused(server, "INFO", name)
    return reply if isinstance(reply, dict) else {}


async def _or_refused(server: Server, *words: str | int) -> Any:
    """The reply, or None where this server does not know the question or does not let us ask it."""
    from redis.exceptions import NoPermissionError, ResponseError

    try:
        return await server.execute_command(*words)
    except NoPermissionError:
        return None
    except ResponseError as error:
        if type(error) is not ResponseError:  # LOADING, MASTERDOWN and their like are no refusals
            raise
        return None


def _pairs(flat: Sequence[Any] | dict[Any, Any]) -> dict[str, str]:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=False)
    return {_text(key): _text(value) for key, value in pairs}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
