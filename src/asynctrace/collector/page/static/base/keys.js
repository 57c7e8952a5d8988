// Keys for the whole page. A screen binds its own while it is shown; the help dialog lists what is bound.

const layers = [];

// keys: {key: [what it does, function]}; bound until the returned function is called.
export function bindKeys(title, keys) {
  const layer = { title, keys };
  layers.push(layer);
  return () => layers.splice(layers.indexOf(layer), 1);
}

export function boundKeys() {
  const found = new Map();
  for (const { title, keys } of layers) found.set(title, [...(found.get(title) ?? []), ...Object.entries(keys).map(([key, [what]]) => [key, what])]);
  return [...found].sort(([one], [other]) => (one === "Everywhere") - (other === "Everywhere"));
}

export function isTyping(target) {
  return target instanceof Element && target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]") !== null;
}

export function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" || event.key === " ") {
      if (event.target instanceof Element && event.target.closest("button, a, summary, label")) return;
    }
    for (let i = layers.length - 1; i >= 0; i--) {
      const bound = layers[i].keys[event.key];
      if (!bound?.[1]) continue;
      event.preventDefault();
      bound[1](event);
      return;
    }
  });
}

// Keys that an element handles itself, for the help.
export const TREE_KEYS = {
  "↑ ↓": ["row above, below"],
  "→ ←": ["open, close; into, out of a branch"],
  "Home End": ["first, last row"],
  "Enter": ["to the span's detail; open a fold"],
  "*": ["open all siblings"],
};
