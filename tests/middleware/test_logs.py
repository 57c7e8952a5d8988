"""Log lines carry the ids of where they were logged, and can be kept as logs of the component they belong to."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from asynctrace import ALWAYS_OFF, MisuseError, Span, Tracer
from asynctrace.exporters import MemoryExporter
from asynctrace.middleware import LoggingFilter, LoggingHandler, _logs, structlog_processor

pytestmark = pytest.mark.anyio


class Subject:
    """A tracer, what it exported, and a structlog logger whose lines are kept as JSON."""

    def __init__(self, **options: Any) -> None:
        self.memory = MemoryExporter()
        self.tracer = Tracer(service="test", exporters=[self.memory], journal=False, **options)
        self.text = io.StringIO()

    def logger(self, processor: Any) -> Any:
        return structlog.wrap_logger(
            structlog.PrintLogger(self.text), processors=[processor, structlog.processors.JSONRenderer()]
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.getvalue().splitlines()]

    async def spans(self) -> tuple[Span, ...]:
        await self.tracer.shutdown()
        return tuple(self.memory.spans)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of the standard library that nobody else has."""
    found = logging.getLogger("shop.cart")
    found.propagate, found.level = False, logging.DEBUG
    yield found
    found.handlers.clear()
    found.filters.clear()


def handler_of(text: io.StringIO, *filters: logging.Filter) -> logging.Handler:
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(message)s|%(trace_id)s|%(span_id)s"))
    for added in filters:
        handler.addFilter(added)
    return handler


async def test_structlog_events_carry_the_ids_of_where_they_are_logged() -> None:
    subject = Subject()
    log = subject.logger(structlog_processor())
    log.info("outside")
    async with subject.tracer.trace("run") as run:
        log.info("in the run")
        async with subject.tracer.trace_component("step") as step:
            log.info("in the step", shard=3)
            log.info("with its own", trace_id="mine")
    await subject.tracer.shutdown()
    assert subject.lines == [
        {"event": "outside"},
        {"event": "in the run", "trace_id": run.trace_id, "span_id": run.span_id},
        {"event": "in the step", "shard": 3, "trace_id": run.trace_id, "span_id": step.span_id},
        {"event": "with its own", "trace_id": "mine", "span_id": step.span_id},
    ]


async def test_records_of_logging_carry_the_ids_too(logger: logging.Logger) -> None:
    subject = Subject()
    logger.addHandler(handler_of(subject.text, LoggingFilter()))
    logger.info("outside")
    async with subject.tracer.trace_component("step") as step:
        logger.info("inside")
    await subject.tracer.shutdown()
    assert subject.text.getvalue().splitlines() == ["outside||", f"inside|{step.trace_id}|{step.span_id}"]


async def test_two_hundred_tasks_log_their_own_ids(logger: logging.Logger) -> None:
    subject = Subject()
    logger.addHandler(handler_of(subject.text, LoggingFilter()))

    async def one(number: int) -> tuple[int, str]:
        async with subject.tracer.trace_component(f"step {number}") as step:
            await asyncio.sleep(0)
            logger.info("%d", number)
            return number, step.span_id

    expected = dict(await asyncio.gather(*map(one, range(200))))
    await subject.tracer.shutdown()
    found = {int(line.split("|")[0]): line.split("|")[2] for line in subject.text.getvalue().splitlines()}
    assert found == expected


async def test_the_ids_are_those_of_the_tracer_that_is_meant(logger: logging.Logger) -> None:
    meant, other = Subject(), Subject()
    logger.addHandler(handler_of(meant.text, LoggingFilter(meant.tracer)))
    log = meant.logger(structlog_processor(meant.tracer))
    async with meant.tracer.trace_component("meant") as component, other.tracer.trace_component("other"):
        logger.info("line")
        log.info("event")
    await meant.tracer.shutdown()
    await other.tracer.shutdown()
    assert meant.text.getvalue().splitlines()[0] == f"line|{component.trace_id}|{component.span_id}"
    assert f'"span_id": "{component.span_id}"' in meant.text.getvalue()


async def test_events_from_a_level_on_become_logs_of_the_component() -> None:
    subject = Subject()
    log = subject.logger(structlog_processor(capture="warning"))
    log.error("outside")
    async with subject.tracer.trace("run"):
        log.warning("of the run")
        async with subject.tracer.trace_component("step"):
            log.info("too low")
            log.warning("cache miss", shard=3)
            log.exception("as an error", exc_info=False)
    run, step = sorted(await subject.spans(), key=lambda span: span.name)
    assert [event.name for event in run.events] == ["of the run"]
    assert [(event.name, event.attributes.get("shard")) for event in step.events] == [
        ("cache miss", 3),
        ("as an error", None),
    ]
    assert step.events[0].attributes["level"] == "warning"
    assert len(subject.lines) == 5


async def test_records_become_logs_of_the_component_with_their_exception(logger: logging.Logger) -> None:
    subject = Subject()
    logger.addHandler(LoggingHandler("info"))
    logger.error("outside")
    async with subject.tracer.trace_component("step"):
        logger.debug("too low")
        logger.info("cache %s", "miss")
        try:
            raise KeyError("shard")
        except KeyError:
            logger.exception("failed")
    (step,) = await subject.spans()
    assert [event.name for event in step.events] == ["cache miss", "failed"]
    assert step.events[0].attributes == {"level": "info", "logger": "shop.cart"}
    assert step.events[1].attributes["exception.type"] == "KeyError"
    assert "Traceback" in str(step.events[1].attributes["exception.stacktrace"])


class Unspeakable(LookupError):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def check_events_keep_their_exception(logger: logging.Logger) -> None:
    subject = Subject()
    logger.addHandler(LoggingHandler())
    log = subject.logger(structlog_processor(capture="info"))
    async with subject.tracer.trace_component("step"):
        try:
            raise Unspeakable
        except LookupError as error:
            log.error("current", exc_info=True)
            log.error("given", exc_info=error)
            log.error("triple", exc_info=(type(error), error, None))
            logger.exception("record")
        log.error("none", exc_info=True)
    (step,) = await subject.spans()
    assert [event.name for event in step.events] == ["current", "given", "triple", "record", "none"]
    for event in step.events[:4]:
        assert str(event.attributes["exception.type"]).endswith("test_logs.Unspeakable")
        assert "Traceback" in str(event.attributes["exception.stacktrace"])
    assert step.events[4].attributes == {"level": "error"}
    assert len(subject.lines) == 4


async def test_events_become_logs_with_their_exception_however_it_is_given(logger: logging.Logger) -> None:
    await check_events_keep_their_exception(logger)


async def test_an_event_without_its_exception_is_noticed(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_logs, "_exception_fields", lambda exc_info: {})
    with pytest.raises(KeyError):
        await check_events_keep_their_exception(logger)


async def test_records_that_structlog_formats_become_logs_without_its_own_notes(logger: logging.Logger) -> None:
    subject = Subject()
    handler = logging.StreamHandler(subject.text)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.KeyValueRenderer(),
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog_processor(capture="info")],
        )
    )
    logger.addHandler(handler)
    async with subject.tracer.trace_component("step"):
        logger.info("cache %s", "miss")
    (step,) = await subject.spans()
    assert [(event.name, event.attributes) for event in step.events] == [("cache miss", {"level": "info"})]


async def test_secrets_of_captured_lines_are_masked(logger: logging.Logger) -> None:
    subject = Subject()
    logger.addHandler(LoggingHandler())
    log = subject.logger(structlog_processor(capture="info"))
    async with subject.tracer.trace_component("step"):
        logger.info("Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789")
        log.info("login", password="hunter2-hunter2")
    (step,) = await subject.spans()
    assert "abcdefghijklmnopqrstuvwxyz0123456789" not in repr(step)
    assert "hunter2-hunter2" not in repr(step)


async def test_our_own_diagnostics_are_never_captured(logger: logging.Logger) -> None:
    subject = Subject()
    log = subject.logger(structlog_processor(capture="debug"))
    logging.getLogger("asynctrace").addHandler(captures := LoggingHandler("debug"))
    try:
        async with subject.tracer.trace_component("step"):
            log.bind(logger="asynctrace").warning("spanlog.full")
            logging.getLogger("asynctrace").warning("delivery.retry")
            logging.getLogger("asynctrace.exporters").handle(captures_record := _record("asynctrace.exporters"))
            captures.emit(captures_record)
    finally:
        logging.getLogger("asynctrace").removeHandler(captures)
    (step,) = await subject.spans()
    assert step.events == ()
    assert [line["event"] for line in subject.lines] == ["spanlog.full"]


def _record(name: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, "exporters.rejected", None, None)


async def test_capturing_our_own_diagnostics_is_noticed() -> None:
    subject = Subject()
    log = subject.logger(structlog_processor(capture="debug"))
    async with subject.tracer.trace_component("step"):
        log.bind(logger="asynctrace-like").warning("spanlog.full")
    (step,) = await subject.spans()
    assert [event.name for event in step.events] == ["spanlog.full"]


async def test_where_nothing_is_traced_lines_pass_as_they_are(logger: logging.Logger) -> None:
    subject = Subject(sampler=ALWAYS_OFF)
    logger.addHandler(handler_of(subject.text, LoggingFilter()))
    logger.addHandler(LoggingHandler())
    log = subject.logger(structlog_processor(capture="info"))
    async with subject.tracer.trace_component("step"):
        logger.info("line")
        log.info("event")
    async with subject.tracer.trace("run"):
        with subject.tracer.suppress():
            logger.info("line")
            log.info("event")
    assert await subject.spans() == ()
    assert [line.partition("|")[0] for line in subject.text.getvalue().splitlines()[::2]] == ["line", "line"]


class Hostile:
    """A value whose every use fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def test_what_cannot_be_captured_costs_no_line(logger: logging.Logger) -> None:
    subject = Subject()
    text = io.StringIO()
    processor = structlog_processor(capture="info")
    async with subject.tracer.trace_component("step"):
        for event_dict in ({"event": Hostile()}, {}, {"event": "odd", "message": 1, "self": 2}):
            assert processor(None, "info", event_dict) is event_dict
        logger.addHandler(handler_of(text, LoggingFilter()))
        logger.info("after all")
    await subject.tracer.shutdown()
    assert text.getvalue().startswith("after all|")


@pytest.mark.parametrize("level", ["loud", None, 1.5, True])
def test_what_is_no_level_is_an_error_at_once(level: Any) -> None:
    with pytest.raises(MisuseError, match="a level is"):
        LoggingHandler(level)


@pytest.mark.parametrize("make", [structlog_processor, LoggingFilter, lambda tracer: LoggingHandler("info", tracer)])
def test_what_is_no_tracer_is_an_error_at_once(make: Any) -> None:
    with pytest.raises(MisuseError, match="a door takes a Tracer"):
        make("tracer")
