// In which attributes, events and logs each SDK keeps the conversation of a span.
//
//     genai        gen_ai.input.messages, gen_ai.output.messages, gen_ai.system_instructions     (JSON, since 1.37)
//     genai events gen_ai.user.message, gen_ai.choice, … as events or logs                       (1.28 to 1.36)
//     indexed      gen_ai.prompt.N.role, gen_ai.completion.N.tool_calls.M.name                   Traceloop, AgentOps
//     openinference llm.input_messages.N.message.role, …tool_calls.M.tool_call.function.name     Phoenix, asynctrace
//     langfuse     langfuse.observation.input, …output
//     logfire      all_messages_events, events, request_data, response_data, pydantic_ai.all_messages
//     traceloop    traceloop.entity.input, …output;  agentops.entity.input, …output
//     vercel       ai.prompt.messages, ai.response.text, ai.response.toolCalls
//
// The first that has something wins; what none of them knows is the span's plain input and output.

import { call, media, messages, parsed, partsOf, plain, result } from "./messages.js";

export function conversation(span) {
  const attributes = span.attributes ?? {};
  const found = { input: null, output: null };
  for (const [name, read] of READERS) {
    const { input, output } = read(attributes, span) ?? {};
    if (!found.input && input?.length) Object.assign(found, { input, inputFrom: name });
    if (!found.output && output?.length) Object.assign(found, { output, outputFrom: name });
    if (found.input && found.output) break;
  }
  return found;
}

const has = (attributes, key) => Object.hasOwn(attributes, key) && attributes[key] !== null && attributes[key] !== "";
const given = (attributes, key) => (has(attributes, key) ? attributes[key] : undefined);

function genai(attributes, span) {
  const source = has(attributes, "gen_ai.input.messages") || has(attributes, "gen_ai.output.messages") ? attributes : detailsOf(span);
  let input = messages(given(source, "gen_ai.input.messages"), "user");
  const instructions = parsed(given(source, "gen_ai.system_instructions"));
  if (instructions) input = [{ role: "system", parts: partsOf(instructions) }, ...(input ?? []).filter((one) => one.role !== "system")];
  return { input, output: messages(given(source, "gen_ai.output.messages"), "assistant") };
}

function detailsOf(span) {
  const event = happenings(span).find(({ name }) => name === "gen_ai.client.inference.operation.details");
  return event?.attributes ?? {};
}

const ROLE_OF_EVENT = /^gen_ai\.(system|user|assistant|tool|developer)\.message$/;

function genaiEvents(attributes, span) {
  const input = [];
  const output = [];
  for (const { name, attributes: facts, body } of happenings(span)) {
    const merged = { ...facts, ...(isPlain(body) ? body : typeof body === "string" ? { content: body } : {}) };
    const role = ROLE_OF_EVENT.exec(name)?.[1];
    if (role) input.push(...(messages({ role, ...merged, tool_calls: parsed(merged.tool_calls), "event.name": undefined }) ?? []));
    else if (name === "gen_ai.choice") output.push(...(messages({ ...merged, role: merged.message ? undefined : (merged.role ?? "assistant"), message: parsed(merged.message) }, "assistant") ?? []));
    else if (name === "gen_ai.content.prompt") input.push(...(messages(facts["gen_ai.prompt"]) ?? texts("user", facts["gen_ai.prompt"])));
    else if (name === "gen_ai.content.completion") output.push(...(messages(facts["gen_ai.completion"], "assistant") ?? texts("assistant", facts["gen_ai.completion"])));
  }
  return { input, output };
}

const isPlain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const texts = (role, text) => (text === undefined || text === null ? [] : [plain(role, text)]);

function happenings(span) {
  const events = (span.events ?? []).map(({ name, attributes }) => ({ name, attributes: attributes ?? {}, body: undefined }));
  const logs = (span.logs ?? []).map((log) => ({ name: log.event_name ?? log.attributes?.["event.name"] ?? log.name, attributes: log.attributes ?? {}, body: parsed(log.body) }));
  return [...events, ...logs];
}

// `prefix.0.role`, `prefix.0.tool_calls.1.name`: flat keys become a list of objects.
export function unflatten(attributes, prefix) {
  const root = [];
  for (const [key, value] of Object.entries(attributes)) {
    if (!key.startsWith(prefix)) continue;
    const path = key.slice(prefix.length).split(".");
    if (!/^\d{1,4}$/.test(path[0])) continue;
    let node = root;
    for (let i = 0; i < path.length; i++) {
      const step = /^\d{1,4}$/.test(path[i]) ? Number(path[i]) : path[i];
      if (step === "__proto__") break;
      if (i === path.length - 1) node[step] = value;
      else {
        if (node[step] === null || typeof node[step] !== "object") node[step] = /^\d{1,4}$/.test(path[i + 1]) ? [] : Object.create(null);
        node = node[step];
      }
    }
  }
  return dense(root);
}

function dense(node) {
  if (Array.isArray(node)) return node.filter((item) => item !== undefined).map(dense);
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, dense(value)]));
}

function indexed(attributes) {
  const read = (prefix, role) => {
    const list = unflatten(attributes, prefix).filter(isPlain).map((one) => ({ role, ...one }));
    return messages(list, role);
  };
  return {
    input: read("gen_ai.prompt.", "user") ?? read("llm.prompts.", "user") ?? messages(given(attributes, "gen_ai.prompt"), "user"),
    output: read("gen_ai.completion.", "assistant") ?? read("llm.completions.", "assistant") ?? messages(given(attributes, "gen_ai.completion"), "assistant"),
  };
}

function openinference(attributes) {
  return {
    input: openinferenceList(attributes, "llm.input_messages.", "user"),
    output: openinferenceList(attributes, "llm.output_messages.", "assistant"),
  };
}

function openinferenceList(attributes, prefix, fallback) {
  return unflatten(attributes, prefix)
    .map((item) => item?.message)
    .filter(isPlain)
    .map((one) => {
      const role = String(one.role ?? fallback);
      const calls = (Array.isArray(one.tool_calls) ? one.tool_calls : []).map((item) => {
        const tool = item?.tool_call ?? {};
        return call({ id: tool.id, function: tool.function ?? {} });
      });
      return { role, name: one.name, parts: [...openinferenceParts(one, role), ...calls.filter(Boolean)], finish: one.finish_reason };
    })
    .filter((one) => one.parts.length);
}

function openinferenceParts(one, role) {
  const contents = Array.isArray(one.contents) ? one.contents.map((item) => item?.message_content ?? {}) : [];
  const parts = contents.map((item) => (item.type === "image" || item.image ? media(item.image?.image?.url ?? item.image?.url, "image") : { kind: "text", text: String(item.text ?? "") }));
  if (one.content === undefined || one.content === null || one.content === "") return parts;
  if (role === "tool") return [result(one.content, one.tool_call_id, one.name), ...parts];
  return [...partsOf(one.content), ...parts];
}

function langfuse(attributes) {
  return both(attributes, "langfuse.observation.input", "langfuse.observation.output");
}

function both(attributes, inputKey, outputKey) {
  return { input: messages(given(attributes, inputKey), "user"), output: messages(given(attributes, outputKey), "assistant") };
}

// One list with everything: what the model said last is the output.
function logfire(attributes) {
  const all = messages(given(attributes, "pydantic_ai.all_messages") ?? given(attributes, "all_messages_events") ?? eventsText(attributes), "user");
  if (all?.length) {
    const last = all.at(-1).role === "assistant" ? all.length - 1 : all.length;
    return { input: all.slice(0, last), output: all.slice(last) };
  }
  return { input: messages(given(attributes, "request_data"), "user"), output: messages(given(attributes, "response_data"), "assistant") };
}

function eventsText(attributes) {
  const events = parsed(given(attributes, "events"));
  return Array.isArray(events) && events.some((event) => String(event?.["event.name"] ?? "").startsWith("gen_ai.")) ? events : undefined;
}

function entity(attributes) {
  const first = both(attributes, "traceloop.entity.input", "traceloop.entity.output");
  const second = both(attributes, "agentops.entity.input", "agentops.entity.output");
  return { input: first.input ?? second.input, output: first.output ?? second.output };
}

function vercel(attributes) {
  const calls = parsed(given(attributes, "ai.response.toolCalls"));
  const parts = [...partsOf(given(attributes, "ai.response.text")), ...(Array.isArray(calls) ? calls.map(call).filter(Boolean) : [])];
  return { input: messages(given(attributes, "ai.prompt.messages") ?? given(attributes, "ai.prompt"), "user"), output: parts.length ? [{ role: "assistant", parts }] : null };
}

// A span that is one call of a tool has its arguments and its result.
function tool(attributes) {
  const name = given(attributes, "gen_ai.tool.name") ?? given(attributes, "tool.name") ?? given(attributes, "ai.toolCall.name");
  const input = given(attributes, "gen_ai.tool.call.arguments") ?? given(attributes, "tool_arguments") ?? given(attributes, "ai.toolCall.args") ?? given(attributes, "tool.parameters");
  const output = given(attributes, "gen_ai.tool.call.result") ?? given(attributes, "tool_response") ?? given(attributes, "ai.toolCall.result");
  const id = given(attributes, "gen_ai.tool.call.id");
  return {
    input: input === undefined ? null : [{ role: "assistant", parts: [call({ name, id, arguments: input })] }],
    output: output === undefined ? null : [{ role: "tool", parts: [result(output, id, name)] }],
  };
}

function generic(attributes, span) {
  return { input: messages(span.input?.text, "user"), output: messages(span.output?.text, "assistant") };
}

const READERS = [
  ["GenAI", genai],
  ["OpenInference", openinference],
  ["Traceloop", indexed],
  ["GenAI events", genaiEvents],
  ["Logfire", logfire],
  ["Langfuse", langfuse],
  ["Vercel", vercel],
  ["tool", tool],
  ["Traceloop entity", entity],
  ["input", generic],
];

// Tokens of a span in any dialect, for the head of the detail where the collector does not say them.
const TOKEN_KEYS = {
  input: ["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "llm.usage.prompt_tokens", "ai.usage.promptTokens"],
  output: ["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion", "llm.usage.completion_tokens", "ai.usage.completionTokens"],
};

export function tokensOf(span) {
  if (Array.isArray(span.tokens)) return { input: span.tokens[0], output: span.tokens[1] };
  if (isPlain(span.tokens)) return { input: span.tokens.input ?? span.tokens.input_tokens, output: span.tokens.output ?? span.tokens.output_tokens };
  const attributes = span.attributes ?? {};
  const first = (keys) => keys.map((key) => given(attributes, key)).find((value) => value !== undefined);
  const usage = parsed(given(attributes, "langfuse.observation.usage_details"));
  return { input: first(TOKEN_KEYS.input) ?? usage?.input ?? usage?.prompt_tokens, output: first(TOKEN_KEYS.output) ?? usage?.output ?? usage?.completion_tokens };
}
