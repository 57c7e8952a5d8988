"""A program without an event loop: plain blocks, plain functions, threads.

    asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
    python examples/plain_script.py 3 4 x

Spans leave from a thread that the tracer owns; the end of the `with` block waits for them.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import asynctrace


@asynctrace.trace_component("square", type="tool")
def square(text: str) -> int:
    asynctrace.add_log("squaring", text=text)
    return int(text) ** 2


def attempt(text: str) -> int | None:
    try:
        return square(text)
    except ValueError:
        return None


def main(texts: list[str]) -> None:
    with asynctrace.configure(service="squares") as tracer:
        with asynctrace.trace("squares", inputs=texts) as run, ThreadPoolExecutor() as pool:
            # A pool's threads know nothing of the run that gives them work; bind() tells them.
            squares = list(pool.map(asynctrace.bind(attempt), texts))
            run.set_outputs(squares)
        print(squares)
    print(tracer.receipt())  # leaving the block delivered, or gave up after `shutdown_timeout`


if __name__ == "__main__":
    main(sys.argv[1:] or ["3", "4", "x"])
