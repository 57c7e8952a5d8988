// Small pieces that several screens share.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { ending, mark, tone } from "./format.js";

export const Mark = ({ state }) => html`<span class="mark ${tone(state)}" role="img" aria-label=${ending(state) || "ok"} title=${ending(state) || "ok"}>${mark(state)}</span>`;

export function Problem({ error, onRetry, children }) {
  return html`<div class="notice problem-notice" role="alert"><h2>${children ?? "This could not be loaded"}</h2><p>${String(error.message ?? error)}</p>
    ${onRetry && html`<button type="button" onClick=${onRetry}>Try again</button>`}</div>`;
}

// A button with a menu below it. Closes on Escape, on a choice, and when the focus leaves.
export function Menu({ label, children }) {
  const [open, setOpen] = useState(false);
  const box = useRef(null);
  const left = (event) => box.current.contains(event.relatedTarget) || setOpen(false);
  const pressed = (event) => {
    if (event.key !== "Escape" || !open) return;
    event.stopPropagation();
    setOpen(false);
    box.current.querySelector("button").focus();
  };
  return html`<div class="menu" ref=${box} onFocusOut=${left} onKeyDown=${pressed}>
    <button type="button" aria-haspopup="true" aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>${label} <span class="caret" aria-hidden="true">▾</span></button>
    ${open && html`<div class="menu-list" onClick=${(event) => event.target.closest("a, button:not(.stays)") && setTimeout(() => setOpen(false), 0)}>${children}</div>`}
  </div>`;
}

export function Dialog({ title, onClose, children }) {
  const box = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${box} aria-label=${title} onClose=${onClose} onClick=${(event) => event.target === box.current && box.current.close()}>
    <div class="dialog-head"><h2>${title}</h2><button type="button" class="quiet" aria-label="Close" onClick=${() => box.current.close()}>×</button></div>
    <div class="dialog-body">${children}</div></dialog>`;
}

// A border between two panes that is dragged, or moved by the arrow keys. `value` is the share of the first one.
export function Border({ label, value, onChange, low = 0.15, high = 0.85, flipped = false }) {
  const set = (share) => onChange(Math.max(low, Math.min(high, share)));
  const dragged = (event) => {
    if (event.button) return;
    const handle = event.currentTarget;
    const box = handle.parentElement.getBoundingClientRect();
    handle.setPointerCapture(event.pointerId);
    const move = (to) => set(flipped ? (to.clientY - box.top) / box.height : (to.clientX - box.left) / box.width);
    const stop = () => {
      handle.removeEventListener("pointermove", move);
      handle.removeEventListener("pointerup", stop);
    };
    handle.addEventListener("pointermove", move);
    handle.addEventListener("pointerup", stop);
    event.preventDefault();
  };
  const pressed = (event) => {
    const step = { ArrowLeft: -0.02, ArrowUp: -0.02, ArrowRight: 0.02, ArrowDown: 0.02 }[event.key];
    if (!step) return;
    event.preventDefault();
    set(value + step);
  };
  return html`<div class="border" role="separator" tabindex="0" aria-label=${label} aria-orientation=${flipped ? "horizontal" : "vertical"} aria-valuenow=${Math.round(value * 100)} aria-valuemin=${Math.round(low * 100)} aria-valuemax=${Math.round(high * 100)} onPointerDown=${dragged} onKeyDown=${pressed}></div>`;
}

export function remembered(key, fallback) {
  try {
    const value = JSON.parse(localStorage.getItem(`asynctrace.${key}`));
    return typeof value === typeof fallback ? value : fallback;
  } catch {
    return fallback;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(`asynctrace.${key}`, JSON.stringify(value));
  } catch {
    // what cannot be kept is as it was the next time
  }
}

export const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
