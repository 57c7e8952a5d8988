// The trace: header, minimap, tree with waterfall, detail. The same screen in the collector's page and in an exported file:
// what differs is the `source` that it reads, and whether there is a live connection.

import { Component, createRef, html } from "./kit.js";
import { cost, count, duration, ending, instant, short, startOf, ticking } from "../base/format.js";
import { bindKeys, TREE_KEYS } from "../base/keys.js";
import { Border, isCalm, Mark, Problem, remember, remembered } from "../base/parts.js";
import { QueryInput } from "../query/input.js";
import { copy } from "../show/text.js";
import { TraceModel } from "./model.js";
import { Minimap, ticks, tickText } from "./timeline.js";
import { TreeView } from "./tree.js";

const PANES = ["Input", "Output", "Logs", "Error", "Attributes", "Raw"];
const KEPT = 24; // details of spans that were open; more would hold megabytes
const SETTLE = 120; // ms that the arrow keys rest before a detail is asked for

export class TraceScreen extends Component {
  constructor(props) {
    super(props);
    const { params } = props;
    this.model = new TraceModel();
    this.host = createRef();
    this.canvas = createRef();
    this.details = new Map();
    this.parameters = {
      span: params.get("span"),
      root: params.get("root"),
      zoom: params.has("from") ? [Number(params.get("from")), Number(params.get("to"))] : null,
    };
    this.view = null;
    this.pending = [];
    this.busy = 0;
    this.state = {
      phase: "loading",
      query: params.get("q") ?? "",
      pane: PANES.includes(params.get("pane")) ? params.get("pane") : null,
      onlyMatches: params.has("matches"),
      critical: params.has("critical"),
      names: remembered("names", 0.52),
      split: remembered("split", 0.64),
      width: 0,
      changes: 0,
    };
  }

  componentDidMount() {
    this.unbind = bindKeys("Trace", this.keys());
    this.unbindTree = bindKeys("Tree", TREE_KEYS);
    this.load();
    this.timer = setInterval(() => this.tick(), isCalm() ? 1000 : 100);
    this.onSize = () => this.measure();
    addEventListener("resize", this.onSize);
  }

  // From what is known on: a large trace is not sent twice.
  listen() {
    const { live, traceId } = this.props;
    if (!live || this.unsubscribe) return;
    this.unsubscribe = live.subscribe("trace", () => ({ subscribe: "trace", trace_id: traceId, version: this.model.version }), {
      name: traceId,
      message: (message) => this.receive(message),
      again: () => this.reload(),
    });
  }

  componentWillUnmount() {
    this.gone = true;
    this.unbind();
    this.unbindTree();
    this.unsubscribe?.();
    clearInterval(this.timer);
    clearTimeout(this.later);
    clearTimeout(this.settling);
    clearTimeout(this.waiting);
    removeEventListener("resize", this.onSize);
    this.aborting?.abort();
    this.tree?.close();
    this.minimap?.close();
    this.sizes?.disconnect();
  }

  now() {
    return ((this.props.live?.now() ?? Date.now()) - this.model.t0) * 1000;
  }

  // -- loading -----------------------------------------------------------------------------------------------------------

  async load() {
    if (this.loading) return;
    this.loading = true;
    try {
      const skeleton = await this.props.source.skeleton(0);
      if (this.gone) return;
      this.model.take(skeleton);
      this.model.now = this.now();
      this.setState({ phase: "shown" }, () => this.begin());
    } catch (error) {
      if (this.gone) return;
      if (error.status === 404) {
        this.setState({ phase: "waiting" });
        this.listen();
        // the live connection tells when it arrives; without one it is asked for
        if (this.props.live?.state !== "live") this.waiting = setTimeout(() => this.load(), 1000);
      } else this.setState({ phase: "failed", error });
    } finally {
      this.loading = false;
    }
  }

  // After the screen stands: tree, minimap, and what the address asked for.
  async begin() {
    if (this.gone) return;
    const { model, parameters } = this;
    this.tree = new TreeView({
      host: this.host.current,
      model,
      onSelect: (span) => this.selected(span),
      onOpen: (span, { focus }) => this.opened(span, focus),
      onChange: () => this.setState((state) => ({ changes: state.changes + 1 })),
    });
    this.minimap = new Minimap({ canvas: this.canvas.current, model, onChoose: (view) => this.zoom(view) });
    this.sizes = new ResizeObserver(() => this.resized());
    this.sizes.observe(this.host.current);
    this.host.current.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    document.title = `${model.summary.name ?? "trace"} · asynctrace`;
    this.tree.relayout();
    this.measure();
    this.zoom(parameters.zoom, { quietly: true });
    if (this.pending.length) this.apply();
    this.listen();
    if (parameters.root) await this.open(parameters.root, (span) => this.reroot(span, { quietly: true }));
    if (parameters.zoom) this.zoom(parameters.zoom, { quietly: true });
    if (this.state.query) await this.find(this.state.query);
    if (this.state.onlyMatches) this.setOnlyMatches(true);
    if (this.state.critical) await this.setCritical(true);
    if (parameters.span) await this.open(parameters.span, (span) => this.tree.select(span));
  }

  // A span by its id: the skeleton has no ids, its detail has its number.
  async open(id, use) {
    try {
      const span = await this.props.source.span(id);
      if (this.gone) return;
      this.keep(span);
      use(span.index);
    } catch (error) {
      if (!this.gone && error.status !== 404) this.setState({ detailError: error });
    }
  }

  keep(span) {
    this.details.delete(span.index);
    this.details.set(span.index, span);
    while (this.details.size > KEPT) this.details.delete(this.details.keys().next().value);
  }

  // -- live --------------------------------------------------------------------------------------------------------------

  receive(message) {
    if (message.trace_id !== this.props.traceId) return;
    if (message.gone) return void (this.tree && this.say("this run is no longer kept"));
    if (this.state.phase === "waiting") return void this.load();
    this.pending.push(message);
    if (this.later || !this.tree) return;
    // what is large is drawn less often: a burst must not hold up the keyboard
    this.later = setTimeout(() => this.apply(), Math.max(30, this.busy * 4));
  }

  apply() {
    this.later = 0;
    const began = performance.now();
    const { model } = this;
    let again = false;
    const touched = new Set();
    for (const message of this.pending.splice(0)) {
      if (message.skeleton && !model.take(message.skeleton)) again = true;
      if (message.changed?.length) {
        model.change(message.changed);
        for (const [span] of message.changed) touched.add(span);
      }
      if (message.summary) model.summary = message.summary;
      if (message.version !== undefined) model.version = message.version;
    }
    this.redraw();
    const { selected } = this.tree;
    if (touched.has(selected)) {
      this.details.delete(selected);
      this.fetch(selected);
    }
    for (const span of touched) this.details.delete(span);
    if (this.state.query && this.model.matches) this.findSoon();
    if (again) this.reloadSoon();
    this.busy = performance.now() - began;
  }

  redraw() {
    this.model.now = this.now();
    this.tree.relayout();
    if (this.follows) this.zoom(null, { quietly: true });
    else this.minimap.draw();
  }

  reloadSoon() {
    this.reloading ??= setTimeout(() => {
      this.reloading = null;
      if (!this.gone) this.reload();
    }, 300);
  }

  async reload() {
    if (!this.tree) return;
    const { selected } = this.tree;
    const id = this.details.get(selected)?.span_id;
    try {
      const skeleton = await this.props.source.skeleton(0);
      if (this.gone) return;
      const before = this.model.count;
      this.model.take(skeleton);
      this.details.clear();
      this.redraw();
      // after a restart of the collector the numbers may be others; ids are not
      if (id && this.model.count < before) await this.open(id, (span) => this.tree.select(span));
      else if (selected >= 0) this.fetch(selected);
    } catch {
      // the live connection comes back, and with it this
    }
  }

  findSoon() {
    clearTimeout(this.finding);
    this.finding = setTimeout(() => !this.gone && this.find(this.state.query), 500);
  }

  tick() {
    if (!this.tree || !this.model.openCount() || document.hidden) return;
    this.model.now = this.now();
    if (this.follows) this.zoom(null, { quietly: true });
    else this.tree.tick();
    this.setState({});
  }

  // -- choosing ----------------------------------------------------------------------------------------------------------

  selected(span) {
    clearTimeout(this.settling);
    this.setState({ detailError: null });
    if (this.details.has(span)) return this.noteSpan(span);
    this.settling = setTimeout(() => this.fetch(span), this.clicked ? 0 : SETTLE);
  }

  opened(span, focus) {
    if (!this.details.has(span)) {
      clearTimeout(this.settling);
      if (this.fetching !== span) this.fetch(span);
    }
    this.setState({ closed: false });
    if (focus) setTimeout(() => document.getElementById("pane")?.focus(), 0);
  }

  async fetch(span) {
    if (this.details.has(span)) return;
    this.aborting?.abort();
    const aborting = (this.aborting = new AbortController());
    this.fetching = span;
    try {
      const detail = await this.props.source.span(`@${span}`, { signal: aborting.signal });
      if (this.gone || this.aborting !== aborting) return;
      this.keep({ ...detail, index: span });
      this.setState({ detailError: null });
      this.noteSpan(span);
    } catch (error) {
      if (error.name !== "AbortError" && !this.gone) this.setState({ detailError: error });
    } finally {
      if (this.fetching === span) this.fetching = null;
    }
  }

  noteSpan(span) {
    this.props.note({ span: this.details.get(span)?.span_id });
  }

  jump(wanted, step, what) {
    if (!this.tree) return;
    const span = this.model.next(this.tree.selected, wanted, step);
    if (span < 0) return this.say(`no ${what} here`);
    this.tree.select(span);
    this.setState({ closed: false });
  }

  say(words) {
    this.setState({ said: words });
    clearTimeout(this.saying);
    this.saying = setTimeout(() => !this.gone && this.setState({ said: "" }), 3000);
  }

  keys() {
    const failed = (span) => this.model.failed(span);
    const matched = (span) => this.model.matches?.has(span);
    return {
      e: ["next error", () => this.jump(failed, 1, "error")],
      E: ["error before", () => this.jump(failed, -1, "error")],
      n: ["next match", () => this.jump(matched, 1, "match")],
      N: ["match before", () => this.jump(matched, -1, "match")],
      m: ["matches only", () => this.setOnlyMatches(!this.state.onlyMatches)],
      c: ["critical path", () => this.setCritical(!this.state.critical)],
      f: ["fit the whole trace", () => this.zoom(null)],
      s: ["zoom to the span", () => this.zoomToSpan()],
      "+": ["zoom in", () => this.scale(0.5)],
      "=": ["zoom in", () => this.scale(0.5)],
      "-": ["zoom out", () => this.scale(2)],
      ",": ["earlier", () => this.pan(-0.25)],
      ".": ["later", () => this.pan(0.25)],
      r: ["show only this branch", () => this.tree?.selected >= 0 && this.reroot(this.tree.selected)],
      u: ["back to the whole trace", () => this.reroot(-1)],
      "[": ["close all", () => this.tree?.toggleAll(false)],
      "]": ["open all", () => this.tree?.toggleAll(true)],
      "/": ["filter", () => document.querySelector("[data-focus-key=trace]")?.focus()],
      y: ["copy the link", () => this.copyLink()],
      ...Object.fromEntries(PANES.map((name, i) => [String(i + 1), [`pane ${name}`, () => this.setPane(name)]])),
      ArrowDown: ["to the tree", () => this.focusTree()],
      ArrowUp: ["to the tree", () => this.focusTree()],
      Escape: ["back to the tree", () => this.focusTree()],
    };
  }

  focusTree() {
    this.host.current?.focus();
  }

  async copyLink() {
    await copy(location.href);
    this.say("the link is copied");
  }

  setPane(pane) {
    this.setState({ pane, closed: false });
    this.props.note({ pane });
  }

  // -- filter, critical path, root -----------------------------------------------------------------------------------------

  async find(query) {
    clearTimeout(this.finding);
    const mine = (this.asked = (this.asked ?? 0) + 1);
    this.setState({ query, problem: null });
    this.props.note({ q: query });
    if (!query) {
      this.model.matches = null;
      this.setOnlyMatches(false);
      return;
    }
    this.setState({ searching: true });
    try {
      const { matches } = await this.props.source.find(query);
      if (this.gone || mine !== this.asked) return;
      this.model.matches = new Set(matches);
      this.setState({ searching: false });
      this.tree.relayout();
    } catch (error) {
      if (!this.gone && mine === this.asked) this.setState({ searching: false, problem: error });
    }
  }

  setOnlyMatches(onlyMatches) {
    if (!this.tree) return;
    this.model.onlyMatches = onlyMatches;
    this.setState({ onlyMatches });
    this.props.note({ matches: onlyMatches });
    this.tree.relayout();
  }

  async setCritical(critical) {
    if (!this.tree) return;
    this.setState({ critical });
    this.props.note({ critical });
    this.model.critical = null;
    if (critical) {
      try {
        const { path } = await this.props.source.criticalPath();
        if (this.gone || !this.state.critical) return;
        const pieces = new Map();
        for (const { index, start, end } of path) pieces.set(index, [...(pieces.get(index) ?? []), [start, end]]);
        this.model.critical = pieces;
      } catch (error) {
        this.setState({ critical: false });
        return this.say(error.message);
      }
    }
    this.tree.pool.now();
  }

  async reroot(span, { quietly = false } = {}) {
    if (!this.tree || this.model.root === span) return;
    this.model.root = span;
    this.model.walk = null;
    this.tree.relayout({ keepPlace: false });
    this.host.current.scrollTop = 0;
    this.zoom(null, { quietly: true });
    const { selected } = this.tree;
    if (selected >= 0 && this.model.isBelow(selected, span)) this.tree.select(selected);
    if (quietly) return;
    if (span < 0) return this.props.note({ root: null, from: null, to: null });
    if (!this.details.has(span)) await this.fetch(span);
    this.props.note({ root: this.details.get(span)?.span_id, from: null, to: null });
  }

  // -- time --------------------------------------------------------------------------------------------------------------

  // Show a piece of time; null is all of it, and goes on with a trace that is open.
  zoom(view, { quietly = false } = {}) {
    if (!this.tree) return;
    const [begin, end] = this.model.bounds();
    this.follows = !view;
    this.tree.follows = this.follows && this.model.openCount() > 0;
    let [from, to] = view ?? [begin, end];
    from = Math.max(begin, from);
    to = Math.max(from + 1, Math.min(end, to));
    this.view = [from, to];
    this.tree.setView(from, to);
    this.minimap.setView(from, to);
    if (!quietly) this.props.note({ from: view ? Math.round(from) : null, to: view ? Math.round(to) : null });
    this.setState({});
  }

  scale(factor, around = 0.5) {
    if (!this.view) return;
    const [from, to] = this.view;
    const middle = from + (to - from) * around;
    const wide = Math.max(2, (to - from) * factor);
    const [begin, end] = this.model.bounds();
    if (wide >= end - begin) return this.zoom(null);
    const start = Math.max(begin, Math.min(end - wide, middle - wide * around));
    this.zoom([start, start + wide]);
  }

  pan(share) {
    if (!this.view || this.follows) return;
    const [from, to] = this.view;
    const [begin, end] = this.model.bounds();
    const start = Math.max(begin, Math.min(end - (to - from), from + (to - from) * share));
    this.zoom([start, start + to - from]);
  }

  zoomToSpan() {
    const span = this.tree?.selected ?? -1;
    if (span < 0) return;
    const start = this.model.start[span];
    const long = Math.max(2, this.model.length(span));
    this.zoom([start - long * 0.02, start + long * 1.02]);
  }

  wheeled(event) {
    const box = this.host.current.getBoundingClientRect();
    const at = (event.clientX - (box.left + this.host.current.clientWidth - this.tree.width)) / this.tree.width;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.scale(Math.exp(Math.max(-1, Math.min(1, event.deltaY * 0.01))), Math.max(0, Math.min(1, at)));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.pan(event.deltaX / Math.max(100, this.tree.width));
    }
  }

  // The detail took room from the tree: the row that was chosen stays in sight.
  resized() {
    const { clientHeight } = this.host.current;
    if (this.tree.active >= 0 && clientHeight < this.tall && this.tree.shows(this.tree.active, this.tall)) this.tree.pool.reveal(this.tree.active);
    this.tall = clientHeight;
    this.measure();
  }

  measure() {
    const host = this.host.current;
    if (!host || !this.tree) return;
    const inner = host.clientWidth;
    const bars = Math.max(60, Math.round(inner * (1 - this.state.names)) - 12);
    if (bars === this.tree.width && inner === this.inner) return;
    this.inner = inner;
    host.parentElement.style.setProperty("--bars", `${bars}px`);
    host.parentElement.style.setProperty("--inner", `${inner}px`);
    this.tree.setWidth(bars);
    this.setState({ width: bars });
  }

  setNames(names) {
    remember("names", names);
    this.setState({ names }, () => this.measure());
  }

  setSplit(split) {
    remember("split", split);
    this.setState({ split }, () => this.measure());
  }

  // -- the screen ----------------------------------------------------------------------------------------------------------

  render({ traceId, actions, back, live, isExported }, { phase, error }) {
    if (phase === "failed") return html`<main class="page"><h1 class="offscreen">Trace</h1><${Problem} error=${error} onRetry=${() => (this.setState({ phase: "loading" }), this.load())}>The trace could not be loaded</${Problem}></main>`;
    if (phase === "waiting")
      return html`<main class="page"><div class="notice" role="status"><h1>Waiting for the trace</h1><p>Nothing of <code>${traceId}</code> has arrived yet. It appears here when it does. If it was here before, it was deleted, or was among the oldest of a full store.</p>${back}</div></main>`;
    if (phase === "loading") return html`<main class="page"><h1 class="offscreen">Trace</h1><p class="loading" role="status">Loading the trace…</p></main>`;
    return html`<main class="trace" onPointerDown=${() => (this.clicked = true)} onKeyDown=${() => (this.clicked = false)}>
      ${this.header(back, actions?.(this.model.summary, this), live)}
      ${this.overview()}
      ${this.tools(isExported)}
      ${this.panes(isExported)}
      <div class="said" role="status" aria-live="polite">${this.state.said}</div>
    </main>`;
  }

  header(back, actions) {
    const { summary } = this.model;
    const state = this.stateOfTrace();
    const long = state === "open" ? ticking(Math.max(0, this.model.now) / 1e6) : duration(summary.duration ?? this.model.ends / 1e6);
    const tokens = this.model.allTokens() || (summary.input_tokens ?? 0) + (summary.output_tokens ?? 0);
    return html`<header class="trace-head">
      ${back}
      <h1><${Mark} state=${state} />${" "}<span>${summary.name ?? "trace"}</span></h1>
      <span class="state ${state}">${state === "ok" ? "" : ending(state)} <span class="trace-time">${long}</span></span>
      <span class="trace-facts" title=${instant(startOf(summary))}>${[summary.service, summary.session && `session ${summary.session}`, tokens && `${short(tokens)} tok`, cost(summary.cost)].filter(Boolean).map((fact) => html`<span key=${fact}>${fact}</span>`)}</span>
      <${Completeness} model=${this.model} />
      <div class="acts">${actions}</div>
    </header>`;
  }

  stateOfTrace() {
    const { summary } = this.model;
    if (this.model.openCount() > 0) return "open";
    return summary.ending ?? "ok";
  }

  overview() {
    const [from, to] = this.view ?? [0, 1];
    return html`<section class="overview" aria-label="Timeline">
      <canvas ref=${this.canvas} class="minimap" role="img" aria-label="Minimap: drag to zoom, click to move, double-click to fit"></canvas>
      <div class="zoom"><output class="zoomed" aria-label="Time shown">${tickText(from, from, to)} – ${tickText(to, from, to)}</output>
        <button type="button" class="quiet" aria-label="Zoom out" onClick=${() => this.scale(2)}>−</button>
        <button type="button" class="quiet" aria-label="Zoom in" onClick=${() => this.scale(0.5)}>+</button>
        <button type="button" class="quiet" disabled=${this.follows} onClick=${() => this.zoom(null)}>Fit</button></div>
    </section>`;
  }

  tools(isExported) {
    const { query, problem, onlyMatches, critical, searching } = this.state;
    const { matches } = this.model;
    return html`<div class="tools" role="search" aria-label="Spans">
      <${QueryInput} value=${query} onQuery=${(text) => text !== this.state.query && this.find(text)} problem=${problem} label="Filter spans" placeholder=${isExported ? "search spans and their texts" : "filter spans: status:error, dur>1s, input:\"…\""} focusKey="trace" ...${isExported ? { complete: nothing } : {}} />
      <label class="check"><input type="checkbox" checked=${onlyMatches} onChange=${(event) => this.setOnlyMatches(event.currentTarget.checked)} /> matches only</label>
      <label class="check"><input type="checkbox" checked=${critical} onChange=${(event) => this.setCritical(event.currentTarget.checked)} /> critical path</label>
      <span class="matches" role="status">${query && !problem ? (searching ? "searching…" : matches ? `${count(matches.size)} ${matches.size === 1 ? "match" : "matches"}` : "") : ""}</span>
    </div>`;
  }

  panes(isExported) {
    const { names, split, pane, detailError, closed } = this.state;
    const index = this.tree?.selected ?? -1;
    const hasDetail = index >= 0 && !closed;
    const { Detail } = this;
    if (hasDetail && !Detail) this.loadDetail();
    return html`<div class="panes ${hasDetail ? "" : "alone"}" style=${{ "--split": `${split * 100}%`, "--names": `${names * 100}%` }}>
      <section class="spans" aria-label="Spans and their times">
        ${this.crumbs()}
        <div class="scale"><span class="scale-count">${this.counted()}</span><${Border} label="Width of the names" value=${names} low=${0.2} high=${0.85} onChange=${(share) => this.setNames(share)} />
          <div class="ticks" aria-hidden="true">${this.ticks()}</div></div>
        <div class="grid" aria-hidden="true">${this.ticks(true)}</div>
        <div class="host" ref=${this.host}></div>
      </section>
      ${hasDetail && html`<${Border} label="Width of the spans" value=${split} low=${0.25} high=${0.8} onChange=${(share) => this.setSplit(share)} />`}
      <aside class="detail" aria-label="Span">${hasDetail && Detail && html`<${Detail} panes=${PANES} model=${this.model} index=${index} span=${this.details.get(index)} error=${detailError} pane=${pane} onPane=${(name) => this.setPane(name)} onReroot=${(span) => this.reroot(span)} onRetry=${() => this.fetch(index)} onClose=${() => (this.setState({ closed: true }), this.focusTree())} isExported=${isExported} />`}</aside>
    </div>`;
  }

  // What shows a span comes with the first span that is chosen.
  async loadDetail() {
    if (this.coming) return;
    this.coming = true;
    try {
      this.Detail = await this.props.loadDetail();
    } catch (error) {
      this.coming = false;
      this.say(error.message);
    }
    if (!this.gone) this.setState({});
  }

  counted() {
    const { model } = this;
    const rows = model.rows.length;
    return `${count(model.count)} ${model.count === 1 ? "span" : "spans"}${rows && rows !== model.count ? `, ${count(rows)} rows` : ""}`;
  }

  crumbs() {
    const { model } = this;
    if (model.root < 0) return null;
    const above = model.ancestors(model.root).slice(-3);
    return html`<nav class="crumbs" aria-label="Branch"><button type="button" onClick=${() => this.reroot(-1)}>‹ Whole trace</button>
      ${above.map((span) => html`<button key=${span} type="button" class="quiet" onClick=${() => this.reroot(span)}>${model.nameOf(span)}</button>`)}<span>${model.nameOf(model.root)}</span></nav>`;
  }

  ticks(isGrid = false) {
    const { width } = this.state;
    if (!this.view || !width) return null;
    const [from, to] = this.view;
    const [begin] = this.model.bounds();
    const zero = this.model.root >= 0 ? begin : 0;
    return ticks(from - zero, to - zero, Math.max(2, width / 90)).map((moment) => {
      const left = ((moment + zero - from) / (to - from)) * width;
      const place = { left: `${left.toFixed(1)}px` };
      return isGrid ? html`<i key=${moment} style=${place}></i>` : left > width - 30 && left > 40 ? null : html`<span key=${moment} style=${place}>${tickText(moment, from - zero, to - zero)}</span>`;
    });
  }
}

const nothing = () => [];

// What is known to be missing of the trace. Nothing missing: a quiet word; something: how many, and why.
function Completeness({ model }) {
  const facts = { ...model.completeness, open: model.openCount() };
  const lost = (facts.dropped ?? 0) + (facts.sampled ?? 0) + (facts.orphaned ?? 0);
  const whole = model.count + (facts.dropped ?? 0) + (facts.sampled ?? 0);
  const parts = [["open", facts.open], ["late", facts.late], ["dropped", facts.dropped ?? 0], ["sampled", facts.sampled], ["spooled", facts.spooled], ["orphaned", facts.orphaned]];
  const shown = parts.filter(([word, number]) => number || word === "dropped");
  return html`<div class="completeness ${lost ? "partial" : ""}" role="group" aria-label="Completeness">
    <span class="gauge" aria-hidden="true"><i style=${{ width: `${(100 * model.count) / Math.max(1, whole)}%` }}></i></span>
    <span class="complete-spans">${count(model.count)} ${model.count === 1 ? "span" : "spans"}</span>${shown.map(([word, number]) => html`<span key=${word} class="of-${word} ${number && word !== "open" ? "some" : ""}"> · ${count(number)} ${word}</span>`)}</div>`;
}
