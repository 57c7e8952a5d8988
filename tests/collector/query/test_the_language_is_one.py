"""A query is a text and a tree: what is written is what is meant, and what is wrong is named with its place."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynctrace.collector.query import QueryError, parse
from asynctrace.collector.query._language import LONGEST_QUERY
from asynctrace.collector.query._terms import (
    KEYS,
    Attribute,
    Compare,
    Contains,
    Field,
    Identity,
    Not,
    Pattern,
    Query,
    State,
    When,
    Word,
)

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("checkout", Word("checkout")),
        ('"two words"', Word("two words")),
        ("chat*", Field("name", Pattern("chat", after=True))),
        ("service:shop", Field("service", Pattern("shop"))),
        ("SERVICE=shop", Field("service", Pattern("shop"))),
        ('name:"*a chat*"', Field("name", Pattern("a chat", before=True, after=True))),
        (r'name:"50 \*"', Field("name", Pattern("50 *"))),
        (r'name:"say \"hi\" \\ \n\t"', Field("name", Pattern('say "hi" \\ \n\t'))),
        ("name:a*b", Field("name", Pattern("a*b"))),
        ('session:""', Field("session", Pattern(""))),
        ("user:*", Field("user", Pattern("", before=True, after=True))),
        ("type:LLM", Field("type", Pattern("llm"))),
        ("model:claude*", Field("model", Pattern("claude", after=True))),
        ("scope:httpx", Field("scope", Pattern("httpx"))),
        ("status:ERROR", Field("status", Pattern("error"))),
        ("kind:internal", Field("kind", Pattern("internal"))),
        ("ending:cancelled", Field("ending", Pattern("cancelled"))),
        ("attr.http.route:/pay", Attribute("http.route", "=", Pattern("/pay"))),
        ('attr."a b"=c', Attribute("a b", "=", Pattern("c"))),
        ("attr.retries>=3", Attribute("retries", ">=", 3.0)),
        ("input:Refund", Contains("input", "Refund")),
        ('output:"a b"', Contains("output", "a b")),
        ("text:*x*", Contains("text", "x")),
        ("dur>2s", Compare("dur", ">", 2 * SECOND)),
        ("dur<=1.5ms", Compare("dur", "<=", 1_500_000)),
        ("dur<3us", Compare("dur", "<", 3000)),
        ("dur=7ns", Compare("dur", "=", 7)),
        ("dur>2m", Compare("dur", ">", 120 * SECOND)),
        ("dur>2h", Compare("dur", ">", 7200 * SECOND)),
        ("dur>2", Compare("dur", ">", 2 * SECOND)),
        ("cost>0.05", Compare("cost", ">", 0.05)),
        ("tokens>=1000", Compare("tokens", ">=", 1000)),
        ("spans>100", Compare("spans", ">", 100)),
        ("errors>0", Compare("errors", ">", 0)),
        ("is:Open", State("open")),
        ("since:1h", When("since", 3600 * SECOND)),
        ("until:1.5d", When("until", 129_600 * SECOND)),
        ("since:1970-01-01T00:00:01Z", When("since", SECOND, is_ago=False)),
        ("since:1970-01-01T01:00:01+01:00", When("since", SECOND, is_ago=False)),
        ("until:1970-01-02", When("until", 86400 * SECOND, is_ago=False)),
        ("id:ABCdef", Identity("abcdef")),
        ("id:abc*", Identity("abc")),
        ("-kind:internal", Not(Field("kind", Pattern("internal")))),
        ("-checkout", Not(Word("checkout"))),
    ],
)
def test_every_form_of_a_term(text: str, term: object) -> None:
    assert parse(text) == Query((term,))


def test_terms_stand_apart_by_any_space() -> None:
    assert parse(" a\tb\n -c ") == Query((Word("a"), Word("b"), Not(Word("c"))))
    assert parse("") == parse("  ") == Query()


def test_terms_of_the_trace_and_of_one_span_are_told_apart() -> None:
    of_trace = "service:a session:s user:u since:1h is:open cost>1 tokens>1 spans>1 errors>0 id:ab -user:x"
    query = parse(f"{of_trace}  x name:n -dur>1s")
    assert str(Query(query.of_span)) == "x name:n -dur>1s"
    assert Query(query.of_trace) == parse(of_trace)


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a shape:round", "shape", "no key"),
        ("a name:", ":", "needs a value"),
        ("name: x", ":", "needs a value"),
        ("a - b", "-", "needs a term"),
        ("a -", "-", "needs a term"),
        ("--a", "--", "one - is enough"),
        (":a", ":", "a key is missing"),
        ("a name>3", ">", "no number"),
        ("is:happy", "happy", "open, ended, lost"),
        ("status:bad", "bad", "unset, ok, error"),
        ("kind:big", "big", "internal"),
        ("ending:soon", "soon", "cancelled"),
        ("dur>long", "long", "duration"),
        ("dur>3y", "3y", "duration"),
        ("dur>99999999999h", "99999999999h", "292 years"),
        ("tokens>1.5", "1.5", "whole number"),
        ("cost>much", "much", "a number is needed"),
        ("cost>99999999999999999999", "99999999999999999999", "a number is needed"),
        ("attr.n>three", "three", "a number is needed"),
        ("attr.:x", "attr.", "needs a name"),
        ('attr."k" x', 'attr."k"', "needs a name"),
        ("since:2026", "2026", "an age"),
        ("since:yesterday", "yesterday", "an age"),
        ("since:0001-01-01T00:00+05:00", "0001-01-01T00:00+05:00", "an age"),
        ("id:xyz", "xyz", "hex"),
        ('a "open', '"open', "not closed"),
        ('a"b"', '"', "quote the whole value"),
        ('name:"a"b', "b", "a space is missing"),
        (r'name:"a\x"', r"\x", "in quotes"),
        ("a OR b", "OR", "all terms must hold"),
    ],
)
def test_a_malformed_query_names_the_place(text: str, place: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason) as caught:
        parse(text)
    assert text[caught.value.start : caught.value.end] == place


def test_an_error_travels_between_processes_and_counts_characters() -> None:
    with pytest.raises(QueryError) as caught:
        parse("🫖 is:hot")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.start, copy.end) == (str(caught.value), 5, 8)


def test_a_query_is_bounded() -> None:
    assert parse("a" * LONGEST_QUERY)
    with pytest.raises(QueryError, match="4096"):
        parse("a" * (LONGEST_QUERY + 1))


# ── properties ──────────────────────────────────────────────────────────────────────────────────────────────

PIECES = st.sampled_from(
    [*KEYS, *':=<>"\\* -\n', "attr.", ">=", "1h", "2.5", "error", "2026-01-01", "OR", "ab", "é", "🫖"]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=25).map("".join)))
@example('"' * 300)
@example("\\" * 2000 + '"')
@example('"' + "\\" * 2001 + '"')
@example("*" * 3000)
@example("attr." * 800)
def test_any_text_is_a_query_or_an_error_with_a_place_and_what_is_printed_reads_the_same(text: str) -> None:
    try:
        query = parse(text)
    except QueryError as error:
        start, end = error.start, error.end
    else:
        assert parse(str(query)) == query
        return
    assert 0 <= start < end <= len(text)


ANY = st.text(max_size=12) | st.text(alphabet='ab*\\" :=-', max_size=6)
PATTERNS = st.builds(Pattern, ANY, st.booleans(), st.booleans()).filter(
    lambda pattern: pattern.text or pattern.before == pattern.after
)
NUMBERS = st.integers(0, 10**18) | st.floats(0, 10**9).map(lambda x: round(x, 6))
TERMS = st.one_of(
    st.builds(Word, ANY),
    st.builds(Field, st.sampled_from(["service", "name", "session", "user", "model", "scope"]), PATTERNS),
    st.builds(Attribute, ANY.filter(bool), st.just("="), PATTERNS),
    st.builds(
        Attribute,
        st.text("abc.", min_size=1),
        st.sampled_from([">", ">=", "<", "<="]),
        NUMBERS.map(float),
    ),
    st.builds(Contains, st.sampled_from(["input", "output", "text"]), ANY),
    st.builds(Compare, st.just("cost"), st.sampled_from(["=", ">", ">=", "<", "<="]), NUMBERS.map(float)),
    st.builds(Compare, st.sampled_from(["dur", "tokens", "spans"]), st.just(">"), st.integers(0, 10**18)),
    st.builds(When, st.sampled_from(["since", "until"]), st.integers(0, 2**62)),
    st.builds(When, st.just("since"), st.integers(0, 2**52).map(lambda us: us * 1000), st.just(False)),
    st.builds(State, st.sampled_from(["open", "late"])),
    st.builds(Identity, st.text("0123456789abcdef", min_size=1, max_size=32)),
)


@given(st.lists(st.one_of(TERMS, st.builds(Not, TERMS)), max_size=4).map(lambda terms: Query(tuple(terms))))
def test_printing_and_reading_is_the_identity(query: Query) -> None:
    assert parse(str(query)) == query
