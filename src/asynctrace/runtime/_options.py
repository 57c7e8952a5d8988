"""What `Tracer(…)` was given: checked where it is given, so that what cannot work is told there and not later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from .._contracts import AttributeValue, Clock, Exporter, IdSource
from .._diagnostics import Diagnostics
from .._errors import ConfigurationError
from ..delivery import DeliveryOptions, NoticeCallback
from ..propagation import W3C, Propagators
from ..spanlog import DropOldest, WhenFull, parse_when_full
from ._environment import Environment
from ._journal import JournalOptions, JournalSettings

if TYPE_CHECKING:
    from ..exporters import RedisExporter

__all__ = [
    "Settings",
    "callbacks_of",
    "check_seam",
    "check_types",
    "dead_letters_in",
    "exporters_of",
    "journal_of",
    "named",
    "named_in",
    "policy_of",
    "propagators_of",
    "seconds",
    "whole",
]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracer was made with, checked: a forked child makes its own parts from it."""

    capacity_bytes: int
    capacity_spans: int | None
    when_full: WhenFull
    exporters: Sequence[tuple[str, Exporter]]
    delivery: DeliveryOptions
    service: str
    resource: Mapping[str, AttributeValue]
    resource_of_environment: Mapping[str, str]
    ids: IdSource | None
    diagnostics: Diagnostics
    clock: Clock
    journal: JournalSettings | None
    callbacks: Mapping[str, NoticeCallback]


def exporters_of(given: Sequence[Exporter] | None, environment: Environment, clock: Clock) -> Sequence[Exporter]:
    if given is None:
        given = [_default_exporter(environment)]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"exporters is a list, exporters=[OTLPExporter()], not {type(given).__name__}")
    for exporter in given:
        if isinstance(exporter, type) or not isinstance(exporter, Exporter):
            raise TypeError(f"an exporter has name, export() and aclose(), see Exporter; {exporter!r:.80} has not")
        _apply_environment(exporter, environment, clock)
    return given


def _default_exporter(environment: Environment) -> Exporter:
    from ..exporters import OTLPExporter

    try:
        return OTLPExporter(encoding=environment.encoding or "protobuf", ca_file=environment.ca_file)  # type: ignore[arg-type]
    except ConfigurationError as error:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_CERTIFICATE: {error}") from None


def _apply_environment(exporter: Exporter, environment: Environment, clock: Clock) -> None:
    """Exporters cannot read the environment: what the user left open is filled in here."""
    from ..exporters import ConsoleExporter, OTLPExporter

    if _is_redis(exporter):
        _apply_stream(exporter, environment)
    elif isinstance(exporter, OTLPExporter):
        settings: dict[str, Any] = {
            "endpoint": environment.endpoint,
            "headers": environment.headers,
            "timeout": environment.timeout,
            "compression": environment.compression,
        }
        for field, value in settings.items():
            try:
                exporter.with_defaults(**{field: value})
            except ConfigurationError as error:
                raise ConfigurationError(f"OTEL_EXPORTER_OTLP_{field.upper()}: {error}") from None
        exporter.with_defaults(**settings, clock=clock)
    elif isinstance(exporter, ConsoleExporter) and environment.no_color:
        exporter.with_defaults(color=False)


def _is_redis(exporter: Exporter) -> TypeGuard[RedisExporter]:
    """Where its module is not loaded, nobody has one."""
    module = sys.modules.get("asynctrace.exporters._redis")
    return module is not None and isinstance(exporter, module.RedisExporter)


def _apply_stream(exporter: RedisExporter, environment: Environment) -> None:
    settings = {
        "url": ("ASYNCTRACE_STREAM", environment.stream),
        "prefix": ("ASYNCTRACE_STREAM_PREFIX", environment.stream_prefix),
        "ca_file": ("ASYNCTRACE_STREAM_CA", environment.stream_ca),
    }
    for field, (variable, value) in settings.items():
        try:
            exporter.with_defaults(**{field: value})
        except ConfigurationError as error:
            raise ConfigurationError(f"{variable}: {error}") from None
    exporter.with_defaults(**{field: value for field, (_, value) in settings.items()})


def named_in(resource: Mapping[str, AttributeValue] | None) -> str | None:
    name = (resource or {}).get("service.name")
    return name if isinstance(name, str) else None


def named(exporters: Sequence[Exporter]) -> list[tuple[str, Exporter]]:
    """Each lane has a name of its own: the second "otlp" is "otlp-2"."""
    named: dict[str, Exporter] = {}
    for exporter in exporters:
        name = base = exporter.name
        number = 2
        while name in named:
            name, number = f"{base}-{number}", number + 1
        named[name] = exporter
    return list(named.items())


def journal_of(journal: object, sync: object, environment: Environment) -> JournalSettings | None:
    """None for `journal=False`, and where tracing is disabled. Raises `TypeError` and `ConfigurationError`."""
    every = None if sync is None else seconds("sync", sync)
    if every is not None and every <= 0:
        raise ConfigurationError("sync is seconds between two syncs to the disk, sync=0.2, or None")
    if journal is False:
        return None
    if journal == "auto" or journal is True:
        return JournalSettings(state=environment.state, is_wanted=journal is True, sync=every)
    if isinstance(journal, JournalOptions):
        state = environment.state if journal.path is None else Path(journal.path)
        return JournalSettings(state=state, is_wanted=True, sync=every, bounds=journal)
    if isinstance(journal, str | PathLike) and str(journal):
        return JournalSettings(state=Path(journal), is_wanted=True, sync=every)
    raise TypeError(f'journal is "auto", True, False, a path or JournalOptions(), not {type(journal).__name__}')


def policy_of(when_full: object, journal: JournalSettings | None, capacity_bytes: int) -> tuple[WhenFull, int]:
    """(the policy of the span log, its capacity): `when_full="journal"` lets it grow on the disk, to the journal's bound."""
    if when_full != "journal":
        return parse_when_full(when_full), capacity_bytes
    if journal is None:
        raise ConfigurationError('when_full="journal" needs a journal: leave journal=False out')
    return DropOldest(), max(capacity_bytes, journal.bounds.capacity_bytes)


def propagators_of(given: Sequence[str] | None, environment: Environment, diagnostics: Diagnostics) -> Propagators:
    """Those of `propagators=`, else of the environment; what it names that nobody knows here is told of, as OpenTelemetry
    says ("Environment variable specification", enum). Raises `ConfigurationError` and `TypeError`."""
    if given is not None:
        return Propagators(given)
    for name in environment.unknown_propagators:
        diagnostics.warning("runtime.unknown_propagator", reason=name, variable="OTEL_PROPAGATORS")
    return W3C if environment.propagators is None else Propagators(environment.propagators)


def callbacks_of(**given: NoticeCallback | None) -> dict[str, NoticeCallback]:
    """Those that are not None. Raises `TypeError` for what cannot be called."""
    for option, callback in given.items():
        if callback is not None and not callable(callback):
            raise TypeError(f"{option} is a function of one argument, a DeliveryNotice, not {type(callback).__name__}")
    return {option: callback for option, callback in given.items() if callback is not None}


def dead_letters_in(state: Path, service: str) -> Callable[[], Path]:
    """Finds the folder of the dead letters of `service`; what it finds is checked like that of journals."""

    def find() -> Path:
        from ..delivery._dead_letters import FOLDER
        from ..spanlog.journal import service_folder

        return service_folder(state, service) / FOLDER

    return find


def check_types(**options: tuple[object, type]) -> None:
    for option, (value, wanted) in options.items():
        if value is not None and not isinstance(value, wanted):
            raise TypeError(f"{option} is a {wanted.__name__}, not {type(value).__name__}")


def check_seam(option: str, value: object, *methods: str) -> None:
    if value is None:
        return
    missing = [name for name in methods if isinstance(value, type) or not callable(getattr(value, name, None))]
    if missing:
        raise TypeError(f"{option} has the methods {', '.join(methods)}; {value!r:.60} has not")


def seconds(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} is a number of seconds, not {type(value).__name__}")
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"{option} is zero or more seconds, not {value!r}")
    return float(value)


def whole(option: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} is a whole number, not {type(value).__name__}")
    if value < least:
        raise ConfigurationError(f"{option} is at least {least}, not {value}")
    return value
