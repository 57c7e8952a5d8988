"""Whatever is given: JSON comes out, within its limit, and no planted secret, whole or cut."""

from __future__ import annotations

import json
import string
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from asynctrace.tracing import _capture_cut
from asynctrace.tracing._capture import Capture
from asynctrace.tracing._limits import Limits
from asynctrace.tracing._masking import Masker

# What must not be seen of it, and the text that holds it.
PLANTED = {
    "hunter2xyzw": "postgres://bob:hunter2xyzw@db.example/shop",
    "IOSFODNN7EXA": "AKIA" + "IOSFODNN7EXAMPLE",
    "abcdefghijkl": "ghp_" + "abcdefghijklmnopqrstuvwxyz0123456789",
    "qrstuvwxyz98": "sk-ant-" + "api03-qrstuvwxyz9876543210-AA",
    "dozjgNryP4J3": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN",
    "MIIEabcdef01": "-----BEGIN PRIVATE KEY-----\nMIIEabcdef0123456\n-----END PRIVATE KEY-----",
    "1111 1111 11": "4111 1111 1111 1111",
    "tokentoken77": "Bearer tokentoken7788990011",
}
UNDER_A_NAME = "only the name tells"

around = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\\n\ud800é'), max_size=30)
border = st.sampled_from([" ", "\n", '"', ",", "(", "= "])
planted = st.builds(
    lambda before, left, secret, right, after: before + left + secret + right + after,
    around, border, st.sampled_from(list(PLANTED.values())), border, around,
)  # fmt: skip
long = st.builds(lambda text, times: (text + " ") * times, planted, st.integers(1, 300))
leaf = (
    st.none() | st.booleans() | st.integers() | st.floats() | around | planted | long
    | st.binary(max_size=30) | planted.map(lambda text: text.encode("utf-8", "replace"))
    | st.dates() | st.datetimes() | st.decimals() | st.uuids() | st.just(object())
)  # fmt: skip
key = st.text(string.ascii_lowercase, max_size=5) | planted | st.integers() | st.none()
values = st.recursive(
    leaf,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=4).map(tuple) | st.lists(inner, max_size=4).map(deque)
        | st.dictionaries(key, inner, max_size=6)
        | inner.map(lambda value: {"password": UNDER_A_NAME, "x": value})
        | inner.map(lambda value: {"apiKey": [UNDER_A_NAME, value]})
    ),
    max_leaves=25,
)  # fmt: skip
limits = st.builds(
    Limits,
    value_bytes=st.integers(1024, 20_000),
    attribute_bytes=st.integers(256, 3000),
    depth=st.integers(1, 32),
    nodes=st.integers(1, 200),
    capture_seconds=st.just(10.0),
)


def faults(value: object, limit: Limits, masker: Masker) -> list[str]:
    """What is wrong with the answers for one value."""
    one = Capture(limit, masker, time.monotonic_ns)
    found: list[str] = []
    mime, encoded = one.snapshot(value)
    if len(encoded) > limit.value_bytes:
        found.append("too large")
    text = encoded.decode()
    if mime == "application/json":
        text = str(json.loads(text))
    attribute = one.attribute(value, "field")
    if isinstance(attribute, str) and len(attribute.encode("utf-8", "surrogatepass")) > limit.attribute_bytes:
        found.append("attribute too large")
    shown = text + repr(attribute)
    found += [core for core in (*PLANTED, UNDER_A_NAME) if core in shown]
    if "could not be captured" in shown:
        found.append("failed")
    return found


@given(values, limits)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_json_within_the_limit_and_no_secret(value: object, limit: Limits) -> None:
    assert faults(value, limit, Masker()) == []


@given(planted)
@settings(max_examples=20, deadline=None)
def test_a_masker_that_does_nothing_would_be_caught(text: str) -> None:
    assert faults([text], Limits(), Masker(enabled=False))


Cut = Callable[[str, int], str]


def cut(text: str, limit: int) -> str:
    return Capture(Limits(), Masker(), time.monotonic_ns).text(text, limit)


def cuts_before_it_masks(text: str, limit: int) -> str:
    """The faulty double: the pattern does not see the end of the secret."""
    return Masker().mask_text(text[: limit - 150])


def leaks(cut: Cut) -> set[str]:
    """Secrets of which half can be read when the text is cut anywhere inside them."""
    seen: set[str] = set()
    for core, secret in PLANTED.items():
        for place in range(0, 260, 3):
            for behind in (" " + "y" * 20_000, (" " + secret) * 400):
                text = "x" * (1000 - place) + " " + secret + behind
                if core[:8] in cut(text, 1000):
                    seen.add(core)
    return seen


def test_a_secret_across_the_cut_is_not_readable() -> None:
    assert leaks(cut) == set()


def test_cutting_before_masking_would_be_caught() -> None:
    assert leaks(cuts_before_it_masks)


def test_a_secret_that_the_window_itself_cuts_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts full of secrets shrink, so that the end of the window could come into view."""
    secret = PLANTED["abcdefghijkl"]
    for extra in range(45):
        text = "x" * extra + " " + (secret + " ") * 2000
        assert "ghp_" not in cut(text, 1000)
    monkeypatch.setattr(_capture_cut, "SLACK", 0)  # a window too small for the secret
    assert any("ghp_" in cut("x" * extra + " " + (secret + " ") * 2000, 1000) for extra in range(45))


@given(st.integers(0, 6), st.text(max_size=50))
@settings(max_examples=50, deadline=None)
def test_a_snapshot_repeats_itself(depth: int, text: str) -> None:
    value: Any = text
    for _ in range(depth):
        value = [value, {text: value}]
    one = Capture(Limits(capture_seconds=10.0), Masker(), time.monotonic_ns)
    assume(isinstance(value, list))
    assert one.snapshot(value) == one.snapshot(value)
