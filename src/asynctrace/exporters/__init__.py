"""Where spans leave: to an OTLP endpoint, a stream in Redis, a console, a file, memory.

Each exporter hands over a batch when its lane says so, and answers what became of it. None of them retries,
reads the environment or looks at the current component. The modules load when a name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._console import ConsoleExporter
    from ._file import FileExporter
    from ._memory import KeptBatch, MemoryExporter
    from ._otlp import OTLPExporter, OTLPStatistics
    from ._redis import RedisExporter, RedisStatistics

__all__ = [
    "OTLPExporter",
    "OTLPStatistics",
    "RedisExporter",
    "RedisStatistics",
    "ConsoleExporter",
    "FileExporter",
    "MemoryExporter",
    "KeptBatch",
]

_HOMES = {
    "OTLPExporter": "_otlp",
    "OTLPStatistics": "_otlp",
    "RedisExporter": "_redis",
    "RedisStatistics": "_redis",
    "ConsoleExporter": "_console",
    "FileExporter": "_file",
    "MemoryExporter": "_memory",
    "KeptBatch": "_memory",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
