"""What a carrier is made of arrives on the other side as it was, and a carrier is small, whatever it is made of."""

from __future__ import annotations

import copy
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynctrace._errors import MisuseError
from asynctrace.propagation import (
    CARRIER_VERSION,
    MOST_CARRIER_BYTES,
    Carried,
    RemoteSpan,
    extract_headers,
    format_traceparent,
    make_carrier,
    parse_baggage,
    read_carrier,
)

from .odd import NOT_PLAIN, Angry, Level, LyingDict, LyingList, LyingText, LyingTuple, Point, Tier, nested
from .values import ANY_SPEED, CARRIED, PLAIN, TEXTS, a_span

Make = Callable[[Carried], dict[str, Any]]

LEFT_OUT_FIRST = ["metadata", "baggage", "tags", "name", "project", "user_id", "session_id", "run_id"]
WHOLE = Carried(
    span=a_span(tracestate="foo=1", is_random=True),
    run_id="r-1",
    name="checkout",
    session_id="s-1",
    user_id="ü-7",
    project="shop",
    tags=("a", "b"),
    metadata={"tier": "gold", "items": [1, 2.5, None, True, {"deep": []}]},
    baggage=parse_baggage(["tenant=t%201;ttl=3"]),
)
NOTHING_SET = Carried(span=a_span())
TRANSPORTS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda carrier: carrier,
    "json": lambda carrier: json.loads(json.dumps(carrier)),
    "compact JSON": lambda carrier: msgspec.json.decode(msgspec.json.encode(carrier)),
    "MessagePack": lambda carrier: msgspec.msgpack.decode(msgspec.msgpack.encode(carrier)),
    "pickle": lambda carrier: pickle.loads(pickle.dumps(carrier)),
    "the first pickle": lambda carrier: pickle.loads(pickle.dumps(carrier, protocol=0)),
}


def without(carried: Carried, names: list[str]) -> Carried:
    defaults: dict[str, Any] = {name: getattr(NOTHING_SET, name) for name in names if name != "tracestate"}
    span = carried.span._replace(tracestate="") if "tracestate" in names else carried.span
    return msgspec.structs.replace(carried, span=span, **defaults)


def left_out_of(carrier: dict[str, Any]) -> list[str]:
    names: list[str] = carrier["asynctrace"].get("left_out", [])
    return names


# The layout --------------------------------------------------------------------------------------------------------


def test_a_carrier_is_trace_context_of_w3c_and_the_fields_that_are_set() -> None:
    assert make_carrier(NOTHING_SET) == {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "asynctrace": {"version": 1},
    }
    assert make_carrier(WHOLE) == {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
        "tracestate": "foo=1",
        "baggage": "tenant=t%201;ttl=3",
        "asynctrace": {
            "version": 1,
            "run_id": "r-1",
            "name": "checkout",
            "session_id": "s-1",
            "user_id": "ü-7",
            "project": "shop",
            "tags": ["a", "b"],
            "metadata": {"tier": "gold", "items": [1, 2.5, None, True, {"deep": []}]},
        },
    }
    assert (CARRIER_VERSION, MOST_CARRIER_BYTES) == (1, 2000)


def test_a_field_that_is_set_to_an_empty_text_is_not_one_that_is_not_set() -> None:
    carried = msgspec.structs.replace(NOTHING_SET, run_id="", user_id="")
    assert make_carrier(carried)["asynctrace"] == {"version": 1, "run_id": "", "user_id": ""}
    assert read_carrier(make_carrier(carried)) == carried


def test_whoever_reads_headers_finds_the_span_in_a_carrier() -> None:
    assert extract_headers(make_carrier(WHOLE)) == WHOLE.span


# Promises of every maker -------------------------------------------------------------------------------------------


def check_size(make: Make, carried: Carried) -> None:
    carrier = make(carried)
    assert len(json.dumps(carrier)) < MOST_CARRIER_BYTES
    assert len(msgspec.json.encode(carrier)) < MOST_CARRIER_BYTES
    assert len(json.dumps(carrier, separators=(",", ":"), ensure_ascii=False).encode()) < MOST_CARRIER_BYTES


def check_round_trip(make: Make, carried: Carried) -> None:
    carrier = make(carried)
    expected = without(carried, left_out_of(carrier))
    for name, carry in TRANSPORTS.items():
        assert read_carrier(carry(carrier)) == expected, name


def check_order(make: Make, carried: Carried) -> None:
    """First goes what is too large alone, then the rest in its order, and no more than must."""
    is_set = [name for name in LEFT_OUT_FIRST if getattr(carried, name) != getattr(NOTHING_SET, name)]
    alone = {name: without(carried, [other for other in is_set if other != name]) for name in is_set}
    goes_first = [name for name in is_set if is_too_large(alone[name], [])]
    goes = [*goes_first, *(name for name in is_set if name not in goes_first)]
    left_out = left_out_of(make(carried))
    assert left_out == [name for name in is_set if name in goes[: len(left_out)]]
    kept_too_long = goes[: len(left_out) - 1]
    assert not left_out or is_too_large(without(carried, kept_too_long), kept_too_long)


def is_too_large(carried: Carried, left_out: list[str]) -> bool:
    return len(json.dumps(_unbounded(carried, left_out))) >= MOST_CARRIER_BYTES


def _unbounded(carried: Carried, left_out: list[str]) -> dict[str, Any]:
    fields = {name: value for name in LEFT_OUT_FIRST if (value := getattr(carried, name)) != getattr(NOTHING_SET, name)}
    baggage = {"baggage": fields.pop("baggage").header()} if "baggage" in fields else {}
    own = {"version": 1, **fields, **({"left_out": left_out} if left_out else {})}
    state = {"tracestate": carried.span.tracestate} if carried.span.tracestate else {}
    return {"traceparent": format_traceparent(carried.span), **state, **baggage, "asynctrace": own}


def check_apart(make: Make, carried: Carried) -> None:
    """Nothing that can change is shared, and a carrier is made of builtin types."""
    carried = copy.deepcopy(carried)
    carrier = make(carried)
    before = json.dumps(carrier)
    assert _types(carrier) <= {str, int, float, bool, type(None), list, dict}
    for value in carried.metadata.values():
        if isinstance(value, list):
            value.append("changed")
    carried.metadata["changed"] = True
    assert json.dumps(carrier) == before


def _types(value: object) -> set[type]:
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return {type(value)}.union(*map(_types, inner))


@ANY_SPEED
@given(CARRIED)
@example(WHOLE)
@example(NOTHING_SET)
@example(msgspec.structs.replace(WHOLE, metadata={"long": "x" * 100_000}))
def test_whatever_it_is_made_of(carried: Carried) -> None:
    check_size(make_carrier, carried)
    check_round_trip(make_carrier, carried)
    check_order(make_carrier, carried)
    check_apart(make_carrier, carried)


@ANY_SPEED
@given(PLAIN)
def test_metadata_that_fits_arrives_as_it_was(value: Any) -> None:
    carried = msgspec.structs.replace(NOTHING_SET, metadata={"a": value})
    carrier = make_carrier(carried)
    if len(json.dumps(_unbounded(carried, []))) < MOST_CARRIER_BYTES:
        assert read_carrier(json.loads(json.dumps(carrier))) == carried
    else:
        assert left_out_of(carrier) == ["metadata"]


@pytest.mark.parametrize("character", ["x", "é", "語", "😀", '"', "\x00"], ids=ascii)
def test_up_to_the_last_byte_a_name_is_kept(character: str) -> None:
    written = len(json.dumps(character)) - 2
    empty = len(json.dumps(_unbounded(msgspec.structs.replace(NOTHING_SET, name="?"), []))) - 1
    most = (MOST_CARRIER_BYTES - 1 - empty) // written
    fits, too_long = (msgspec.structs.replace(NOTHING_SET, name=character * count) for count in (most, most + 1))
    assert read_carrier(make_carrier(fits)) == fits
    assert left_out_of(make_carrier(too_long)) == ["name"]


def test_everything_at_its_largest_leaves_the_ids_and_the_tracestate() -> None:
    state = ",".join(name + "=" + "\\" * 100 for name in "abcd") + ",e=" + "\\" * 98  # each is written as two
    assert len(state) == 512
    huge = "\x00" * 5000
    carried = Carried(
        span=a_span(tracestate=state),
        run_id=huge,
        name=huge,
        session_id=huge,
        user_id=huge,
        project=huge,
        tags=(huge,),
        metadata={huge: huge},
    )
    carrier = make_carrier(carried)
    assert left_out_of(carrier) == [name for name in LEFT_OUT_FIRST if name != "baggage"]
    assert read_carrier(carrier) == Carried(span=carried.span)
    check_size(make_carrier, carried)


def test_a_tracestate_that_is_invalid_is_left_out_by_name() -> None:
    carrier = make_carrier(Carried(span=a_span(tracestate="foo=1,Foo=2"), name="n"))
    assert "tracestate" not in carrier
    assert left_out_of(carrier) == ["tracestate"]
    assert read_carrier(carrier) == Carried(span=a_span(), name="n")


def test_a_span_without_ids_is_a_misuse() -> None:
    with pytest.raises(MisuseError):
        make_carrier(Carried(span=RemoteSpan("", "", is_sampled=True)))


# Odd values --------------------------------------------------------------------------------------------------------


BECOMES_PLAIN: dict[str, tuple[Any, Any]] = {
    "an enum of texts": (Tier.GOLD, "gold"),
    "an enum of numbers": (Level.TOP, 3),
    "a tuple": ((1, (2,)), [1, [2]]),
    "a named tuple": (Point(1, 2), [1, 2]),
    "a text that lies": (LyingText("abc"), "abc"),
    "a mapping that lies": (LyingDict(a=1, b=2), {"a": 1, "b": 2}),
    "a tuple that lies": (LyingTuple((1, 2)), [1, 2]),
    "a list that lies": (LyingList([1, 2]), [1, 2]),
    "an ordered mapping": (OrderedDict(a=1), {"a": 1}),
    "64 bits": (2**64 - 1, 2**64 - 1),
    "19 levels in metadata": (nested(19), nested(19)),
}


def check_not_plain(make: Make) -> None:
    for what, value in NOT_PLAIN.items():
        for metadata in ({"odd": value}, {"fine": 1, "odd": [value]}):
            carrier = make(msgspec.structs.replace(WHOLE, metadata=metadata))
            assert left_out_of(carrier) == ["metadata"], what
            assert read_carrier(carrier) == without(WHOLE, ["metadata"]), what


def test_metadata_that_json_cannot_say_is_left_out_whole_and_nothing_else_is() -> None:
    check_not_plain(make_carrier)


@pytest.mark.parametrize(("value", "plain"), BECOMES_PLAIN.values(), ids=BECOMES_PLAIN)
def test_what_is_plain_below_its_type_arrives_plain(value: Any, plain: Any) -> None:
    carrier = make_carrier(msgspec.structs.replace(NOTHING_SET, metadata={"a": value}))
    assert _types(carrier) <= {str, int, list, dict}
    assert carrier["asynctrace"] == {"version": 1, "metadata": {"a": plain}}


NO_FIELD: dict[str, Any] = {
    "a number": 7,
    "a boolean": True,
    "bytes": b"a",
    "an object that raises": Angry(),
    "a mapping of numbers": {1: 2},
    "a list of nothing": [None],
    "a tuple of mappings": ({},),
    "half a character": "\ud800",
}


@pytest.mark.parametrize("name", LEFT_OUT_FIRST)
@pytest.mark.parametrize("what", NO_FIELD)
def test_any_field_of_a_wrong_type_is_left_out_by_name(name: str, what: str) -> None:
    carrier = make_carrier(msgspec.structs.replace(WHOLE, **{name: NO_FIELD[what]}))
    assert left_out_of(carrier) == [name]
    assert read_carrier(carrier) == without(WHOLE, [name])


ODD_OR_PLAIN = PLAIN | st.sampled_from(list(NOT_PLAIN)).map(lambda what: (what,))


@ANY_SPEED
@given(st.dictionaries(TEXTS, ODD_OR_PLAIN))
def test_no_metadata_makes_it_raise(named: dict[str, Any]) -> None:
    metadata = {key: NOT_PLAIN[value[0]] if isinstance(value, tuple) else value for key, value in named.items()}
    check_size(make_carrier, msgspec.structs.replace(WHOLE, metadata=metadata))


# The checks themselves -------------------------------------------------------------------------------------------


def no_bound(carried: Carried) -> dict[str, Any]:
    return _unbounded(carried, [])


def bound_in_characters(carried: Carried) -> dict[str, Any]:
    text = json.dumps(carrier := _unbounded(carried, []), ensure_ascii=False)
    return carrier if len(text) < MOST_CARRIER_BYTES else make_carrier(carried)


def one_byte_more(carried: Carried) -> dict[str, Any]:
    carrier = _unbounded(carried, [])
    return carrier if len(json.dumps(carrier)) <= MOST_CARRIER_BYTES else make_carrier(carried)


LARGE = [
    msgspec.structs.replace(NOTHING_SET, name=name)
    for name in (
        "x" * 5000,
        "é" * 1000,
        "x" * (2001 - len(json.dumps(_unbounded(msgspec.structs.replace(NOTHING_SET, name="x"), [])))),
    )
]


@pytest.mark.parametrize("broken", [no_bound, bound_in_characters, one_byte_more])
def test_the_check_notices_a_carrier_that_has(broken: Make) -> None:
    for carried in LARGE:
        check_size(make_carrier, carried)
    with pytest.raises(AssertionError):
        [check_size(broken, carried) for carried in LARGE]


def leaves_out_everything(carried: Carried) -> dict[str, Any]:
    whole = _unbounded(carried, [])
    names = [name for name in LEFT_OUT_FIRST if name in whole["asynctrace"]]
    is_small = len(json.dumps(whole)) < MOST_CARRIER_BYTES
    return whole if is_small else _unbounded(without(carried, names), names)


def leaves_out_the_run_first(carried: Carried) -> dict[str, Any]:
    carrier, names = _unbounded(carried, []), []
    for name in reversed(LEFT_OUT_FIRST):
        if len(json.dumps(carrier)) < MOST_CARRIER_BYTES:
            break
        names.append(name)
        carrier = _unbounded(without(carried, names), names)
    return carrier


@pytest.mark.parametrize("broken", [leaves_out_everything, leaves_out_the_run_first])
def test_the_check_notices_a_carrier_that(broken: Make) -> None:
    carried = msgspec.structs.replace(WHOLE, metadata={"long": "x" * 5000})
    check_order(make_carrier, carried)
    with pytest.raises(AssertionError):
        check_order(broken, carried)


def cuts_in_silence(carried: Carried) -> dict[str, Any]:
    return make_carrier(msgspec.structs.replace(carried, metadata={}))


def turns_ids_around(carried: Carried) -> dict[str, Any]:
    return make_carrier(msgspec.structs.replace(carried, run_id=carried.session_id, session_id=carried.run_id))


def shares_metadata(carried: Carried) -> dict[str, Any]:
    carrier = make_carrier(carried)
    carrier["asynctrace"]["metadata"] = carried.metadata
    return carrier


def keeps_tuples(carried: Carried) -> dict[str, Any]:
    carrier = make_carrier(carried)
    carrier["asynctrace"]["tags"] = carried.tags
    return carrier


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (cuts_in_silence, check_round_trip),
        (turns_ids_around, check_round_trip),
        (shares_metadata, check_apart),
        (keeps_tuples, check_apart),
    ],
)
def test_the_check_notices_a_maker_that(broken: Make, check: Callable[[Make, Carried], None]) -> None:
    carried = msgspec.structs.replace(WHOLE, metadata={"a": [1]})
    check(make_carrier, carried)
    with pytest.raises(AssertionError):
        check(broken, carried)


def writes_what_it_gets(carried: Carried) -> dict[str, Any]:
    carrier = _unbounded(carried, [])
    return carrier if len(str(carrier)) < MOST_CARRIER_BYTES else make_carrier(carried)


def writes_what_json_takes(carried: Carried) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(_unbounded(carried, [])))  # type: ignore[no-any-return]
    except (TypeError, ValueError, RecursionError, OSError, ZeroDivisionError):
        return make_carrier(carried)


@pytest.mark.parametrize("broken", [writes_what_it_gets, writes_what_json_takes])
def test_the_check_notices_a_maker_that_trusts_metadata(broken: Make) -> None:
    with pytest.raises((AssertionError, OSError)):
        check_not_plain(broken)
