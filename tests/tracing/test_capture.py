"""Snapshots: bounded, plain, taken when given, and without a line of the value's own code."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import gc
import hashlib
import json
import pathlib
import sys
import threading
import time
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
import pytest

from asynctrace._errors import ConfigurationError
from asynctrace.tracing._capture import Capture
from asynctrace.tracing._limits import Limits
from asynctrace.tracing._masking import MASKED, MASKER_FAILED, Masker

from ..patience import patient


def capture(**limits: Any) -> Capture:
    """With time enough, so that a noisy machine changes no answer."""
    return Capture(Limits(**{"capture_seconds": 10.0, **limits}), Masker(), time.monotonic_ns)


def taken(value: object, **limits: Any) -> Any:
    mime, text = capture(**limits).snapshot(value)
    assert mime == "application/json"
    return json.loads(text)


# --- the form ---


def test_a_plain_text_stays_text_and_all_else_becomes_json() -> None:
    assert capture().snapshot("tea") == ("text/plain", b"tea")
    assert capture().snapshot({"q": "tea"}) == ("application/json", b'{"q":"tea"}')


def test_a_snapshot_does_not_change_when_the_value_does() -> None:
    value = {"q": ["tea"]}
    _, before = capture().snapshot(value)
    attribute = capture().attribute(value)
    value["q"].append("milk")
    assert before == b'{"q":["tea"]}'
    assert attribute == {"q": ["tea"]}


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Named(NamedTuple):
    user: str
    password: str


@dataclasses.dataclass
class Plain:
    name: str
    token: str = "t"
    _hidden: int = 0


@dataclasses.dataclass(slots=True)
class Slotted:
    name: str
    other: int = 2


@attrs.define
class Attrs:
    name: str


class Model(pydantic.BaseModel):
    name: str
    password: str = "hunter2"


class Struct(msgspec.Struct):
    name: str
    inner: Any = None


UTC = datetime.UTC
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


class Text(str):
    __slots__ = ()


class Number(int):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (2**63 - 1, 2**63 - 1),
        (2**70, str(2**70)),
        (2**100_000, "[asynctrace: integer of 100001 bits]"),
        (b"tea", "tea"),
        (bytearray(b"tea"), "tea"),
        ([1, (2, [3])], [1, [2, [3]]]),
        ({1}, [1]),
        (frozenset({1}), [1]),
        (deque([1, 2]), [1, 2]),
        ({"a": {"b": None}}, {"a": {"b": None}}),
        ({2: 2, None: 3, True: 4, (1, 2): 5}, {"2": 2, "null": 3, "true": 4, "[1,2]": 5}),
        ({1: "int", "1": "str"}, {"1": "int", "1 (2)": "str"}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Text("tea"), "tea"),
        (Number(3), 3),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Named("bob", "hunter2"), {"user": "bob", "password": MASKED}),
        (namedtuple("P", "x y")(1, 2), {"x": 1, "y": 2}),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "2024-01-02T03:04:05+00:00"),
        (datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=BERLIN), "2024-01-02T03:04:05+01:00"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Plain("tea"), {"name": "tea", "token": MASKED}),
        (Slotted("tea"), {"name": "tea", "other": 2}),
        (Attrs("tea"), {"name": "tea"}),
        (Model(name="tea"), {"name": "tea", "password": MASKED}),
        (Struct("tea", Struct("x")), {"name": "tea", "inner": {"name": "x", "inner": None}}),
        (ValueError("no", 3), {"exception": "builtins.ValueError", "args": ["no", 3]}),
        (int, "<builtins.type builtins.int>"),
        (threading.Lock(), "<_thread.lock>"),
        (object(), "<builtins.object>"),
        (range(3), "range(0, 3)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_take_their_plain_form(value: object, expected: object) -> None:
    assert taken([value]) == [expected]


def test_a_time_zone_that_is_not_of_the_standard_library_is_not_asked() -> None:
    class Zone(datetime.tzinfo):
        def utcoffset(self, _: object) -> datetime.timedelta:
            raise AssertionError("asked")

    [text] = taken([datetime.datetime(2024, 1, 2, tzinfo=Zone())])
    assert text.startswith("2024-01-02T00:00:00 <")
    assert "Zone" in text


def test_bytes_that_are_no_text_become_their_length_and_hash() -> None:
    raw = b"\xff\x00\x01"
    assert taken([raw]) == [f"[asynctrace: 3 bytes, sha256 {hashlib.sha256(raw).hexdigest()}]"]


def test_a_bytearray_of_50_mb_is_not_copied() -> None:
    raw = bytearray(b"tea" * 17_000_000)
    sample = hashlib.sha256(raw[:65536] + raw[-65536:] + b"51000000").hexdigest()
    started = time.perf_counter()
    assert taken([raw]) == [f"[asynctrace: 51000000 bytes, sha256-sampled {sample}]"]
    assert time.perf_counter() - started < patient(0.5)


def test_lone_surrogates_come_out_as_valid_utf8() -> None:
    _, text = capture().snapshot("a\ud800b")
    assert text.decode() == "a\ufffdb"
    assert taken({"k\udc00": ["\ud83d\ude00 \ud800"]}) == {"k\ufffd": ["\U0001f600 \ufffd"]}
    assert capture().text("a\ud800" * 2000, 300).encode("utf-8", "surrogatepass")


# --- the budgets ---


def nested(parts: int = 100, text: str = "lorem ipsum dolor sit amet " * 15) -> dict[str, dict[str, str]]:
    return {f"part {i}": {f"field {j}": text for j in range(parts)} for i in range(parts)}


class EncodesEverything(Capture):
    """The faulty double for budgets: what most tracers do."""

    def snapshot(self, value: object, key: str = "") -> tuple[str, bytes]:
        return "application/json", json.dumps(value).encode()


def quickest(make: type[Capture], value: object) -> float:
    """Seconds of the thread's own time: what else the machine does is hardly a part of it in the best of many attempts."""
    one = make(Limits(), Masker(), time.thread_time_ns)
    best = 1.0
    for _ in range(20):
        start = time.thread_time()
        one.snapshot(value)
        best = min(best, time.thread_time() - start)
    return best


def test_capturing_a_nested_dict_of_4_mb_holds_the_loop_for_less_than_5_ms() -> None:
    value = nested()
    assert quickest(Capture, value) < 0.005
    assert quickest(EncodesEverything, nested(400, "x" * 30)) > 0.005  # the measurement can fail


def test_many_small_items_hold_the_loop_for_less_than_5_ms() -> None:
    assert quickest(Capture, {f"k{i}": {f"f{j}": j for j in range(100)} for i in range(1000)}) < 0.005
    assert quickest(Capture, [[i] * 3 for i in range(100_000)]) < 0.005
    assert quickest(Capture, {f"never seen {i} {j}": 1 for i in range(100) for j in range(100)}) < 0.005


@pytest.mark.parametrize("limit", [1024, 5000, 258_048])
@pytest.mark.parametrize("text", ["plain text, nothing else ", '"\\\n\x01', "é€😀", "\ud800x"])
def test_nothing_is_ever_larger_than_its_limit(limit: int, text: str) -> None:
    for value in (text * 50_000, {"a": text * 50_000, "b": 1}, nested(40, text * 20), [text] * 20_000):
        mime, encoded = capture(value_bytes=limit, nodes=100_000).snapshot(value)
        assert len(encoded) <= limit
        assert len(encoded) > limit // 3  # and the room is used
        if mime == "application/json":
            json.loads(encoded)


def test_a_text_of_50_mb_is_cut_with_its_length_and_a_hash() -> None:
    text = "x y" * 17_000_000
    started = time.perf_counter()
    _, encoded = capture().snapshot(text)
    assert time.perf_counter() - started < patient(0.5)
    assert len(encoded) <= 258_048
    assert encoded.startswith(b"x yx y")
    sample = hashlib.sha256(text[:65536].encode() + text[-65536:].encode() + b"51000000").hexdigest()
    assert encoded.endswith(f"[asynctrace: cut, 51000000 characters, sha256-sampled {sample}]".encode())


def test_a_cut_text_of_moderate_size_carries_the_hash_of_all_of_it() -> None:
    text = "x y" * 100_000
    whole = hashlib.sha256(text.encode()).hexdigest()
    _, encoded = capture().snapshot(text)
    assert encoded.endswith(f"[asynctrace: cut, 300000 characters, sha256 {whole}]".encode())
    assert hashlib.sha256(text.encode()).hexdigest() in taken({"a": text})["a"]


def test_values_behind_a_long_text_are_still_seen() -> None:
    seen = taken({"long": "x y" * 200_000, "after": 1})
    assert seen["after"] == 1
    assert "[asynctrace: cut, 600000 characters" in seen["long"]


def test_what_is_left_out_of_a_container_is_counted() -> None:
    assert taken(list(range(100)), nodes=10)[-1] == "[asynctrace: 90 items left out]"
    assert len(taken(list(range(100)), nodes=10)) == 11
    many = taken({str(i): i for i in range(100)}, nodes=10)
    assert many["…"] == "[asynctrace: 90 items left out]"


def test_time_ends_a_walk_but_one_pause_does_not() -> None:
    def ticking(step: int) -> Callable[[], int]:
        ticks = iter(range(0, 10**15, step))
        return lambda: next(ticks)

    def items(now: Callable[[], int]) -> list[object]:
        value = list(range(5000))
        return json.loads(Capture(Limits(), Masker(), now).snapshot(value)[1])

    assert len(items(ticking(10_000))) == 5000
    assert len(items(ticking(10**9))) < 300  # each look at the clock says a second
    pause = iter([0, 10**9] + [10**9 + i for i in range(100)])
    assert len(items(lambda: next(pause))) == 5000


def test_nesting_of_10_000_and_cycles_end_in_a_marker() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    text = capture().snapshot(deep)[1].decode()
    assert "[asynctrace: too deep, builtins.list]" in text
    cyclic: dict[str, Any] = {"a": [1]}
    cyclic["a"].append(cyclic)
    assert taken(cyclic) == {"a": [1, "[asynctrace: cycle]"]}
    shared = [1]
    assert taken([shared, shared]) == [[1], [1]]  # twice is no cycle
    while deep:  # take it apart: its own deallocation is recursive
        deep = deep[0]


def test_a_container_changed_by_other_threads_is_no_error() -> None:
    value: dict[str, Any] = {str(i): i for i in range(1000)}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            value[f"x{number % 2000}"] = number
            value.pop(f"x{(number * 7) % 2000}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            assert "could not be captured" not in capture().snapshot(value)[1].decode()
    finally:
        stop.set()
        thread.join()


# --- no line of the value's own code ---

CALLS: list[str] = []

_DUNDERS = """
__getattribute__ __getattr__ __repr__ __str__ __len__ __iter__ __next__ __bool__ __eq__ __ne__ __hash__
__lt__ __format__ __contains__ __getitem__ __reversed__ __reduce__ __reduce_ex__ __getstate__ __copy__
__deepcopy__ __dir__ __length_hint__ __index__ __int__ __float__ __complex__ __bytes__ __fspath__
__call__ __enter__ __exit__ __await__ __aiter__ __anext__ __array__ __sizeof__ __add__ __sub__ __mod__
__abs__ __neg__ __missing__ __instancecheck__ __subclasscheck__ __buffer__ keys items values get
isoformat utcoffset as_integer_ratio bit_length encode
"""
DUNDERS = _DUNDERS.split()


def recorded(name: str) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        CALLS.append(name)
        raise RuntimeError(f"{name} was called")

    return call


def spying(*bases: type, meta: type = type) -> type:
    """A class whose every method, and some properties, record that they ran."""
    body: dict[str, Any] = {name: recorded(name) for name in DUNDERS}
    if not (bases and issubclass(bases[0], int | float)):
        body["__class__"] = property(recorded("__class__"))
        body["__dict__"] = property(recorded("__dict__"))
    body["value"] = property(recorded("value"))
    return meta("Spy", bases, body)


class SpyMeta(type):
    pass


for _name in DUNDERS:
    if _name not in {"__sizeof__", "__call__"}:  # needed to make the instances
        setattr(SpyMeta, _name, recorded(f"meta {_name}"))


def made(*bases: type, arguments: tuple[Any, ...] = (), meta: type = type) -> object:
    cls = spying(*bases, meta=meta)
    base = bases[0] if bases else object
    return base.__new__(cls, *arguments)


def make_filled(base: type, fill: Callable[[Any], None]) -> object:
    value = made(base)
    fill(value)
    return value


def spies() -> Iterator[object]:
    yield made()
    yield made(meta=SpyMeta)
    yield spying(meta=SpyMeta)  # the class itself
    yield made(str, arguments=("tea",))
    yield made(int, arguments=(3,))
    yield made(float, arguments=(2.5,))
    yield made(bytes, arguments=(b"tea",))
    yield made(tuple, arguments=((1, 2),))
    yield make_filled(list, lambda value: list.extend(value, [1, 2]))
    yield make_filled(dict, lambda value: dict.update(value, {"a": 1}))
    yield make_filled(set, lambda value: set.update(value, [1]))
    yield make_filled(deque, lambda value: deque.extend(value, [1]))
    yield made(Exception, arguments=("broken",))
    yield made(datetime.datetime, arguments=(2024, 1, 2))
    yield made(decimal.Decimal, arguments=("1",))
    yield made(pathlib.PurePosixPath) if sys.version_info >= (3, 12) else made()
    yield made(type("Claims", (), {"__dataclass_fields__": {}, "_fields": ("a",)}))


class CallsRepr(Capture):
    """A faulty double: what it does not know it prints."""

    def snapshot(self, value: object, key: str = "") -> tuple[str, bytes]:
        try:
            return "application/json", json.dumps(repr(value)).encode()
        except Exception:
            return "application/json", b'"?"'


class AsksForTheClass(Capture):
    """A faulty double: `isinstance` reads `__class__`."""

    def snapshot(self, value: object, key: str = "") -> tuple[str, bytes]:
        try:
            isinstance(value, list | dict)
        except Exception:
            return "application/json", b'"?"'
        return super().snapshot(value, key)


class Iterates(Capture):
    """A faulty double: whatever can be iterated is."""

    def snapshot(self, value: object, key: str = "") -> tuple[str, bytes]:
        try:
            return "application/json", json.dumps(list(value)).encode()  # type: ignore[call-overload]
        except Exception:
            return super().snapshot(value, key)


def calls_made_by(make: type[Capture]) -> list[str]:
    one = make(Limits(capture_seconds=10.0), Masker(), time.monotonic_ns)
    seen: list[str] = []
    for spy in spies():
        for value in (spy, [spy], {"k": spy}):
            CALLS.clear()
            for take in (one.snapshot, one.attribute):
                take(value)
            seen += CALLS
    CALLS.clear()
    return seen


def test_no_method_property_or_metaclass_of_a_value_runs() -> None:
    assert calls_made_by(Capture) == []


@pytest.mark.parametrize("faulty", [CallsRepr, AsksForTheClass, Iterates])
def test_a_capture_that_runs_the_values_code_would_be_caught(faulty: type[Capture]) -> None:
    assert calls_made_by(faulty)


def test_one_shot_iterators_are_not_consumed() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)

    generator, iterator, mapped = numbers(), iter([1, 2, 3]), map(str, [1, 2, 3])
    text = capture().snapshot([generator, iterator, mapped])[1].decode()
    assert "<builtins.generator>" in text
    assert list(generator) == [1, 2, 3]
    assert list(iterator) == [1, 2, 3]
    assert list(mapped) == ["1", "2", "3"]
    consumed = numbers()
    Iterates(Limits(), Masker(), time.monotonic_ns).snapshot(consumed)
    assert list(consumed) == []  # the detector can fail


def test_a_coroutine_is_neither_awaited_nor_closed() -> None:
    async def work() -> int:
        return 3

    coroutine = work()
    assert taken([coroutine]) == ["<builtins.coroutine>"]
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_lazy_fields_of_a_row_are_not_loaded() -> None:
    loads: list[str] = []

    class Lazy:
        def __get__(self, row: object, owner: type) -> str:
            loads.append("queried")
            return "loaded"

    @dataclasses.dataclass
    class Row:
        name: str

    Row.orders = Lazy()  # type: ignore[attr-defined]
    assert taken([Row("tea")]) == [{"name": "tea"}]
    assert loads == []
    assert Row("tea").orders == "loaded"
    assert loads == ["queried"]


def test_a_value_is_not_kept_alive() -> None:
    import weakref

    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    one = capture()
    one.snapshot([thing, {"a": thing}])
    one.attribute(thing)
    del thing
    gc.collect()
    assert gone() is None


def test_a_field_that_cannot_be_read_is_a_marker_and_its_neighbors_stay() -> None:
    import fractions

    seen = taken({"a": fractions.Fraction(10**5000, 3), "b": 2})
    assert seen == {"a": "[asynctrace: could not be captured: builtins.ValueError]", "b": 2}


def test_a_broken_clock_is_no_error_and_an_interrupt_passes() -> None:
    def broken() -> int:
        raise OSError

    one = Capture(Limits(), Masker(), broken)
    assert one.snapshot({"a": 1}) == (
        "application/json",
        b'"[asynctrace: could not be captured: builtins.OSError]"',
    )
    assert one.attribute({"a": 1}) == "[asynctrace: could not be captured: builtins.OSError]"

    def interrupted() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Capture(Limits(), Masker(), interrupted).snapshot({"a": 1})


# --- attributes, names ---


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        ("tea", "tea"),
        (b"tea", b"tea"),
        (2**70, str(2**70)),
        ([1, "a"], (1, "a")),
        ((1, 2), (1, 2)),
        ({"a": [1]}, {"a": [1]}),
        ({1}, "[1]"),
        (Text("tea"), "tea"),
        (Color.RED, "red"),
        (4111111111111111, MASKED),
        (b"Bearer abcdef123456", b"Bearer [masked]"),
        (Plain("tea"), '{"name":"tea","token":"[masked]"}'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attributes_keep_what_the_wire_can_carry(value: object, expected: object) -> None:
    got = capture().attribute(value, "field")
    assert got == expected
    assert type(got) is type(expected)


def test_everything_under_a_secret_name_is_masked() -> None:
    for value in ("x", 3, 2.5, b"x", ["x"], {"a": "x"}, object()):
        assert capture().attribute(value, "password") == MASKED
        assert taken({"password": value, "q": 1}) == {"password": MASKED, "q": 1}
    assert taken({"password": None, "token": True}) == {"password": None, "token": True}


def test_long_attributes_are_cut_to_their_limit() -> None:
    one = capture(attribute_bytes=1000)
    for text in ("x" * 5000, "é" * 5000, "é" * 900):
        cut = one.attribute(text)
        assert isinstance(cut, str)
        assert len(cut.encode()) <= 1000
        assert f"[asynctrace: cut, {len(text)} characters" in cut
    cut = one.attribute(b"\xff" * 5000)
    assert isinstance(cut, bytes)
    assert len(cut) <= 1000
    assert b"[asynctrace: cut, 5000 bytes, sha256 " in cut
    assert len(one.text("n" * 5000, 300)) <= 300
    assert one.text(Text("name"), 300) == "name"


def test_a_failing_custom_masker_redacts_its_field_and_only_that() -> None:
    def custom(key: str, text: str) -> str:
        if key == "bad":
            raise ValueError
        return text

    errors: list[BaseException] = []
    one = Capture(Limits(), Masker.from_option(custom, errors.append), time.monotonic_ns)
    assert json.loads(one.snapshot({"bad": "raw", "good": "tea"})[1]) == {"bad": MASKER_FAILED, "good": "tea"}
    assert one.attribute("raw", "bad") == MASKER_FAILED
    assert b"raw" not in one.snapshot({"bad": "raw " * 200_000})[1]
    assert len(errors) == 3


# --- exceptions ---


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    local_secret = "in a local variable"  # noqa: F841
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_an_exception_is_its_class_message_and_stack() -> None:
    name, message, trace = capture().exception(raised(KeyError("tea"), raised(ValueError("no kettle"))))
    assert (name, message) == ("KeyError", "'tea'")
    assert trace.index("ValueError: no kettle") < trace.index("direct cause") < trace.index("KeyError: 'tea'")
    assert "in raised" in trace
    assert "raise error from cause" in trace
    assert "in a local variable" not in trace


def test_context_groups_and_notes_are_part_of_the_trace() -> None:
    group = ExceptionGroup("both", [raised(ValueError("one")), ExceptionGroup("in", [TypeError("two")])])
    group.add_note("a note")
    try:
        try:
            raise LookupError("first")
        except LookupError:
            raise group  # noqa: B904
    except ExceptionGroup as caught:
        _, _, trace = capture().exception(caught)
    assert "During handling" in trace
    assert "LookupError: first" in trace
    assert "ValueError: one" in trace
    assert "TypeError: two" in trace
    assert "a note" in trace


def test_the_class_of_an_exception_is_named_with_its_module() -> None:
    assert capture().exception(json.JSONDecodeError("m", "d", 0))[0] == "json.decoder.JSONDecodeError"


class Liar(Exception):
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __str__(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [RuntimeError("x"), RecursionError(), 3, None])
def test_an_exception_that_cannot_say_what_it_is_gets_a_marker(answer: object) -> None:
    _, message, trace = capture().exception(raised(Liar(answer)))
    assert message.startswith("[asynctrace: __str__ failed: builtins.")
    assert message in trace


def test_secrets_in_messages_and_traces_are_masked() -> None:
    error = raised(ValueError("cannot connect to postgres://bob:hunter2@db.example"))
    assert not any("hunter2" in text for text in capture().exception(error))


def test_attributes_of_objects_named_in_an_error_are_not_looked_at() -> None:
    """`traceback.TracebackException` calls `dir()` on them from Python 3.12 on."""
    spy = made()
    error = AttributeError("no", name="nmae", obj=spy)
    CALLS.clear()
    capture().exception(raised(error))
    assert CALLS == []


def test_long_chains_and_deep_stacks_are_bounded() -> None:
    error: BaseException = ValueError("first")
    for number in range(5000):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following

    def deeper(left: int) -> None:
        if left == 0:
            raise ValueError("bottom")
        deeper(left - 1)

    started = time.perf_counter()
    _, _, trace = capture().exception(error)
    assert "number 4999" in trace
    assert "left out" in trace
    try:
        deeper(800)
    except ValueError as caught:
        _, _, trace = capture().exception(caught)
    assert "outer frames left out" in trace
    assert "ValueError: bottom" in trace
    many = ExceptionGroup("many", [ValueError(str(i)) for i in range(50_000)])
    assert "further members left out" in capture().exception(many)[2]
    assert time.perf_counter() - started < patient(2)
    while error.__cause__ is not None:  # take it apart: its own deallocation is recursive
        error = error.__cause__


def test_a_message_of_10_mb_is_cut() -> None:
    for text in capture().exception(ValueError("x y" * 3_500_000)):
        assert len(text) <= 16_384


# --- limits ---


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 0},
        {"depth": 33},
        {"nodes": -1},
        {"value_bytes": 10},
        {"attribute_bytes": "many"},
        {"events": True},
        {"capture_seconds": 0},
        {"capture_seconds": float("nan")},
        {"name_bytes": 1.5},
    ],
)
def test_limits_that_cannot_work_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Limits(**options)


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Limits().depth = 3  # type: ignore[misc]
