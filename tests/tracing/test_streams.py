"""Streams: chunks are counted, the first one is timed, what came is kept; a stream left early ends `abandoned`, quietly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from asynctrace import ALWAYS_OFF, Limits, Span
from asynctrace.testing import ManualClock, assert_no_context_leaked
from asynctrace.tracing import current_component, current_trace

from .recording import Recording

pytestmark = pytest.mark.anyio

WORDS = ["Sen", "cha", "."]


async def words(count: int = 3) -> AsyncIterator[str]:
    for word in WORDS[:count]:
        await asyncio.sleep(0)
        yield word


def numbers(span: Span) -> tuple[object, object, object]:
    attributes = span.attributes
    return attributes.get("asynctrace.stream.chunks"), attributes.get("output.value"), span.ending


class Reader:
    """A way to read a stream of words: as a decorated generator, a stream of its own, or inside a component."""

    def __init__(self, subject: Recording) -> None:
        self.subject = subject

    def decorated(self) -> AsyncIterator[str]:
        return self.subject.tracer.trace_component("answer")(words)()

    def owned(self) -> AsyncIterator[str]:
        return self.subject.tracer.trace_stream("answer", words())


@pytest.mark.parametrize("way", ["decorated", "owned"])
async def test_a_stream_that_is_read_to_its_end_ends_ok_with_its_whole_answer(way: str) -> None:
    subject = Recording()
    with assert_no_context_leaked():
        async with subject.tracer.trace("run") as run:
            assert [word async for word in getattr(Reader(subject), way)()] == WORDS
    span = subject.one("answer")
    assert numbers(span) == (3, "Sencha.", "ok")
    assert span.attributes["output.mime_type"] == "text/plain"
    assert span.parent_id == run.span_id
    assert "asynctrace.stream.kept" not in span.attributes


async def leave_by_break(stream: Any) -> None:
    async for _ in stream:
        break
    await stream.aclose()


async def leave_from_another_task(stream: Any) -> None:
    await anext(stream)
    await asyncio.create_task(stream.aclose())


async def leave_to_the_collector(stream: Any) -> None:
    await anext(stream)
    del stream
    gc.collect()


@pytest.mark.parametrize("way", ["decorated", "owned"])
@pytest.mark.parametrize("leave", [leave_by_break, leave_from_another_task, leave_to_the_collector])
async def test_left_early_it_ends_abandoned_with_what_came_and_quietly(
    way: str, leave: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    subject = Recording()
    with caplog.at_level(logging.DEBUG), assert_no_context_leaked():
        async with subject.tracer.trace("run"):
            await leave(getattr(Reader(subject), way)())
            gc.collect()
            await asyncio.sleep(0)  # the loop closes a collected generator in a task
            await asyncio.sleep(0)
    assert numbers(subject.one("answer")) == (1, "Sen", "abandoned")
    assert not [record for record in caplog.records if record.name != "asyncio"]


async def test_a_stream_that_is_never_read_is_abandoned() -> None:
    subject = Recording()
    stream = subject.tracer.trace_stream("answer", iter("ab"))
    del stream
    subject.collect()
    assert numbers(subject.one("answer")) == (None, None, "abandoned")


async def test_between_two_chunks_the_consumer_is_where_it_was_and_the_source_is_in_its_component() -> None:
    subject = Recording()
    seen: list[Any] = []

    async def source() -> AsyncIterator[int]:
        for number in range(2):
            seen.append(current_component())
            with subject.tracer.trace_component("inside"):
                yield number

    async with subject.tracer.trace("run") as run, subject.tracer.trace_component("consumer") as consumer:
        async for _ in subject.tracer.trace_stream("answer", source()):
            assert (current_trace(), current_component()) == (run, consumer)
    answer = subject.one("answer")
    assert {component.span_id for component in seen} == {answer.span_id}
    assert {span.parent_id for span in subject.named("inside")} == {answer.span_id}
    assert answer.parent_id == subject.one("consumer").span_id


async def test_the_time_to_the_first_chunk_is_measured_from_the_start() -> None:
    clock = ManualClock()
    subject = Recording(clock=clock)
    stream = subject.tracer.trace_stream("answer", iter("ab"), type="llm")
    clock.advance(0.25)
    next(stream)
    clock.advance(1)
    assert list(stream) == ["b"]
    attributes = subject.one("answer").attributes
    assert attributes["asynctrace.stream.time_to_first_chunk"] == pytest.approx(0.25)
    assert attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.25)
    subject.tracer.trace_stream("other", iter("ab"), type="tool").close()
    assert "gen_ai.response.time_to_first_chunk" not in subject.one("other").attributes


async def test_a_component_notes_the_streams_inside_it() -> None:
    subject = Recording()
    async with subject.tracer.trace_component("chat") as component:
        assert [word async for word in component.stream(words())] == WORDS
        assert list(component.stream(iter(["!"]))) == ["!"]
    assert numbers(subject.one("chat")) == (4, "Sencha.!", "ok")


async def test_what_a_chunk_says_can_be_told_apart() -> None:
    subject = Recording()
    chunks = [{"delta": "Sen"}, {"delta": None}, {"delta": "cha"}]
    stream = subject.tracer.trace_stream("answer", iter(chunks), text=lambda chunk: chunk["delta"])
    assert list(stream) == chunks
    assert numbers(subject.one("answer")) == (3, "Sencha", "ok")


async def test_a_function_that_fails_on_a_chunk_costs_that_chunks_text() -> None:
    subject = Recording()
    stream = subject.tracer.trace_stream("answer", iter([{"delta": "a"}, {}]), text=lambda chunk: chunk["delta"])
    assert list(stream) == [{"delta": "a"}, {}]
    span = subject.one("answer")
    assert numbers(span) == (2, "a", "ok")
    assert span.attributes["asynctrace.stream.kept"] == 1
    assert subject.tracer._errors == {"KeyError": 1}


@pytest.mark.parametrize(
    ("chunks", "output", "mime"),
    [
        ([b"Sen", b"cha"], "Sencha", "text/plain"),
        ([{"n": 1}, {"n": 2}], '[{"n":1},{"n":2}]', "application/json"),
        (["a", {"n": 1}, b"b"], '["a",{"n":1},"b"]', "application/json"),
        ([1, None], "[1,null]", "application/json"),
    ],
)
def test_chunks_of_every_kind_are_kept(chunks: list[Any], output: str, mime: str) -> None:
    subject = Recording()
    assert list(subject.tracer.trace_stream("answer", iter(chunks))) == chunks
    attributes = subject.one("answer").attributes
    assert (attributes["output.value"], attributes["output.mime_type"]) == (output, mime)


def test_later_changes_of_a_chunk_do_not_show() -> None:
    subject = Recording()
    for chunk in subject.tracer.trace_stream("answer", iter([{"n": 1}])):
        chunk["n"] = 2
    assert subject.one("answer").attributes["output.value"] == '[{"n":1}]'


def test_a_long_stream_is_kept_up_to_the_limit_and_counted_to_the_end() -> None:
    subject = Recording(limits=Limits(value_bytes=1024))
    for _ in subject.tracer.trace_stream("answer", (str(number % 10) * 10 for number in range(100_000))):
        pass
    span = subject.one("answer")
    assert span.attributes["asynctrace.stream.chunks"] == 100_000
    assert span.attributes["asynctrace.stream.kept"] == 102
    assert len(span.attributes["output.value"]) <= 1024


def test_what_the_program_sets_wins() -> None:
    subject = Recording()

    @subject.tracer.trace_component("count")
    def count() -> Iterator[int]:
        subject.tracer.set_outputs("ready")
        yield 1

    assert list(count()) == [1]
    assert numbers(subject.one("count")) == (1, "ready", "ok")


def test_secrets_that_two_chunks_share_are_masked() -> None:
    subject = Recording()
    secret = "Bearer abcdefghijklmnopqrstuvwxyz0123456789"
    list(subject.tracer.trace_stream("answer", iter([secret[:20], secret[20:]])))
    assert secret[7:] not in str(subject.one("answer").attributes["output.value"])


async def test_a_failing_source_ends_it_with_the_same_exception() -> None:
    subject = Recording()
    error = RuntimeError("no more")

    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise error

    stream = subject.tracer.trace_stream("answer", failing())
    with pytest.raises(RuntimeError) as raised:
        async for _ in stream:
            pass
    assert raised.value is error
    span = subject.one("answer")
    assert numbers(span) == (1, "a", "error")
    assert span.events[0].attributes["exception.type"].endswith("RuntimeError")


async def test_a_cancelled_consumer_ends_it_cancelled() -> None:
    subject = Recording()
    waits = asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        yield "a"
        waits.set()
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in subject.tracer.trace_stream("answer", endless()):
            pass

    task = asyncio.create_task(consume())
    await waits.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert numbers(subject.one("answer")) == (1, "a", "cancelled")


class Response:
    """What clients of models give: iterable once, a context manager, closed by `close()`, with more to it."""

    def __init__(self) -> None:
        self.closed = 0
        self.status = 200

    def __aiter__(self) -> AsyncIterator[str]:
        return words()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.closed += 1


async def test_what_else_the_source_can_do_the_stream_can() -> None:
    subject, response = Recording(), Response()
    async with subject.tracer.trace_stream("answer", response) as stream:
        assert stream.status == 200
        async for _ in stream:
            break
    assert response.closed == 1
    assert numbers(subject.one("answer")) == (1, "Sen", "abandoned")
    again = subject.tracer.trace_stream("closed", response)
    await again.aclose()  # type: ignore[attr-defined]
    assert response.closed == 2


class FileOfLines:
    def __init__(self) -> None:
        self.closed = False

    def __enter__(self) -> FileOfLines:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])


def test_a_plain_source_is_closed_with_its_block() -> None:
    subject, source = Recording(), FileOfLines()

    def consume() -> None:
        with subject.tracer.trace_stream("answer", source) as stream:
            next(stream)  # type: ignore[call-overload]
            raise KeyError("consumer")

    with pytest.raises(KeyError):
        consume()
    assert source.closed
    assert numbers(subject.one("answer")) == (1, "a", "error")


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, None])
async def test_what_is_not_recorded_streams_all_the_same(sampler: Any) -> None:
    subject = Recording(sampler=sampler)
    region = contextlib.nullcontext() if sampler else subject.tracer.suppress()
    with region:
        assert [word async for word in subject.tracer.trace_stream("answer", words())] == WORDS
        async with subject.tracer.trace_component("chat") as component:
            assert [word async for word in component.stream(words())] == WORDS
    assert subject.spans == ()


@pytest.mark.parametrize("wrong", [7, None, object()])
def test_what_cannot_be_iterated_is_an_error_at_once(wrong: Any) -> None:
    subject = Recording()
    with pytest.raises(TypeError, match="a stream is an iterator"):
        subject.tracer.trace_stream("answer", wrong)
    with subject.tracer.trace_component("chat") as component, pytest.raises(TypeError, match="a stream is an iterator"):
        component.stream(wrong)
    with pytest.raises(TypeError, match="text is a function"):
        subject.tracer.trace_stream("answer", iter("ab"), text="delta")  # type: ignore[arg-type]
    assert [span.name for span in subject.spans] == ["chat"]


async def test_who_gives_what_makes_a_stream_is_told_the_step_that_is_missing() -> None:
    async def create() -> list[str]:
        return WORDS

    tracer, not_awaited = Recording().tracer, create()
    with pytest.raises(TypeError, match="not coroutine: await it first"):
        tracer.trace_stream("answer", not_awaited)
    with pytest.raises(TypeError, match="not function: call it first"):
        tracer.trace_stream("answer", words)
    assert list(tracer.trace_stream("answer", await not_awaited)) == WORDS


async def test_two_hundred_streams_at_once_are_told_apart() -> None:
    subject = Recording()

    async def one(number: int) -> None:
        async with subject.tracer.trace(f"run {number}"):
            async for _ in subject.tracer.trace_stream("answer", words(1 + number % 3)):
                await asyncio.sleep(0)

    await asyncio.gather(*map(one, range(200)))
    runs = {span.span_id: span for span in subject.spans if span.name.startswith("run")}
    answers = subject.named("answer")
    assert len({span.trace_id for span in answers}) == 200
    for span in answers:
        number = int(runs[span.parent_id].name.split()[1])
        assert numbers(span) == (1 + number % 3, "".join(WORDS[: 1 + number % 3]), "ok")


async def test_notes_that_are_only_taken_at_the_end_are_noticed() -> None:
    subject = Recording()

    async def noting_late() -> AsyncIterator[str]:
        said = [word async for word in words()]
        for word in said:
            yield word
        subject.tracer.set_outputs("".join(said))

    stream = noting_late()
    with subject.tracer.trace_component("answer"):
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert numbers(subject.one("answer")) != (1, "Sen", "abandoned")
