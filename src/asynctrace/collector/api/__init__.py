from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._api import Api

__all__ = ["Api"]


def __getattr__(name: str) -> Any:
    if name == "Api":  # loads the web server; commands read with the rest
        from ._api import Api

        return Api
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
