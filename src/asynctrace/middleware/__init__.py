"""Doors for frameworks: what a program of theirs says once, so that its spans are made and arrive.

Nothing here loads a framework: each door speaks the framework's protocol. The modules load when a name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._lifespan import lifespan

__all__ = ["lifespan"]

_HOMES = {"lifespan": "_lifespan"}


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
