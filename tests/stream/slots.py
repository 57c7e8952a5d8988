"""A look at every command that redis-py puts onto the wire: does it stay within one slot, and may it be sent at all?

What counts is the bytes that leave (`send_packed_command` of a connection), whichever client, pipeline or script made them:

- A command, and a transaction from its WATCH to its EXEC, has keys of one slot, also on a Redis that is no cluster.
- A script begins with `#!lua`, so that a cluster checks its keys, and reaches for `KEYS[…]` only: it declares all of them.
- A WAIT for replicas has a write before it on the same connection; otherwise it waits for nothing.
- Nothing blocks inside a transaction; SELECT, KEYS, CONFIG and whatever looks at other people's keys is not sent.
- A command that this module does not know is a violation: its keys cannot be found.

`Checked.violations` says what was wrong, a line each.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.connection import AbstractConnection as SyncConnection

__all__ = ["SCRIPTS", "Checked", "checked", "commands_of", "report_to", "slot_of", "watched_programs"]

Words = Sequence[bytes]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FIRST_KEY = _names(
    "APPEND DECR DECRBY EXPIRE PEXPIRE PERSIST GET GETDEL GETEX GETSET HDEL HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET "
    "HSCAN HSET HVALS INCR INCRBY LINDEX LLEN LPOP LPUSH LRANGE LREM LTRIM MEMORY|USAGE OBJECT|ENCODING PTTL RPOP RPUSH SADD "
    "SCARD SET SETEX SETNX SISMEMBER SMEMBERS SPUBLISH SREM STRLEN TTL TYPE XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP|CREATE "
    "XGROUP|CREATECONSUMER XGROUP|DELCONSUMER XGROUP|DESTROY XGROUP|SETID XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM XLEN "
    "XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZRANGE ZRANGEBYSCORE ZREM ZREMRANGEBYSCORE ZSCORE"
)
ALL_KEYS = ["DEL", "EXISTS", "MGET", "SSUBSCRIBE", "TOUCH", "UNLINK", "WATCH"]
TWO_KEYS = ["COPY", "LMOVE", "RENAME", "RENAMENX"]
NO_KEYS = _names(
    "ACL|WHOAMI ASKING AUTH CLIENT|GETNAME CLIENT|ID CLIENT|MAINT_NOTIFICATIONS CLIENT|NO-EVICT CLIENT|NO-TOUCH "
    "CLIENT|SETINFO CLIENT|SETNAME CLUSTER|INFO CLUSTER|MYID CLUSTER|NODES CLUSTER|SHARDS CLUSTER|SLOTS COMMAND "
    "COMMAND|DOCS DISCARD ECHO EXEC HELLO INFO MULTI PING QUIT READONLY READWRITE ROLE SCRIPT|EXISTS SCRIPT|LOAD "
    "SENTINEL|GET-MASTER-ADDR-BY-NAME SENTINEL|MASTER SENTINEL|MASTERS SENTINEL|REPLICAS SENTINEL|SENTINELS "
    "SENTINEL|SLAVES TIME UNWATCH WAIT"
)
SCRIPT_COMMANDS = ["EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO"]
STREAM_READS = ["XREAD", "XREADGROUP"]
BLOCKING = ["BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "WAIT", "WAITAOF"]
REFUSED = _names(
    "SELECT KEYS CONFIG SCAN FLUSHALL FLUSHDB MONITOR DEBUG SWAPDB MOVE SHUTDOWN DBSIZE RANDOMKEY SAVE BGSAVE"
)
"""Not there on a cluster or a managed server, or about keys that are not ours."""
CONTAINERS = {name.partition("|")[0] for name in FIRST_KEY | NO_KEYS if "|" in name}
READS = _names(
    "EXISTS GET HEXISTS HGET HGETALL HKEYS HLEN HMGET HSCAN HVALS LINDEX LLEN LRANGE MEMORY|USAGE MGET PTTL SCARD SISMEMBER "
    "SMEMBERS STRLEN TTL TYPE XINFO|CONSUMERS XINFO|GROUPS XINFO|STREAM XLEN XPENDING XRANGE XREAD XREVRANGE ZCARD ZRANGE "
    "ZRANGEBYSCORE ZSCORE WATCH TOUCH"
)

SCRIPTS: dict[str, str] = {}
"""Scripts by their SHA-1: everything that was loaded or sent while anybody looked."""

_CALL = re.compile(r"redis\s*\.\s*p?call\s*\(")


def slot_of(key: bytes) -> int:
    """CRC16 (XMODEM) of the hash tag, modulo 16,384: the cluster specification, written down a second time on purpose."""
    start = key.find(b"{")
    if start >= 0 and (end := key.find(b"}", start + 1)) > start + 1:
        key = key[start + 1 : end]
    crc = 0
    for byte in key:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return crc % 16384


def commands_of(packed: bytes) -> Iterator[list[bytes]]:
    """The commands in bytes that go to a server: arrays of strings, one after the other."""
    position = 0

    def number(kind: bytes) -> int:
        nonlocal position
        end = packed.index(b"\r\n", position)
        if packed[position : position + 1] != kind:
            raise ValueError(f"not a command: {packed[position : position + 40]!r}")
        found = int(packed[position + 1 : end])
        position = end + 2
        return found

    while position < len(packed):
        words = []
        for _ in range(number(b"*")):
            length = number(b"$")
            words.append(packed[position : position + length])
            position += length + 2
        yield words


@dataclass
class _Line:
    """What has gone over one connection: the slots of a transaction that has not ended, and whether anything was written."""

    watched: set[int] = field(default_factory=set)
    queued: set[int] | None = None
    wrote: bool = False


@dataclass
class Checked:
    """What was looked at, and what was wrong with it."""

    commands: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _lines: weakref.WeakKeyDictionary[Any, _Line] = field(default_factory=weakref.WeakKeyDictionary)
    _unseen: dict[str, str] = field(default_factory=dict)

    def raise_for_violations(self) -> None:
        wrong = self.violations + [line for digest, line in self._unseen.items() if digest not in SCRIPTS]
        assert not wrong, "commands that may not be sent:\n  " + "\n  ".join(dict.fromkeys(wrong))

    def look_at(self, connection: object, packed: bytes) -> None:
        line = self._lines.setdefault(connection, _Line())
        for words in commands_of(packed):
            name = _name(words)
            self.commands.append(name)
            for wrong in self._judge(line, name, words):
                self.violations.append(f"{wrong}: {b' '.join(words[:8])[:200].decode(errors='replace')}")

    def forget(self, connection: object) -> None:
        """A connection that is opened anew is another session for the server."""
        self._lines.pop(connection, None)

    def _judge(self, line: _Line, name: str, words: Words) -> Iterator[str]:
        if name.partition("|")[0] in REFUSED:
            yield "may not be sent"
            return
        yield from self._script(name, words)
        keys = _keys(name, words)
        if keys is None:
            yield "is not known to tests/stream/slots.py"
            return
        slots = {slot_of(key) for key in keys}
        if len(slots) > 1:
            yield f"mixes slots {sorted(slots)}"
        yield from _transaction(line, name, words, slots)
        line.wrote = line.wrote or bool(keys and name not in READS)
        if name == "WAIT" and words[1] != b"0" and not line.wrote:
            yield "waits on a connection that has written nothing"

    def _script(self, name: str, words: Words) -> Iterator[str]:
        if name in ("EVAL", "EVAL_RO", "SCRIPT|LOAD"):
            text = words[-1 if name == "SCRIPT|LOAD" else 1].decode()
            SCRIPTS[hashlib.sha1(text.encode()).hexdigest()] = text
            yield from _faults_of(text)
        elif name in SCRIPT_COMMANDS:
            digest = words[1].decode()
            self._unseen.setdefault(digest, f"nobody has seen the script {digest}")


def _name(words: Words) -> str:
    name = words[0].decode().upper()
    if name in CONTAINERS and len(words) > 1:
        inner = f"{name}|{words[1].decode().upper()}"
        return inner if inner in FIRST_KEY or inner in NO_KEYS else f"{name}|?" if name != "COMMAND" else name
    # redis-py packs some names of two words as one
    return name.replace(" ", "|")


def _keys(name: str, words: Words) -> list[bytes] | None:
    """The keys of a command; None: nobody knows them."""
    first = name.count("|") + 1
    if name in NO_KEYS:
        return []
    if name in FIRST_KEY:
        return list(words[first : first + 1])
    if name in ALL_KEYS:
        return list(words[1:])
    if name in TWO_KEYS:
        return list(words[1:3])
    if name in SCRIPT_COMMANDS:
        return list(words[3 : 3 + int(words[2])])
    if name in STREAM_READS:
        after = [word.upper() for word in words].index(b"STREAMS") + 1
        return list(words[after : after + (len(words) - after) // 2])
    if name in ("BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX"):
        return list(words[1:-1])
    return list(words[1:3]) if name == "BLMOVE" else None


def _transaction(line: _Line, name: str, words: Words, slots: set[int]) -> Iterator[str]:
    if name == "MULTI":
        line.queued = set(line.watched)
    elif name in ("EXEC", "DISCARD"):
        line.queued, line.watched = None, set()
    elif name == "UNWATCH":
        line.watched = set()
    elif name == "WATCH":
        line.watched |= slots
    elif line.queued is not None:
        if name in BLOCKING or (name in STREAM_READS and b"BLOCK" in (word.upper() for word in words)):
            yield "blocks inside a transaction"
        before = len(line.queued)
        line.queued |= slots
        if slots and len(line.queued) > max(before, 1):
            yield f"mixes slots {sorted(line.queued)} in one transaction"


def _faults_of(text: str) -> Iterator[str]:
    if not text.startswith("#!lua"):
        yield "is a script without #!lua"
    if "allow-cross-slot-keys" in text.partition("\n")[0]:
        yield "is a script that allows itself other slots"
    code = re.sub(r"--[^\n]*", "", text)
    for call in _CALL.finditer(code):
        words = list(_arguments(code, call.end()))
        if not all(key.startswith("KEYS[") for key in _keys_in_script(words)):
            yield f"is a script with an undeclared key ({', '.join(words)})"


def _arguments(code: str, start: int) -> Iterator[str]:
    """The arguments of a call in Lua, as they are written, from behind its bracket on."""
    depth, word = 0, ""
    for position in range(start, len(code)):
        letter = code[position]
        depth += (letter in "([{") - (letter in ")]}")
        if depth < 0 or (letter == "," and not depth):
            yield word.strip()
            word = ""
        else:
            word += letter
        if depth < 0:
            return


def _keys_in_script(words: Sequence[str]) -> Sequence[str]:
    """The arguments that have to be declared keys. What cannot be told is answered by a name that is no key."""
    quoted = [word[1:-1] if word[:1] in ("'", '"') else "" for word in words]
    name = _name([word.encode() for word in quoted])
    if name in STREAM_READS and "STREAMS" in quoted:
        after = quoted.index("STREAMS") + 1
        return words[after : after + (len(words) - after) // 2]
    found = _keys(name, [word.encode() for word in words]) if quoted[0] and name not in STREAM_READS else None
    return ["?"] if found is None else [key.decode() for key in found]


_SEND: dict[type, Callable[..., Any]] = {kind: kind.send_packed_command for kind in (AsyncConnection, SyncConnection)}


@contextlib.contextmanager
def checked() -> Iterator[Checked]:
    """Looks at what every connection of redis-py sends, of its event loop's kind and of the other. One within another
    looks alone."""
    found = Checked()
    before = {kind: kind.__dict__["send_packed_command"] for kind in _SEND}
    for kind, send in _SEND.items():
        setattr(kind, "send_packed_command", _looking(found, send))  # noqa: B010
    try:
        yield found
    finally:
        for kind, send in before.items():
            setattr(kind, "send_packed_command", send)  # noqa: B010


def report_to(folder: Path) -> None:
    """For a program of its own: each violation is a line in a file in `folder` as soon as it is seen, since the program may
    be killed; the first command of all makes the file."""

    class Told(Checked):
        def look_at(self, connection: object, packed: bytes) -> None:
            super().look_at(connection, packed)
            with open(folder / f"{os.getpid()}.txt", "a") as file:
                file.writelines(f"{line}\n" for line in self.violations)
            self.violations.clear()

    found = Told()
    for kind, send in _SEND.items():
        setattr(kind, "send_packed_command", _looking(found, send))  # noqa: B010


@contextlib.contextmanager
def watched_programs(folder: Path) -> Iterator[dict[str, str]]:
    """The environment for programs whose commands are looked at; in the end, what was wrong with them fails the test."""
    folder.mkdir()
    path = [str(Path(__file__).parent / "wire"), *filter(None, [os.environ.get("PYTHONPATH")])]
    yield {"SLOTS_REPORT": str(folder), "PYTHONPATH": os.pathsep.join(path)}
    wrong = sorted({line for report in folder.iterdir() for line in report.read_text().splitlines()})
    assert not wrong, "commands that may not be sent:\n  " + "\n  ".join(wrong)


def _looking(found: Checked, send: Callable[..., Any]) -> Callable[..., Any]:
    def send_packed_command(self: Any, command: bytes | str | Iterable[bytes], *rest: Any, **options: Any) -> Any:
        if not getattr(self, "is_connected", True):
            found.forget(self)
        if isinstance(command, str):
            command = command.encode()
        command = command if isinstance(command, bytes) else list(command)
        found.look_at(self, command if isinstance(command, bytes) else b"".join(command))
        return send(self, command, *rest, **options)

    return send_packed_command
