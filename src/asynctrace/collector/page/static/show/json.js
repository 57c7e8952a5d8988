// JSON as a tree. A branch is made when it is opened: what is closed costs nothing.

import { html, useState } from "../vendor/preact-htm.js";
import { Text } from "./text.js";

const AT_ONCE = 100;
const OPEN_UP_TO = 30;

export function Json({ value, name, depth = 0 }) {
  if (value === null || typeof value !== "object") return html`<div class="leaf">${name !== undefined && html`<span class="key">${name}</span>`}<${Leaf} value=${value} /></div>`;
  return html`<${Branch} value=${value} name=${name} depth=${depth} />`;
}

export function Leaf({ value }) {
  if (typeof value === "string") return html`<${Text} text=${value} className="string" />`;
  return html`<span class="scalar ${typeof value}">${String(value)}</span>`;
}

function Branch({ value, name, depth }) {
  const isList = Array.isArray(value);
  const entries = isList ? value.map((item, i) => [i, item]) : Object.entries(value);
  const [open, setOpen] = useState(depth < 2 && entries.length <= OPEN_UP_TO);
  const [limit, setLimit] = useState(AT_ONCE);
  const size = isList ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return html`<div class="leaf">${name !== undefined && html`<span class="key">${name}</span>`}<span class="scalar">${isList ? "[]" : "{}"}</span></div>`;
  return html`<details class="branch" open=${open} onToggle=${(event) => event.target === event.currentTarget && setOpen(event.currentTarget.open)}>
    <summary>${name !== undefined && html`<span class="key">${name}</span>`}<span class="size">${size}</span>${!open && html`<span class="preview">${preview(entries, isList)}</span>`}</summary>
    ${open && html`<div class="inside">${entries.slice(0, limit).map(([key, item]) => html`<${Json} key=${key} name=${key} value=${item} depth=${depth + 1} />`)}
      ${entries.length > limit && html`<button type="button" class="more" onClick=${() => setLimit(limit * 10)}>… ${entries.length - limit} more</button>`}</div>`}
  </details>`;
}

function preview(entries, isList) {
  const one = ([key, item]) => {
    const text = item !== null && typeof item === "object" ? (Array.isArray(item) ? "[…]" : "{…}") : String(item);
    const cut = text.length > 40 ? `${text.slice(0, 40)}…` : text;
    return isList ? cut : `${key}: ${cut}`;
  };
  return entries.slice(0, 4).map(one).join(", ");
}
