"""A program's own log lines and its traces, each findable from the other.

    structlog_processor()   adds `trace_id` and `span_id` to structlog's events
    LoggingFilter           the same for records of the standard library's `logging`
    capture=LEVEL, LoggingHandler   lines as logs of the current component

Promises:

1. A line is never lost, changed or held up for the sake of tracing: what goes wrong here is contained.
2. asynctrace's own diagnostics are no logs of the traced program: they are handed on as they are, and never captured.
3. Where nothing is current, or nothing is traced, nothing is captured.

Source: OpenTelemetry specification, "Trace Context in non-OTLP Log Formats": ids as lower-case hex.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from .._errors import MisuseError
from ..runtime import Tracer
from ..tracing import ComponentTraceContext, TraceContext, current_component, current_trace
from ..tracing._capture_exception import exception_message, exception_type, stack_trace
from ._failures import checked_tracer

__all__ = ["LoggingFilter", "LoggingHandler", "structlog_processor"]

EventDict = MutableMapping[str, Any]
Processor = Callable[[Any, str, EventDict], EventDict]
Place = ComponentTraceContext | TraceContext | None

_OURS = "asynctrace"
"""The logger of our own diagnostics."""
_NO_FIELDS = frozenset(("event", "exc_info", "trace_id", "span_id", "_record", "_from_structlog"))
"""Keys of an event that the log says in its own way, and structlog's notes to itself in a `ProcessorFormatter`."""
_LEVELS = {"exception": logging.ERROR, "warn": logging.WARNING, "fatal": logging.CRITICAL}
"""structlog's methods that are not named like a level."""


def structlog_processor(tracer: Tracer | None = None, *, capture: str | int | None = None) -> Processor:
    """A processor that adds `trace_id` (32 hex digits) and `span_id` (16) of where the event is logged; put it before the
    renderer:

        structlog.configure(processors=[structlog_processor(), structlog.processors.JSONRenderer()])

    An event that has these keys keeps its own. `tracer` is the one whose spans are meant, None whichever is current.
    `capture`: events of this level and above ("info", `logging.INFO`) become logs of the current component, with their
    fields and the exception if there is one. Raises `MisuseError` for what is no tracer and no level.
    """
    checked_tracer(tracer, "structlog_processor(tracer)")
    least = None if capture is None else _level(capture)

    def add_ids(logger: Any, method_name: str, event_dict: EventDict) -> EventDict:
        try:
            place = _here(tracer)
            if place is not None and place.trace_id:
                event_dict.setdefault("trace_id", place.trace_id)
                event_dict.setdefault("span_id", place.span_id)
                if least is not None and _level_of(method_name) >= least and event_dict.get("logger") != _OURS:
                    _capture_event(place, method_name, event_dict)
        except Exception:  # noqa: BLE001  (a line is worth more than its ids)
            return event_dict
        return event_dict

    return add_ids


class LoggingFilter(logging.Filter):
    """Gives each record `trace_id` (32 hex digits) and `span_id` (16), both `""` where nothing is current, for a format like
    `"%(message)s trace_id=%(trace_id)s"`. Add it to a handler; it lets every record pass. Raises `MisuseError` for what is no
    tracer."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        super().__init__()
        self._tracer = checked_tracer(tracer, "LoggingFilter(tracer)")

    def filter(self, record: logging.LogRecord) -> bool:
        """Set both, unless the record has them."""
        try:
            place = _here(self._tracer)
            ids = ("", "") if place is None else (place.trace_id, place.span_id)
        except Exception:  # noqa: BLE001  (a line is worth more than its ids)
            ids = ("", "")
        for name, value in zip(("trace_id", "span_id"), ids, strict=True):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class LoggingHandler(logging.Handler):
    """Adds records of `level` and above to the current component as logs: the message, with `level`, `logger`, and the
    exception if there is one. Raises `MisuseError` for what is no tracer."""

    def __init__(self, level: str | int = logging.INFO, tracer: Tracer | None = None) -> None:
        super().__init__(_level(level))
        self._tracer = checked_tracer(tracer, 'LoggingHandler("info", tracer)')

    def emit(self, record: logging.LogRecord) -> None:
        """Add it where there is a component, or a run. Errors are contained."""
        if record.name.partition(".")[0] == _OURS:
            return
        try:
            place = _here(self._tracer)
            if place is not None:
                place.add_log(record.getMessage(), **self._fields(record))
        except Exception:  # noqa: BLE001  (as `logging` does: `handleError()` says it where the program wants it said)
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        return {"level": record.levelname.lower(), "logger": record.name} | _exception_fields(record.exc_info)


def _here(tracer: Tracer | None) -> Place:
    if tracer is None:
        return current_component() or current_trace()
    return tracer.current_component() or tracer.current_trace()


def _exception_fields(exc_info: object) -> dict[str, object]:
    """Of what both libraries take for `exc_info`: an exception, a triple, or true for the current exception."""
    if isinstance(exc_info, BaseException):
        error: object = exc_info
    else:
        error = exc_info[1] if isinstance(exc_info, tuple) and len(exc_info) == 3 else exc_info and sys.exception()
    if not isinstance(error, BaseException):
        return {}
    return {
        "exception.type": exception_type(error),
        "exception.message": exception_message(error),
        "exception.stacktrace": stack_trace(error),
    }


def _capture_event(
    place: ComponentTraceContext | TraceContext, method_name: str, event_dict: Mapping[str, Any]
) -> None:
    fields = {key: value for key, value in event_dict.items() if key not in _NO_FIELDS}
    fields.setdefault("level", method_name)
    fields |= _exception_fields(event_dict.get("exc_info"))
    place.add_log(str(event_dict.get("event", "")), **fields)


def _level_of(method_name: str) -> int:
    """The level of a structlog method; what is not known counts as the highest, so that nothing is left out by mistake."""
    known = logging.getLevelNamesMapping().get(method_name.upper())
    return known if known is not None else _LEVELS.get(method_name, logging.CRITICAL)


def _level(level: object) -> int:
    known = logging.getLevelNamesMapping().get(level.upper()) if isinstance(level, str) else level
    if isinstance(known, bool) or not isinstance(known, int):
        raise MisuseError(f'a level is "info", "warning", … or a number like logging.INFO, not {level!r:.40}')
    return known
