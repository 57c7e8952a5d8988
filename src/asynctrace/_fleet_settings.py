"""Settings of `asynctrace ingest`, `worker` and `view`: each is a flag and a variable of the environment; the flag wins.

Promises: a value that cannot work is a `ConfigurationError` of one line that names the flag or the variable it came from;
help texts and errors never show a secret.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from ._errors import ConfigurationError
from ._quantities import NEVER, read_age, read_size

__all__ = ["SETTINGS", "Setting", "Settings", "add_settings"]

Value = TypeVar("Value")


class Setting(NamedTuple):
    """One of them."""

    flag: str
    variable: str
    metavar: str
    help: str
    default: str = ""


HOST: Final = Setting("--host", "ASYNCTRACE_HOST", "HOST", "address to bind", "127.0.0.1")
PORT: Final = Setting("--port", "ASYNCTRACE_PORT", "PORT", "port to bind; 0 picks a free one", "4318")
WORKER_PORT: Final = PORT._replace(default="0")
TOKEN: Final = Setting("--token", "ASYNCTRACE_TOKEN", "TOKEN", "secret that whoever asks must present")
STREAM: Final = Setting("--stream", "ASYNCTRACE_STREAM", "URL", "where messages wait: redis://… or rediss://…")
PREFIX: Final = Setting("--stream-prefix", "ASYNCTRACE_STREAM_PREFIX", "TEXT", "beginning of its keys", "at")
SHARDS: Final = Setting("--stream-shards", "ASYNCTRACE_STREAM_SHARDS", "N", "how many streams it is divided into", "64")
STREAM_CA: Final = Setting(
    "--stream-ca", "ASYNCTRACE_STREAM_CA", "FILE", "certificates in PEM form that its servers are checked with"
)
STREAM_PASSWORD_FILE: Final = Setting(
    "--stream-password-file",
    "ASYNCTRACE_STREAM_PASSWORD_FILE",
    "FILE",
    "its password, read anew for each connection: it may change while this runs",
)
STREAM_TIMEOUT: Final = Setting(
    "--stream-timeout",
    "ASYNCTRACE_STREAM_TIMEOUT",
    "SECONDS",
    "after which a stream that does not answer is away",
    "10",
)
LEASE: Final = Setting(
    "--lease", "ASYNCTRACE_LEASE", "SECONDS", "after which a batch of a worker that is silent is another's", "30"
)
STREAM_WAIT: Final = Setting(
    "--stream-wait", "ASYNCTRACE_STREAM_WAIT", "N", "replicas that confirm each message; default: 1 where there are any"
)
STREAM_SIZE: Final = Setting(
    "--stream-size", "ASYNCTRACE_STREAM_SIZE", "SIZE", "how much may wait in it; who sends more is told to wait", "1GB"
)
STORE: Final = Setting(
    "--store",
    "ASYNCTRACE_STORE",
    "PLACE",
    "where spans rest: clickhouse://…, clickhouses://…, or a directory",
)
STORE_CA: Final = Setting(
    "--store-ca", "ASYNCTRACE_STORE_CA", "FILE", "certificates in PEM form that its server is checked with"
)
SPILL: Final = Setting(
    "--spill",
    "ASYNCTRACE_SPILL",
    "DIR",
    "where requests go while the stream is away; default: nowhere, they are refused",
)
SPILL_SIZE: Final = Setting("--spill-size", "ASYNCTRACE_SPILL_SIZE", "SIZE", "at most so much of them", "1GB")
NAME: Final = Setting(
    "--name", "ASYNCTRACE_WORKER", "NAME", "of this worker, unlike all others; default: host and process"
)
AT_ONCE: Final = Setting("--at-once", "ASYNCTRACE_AT_ONCE", "N", "batches under way at once", "2")
MAX_SIZE: Final = Setting(
    "--max-size", "ASYNCTRACE_MAX_SIZE", "SIZE", "how much the store keeps, as 500GB; the oldest goes first", NEVER
)
MAX_AGE: Final = Setting("--max-age", "ASYNCTRACE_MAX_AGE", "AGE", "for how long it keeps traces, as 12h or 30d", NEVER)

_ADDRESS: Final = (HOST, PORT, TOKEN)
_STREAM: Final = (STREAM, PREFIX, SHARDS, STREAM_CA, STREAM_PASSWORD_FILE, STREAM_TIMEOUT)
SETTINGS: Final = {
    "ingest": (*_STREAM, STREAM_WAIT, STREAM_SIZE, SPILL, SPILL_SIZE, *_ADDRESS),
    "worker": (*_STREAM, STORE, STORE_CA, NAME, AT_ONCE, LEASE, MAX_SIZE, MAX_AGE, HOST, WORKER_PORT, TOKEN),
    "view": (STORE, STORE_CA, *_ADDRESS),
}


def add_settings(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    """Add their flags."""
    for each in settings:
        default = f"; default: {each.default}" if each.default else ""
        parser.add_argument(each.flag, metavar=each.metavar, help=f"{each.help}{default} (${each.variable})")


class Settings:
    """What the flags say, and where they say nothing the environment."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = vars(options)

    def text(self, setting: Setting) -> str:
        """As it was given; its default, or nothing, where it was not."""
        return self._given(setting)[0] or setting.default

    def needed(self, setting: Setting) -> str:
        """As `text()`, but it has to be there."""
        if text := self.text(setting):
            return text
        raise ConfigurationError(f"{setting.flag} or {setting.variable} is missing: {setting.help}")

    def number(self, setting: Setting, least: int, most: int) -> int:
        """A whole number."""

        def read(text: str) -> int:
            if not text.isascii() or not text.isdigit() or not least <= int(text[:18]) <= most:
                raise ValueError(f"give a number from {least} to {most}, not {text!r}")
            return int(text)

        return self._read(setting, read)

    def size(self, setting: Setting) -> int | None:
        """Bytes; None for none."""
        return self._read(setting, read_size)

    def age(self, setting: Setting) -> int | None:
        """Seconds; None for none."""
        return self._read(setting, read_age)

    def file(self, setting: Setting) -> Path | None:
        """A file that can be read; None where none is named."""

        def read(text: str) -> Path | None:
            if text and not (os.path.isfile(text) and os.access(text, os.R_OK)):
                raise ValueError(f"give a file that can be read, not {text!r}")
            return Path(text) if text else None

        return self._read(setting, read)

    def _given(self, setting: Setting) -> tuple[str, str]:
        """The text, and where it is from."""
        said = self._options.get(setting.flag.lstrip("-").replace("-", "_"))
        return (said, setting.flag) if said is not None else (os.environ.get(setting.variable, ""), setting.variable)

    def _read(self, setting: Setting, read: Callable[[str], Value]) -> Value:
        text, source = self._given(setting)
        try:
            return read(text or setting.default)
        except ValueError as error:
            raise ConfigurationError(f"{source}: {error}") from None
