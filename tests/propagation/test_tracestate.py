"""A `tracestate` goes on valid, or not at all.

Source: https://www.w3.org/TR/trace-context-2/, "tracestate Header Field Values", "tracestate Limits".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace.propagation import parse_tracestate

from .values import ANY_SPEED, TRACESTATES

Parse = Callable[[Sequence[str]], str]

KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
NUMBERED = [f"bar{number:02}={number:02}" for number in range(1, 35)]
OF_100 = [f"{number}={'1' * 98}" for number in range(9)]
X, Y, Z = (f"{name}={name * 130}" for name in "xyz")

VALID: dict[str, tuple[list[str], str]] = {
    "none": ([], ""),
    "an empty one": ([""], ""),
    "one": (["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7"),
    "two": (["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
    "several headers, in their order": (["foo=1,bar=2", "rojo=1", "baz=3"], "foo=1,bar=2,rojo=1,baz=3"),
    "an empty header after one": (["foo=1", ""], "foo=1"),
    "an empty header before one": (["", "foo=1"], "foo=1"),
    "empty members": (["foo=1,, \t ,bar=2,"], "foo=1,bar=2"),
    "space around members": ([" foo=1 \t , \t bar=2, \t baz=3\t"], "foo=1,bar=2,baz=3"),
    "space before a value, which belongs to it": (["foo=  1"], "foo=  1"),
    "space in a value": (["foo=a b"], "foo=a b"),
    "every character of a key": ([f"{KEY}=1"], f"{KEY}=1"),
    "every character of a value": ([f"foo={VALUE}"], f"foo={VALUE}"),
    "a key that begins with a digit": (["1a-2f@foo=bar1"], "1a-2f@foo=bar1"),
    "a key of one digit": (["0=1"], "0=1"),
    "a key with nothing after its @": (["foo@=1,bar=2"], "foo@=1,bar=2"),
    "a key with more than one @": (["foo@@bar=1,foo@bar@baz=2"], "foo@@bar=1,foo@bar@baz=2"),
    "a key of 256 characters": (["foo=1", f"{'z' * 256}=1"], f"foo=1,{'z' * 256}=1"),
    "a tenant longer than level 1 allows": ([f"{'t' * 242}@v=1"], f"{'t' * 242}@v=1"),
    "a value of 256 characters": ([f"foo={'v' * 256}"], f"foo={'v' * 256}"),
    "a key twice, of which the first is the latest": (["foo=1,bar=2,foo=1"], "foo=1,bar=2"),
    "a key twice with other values": (["foo=1,foo=2"], "foo=1"),
    "a key twice in two headers": (["foo=1", "bar=2,foo=3"], "foo=1,bar=2"),
    "32 members": ([",".join(NUMBERED[:20]), ",".join(NUMBERED[20:32])], ",".join(NUMBERED[:32])),
    "32 members and empty ones": ([*NUMBERED[:32], "", " ,"], ",".join(NUMBERED[:32])),
    "512 characters": ([*OF_100[:5], "b=12345"], ",".join([*OF_100[:5], "b=12345"])),
}

INVALID = {
    "no member": ["foo"],
    "no key": ["=1"],
    "no value": ["foo=,bar=3"],
    "a value of spaces": ["foo=  ,bar=3"],
    "a value with =": ["foo=bar=baz"],
    "a value with a tab inside": ["foo=a\tb"],
    "a value that is no ASCII": ["foo=é"],
    "a value with a line": ["foo=a\r\nb"],
    "a line after a value": ["foo=a\n"],
    "a value of 257 characters": [f"foo={'v' * 257}"],
    "space before =": ["foo =1"],
    "a key in upper case": ["FOO=1"],
    "a key with a dot": ["foo.bar=1"],
    "a key that begins with @": ["@foo=1,bar=2"],
    "a key that begins with _": ["_foo=1"],
    "a key of 257 characters": ["foo=1", f"{'z' * 257}=1"],
    "33 members of which two have one key": [",".join([*NUMBERED[:32], NUMBERED[0]])],
    "33 members": [",".join(NUMBERED[:33])],
    "33 members in two headers": [",".join(NUMBERED[:30]), ",".join(NUMBERED[30:33])],
    "34 members": NUMBERED[:34],
    "more space than anybody needs": ["foo=1" + " " * 40_000],
    "more headers than anybody needs": [""] * 40_000,
}

TOO_LONG: dict[str, tuple[list[str], list[str]]] = {
    "513 characters: the last member goes": ([*OF_100[:5], "b=123456"], OF_100[:5]),
    "the last members go": (OF_100, OF_100[:5]),
    "a member longer than 128 goes before others": ([X, *OF_100[:4]], OF_100[:4]),
    "of the long ones the last goes, and no more than must": (
        [X, OF_100[0], Y, Z, OF_100[1]],
        [X, OF_100[0], Y, OF_100[1]],
    ),
    "all long ones, and then the last of the others": ([X, *OF_100[:6], Y], OF_100[:5]),
    "128 characters are not long": ([f"a={'1' * 126}", *OF_100[:4]], [f"a={'1' * 126}", *OF_100[:3]]),
    "129 characters are": ([f"a={'1' * 127}", *OF_100[:4]], OF_100[:4]),
    "one that does not fit by itself": ([f"{'k' * 256}={'v' * 256}"], []),
}


def check(parse: Parse) -> None:
    for what, (values, expected) in VALID.items():
        assert parse(values) == expected, what
    for what, values in INVALID.items():
        assert parse(values) == "", what
    for what, (members, kept) in TOO_LONG.items():
        assert parse([",".join(members)]) == ",".join(kept), what


def test_what_is_valid_goes_on_what_is_not_is_dropped_and_what_is_too_long_loses_whole_members() -> None:
    check(parse_tracestate)


def test_one_text_is_one_header() -> None:
    assert parse_tracestate("foo=1,bar=2") == "foo=1,bar=2"


@ANY_SPEED
@given(TRACESTATES)
def test_a_valid_one_goes_on_as_it_is(text: str) -> None:
    assert parse_tracestate([text]) == text


@ANY_SPEED
@given(st.lists(st.text() | st.text("ab0=, \t@") | TRACESTATES))
def test_whatever_is_received_what_goes_on_is_short_and_goes_on_unchanged_from_there(values: list[str]) -> None:
    passed_on = parse_tracestate(values)
    assert len(passed_on) <= 512
    assert parse_tracestate([passed_on]) == passed_on


# The check itself ------------------------------------------------------------------------------------------------


def _members(values: Sequence[str]) -> list[str]:
    return [stripped for member in ",".join(values).split(",") if (stripped := member.strip(" \t"))]


def _is_valid(member: str) -> bool:
    return bool(parse_tracestate([member])) or len(member) > 512


def takes_anything(values: Sequence[str]) -> str:
    return ",".join(_members(values))


def takes_the_last_of_a_key(values: Sequence[str]) -> str:
    members = {member.partition("=")[0]: member for member in _members(values)}
    return parse_tracestate(list(members.values()))


def refuses_duplicates(values: Sequence[str]) -> str:
    keys = [member.partition("=")[0] for member in _members(values)]
    return parse_tracestate(values) if len(set(keys)) == len(keys) else ""


def drops_invalid_members_only(values: Sequence[str]) -> str:
    return parse_tracestate([member for member in _members(values) if _is_valid(member)])


def takes_the_first_header(values: Sequence[str]) -> str:
    return parse_tracestate(values[:1])


def takes_more_than_32(values: Sequence[str]) -> str:
    return parse_tracestate(values) or parse_tracestate([",".join(_members(values)[:32])])


def refuses_empty_members(values: Sequence[str]) -> str:
    return parse_tracestate(values) if all(map(str.strip, ",".join(values).split(","))) else ""


def knows_level_1_only(values: Sequence[str]) -> str:
    keys = [member.partition("=")[0] for member in _members(values)]
    return parse_tracestate(values) if all(key[0].isalpha() and key.count("@") < 2 for key in keys if key) else ""


def trims_values(values: Sequence[str]) -> str:
    return ",".join("=".join(map(str.strip, member.split("="))) for member in parse_tracestate(values).split(","))


def cuts_inside_a_member(values: Sequence[str]) -> str:
    return takes_anything(values)[:512] if parse_tracestate(values) else ""


def drops_what_is_too_long(values: Sequence[str]) -> str:
    return parse_tracestate(values) if len(takes_anything(values)) <= 512 else ""


def leaves_out_from_the_end_only(values: Sequence[str]) -> str:
    members = _members(values) if parse_tracestate(values) else []
    while len(",".join(members)) > 512:
        members.pop()
    return ",".join(members)


def leaves_out_every_long_member(values: Sequence[str]) -> str:
    is_long = len(takes_anything(values)) > 512
    return parse_tracestate([member for member in _members(values) if len(member) <= 128] if is_long else values)


def strips_lines(values: Sequence[str]) -> str:
    return parse_tracestate([value.strip() for value in values])


@pytest.mark.parametrize(
    "broken",
    [
        takes_anything,
        takes_the_last_of_a_key,
        refuses_duplicates,
        drops_invalid_members_only,
        takes_the_first_header,
        takes_more_than_32,
        refuses_empty_members,
        knows_level_1_only,
        trims_values,
        cuts_inside_a_member,
        drops_what_is_too_long,
        leaves_out_from_the_end_only,
        leaves_out_every_long_member,
        strips_lines,
    ],
)
def test_the_check_notices_a_parser_that(broken: Parse) -> None:
    with pytest.raises(AssertionError):
        check(broken)
