// A trace as columns, and the rows that are visible of it. Knows no document: everything here can be tried without a browser.
//
// Spans are numbers, in order of first arrival; a span keeps its number. Times are microseconds after `t0`.
// A row is one of: a span, a fold (equal siblings as one), a group of spans whose parent is missing.

const GROUP_FROM = 5; // this many equal siblings in a row become one
const TREES_FROM = 20; // siblings with children of their own only when they are this many
const WORDS = [["name", "names"], ["type", "types"], ["service", "services"], ["ending", "endings"]];
const SPARSE = ["missing", "tokens", "cost", "model", "logs", "flags", "seen"];
const OPEN = -1;
const LOST = -2;

export const SPAN = 0;
export const FOLD = 1;
export const MISSING = 2;

export class TraceModel {
  constructor() {
    this.count = 0;
    this.version = 0;
    this.t0 = 0;
    this.names = [];
    this.types = [];
    this.services = [];
    this.endings = [];
    this.name = [];
    this.type = [];
    this.service = [];
    this.ending = [];
    this.status = [];
    this.kind = [];
    this.parent = [];
    this.start = [];
    this.duration = [];
    this.missing = new Map();
    this.tokens = new Map();
    this.cost = new Map();
    this.model = new Map();
    this.logs = new Map();
    this.flags = new Map();
    this.seen = new Map();
    this.summary = {};
    this.completeness = {};
    this.now = 0;

    this.collapsed = new Set();
    this.unfolded = new Set();
    this.root = -1;
    this.matches = null;
    this.onlyMatches = false;
    this.critical = null;
    this.rows = [];
  }

  // Take a whole skeleton, or the spans after those that are known.
  take(skeleton) {
    const after = skeleton.first ?? 0;
    if (after > this.count) return false;
    const deltas = skeleton.start ?? [];
    if (!after) this.forget(skeleton);
    // columns that came after another t0 are moved to ours
    const shift = after ? Math.round(((skeleton.t0_ms ?? this.t0) - this.t0) * 1000) : 0;
    // each answer has dictionaries of its own
    const meaning = {};
    for (const [column, words] of WORDS) meaning[column] = (skeleton[words] ?? []).map((text) => this.word(words, text));
    let moment = shift;
    for (let i = 0; i < deltas.length; i++) {
      const span = after + i;
      moment += deltas[i];
      this.start[span] = moment;
      for (const [column] of WORDS) this[column][span] = meaning[column][skeleton[column]?.[i] ?? 0] ?? 0;
      for (const column of ["status", "kind", "parent", "duration"]) this[column][span] = skeleton[column]?.[i] ?? 0;
    }
    this.count = Math.max(this.count, after + deltas.length);
    for (const column of SPARSE) for (const [span, value] of Object.entries(skeleton[column] ?? {})) this[column].set(Number(span), value);
    for (const [span, parent] of Object.entries(skeleton.moved ?? {})) this.move(Number(span), parent);
    this.version = skeleton.version ?? this.version;
    if (skeleton.summary) this.summary = skeleton.summary;
    if (skeleton.completeness) this.completeness = skeleton.completeness;
    this.sort();
    return true;
  }

  // A whole skeleton says everything anew. What is open, chosen and found stays: spans keep their numbers.
  forget(skeleton) {
    this.t0 = skeleton.t0_ms ?? 0;
    this.count = 0;
    for (const column of SPARSE) this[column].clear();
    for (const [column, words] of WORDS) this[column].length = this[words].length = 0;
    for (const column of ["status", "kind", "parent", "start", "duration"]) this[column].length = 0;
  }

  // Its parent arrived.
  move(span, parent) {
    this.parent[span] = parent;
    this.missing.delete(span);
  }

  // Spans that are known and became something else: [span, duration, status, ending].
  change(changes) {
    for (const [span, duration, status, ending] of changes) {
      if (span >= this.count) continue;
      this.duration[span] = duration;
      this.status[span] = status;
      this.ending[span] = this.word("endings", ending);
    }
    this.sort();
  }

  word(words, text) {
    const list = this[words];
    const places = (list.places ??= new Map());
    if (places.size !== list.length) list.forEach((known, place) => places.set(known, place));
    if (!list.length) places.clear();
    if (!places.has(text)) places.set(text, list.push(text) - 1);
    return places.get(text);
  }

  // Children by start, as one array with a place for each parent.
  sort() {
    const { count, parent, start } = this;
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[i] = i;
    order.sort((a, b) => start[a] - start[b] || a - b);
    const places = new Uint32Array(count + 1);
    const tops = [];
    const orphans = new Map();
    for (let i = 0; i < count; i++) if (parent[i] >= 0 && parent[i] < count) places[parent[i] + 1]++;
    for (let i = 0; i < count; i++) places[i + 1] += places[i];
    const next = places.slice();
    const children = new Uint32Array(count);
    for (const span of order) {
      const above = parent[span];
      if (above >= 0 && above < count) children[next[above]++] = span;
      else if (above === -1) tops.push(span);
      else {
        const id = this.missing.get(span) ?? "?";
        if (!orphans.has(id)) orphans.set(id, []);
        orphans.get(id).push(span);
      }
    }
    Object.assign(this, { places, children, tops, orphans, walk: null, sums: null, ends: this.lastMoment() });
  }

  // Tokens of a span and all below it, [in, out], or null. An agent that repeats what its models used is not counted twice.
  tokensBelow(span) {
    if (!this.tokens.size) return null;
    if (!this.sums) this.sums = this.addUp((one) => this.tokens.get(one) ?? [0, 0]);
    const sum = this.sums.get(span);
    return sum && sum[0] + sum[1] > 0 ? sum : null;
  }

  allTokens() {
    const tops = [...this.tops, ...[...this.orphans.values()].flat()];
    return tops.reduce((all, span) => all + (this.tokensBelow(span)?.reduce((one, other) => one + other) ?? 0), 0);
  }

  addUp(own) {
    const below = new Map();
    const sums = new Map();
    const spans = this.fromBelow();
    for (const span of spans) {
      const mine = own(span);
      const theirs = below.get(span) ?? [0, 0];
      const sum = [Math.max(mine[0] ?? 0, theirs[0]), Math.max(mine[1] ?? 0, theirs[1])];
      sums.set(span, sum);
      const above = this.parent[span];
      if (above < 0) continue;
      const so = below.get(above) ?? [0, 0];
      below.set(above, [so[0] + sum[0], so[1] + sum[1]]);
    }
    return sums;
  }

  // Every span, children before their parents.
  fromBelow() {
    const spans = [];
    const stack = [...this.tops, ...[...this.orphans.values()].flat()];
    while (stack.length) {
      const span = stack.pop();
      spans.push(span);
      for (const child of this.childrenOf(span)) stack.push(child);
    }
    return spans.reverse();
  }

  lastMoment() {
    let last = 1;
    for (let i = 0; i < this.count; i++) {
      const end = this.start[i] + Math.max(0, this.duration[i]);
      if (end > last) last = end;
    }
    return last;
  }

  // The last moment to be drawn: of a trace with open spans that is now.
  extent() {
    return this.openCount() ? Math.max(this.ends, this.now) : this.ends;
  }

  openCount() {
    return this.completeness.open ?? this.summary.open ?? 0;
  }

  isOpen(span) {
    return this.duration[span] === OPEN;
  }

  isLost(span) {
    return this.duration[span] === LOST;
  }

  // Microseconds: of an open span so far, of a lost one as long as something was heard of the trace.
  length(span) {
    const duration = this.duration[span];
    if (duration === OPEN) return Math.max(0, this.now - this.start[span]);
    return duration === LOST ? Math.max(0, (this.seen.get(span) ?? this.ends) - this.start[span]) : duration;
  }

  nameOf(span) {
    return this.names[this.name[span]] || "unnamed";
  }

  typeOf(span) {
    return this.types[this.type[span]] ?? "";
  }

  serviceOf(span) {
    return this.services[this.service[span]] ?? "";
  }

  endingOf(span) {
    if (this.isOpen(span)) return "open";
    if (this.isLost(span)) return this.endings[this.ending[span]] === "interrupted" ? "interrupted" : "lost";
    const word = this.endings[this.ending[span]] || "ok";
    return word === "ok" && this.status[span] === 2 ? "error" : word;
  }

  failed(span) {
    return this.status[span] === 2 && !this.isOpen(span);
  }

  childrenOf(span) {
    return this.children.subarray(this.places[span], this.places[span + 1]);
  }

  childCount(span) {
    return this.places[span + 1] - this.places[span];
  }

  // -- which rows there are --------------------------------------------------------------------------------------------

  layout() {
    const rows = [];
    const keep = this.onlyMatches && this.matches ? this.withAncestors(this.matches) : null;
    if (this.root >= 0) this.place(rows, [this.root], 1, keep, "root");
    else {
      this.place(rows, this.tops, 1, keep, "top");
      for (const [id, spans] of this.orphans) this.placeOrphans(rows, id, spans, keep);
    }
    this.rows = rows;
    this.rowOfSpan = new Map();
    for (let row = 0; row < rows.length; row++) if (rows[row].what === SPAN) this.rowOfSpan.set(rows[row].span, row);
    return rows;
  }

  place(rows, spans, depth, keep, under) {
    // a stack of its own: traces may be deeper than the engine's
    const stack = [{ list: this.groups(spans, keep, under), at: 0, depth }];
    while (stack.length) {
      const level = stack[stack.length - 1];
      if (level.at >= level.list.length) {
        stack.pop();
        continue;
      }
      const item = level.list[level.at++];
      const row = { ...item, depth: level.depth, position: level.at, siblings: level.list.length };
      rows.push(row);
      if (row.what === FOLD) {
        row.open = this.unfolded.has(row.key);
        if (row.open) stack.push({ list: item.members.map((span) => ({ what: SPAN, span })), at: 0, depth: level.depth + 1 });
      } else {
        row.parent = this.childCount(row.span) > 0;
        row.open = row.parent && (!this.collapsed.has(row.span) || keep !== null);
        if (row.open) stack.push({ list: this.groups(this.childrenOf(row.span), keep, row.span), at: 0, depth: level.depth + 1 });
      }
    }
  }

  placeOrphans(rows, id, spans, keep) {
    const kept = keep ? spans.filter((span) => keep[span]) : spans;
    if (!kept.length) return;
    const key = `missing:${id}`;
    const open = !this.collapsed.has(key);
    rows.push({ what: MISSING, key, id, members: kept, depth: 1, open, parent: true, position: 1, siblings: 1 });
    if (open) this.place(rows, kept, 2, keep, key);
  }

  // Siblings, with runs of equal ones as one fold. What leads to a match stands by itself.
  groups(spans, keep, under) {
    const list = [];
    for (let i = 0; i < spans.length; ) {
      const span = spans[i];
      if (keep && !keep[span]) {
        i++;
        continue;
      }
      let end = i + 1;
      if (!keep) while (end < spans.length && this.equal(span, spans[end])) end++;
      const members = end - i;
      const enough = this.childCount(span) ? TREES_FROM : GROUP_FROM;
      if (members >= enough && under !== "root") {
        list.push({ what: FOLD, key: `${under}:${span}`, span, members: Array.from(spans.slice(i, end)), parent: true });
        i = end;
      } else {
        list.push({ what: SPAN, span });
        i++;
      }
    }
    return list;
  }

  equal(one, other) {
    return (
      this.name[one] === this.name[other] &&
      this.type[one] === this.type[other] &&
      this.service[one] === this.service[other] &&
      this.childCount(one) > 0 === this.childCount(other) > 0
    );
  }

  withAncestors(spans) {
    const keep = new Uint8Array(this.count);
    for (let span of spans)
      while (span >= 0 && span < this.count && !keep[span]) {
        keep[span] = 1;
        span = this.parent[span];
      }
    return keep;
  }

  // -- what a row says ---------------------------------------------------------------------------------------------------

  // p50, p95 and errors of a fold, remembered until something changes.
  folded(row) {
    if (row.figures && row.figures.version === this.version && !row.figures.open) return row.figures;
    const lengths = new Float64Array(row.members.length);
    let errors = 0;
    let open = 0;
    let first = Infinity;
    let last = 0;
    row.members.forEach((span, i) => {
      lengths[i] = this.length(span);
      if (this.failed(span)) errors++;
      if (this.isOpen(span)) open++;
      first = Math.min(first, this.start[span]);
      last = Math.max(last, this.start[span] + lengths[i]);
    });
    lengths.sort();
    const at = (share) => lengths[Math.min(lengths.length - 1, Math.ceil(share * lengths.length) - 1)];
    row.figures = { p50: at(0.5), p95: at(0.95), errors, open, first, last, version: this.version };
    return row.figures;
  }

  // -- moving around -----------------------------------------------------------------------------------------------------

  // Every span of the present tree, as if everything were open.
  wholeOrder() {
    if (this.walk && this.walk.root === this.root) return this.walk.spans;
    const spans = [];
    const stack = this.root >= 0 ? [this.root] : [...this.tops, ...[...this.orphans.values()].flat()].reverse();
    while (stack.length) {
      const span = stack.pop();
      spans.push(span);
      const below = this.childrenOf(span);
      for (let i = below.length - 1; i >= 0; i--) stack.push(below[i]);
    }
    this.walk = { root: this.root, spans };
    return spans;
  }

  // The next span after `from` that satisfies `wanted`, around the end; -1 where there is none.
  next(from, wanted, step = 1) {
    const spans = this.wholeOrder();
    const begin = spans.indexOf(from);
    for (let i = 1; i <= spans.length; i++) {
      const at = begin < 0 ? (step > 0 ? i - 1 : spans.length - i) : (((begin + step * i) % spans.length) + spans.length) % spans.length;
      if (wanted(spans[at])) return spans[at];
    }
    return -1;
  }

  // Open whatever hides a span. True where the rows have to be laid out anew.
  reveal(span) {
    let changed = false;
    if (this.root >= 0 && !this.isBelow(span, this.root)) {
      this.root = -1;
      changed = true;
    }
    if (this.onlyMatches && this.matches && !this.withAncestors(this.matches)[span]) {
      this.onlyMatches = false;
      changed = true;
    }
    for (let below = span, guard = 0; guard <= this.count; guard++) {
      const above = this.parent[below];
      changed = this.unfold(below) || changed;
      if (above < 0 || above >= this.count) {
        if (above < -1) changed = this.collapsed.delete(`missing:${this.missing.get(below) ?? "?"}`) || changed;
        break;
      }
      changed = this.collapsed.delete(above) || changed;
      below = above;
    }
    return changed;
  }

  unfold(span) {
    if (this.rowOfSpan?.has(span)) return false;
    const above = this.parent[span];
    const siblings = above >= 0 && above < this.count ? this.childrenOf(above) : above === -1 ? this.tops : (this.orphans.get(this.missing.get(span) ?? "?") ?? []);
    const under = above >= 0 && above < this.count ? above : above === -1 ? "top" : `missing:${this.missing.get(span) ?? "?"}`;
    const group = this.groups(siblings, null, under).find((item) => item.what === FOLD && item.members.includes(span));
    if (!group || this.unfolded.has(group.key)) return false;
    this.unfolded.add(group.key);
    return true;
  }

  isBelow(span, ancestor) {
    for (let at = span, guard = 0; at >= 0 && guard <= this.count; guard++) {
      if (at === ancestor) return true;
      at = this.parent[at] ?? -1;
    }
    return false;
  }

  ancestors(span) {
    const found = [];
    for (let at = this.parent[span], guard = 0; at >= 0 && at < this.count && guard <= this.count; guard++) {
      found.unshift(at);
      at = this.parent[at];
    }
    return found;
  }

  // The time that the present tree takes: of a re-rooted one, that of its root.
  bounds() {
    if (this.root < 0) return [0, Math.max(1, this.extent())];
    const begin = this.start[this.root];
    let end = begin + Math.max(1, this.length(this.root));
    for (const span of this.wholeOrder()) end = Math.max(end, this.start[span] + this.length(span));
    return [begin, end];
  }
}
