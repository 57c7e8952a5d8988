"""What dead processes of the same service left behind, delivered by this one.

    a home is moved into ─▶ a pass: list ─▶ claim one ─▶ its records through our exporters ─▶ removed ─▶ the next
                            every second while other processes of the service live, else every 30 s, and within a
                            second of a journal that appears, and at once after `hurry()`

Promises:

1. One journal at a time, in fewer requests than the living lanes may have under way.
2. The keys of its requests are the old ones, the resource is the recorded one, the exporter that of the same lane name.
3. What cannot be delivered stays, whole, for whoever comes next. After `max_age`, or beyond `capacity_bytes`, the oldest
   goes.
4. A journal over whose reading three processes died is put aside. One of a newer version is left alone. Nobody dies by
   being told to end while it reads.
5. A loop that ends lets the pass under way finish, for as long as its own lanes may drain.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .._contracts import Batch, Exporter, ExportResult
from .._diagnostics import Diagnostics
from .._errors import AsynctraceError
from ..delivery import Callbacks, Delivery, DeliveryNotice, DeliveryOptions, Origin, create_patient_task
from ..exporters._aside import loading, run_aside
from ._claimed import Claimed
from ._journal import JournalSettings, boot_id

if TYPE_CHECKING:
    from ..spanlog.journal import JournalDirectory, JournalEntry, OrphanLog, Removed

__all__ = ["Recovery"]

_PASS_INTERVAL = 30.0
_SIBLING_INTERVAL = 1.0
"""Seconds between two passes while other processes of the service live, any of which may die."""
_AGAIN = 600.0
"""Seconds after which a journal that could not be read is tried again: a disk that failed once may work by then."""
_PATIENCE = 10.0
"""Seconds without progress after which a journal is left to others, until the next pass."""
_LET_GO = 2.0
"""Seconds for a pass that is cut short to let go of its journal."""


class Recovery:
    """Of one tracer. `move_in(loop)` in each loop that its lanes move to; `finish()` at the tracer's shutdown."""

    def __init__(
        self,
        settings: JournalSettings,
        service: str,
        exporters: Sequence[tuple[str, Exporter]],
        make_delivery: Callable[..., Delivery],
        *,
        options: DeliveryOptions,
        drain_timeout: float,
        diagnostics: Diagnostics,
        time_ns: Callable[[], int],
        new_context: Callable[[], Context],
        callbacks: Callbacks | None,
    ) -> None:
        self.recovered = 0
        """Spans of dead processes that were delivered by this one."""
        self._settings = settings
        self._service = service
        self._exporters = [(name, _Borrowed(exporter)) for name, exporter in exporters]
        self._make_delivery = make_delivery
        self._options = msgspec.structs.replace(options, max_in_flight=max(1, options.max_in_flight // 2))
        self._drain_timeout = drain_timeout
        self._diagnostics = diagnostics
        self._time_ns = time_ns
        self._new_context = new_context
        self._callbacks = callbacks
        self._passed_by: dict[Path, int] = {}  # until when, by the wall clock
        self._folder: Path | None = None
        self._seen = 0
        self._task: asyncio.Task[None] | None = None
        self._asked: _Asked | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_finished = False

    def move_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on in the running loop."""
        if self._is_finished or not self._exporters or (self._loop is loop and self._task and not self._task.done()):
            return
        self._loop = loop
        self._asked = asked = _Asked()
        self._task = create_patient_task(
            self._work(asked),
            leave=asked.to_leave,
            patience=self._drain_timeout,
            context=self._new_context(),
            name="asynctrace recovery",
        )

    @property
    def can_recover(self) -> bool:
        """The tracer has exporters and was not shut down."""
        return bool(self._exporters) and not self._is_finished

    def hurry(self, *, anew: bool = False) -> None:
        """Begin a pass now, or once the one under way is over; with `anew` what could not be read is tried again. From any
        thread. Without a home it does nothing: the first pass in the next one is due at once."""
        loop, asked = self._loop, self._asked
        if anew:
            self._passed_by.clear()
        if loop is not None and asked is not None:
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(asked.to_hurry)

    async def finish(self, seconds: float) -> None:
        """End the pass under way, for at most `seconds`. What is not delivered by then stays. From any loop."""
        self._is_finished = True
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        if loop is asyncio.get_running_loop():
            await self._finish_here(seconds)
            return
        ending = asyncio.run_coroutine_threadsafe(self._finish_here(seconds), loop)
        await asyncio.wait((asyncio.wrap_future(ending),), timeout=seconds + 2 * _LET_GO)

    async def _finish_here(self, seconds: float) -> None:
        task, asked = self._task, self._asked
        if task is None or asked is None:
            return
        asked.to_leave()
        await asyncio.wait((task,), timeout=seconds)
        for _ in range(2):  # the first asks it to come to an end, the second ends it
            if not task.done():
                task.cancel()
                await asyncio.sleep(0)
        if not task.done():
            await asyncio.wait((task,), timeout=_LET_GO)

    # Passes ------------------------------------------------------------------------------------------------------

    async def _work(self, asked: _Asked) -> None:
        has_siblings = False
        while True:
            asked.is_in_a_hurry = False
            try:
                has_siblings = await self._pass()
            except Exception as error:  # noqa: BLE001  (supervised: a defect of ours must not end recovery)
                self._diagnostics.warning("runtime.recovery_failed", error=repr(error)[:300])
            if await self._rest(asked, has_siblings):
                return

    async def _rest(self, asked: _Asked, has_siblings: bool) -> bool:
        """Until the next pass is due; True when it is time to leave."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _PASS_INTERVAL * random.uniform(0.75, 1.25)
        while not asked.is_leaving:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SIBLING_INTERVAL):
                    await asked.something.wait()
            asked.something.clear()
            is_due = asked.is_in_a_hurry or has_siblings or loop.time() >= due or self._folder_time() != self._seen
            if is_due and not asked.is_leaving:
                return False
        return True

    async def _pass(self) -> bool:
        """Deliver what is found now. Returns whether other processes of the service live."""
        from ..spanlog.journal import JournalState

        entries, removed = await run_aside(self._look)
        self._tell_removed(removed)
        for entry in entries:
            if entry.state is JournalState.DAMAGED:
                await run_aside(lambda path=entry.path: self._put_aside(path))  # type: ignore[misc]
            elif entry.state is JournalState.ORPHAN and self._passed_by.get(entry.path, 0) <= self._time_ns():
                await self._recover(entry.path)
        return sum(entry.state is JournalState.LIVE for entry in entries) > 1

    def _look(self) -> tuple[list[JournalEntry], list[Removed]]:
        """What there is, and what was too old or too much and is gone."""
        from ..spanlog.journal import list_journals, remove_expired, service_folder

        bounds = self._settings.bounds

        self._folder = service_folder(self._settings.state, self._service)
        self._seen = self._folder_time()
        removed = remove_expired(
            self._folder, self._time_ns(), bounds.max_age, bounds.capacity_bytes, count=_count_undelivered
        )
        return list_journals(self._folder), removed

    def _folder_time(self) -> int:
        """Changes when a journal appears or goes."""
        try:
            return 0 if self._folder is None else os.stat(self._folder).st_mtime_ns
        except OSError:
            return 0

    def _tell_removed(self, removed: Sequence[Removed]) -> None:
        if not removed:
            return
        spans = sum(gone.records or 0 for gone in removed)
        self._diagnostics.warning(
            "runtime.journals_expired", journals=len(removed), spans=spans, first=str(removed[0].path)
        )
        for gone in removed:
            if self._callbacks is not None and gone.records:
                journal_id = gone.path.stem
                self._callbacks.tell(
                    DeliveryNotice(kind="drop", reason="expired", count=gone.records, journal_id=journal_id)
                )

    def _put_aside(self, path: Path) -> None:
        from ..spanlog.journal import quarantine_damaged

        aside = quarantine_damaged(path, "its meta or its lock is missing or damaged")
        if aside is not None:
            self._diagnostics.error("runtime.journal_quarantined", path=str(aside), why="damaged")

    async def _recover(self, path: Path) -> None:
        claimed = Claimed(path)
        try:
            await run_aside(claimed.read)
            if claimed.orphan is not None and await self._deliver(path, claimed.orphan):
                claimed.remove()
            elif claimed.is_deadly:
                aside = claimed.quarantine()
                self._diagnostics.error("runtime.journal_quarantined", path=str(aside), why="deaths")
        except (AsynctraceError, OSError) as error:
            self._pass_by(path)
            self._diagnostics.warning("runtime.recovery_failed", path=str(path), error=repr(error)[:300])
        finally:
            claimed.let_go()

    def _pass_by(self, path: Path) -> None:
        self._passed_by[path] = self._time_ns() + int(_AGAIN * 1e9)

    async def _deliver(self, path: Path, orphan: OrphanLog) -> bool:
        """True when every lane has settled everything."""
        names = set(orphan.lane_names())
        ours = [(name, exporter) for name, exporter in self._exporters if not names or name in names]
        if ours:
            await self._send(orphan, ours)
        if orphan.unclosed:  # the disk was full: there may be room now
            orphan.close_open_spans()
        lanes = names or dict(ours)
        is_done = not orphan.unclosed and all(orphan.lane_file(name).cursor >= orphan.appended for name in lanes)
        if is_done:
            self._tell_damage(orphan)
        if not is_done and not ours:
            self._pass_by(path)  # its lanes are not ours: it waits for a process that has them, or its age
        return is_done

    async def _send(self, orphan: OrphanLog, exporters: Sequence[tuple[str, Exporter]]) -> None:
        origin = Origin.recorded(orphan.journal_id, orphan.resource_bytes, orphan.scope_bytes)
        delivery = self._make_delivery(orphan, exporters, origin, options=self._options)
        delivery.resume({name: orphan.lane_file(name) for name, _ in exporters})
        before = delivery.receipt()
        try:
            await _settled(delivery, orphan.appended)
        finally:
            # A request that is under way is given up, and repeated under its key by whoever comes next.
            await delivery.finish("shutdown", 1.0)
            after = delivery.receipt()
            self._tell(orphan, after.accepted - before.accepted)

    def _tell_damage(self, orphan: OrphanLog) -> None:
        """What nobody can deliver any more: its journal is removed next."""
        if orphan.corrupt or orphan.unreadable or orphan.damaged_slots:
            self._diagnostics.error(
                "runtime.journal_damaged",
                spans=orphan.corrupt,
                segments=orphan.unreadable,
                open_spans=orphan.damaged_slots,
                journal=orphan.journal_id,
            )

    def _tell(self, orphan: OrphanLog, count: int) -> None:
        self.recovered += count
        if count:
            self._diagnostics.info(
                "runtime.recovered", spans=count, lost=orphan.lost, corrupt=orphan.corrupt, journal=orphan.journal_id
            )
            if self._callbacks is not None:
                self._callbacks.tell(DeliveryNotice(kind="recover", count=count, journal_id=orphan.journal_id))


class _Asked:
    """What is asked of the task in one loop, from that loop."""

    def __init__(self) -> None:
        self.something = asyncio.Event()
        self.is_leaving = False
        self.is_in_a_hurry = False

    def to_leave(self) -> None:
        self.is_leaving = True
        self.something.set()

    def to_hurry(self) -> None:
        self.is_in_a_hurry = True
        self.something.set()


def _count_undelivered(directory: JournalDirectory) -> int:
    """Records that some lane has not settled, of a journal that is about to be removed; 0 where nobody can tell."""
    with loading:
        from ..spanlog.journal._look import JournalLook

    try:
        with closing(JournalLook(directory.path, directory.meta, boot_id=boot_id())) as look:
            return max((count for count in look.waiting().values() if count is not None), default=0)
    except (AsynctraceError, OSError):
        return 0


async def _settled(delivery: Delivery, target: int) -> None:
    """Until everything below `target` is settled, or nothing was for a while: somebody else may have more luck."""
    before = -1
    while delivery.settled > before:
        before = delivery.settled
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):  # not flush(timeout=…), for which lanes shorten their back-off
                await delivery.flush(target, None)
                return


class _Borrowed:
    """An exporter that another lane owns: used, never closed."""

    def __init__(self, exporter: Exporter) -> None:
        self.name = exporter.name
        self._exporter = exporter

    async def export(self, batch: Batch) -> ExportResult:
        answer: Any = self._exporter.export(batch)
        result: ExportResult = await answer if hasattr(answer, "__await__") else answer
        return result

    async def aclose(self) -> None:
        return None
