// The runs that were loaded, newest first, in a pool of rows. Bounded: what arrives while nobody looks further down replaces what
// was loaded, and what arrives while it is paused is counted.

import { cost, count, duration, ending, instant, mark, moment, plural, preview, short, startOf, ticking, tone } from "../base/format.js";
import { RowPool } from "../base/pool.js";
import { go, traceAddress } from "../base/route.js";

export const ROW = 46;
const PAGE = 50;
const MOST = 2000; // rows that a list grows to by itself, before it begins anew
const FLASH = 1200; // ms that a new row is tinted
const LONG = 300; // ms after which a search says that it goes on

export class RunList {
  constructor({ host, load, now, onChange, onProblem }) {
    Object.assign(this, { host, load, now, onChange, onProblem });
    this.items = [];
    this.places = new Map();
    this.waiting = new Map();
    this.fresh = new Map();
    this.cursor = null;
    this.more = false;
    this.paused = false;
    this.active = -1;
    this.marked = null;
    this.turn = 0;
    this.read = 0;
    this.timer = null;
    this.sizer = document.createElement("div");
    this.sizer.className = "sizer";
    this.sizer.setAttribute("role", "rowgroup");
    host.append(this.sizer);
    this.pool = new RowPool({ host, sizer: this.sizer, height: ROW, make: makeRow, fill: (element, row) => this.fill(element, row), changed: () => this.looked() });
    host.addEventListener("click", (event) => this.clicked(event));
    host.addEventListener("keydown", (event) => this.pressed(event));
    host.addEventListener("focus", () => this.focused());
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.pool.close();
    this.sizer.remove();
  }

  // -- loading -----------------------------------------------------------------------------------------------------------

  async begin({ keepPlace = false } = {}) {
    const turn = ++this.turn;
    this.found();
    this.stopped = this.missed = false;
    this.read = 0;
    this.ask();
    this.onChange();
    try {
      const page = await this.load(null, PAGE);
      if (turn !== this.turn || this.closed) return;
      this.loaded = true;
      this.waiting.clear();
      this.items = page.traces;
      this.came(page);
      if (!keepPlace) this.host.scrollTop = 0;
      this.index();
      this.onProblem(null);
    } catch (error) {
      if (turn !== this.turn || this.closed || error.name === "AbortError") return;
      this.onProblem(error);
    } finally {
      if (turn === this.turn) this.answered();
    }
  }

  async next() {
    if (!this.cursor || this.busy || this.closed || this.stopped) return;
    const { turn } = this;
    this.ask();
    try {
      const page = await this.load(this.cursor, PAGE);
      if (turn !== this.turn || this.closed) return;
      this.items.push(...page.traces.filter(({ trace_id }) => !this.places.has(trace_id)));
      this.came(page);
      this.index();
    } catch (error) {
      if (turn === this.turn && !this.closed) this.onProblem(error);
      this.cursor = turn === this.turn ? null : this.cursor;
    } finally {
      if (turn === this.turn) this.answered();
    }
  }

  ask() {
    this.busy = true;
    this.timer ??= setTimeout(() => {
      this.isLong = true;
      this.onChange();
    }, LONG);
  }

  // What no index can answer comes in pages that may end before they are full, each with the number of spans that were read.
  came({ cursor, scanned }) {
    this.cursor = cursor;
    this.read += scanned ?? 0;
    if (!cursor) this.stopped = false;
  }

  // There are enough rows, or no more: if not, `redraw()` asked for the next page.
  answered() {
    this.busy = false;
    if (this.closed) return;
    this.redraw();
    if (!this.busy) this.found();
  }

  // What nobody named is read anew where nobody reads further down. A search that takes long is not begun anew for it.
  catchUp() {
    if (this.missed && !this.busy && !this.paused && !this.closed && this.host.scrollTop < ROW) this.begin({ keepPlace: true });
  }

  found() {
    clearTimeout(this.timer);
    this.timer = null;
    this.isLong = false;
  }

  // Somebody waits for more than a moment.
  get isSearching() {
    return this.busy && this.isLong && !this.stopped;
  }

  stop() {
    if (!this.isSearching) return;
    this.stopped = true;
    this.onChange();
  }

  goOn() {
    this.stopped = false;
    this.next();
    this.onChange();
  }

  // Near the end of what was loaded, the next page is asked for.
  looked() {
    if (this.cursor && this.pool.last > this.items.length - 20) this.next();
    this.catchUp();
    const element = this.active >= 0 ? this.pool.element(this.active) : null;
    if (element) this.host.setAttribute("aria-activedescendant", element.id);
    else this.host.removeAttribute("aria-activedescendant");
  }

  index() {
    this.places.clear();
    this.items.forEach(({ trace_id }, place) => this.places.set(trace_id, place));
  }

  redraw() {
    this.pool.resize(this.items.length);
    this.host.setAttribute("aria-rowcount", this.items.length);
    this.pool.now();
    this.onChange();
  }

  // -- live --------------------------------------------------------------------------------------------------------------

  receive({ changed = [], removed = [], dropped = 0 }) {
    if (!this.loaded) return;
    this.missed ||= dropped > 0 && !this.read;
    const activeId = this.items[this.active]?.trace_id;
    let added = 0;
    const arrived = [];
    for (const summary of changed) {
      const place = this.places.get(summary.trace_id);
      if (place !== undefined) this.items[place] = summary;
      else if (this.paused) this.waiting.set(summary.trace_id, summary);
      else arrived.push(summary);
    }
    for (const id of removed) {
      this.waiting.delete(id);
      if (this.places.has(id)) this.items = this.items.filter(({ trace_id }) => trace_id !== id);
    }
    if (arrived.length) added = this.insert(arrived);
    if (removed.length || arrived.length) this.index();
    if (activeId) this.active = this.places.get(activeId) ?? -1;
    if (added) this.host.scrollTop += this.host.scrollTop > 0 ? added * ROW : 0;
    this.redraw();
    // nobody reads further down: the list begins anew rather than grow for ever
    if (this.items.length > MOST && this.host.scrollTop < ROW) this.begin({ keepPlace: true });
    else if (this.items.length > MOST * 2) this.pause(true);
  }

  // How many rows came above what is on the screen.
  insert(arrived) {
    const last = this.items.at(-1);
    const wanted = arrived.filter((summary) => !this.cursor || !last || startOf(summary) >= startOf(last));
    wanted.sort((a, b) => startOf(b) - startOf(a));
    const top = Math.ceil(this.host.scrollTop / ROW);
    const first = this.items[Math.max(0, top - 1)];
    const above = first ? startOf(first) : -Infinity;
    const merged = [];
    let at = 0;
    for (const summary of wanted) {
      while (at < this.items.length && startOf(this.items[at]) > startOf(summary)) merged.push(this.items[at++]);
      merged.push(summary);
      this.fresh.set(summary.trace_id, performance.now());
    }
    this.items = merged.concat(this.items.slice(at));
    return wanted.filter((summary) => startOf(summary) >= above).length;
  }

  pause(paused) {
    this.paused = paused;
    if (!paused && this.waiting.size) {
      const waiting = [...this.waiting.values()];
      this.waiting.clear();
      this.receive({ changed: waiting });
    }
    this.catchUp();
    this.onChange();
  }

  tick() {
    const now = performance.now();
    this.pool.each((element, row) => {
      const item = this.items[row];
      const since = this.fresh.get(item?.trace_id);
      if (item?.open || since !== undefined) this.fill(element, row);
      if (since !== undefined && now - since > FLASH) this.fresh.delete(item.trace_id);
    });
    if (this.fresh.size > 500) this.fresh.clear();
  }

  // -- showing -----------------------------------------------------------------------------------------------------------

  fill(element, row) {
    const item = this.items[row];
    if (!item) return;
    const state = item.open ? "open" : (item.ending ?? "ok");
    const cells = element._cells;
    element.id = `run-${item.trace_id}`;
    element.setAttribute("aria-rowindex", row + 1);
    element.setAttribute("aria-selected", String(row === this.active));
    element.className = `run ${tone(state)}${row === this.active ? " active" : ""}${this.marked === item.trace_id ? " marked" : ""}${this.fresh.has(item.trace_id) ? " fresh" : ""}`;
    element.dataset.trace = item.trace_id;
    set(cells.mark, mark(state));
    cells.mark.setAttribute("aria-label", ending(state));
    cells.mark.title = ending(state);
    set(cells.link, item.has_root === false && !item.name ? "missing root" : item.name || "unnamed");
    cells.link.href = traceAddress(item.trace_id);
    set(cells.about, [item.service, item.model, item.session && `session ${item.session}`].filter(Boolean).join(" · "));
    set(cells.preview, preview(item.input || item.output || ""));
    set(cells.pin, item.pinned ? "pinned" : "");
    set(cells.errors, item.errors ? plural(item.errors, "error") : "");
    set(cells.spans, count(item.spans));
    set(cells.tokens, item.input_tokens || item.output_tokens ? short((item.input_tokens ?? 0) + (item.output_tokens ?? 0)) : "");
    set(cells.cost, cost(item.cost));
    set(cells.time, item.open ? ticking((this.now() - startOf(item)) / 1000) : item.lost && item.duration == null ? "lost" : duration(item.duration));
    set(cells.start, moment(startOf(item), this.now()));
    cells.start.title = instant(startOf(item));
  }

  // -- choosing ----------------------------------------------------------------------------------------------------------

  // Who comes by the keyboard stands on the first row in sight.
  focused() {
    if (this.active >= 0 || !this.items.length || !this.host.matches(":focus-visible")) return;
    this.active = Math.min(this.items.length - 1, Math.ceil(this.host.scrollTop / ROW));
    this.pool.now();
  }

  activate(row) {
    if (!this.items.length) return;
    this.active = Math.max(0, Math.min(this.items.length - 1, row));
    this.pool.reveal(this.active, 0);
    this.pool.now();
  }

  clicked(event) {
    const element = event.target instanceof Element ? event.target.closest(".run") : null;
    if (!element || event.target.closest("a")) return;
    if (event.metaKey || event.ctrlKey) return void open(traceAddress(element.dataset.trace), "_blank", "noopener");
    if (String(getSelection())) return;
    go(traceAddress(element.dataset.trace));
  }

  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.host.clientHeight / ROW) - 1);
    const to = { ArrowDown: this.active + 1, j: this.active + 1, ArrowUp: this.active - 1, k: this.active - 1, Home: 0, End: this.items.length - 1, PageDown: this.active + page, PageUp: this.active - page }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      this.activate(to);
    } else if (event.key === "Enter" && this.items[this.active]) {
      event.preventDefault();
      go(traceAddress(this.items[this.active].trace_id));
    }
  }

  // The first run that is marked waits for the second one.
  mark() {
    const id = this.items[this.active]?.trace_id;
    if (!id) return;
    if (this.marked && this.marked !== id) return go(`/diff?a=${this.marked}&b=${id}`);
    this.marked = this.marked === id ? null : id;
    this.pool.now();
    this.onChange();
  }
}

function set(element, text) {
  if (element._text === text) return;
  element._text = text;
  element.textContent = text;
}

const CELLS = ["mark", "what", "errors", "spans", "tokens", "cost", "time", "start"];

function makeRow() {
  const row = document.createElement("div");
  row.setAttribute("role", "row");
  const cells = {};
  for (const name of CELLS) {
    const cell = document.createElement("span");
    cell.className = `cell ${name}`;
    cell.setAttribute("role", "gridcell");
    row.append(cell);
    cells[name] = cell;
  }
  // the mark is read by its name
  const sign = document.createElement("span");
  sign.setAttribute("role", "img");
  cells.mark.append(sign);
  cells.mark = sign;
  for (const [name, tag] of [["link", "a"], ["about", "span"], ["pin", "span"], ["preview", "span"]]) {
    const part = document.createElement(tag);
    part.className = name;
    cells[name] = part;
    cells.what.append(part);
  }
  cells.link.tabIndex = -1;
  row._cells = cells;
  return row;
}
