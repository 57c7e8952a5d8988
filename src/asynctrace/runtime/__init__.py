"""Assembly: the tracer's life, event loops, the environment, the exit. The only folder that touches the outside."""

from ._functions import (
    add_log,
    bind,
    end_tracers,
    extract,
    flush,
    flush_sync,
    inject,
    receipt,
    set_outputs,
    start_tracers,
    statistics,
    trace,
    trace_component,
    trace_stream,
)
from ._journal import JournalOptions
from ._registry import configure, default_tracer, set_default, shutdown, shutdown_sync
from ._signals import SignalHandlers, install_signal_handlers
from ._tracer import Statistics, Tracer

__all__ = [
    "JournalOptions",
    "SignalHandlers",
    "Statistics",
    "Tracer",
    "add_log",
    "bind",
    "configure",
    "default_tracer",
    "end_tracers",
    "extract",
    "flush",
    "flush_sync",
    "inject",
    "install_signal_handlers",
    "receipt",
    "set_default",
    "set_outputs",
    "shutdown",
    "shutdown_sync",
    "start_tracers",
    "statistics",
    "trace",
    "trace_component",
    "trace_stream",
]
