// The word of a query at the caret, and what may stand there. Pure.

export const KEYS = [
  ["name", "name:\"chat*\""], ["service", "service:shop"], ["status", "status:error"], ["is", "is:open"], ["ending", "ending:cancelled"],
  ["type", "type:llm"], ["model", "model:x"], ["dur", "dur>2s"], ["cost", "cost>0.05"], ["tokens", "tokens>1000"], ["input", "input:\"refund\""],
  ["output", "output:\"…\""], ["text", "text:\"…\""], ["session", "session:s1"], ["user", "user:u"], ["kind", "kind:server"], ["since", "since:1h"],
  ["until", "until:10m"], ["spans", "spans>100"], ["errors", "errors>0"], ["scope", "scope:x"], ["id", "id:abcdef"], ["attr.", "attr.key=value"],
];

export const FIXED = {
  status: ["error", "ok", "unset"],
  is: ["open", "ended", "lost", "error", "root", "pinned", "late"],
  ending: ["ok", "error", "cancelled", "timeout", "abandoned", "incomplete", "lost"],
  kind: ["internal", "server", "client", "producer", "consumer"],
  since: ["5m", "1h", "24h", "7d"],
  until: ["5m", "1h", "24h"],
};

// {from, to, key, operator, prefix, negated} of the word that ends at the caret.
export function wordAt(text, caret) {
  let from = 0;
  let quoted = false;
  for (let i = 0; i < caret; i++) {
    if (text[i] === "\\" && quoted) i++;
    else if (text[i] === '"') quoted = !quoted;
    else if (!quoted && /\s/.test(text[i])) from = i + 1;
  }
  let to = caret;
  while (to < text.length && !/\s/.test(text[to])) to++;
  const word = text.slice(from, caret);
  const found = /^(-?)([\w.][\w.\-/]*)(:|>=|<=|=|>|<)"?([\s\S]*)$/.exec(word);
  if (!found) return { from, to, key: null, operator: "", prefix: word.replace(/^-/, ""), negated: word.startsWith("-") };
  return { from, to, key: found[2], operator: found[3], prefix: found[4], negated: Boolean(found[1]) };
}

export function quote(value) {
  const text = String(value);
  return /^[\w.\-/@]+$/.test(text) ? text : `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

export function term(key, value, operator = ":") {
  return `${key}${operator}${quote(value)}`;
}

export function completed(text, word, choice) {
  const sign = word.negated ? "-" : "";
  const made = word.key === null ? `${sign}${choice}` : `${sign}${word.key}${word.operator}${quote(choice)} `;
  return { text: text.slice(0, word.from) + made + text.slice(word.to).replace(/^ /, ""), caret: word.from + made.length };
}
