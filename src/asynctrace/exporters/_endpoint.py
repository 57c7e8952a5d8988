"""Where an OTLP exporter sends and how, checked at construction.

Promises: a setting that cannot work raises `ConfigurationError` with the setting's name and a correct one; no
message and no `repr` shows a credential: values of headers, user names, passwords, queries are never quoted.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from .._errors import ConfigurationError

__all__ = [
    "DEFAULT_ENDPOINT",
    "DEFAULT_TIMEOUT",
    "Endpoint",
    "Settings",
    "checked_ca_file",
    "checked_encoding",
    "checked_settings",
    "parse_endpoint",
    "without_secrets",
]

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:4318"
"""The OTLP/HTTP port of a collector on this machine (OpenTelemetry Protocol Exporter, "Endpoint URLs")."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds; the default of `OTEL_EXPORTER_OTLP_TIMEOUT`."""

COMPRESSIONS: Final = ("gzip", "zstd", "none")
ENCODINGS: Final = ("protobuf", "json")

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header name (RFC 9110, 5.6.2)."""

SHORTEST_SECRET: Final = 4
"""Characters; a shorter value of a header ("1", "on") is no secret, and would tear holes into every text."""

_NOT_IN_URLS: Final = re.compile(r"[\x00-\x20\x7f]")

_OURS: Final = {
    "content-type",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "connection",
}
"""Headers that follow from the body and the connection."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checked URL. `authorization` is the header that user name and password in it stood for."""

    url: str
    origin: str
    """Scheme, host and port: what may be shown."""
    authorization: str = ""

    @property
    def is_tls(self) -> bool:
        """Whether the scheme is https."""
        return self.url.startswith("https:")


def parse_endpoint(endpoint: object) -> Endpoint:
    """The URL to post to: `/v1/traces` is appended where there is no path, nothing where there is one."""
    if not isinstance(endpoint, str):
        raise TypeError(f"endpoint must be a str, not {type(endpoint).__name__}")
    if not endpoint or _NOT_IN_URLS.search(endpoint):
        raise _wrong_endpoint("is empty or contains a space or control character")
    parts, port = _split(endpoint)
    if parts.scheme not in ("http", "https"):
        raise _wrong_endpoint("needs the scheme http or https")
    host = parts.hostname
    if not host:
        raise _wrong_endpoint("has no host")
    host = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
    path = parts.path if parts.path not in ("", "/") else "/v1/traces"
    query = f"?{parts.query}" if parts.query else ""
    return Endpoint(url=f"{origin}{path}{query}", origin=origin, authorization=_basic(parts))


def _split(endpoint: str) -> tuple[SplitResult, int | None]:
    """Errors of the standard library quote the URL, so they are not chained."""
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        raise _wrong_endpoint("has a host that is no name and no address") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 or (port is None and parts.netloc.endswith(":")):
        raise _wrong_endpoint("has a port that is not a number from 1 to 65535")
    return parts, port


def _basic(parts: SplitResult) -> str:
    if parts.username is None and parts.password is None:
        return ""
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _wrong_endpoint(what: str) -> ConfigurationError:
    return ConfigurationError(f'endpoint {what}; a correct one: "{DEFAULT_ENDPOINT}"')


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was given, or what stands in for it."""

    endpoint: Endpoint
    headers: dict[str, str]
    timeout: float
    compression: str
    """"gzip", "zstd" or "none"."""


def checked_settings(
    endpoint: object, headers: Mapping[str, str] | None, timeout: float | None, compression: str | None
) -> Settings:
    """All of them, `None` replaced by the defaults of the OpenTelemetry specification."""
    where = parse_endpoint(DEFAULT_ENDPOINT if endpoint is None else endpoint)
    return Settings(
        endpoint=where,
        headers=_checked_headers(headers or {}, where),
        timeout=_checked_timeout(DEFAULT_TIMEOUT if timeout is None else timeout),
        compression=_checked_compression("none" if compression is None else compression),
    )


def _checked_headers(headers: Mapping[str, str], endpoint: Endpoint) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping of str to str, not {type(headers).__name__}")
    checked = {_checked_header_name(name): _checked_header_value(name, headers[name]) for name in headers}
    if endpoint.authorization and "authorization" not in {name.lower() for name in checked}:
        checked["Authorization"] = endpoint.authorization
    return checked


def _checked_header_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a name in headers must be a str, not {type(name).__name__}")
    if not _TOKEN.fullmatch(name):
        raise ConfigurationError('headers has a name that is no HTTP header name; a correct one: {"x-api-key": "…"}')
    if name.lower() in _OURS:
        raise ConfigurationError(f"headers cannot set {name}: it follows from the body and the connection")
    return name


def _checked_header_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"headers[{name!r}] must be a str, not {type(value).__name__}")
    if any(character in value for character in "\r\n\0"):
        raise ConfigurationError(f"headers[{name!r}] contains a newline or a null character")
    if not value.isascii() and any(ord(character) > 0xFF for character in value):
        raise ConfigurationError(f"headers[{name!r}] contains a character outside Latin-1")
    return value


def _checked_timeout(timeout: object) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be seconds as a number, not {type(timeout).__name__}")
    if not math.isfinite(timeout) or timeout <= 0:
        raise ConfigurationError(f"timeout must be more than 0 seconds, not {timeout}; a usual one: 10.0")
    return float(timeout)


def _checked_compression(compression: object) -> str:
    if compression not in COMPRESSIONS:
        raise ConfigurationError('compression must be None, "gzip", "zstd" or "none"')
    if compression == "zstd":
        from importlib.util import find_spec

        if find_spec("zstandard") is None:
            raise ConfigurationError('compression="zstd" needs the package zstandard: pip install "asynctrace[zstd]"')
    return str(compression)


def without_secrets(text: str, settings: Settings) -> str:
    """`text` with every credential of the settings masked: some far sides quote what they were sent."""
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        text = text.replace(secret, "[masked]")
    return text


def _secrets(settings: Settings) -> set[str]:
    """Values of headers, whole and word by word (`Bearer …`), what Basic stands for, and values in the query."""
    found: set[str] = set()
    for value in settings.headers.values():
        found |= {value, *value.split()}
        scheme, _, coded = value.partition(" ")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                pair = base64.b64decode(coded, validate=True).decode("utf-8", "replace")
                found |= {pair, *pair.split(":", 1)}
    query = urlsplit(settings.endpoint.url).query
    found |= {query, *(part.partition("=")[2] for part in query.split("&"))}
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= SHORTEST_SECRET and secret.lower() not in ("basic", "bearer")}


def checked_encoding(encoding: object) -> str:
    """`"protobuf"` or `"json"`."""
    if encoding not in ENCODINGS:
        raise ConfigurationError('encoding must be "protobuf" or "json"')
    return str(encoding)


def checked_ca_file(ca_file: str | os.PathLike[str] | None) -> str | None:
    """The path of a file that exists; what is in it is checked when the first connection is made."""
    if ca_file is None:
        return None
    path = os.fspath(ca_file)
    if not os.path.isfile(path):
        raise ConfigurationError(f"ca_file is no file: {path!r}; it must hold certificates in PEM form")
    return path
