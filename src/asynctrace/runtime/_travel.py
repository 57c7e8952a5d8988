"""A tracer that goes to another process with what was bound to it: its settings, pickled one by one.

    forked child                  it is there already
    a process that made one of    that one is meant: its program configures itself
    the same service
    any other                     made there, from the settings

What cannot be pickled is told by name, where it is missed: in the process that would have to make a tracer without it.

A task that ends there waits until what it traced is delivered, but not for a far side that is away if there is a journal:
what is in that outlives the process.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import ConfigurationError, DeliveryError, DeliveryTimeout
from . import _registry

if TYPE_CHECKING:
    from ._tracer import Tracer

__all__ = ["Absent", "Described", "check_travels", "deliver_task", "describe", "tracer_here"]

_OF_ONE_PROCESS = ("ids", "clock")
"""Settings that stay: two processes that draw the same ids would mix up their spans."""

_LOOK_AGAIN = 0.25
"""Seconds between two looks whether a far side that does not answer is worth waiting for."""


class Described(NamedTuple):
    """A tracer, for another process."""

    key: str
    """Of its making: a forked child's has the same."""
    service: str
    is_default: bool
    parent: str
    """`JournalMeta.parent` for the tracer that goes on."""
    settings: dict[str, bytes]
    """Arguments of `Tracer`, each pickled."""
    missing: str
    """What cannot be pickled, and why, in one sentence; or empty."""


def describe(tracer: Tracer) -> Described:
    """What `tracer_here()` needs."""
    tracer._has_children = True
    settings, missing = tracer._pickled or _pickled(tracer._given)
    tracer._pickled = settings, missing
    return Described(tracer._key, tracer.service, tracer._is_default, tracer._line_of_descent, settings, missing)


def check_travels(tracer: Tracer) -> None:
    """Raises `ConfigurationError`, naming the setting, for a tracer that cannot be made in another process."""
    if missing := describe(tracer).missing:
        raise ConfigurationError(missing)


def _pickled(given: Mapping[str, Any]) -> tuple[dict[str, bytes], str]:
    settings, missing = {}, ""
    for name, value in given.items():
        try:
            if name not in _OF_ONE_PROCESS:
                settings[name] = pickle.dumps(value)
        except Exception as error:  # noqa: BLE001  (reducers are anybody's code)
            missing = missing or f"{_culprit(name, value)} cannot be pickled for another process: {error}"
    return settings, missing


def _culprit(name: str, value: object) -> str:
    """The part of a setting that cannot be pickled: `exporters[0]._client`."""
    parts: Mapping[str, object] = {}
    if isinstance(value, list | tuple):
        parts = {f"{name}[{number}]": part for number, part in enumerate(value)}
    elif isinstance(value, dict):
        parts = {f"{name}[{key!r}]": part for key, part in value.items()}
    elif hasattr(value, "__dict__") and not isinstance(value, type | Callable):
        parts = {f"{name}.{field}": part for field, part in vars(value).items()}
    for part_name, part in parts.items():
        try:
            pickle.dumps(part)
        except Exception:  # noqa: BLE001  (as above)
            return _culprit(part_name, part)
    return name


def tracer_here(described: Described) -> Tracer | Absent:
    """The tracer of this process that goes on for the described one."""
    described = Described(*described)
    with _registry._lock:
        found = _same(described)
        if found is not None:
            _adopt(found, described)
            return found
        if described.missing:
            return Absent(described.missing)
        return _made(described)


def _same(described: Described) -> Tracer | None:
    alive = [tracer for tracer in _registry.alive() if not tracer._is_closed]
    by_key = [tracer for tracer in alive if tracer._key == described.key]
    of_service = [tracer for tracer in alive if tracer.service == described.service]
    of_service.sort(key=lambda tracer: not tracer._is_default)
    return next(iter(by_key + of_service), None)


def _adopt(tracer: Tracer, described: Described) -> None:
    """One that the program of a worker made is a child too, unless it came from somewhere else or is the described one."""
    if not tracer._parent_log and tracer._log_id not in described.parent:
        tracer._parent_log = described.parent


def _made(described: Described) -> Tracer | Absent:
    from ._tracer import Tracer

    given = {}
    for name, pickled in described.settings.items():
        try:
            given[name] = pickle.loads(pickled)  # noqa: S301  (it came by the same way as the function that will be called)
        except Exception as error:  # noqa: BLE001  (whatever the program's own classes do here)
            return Absent(f"{name} cannot be made in this process: {error!r}")
    tracer = Tracer(**given)
    tracer._key = described.key
    tracer._parent_log = described.parent
    if described.is_default and _registry._default is None:
        _registry.set_default(tracer)
    return tracer


class Absent:
    """In place of a tracer that cannot be made here: says so when the bound function is called."""

    def __init__(self, why: str) -> None:
        self._why = why

    def _require(self) -> None:
        raise ConfigurationError(self._why)


def deliver_task(tracer: Tracer) -> None:
    """Wait until what `tracer` has recorded is delivered, for at most its `shutdown_timeout`. Never raises."""
    deadline = monotonic() + tracer._shutdown_timeout
    why = "the far side is away"
    while not _waits_in_vain(tracer):
        try:
            tracer.flush_sync(max(0.0, min(_LOOK_AGAIN, deadline - monotonic())))
        except DeliveryTimeout as error:
            if monotonic() < deadline:
                continue
            why = str(error)
        except DeliveryError as error:
            why = str(error)
        else:
            return
        break
    tracer._diagnostics.warning("runtime.task_not_delivered", why=why[:300])


def _waits_in_vain(tracer: Tracer) -> bool:
    if tracer._journaling is None or tracer._journaling.journal is None:
        return False
    return any(lane.state in ("backoff", "blocked") for lane in tracer._delivery.lane_statistics().values())
