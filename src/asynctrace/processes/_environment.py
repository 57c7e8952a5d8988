"""Environment variables of a program that goes on with the trace."""

from __future__ import annotations

from collections.abc import Mapping

from ..runtime import inject
from ..runtime._environment import copy_of_environment

__all__ = ["environment"]

_NAMES = frozenset(
    ("TRACEPARENT", "TRACESTATE", "BAGGAGE", "B3", "X_B3_TRACEID", "X_B3_SPANID", "X_B3_SAMPLED", "X_B3_FLAGS")
)


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `base`, by default of this process's environment, with `TRACEPARENT`, `TRACESTATE` and `BAGGAGE`, or what
    else the tracer's propagators write, for where this code is; without them where nothing is current, so that no program
    takes over what this one was given.

        subprocess.run([…], env=processes.environment())

    The program goes on with `trace("…", context=asynctrace.extract(os.environ))`. Source: OpenTelemetry specification,
    "Environment Variables as Context Propagation Carriers".
    """
    variables = copy_of_environment() if base is None else dict(base)
    variables = {name: value for name, value in variables.items() if name not in _NAMES}
    headers: dict[str, str] = {}
    inject(headers)
    return {**variables, **{name.upper().replace("-", "_"): value for name, value in headers.items()}}
