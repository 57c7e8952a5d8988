// The tree with its waterfall: a pool of rows over the model's, one focusable element, the keys of the ARIA tree pattern.
//
// A row has five elements: itself, name, badge, time, bar. Marks and arrows are drawn by the style sheet, so that a screen full
// of rows stays below four hundred elements.

import { brief, count, duration, ending, FAILED, short, ticking, tone } from "../base/format.js";
import { RowPool } from "../base/pool.js";
import { FOLD, MISSING, SPAN } from "./model.js";

export const ROW = 26;
const INDENT = 14;
const DEEPEST = 24; // levels that are indented; deeper ones stay in sight

export class TreeView {
  constructor({ host, model, onSelect, onOpen, onChange }) {
    Object.assign(this, { host, model, onSelect, onOpen, onChange });
    this.view = [0, 1];
    this.active = -1;
    this.selected = -1;
    this.width = 0;
    this.sizer = document.createElement("div");
    this.sizer.className = "sizer";
    this.sizer.setAttribute("role", "none");
    host.append(this.sizer);
    host.setAttribute("role", "tree");
    host.setAttribute("aria-label", "Spans");
    host.tabIndex = 0;
    this.pool = new RowPool({ host, sizer: this.sizer, height: ROW, make: makeRow, fill: (element, row) => this.fill(element, row), changed: () => this.point() });
    host.addEventListener("click", (event) => this.clicked(event));
    host.addEventListener("dblclick", (event) => this.clickedTwice(event));
    host.addEventListener("keydown", (event) => this.pressed(event));
    host.addEventListener("focus", () => this.focused());
  }

  close() {
    this.pool.close();
    this.sizer.remove();
  }

  // -- showing -----------------------------------------------------------------------------------------------------------

  // The rows changed: keep what is selected, what is active, and what stands at the top of the screen.
  relayout({ keepPlace = true } = {}) {
    const { host, model } = this;
    const top = model.rows[this.pool.first + 2];
    const offset = host.scrollTop - (this.pool.first + 2) * ROW;
    const activeKey = this.keyOf(model.rows[this.active]);
    model.layout();
    this.pool.resize(model.rows.length);
    this.active = activeKey === null ? -1 : this.find(activeKey);
    if (keepPlace && top && host.scrollTop > 0) {
      const row = this.find(this.keyOf(top));
      if (row >= 0) host.scrollTop = Math.max(0, row * ROW + offset);
    }
    this.pool.now();
    this.onChange?.();
  }

  keyOf(row) {
    if (!row) return null;
    return row.what === SPAN ? row.span : row.key;
  }

  find(key) {
    if (typeof key === "number") return this.model.rowOfSpan.get(key) ?? -1;
    return this.model.rows.findIndex((row) => row.key === key);
  }

  setView(from, to) {
    this.view = [from, Math.max(from + 1, to)];
    this.pool.now();
  }

  // Pixels of the column with the bars.
  setWidth(pixels) {
    this.width = pixels;
    this.pool.refresh();
  }

  // Time goes on: only what is open and visible changes.
  tick() {
    this.pool.each((element, index) => {
      const row = this.model.rows[index];
      if (!row) return;
      if (row.what === SPAN ? this.model.isOpen(row.span) || this.isDrawnToNow() : true) this.fill(element, index);
    });
  }

  isDrawnToNow() {
    return this.follows;
  }

  fill(element, index) {
    const row = this.model.rows[index];
    if (!row) return;
    const [, , badge, , bar] = parts(element);
    element.id = `row-${this.keyOf(row)}`;
    element.style.setProperty("--depth", `${Math.min(row.depth - 1, DEEPEST) * INDENT}px`);
    element.setAttribute("aria-level", row.depth);
    element.setAttribute("aria-posinset", row.position);
    element.setAttribute("aria-setsize", row.siblings);
    if (row.parent) element.setAttribute("aria-expanded", String(Boolean(row.open)));
    else element.removeAttribute("aria-expanded");
    badge.className = "badge";
    bar.style.backgroundImage = "";
    if (row.what === SPAN) this.fillSpan(element, row);
    else if (row.what === FOLD) this.fillFold(element, row);
    else this.fillMissing(element, row);
    const isSelected = row.what === SPAN && row.span === this.selected;
    element.setAttribute("aria-selected", String(isSelected));
    element.classList.toggle("active", index === this.active);
  }

  fillSpan(element, row) {
    const { model } = this;
    const { span } = row;
    const [, name, badge, time, bar] = parts(element);
    const word = model.endingOf(span);
    const flag = model.flags.get(span);
    const isMatch = model.matches ? model.matches.has(span) : false;
    const isCritical = model.critical ? model.critical.has(span) : false;
    const aside = (model.matches && !isMatch) || (model.critical && !isCritical);
    element.className = `row ${tone(word)}${isMatch ? " match" : ""}${aside ? " aside" : ""}${isCritical ? " critical" : ""}${model.isLost(span) ? " lost" : ""}`;
    element.dataset.index = span;
    delete element.dataset.fold;
    const text = model.nameOf(span);
    setText(name, text);
    const about = this.about(span, word, flag);
    setText(badge, about);
    if (flag) badge.classList.add("warning");
    else if (FAILED.has(word)) badge.classList.add("failed");
    const long = model.length(span) / 1e6;
    const shown = word === "open" ? ticking(long) : model.isLost(span) ? word : duration(long);
    setText(time, shown);
    element.setAttribute("aria-label", [text, shown, word === "ok" ? "" : ending(word), flag === "skewed" ? "clock skew" : flag, model.logs.has(span) ? `${model.logs.get(span)} logs` : ""].filter(Boolean).join(", "));
    bar.className = `bar ${kindOfBar(model.typeOf(span))}`;
    this.draw(bar, model.start[span], model.length(span));
    if (isCritical) this.drawCritical(bar, span);
  }

  about(span, word, flag) {
    const { model } = this;
    if (flag) return flag === "skewed" ? "skewed" : flag;
    if (word !== "ok" && word !== "open" && !model.isLost(span) && word !== "error") return ending(word);
    const tokens = model.tokensBelow(span);
    if (tokens) return `${short(tokens[0] + tokens[1])} tok`;
    return word === "error" ? "error" : "";
  }

  fillFold(element, row) {
    const { model } = this;
    const figures = model.folded(row);
    const [, name, badge, time, bar] = parts(element);
    const isMatch = model.matches !== null && row.members.some((span) => model.matches.has(span));
    const isCritical = model.critical !== null && row.members.some((span) => model.critical.has(span));
    const aside = (model.matches && !isMatch) || (model.critical && !isCritical);
    element.className = `row fold ${figures.errors ? "bad" : figures.open ? "open" : "good"}${isMatch ? " match" : ""}${aside ? " aside" : ""}${isCritical ? " critical" : ""}`;
    element.dataset.fold = row.members.length;
    delete element.dataset.index;
    const times = ` ×${row.members.length}`;
    const text = model.nameOf(row.span) + times;
    setCounted(name, model.nameOf(row.span), times);
    const errors = figures.errors ? `${count(figures.errors)} ${figures.errors === 1 ? "error" : "errors"}` : "";
    const p50 = `p50 ${brief(figures.p50 / 1e6)}`;
    const p95 = `p95 ${brief(figures.p95 / 1e6)}`;
    setText(badge, [errors, figures.open ? `${figures.open} open` : "", p50, p95].filter(Boolean).join(" · "));
    setText(time, "");
    element.setAttribute("aria-label", [text, p50, p95, errors].filter(Boolean).join(", "));
    bar.className = `bar many ${kindOfBar(model.typeOf(row.span))}`;
    this.draw(bar, figures.first, figures.last - figures.first);
    this.drawMembers(bar, row, figures);
  }

  fillMissing(element, row) {
    const [, name, badge, time, bar] = parts(element);
    element.className = "row missing cut";
    delete element.dataset.index;
    delete element.dataset.fold;
    setText(name, "missing parent");
    setText(badge, row.id);
    setText(time, "");
    element.setAttribute("aria-label", `missing parent ${row.id}, ${row.members.length} spans`);
    bar.className = "bar none";
    bar.style.width = "0";
  }

  // Left and width are exact to a fraction of a pixel; what is too short to be seen gets two.
  draw(bar, start, length) {
    const [from, to] = this.view;
    const scale = this.width / (to - from);
    const left = (start - from) * scale;
    const right = (start + length - from) * scale;
    const isOutside = right < 0 || left > this.width;
    bar.classList.toggle("outside", isOutside);
    const begin = Math.max(0, left);
    bar.style.left = `${begin.toFixed(2)}px`;
    bar.style.width = `${Math.max(2, Math.min(right, this.width) - begin).toFixed(2)}px`;
  }

  drawCritical(bar, span) {
    const pieces = this.model.critical.get(span);
    const [from, to] = this.view;
    const scale = this.width / (to - from);
    const left = Number.parseFloat(bar.style.left);
    const stops = pieces.flatMap(([start, end]) => {
      const begin = ((start - from) * scale - left).toFixed(1);
      const finish = Math.max(Number(begin) + 1, (end - from) * scale - left).toFixed(1);
      return [`transparent ${begin}px`, `var(--critical) ${begin}px`, `var(--critical) ${finish}px`, `transparent ${finish}px`];
    });
    bar.style.backgroundImage = `linear-gradient(90deg, ${stops.join(", ")})`;
  }

  drawMembers(bar, row, figures) {
    const whole = Math.max(1, figures.last - figures.first);
    const pixels = Number.parseFloat(bar.style.width);
    const cells = Math.max(1, Math.min(64, Math.floor(pixels / 4)));
    const busy = new Uint8Array(cells);
    for (const span of row.members) {
      const cell = Math.min(cells - 1, Math.floor(((this.model.start[span] - figures.first) / whole) * cells));
      const last = Math.min(cells - 1, Math.floor(((this.model.start[span] + this.model.length(span) - figures.first) / whole) * cells));
      for (let i = cell; i <= last; i++) busy[i] = 1;
    }
    const stops = [];
    busy.forEach((is, i) => stops.push(`${is ? "transparent" : "var(--gap)"} ${(100 * i) / cells}% ${(100 * (i + 1)) / cells}%`));
    bar.style.backgroundImage = `linear-gradient(90deg, ${stops.join(", ")})`;
  }

  // Whether a row is in sight in a window of this height.
  shows(index, height) {
    const top = index * ROW - this.host.scrollTop;
    return top > -ROW && top < height;
  }

  // The screen reader is told about the active row while it has an element.
  point() {
    const element = this.active >= 0 ? this.pool.element(this.active) : null;
    if (element) this.host.setAttribute("aria-activedescendant", element.id);
    else this.host.removeAttribute("aria-activedescendant");
  }

  // -- choosing ----------------------------------------------------------------------------------------------------------

  activate(index, { select = true, center = false } = {}) {
    const row = this.model.rows[index];
    if (!row) return;
    this.active = index;
    if (select && row.what === SPAN && row.span !== this.selected) {
      this.selected = row.span;
      this.onSelect(row.span);
    }
    if (center) this.pool.center(index);
    else this.pool.reveal(index);
    this.pool.now();
  }

  select(span, { center = true } = {}) {
    if (span < 0 || span >= this.model.count) return;
    if (this.model.reveal(span)) this.relayout({ keepPlace: false });
    const row = this.model.rowOfSpan.get(span);
    if (row !== undefined) this.activate(row, { center });
  }

  toggle(index, open) {
    const { model } = this;
    const row = model.rows[index];
    if (!row?.parent) return false;
    const wanted = open ?? !row.open;
    if (wanted === Boolean(row.open)) return false;
    if (row.what === FOLD) model.unfolded[wanted ? "add" : "delete"](row.key);
    else model.collapsed[wanted ? "delete" : "add"](row.what === MISSING ? row.key : row.span);
    this.relayout();
    return true;
  }

  toggleAll(open) {
    const { model } = this;
    model.collapsed.clear();
    if (!open) for (let span = 0; span < model.count; span++) if (model.childCount(span) && model.parent[span] >= 0) model.collapsed.add(span);
    if (open) {
      for (const row of model.rows) if (row.what === FOLD) model.unfolded.add(row.key);
    } else model.unfolded.clear();
    this.relayout();
    if (this.selected >= 0) this.active = model.rowOfSpan.get(this.selected) ?? -1;
  }

  clicked(event) {
    const index = this.rowAt(event);
    if (index < 0) return;
    const row = this.model.rows[index];
    const [, name] = parts(event.target.closest(".row"));
    const isArrow = event.clientX < name.getBoundingClientRect().left - 14;
    this.activate(index, { select: !(isArrow && row.parent) });
    if (row.parent && (isArrow || row.what !== SPAN)) this.toggle(index);
    else if (row.what === SPAN) this.onOpen?.(row.span, { focus: false });
  }

  clickedTwice(event) {
    const index = this.rowAt(event);
    if (index >= 0 && this.model.rows[index].what === SPAN) this.toggle(index);
  }

  rowAt(event) {
    const element = event.target instanceof Element ? event.target.closest(".row") : null;
    if (!element) return -1;
    const slot = this.pool.slots.indexOf(element);
    return slot < 0 ? -1 : this.pool.shown[slot];
  }

  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const act = KEYS[event.key];
    if (!act || !this.model.rows.length) return;
    event.preventDefault();
    event.stopPropagation();
    act(this, Math.max(0, this.active), event);
  }

  // Who comes by the keyboard stands on the first row in sight. A click chooses its row itself.
  focused() {
    if (this.active >= 0 || !this.model.rows.length || !this.host.matches(":focus-visible")) return;
    this.active = Math.min(this.model.rows.length - 1, Math.ceil(this.host.scrollTop / ROW));
    this.pool.now();
  }

  step(to) {
    this.activate(Math.max(0, Math.min(this.model.rows.length - 1, to)));
  }

  outward(index) {
    const { depth } = this.model.rows[index];
    for (let above = index - 1; above >= 0; above--) if (this.model.rows[above].depth < depth) return this.step(above);
  }

  page() {
    return Math.max(1, Math.floor(this.host.clientHeight / ROW) - 1);
  }
}

const KEYS = {
  ArrowDown: (tree, at) => tree.step(tree.active < 0 ? 0 : at + 1),
  ArrowUp: (tree, at) => tree.step(at - 1),
  Home: (tree) => tree.step(0),
  End: (tree) => tree.step(tree.model.rows.length - 1),
  PageDown: (tree, at) => tree.step(at + tree.page()),
  PageUp: (tree, at) => tree.step(at - tree.page()),
  ArrowRight: (tree, at) => {
    const row = tree.model.rows[at];
    if (row.parent && !row.open) tree.toggle(at, true);
    else if (row.parent) tree.step(at + 1);
  },
  ArrowLeft: (tree, at) => {
    if (!(tree.model.rows[at].open && tree.toggle(at, false))) tree.outward(at);
  },
  "*": (tree, at) => {
    const { depth } = tree.model.rows[at];
    for (const row of tree.model.rows) if (row.depth === depth && row.what === SPAN) tree.model.collapsed.delete(row.span);
    tree.relayout();
  },
  Enter: (tree, at) => {
    const row = tree.model.rows[at];
    if (row.what !== SPAN) tree.toggle(at);
    else {
      tree.activate(at);
      tree.onOpen?.(row.span, { focus: true });
    }
  },
  " ": (tree, at) => tree.toggle(at) || tree.activate(at),
};

function makeRow() {
  const row = document.createElement("div");
  row.className = "row";
  row.setAttribute("role", "treeitem");
  for (const name of ["name", "badge", "time", "bar"]) {
    const part = document.createElement("span");
    part.className = name;
    row.append(part);
  }
  row._parts = [row, ...row.children];
  return row;
}

const parts = (row) => row._parts;

function setText(element, text) {
  if (element._text === text) return;
  element._text = text;
  element.textContent = text;
}

// A long name is cut, how often it is there is not.
function setCounted(element, label, times) {
  if (element._text === label + times) return;
  const [first, second] = [label, times].map((text) => Object.assign(document.createElement("span"), { textContent: text }));
  element.replaceChildren(first, second);
  element._text = label + times;
}

// How a bar looks says what kind of work it is: models stand out, then tools, then what looks things up; the rest is quiet.
function kindOfBar(type) {
  if (type === "llm" || type === "chat" || type === "generation") return "llm";
  if (type === "tool") return "tool";
  return type === "retriever" || type === "embedding" || type === "reranker" ? "lookup" : "plain";
}
