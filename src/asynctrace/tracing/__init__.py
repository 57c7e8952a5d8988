"""Where spans are made: runs, components, capture, masking, sampling. Knows no event loop and no exporter."""

from ._bind import bind
from ._borders import extract, inject_at, span_at
from ._capture import Capture
from ._component import ComponentTraceContext
from ._limits import Limits
from ._masking import Masker, MaskOption
from ._recorder import Recorder
from ._run import TraceContext
from ._sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AlwaysOff,
    AlwaysOn,
    ParentBased,
    Probability,
    RateLimit,
    Sampler,
    Sampling,
    SamplingRequest,
    TraceIdRatio,
)
from ._scope import current_component, current_trace, suppress

__all__ = [
    "ALWAYS_OFF",
    "ALWAYS_ON",
    "AlwaysOff",
    "AlwaysOn",
    "Capture",
    "ComponentTraceContext",
    "Limits",
    "MaskOption",
    "Masker",
    "ParentBased",
    "Probability",
    "RateLimit",
    "Recorder",
    "Sampler",
    "Sampling",
    "SamplingRequest",
    "TraceContext",
    "TraceIdRatio",
    "bind",
    "current_component",
    "current_trace",
    "extract",
    "inject_at",
    "span_at",
    "suppress",
]
