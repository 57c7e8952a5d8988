"""Attributes that many spans have in common, encoded once for all of them: what a server says of each request of a client.

None of them may be a key that asynctrace writes itself (`_extras.OURS`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Final

from ._component import ComponentTraceContext

if TYPE_CHECKING:
    from ._recorder import Recorder

__all__ = ["PreparedAttributes"]

_MOST_KEPT: Final = 512
"""Sets of attributes. Beyond them all are forgotten, which costs less than to know which was needed last."""


class PreparedAttributes:
    """For the spans of one recorder. Keys come from outside: keep long ones out."""

    __slots__ = ("_kept", "recorder")

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._kept: dict[Hashable, dict[str, bytes]] = {}

    def set(self, span: ComponentTraceContext, key: Hashable, attributes: Callable[[], Mapping[str, object]]) -> None:
        """`span.set_attributes(attributes())`, where `key` says that they are the same as before."""
        kept = self._kept.get(key) or self._keep(key, attributes())
        if len(kept) + len(span._attributes) <= self.recorder._attribute_limit:
            span._attributes.update(kept)
        else:
            span.set_attributes(attributes())

    def _keep(self, key: Hashable, attributes: Mapping[str, object]) -> dict[str, bytes]:
        template: ComponentTraceContext = self.recorder._blank(ComponentTraceContext, self.recorder._nothing._shape)
        template.set_attributes(attributes)
        if self.recorder._encoder.remembers:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = template._attributes
        return template._attributes
