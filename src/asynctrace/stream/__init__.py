"""What lies between those who receive spans and those who store them, on more than one machine.

    _stream       the protocol and its values       _redis        the stream in Redis
    _message      one entry: one OTLP request       _search       which shards have a batch
    _slots        the names of the keys             _scripts      what is done to a shard
    _address      where it is, as a user writes it  _router       which server, and patience
    _topology     what kind of Redis it is          _lane         calls to one server
    _spill        on disk, while it is away         _connections  how it is reached
    _spill_file   the form of those files

Nothing here is loaded by `import asynctrace`; redis is loaded by the first connection.
"""

from __future__ import annotations

from ._address import Address, parse_address
from ._message import MESSAGE_VERSION, Message
from ._redis import RedisStream
from ._spill import LocalSpill, SpillStatistics
from ._stream import Claim, Delivery, Depth, Stream, StreamStatistics
from ._topology import Kind, Topology

__all__ = [
    "MESSAGE_VERSION",
    "Address",
    "Claim",
    "Delivery",
    "Depth",
    "Kind",
    "LocalSpill",
    "Message",
    "RedisStream",
    "SpillStatistics",
    "Stream",
    "StreamStatistics",
    "Topology",
    "parse_address",
]
