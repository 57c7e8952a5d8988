"""Tracers with one fault each. A check that one of them passes is no check.

`NaiveTracer` itself has none that the checks know: it shows that they ask for no more than the public
behavior.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import itertools
import time
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from asynctrace._contracts import Event, Span

_ids = itertools.count(1)


class NaiveSpan:
    def __init__(self, tracer: NaiveTracer, name: str, is_run: bool, inputs: Any, fields: dict[str, Any]) -> None:
        self.tracer, self.name, self.is_run = tracer, name, is_run
        self.inputs, self.outputs = tracer.snapshot(inputs), None
        self.fields = {key: value for key, value in fields.items() if value is not None}
        self.logs: list[Event] = []
        self.is_open = False

    def start(self) -> NaiveSpan:
        self.enter()
        return self

    def end(self) -> None:
        self.leave(None)

    def enter(self) -> Any:
        self.parent = self.tracer.innermost()
        self.restore = (self.tracer.run.get(), self.tracer.component.get())
        self.trace_id = self.parent.trace_id if self.parent else f"{next(_ids):032x}"
        self.span_id = f"{next(_ids):016x}"
        if self.parent:
            self.fields = {
                **{key: self.parent.fields[key] for key in self.parent.fields if key in INHERITED},
                **self.fields,
            }
        self.tracer.set_current(*((self, None) if self.is_run else (self.restore[0], self)))
        self.wall, self.started = self.tracer.wall_ns(), self.tracer.monotonic_ns()
        self.is_open = True
        return self

    def leave(self, exc: BaseException | None) -> None:
        self.tracer.restore(self)
        self.tracer.finish(self, self.tracer.ending(exc))

    def set_outputs(self, outputs: Any) -> None:
        self.outputs = self.tracer.snapshot(outputs)

    def add_log(self, message: str, **fields: Any) -> None:
        self.logs.append(Event(time_ns=time.time_ns(), name=message, attributes=fields))

    async def __aenter__(self) -> Any:
        return self.enter()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.leave(exc)
        return None

    def __enter__(self) -> Any:
        return self.enter()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.leave(exc)
        return None

    def __call__(self, function: Any) -> Any:
        return self.tracer.decorate(self.name, function)

    def __del__(self) -> None:
        if self.is_open:
            self.tracer.finish(self, "abandoned")


INHERITED = ("session_id", "user_id")
ATTRIBUTES = {"session_id": "session.id", "user_id": "user.id", "run_id": "asynctrace.run.id"}


class NaiveTracer:
    """Both the subject of a check and its tracer."""

    span_class: type[NaiveSpan] = NaiveSpan

    def __init__(self) -> None:
        self.run: ContextVar[Any] = ContextVar("run", default=None)
        self.collect = gc.collect
        self.component: ContextVar[Any] = ContextVar("component", default=None)
        self.spans: list[Span] = []

    @property
    def tracer(self) -> NaiveTracer:
        return self

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span

    def trace(self, name: str, *, inputs: Any = None, **fields: Any) -> Any:
        return self.span_class(self, name, True, inputs, fields)

    def trace_component(self, name: str, *, inputs: Any = None, **fields: Any) -> Any:
        return self.span_class(self, name, False, inputs, fields)

    def current_trace(self) -> Any:
        return self.run.get()

    def current_component(self) -> Any:
        return self.component.get()

    def innermost(self) -> Any:
        return self.component.get() or self.run.get()

    def set_current(self, run: Any, component: Any) -> None:
        self.run.set(run)
        self.component.set(component)

    def restore(self, span: NaiveSpan) -> None:
        if self.innermost() is span:
            self.set_current(*span.restore)

    def add_log(self, message: str, **fields: Any) -> None:
        if self.innermost() is not None:
            self.innermost().add_log(message, **fields)

    def set_outputs(self, outputs: Any) -> None:
        if self.innermost() is not None:
            self.innermost().set_outputs(outputs)

    def snapshot(self, value: Any) -> Any:
        return copy.deepcopy(value)

    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def ending(self, exc: BaseException | None) -> str:
        if exc is None:
            return "ok"
        if isinstance(exc, BaseExceptionGroup):
            endings = {self.ending(one) for one in exc.exceptions}
            return endings.pop() if len(endings) == 1 else "error"
        if isinstance(exc, asyncio.CancelledError | KeyboardInterrupt):
            return "cancelled"
        if isinstance(exc, GeneratorExit):
            return "abandoned"
        return "timeout" if isinstance(exc, TimeoutError) else "error"

    def finish(self, span: NaiveSpan, ending: str) -> None:
        if span.is_open:
            span.is_open = False
            self.record(span, ending)

    def record(self, span: NaiveSpan, ending: str) -> None:
        attributes = {ATTRIBUTES[key]: value for key, value in span.fields.items() if key in ATTRIBUTES}
        for key, value in (("input.value", span.inputs), ("output.value", span.outputs)):
            if value is not None:
                attributes[key] = value if isinstance(value, str) else repr(value)
        self.spans.append(
            Span(
                trace_id=span.trace_id,
                span_id=span.span_id,
                parent_id=span.parent.span_id if span.parent else "",
                name=span.name,
                start_ns=span.wall,
                end_ns=span.wall + self.monotonic_ns() - span.started,
                attributes={**attributes, "asynctrace.ending": ending},
                events=tuple(span.logs),
            )
        )

    def decorate(self, name: str, function: Any) -> Any:
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def steps(*args: Any, **kwargs: Any) -> Any:
                with self.trace_component(name):
                    async for item in function(*args, **kwargs):
                        yield item

            return steps
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def later(*args: Any, **kwargs: Any) -> Any:
                async with self.trace_component(name):
                    return await function(*args, **kwargs)

            return later

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.trace_component(name):
                return function(*args, **kwargs)

        return call


# Contexts --------------------------------------------------------------------------------------------------


class Variable:
    """A `ContextVar` that is none."""

    def __init__(self) -> None:
        self.value: Any = None

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        self.value = value


class OneScopeForAll(NaiveTracer):
    """A singleton service that knows one current run and one current component."""

    def __init__(self) -> None:
        super().__init__()
        self.run = self.component = Variable()  # type: ignore[assignment]
        self.component = Variable()  # type: ignore[assignment]


class ForgetsToRestore(NaiveTracer):
    """Leaving leaves nothing current."""

    def restore(self, span: NaiveSpan) -> None:
        self.set_current(span.restore[0], None)


class NeverRestores(NaiveTracer):
    """What was entered stays current."""

    def restore(self, span: NaiveSpan) -> None:
        return


class InnerRunIsApart(NaiveTracer):
    """A nested run knows nothing of the one around it, and leaving it leaves both."""

    class span_class(NaiveSpan):
        def enter(self) -> Any:
            if self.is_run:
                self.tracer.set_current(None, None)
            return super().enter()


class ResetsByToken(NaiveTracer):
    """Leaves by `ContextVar.reset(token)`, which belongs to the context of entry."""

    class span_class(NaiveSpan):
        def enter(self) -> Any:
            entered = super().enter()
            self.token = self.tracer.component.set(self)
            return entered

        def leave(self, exc: BaseException | None) -> None:
            self.tracer.component.reset(self.token)
            super().leave(exc)


# Endings ---------------------------------------------------------------------------------------------------


class AlwaysOk(NaiveTracer):
    def ending(self, exc: BaseException | None) -> str:
        return "ok"


class OnlyKnowsExceptions(NaiveTracer):
    """Forgets that some exceptions are no `Exception`: such a component never ends."""

    def finish(self, span: NaiveSpan, ending: str) -> None:
        if ending in ("cancelled", "abandoned"):
            span.is_open = False
        else:
            super().finish(span, ending)


class SwallowsExceptions(NaiveTracer):
    class span_class(NaiveSpan):
        async def __aexit__(self, *exc_info: Any) -> bool:
            await super().__aexit__(*exc_info)
            return True

        def __exit__(self, *exc_info: Any) -> bool:
            super().__exit__(*exc_info)
            return True


class RaisesACopy(NaiveTracer):
    """Raises an exception of the same type, not the same one."""

    class span_class(NaiveSpan):
        async def __aexit__(self, exc_type: Any, exc: Any, traceback: Any) -> None:
            self.__exit__(exc_type, exc, traceback)

        def __exit__(self, exc_type: Any, exc: Any, traceback: Any) -> None:
            super().__exit__(exc_type, exc, traceback)
            if exc is not None:
                raise copy.copy(exc)


class WaitsWhileLeaving(NaiveTracer):
    """Hands the span to a queue with an unshielded await."""

    class span_class(NaiveSpan):
        async def __aexit__(self, exc_type: Any, exc: Any, traceback: Any) -> None:
            await asyncio.sleep(0)
            await super().__aexit__(exc_type, exc, traceback)


class EndsEveryTime(NaiveTracer):
    """Each call of end() is a record."""

    def finish(self, span: NaiveSpan, ending: str) -> None:
        span.is_open = False
        self.record(span, ending)


class NeverAbandons(NaiveTracer):
    """A handle that is lost takes its span with it."""

    def finish(self, span: NaiveSpan, ending: str) -> None:
        if ending == "abandoned":
            span.is_open = False
        super().finish(span, ending)


class EndsEverybody(NaiveTracer):
    """Leaving a run ends all that is open, also what is not below it."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[NaiveSpan] = []
        tracer = self

        class Remembering(NaiveSpan):
            def enter(self) -> Any:
                tracer.opened.append(self)
                return super().enter()

        self.span_class = Remembering

    def finish(self, span: NaiveSpan, ending: str) -> None:
        super().finish(span, ending)
        if span.is_run:
            for other in self.opened:
                super().finish(other, "incomplete")


# Values and times ------------------------------------------------------------------------------------------


class KeepsReferences(NaiveTracer):
    """Encodes later what was given now."""

    def snapshot(self, value: Any) -> Any:
        return value


class OneRecordForEachName(NaiveTracer):
    """Keeps components by name, so that the second run of one replaces the first."""

    def record(self, span: NaiveSpan, ending: str) -> None:
        self.spans = [other for other in self.spans if other.name != span.name]
        super().record(span, ending)


class LosesUpdates(NaiveTracer):
    """Reads the logs, lets others run, writes them back."""

    class span_class(NaiveSpan):
        def add_log(self, message: str, **fields: Any) -> None:
            before = list(self.logs)
            time.sleep(0.0005)
            self.logs = [*before, Event(time_ns=1, name=message, attributes=fields)]


class KeepsEveryRun(NaiveTracer):
    """Remembers ended runs for ever."""

    def record(self, span: NaiveSpan, ending: str) -> None:
        super().record(span, ending)
        self.spans.append(copy.copy(self.spans[-1]))


class WritesWhenEnding(NaiveTracer):
    """Sends each span while the program waits."""

    def record(self, span: NaiveSpan, ending: str) -> None:
        time.sleep(0.0002)
        super().record(span, ending)
