// Texts of others, shown as text: base64 as a chip, the very long cut, each with a button that copies exactly what was there.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { bytes, count } from "../base/format.js";
import { pieces } from "./blobs.js";

const SHOWN = 20_000;

export function Text({ text, mono = false, className = "" }) {
  const whole = String(text);
  const [limit, setLimit] = useState(SHOWN);
  const parts = pieces(whole);
  let left = limit;
  const shown = [];
  for (const part of parts) {
    if (left <= 0) break;
    if (part.blob) shown.push(html`<${Chip} mime=${part.mime} size=${part.bytes} source=${part.blob} />`);
    else {
      shown.push(part.text.length > left ? part.text.slice(0, left) : part.text);
      left -= part.text.length;
    }
  }
  return html`<div class="text ${mono ? "mono" : ""} ${className}">${shown}${left < 0 && html`<button class="more" type="button" onClick=${() => setLimit(limit * 10)}>… ${count(-left)} more characters</button>`}</div>`;
}

export function Chip({ mime, size, source }) {
  const [open, setOpen] = useState(false);
  const isImage = /^image\/(png|jpeg|gif|webp)$/.test(mime);
  const label = `${mime}${size === null || size === undefined ? "" : ` · ${bytes(size)}`}`;
  return html`<span class="chip blob"><span class="blob-label">${label}</span>
    ${isImage && html`<button type="button" aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>${open ? "hide" : "show"}</button>`}
    <${CopyButton} text=${source} label="copy" name=${`Copy ${label}`} />
    ${open && html`<img class="picture" alt=${label} src=${source.startsWith("data:") ? source : `data:${mime};base64,${source}`} />`}</span>`;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch {
    // pages that are not served securely have no clipboard: the selection has
  }
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "offscreen";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

export function CopyButton({ text, label = "Copy", name, className = "" }) {
  const [done, setDone] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const press = async () => {
    await copy(typeof text === "function" ? text() : text);
    setDone(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 1200);
  };
  return html`<button type="button" class="copy ${className}" aria-label=${done ? "Copied" : (name ?? label)} onClick=${press}>${done ? "Copied" : label}</button>`;
}
