"""OpenTelemetry's SDK with its exporter for JSON: a run with two children."""

import sys

from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import StatusCode

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{sys.argv[1]}/v1/traces")))
tracer = provider.get_tracer("tests")
with tracer.start_as_current_span("checkout"):
    with tracer.start_as_current_span("step", attributes={"list": [1, 2], "bytes": b"\xff"}):
        pass
    with tracer.start_as_current_span("pay") as span:
        span.set_status(StatusCode.ERROR, "no money")
provider.shutdown()
