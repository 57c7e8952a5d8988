"""A model of the span log and its lanes, and the machine that drives the real ones beside it.

`Model` is what a lane must look like from outside, in sets of record numbers. `Machine` applies one action at a time to a
real `SpanLog` with real `Lane`s, tells the model, and compares. What breaks is a `Broken` that carries the name of
the promise. There is no I/O, and time is a number.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from asynctrace import DeliveryOptions, ExportResult
from asynctrace._contracts import Outcome
from asynctrace.delivery import LaneState
from asynctrace.delivery._lane import Lane
from asynctrace.delivery._window import Window, WindowState
from asynctrace.spanlog import DropNewest, DropOldest, SpanLog, WhenFull

from ..spanlog.records import make_record, number_of, split

OPTIONS = DeliveryOptions(
    batch_spans=8,
    batch_spans_most=32,
    batch_bytes=4_000,
    linger=1.0,
    max_in_flight=3,
    backoff_initial=1.0,
    backoff_max=8.0,
    blocked_interval=20.0,
    longest_retry_after=100.0,
)


class Broken(AssertionError):
    """A promise is broken; `promise` names it."""

    def __init__(self, promise: str, detail: object = "") -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


def require(condition: object, promise: str, detail: object = "") -> None:
    if not condition:
        raise Broken(promise, detail)


class Model:
    """What one lane owes: fates by record number, the answers it must obey, and what it may do next."""

    def __init__(self) -> None:
        self.fate: dict[int, str] = {}  # settled for good, by record number
        self.in_flight: list[Window] = []
        self.handed_out: dict[int, tuple[int, bytes]] = {}  # first number → (count, bytes) of windows not settled
        self.cursor = 0
        self.next = 0
        self.asked_until = 0.0
        self.last_failed = False
        self.stopped = ""

    def took(self, window: Window, now: float) -> None:
        numbers = range(window.first, window.end)
        require(window.count > 0, "a window has records")
        require(not any(n in self.fate for n in numbers), "no settled record is handed out again", window.first)
        flying = {n for other in self.in_flight for n in range(other.first, other.end)}
        require(flying.isdisjoint(numbers), "no record is under way twice", window.first)
        require(now >= self.asked_until, "nothing is sent before Retry-After", (now, self.asked_until))
        require(not self.stopped, "a stopped lane sends nothing")
        require(not (self.last_failed and self.in_flight), "one request probes after a failure")
        before = self.handed_out.get(window.first)
        whole = b"".join(window.payload)
        require(before in (None, (window.count, whole)), "a window is repeated unchanged", window.first)
        self.handed_out[window.first] = (window.count, whole)
        self.in_flight.append(window)
        self.next = max(self.next, window.end)

    def settle(self, first: int, count: int, fates: Counter[str]) -> None:
        self.handed_out.pop(first, None)
        for number, fate in zip(range(first, first + count), sorted(fates.elements()), strict=True):
            require(number not in self.fate, "each record is settled once", number)
            self.fate[number] = fate

    def lose_below(self, number: int, fate: str) -> None:
        """Records below `number` that were never handed out and never will be."""
        for lost in range(self.next, number):
            self.fate[lost] = fate
        self.next = max(self.next, number)

    def books(self, cursor: int) -> Counter[str]:
        return Counter(fate for number, fate in self.fate.items() if number < cursor)

    def lost(self) -> Counter[str]:
        """A loss is in the books when it happens, ahead of the cursor too."""
        return Counter(fate for fate in self.fate.values() if fate in ("evicted", "shutdown"))

    def expected_cursor(self) -> int:
        cursor = self.cursor
        while cursor in self.fate:
            cursor += 1
        return cursor


MakeLane = Callable[..., Lane]
MakeLog = Callable[..., SpanLog]


class Machine:
    """Real parts, driven one action at a time, as `Delivery` and `LaneDriver` drive them."""

    def __init__(
        self,
        make_lane: MakeLane = Lane,
        make_log: MakeLog = SpanLog,
        *,
        lanes: int = 2,
        when_full: WhenFull | None = None,
        capacity_bytes: int = 40_000,
        capacity_spans: int | None = None,
        seed: int = 0,
    ) -> None:
        self.now = 100.0
        self.draw = random.Random(seed)
        self.woken = True
        self.drops_oldest = isinstance(when_full, DropOldest)
        self.log = make_log(
            capacity_bytes=capacity_bytes, capacity_spans=capacity_spans, when_full=when_full, on_ready=self._on_ready
        )
        self.lanes = [make_lane(f"lane{i}", self.log, OPTIONS, self.draw.random) for i in range(lanes)]
        self.models = [Model() for _ in self.lanes]
        self.records: list[bytes] = []
        self.content: dict[int, bytes] = {}
        self.wake_at = 1

    def _on_ready(self) -> None:
        self.log.wake_at = 1 << 62
        self.woken = True

    # Actions -----------------------------------------------------------------------------------------------------

    def append(self, size: int) -> None:
        record = make_record(len(self.records), size)
        self.records.append(record)
        require(self.log.append_nowait(record), "an append never asks to wait under this policy")
        there = self.log._stored + len(self.log._staged)
        require(self.woken or there < self.wake_at, "no wake is lost", (there, self.wake_at))

    def tick(self, seconds: float) -> None:
        self.now += seconds

    def take(self, index: int) -> Window | None:
        lane, model = self.lanes[index], self.models[index]
        before = lane._next
        try:
            window = lane.take(self.now)
        except Exception as error:
            raise Broken("take() never fails", repr(error)) from error
        cut = lane._next if window is None or window.first < before else window.first
        if cut > before:  # what was evicted before this lane cut it is lost, as soon as the lane looks
            require(cut <= self.log.first, "only what was evicted is given up", (before, cut))
            model.lose_below(cut, "evicted")
        if window is None:
            self._wait(index)
            return None
        self._check_bytes(window)
        require(window.count <= OPTIONS.batch_spans_most, "a batch has at most batch_spans_most records")
        require(
            window.count == 1 or window.size <= OPTIONS.batch_bytes,
            "a batch has at most batch_bytes bytes",
            (window.count, window.size),
        )
        model.took(window, self.now)
        self._check()
        return window

    def answer(self, index: int, which: int, result: ExportResult, latency: float = 0.01) -> None:
        lane, model = self.lanes[index], self.models[index]
        if not model.in_flight:
            return
        window = model.in_flight.pop(which % len(model.in_flight))
        first, count = window.first, window.count
        alive = not model.stopped
        lane.answered(window, result, self.now, latency)
        model.last_failed = result.outcome in (Outcome.TRY_AGAIN, Outcome.BLOCKED)
        if result.after is not None and model.last_failed and alive:
            asked = min(result.after, OPTIONS.longest_retry_after)
            model.asked_until = max(model.asked_until, self.now + asked)
        if alive:
            self._expect(model, window, result, first, count)
        self._release()
        self._check()

    def _expect(self, model: Model, window: Window, result: ExportResult, first: int, count: int) -> None:
        if result.outcome is Outcome.SETTLED:
            rejected = min(result.rejected, count)
            accepted = min(result.accepted, count - rejected)
            fates = Counter({result.reason or "backend_rejected": rejected})
            fates["unaccounted"] += count - rejected - accepted
            model.settle(first, count, fates + Counter(accepted=accepted))
        elif result.outcome is Outcome.REFUSED and count == 1:
            model.settle(first, 1, Counter(backend_rejected=1))
        elif result.outcome in (Outcome.REFUSED, Outcome.TOO_LARGE):
            if window.state is WindowState.SETTLED and count == 1:
                model.settle(first, 1, Counter(oversize=1))
            model.handed_out.pop(first, None)  # only a definite refusal may change a window

    def put_back(self, index: int, which: int) -> None:
        model = self.models[index]
        if model.in_flight:
            self.lanes[index].put_back(model.in_flight.pop(which % len(model.in_flight)))
            self._check()

    def adopt(self, index: int) -> None:
        """Another driver takes the lane over: the requests of the one before will not be answered."""
        self.lanes[index].adopt(object())
        self.models[index].in_flight.clear()
        self._check()

    def flush(self, index: int) -> None:
        self.lanes[index].flush_everything()
        self._check()

    def stop(self, index: int) -> None:
        lane, model = self.lanes[index], self.models[index]
        self.log.totals()  # stores what is staged, which may evict
        first = self.log.first
        lane.stop("shutdown")
        model.stopped = "shutdown"
        model.lose_below(first, "evicted")
        for number in range(model.cursor, self.log.appended):
            model.fate.setdefault(number, "shutdown")
        model.next = self.log.appended
        self._release()
        self._check()

    def close(self) -> None:
        self.log.close("after_shutdown")
        self._check()

    def drain(self) -> None:
        """Every lane gets everything accepted from now on: it must come to an end, by its own wait times."""
        for index, lane in enumerate(self.lanes):
            model = self.models[index]
            if model.stopped:
                continue
            while model.in_flight:
                self.answer(index, 0, ExportResult(accepted=model.in_flight[0].count))
            lane.flush_everything()
            for _ in range(len(self.records) + 50):
                if lane.is_settled:
                    break
                if self.take(index) is None:
                    self.tick(lane.wait_time(self.now) or 0.0)
                else:
                    self.answer(index, 0, ExportResult(accepted=model.in_flight[0].count))
            require(lane.is_settled, "a lane that is answered comes to its end", repr(lane.state))
        self._check_end()

    # What must hold ----------------------------------------------------------------------------------------------

    def _release(self) -> None:
        cursors = [lane.cursor for lane in self.lanes]
        first = self.log.first
        self.log.release(min(cursors), max(cursors))
        if not self.drops_oldest:
            limit = max(first, min(cursors))  # evicted before, because a lane that hangs must not cost the others
            require(self.log.first <= limit, "nothing above a cursor is released", (self.log.first, cursors))
            require(first <= max(cursors), "nothing is evicted that no lane has settled", (first, cursors))

    def _check_bytes(self, window: Window) -> None:
        found = split(list(window.payload))  # type: ignore[arg-type]
        require(len(found) == window.count, "a window has the bytes of its records", (len(found), window.count))
        for number, record in enumerate(found, window.first):
            require(record == self.records[number_of(record)], "bytes come out as they went in", number)
            require(self.content.setdefault(number, record) == record, "a number names one record", number)
            require(not self.drops_oldest or number_of(record) == number, "records are numbered in order", number)

    def _wait(self, index: int) -> None:
        """`take()` had nothing: the lane says when to look again, and asks to be told of appends."""
        lane, model = self.lanes[index], self.models[index]
        wait = lane.wait_time(self.now)
        if lane.state is not LaneState.STOPPED and not model.in_flight and lane.cursor < self.log.appended:
            require(wait is not None, "a lane with records never sleeps for ever", lane.state)
        if wait is not None:
            longest = max(OPTIONS.linger, OPTIONS.backoff_max, OPTIONS.blocked_interval, model.asked_until - self.now)
            require(0 <= wait <= longest + 1e-6, "a wait has a bound", (wait, longest))
            if model.last_failed and lane.state is LaneState.BACKOFF and model.asked_until <= self.now:
                require(wait <= OPTIONS.blocked_interval + 1e-6, "a wait has a bound", wait)
        self.woken = False
        self.log.wake_at = self.wake_at = min(each.wake_at(self.now) for each in self.lanes)
        if self.log.appended >= self.wake_at:
            self._on_ready()
        require(
            wait == 0.0 or lane.wake_at(self.now) > self.log.appended, "a lane is not woken for nothing", lane.state
        )

    def _check(self) -> None:
        appended, refused = self.log.totals()
        require(appended + sum(refused.values()) == len(self.records), "every record is counted", (appended, refused))
        for lane, model in zip(self.lanes, self.models, strict=True):
            self._check_lane(lane, model, appended, refused)

    def _check_lane(self, lane: Lane, model: Model, appended: int, refused: dict[str, int]) -> None:
        require(lane.cursor >= model.cursor, "the cursor never goes back", (lane.cursor, model.cursor))
        require(lane.cursor <= model.expected_cursor(), "the cursor passes only what is settled", lane.cursor)
        require(lane.cursor == model.expected_cursor(), "the cursor passes what is settled", lane.cursor)
        model.cursor = lane.cursor
        receipt = lane.receipt(appended, refused)
        parts = receipt.accepted + receipt.rejected + receipt.dropped + receipt.spooled + receipt.pending
        require(receipt.ended == parts == len(self.records), "the books balance", receipt)
        fates = model.books(lane.cursor)
        require(receipt.accepted == fates.pop("accepted", 0), "accepted is what was accepted", receipt)
        dropped = model.lost() + Counter(refused) + Counter(evicted=max(0, self.log.first - model.next))
        require(Counter(receipt.dropped_by_reason) == dropped, "drops have their reasons", (receipt, dropped))
        fates -= model.lost()
        require(Counter(receipt.rejected_by_reason) == +fates, "rejections have their reasons", (receipt, fates))
        at = lane.cursor
        for window in lane._windows:
            require(window.first == at, "windows are contiguous and in order", (window.first, at))
            at = window.end
        require(at == lane._next or lane.cursor == lane._next, "windows are contiguous and in order", at)
        under_way = 0 if lane.state is LaneState.STOPPED else len(model.in_flight)
        require(lane._in_flight == under_way, "requests under way are counted", lane._in_flight)
        require(0 <= lane._in_flight <= OPTIONS.max_in_flight, "requests under way are bounded", lane._in_flight)

    def _check_end(self) -> None:
        self._check()
        settled = min(lane.cursor for lane in self.lanes)
        self.log.release(settled)
        if settled == self.log.appended:
            require(self.log.held_bytes == 0, "what is settled is given back", self.log.held_bytes)


# ── random histories ────────────────────────────────────────────────────────────────────────────────────────


def an_answer(draw: random.Random, count: int) -> ExportResult:
    """Any answer that an exporter can give, the lying ones included."""
    kind = draw.randrange(10)
    after = draw.choice([None, None, 0.0, 5.0, 1_000.0])
    if kind < 4:
        return ExportResult(accepted=count)
    if kind == 4:
        rejected = draw.randrange(count + 3)
        return ExportResult(accepted=draw.randrange(count + 3), rejected=rejected, reason=draw.choice(["", "quota"]))
    if kind < 7:
        return ExportResult.try_again(after, "away")
    if kind == 7:
        return ExportResult.blocked("401", after)
    if kind == 8:
        return ExportResult.refused("400")
    return ExportResult.too_large("413")


SETTINGS: list[dict[str, object]] = [
    {"when_full": DropNewest()},
    {"when_full": DropOldest()},
    {"when_full": DropOldest(), "capacity_spans": 25},
    {"when_full": DropNewest(), "capacity_spans": 40, "lanes": 1},
]


def step(machine: Machine, draw: random.Random) -> None:
    """One random action."""
    index = draw.randrange(len(machine.lanes))
    model = machine.models[index]
    kind = draw.randrange(100)
    if kind < 30:
        for _ in range(draw.choice([1, 1, 2, 9, 30])):
            machine.append(draw.choice([60, 60, 200, 200, 900, 6_000]))
    elif kind < 60:
        machine.take(index)
    elif kind < 82:
        if model.in_flight:
            which = draw.randrange(len(model.in_flight))
            count = model.in_flight[which].count
            machine.answer(index, which, an_answer(draw, count), draw.choice([0.001, 0.2]))
    elif kind < 85:
        machine.put_back(index, draw.randrange(3))
    elif kind < 86:
        machine.adopt(index)
    elif kind < 90:
        machine.flush(index)
    elif kind < 99:
        machine.tick(draw.choice([0.1, 1.0, 5.0, 30.0]))
    elif draw.random() < 0.2:
        machine.stop(index)
    elif draw.random() < 0.2:
        machine.close()


def random_history(seed: int, steps: int, make_lane: MakeLane = Lane, make_log: MakeLog = SpanLog) -> None:
    """A history that depends on nothing but `seed`."""
    draw = random.Random(seed)
    settings = SETTINGS[seed % len(SETTINGS)]
    machine = Machine(make_lane, make_log, seed=seed, **settings)  # type: ignore[arg-type]
    for _ in range(steps):
        step(machine, draw)
    machine.drain()
