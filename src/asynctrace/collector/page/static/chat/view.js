// A conversation on the screen: role, text, calls of tools and what they answered.

import { html, useState } from "../vendor/preact-htm.js";
import { Json } from "../show/json.js";
import { Chip, Text } from "../show/text.js";

const FIRST = 3;
const LAST = 12;

export function Chat({ list }) {
  const [all, setAll] = useState(false);
  const hidden = all ? 0 : Math.max(0, list.length - FIRST - LAST);
  const names = new Map(list.flatMap((one) => one.parts.filter((part) => part.kind === "call" && part.id).map((part) => [part.id, part.name])));
  const shown = hidden ? [...list.slice(0, FIRST), null, ...list.slice(-LAST)] : list;
  return html`<ol class="chat">${shown.map((one, i) => (one ? html`<${Message} key=${i} one=${one} names=${names} />` : html`<li class="skipped"><button type="button" class="more" onClick=${() => setAll(true)}>… ${hidden} messages between</button></li>`))}</ol>`;
}

function Message({ one, names }) {
  return html`<li class="message role-${known(one.role)}">
    <div class="role">${one.role}${one.name && html`<span class="of"> ${one.name}</span>`}${one.finish && one.finish !== "stop" && html`<span class="finish">${String(one.finish)}</span>`}</div>
    <div class="parts">${one.parts.map((part, i) => html`<${Part} key=${i} part=${part} names=${names} />`)}</div>
  </li>`;
}

const known = (role) => (["system", "user", "assistant", "tool"].includes(role) ? role : "other");

function Part({ part, names }) {
  switch (part.kind) {
    case "text":
      return html`<${Text} text=${part.text} />`;
    case "thinking":
      return html`<details class="thinking"><summary>thinking</summary><${Text} text=${part.text} /></details>`;
    case "call":
      return html`<div class="tool-call"><div class="tool-name"><span aria-hidden="true">→ </span>${part.name}${part.id && html`<span class="call-id">${part.id}</span>`}</div><${Value} value=${part.input} /></div>`;
    case "result":
      return html`<div class="tool-result">${(part.name || part.id) && html`<div class="tool-name"><span aria-hidden="true">← </span>${part.name ?? names.get(part.id)}${part.id && html`<span class="call-id">${part.id}</span>`}</div>`}<${Value} value=${part.output} /></div>`;
    case "media":
      return part.isLink ? html`<span class="chip">${part.mime} ${part.source}</span>` : html`<${Chip} mime=${part.mime} size=${part.bytes} source=${part.source} />`;
    default:
      return html`<${Json} value=${part.value} />`;
  }
}

function Value({ value }) {
  if (value === null || value === undefined) return null;
  if (typeof value !== "object") return html`<${Text} text=${value} />`;
  const entries = Array.isArray(value) ? [] : Object.entries(value);
  // a few arguments need no braces
  if (!entries.length || entries.length > 12) return html`<${Json} value=${value} />`;
  return html`<div class="json arguments">${entries.map(([key, inner]) => html`<${Json} key=${key} name=${key} value=${inner} depth=${1} />`)}</div>`;
}
