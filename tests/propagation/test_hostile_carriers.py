"""Whatever a reader is given: what it says, or one of three reasons, soon, and no exception."""

from __future__ import annotations

import copy
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace._errors import MisuseError
from asynctrace.propagation import Carried, extract_headers, make_carrier, read_carrier

from .hostile import GOOD, READ, REFUSED, TEXT, TOO_LARGE, WHOLE, Pairs, raising
from .odd import NOT_PLAIN, Angry
from .values import ANY_SPEED, CARRIED, PLAIN, a_span

Read = Callable[[object], Carried | str]

MOST_STEPS = 3_000_000
"""Calls that reading 64 Ki characters may make. Work that grows with what is given soon makes more."""
FEW_STEPS = 5_000


def check_read(read: Read) -> None:
    for what, (carrier, expected) in READ.items():
        assert read(carrier) == expected, what


def check_refused(read: Read, reason: str) -> None:
    for what, carrier in REFUSED[reason].items():
        assert read(carrier) == reason, what


def check_newer(read: Read) -> None:
    check_refused(read, "newer_version")


def check_malformed(read: Read) -> None:
    check_refused(read, "malformed")


def check_work(read: Read) -> None:
    """What is large is refused after some steps, however large it is; most of it without one."""
    for what, carrier in TOO_LARGE.items():
        assert steps_of(read, carrier) <= MOST_STEPS, what
    for what in ("a million keys", "a long text", "a million tags", "a long text that lies"):
        assert steps_of(read, TOO_LARGE[what]) <= FEW_STEPS, what
    endless = Pairs(zip(itertools.count(), itertools.count(), strict=True))
    assert read(endless) == "too_large"
    assert endless.taken <= 101


class TooMuchWork(BaseException):
    """No `Exception`: a reader would take it for the carrier's."""


def steps_of(read: Read, carrier: object) -> int:
    """How many calls, of Python and of C, reading makes; one more than may be, when it makes more."""
    steps = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")
        if steps > MOST_STEPS:
            raise TooMuchWork

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read(carrier)
    except TooMuchWork:
        pass
    finally:
        sys.setprofile(before)
    return steps


def check_well_formed(read: Read, carrier: object) -> None:
    """Whatever is read can be used without a look: it makes a carrier again, which says the same."""
    found = read(carrier)
    if isinstance(found, str):
        assert found in REFUSED
    else:
        made = make_carrier(found)
        fits = "left_out" not in made["asynctrace"]
        assert not fits or read_carrier(json.loads(json.dumps(made))) == found


def check_apart(read: Read) -> None:
    """What is read does not change when the carrier does."""
    carrier = copy.deepcopy(GOOD)
    found = read(carrier)
    carrier["asynctrace"]["metadata"]["deep"]["a"].append("changed")
    carrier["asynctrace"]["tags"].append("changed")
    assert found == WHOLE


@pytest.mark.parametrize("what", READ)
def test_what_is_read_is(what: str) -> None:
    carrier, expected = READ[what]
    assert read_carrier(carrier) == expected


@pytest.mark.parametrize(("reason", "what"), [(reason, what) for reason, table in REFUSED.items() for what in table])
def test_what_cannot_be_read_has_a_reason(reason: str, what: str) -> None:
    assert read_carrier(REFUSED[reason][what]) == reason


@pytest.mark.parametrize("check", [check_read, check_malformed, check_newer, check_work, check_apart])
def test_the_reader_keeps_the_promises_that_its_doubles_break(check: Callable[[Read], None]) -> None:
    check(read_carrier)


KEYS = st.sampled_from(
    [
        "traceparent",
        "tracestate",
        "asynctrace",
        "version",
        "run_id",
        "name",
        "tags",
        "metadata",
        "TRACEPARENT",
        b"asynctrace",
        7,
    ]
)
ODD = st.sampled_from(list(NOT_PLAIN)).map(lambda what: (what,))  # hypothesis asks what it draws; put in later
PARTS = st.sampled_from([TEXT, TEXT.upper(), "a=1", 1, 2, True, 1.0, GOOD, GOOD["asynctrace"], {"version": 1}])
ANYTHING = st.recursive(
    PLAIN | ODD | PARTS | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=15,
)


def put_in(value: Any) -> Any:
    if isinstance(value, tuple):
        return NOT_PLAIN[value[0]]
    if isinstance(value, list):
        return [put_in(inner) for inner in value]
    return {key: put_in(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@ANY_SPEED
@given(ANYTHING)
def test_anything(value: Any) -> None:
    check_well_formed(read_carrier, put_in(value))


@ANY_SPEED
@given(st.dictionaries(KEYS, ANYTHING))
def test_any_mapping(value: Any) -> None:
    check_well_formed(read_carrier, put_in(value))
    check_well_formed(read_carrier, Pairs([*put_in(value).items()]))


@settings(ANY_SPEED, max_examples=60)
@given(st.dictionaries(KEYS, ANYTHING), st.dictionaries(KEYS, ANYTHING))
def test_any_change_of_a_carrier(changes: Any, changes_of_ours: Any) -> None:
    ours = {**GOOD["asynctrace"], **put_in(changes_of_ours)}
    check_well_formed(read_carrier, {**GOOD, "asynctrace": ours, **put_in(changes)})
    check_well_formed(read_carrier, {**GOOD, "asynctrace": ours})


@ANY_SPEED
@given(CARRIED, st.data())
def test_a_carrier_with_some_of_its_text_cut_out(whole: Carried, draw: st.DataObject) -> None:
    text = json.dumps(make_carrier(whole))
    start = draw.draw(st.integers(0, len(text)))
    end = draw.draw(st.integers(start, len(text)))
    try:
        value = json.loads(text[:start] + text[end:])
    except ValueError:
        return
    check_well_formed(read_carrier, value)


def test_what_ends_a_program_is_not_held_up() -> None:
    with pytest.raises(KeyboardInterrupt):
        read_carrier(Pairs(raising(KeyboardInterrupt)))


# The checks themselves -------------------------------------------------------------------------------------------


def trusts_types(carrier: Any) -> Carried | str:
    if type(carrier) is not dict or type(carrier.get("asynctrace")) is not dict or "name" not in carrier["asynctrace"]:
        return read_carrier(carrier)
    span = extract_headers(carrier)
    return msgspec.structs.replace(WHOLE, span=span, name=carrier["asynctrace"]["name"]) if span else "malformed"


def trusts_ids(carrier: Any) -> Carried | str:
    if type(carrier) is not dict or type(carrier.get("traceparent")) is not str:
        return read_carrier(carrier)
    _, trace_id, span_id, _ = carrier["traceparent"].split("-")
    return Carried(span=a_span(trace_id=trace_id, span_id=span_id))


def trusts_classes(carrier: Any) -> Carried | str:
    return WHOLE if type(carrier) is not Angry and isinstance(carrier, dict) else read_carrier(carrier)


def takes_true_for_a_version(carrier: Any) -> Carried | str:
    if (
        type(carrier) is dict
        and type(carrier.get("asynctrace")) is dict
        and carrier["asynctrace"].get("version") is True
    ):
        return WHOLE
    return read_carrier(carrier)


def takes_the_first_traceparent(carrier: Any) -> Carried | str:
    if type(carrier) is dict and type(carrier.get("traceparent")) is str:
        return read_carrier({key: value for key, value in carrier.items() if key != "Traceparent"})
    return read_carrier(carrier)


@pytest.mark.parametrize(
    "broken",
    [trusts_types, trusts_ids, trusts_classes, takes_true_for_a_version, takes_the_first_traceparent],
)
def test_the_check_of_malformed_carriers_notices_a_reader_that(broken: Read) -> None:
    with pytest.raises(AssertionError):
        check_malformed(broken)


def raises_for_what_is_no_mapping(carrier: Any) -> Carried | str:
    return read_carrier(carrier) if carrier["traceparent"] else "malformed"


def raises_for_odd_fields(carrier: Any) -> Carried | str:
    if type(carrier) is dict and type(ours := carrier.get("asynctrace")) is dict and ours.get("version") == 1:
        json.dumps(ours)
    return read_carrier(carrier)


@pytest.mark.parametrize("broken", [raises_for_what_is_no_mapping, raises_for_odd_fields])
def test_the_check_of_malformed_carriers_notices_an_exception(broken: Read) -> None:
    with pytest.raises((TypeError, ZeroDivisionError, OSError)):
        check_malformed(broken)


def guesses_what_a_later_version_says(carrier: Any) -> Carried | str:
    ours = carrier["asynctrace"]
    return read_carrier({**carrier, "asynctrace": {**ours, "version": min(ours["version"], 1)}})


def test_the_check_of_newer_carriers_notices_a_reader_that_guesses() -> None:
    with pytest.raises(AssertionError):
        check_newer(guesses_what_a_later_version_says)


def refuses_keys_it_does_not_know(carrier: Any) -> Carried | str:
    if type(carrier) is dict and type(ours := carrier.get("asynctrace")) is dict:
        return read_carrier(carrier) if ours.keys() <= {*Carried.__struct_fields__, "version"} else "malformed"
    return read_carrier(carrier)


def wants_a_carrier_of_its_own(carrier: Any) -> Carried | str:
    return "malformed" if type(carrier) is dict and "asynctrace" not in carrier else read_carrier(carrier)


def believes_a_length(carrier: Any) -> Carried | str:
    return "too_large" if type(carrier) is Pairs and len(carrier) > 100 else read_carrier(carrier)


def wants_a_dict(carrier: Any) -> Carried | str:
    return read_carrier(carrier) if type(carrier) is dict else "malformed"


@pytest.mark.parametrize(
    "broken", [refuses_keys_it_does_not_know, wants_a_carrier_of_its_own, believes_a_length, wants_a_dict]
)
def test_the_check_of_good_carriers_notices_a_reader_that(broken: Read) -> None:
    with pytest.raises(AssertionError):
        check_read(broken)


def runs_the_code_of_a_carrier(carrier: Any) -> Carried | str:
    carrier.keys()
    return read_carrier(carrier)


def test_the_check_of_good_carriers_notices_that_code_of_theirs_runs() -> None:
    with pytest.raises(BaseExceptionGroup, match="code of a carrier was run"):
        check_read(runs_the_code_of_a_carrier)


def walks_through_everything(carrier: Any) -> Carried | str:
    waiting = [carrier]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(dict.values(value))
        elif isinstance(value, list):
            waiting.extend(list.__iter__(value))
    return read_carrier(carrier)


def counts_every_key(carrier: Any) -> Carried | str:
    if isinstance(carrier, dict):
        for key in dict.keys(carrier):
            str(type(key))
            hash(key)
    return read_carrier(carrier)


def takes_all_pairs(carrier: Any) -> Carried | str:
    return read_carrier(dict(itertools.islice(carrier.items(), 1000)) if isinstance(carrier, Pairs) else carrier)


@pytest.mark.parametrize("broken", [walks_through_everything, counts_every_key, takes_all_pairs])
def test_the_check_of_work_notices_a_reader_that(broken: Read) -> None:
    with pytest.raises(AssertionError):
        check_work(broken)


def shares_what_it_was_given(carrier: Any) -> Carried | str:
    found = read_carrier(carrier)
    return (
        found if isinstance(found, str) else msgspec.structs.replace(found, metadata=carrier["asynctrace"]["metadata"])
    )


def test_the_check_notices_a_reader_that_shares_what_it_was_given() -> None:
    with pytest.raises(AssertionError):
        check_apart(shares_what_it_was_given)


def answers_anything(carrier: Any) -> Carried | str:
    return msgspec.structs.replace(WHOLE, span=a_span(span_id="")) if isinstance(carrier, dict) else "no"


@pytest.mark.parametrize("carrier", [{}, 7])
def test_the_check_of_anything_notices(carrier: Any) -> None:
    with pytest.raises((AssertionError, MisuseError)):
        check_well_formed(answers_anything, carrier)
