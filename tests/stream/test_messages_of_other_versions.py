"""A message is read by the next version and, its unknown fields kept, by the one before; anything else is one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace._errors import MessageError
from asynctrace.stream import Message
from asynctrace.stream._message import MESSAGE_VERSION

_MESSAGES = st.builds(
    Message,
    signal=st.sampled_from(["traces", "logs"]),
    key=st.text(max_size=60),
    records=st.integers(0, 10**17),
    codec=st.sampled_from(["identity", "gzip", "zstd"]),
    body=st.binary(max_size=300),
    version=st.integers(1, 5),
    extra=st.dictionaries(st.binary(max_size=9).map(b"x-".__add__), st.binary(max_size=20), max_size=3),
)


@given(_MESSAGES)
def test_a_message_reads_back_as_it_was_written(message: Message) -> None:
    assert Message.from_fields(message.to_fields()) == message


def test_fields_of_a_newer_version_are_kept() -> None:
    newer = {**_fields(), b"v": b"2", b"region": b"eu"}
    message = Message.from_fields(newer)
    assert message.extra == {b"region": b"eu"}
    assert message.to_fields() == newer


def test_a_newer_message_that_may_not_be_read_says_what_to_do() -> None:
    with pytest.raises(MessageError, match=r"written by version 7 for readers from version 2 on.*update the workers"):
        Message.from_fields({**_fields(), b"v": b"7", b"r": b"2"})


def test_what_the_first_version_wrote_is_read() -> None:
    """These bytes are what version 1 wrote: they stay here when the version changes."""
    first = {
        b"v": b"1",
        b"r": b"1",
        b"s": b"logs",
        b"key": b"log-1:5:2",
        b"n": b"2",
        b"z": b"gzip",
        b"body": b"\x1f\x8b",
    }
    assert Message.from_fields(first) == Message(
        signal="logs", key="log-1:5:2", records=2, codec="gzip", body=b"\x1f\x8b", version=1
    )
    assert MESSAGE_VERSION == 1


@pytest.mark.parametrize("name", [b"v", b"r", b"s", b"key", b"n", b"z", b"body"])
def test_a_missing_field_is_named(name: bytes) -> None:
    fields = _fields()
    del fields[name]
    with pytest.raises(MessageError, match=f"the field {name.decode()} is missing"):
        Message.from_fields(fields)


@given(st.dictionaries(st.sampled_from([b"v", b"r", b"s", b"key", b"n", b"z", b"body", b"?"]), st.binary(max_size=30)))
def test_any_other_fields_are_one_line(fields: dict[bytes, bytes]) -> None:
    try:
        Message.from_fields({**_fields(), **fields})
    except MessageError as error:
        assert "\n" not in str(error)  # noqa: PT017  (hypothesis: whether it raises depends on the example)


def test_a_reader_that_forgets_unknown_fields_is_caught() -> None:
    class Forgetful(Message, frozen=True, kw_only=True):
        def to_fields(self) -> dict[bytes, bytes]:
            return {name: value for name, value in super().to_fields().items() if name not in self.extra}

    newer = {**_fields(), b"region": b"eu"}
    assert Forgetful.from_fields(newer).to_fields() != newer


def _fields() -> dict[bytes, bytes]:
    return Message(records=3, body=b"spans").to_fields()
