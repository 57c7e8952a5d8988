"""An attribute whose key was encoded beforehand has the bytes that `encode_attribute()` gives it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace.wire import ScalarHeads, encode_attribute, encode_varint

KEYS = st.text(min_size=1, max_size=200)


def assert_same(heads: ScalarHeads, key: str, number: int, value: float, flag: bool) -> None:
    import struct

    varint = encode_varint(number)
    assert heads.integers[len(varint)] + varint == encode_attribute(b"\x4a", key, number)
    assert heads.double + struct.pack("<d", value) == encode_attribute(b"\x4a", key, value)
    assert heads.booleans[flag] == encode_attribute(b"\x4a", key, flag)
    if number < 128:
        assert heads.one_byte + varint == encode_attribute(b"\x4a", key, number)


@given(KEYS, st.integers(0, 2**63 - 1), st.floats(allow_nan=False), st.booleans())
def test_numbers_and_booleans(key: str, number: int, value: float, flag: bool) -> None:
    assert_same(ScalarHeads(b"\x4a", key), key, number, value, flag)


@pytest.mark.parametrize("number", [edge for bits in range(7, 63, 7) for edge in (2**bits - 1, 2**bits)])
def test_every_length_of_an_integer(number: int) -> None:
    assert_same(ScalarHeads(b"\x4a", "cart.items"), "cart.items", number, 0.5, True)


def test_heads_of_another_key_are_noticed() -> None:
    with pytest.raises(AssertionError):
        assert_same(ScalarHeads(b"\x4a", "cart.items"), "cart.total", 200, 0.5, True)
