"""Which server a slot lives on, and patience until it answers: the same for one server, Sentinels and a cluster.

    call(slot, command) ─▶ home of the slot ─▶ lane ─▶ answer
                              ▲                  │
                              └── look again ◀───┘ moved, gone, failing over, loading, not confirmed

Every command has one slot and goes to the server that has it; where there is no cluster, that is the one master. What an
answer means:

    MOVED, ASK                                      the slot lives elsewhere: there, at once
    TRYAGAIN, CLUSTERDOWN, MASTERDOWN, READONLY,    look again who serves it, and repeat after a pause that grows
    LOADING, BUSY, NOREPLICAS, MISCONF, no answer
    OOM                                             `StreamFull`
    any other reply                                 `StreamError`, one line that says what to change

Promises: a call ends within its deadline, by an answer, `StreamAway` that says what the last trouble was, `StreamFull` or
`StreamError`; a server that hangs keeps nobody waiting who wants another one.

Sources: Redis cluster specification ("MOVED Redirection", "ASK redirection", "Multi-key operations"), `WAIT`.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .._diagnostics import Diagnostics
from .._errors import StreamAway, StreamError, StreamFull
from ._connections import Connections, taken_apart
from ._lane import Lane, Unconfirmed, Words
from ._topology import Kind, Memory, Range, Server, Topology, explain, look, memory_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Router", "RouterCounts"]

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
"""Seconds between two tries of one call."""
_BETWEEN_LOOKS: Final = 0.2
_HOPS: Final = 5
"""Redirections in a row after which a pause is better."""
_LOOK_TIMEOUT: Final = 2.0
"""Seconds that one server has at least to say who serves what; then the next one is asked."""
_REPLICA_GRACE: Final = 15.0
"""Seconds for which a replica that went away is still waited for: longer than a failover takes, so that a master which was
cut off from its replicas confirms nothing that the next master does not have."""
_FULL_FOR: Final = 2.0
"""Seconds after which to come again, where the server's memory is full."""

_PASSING: Final = ("NOREPLICAS", "MISCONF", "BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY")
"""Beginnings of replies that pass, where redis-py has no class of its own for them."""

_MAY_NOT: Final = "user executing the script can't run this command"
"""In the reply to a script that reached a command which its user may not run; it does not name the command."""

_Place = tuple[str, int]


class RouterCounts(msgspec.Struct):
    """What has happened so far."""

    redirected: int = 0
    troubled: int = 0
    """Tries that ended without an answer that counts."""
    repeated: int = 0
    """Those among them whose command may have been done all the same, and was sent again."""


class Router:
    """`replicas`: how many have to confirm; None: one, where there are any. `timeout`: seconds for a call."""

    def __init__(
        self, connections: Connections, *, replicas: int | None, timeout: float, diagnostics: Diagnostics
    ) -> None:
        self.counts = RouterCounts()
        self.topology: Topology | None = None
        self._connections = connections
        self._replicas = replicas
        self._timeout = timeout
        self._diagnostics = diagnostics
        self._clients: dict[tuple[_Place, bool], Redis] = {}
        self._lanes: dict[tuple[_Place, bool], Lane] = {}
        self._moved: dict[int, _Place] = {}
        self._can_wait: bool | None = None
        self._confirmed_until: dict[_Place, float] = {}
        self._looking = asyncio.Lock()
        self._looking_aside: asyncio.Task[StreamError | None] | None = None
        self._looked = 0.0
        self._doubt = True
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    # --- calls

    async def call(self, slot: int, words: Words, size: int = 0, *, confirmed: bool = False) -> Any:
        """The answer to a command, whose keys all lie in `slot`; `confirmed`: once replicas have it."""
        last: list[StreamError] = []
        try:
            async with asyncio.timeout(self._timeout):
                return await self._until_answered(slot, words, size, confirmed, last)
        except TimeoutError:
            why = str(last[-1]) if last else f"{self._connections.address!r} did not answer"
            raise StreamAway(f"{why} (for {self._timeout:g} s)") from None

    async def _until_answered(
        self, slot: int, words: Words, size: int, confirmed: bool, last: list[StreamError]
    ) -> Any:
        pauses = _pauses()
        asking: _Place | None = None
        hops = 0
        while not self._closed:
            await self._know(last)
            place = asking or self._home(slot)
            try:
                return await self._send(place, words, size, confirmed, asking is not None)
            except Exception as error:  # noqa: BLE001  (judged: what does not pass is raised)
                asking = self._redirected(error, slot, place)
                hops += 1
                if (asking or self._moved.get(slot)) and hops % _HOPS:
                    continue
                last[:] = [self._trouble(error, place or self._connections.address.hosts[0])]
                await self._connect_anew(error, place)
            await asyncio.sleep(next(pauses))
        raise StreamAway("the stream was closed")

    async def _send(self, place: _Place | None, words: Words, size: int, confirmed: bool, asking: bool) -> Any:
        if place is None:
            raise StreamAway("no master of the cluster serves this slot at the moment")
        lane = self._lane(place, confirmed)
        return await lane.send(words, size, replicas=self._wanted(place) if confirmed else 0, asking=asking)

    def _redirected(self, error: Exception, slot: int, place: _Place | None) -> _Place | None:
        """Where to ask instead, this once (ASK). A slot that moved for good is noted."""
        from redis.exceptions import AskError, MovedError

        self._moved.pop(slot, None)
        if not isinstance(error, AskError) or place is None:
            return None
        self.counts.redirected += 1
        there = (error.host or place[0], error.port)
        if not isinstance(error, MovedError):
            return there
        self._moved[slot] = there
        self._doubt = True
        return None

    def _trouble(self, error: Exception, place: _Place) -> StreamError:
        """What to tell if it lasts. What does not pass is raised."""
        told = self._told(error, place)
        if not isinstance(told, StreamAway):
            raise told from None
        self.counts.troubled += 1
        self.counts.repeated += _may_be_done(error)
        self._doubt = True
        self._diagnostics.warning("stream.trouble", reason=str(told))
        return told

    async def _connect_anew(self, error: Exception, place: _Place | None) -> None:
        """After a failover the name of a server may mean another one: new connections ask for its address again."""
        from redis.exceptions import ReadOnlyError

        if place is not None and isinstance(error, ReadOnlyError):
            await self._client(place).connection_pool.disconnect(inuse_connections=False)

    def _told(self, error: Exception, place: _Place) -> StreamError:
        from redis import exceptions as redis

        where = f"Redis at {place[0]}:{place[1]}"
        text = str(error)
        if isinstance(error, Unconfirmed):
            return StreamAway(f"{where} has what was sent, but {error}")
        if isinstance(error, TimeoutError):
            return StreamAway(f"{where} did not answer in time")
        if isinstance(error, redis.OutOfMemoryError) or text.startswith("OOM"):
            return StreamFull(f"{where} is out of memory", _FULL_FOR)
        if text.startswith("WRONGTYPE"):
            return StreamError(f"{where} has a key of somebody else under this prefix: choose another prefix ({text})")
        if isinstance(error, redis.AuthenticationError) and self._connections.can_rotate:
            return StreamAway(f"{where} refuses the password: {text}")
        if _MAY_NOT in text:
            return StreamError(
                f"{where} does not let this user do what a stream needs: {text}; see the list of commands"
            )
        if _passes(error):
            return StreamAway(f"{where} cannot serve at the moment: {text}")
        told = explain(error, place, secure=self._connections.address.secure, met=self.topology is not None)
        # A reply that nobody here knows will be the same the next time.
        return StreamError(str(told)) if isinstance(error, redis.ResponseError) else told

    # --- who serves what

    async def look(self) -> Topology:
        """Ask who serves what, anew. Raises `StreamAway` where nobody answers, `StreamError` where the answer is no use."""
        async with self._looking:
            try:
                return await self._look()
            finally:
                self._looked = asyncio.get_running_loop().time()

    async def memories(self) -> dict[str, Memory]:
        """What each master does when its memory is full; those that do not answer are left out."""
        topology = self.topology or await self.look()
        found = {}
        for place in topology.masters:
            with suppress(Exception):  # a look that failed is repeated in a minute
                found[f"{place[0]}:{place[1]}"] = await memory_of(self._client(place))
        return found

    async def _know(self, last: list[StreamError]) -> None:
        """Have a map of the slots. One that is in doubt is used on while it is made anew: the next try has the new one."""
        pauses = _pauses()
        while self.topology is None and not self._closed:
            looking = self._look_aside()
            await asyncio.wait([looking])
            error = None if looking.cancelled() else looking.result()
            if error is not None:
                last[:] = [error]
                if not isinstance(error, StreamAway):
                    raise error
                await asyncio.sleep(next(pauses))
        if self._doubt and asyncio.get_running_loop().time() >= self._looked + _BETWEEN_LOOKS:
            self._look_aside()

    def _look_aside(self) -> asyncio.Task[StreamError | None]:
        """In a task of its own: until Python 3.12 `asyncio.wait_for`, which redis-py uses, may swallow a cancellation, and so
        the deadline of whoever waits."""
        if self._looking_aside is None or self._looking_aside.done():
            self._looking_aside = asyncio.get_running_loop().create_task(self._look_and_tell())
        return self._looking_aside

    async def _look_and_tell(self) -> StreamError | None:
        try:
            await self.look()
        except StreamError as error:
            return error
        return None

    async def _look(self) -> Topology:
        wrong: list[StreamError] = []
        places = self._candidates()
        limit = self._timeout if len(places) == 1 else max(_LOOK_TIMEOUT, self._connections.timeout / 2)
        for place in places:
            try:
                async with asyncio.timeout(limit):
                    topology = await self._ask(place, self._connections.address.name)
            except Exception as error:  # noqa: BLE001  (judged: what does not pass is raised)
                wrong.append(self._told(error, place))
                continue
            if topology.replicas and self._replicas is None and self._can_wait is None:
                self._can_wait = await self._may_wait(topology.masters[0])
            self._learn(topology)
            return topology
        raise next((each for each in wrong if not isinstance(each, StreamAway)), wrong[0])

    def _candidates(self) -> list[_Place]:
        """Whom to ask, each once: in another order each time, since the first to answer may be the one that is cut off."""
        known = self.topology.masters if self.topology is not None and self.topology.kind is Kind.CLUSTER else ()
        both = list(dict.fromkeys((*self._connections.address.hosts, *known)))
        if self.topology is not None:
            random.shuffle(both)
        return both

    async def _ask(self, place: _Place, name: str) -> Topology:
        topology = await self._asked(place, name)
        master = topology.masters[0] if topology.masters else place
        if topology.kind is Kind.CLUSTER or master == place:
            return topology
        # the master itself knows best which replicas follow it
        there = await look(self._client(master), master)
        return msgspec.structs.replace(there, kind=topology.kind)

    async def _asked(self, place: _Place, name: str) -> Topology:
        """Sentinels mostly have no password, and refuse that of their master."""
        from redis.exceptions import AuthenticationError

        if name:
            with suppress(AuthenticationError):
                return await look(self._client(place, anonymous=True), place, name=name)
        return await look(self._client(place), place, name=name)

    async def _may_wait(self, place: _Place) -> bool:
        """Some managed services have replicas, and refuse `WAIT`: their promises are theirs."""
        from redis.exceptions import RedisError, ResponseError

        server: Server = self._client(place)
        try:
            await server.execute_command("WAIT", 0, 0)
        except ResponseError as error:
            self._diagnostics.warning("stream.unconfirmed", reason=f"replicas cannot be waited for: {error}")
            return False
        except (RedisError, OSError):
            return True  # it did not say so: it is asked with each append
        return True

    def _learn(self, topology: Topology) -> None:
        grace = asyncio.get_running_loop().time() + _REPLICA_GRACE
        self.topology, self._doubt = topology, False
        self._moved.clear()
        for each in topology.ranges:
            place = each.host, each.port
            if each.replicas and self._can_wait is not False:
                self._confirmed_until[place] = inf
            elif place in self._confirmed_until:
                self._confirmed_until[place] = min(self._confirmed_until[place], grace)
        self._let_go_of_others({*topology.masters, *self._connections.address.hosts})

    def _let_go_of_others(self, current: set[_Place]) -> None:
        """Servers that are no masters any more, and none that the URL names, once nothing is under way there."""
        busy = {key[0] for key, lane in self._lanes.items() if not lane.is_idle}
        gone = [key for key in self._clients if key[0] not in current | busy]
        for place, confirming in [key for key in self._lanes if key[0] not in current | busy]:
            del self._lanes[place, confirming]
        if gone:
            task = asyncio.get_running_loop().create_task(_close([], [self._clients.pop(key) for key in gone]))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _home(self, slot: int) -> _Place | None:
        """Who serves a slot; None: nobody at the moment."""
        if slot in self._moved:
            return self._moved[slot]
        ranges: tuple[Range, ...] = self.topology.ranges if self.topology is not None else ()
        place = bisect_right(ranges, slot, key=lambda each: each.first) - 1
        if place < 0 or ranges[place].last < slot:
            return None
        return ranges[place].host, ranges[place].port

    def _wanted(self, place: _Place) -> int:
        """How many replicas have to confirm."""
        if self._replicas is not None:
            return self._replicas
        return int(asyncio.get_running_loop().time() < self._confirmed_until.get(place, 0.0))

    # --- connections

    def _client(self, place: _Place, *, anonymous: bool = False) -> Redis:
        found = self._clients.get((place, anonymous))
        if found is None:
            found = self._clients[place, anonymous] = self._connections.open(*place, anonymous=anonymous)
        return found

    def _lane(self, place: _Place, confirming: bool) -> Lane:
        """Those that wait for replicas keep nobody else waiting."""
        found = self._lanes.get((place, confirming))
        if found is None:
            milliseconds = max(1, int(self._connections.timeout * 600))
            found = self._lanes[place, confirming] = Lane(self._client(place), milliseconds)
        return found

    def taken_apart(self) -> list[asyncio.StreamWriter]:
        """The writers of all connections, which forget them."""
        return [writer for client in self._clients.values() for writer in taken_apart(client)]

    async def aclose(self) -> None:
        """Calls under way end with `StreamAway`."""
        self._closed = True
        if self._looking_aside is not None:
            self._looking_aside.cancel()
            await asyncio.wait([self._looking_aside])
        await _close(self._lanes.values(), self._clients.values())
        await asyncio.gather(*self._closing, return_exceptions=True)


async def _close(lanes: Iterable[Lane], clients: Iterable[Redis]) -> None:
    for lane in lanes:
        await lane.aclose()
    for client in clients:
        await client.aclose()


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, _LONGEST_PAUSE)


def _passes(error: Exception) -> bool:
    from redis import exceptions as redis

    passing = (redis.ClusterDownError, redis.TryAgainError, redis.ReadOnlyError, redis.BusyLoadingError)
    return isinstance(error, passing) or str(error).startswith(_PASSING)


def _may_be_done(error: Exception) -> bool:
    """Whether the command may have been done: no answer came, or no replica confirmed it."""
    from redis.exceptions import ResponseError

    return not isinstance(error, ResponseError | StreamError)
