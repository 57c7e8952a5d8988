// Langfuse's SDK for JavaScript, given the collector as its base URL: it sends JSON in chunks.
import { LangfuseSpanProcessor } from "@langfuse/otel";
import { startActiveObservation, startObservation } from "@langfuse/tracing";
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const processor = new LangfuseSpanProcessor({ publicKey: "pk-lf-1", secretKey: "sk-lf-1", baseUrl: process.argv[2] });
const provider = new NodeTracerProvider({ spanProcessors: [processor] });
provider.register();
await startActiveObservation("research", async (span) => {
  span.update({ input: { q: "tea" } });
  const generation = startObservation(
    "answer",
    { model: "gpt-x", input: [{ role: "user", content: "tea?" }] },
    { asType: "generation" },
  );
  generation.update({ output: { content: "green" }, usageDetails: { input: 12, output: 3 } }).end();
  span.update({ output: "green" });
});
await provider.shutdown();
