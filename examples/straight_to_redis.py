"""Spans straight into the stream that `asynctrace worker` stores from.

pip install 'asynctrace[redis,zstd]'
ASYNCTRACE_STREAM=redis://127.0.0.1:6379 python examples/straight_to_redis.py
asynctrace worker --stream redis://127.0.0.1:6379 --store traces/
asynctrace view --store traces/
"""

import asyncio

import asynctrace
from asynctrace.exporters import RedisExporter


async def charge(order: int) -> None:
    async with asynctrace.trace_component("charge", inputs={"order": order}):
        await asyncio.sleep(0.01)


async def main() -> None:
    tracer = asynctrace.configure(service="shop", exporters=[RedisExporter()])
    for order in range(3):
        async with asynctrace.trace(f"order {order}"):
            await charge(order)
    receipt = await tracer.shutdown(timeout=30)
    print(receipt)
    receipt.raise_for_loss()


if __name__ == "__main__":
    asyncio.run(main())
