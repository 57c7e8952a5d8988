// Every key that is bound just now.

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { bindKeys, boundKeys } from "../base/keys.js";
import { Dialog } from "../base/parts.js";

const SHORT = { Escape: "Esc", ArrowDown: "↓", ArrowUp: "↑" };

// Keys that do the same stand together.
function byMeaning(keys) {
  const found = new Map();
  for (const [key, what] of keys) found.set(what, [...(found.get(what) ?? []), ...(SHORT[key] ?? key).split(" ")]);
  return [...found];
}

export function Help() {
  const [open, setOpen] = useState(false);
  useEffect(() => bindKeys("Everywhere", { "?": ["these keys", () => setOpen(true)] }), []);
  return html`<button type="button" class="quiet help-button" aria-label="Keyboard shortcuts" title="Keyboard shortcuts" onClick=${() => setOpen(true)}>?</button>
    ${open && html`<${Dialog} title="Keys" onClose=${() => setOpen(false)}>${boundKeys().map(([title, keys]) => html`<section key=${title} class="keys"><h3>${title}</h3><dl>${byMeaning(keys).map(([what, pressed]) => html`<div key=${what}><dt>${pressed.map((one) => html`<kbd key=${one}>${one}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl></section>`)}</${Dialog}>`}`;
}
