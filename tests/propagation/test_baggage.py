"""Baggage goes on as it came, is bounded whatever comes, and reads back what was set.

Source: https://www.w3.org/TR/baggage/, "Header Content", "Limits".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage as their_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

from asynctrace._errors import MisuseError
from asynctrace.propagation import NO_BAGGAGE, Baggage, parse_baggage

from .values import ANY_SPEED, BAGGAGE, TOKENS

Parse = Callable[[Sequence[str]], Baggage]

OCTETS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '",;\\%')
LONG = "v" * 4000

READ: dict[str, tuple[list[str], dict[str, str], str, int]] = {
    # headers, entries, what goes on, left out
    "none": ([], {}, "", 0),
    "an empty one": ([""], {}, "", 0),
    "one": (["userId=alice"], {"userId": "alice"}, "userId=alice", 0),
    "several, in their order": (["b=2,a=1"], {"b": "2", "a": "1"}, "b=2,a=1", 0),
    "several headers": (["a=1", "b=2"], {"a": "1", "b": "2"}, "a=1,b=2", 0),
    "percent-encoded UTF-8": (["userId=Am%C3%A9lie"], {"userId": "Amélie"}, "userId=Am%C3%A9lie", 0),
    "what is no UTF-8": (["a=%FF%41"], {"a": "\ufffdA"}, "a=%FF%41", 0),
    "a % that encodes nothing": (["a=50%"], {"a": "50%"}, "a=50%", 0),
    "white space": ([" a =\t1 , b= 2\t"], {"a": "1", "b": "2"}, "a=1,b=2", 0),
    "a value with =": (["a=b=c="], {"a": "b=c="}, "a=b=c=", 0),
    "an empty value": (["a="], {"a": ""}, "a=", 0),
    "every character of a value": ([f"a={OCTETS}"], {"a": OCTETS}, f"a={OCTETS}", 0),
    "every character of a key": (
        ["!#$%&'*+-.^_`|~09azAZ=1"],
        {"!#$%&'*+-.^_`|~09azAZ": "1"},
        "!#$%&'*+-.^_`|~09azAZ=1",
        0,
    ),
    "properties": (["a=1;p;q=2 ; r = %20,b=2"], {"a": "1", "b": "2"}, "a=1;p;q=2;r=%20,b=2", 0),
    "a property that is invalid": (["a=1;p p;q=2;;"], {"a": "1"}, "a=1;q=2", 0),
    "a key that comes twice": (["a=1,b=2", "a=3;p"], {"a": "3", "b": "2"}, "a=3;p,b=2", 0),
    "empty members": ([",a=1,, \t,b=2,"], {"a": "1", "b": "2"}, "a=1,b=2", 0),
    "members that are invalid": (['a,=1,b c=1,a\n=1,d=é,e=1 2,f="1",g=1'], {"g": "1"}, "g=1", 7),
    "64 entries": (
        [",".join(f"k{n}=1" for n in range(64))],
        {f"k{n}": "1" for n in range(64)},
        ",".join(f"k{n}=1" for n in range(64)),
        0,
    ),
    "66 entries": (
        [",".join(f"k{n}=1" for n in range(66))],
        {f"k{n}": "1" for n in range(64)},
        ",".join(f"k{n}=1" for n in range(64)),
        2,
    ),
    "8192 bytes": (
        [f"a={LONG},b={LONG}", f"c={'v' * 184}"],
        {"a": LONG, "b": LONG, "c": "v" * 184},
        f"a={LONG},b={LONG},c={'v' * 184}",
        0,
    ),
    "8193 bytes": (
        [f"a={LONG},b={LONG}", f"c={'v' * 185}", "d=1"],
        {"a": LONG, "b": LONG, "d": "1"},
        f"a={LONG},b={LONG},d=1",
        1,
    ),
    "an entry that is too large alone": ([f"a={LONG * 3}", "b=2"], {"b": "2"}, "b=2", 1),
    "more than anybody reads": ([f"a=1,b={'v' * 40_000}", "c=3"], {"a": "1"}, "a=1", 1),
}


def check(parse: Parse) -> None:
    for what, (values, entries, header, left_out) in READ.items():
        baggage = parse(values)
        assert dict(baggage) == entries, what
        assert list(baggage) == list(entries), what
        assert baggage.header() == header, what
        assert baggage.left_out == left_out, what


def test_what_is_read_is_what_was_valid_and_goes_on_as_it_came() -> None:
    check(parse_baggage)


def test_properties_can_be_read_as_they_stand_there() -> None:
    baggage = parse_baggage(["a=1;ttl=30; local ,b=2"])
    assert (baggage.properties("a"), baggage.properties("b")) == (("ttl=30", "local"), ())


ANYTHING = st.text() | st.text("ab=,; \t%12;é") | TOKENS.map(lambda key: f"{key}=1;{key}") | st.just("k=v," * 5000)


@ANY_SPEED
@given(st.lists(ANYTHING, max_size=8))
@example(["a=1," * 100_000])
@example(["," * 1_000_000])
@example(["a" * 1_000_000])
@example([f"a=1{';p' * 100_000}"])
@example([""] * 100_000)
def test_whatever_comes_what_goes_on_is_valid_bounded_and_goes_on_unchanged_from_there(values: list[str]) -> None:
    baggage = parse_baggage(values)
    header = baggage.header()
    assert len(header.encode("ascii")) <= 8192
    assert len(baggage) <= 64
    again = parse_baggage([header])
    assert (dict(again), again.header(), again.left_out) == (dict(baggage), header, 0)


@ANY_SPEED
@given(BAGGAGE)
def test_what_is_set_is_read_back(baggage: Baggage) -> None:
    assert parse_baggage([baggage.header()]) == baggage


PLAIN_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text == text.strip())


@ANY_SPEED
@given(st.dictionaries(st.from_regex(r"[a-z0-9_.-]{1,10}", fullmatch=True), PLAIN_TEXTS, max_size=8))
@example({"a": "1+1=2", "b": "é, ;%"})
def test_opentelemetry_reads_what_is_written_and_what_it_writes_is_read(entries: dict[str, str]) -> None:
    theirs = W3CBaggagePropagator()
    context = theirs.extract({"baggage": made(**entries).header()}, Context())
    assert dict(their_baggage.get_all(context)) == entries
    written: dict[str, str] = {}
    theirs.inject(written, context)
    said = {key: value.replace(" ", "+") for key, value in entries.items()}  # it writes a space so
    assert dict(parse_baggage([written.get("baggage", "")])) == said


# Set ---------------------------------------------------------------------------------------------------------------


def made(**entries: str) -> Baggage:
    baggage = NO_BAGGAGE
    for key, value in entries.items():
        more = baggage.with_entry(key, value)
        assert more is not None
        baggage = more
    return baggage


def test_setting_gives_another_one_and_changes_none() -> None:
    before = parse_baggage(["a=1;p,b=2"])
    after = before.with_entry("a", "é, ;%")
    assert after is not None
    assert (before["a"], after["a"]) == ("1", "é, ;%")
    assert after.header() == "a=%C3%A9%2C%20%3B%25,b=2"
    assert after.without("a").without("nobody") == {"b": "2"}
    assert NO_BAGGAGE == {}
    with pytest.raises(TypeError):
        after["a"] = "2"  # type: ignore[index]


def test_what_does_not_fit_is_not_set() -> None:
    full = made(**{f"k{number}": "" for number in range(64)})
    assert full.with_entry("one-more", "") is None
    assert full.with_entry("k1", "again") is not None
    assert made(a="v" * 8190).header() == f"a={'v' * 8190}"
    assert NO_BAGGAGE.with_entry("a", "v" * 8191) is None
    assert NO_BAGGAGE.with_entry("a", "é" * 1400) is None


@pytest.mark.parametrize("key", ["", "a b", "a=b", "a,b", "é", "a\n", '"a"'])
def test_a_key_that_no_header_may_have_is_a_misuse(key: str) -> None:
    with pytest.raises(MisuseError, match="key of baggage"):
        NO_BAGGAGE.with_entry(key, "1")


def test_half_a_character_is_replaced() -> None:
    assert made(a="x\ud800") == {"a": "x\ufffd"}


def test_of_two_the_upper_one_wins_and_what_no_longer_fits_is_the_lower_ones() -> None:
    upper, lower = made(a="1", b="2"), parse_baggage(["b=3;p,c=4"])
    assert upper.over(lower).header() == "a=1,b=2,c=4"
    assert upper.over(NO_BAGGAGE) is upper
    assert NO_BAGGAGE.over(lower) is lower
    full = made(**{f"k{number}": "" for number in range(64)})
    assert list(upper.over(full)) == ["a", "b", *(f"k{number}" for number in range(62))]


def test_a_mask_sees_values_as_text_and_properties_too() -> None:
    baggage = parse_baggage(["a=top%20secret;p=top%20secret;q=1,b=2"])
    masked = baggage.masked(lambda key, text: text.replace("top secret", "[masked]"))
    assert masked.header() == "a=[masked];q=1,b=2"
    assert masked["a"] == "[masked]"
    assert baggage.masked(lambda key, text: text).header() == baggage.header()


# The check itself ------------------------------------------------------------------------------------------------


def loses_properties(values: Sequence[str]) -> Baggage:
    baggage = parse_baggage(values)
    return parse_baggage([",".join(entry.split(";")[0] for entry in baggage.header().split(","))])


def takes_the_first_header(values: Sequence[str]) -> Baggage:
    return parse_baggage(values[:1])


def drops_all_where_one_is_invalid(values: Sequence[str]) -> Baggage:
    baggage = parse_baggage(values)
    return NO_BAGGAGE if baggage.left_out else baggage


def counts_nothing(values: Sequence[str]) -> Baggage:
    return parse_baggage([parse_baggage(values).header()])


def encodes_anew(values: Sequence[str]) -> Baggage:
    return made(**dict(parse_baggage(values)))


def has_no_bound(values: Sequence[str]) -> Baggage:
    pieces = [parse_baggage([member]) for member in ",".join(values).split(",")]
    return Baggage({key: piece._entries[key] for piece in pieces for key in piece})


@pytest.mark.parametrize(
    "broken",
    [
        loses_properties,
        takes_the_first_header,
        drops_all_where_one_is_invalid,
        counts_nothing,
        encodes_anew,
        has_no_bound,
    ],
)
def test_the_check_notices_a_reader_that(broken: Parse) -> None:
    with pytest.raises(AssertionError):
        check(broken)
