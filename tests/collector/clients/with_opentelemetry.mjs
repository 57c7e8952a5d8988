// OpenTelemetry's SDK for JavaScript: a run with two children, sent as protobuf or as JSON.
import { context, trace, SpanStatusCode } from "@opentelemetry/api";
import { OTLPTraceExporter as Json } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as Protobuf } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const [url, encoding, compression] = process.argv.slice(2);
const Exporter = encoding === "json" ? Json : Protobuf;
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "node" }),
  spanProcessors: [new BatchSpanProcessor(new Exporter({ url: `${url}/v1/traces`, compression }))],
});
const tracer = provider.getTracer("tests", "1.0");
const root = tracer.startSpan("checkout", { attributes: { large: 2 ** 53, list: ["a", "b"], ratio: 0.5, "input.value": "té" } });
const inside = trace.setSpan(context.active(), root);
for (let number = 0; number < 300; number++) tracer.startSpan("step", { attributes: { number } }, inside).end();
const failed = tracer.startSpan("pay", {}, inside);
failed.recordException(new Error("no money"));
failed.setStatus({ code: SpanStatusCode.ERROR, message: "no money" });
failed.end();
root.end();
await provider.shutdown();
