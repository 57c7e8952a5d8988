"""Whether a tracer keeps a journal, and where: chosen when the tracer is made, opened at its first span.

    journal="auto"     in the state directory, where its file system and its owner allow; else memory, told in one line
    journal=True       the same, but what forbids it is an error line
    journal=path       the same below `path`, which takes the place of the state directory
    journal=False      memory

`Journaling` is one tracer's: it stands in for the slab of open spans until the first of them opens the journal.

Nothing here raises into the traced program: what keeps a journal from being opened is told, and the spans are kept in
memory.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .._contracts import OpenSpanNotes
from .._diagnostics import Diagnostics
from .._errors import ConfigurationError, JournalError
from ..delivery import Delivery, Origin
from ..exporters._aside import loading, run_aside
from ..spanlog import SpanLog

if TYPE_CHECKING:
    from ..spanlog.journal import Journal, JournalLog
    from ..spanlog.journal._descendants import Descendants, Held
    from ._recovery import Recovery

__all__ = ["JournalOptions", "Journaling", "JournalSettings", "boot_id", "make_log", "open_journal"]


_SMALLEST_CAPACITY = 4 * 1024 * 1024
"""Bytes. A journal has 2 MiB before its first span."""


class JournalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A journal with bounds of its own: `Tracer(journal=JournalOptions(max_age=7 * 86400.0))`.

    Raises `ConfigurationError`, naming the field, for a value that cannot work.
    """

    path: str | os.PathLike[str] | None = None
    """Takes the place of the state directory. None is that one, as with `journal=True`."""
    capacity_bytes: int = 268435456
    """Bytes of all journals of one service on the disk; the oldest that no process holds go first."""
    max_age: float = 86400.0
    """Seconds after which what nobody could deliver goes."""

    def __post_init__(self) -> None:
        size, age = self.capacity_bytes, self.max_age
        if isinstance(size, bool) or not isinstance(size, int) or size < _SMALLEST_CAPACITY:
            raise ConfigurationError(f"JournalOptions(capacity_bytes=…) is {_SMALLEST_CAPACITY} or more, not {size!r}")
        if isinstance(age, bool) or not isinstance(age, int | float) or not 0 < age < float("inf"):
            raise ConfigurationError(f"JournalOptions(max_age=…) is a number of seconds, not {age!r}")
        if self.path is not None and not isinstance(self.path, str | os.PathLike):
            raise ConfigurationError(f"JournalOptions(path=…) is a path or None, not {self.path!r}")


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a tracer was given of this, and what the environment says."""

    state: Path
    """The state directory."""
    is_wanted: bool
    """Asked for by name: not having one is an error."""
    sync: float | None
    """Seconds between two syncs to the disk; None leaves that to the system."""
    bounds: JournalOptions = JournalOptions()


class Journaling:
    """The journal of one tracer in one process: opened by `open()`, at the first span or at `start()`; left by `end()`.

    `use` is told what notes open spans from then on: the journal's slab, or None. `parent` is asked for `JournalMeta.parent`
    when the journal is opened.
    """

    def __init__(
        self,
        settings: JournalSettings,
        *,
        service: str,
        origin: Origin,
        log: JournalLog,
        delivery: Delivery,
        recovery: Recovery,
        lanes: Sequence[str],
        time_ns: Callable[[], int],
        diagnostics: Diagnostics,
        use: Callable[[OpenSpanNotes | None], None],
        parent: Callable[[], str],
    ) -> None:
        self.free: list[int] = []  # no place: the first span comes to `enter()`
        self.memory = self.words = memoryview(b"")
        self.states: tuple[int, ...] = ()
        self.choice = "not opened yet"
        """Which way spans are kept, and why."""
        self.journal: Journal | None = None
        self._settings = settings
        self._service = service
        self._origin = origin
        self._log = log
        self._delivery = delivery
        self._recovery = recovery
        self._lanes = lanes
        self._time_ns = time_ns
        self._diagnostics = diagnostics
        self._use = use
        self._parent = parent
        self._descendants: Descendants | None = None
        self._lock = threading.RLock()  # re-entrant, with a flag: a signal handler may open a span in the middle
        self._is_opening = self._is_open = False

    def enter(self, body: bytes) -> int:
        """The first span: open the journal, and note the span there."""
        self.open()
        return -1 if self.journal is None else self.journal.slab.enter(body)

    def leave(self, place: int) -> None:
        if self.journal is not None:
            self.journal.slab.leave(place)

    def open(self) -> None:
        """Open the journal, unless that was done. Takes a few milliseconds; never raises."""
        with self._lock:
            if self._is_open or self._is_opening:
                return
            self._is_opening = True
            try:
                self._open()
            except Exception as error:  # noqa: BLE001  (a defect of ours must not break the traced program)
                self.choice = f"memory: {error!r}"
                self._diagnostics.error("spanlog.no_journal", why=repr(error)[:300])
            finally:
                self._is_opening = False
                self._is_open = True
                self._use(None if self.journal is None else self.journal.slab)

    def _open(self) -> None:
        journal, self.choice = open_journal(
            self._settings,
            service=self._service,
            origin=self._origin,
            lanes=self._lanes,
            segment_bytes=self._log.segment_bytes,
            time_ns=self._time_ns,
            diagnostics=self._diagnostics,
            parent=self._parent(),
        )
        if journal is not None:
            self._delivery.keep_in(journal.stores())
            self._log.attach(journal)
            self.journal = journal

    def moved_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """The lanes are at home in `loop`: what dead processes left is delivered there too."""
        if self.journal is not None:
            self._recovery.move_in(loop)

    @property
    def recovered(self) -> int:
        """Spans of dead processes that were delivered by this one."""
        return self._recovery.recovered

    def statistics(self) -> dict[str, Any]:
        """Fields of `Statistics`."""
        journal = self.journal
        if journal is None:
            return {"journal": self.choice}
        return {
            "journal": self.choice,
            "journal_troubles": dict(journal.troubles),
            "unnoted": journal.slab.unnoted,
        }

    # Children ----------------------------------------------------------------------------------------------------

    def line_of_descent(self) -> str:
        """What the journals of this tracer's children say of where they come from."""
        from ..spanlog.journal import line_of_descent

        return line_of_descent(self._parent(), self._origin.log_id)

    def undelivered_children(self) -> Mapping[Path, Held]:
        """The journals of child processes, and of theirs, that hold something which is not delivered. Reads files."""
        from ..spanlog.journal import service_path

        if self._descendants is None:
            with loading:
                from ..spanlog.journal._descendants import Descendants

            folder = service_path(self._settings.state, self._service)
            self._descendants = Descendants(folder, self._origin.log_id, boot_id=boot_id())
        return self._descendants.look()

    async def look_at_children(self) -> Mapping[Path, Held]:
        """The same, beside the event loop."""
        return await run_aside(self.undelivered_children)

    def recover_now(self, *, anew: bool) -> bool:
        """Recover what dead processes left at once, and not when it is due; False where nobody is there to do it."""
        is_possible = self.journal is not None and self._recovery.can_recover
        if is_possible:
            self._recovery.hurry(anew=anew)
        return is_possible

    async def finish_recovery(self, seconds: float) -> None:
        """End the recovery of other journals, for at most `seconds`."""
        await self._recovery.finish(seconds)

    def end(self) -> None:
        """The lanes have stopped: remove the journal if nothing is left in it, else leave it to the next process."""
        with self._lock:
            journal, self.journal = self.journal, None
            self._is_open = True
        self._use(None)
        if journal is not None:
            self._log.leave()
            try:
                journal.finish(is_drained=self._delivery.is_settled)
            except OSError as error:
                self._diagnostics.warning("spanlog.journal_trouble", reason="not removed", error=repr(error)[:300])


def make_log(settings: JournalSettings | None, **options: Any) -> SpanLog:
    """A span log that can be attached to a journal, where there is to be one."""
    if settings is None:
        return SpanLog(**options)
    from ..spanlog.journal import JournalLog

    return JournalLog(**options)


def open_journal(
    settings: JournalSettings,
    *,
    service: str,
    origin: Origin,
    lanes: Sequence[str],
    segment_bytes: int,
    time_ns: Callable[[], int],
    diagnostics: Diagnostics,
    parent: str,
) -> tuple[Journal | None, str]:
    """(the journal or None, what was chosen in one sentence)."""
    from ..spanlog.journal import (
        FORMAT_VERSION,
        Journal,
        JournalDirectory,
        JournalMeta,
        Mode,
        choose,
        service_folder,
    )

    choice = choose(settings.state)
    if choice.mode is Mode.MEMORY:
        return _without(settings, diagnostics, choice.why)
    meta = JournalMeta(
        version=FORMAT_VERSION,
        journal_id=origin.log_id,
        boot_id=boot_id(),
        pid=os.getpid(),
        created_ns=time_ns(),
        service=service,
        resource=origin.resource_bytes,
        scope=origin.scope_bytes,
        parent=parent,
    )

    def on_trouble(what: str, error: Exception) -> None:
        diagnostics.warning("spanlog.journal_trouble", reason=what, error=repr(error)[:300])

    try:
        directory = JournalDirectory.create(
            service_folder(settings.state, service), meta, sync=settings.sync is not None
        )
    except (OSError, JournalError) as error:
        return _without(settings, diagnostics, str(error))
    try:
        journal = Journal(
            directory,
            lanes,
            segment_bytes=segment_bytes,
            time_ns=time_ns,
            sync=settings.sync,
            is_mapped=choice.mode is Mode.MAP,
            on_trouble=on_trouble,
        )
    except (OSError, JournalError) as error:
        with suppress(OSError):
            directory.remove()
        return _without(settings, diagnostics, str(error))
    chosen = f"{choice.mode}: {choice.why}"
    diagnostics.info("spanlog.journal", mode=str(choice.mode), path=str(directory.path), why=choice.why)
    return journal, chosen


def _without(settings: JournalSettings, diagnostics: Diagnostics, why: str) -> tuple[None, str]:
    tell = diagnostics.error if settings.is_wanted else diagnostics.info
    tell("spanlog.no_journal", why=why, hint="spans are kept in memory, and end with the process")
    return None, f"memory: {why}"


def boot_id() -> str:
    """Names the run of the kernel; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
