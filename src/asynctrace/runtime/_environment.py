"""The one file that reads `os.environ`: the standard `OTEL_*` variables. Explicit arguments win over them.

Sources: OpenTelemetry specification, "Environment variable specification" and "OTLP exporter". A variable that is empty
counts as not set. A value that cannot work is one `ConfigurationError` that names the variable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import msgspec

from .._errors import ConfigurationError
from ..propagation import KNOWN_PROPAGATORS
from ..tracing import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatio

__all__ = ["Environment", "copy_of_environment", "read_environment", "state_directory"]

T = TypeVar("T")


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment says; None where it says nothing."""

    is_disabled: bool = False
    service: str | None = None
    resource: dict[str, str] = {}
    endpoint: str | None = None
    headers: dict[str, str] | None = None
    timeout: float | None = None
    """Seconds; the variable holds milliseconds."""
    compression: str | None = None
    encoding: str | None = None
    ca_file: str | None = None
    stream: str | None = None
    """The URL of a stream, its prefix, and what its servers' certificates are checked with."""
    stream_prefix: str | None = None
    stream_ca: str | None = None
    sampler: Sampler | None = None
    propagators: tuple[str, ...] | None = None
    unknown_propagators: tuple[str, ...] = ()
    no_color: bool = False
    state: Path = Path()
    """The state directory: see `state_directory()`."""


def copy_of_environment() -> dict[str, str]:
    """For a program that is about to be started."""
    return dict(os.environ)


def read_environment() -> Environment:
    """Read it now. Raises `ConfigurationError`."""
    resource = _pairs("OTEL_RESOURCE_ATTRIBUTES") or {}
    known, unknown = _propagators()
    return Environment(
        is_disabled=_text("OTEL_SDK_DISABLED", "false").lower() == "true",
        service=_text("OTEL_SERVICE_NAME") or resource.get("service.name"),
        resource=resource,
        endpoint=_endpoint(),
        headers=_pairs(_otlp("HEADERS")),
        timeout=_milliseconds(_otlp("TIMEOUT")),
        compression=_one_of(_otlp("COMPRESSION"), ("gzip", "zstd", "none")),
        encoding=_protocol(_otlp("PROTOCOL")),
        ca_file=_text(_otlp("CERTIFICATE")) or None,
        stream=_text("ASYNCTRACE_STREAM") or None,
        stream_prefix=_text("ASYNCTRACE_STREAM_PREFIX") or None,
        stream_ca=_text("ASYNCTRACE_STREAM_CA") or None,
        sampler=_sampler(),
        propagators=known or None,
        unknown_propagators=unknown,
        no_color=bool(_text("NO_COLOR")),
        state=state_directory(os.environ),
    )


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where journals and dead letters are kept: `ASYNCTRACE_STATE_DIR`, else `asynctrace` in `XDG_STATE_HOME` (XDG Base
    Directory Specification 0.8; a relative path there counts as not set), else in `~/.local/state`."""
    own = environ.get("ASYNCTRACE_STATE_DIR", "").strip()
    if own:
        return Path(own)
    home = environ.get("XDG_STATE_HOME", "").strip()
    if home.startswith("/"):
        return Path(home) / "asynctrace"
    return Path(environ.get("HOME", "").strip() or "/") / ".local" / "state" / "asynctrace"


def _text(variable: str, default: str = "") -> str:
    return os.environ.get(variable, "").strip() or default


def _otlp(setting: str) -> str:
    """The variable for traces where it is set, else the one for all signals."""
    specific = f"OTEL_EXPORTER_OTLP_TRACES_{setting}"
    return specific if _text(specific) else f"OTEL_EXPORTER_OTLP_{setting}"


def _endpoint() -> str | None:
    specific = _text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if specific:
        return _checked("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", specific, _url)
    base = _text("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{_checked('OTEL_EXPORTER_OTLP_ENDPOINT', base, _url).rstrip('/')}/v1/traces" if base else None


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")) or not text.partition("://")[2].strip("/"):
        raise ValueError("a URL like http://127.0.0.1:4318")
    return text


def _pairs(variable: str) -> dict[str, str] | None:
    """`key=value,key=value`, values percent-encoded (W3C Baggage, as the specification asks)."""
    text = _text(variable)
    return _checked(variable, text, _parse_pairs, secret=True) if text else None


def _parse_pairs(text: str) -> dict[str, str]:
    pairs = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = part.partition("=")
        if not separator or not key.strip():
            raise ValueError("key=value pairs with commas between them")
        pairs[unquote(key.strip())] = unquote(value.strip())
    return pairs


def _milliseconds(variable: str) -> float | None:
    text = _text(variable)
    return _checked(variable, text, _parse_milliseconds) if text else None


def _parse_milliseconds(text: str) -> float:
    if not text.isdecimal() or not int(text):
        raise ValueError("a whole number of milliseconds, 10000 for ten seconds")
    return int(text) / 1000


def _one_of(variable: str, allowed: tuple[str, ...]) -> str | None:
    text = _text(variable).lower()
    if text and text not in allowed:
        raise ConfigurationError(f"{variable} is one of {', '.join(allowed)}, not {text!r:.80}")
    return text or None


def _protocol(variable: str) -> str | None:
    text = _text(variable).lower()
    if text in ("", "http/protobuf", "grpc"):
        # gRPC is the default of some images and is not spoken here; the same collectors speak HTTP.
        return "protobuf" if text == "http/protobuf" else None
    if text == "http/json":
        return "json"
    raise ConfigurationError(f"{variable} is http/protobuf or http/json, not {text!r:.80}")


def _propagators() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(those that are known here, the others)."""
    texts = (part.strip().lower() for part in _text("OTEL_PROPAGATORS").split(","))
    names = tuple(dict.fromkeys(filter(None, texts)))
    known = tuple(name for name in names if name in KNOWN_PROPAGATORS)
    return known, tuple(name for name in names if name not in known)


def _sampler() -> Sampler | None:
    name = _text("OTEL_TRACES_SAMPLER").lower()
    if not name:
        return None
    is_parent_based = name.startswith("parentbased_")
    root = _checked("OTEL_TRACES_SAMPLER", name.removeprefix("parentbased_"), _root_sampler)
    return ParentBased(root) if is_parent_based else root


def _root_sampler(name: str) -> Sampler:
    if name == "always_on":
        return ALWAYS_ON
    if name == "always_off":
        return ALWAYS_OFF
    if name == "traceidratio":
        return TraceIdRatio(_checked("OTEL_TRACES_SAMPLER_ARG", _text("OTEL_TRACES_SAMPLER_ARG", "1"), _ratio))
    raise ValueError("always_on, always_off, traceidratio, or one of them after parentbased_")


def _ratio(text: str) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError("a number from 0 to 1")
    return ratio


def _checked(variable: str, text: str, parse: Callable[[str], T], *, secret: bool = False) -> T:
    try:
        return parse(text)
    except ConfigurationError:
        raise  # it names its own variable
    except ValueError as error:
        shown = "what it holds" if secret else repr(text[:80])
        raise ConfigurationError(f"{variable} is {error}, not {shown}") from None
