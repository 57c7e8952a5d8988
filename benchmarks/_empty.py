"""The yardstick: what CPython charges for `async with` alone."""

from __future__ import annotations

__all__ = ["Empty", "enter_empty"]


class Empty:
    """An asynchronous context manager that does nothing."""

    __slots__ = ()

    async def __aenter__(self) -> Empty:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None


async def enter_empty(count: int) -> None:
    """Enter and leave an `Empty` `count` times."""
    for _ in range(count):
        async with Empty():
            pass
