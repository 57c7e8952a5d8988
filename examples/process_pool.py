"""Work in other processes, in the same trace, delivered before its result is there.

    asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
    python examples/process_pool.py 10 12 x

The workers configure nothing: the pool takes the place in the trace and the settings of the tracer along.
"""

import asyncio
import sys

import asynctrace
from asynctrace import processes


@asynctrace.trace_component("count primes", type="tool")
def count_primes(text: str) -> int:
    limit = int(text)
    asynctrace.add_log("counting", limit=limit)
    return sum(all(number % divisor for divisor in range(2, number)) for number in range(2, limit))


async def main(texts: list[str]) -> None:
    async with asynctrace.configure(service="primes") as tracer:
        loop = asyncio.get_running_loop()
        with processes.ProcessPoolExecutor(2) as pool:
            async with asynctrace.trace("primes", inputs=texts) as run:
                counting = [loop.run_in_executor(pool, count_primes, text) for text in texts]
                counts = await asyncio.gather(*counting, return_exceptions=True)
                run.set_outputs([None if isinstance(count, BaseException) else count for count in counts])
        print(*counts, sep="\n")
    print(tracer.receipt())  # of this process: each worker delivers for itself, and keeps books of its own


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["10", "12", "x"]))
