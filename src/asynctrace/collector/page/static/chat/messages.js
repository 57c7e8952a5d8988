// From what SDKs write about a conversation to one shape:
//
//     message = {role, name, parts: [{kind: "text" | "thinking" | "call" | "result" | "media" | "json", …}], finish}
//     text, thinking  {text}          call    {name, id, input}       result  {id, name, output}
//     media           {mime, source, bytes}                           json    {value}
//
// `messages()` reads any one message or list of messages: OpenAI (chat and responses), Anthropic, Gemini, LangChain, GenAI parts,
// Logfire's events, Vercel. `dialects.js` knows in which attributes they are.

const ROLES = { human: "user", ai: "assistant", model: "assistant", developer: "system", function: "tool", HumanMessage: "user", AIMessage: "assistant", SystemMessage: "system", ToolMessage: "tool" };

export function parsed(value) {
  if (typeof value !== "string") return value;
  const text = value.trimStart();
  if (text[0] !== "{" && text[0] !== "[" && text[0] !== '"') return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const own = (object, key) => (Object.hasOwn(object, key) ? object[key] : undefined);

// A list of messages, or null where the value is no conversation.
export function messages(value, role = "user", depth = 0) {
  const found = parsed(value);
  if (depth > 4 || found == null) return null;
  if (Array.isArray(found)) return listed(found, role, depth);
  if (!isObject(found)) return null;
  for (const key of ["messages", "input_messages", "all_messages", "new_messages", "contents"]) {
    const inner = parsed(own(found, key));
    if (Array.isArray(inner)) {
      const list = messages(inner, role, depth + 1);
      if (list) return withSystem(found, list);
    }
  }
  for (const key of ["choices", "generations", "candidates", "output"]) {
    if (Array.isArray(own(found, key))) {
      const list = messages(found[key], "assistant", depth + 1);
      if (list) return list;
    }
  }
  if (isObject(own(found, "message")) || (typeof own(found, "message") === "string" && own(found, "message").startsWith("{"))) {
    const inner = message(parsed(found.message), "assistant");
    if (inner) return [{ ...inner, finish: finishOf(found) ?? inner.finish }];
  }
  if (typeof own(found, "combined_chunk_content") === "string") return [plain("assistant", found.combined_chunk_content)];
  const one = message(found, role);
  return one ? [one] : null;
}

function listed(list, role, depth) {
  if (!list.length) return null;
  if (Array.isArray(list[0])) {
    const inner = list.map((part) => messages(part, role, depth + 1));
    return inner.some((part) => part === null) ? null : inner.flat();
  }
  const found = [];
  for (const item of list) {
    const whole = isObject(parsed(item)) ? messages(parsed(item), role, depth + 1) : null;
    if (!whole) return null;
    found.push(...whole);
  }
  return joined(found);
}

// Parts of one message may come as messages: Logfire's choices, the responses API.
function joined(list) {
  return list.filter((item) => item.parts.length);
}

function withSystem(found, list) {
  const system = own(found, "system") ?? own(found, "instructions") ?? own(found, "system_instruction");
  if (system == null || list[0]?.role === "system") return list;
  const parts = partsOf(system);
  return parts.length ? [{ role: "system", parts }, ...list] : list;
}

export function plain(role, text) {
  return { role, parts: [{ kind: "text", text: String(text) }] };
}

const finishOf = (value) => own(value, "finish_reason") ?? own(value, "finishReason") ?? own(value, "stop_reason");

// One message, or null where the object is something else.
export function message(value, fallback = "user") {
  if (!isObject(value)) return null;
  const lang = langchain(value);
  if (lang) return message(lang, fallback);
  const single = respond(value);
  if (single) return single;
  const wrapped = parsed(own(value, "message"));
  if (isObject(wrapped) && own(value, "role") === undefined) {
    const inner = message(wrapped, "assistant");
    return inner && { ...inner, finish: finishOf(value) ?? inner.finish };
  }
  const event = own(value, "event.name");
  const role = own(value, "role") ?? roleOfEvent(event) ?? ROLES[own(value, "type")];
  const body = own(value, "parts") ?? own(value, "content") ?? own(value, "contents") ?? own(value, "text");
  const calls = parsed(own(value, "tool_calls") ?? own(value, "toolCalls"));
  const old = parsed(own(value, "function_call"));
  // what a model said may come without its role, but then with nothing else
  const isBare = fallback === "assistant" && typeof body === "string" && Object.keys(value).length === 1;
  if (role === undefined && !calls && !finishOf(value) && !isBare) return null;
  if (body === undefined && !calls && !old && role === undefined) return null;
  const kind = String(ROLES[role] ?? role ?? fallback);
  const parts = kind === "tool" ? toolParts(value, body) : partsOf(body);
  const thinking = own(value, "reasoning_content") ?? own(value, "reasoning");
  if (typeof thinking === "string" && thinking) parts.unshift({ kind: "thinking", text: thinking });
  if (Array.isArray(calls)) parts.push(...calls.map(call).filter(Boolean));
  if (isObject(old)) parts.push(call(old));
  if (typeof own(value, "refusal") === "string") parts.push({ kind: "text", text: value.refusal });
  return { role: kind, name: text(own(value, "name")), parts, finish: finishOf(value) };
}

function roleOfEvent(event) {
  if (event === "gen_ai.choice") return "assistant";
  return /^gen_ai\.(\w+)\.message$/.exec(event ?? "")?.[1];
}

// OpenAI's responses: calls and results stand beside the messages, not in them.
function respond(value) {
  const type = own(value, "type");
  if (type === "function_call" && own(value, "name")) return { role: "assistant", parts: [call(value)] };
  if (type === "function_call_output") return { role: "tool", parts: [result(own(value, "output"), own(value, "call_id"))] };
  if (type === "reasoning" && own(value, "role") === undefined) {
    const parts = partsOf(own(value, "summary") ?? own(value, "content")).map((part) => ({ ...part, kind: part.kind === "text" ? "thinking" : part.kind }));
    return parts.length ? { role: "assistant", parts } : null;
  }
  return null;
}

function langchain(value) {
  const kwargs = own(value, "kwargs");
  if (own(value, "lc") !== undefined && isObject(kwargs)) {
    const id = own(value, "id");
    return { ...kwargs, role: ROLES[Array.isArray(id) ? id.at(-1) : ""] ?? kwargs.type };
  }
  return null;
}

function toolParts(value, body) {
  const id = own(value, "tool_call_id") ?? own(value, "id");
  const whole = parsed(body);
  if (Array.isArray(whole) && whole.some((part) => /response|result/.test(own(part ?? {}, "type") ?? ""))) return partsOf(whole);
  return body === undefined || body === null ? [] : [result(body, id, own(value, "name"))];
}

export function call(value) {
  if (!isObject(value)) return null;
  const inner = isObject(own(value, "function")) ? value.function : isObject(own(value, "tool_call.function")) ? value["tool_call.function"] : value;
  const given = own(inner, "arguments") ?? own(inner, "args") ?? own(inner, "input") ?? own(inner, "parameters");
  return { kind: "call", name: text(own(inner, "name") ?? own(value, "toolName") ?? own(value, "tool_name")) ?? "tool", id: text(own(value, "id") ?? own(value, "call_id") ?? own(value, "toolCallId")), input: parsed(given) ?? null };
}

export function result(output, id, name) {
  return { kind: "result", id: text(id), name: text(name), output: parsed(output) };
}

const text = (value) => (value === undefined || value === null ? undefined : String(value));

// The content of a message: a string, a list of parts, an object.
export function partsOf(content) {
  if (content === undefined || content === null || content === "") return [];
  if (typeof content === "string") {
    const inner = content.startsWith("[{") ? parsed(content) : content;
    if (Array.isArray(inner) && inner.every((part) => isObject(part) && (own(part, "type") !== undefined || own(part, "text") !== undefined))) return inner.map(part);
    return [{ kind: "text", text: content }];
  }
  if (Array.isArray(content)) return content.map(part);
  if (isObject(content) && (own(content, "type") !== undefined || own(content, "text") !== undefined || own(content, "parts") !== undefined))
    return own(content, "parts") ? partsOf(content.parts) : [part(content)];
  return [{ kind: "json", value: content }];
}

function part(value) {
  if (typeof value === "string") return { kind: "text", text: value };
  if (!isObject(value)) return { kind: "json", value };
  const type = own(value, "type") ?? own(value, "kind") ?? own(value, "part_kind");
  const words = own(value, "text") ?? own(value, "content");
  switch (type) {
    case "text": case "input_text": case "output_text": case "user-prompt": case "system-prompt": case "summary_text": case "refusal":
      return typeof words === "string" ? { kind: "text", text: words } : { kind: "json", value: words ?? value };
    case "thinking": case "reasoning":
      return { kind: "thinking", text: String(own(value, "thinking") ?? words ?? "") };
    case "tool_call": case "tool_use": case "tool-call": case "function_call": case "server_tool_use":
      return call(value);
    case "tool_call_response": case "tool_result": case "tool-return": case "tool-result": case "function_call_output":
      return result(own(value, "response") ?? own(value, "result") ?? own(value, "output") ?? own(value, "content"), own(value, "id") ?? own(value, "tool_use_id") ?? own(value, "tool_call_id") ?? own(value, "toolCallId"), own(value, "name"));
    case "image_url": case "input_image":
      return media(isObject(own(value, "image_url")) ? value.image_url.url : own(value, "image_url"), "image");
    case "image": case "document": case "file": case "input_file": case "audio": case "input_audio": case "blob": case "uri": case "media":
      return mediaPart(value, type);
    default:
      return untyped(value, words);
  }
}

// Gemini's parts have no type, but a key that says it.
function untyped(value, words) {
  const called = own(value, "function_call") ?? own(value, "functionCall");
  if (isObject(called)) return call(called);
  const answered = own(value, "function_response") ?? own(value, "functionResponse");
  if (isObject(answered)) return result(own(answered, "response"), own(answered, "id"), own(answered, "name"));
  if (own(value, "inline_data") ?? own(value, "inlineData")) return mediaPart(own(value, "inline_data") ?? value.inlineData, "blob");
  if (isObject(own(value, "message_content"))) return part(value.message_content);
  return typeof words === "string" ? { kind: "text", text: words } : { kind: "json", value };
}

function mediaPart(value, type) {
  const from = isObject(own(value, "source")) ? value.source : isObject(own(value, type)) ? value[type] : value;
  const mime = own(from, "media_type") ?? own(from, "mime_type") ?? own(from, "mimeType") ?? own(value, "mime_type") ?? (type === "image" ? "image" : type);
  const source = own(from, "url") ?? own(from, "uri") ?? own(from, "file_uri") ?? own(from, "data") ?? own(from, "content") ?? own(from, "file_data");
  return media(typeof source === "string" ? source : "", mime);
}

export function media(source, mime = "file") {
  const link = String(source ?? "");
  const found = /^data:([^;,]*)/.exec(link);
  const isLink = !found && /^[a-z][a-z0-9+.-]*:/i.test(link);
  const size = isLink ? null : Math.floor(((link.length - (found ? link.indexOf(",") + 1 : 0)) * 3) / 4);
  return { kind: "media", mime: found?.[1] || mime, source: link, bytes: size, isLink };
}
