"""A FastAPI service whose requests are traced, to a stream's last chunk, and whose last span arrives before the worker ends.

    asynctrace serve &                        # or any OTLP endpoint, in OTEL_EXPORTER_OTLP_ENDPOINT
    python examples/fastapi_service.py
    curl -d '{"question": "Which tea?", "session": "s-1"}' -H 'content-type: application/json' 127.0.0.1:8000/ask
    curl 127.0.0.1:8000/stream/3

The lifespan awaits `shutdown()`: a web server's worker ends by a signal, and no exit hook of Python runs then.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import asynctrace
from asynctrace.middleware import ASGIMiddleware

tracer = asynctrace.configure(service="tea-advice")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asynctrace.lifespan()(app):
        yield
    print(tracer.receipt(), flush=True)


app = FastAPI(lifespan=lifespan)
app.add_middleware(ASGIMiddleware, excluded=("/healthz",))  # one span for each request, named by its route


class Question(BaseModel):
    question: str
    session: str | None = None


@asynctrace.trace_component("retrieve", type="retriever")
async def retrieve(question: str) -> list[str]:
    documents = ["Sencha is green.", "Assam is black."]
    asynctrace.add_log("searched", question=question, found=len(documents))
    return documents


@app.post("/ask")
async def ask(body: Question) -> dict[str, str]:
    async with asynctrace.trace("advice", session_id=body.session, inputs={"question": body.question}) as run:
        documents = await retrieve(body.question)
        async with asynctrace.trace_component("answer", type="llm", inputs=documents) as answer:
            await asyncio.sleep(0.01)  # the model thinks
            text = f"Of {len(documents)}, the first: {documents[0]}"
            answer.set_outputs(text)
        run.set_outputs({"answer": text})
    return {"answer": text}


@app.get("/stream/{count}")
async def stream(count: int) -> StreamingResponse:
    async def words() -> AsyncIterator[str]:
        for number in range(count):
            async with asynctrace.trace_component("token", type="llm"):
                await asyncio.sleep(0.01)
            yield f"word {number}\n"

    return StreamingResponse(words(), media_type="text/plain")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")
