// The field for a query: values are completed while one types, a mistake is underlined where it stands.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { get } from "../base/api.js";
import { completed, FIXED, KEYS, wordAt } from "./words.js";

const PAUSE = 250; // ms after the last key before the query is asked
let numbers = 0;

export function QueryInput({ value, onQuery, problem, label, placeholder, complete = fromCollector, focusKey }) {
  const [text, setText] = useState(value);
  const [choices, setChoices] = useState([]);
  const [chosen, setChosen] = useState(-1);
  const input = useRef(null);
  const mirror = useRef(null);
  const timer = useRef(0);
  const asked = useRef(0);
  const id = useRef("");
  id.current ||= `query-${++numbers}`;

  useEffect(() => {
    if (document.activeElement !== input.current || value !== text.trim()) setText(value);
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);

  const close = () => {
    asked.current++;
    setChoices([]);
    setChosen(-1);
  };
  const send = (query) => {
    clearTimeout(timer.current);
    onQuery(query.trim());
  };
  const suggest = async (query) => {
    const word = wordAt(query, input.current?.selectionStart ?? query.length);
    const mine = ++asked.current;
    let found = [];
    try {
      found = await complete(word);
    } catch {
      // a collector that does not answer completes nothing
    }
    if (mine !== asked.current || document.activeElement !== input.current) return;
    setChoices(found.filter((choice) => choice.value !== word.prefix).slice(0, 12));
    setChosen(-1);
  };
  const typed = (event) => {
    const query = event.currentTarget.value;
    setText(query);
    suggest(query);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onQuery(query.trim()), PAUSE);
  };
  const take = (choice) => {
    const field = input.current;
    const made = completed(text, wordAt(text, field.selectionStart), choice.value);
    setText(made.text);
    field.value = made.text;
    field.focus();
    field.setSelectionRange(made.caret, made.caret);
    close();
    if (made.text.endsWith(" ")) send(made.text);
    else suggest(made.text);
  };
  const pressed = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!choices.length) return suggest(text);
      const step = event.key === "ArrowDown" ? 1 : -1;
      setChosen((chosen + step + choices.length + (chosen < 0 && step < 0 ? 1 : 0)) % choices.length);
    } else if (event.key === "Enter" || (event.key === "Tab" && chosen >= 0)) {
      event.preventDefault();
      if (chosen >= 0) take(choices[chosen]);
      else {
        close();
        send(text);
      }
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (choices.length) close();
      else if (text) {
        setText("");
        send("");
      } else input.current.blur();
    }
  };
  const scrolled = () => {
    if (mirror.current) mirror.current.scrollLeft = input.current.scrollLeft;
  };
  useEffect(scrolled);

  const isWrong = problem && problem.at !== null && problem.at !== undefined;
  return html`<div class="query">
    <div class="field ${problem ? "wrong" : ""}">
      <div class="mirror" aria-hidden="true" ref=${mirror}>${isWrong && underlined(text, problem)}</div>
      <input ref=${input} type="text" spellcheck=${false} autocomplete="off" autocapitalize="off" role="combobox" aria-label=${label} aria-expanded=${String(choices.length > 0)}
        aria-controls="${id.current}-list" aria-autocomplete="list" aria-activedescendant=${chosen >= 0 ? `${id.current}-${chosen}` : null} aria-invalid=${String(Boolean(problem))}
        aria-describedby="${id.current}-problem" placeholder=${placeholder} value=${text} data-focus-key=${focusKey} onInput=${typed} onKeyDown=${pressed} onScroll=${scrolled} onBlur=${close} onFocus=${() => text || suggest("")} />
      ${text && html`<button type="button" class="clear" aria-label="Clear the filter" onClick=${() => (setText(""), send(""), input.current.focus())}>×</button>`}
    </div>
    <ul class="choices" role="listbox" id="${id.current}-list" aria-label="Completions" hidden=${!choices.length}>
      ${choices.map((choice, i) => html`<li key=${choice.value} id="${id.current}-${i}" role="option" aria-selected=${String(i === chosen)} onMouseDown=${(event) => (event.preventDefault(), take(choice))}><span>${choice.value}</span><span class="about">${choice.about}</span></li>`)}
    </ul>
    <p class="problem" id="${id.current}-problem" role="alert">${problem?.message}</p>
  </div>`;
}

function underlined(text, { at, end }) {
  const from = Math.min(at, text.length);
  const to = Math.max(from + 1, end ?? endOfWord(text, from));
  return [text.slice(0, from), html`<mark>${text.slice(from, to) || " "}</mark>`, text.slice(to)];
}

function endOfWord(text, from) {
  const rest = /^\S+/.exec(text.slice(from));
  return from + (rest ? rest[0].length : 1);
}

let known = null;

async function fromCollector(word) {
  if (word.key === null) {
    const mine = KEYS.filter(([key]) => key.startsWith(word.prefix.toLowerCase())).map(([key, about]) => ({ value: key === "attr." ? key : `${key}:`, about }));
    if (!word.prefix.startsWith("attr")) return mine;
    known ??= get("/api/v1/values", { limit: 500 }).catch(() => ((known = null), { values: [] }));
    const { values } = await known;
    const keys = values.map(({ value, count }) => ({ value: value.startsWith("attr.") ? value : `attr.${value}`, count })).filter(({ value }) => value.startsWith(word.prefix) && !KEYS.some(([key]) => `attr.${key}` === value));
    return keys.map(({ value, count }) => ({ value: `${value}=`, about: count ? String(count) : "" }));
  }
  if (FIXED[word.key]) return FIXED[word.key].filter((value) => value.startsWith(word.prefix)).map((value) => ({ value, about: "" }));
  const { values } = await get("/api/v1/values", { key: word.key, prefix: word.prefix, limit: 12 });
  return values.map(({ value, count }) => ({ value: String(value), about: count === null || count === undefined ? "" : String(count) }));
}
