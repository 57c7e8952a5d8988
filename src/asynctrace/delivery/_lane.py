"""A lane: one exporter's own path through the span log. This file decides; `_driver.py` acts.

    cursor            next                      appended
      │ window │ window │ records not cut yet ……… │
      └ everything below is settled: accepted, or counted in the books with a reason

States

    IDLE      nothing to send, or lingering for more
    SENDING   requests under way
    BACKOFF   the far side is away: nothing is sent before `not_before`
    BLOCKED   the far side refuses our configuration: tried again slowly, at once by a flush
    STOPPED   finished; what is left is counted

Promises

1. Windows are cut in order, acknowledged in order, and never change until settled (except by a definite refusal).
2. A settled record is never sent again; a record that is not settled is never forgotten.
3. Whatever the far side answers, the books balance: `accepted` is derived from the cursor, never counted twice.
4. After a failure one request probes before several are under way again.
5. With a store, a window is written down before its bytes leave, and what was lost before the cursor passes it.

Nothing here awaits, reads a clock, or draws a random number: the caller passes `now` (seconds, monotonic).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Literal

import msgspec

from .._contracts import ExportResult, LaneReceipt, Outcome
from ..spanlog import ReadableLog
from ..wire import shrink_record
from ._books import Books, add
from ._lane_state import LaneState, LaneStatistics
from ._lane_store import LaneStore, StoredLane
from ._options import DeliveryOptions
from ._pace import Pace
from ._rejection import Rejection
from ._window import Window, WindowState

__all__ = ["Lane"]

_NEVER = 1 << 62
"""A record number that is never reached."""

_SHORTEST_ASKED = 0.1
"""Seconds: a shorter `Retry-After` does not shorten the lane's own back-off."""

_SHORTEST_HURRY = 0.05
"""Seconds between two attempts however near the deadline is."""

_MOST_REJECTIONS = 64
"""They are taken after each answer; a bound all the same."""

_SMALLEST_PAYLOAD = 4096
"""A single span is cut down to this many bytes before it is given up as oversize."""


class Lane:
    """One exporter's cursor, windows and books."""

    def __init__(self, name: str, log: ReadableLog, options: DeliveryOptions, random: Callable[[], float]) -> None:
        self.name = name
        self.state = LaneState.IDLE
        self.cursor = 0
        """Everything below is settled."""
        self.flush_to = 0
        """Everything below is sent without lingering."""
        self.interruptions = 0
        self.owner: object = None
        """Whose answers count."""
        self.last_reason = ""
        self.keeps_rejected = False
        """Whether somebody takes the bytes of what is refused for good."""
        self._rejections: deque[Rejection] = deque(maxlen=_MOST_REJECTIONS)
        self._log = log
        self._store: LaneStore | None = None
        self._is_kept = False
        self._options = options
        self._random = random
        self._next = 0
        self._windows: deque[Window] = deque()
        self._books = Books()
        self._waiting_since: float | None = None
        self._not_before = 0.0
        self._waits_as = LaneState.IDLE
        self._deadline = 0.0
        self._asked_to_wait = False
        self._failures = 0
        self._pace = Pace(options)
        self._in_flight_peak = self._requests = self._retries = 0
        self._answers: Counter[str] = Counter()

    # With a journal ----------------------------------------------------------------------------------------------

    def keep_in(self, store: LaneStore) -> None:
        """Write down there, from the first record on, what must outlive this process."""
        self._store = store

    def resume(self, store: StoredLane) -> None:
        """Go on where the lane of a dead process stood, with its books. `repeat_windows()` is next."""
        self._store = store
        self.cursor = self._next = store.cursor
        rejected, dropped = store.books()
        self._books = Books(self.cursor, self.cursor, rejected, dropped)

    def repeat_windows(self, store: StoredLane) -> None:
        """What the dead process was sending is sent again, under its old keys."""
        windows, runs = store.windows(), store.runs_above()
        for first, count, loss in sorted([*((*window, None) for window in windows), *_outside(runs, windows)]):
            if first == self._next:
                self._resume_one(first, count, loss)
        self._books = msgspec.structs.replace(self._books, cut=self._next, ahead=self._lost_ahead())
        self._pass()

    def _resume_one(self, first: int, count: int, loss: tuple[str, str] | None) -> None:
        if loss is None:
            self._repeat(first, count)
            return
        window = Window(first, count, ())
        window.settle(**{loss[0]: {loss[1]: count}})
        self._windows.append(window)
        self._next += count

    def _repeat(self, first: int, count: int) -> None:
        """The window as it was; only where records of it are damaged what is left of it, as windows of their own."""
        end = first + count
        while self._next < end:
            number = min(self._log.next_present(self._next), end)
            if number > self._next:
                self._windows.append(Window.lost(self._next, number - self._next, self._log.gap_reason))
                self._next = number
            payload, held = self._log.read(number, end - number, _NEVER)
            if held:
                self._keep_window(number, held)
                self._windows.append(Window(number, held, payload))
                self._next += held

    def _keep_window(self, first: int, count: int) -> bool:
        return self._store is None or self._store.open_window(first, count)

    # Deciding ----------------------------------------------------------------------------------------------------

    def take(self, now: float, lag: float = 0.0) -> Window | None:
        """The window to send now, marked as under way; None while there is nothing to send (see `wait_time()`). `lag`: how
        many seconds late things run on the loop."""
        self._pace.lag = lag
        if self.state is LaneState.STOPPED:
            return None
        self._notice_eviction()
        if now < self._not_before:
            return None
        if self._is_busy():
            return None
        window = self._first_waiting() or self._cut(now)
        if window is None:
            return None
        window.state = WindowState.FLYING
        window.attempts += 1
        self._requests += 1
        self._retries += window.attempts > 1
        self._in_flight_peak = max(self._in_flight_peak, self._in_flight)
        self.state = LaneState.SENDING
        return window

    def wait_time(self, now: float) -> float | None:
        """Seconds until `take()` may have something, unless an append, an answer or a flush comes first. `now` is that of the
        `take()` that had nothing."""
        if self.state is LaneState.STOPPED:
            return None
        if now < self._not_before:
            return self._not_before - now
        if self._is_busy():
            return None
        if self._waiting_since is not None:
            return max(0.0, self._waiting_since + self._pace.longest_linger(self._in_flight) - now)
        return None

    def wake_at(self, now: float) -> int:
        """The number of appended records that this lane should be told of: none while it may not send anyway."""
        if self.state is LaneState.STOPPED or now < self._not_before or self._is_busy():
            return _NEVER
        if self._waiting_since is None:
            return self._next + 1
        return self._next + self._pace.wanted(self._in_flight)

    @property
    def _in_flight(self) -> int:
        return sum(window.state is WindowState.FLYING for window in self._windows)

    def _is_busy(self) -> bool:
        return self._in_flight >= (1 if self._failures else self._options.max_in_flight)

    def flush(self, target: int) -> None:
        """Send everything below `target` without lingering; a blocked lane tries at once."""
        self.flush_to = max(self.flush_to, target)
        if self._waits_as is LaneState.BLOCKED and not self._asked_to_wait:
            self._not_before = 0.0

    def hurry(self, deadline: float, now: float) -> None:
        """What is not settled at `deadline` will be given up: no back-off may outlast it. `Retry-After` still may."""
        self._deadline = max(self._deadline, deadline)
        if self._waits_as is LaneState.BACKOFF and not self._asked_to_wait:
            self._not_before = min(self._not_before, now + max(_SHORTEST_HURRY, (deadline - now) / 2))

    def flush_everything(self) -> None:
        """`flush()` for all that has been appended by now."""
        self.flush(self._log.appended)

    @property
    def is_settled(self) -> bool:
        """Nothing waits and nothing is under way."""
        return self.cursor >= self._log.appended

    def answered(self, window: Window, result: ExportResult, now: float, latency: float) -> None:
        """Act on the exporter's answer for `window`."""
        self._pace.answered(latency, settled=result.outcome is Outcome.SETTLED)
        if result.outcome is not Outcome.SETTLED or result.rejected:
            self._answers[result.reason or result.outcome.value] += 1
            self.last_reason = result.reason or result.outcome.value
        if window.state is not WindowState.FLYING:
            return  # settled meanwhile, by a stop
        window.state = WindowState.WAITING
        _ACTIONS[result.outcome](self, window, result, now)
        self._pass()
        if self.state is LaneState.SENDING and not self._in_flight:
            self.state = LaneState.IDLE

    def adopt(self, owner: object) -> None:
        """`owner` drives this lane from now on. Requests of the one before are given up: their loop stands still."""
        self.owner = owner
        for window in self._windows:
            if window.state is WindowState.FLYING:
                window.state = WindowState.WAITING

    def catch_up(self) -> bool:
        """Pass what is settled already: an error may have kept the cursor from it. True if it moved."""
        before = self.cursor
        self._pass()
        return self.cursor > before

    def put_back(self, window: Window) -> None:
        """Its request was given up without an answer (the task was cancelled): it will be sent again."""
        if window.state is WindowState.FLYING:
            window.state = WindowState.WAITING

    def stop(self, reason: str, *, keep: bool = False) -> int:
        """Finish: everything that is not settled is dropped for `reason`; with `keep` it stays in the journal, spooled.
        Returns how many records were dropped."""
        self._notice_eviction()
        if keep:
            self._is_kept = True
            self.state = LaneState.STOPPED
            return 0
        self._lose_rest(reason)
        dropped = 0
        for window in self._windows:
            if window.state is not WindowState.SETTLED:
                window.settle(dropped={reason: window.count})
            dropped += sum(window.dropped.values())
        self._pass()
        self.state = LaneState.STOPPED
        return dropped

    # Answers -----------------------------------------------------------------------------------------------------

    def _settled(self, window: Window, result: ExportResult, now: float) -> None:
        self._works_again(now)
        rejected = min(result.rejected, window.count)
        accepted = min(result.accepted, window.count - rejected)
        books = {result.reason or "backend_rejected": rejected}
        books["unaccounted"] = books.get("unaccounted", 0) + window.count - rejected - accepted
        self._note_rejected(window, rejected, result.reason or "backend_rejected", result.detail)
        window.settle(rejected=books)

    def _try_again(self, window: Window, result: ExportResult, now: float) -> None:
        if now >= self._not_before or not self._failures:  # several requests that fail together are one failure
            self._failures += 1
        delay = self._random() * self._pace.backoff_bound(self._failures)
        if now < self._deadline:  # somebody gives up at the deadline: one more attempt must fit in before
            delay = min(delay, max(_SHORTEST_HURRY, (self._deadline - now) / 2))
        self.state = LaneState.BACKOFF
        self._wait(now, delay, result.after)

    def _blocked(self, window: Window, result: ExportResult, now: float) -> None:
        self._failures += 1
        self.state = LaneState.BLOCKED
        self._wait(now, self._options.blocked_interval, result.after)

    def _refused(self, window: Window, result: ExportResult, now: float) -> None:
        self._works_again(now)
        if window.count == 1:
            self._note_rejected(window, 1, "backend_rejected", result.detail)
            window.settle(rejected={"backend_rejected": 1})
        else:
            self._replace(window, *window.halves())

    def _too_large(self, window: Window, result: ExportResult, now: float) -> None:
        self._works_again(now)
        size = window.size
        if window.count > 1:
            self._pace.batch_bytes = min(self._pace.batch_bytes, max(_SMALLEST_PAYLOAD, size // 2))
            self._replace(window, *window.halves())
            return
        smaller = _shrunk(window, size // 2) if size > _SMALLEST_PAYLOAD else None
        if smaller is None:
            self._note_rejected(window, 1, "oversize", result.detail)
            window.settle(rejected={"oversize": 1})
        else:
            window.payload = (smaller,)

    def _note_rejected(self, window: Window, count: int, reason: str, detail: str) -> None:
        if count:
            payload = b"".join(window.payload) if self.keeps_rejected else b""
            self._rejections.append(
                Rejection(
                    first=window.first,
                    records=window.count,
                    count=count,
                    reason=reason,
                    detail=detail,
                    payload=payload,
                )
            )

    def take_rejections(self) -> list[Rejection]:
        """What was refused for good since the last call."""
        taken = list(self._rejections)
        self._rejections.clear()
        return taken

    def _wait(self, now: float, delay: float, asked: float | None) -> None:
        self._asked_to_wait = asked is not None or (self._asked_to_wait and now < self._not_before)
        if asked is not None:
            asked = min(asked, self._options.longest_retry_after)
            # "Retry-After: 0", or a date that has passed, is no leave to hammer.
            delay = asked if asked >= _SHORTEST_ASKED else max(asked, delay)
        if now + delay >= self._not_before:
            self._not_before = now + delay
            self._waits_as = self.state

    def _works_again(self, now: float) -> None:
        self._failures = 0
        if now >= self._not_before:
            self._asked_to_wait = False
        elif self._waits_as is LaneState.BLOCKED and not self._asked_to_wait:
            self._not_before = now  # the settings are right after all
        if self.state in (LaneState.BACKOFF, LaneState.BLOCKED):
            self.state = LaneState.SENDING

    # Windows -----------------------------------------------------------------------------------------------------

    def _first_waiting(self) -> Window | None:
        for window in self._windows:
            if window.state is WindowState.WAITING:
                return window
        return None

    def _cut(self, now: float) -> Window | None:
        """A new window, if enough records wait, or have waited long enough, or a flush asks for them."""
        appended = self._log.appended
        self._notice_eviction()  # after `appended`, which stores what is staged and may evict for it
        waiting = appended - self._next
        if waiting <= 0:
            self._waiting_since = None
            return None
        if self._waiting_since is None:
            self._waiting_since = now
        is_due = (
            self.flush_to > self._next
            or now - self._waiting_since >= self._pace.longest_linger(self._in_flight)
            or self._pace.is_full(waiting, self._log.bytes_above(self._next), self._in_flight)
        )
        if not is_due:
            return None
        pace = self._pace
        pace.adapt(now, waiting)
        payload, count = self._log.read(self._next, pace.batch_spans, pace.batch_bytes)
        while not count and self._next < self._log.appended:  # another thread's append evicted what we wanted
            self._notice_eviction()
            payload, count = self._log.read(self._next, pace.batch_spans, pace.batch_bytes)
        if not count:
            return None
        pace.fitted(count, waiting)
        if not self._keep_window(self._next, count):  # the store is full until the cursor moves
            self._waiting_since = now
            return None
        window = Window(self._next, count, payload)
        self._windows.append(window)
        self._next += count
        self._books = msgspec.structs.replace(self._books, cut=self._next)
        self._waiting_since = now if self._log.appended > self._next else None
        return window

    def _notice_eviction(self) -> None:
        gone = self._log.next_present(self._next) - self._next
        if gone > 0:
            self._lose(gone, self._log.gap_reason)
            self._pass()

    def _lose_rest(self, reason: str) -> None:
        if rest := self._log.appended - self._next:
            self._lose(rest, reason)

    def _lose(self, count: int, reason: str) -> None:
        self._windows.append(Window.lost(self._next, count, reason))
        self._next += count
        self._books = msgspec.structs.replace(self._books, cut=self._next, ahead=self._lost_ahead())

    def _lost_ahead(self) -> dict[str, int]:
        ahead: dict[str, int] = {}
        for window in self._windows:
            add(ahead, window.dropped)
        return ahead

    def _replace(self, window: Window, *parts: Window) -> None:
        place = self._windows.index(window)
        del self._windows[place]
        for offset, part in enumerate(parts):
            self._keep_window(part.first, part.count)
            self._windows.insert(place + offset, part)

    def _pass(self) -> None:
        """Move the cursor over settled windows, taking what they lost into the books."""
        if not (self._windows and self._windows[0].state is WindowState.SETTLED):
            return
        rejected, dropped = dict(self._books.rejected), dict(self._books.dropped)
        settled = list(takewhile(_is_settled, self._windows))
        for window in settled:
            self._keep_losses(window)
            add(rejected, window.rejected)
            add(dropped, window.dropped)
        cursor = settled[-1].end
        if self._store is not None and self._store.cursor < cursor:
            self._store.move_cursor(cursor)
        for _ in settled:
            self._windows.popleft()
        self._books = Books(cursor, self._next, rejected, dropped, self._lost_ahead())
        self.cursor = cursor

    def _keep_losses(self, window: Window) -> None:
        if self._store is None:
            return
        first = window.first
        for reason, count in window.rejected.items():
            self._store.add_run(first, count, "rejected", reason)
            first += count
        for reason, count in window.dropped.items():
            self._store.add_run(first, count, "dropped", reason)
            first += count
        if first > window.first:  # at once: a store has room for so many runs above its cursor
            self._store.move_cursor(window.end)

    # Books -------------------------------------------------------------------------------------------------------

    def receipt(self, appended: int, refused: dict[str, int]) -> LaneReceipt:
        """The balance, given how many records the log took and refused; safe from any thread."""
        return self._books.receipt(appended, refused, self._log.first, is_kept=self._is_kept)

    def statistics(self) -> LaneStatistics:
        """The lane at this moment."""
        return LaneStatistics(
            state=self.state.value,
            requests=self._requests,
            retries=self._retries,
            in_flight=self._in_flight,
            in_flight_peak=self._in_flight_peak,
            batch_spans=self._pace.batch_spans,
            batch_bytes=self._pace.batch_bytes,
            latency=self._pace.latency,
            lag=self._pace.lag,
            interruptions=self.interruptions,
            answers=dict(self._answers),
        )


def _is_settled(window: Window) -> bool:
    return window.state is WindowState.SETTLED


def _shrunk(window: Window, limit: int) -> bytes | None:
    try:
        return shrink_record(b"".join(window.payload), limit)
    except ValueError:  # a record that cannot be decoded cannot be cut
        return None


def _outside(
    runs: list[tuple[int, int, Literal["rejected", "dropped"], str]], windows: list[tuple[int, int]]
) -> Iterator[tuple[int, int, tuple[str, str]]]:
    """The runs that no window holds: dropped before they were sent."""
    for first, count, kind, reason in runs:
        if not any(begin <= first < begin + length for begin, length in windows):
            yield first, count, (kind, reason)


_ACTIONS: dict[Outcome, Callable[[Lane, Window, ExportResult, float], None]] = {
    Outcome.SETTLED: Lane._settled,
    Outcome.TRY_AGAIN: Lane._try_again,
    Outcome.BLOCKED: Lane._blocked,
    Outcome.REFUSED: Lane._refused,
    Outcome.TOO_LARGE: Lane._too_large,
}
