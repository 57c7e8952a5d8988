// Two runs beside each other: where they part first, what only one of them has, and the words that differ.

import { Component, createRef, html } from "../trace/kit.js";
import { get } from "../base/api.js";
import { cost, count, duration, instant, moment, startOf } from "../base/format.js";
import { bindKeys } from "../base/keys.js";
import { Mark, Problem } from "../base/parts.js";
import { RowPool } from "../base/pool.js";
import { traceAddress } from "../base/route.js";
import { wordDiff } from "../show/words.js";

const ROW = 28;
const SIGNS = { same: "", changed: "≠", only_a: "−", only_b: "+" };
const SAYS = { same: "same", changed: "changed", only_a: "only in A", only_b: "only in B" };

export class Diff extends Component {
  constructor(props) {
    super(props);
    this.host = createRef();
    this.state = { only: false, active: -1 };
  }

  componentDidMount() {
    document.title = "Diff · asynctrace";
    this.load();
    this.unbind = bindKeys("Diff", {
      ArrowDown: ["row below", () => this.step(1)],
      ArrowUp: ["row above", () => this.step(-1)],
      n: ["next difference", () => this.difference(1)],
      N: ["difference before", () => this.difference(-1)],
      d: ["differences only", () => this.setOnly(!this.state.only)],
    });
  }

  componentWillUnmount() {
    this.gone = true;
    this.unbind();
    this.pool?.close();
  }

  async load() {
    const a = this.props.params.get("a") ?? "";
    const b = this.props.params.get("b") ?? "";
    try {
      const answer = await get("/api/v1/diff", { a, b });
      if (this.gone) return;
      this.setState({ answer, problem: null }, () => this.begin());
    } catch (problem) {
      if (!this.gone) this.setState({ problem });
    }
  }

  begin() {
    const host = this.host.current;
    const sizer = document.createElement("div");
    sizer.className = "sizer";
    sizer.setAttribute("role", "rowgroup");
    host.append(sizer);
    this.pool = new RowPool({ host, sizer, height: ROW, make: makeRow, fill: (element, row) => this.fill(element, row) });
    host.addEventListener("click", (event) => {
      const slot = this.pool.slots.indexOf(event.target.closest(".diff-row:not(.head)"));
      if (slot >= 0) this.activate(this.pool.shown[slot]);
    });
    this.layout();
    const { first } = this.state.answer;
    const at = first ? this.rows.findIndex((row) => row.state !== "same" && (first.a === null || row.a === first.a) && (first.b === null || row.b === first.b)) : -1;
    if (at >= 0) this.activate(at);
  }

  layout() {
    const { answer, only } = this.state;
    this.rows = only ? answer.rows.filter(({ state }) => state !== "same") : answer.rows;
    this.most = Math.max(1e-9, ...answer.rows.map((row) => Math.max(row.duration?.[0] ?? 0, row.duration?.[1] ?? 0)));
    this.pool.resize(this.rows.length);
    this.host.current.setAttribute("aria-rowcount", this.rows.length);
    this.pool.now();
  }

  setOnly(only) {
    if (this.pool) this.setState({ only, active: -1 }, () => this.layout());
  }

  step(by) {
    if (this.pool) this.activate(Math.max(0, Math.min(this.rows.length - 1, this.state.active + by)));
  }

  difference(by) {
    if (!this.pool) return;
    for (let i = 1; i <= this.rows.length; i++) {
      const at = (this.state.active + by * i + this.rows.length * 2) % this.rows.length;
      if (this.rows[at].state !== "same") return this.activate(at);
    }
  }

  activate(at) {
    const row = this.rows[at];
    if (!row) return;
    this.setState({ active: at, pair: null }, () => {
      this.pool.center(at);
      this.pool.now();
    });
    this.compare(row);
  }

  async compare(row) {
    const { a, b } = this.state.answer;
    const one = (id, index) => (index === null || index === undefined ? null : get(`/api/v1/traces/${id}/span/@${index}`));
    const mine = (this.asked = (this.asked ?? 0) + 1);
    try {
      const pair = await Promise.all([one(a.trace_id, row.a), one(b.trace_id, row.b)]);
      if (!this.gone && mine === this.asked) this.setState({ pair });
    } catch (problem) {
      if (!this.gone && mine === this.asked) this.setState({ pair: { problem } });
    }
  }

  fill(element, at) {
    const row = this.rows[at];
    const cells = element._cells;
    element.className = `diff-row ${row.state}${at === this.state.active ? " active" : ""}`;
    element.setAttribute("aria-rowindex", at + 1);
    element.setAttribute("aria-selected", String(at === this.state.active));
    cells.sign.textContent = SIGNS[row.state] ?? "";
    cells.sign.setAttribute("aria-label", SAYS[row.state] ?? row.state);
    cells.name.textContent = row.name;
    cells.name.style.paddingLeft = `${Math.min(row.depth, 24) * 14}px`;
    const [a, b] = row.duration ?? [];
    cells.a.textContent = a == null ? "" : duration(a);
    cells.b.textContent = b == null ? "" : duration(b);
    cells.delta.textContent = a == null || b == null ? "" : change(b - a, duration, 0.0005);
    cells.tokens.textContent = delta(row.tokens, count);
    cells.cost.textContent = delta(row.cost, cost);
    cells.barA.style.width = `${(100 * (a ?? 0)) / this.most}%`;
    cells.barB.style.width = `${(100 * (b ?? 0)) / this.most}%`;
  }

  render({ params }, { answer, problem, pair, only, active }) {
    if (problem) return html`<main class="page"><h1>Diff</h1><${Problem} error=${problem} onRetry=${() => this.load()}>The runs could not be compared</${Problem}></main>`;
    if (!answer) return html`<main class="page"><h1>Diff</h1><p class="loading" role="status">Comparing ${params.get("a")} and ${params.get("b")}…</p></main>`;
    const { a, b, first, counts } = answer;
    return html`<main class="page diff-page">
      <div class="list-bar"><h1>Diff</h1><div class="legend">${["same", "changed", "only_a", "only_b"].map((key) => html`<span key=${key} class="count-${key}"><b>${count(counts[key] ?? 0)}</b> ${SAYS[key]}</span>`)}</div>
        <label class="check"><input type="checkbox" checked=${only} onChange=${(event) => this.setOnly(event.currentTarget.checked)} /> differences only</label></div>
      <table class="plain-table sides"><thead><tr><th scope="col"><span class="offscreen">Side</span></th><th scope="col">Run</th><th scope="col" class="minor">Started</th><th scope="col" class="n">Time</th><th scope="col" class="n slight">Spans</th><th scope="col" class="n minor">Errors</th><th scope="col" class="n">Tokens</th><th scope="col" class="n">Cost</th></tr></thead><tbody>
        <${Side} name="A" run=${a} /><${Side} name="B" run=${b} />
        <tr class="delta"><th scope="row">Δ</th><td></td><td class="minor"></td><td class="n">${change((b.duration ?? 0) - (a.duration ?? 0), duration, 0.0005)}</td><td class="n slight">${change(b.spans - a.spans, count)}</td><td class="n minor">${change(b.errors - a.errors, count)}</td><td class="n">${change(tokens(b) - tokens(a), count)}</td><td class="n">${change((b.cost ?? 0) - (a.cost ?? 0), cost, 1e-9)}</td></tr></tbody></table>
      <div class="divergence" role="status">${first ? html`<b>First divergence</b> <span class="where">${first.path.join(" › ")}</span> <span>${first.what}</span>` : html`<b>No divergence</b> <span>both runs did the same</span>`}</div>
      <div class="diff-panes">
        <div class="diff-grid" role="grid" aria-label="Spans of both runs" tabindex="0" ref=${this.host}>
          <div class="diff-row head" role="row">${[["sign", "State"], ["name", "Span"], ["a", "A"], ["b", "B"], ["delta", "Δ time"], ["tokens", "Δ tokens"], ["cost", "Δ cost"], ["bars", "Times"]].map(([key, title]) => html`<span key=${key} class="cell ${key}" role="columnheader">${key === "sign" ? html`<span class="offscreen">${title}</span>` : title}</span>`)}</div>
        </div>
        <aside class="detail diff-detail" aria-label="The span in both runs">${active < 0 ? html`<div class="empty-detail"><p>Choose a row to compare its input and output.</p></div>` : html`<${Pair} pair=${pair} row=${this.rows[active]} a=${a} b=${b} />`}</aside>
      </div></main>`;
  }
}

const tokens = (run) => (run.input_tokens ?? 0) + (run.output_tokens ?? 0);

const Side = ({ name, run }) => html`<tr><th scope="row" class="side-${name}">${name}</th><td class="which"><${Mark} state=${run.open ? "open" : run.ending} /> <a href=${traceAddress(run.trace_id)}>${run.name}</a> <span class="muted">${run.trace_id.slice(0, 8)}</span></td><td class="minor" title=${instant(startOf(run))}>${moment(startOf(run))}</td><td class="n">${duration(run.duration)}</td><td class="n slight">${count(run.spans)}</td><td class="n minor">${count(run.errors)}</td><td class="n">${count(tokens(run))}</td><td class="n">${cost(run.cost)}</td></tr>`;

function change(number, format, least = 0) {
  if (!number || Math.abs(number) <= least) return "±0";
  return `${number > 0 ? "+" : "−"}${format(Math.abs(number))}`;
}

function delta(pair, format) {
  if (!pair) return "";
  const [a, b] = pair.map((one) => (Array.isArray(one) ? one.reduce((sum, each) => sum + (each ?? 0), 0) : (one ?? 0)));
  return a === b ? "" : change(b - a, format);
}

function Pair({ pair, row, a, b }) {
  if (!pair) return html`<p class="loading">Loading…</p>`;
  if (pair.problem) return html`<${Problem} error=${pair.problem} />`;
  const [one, two] = pair;
  return html`<div class="detail-inner"><div class="detail-head"><h2><span class="span-name">${row.name}</span></h2><span class="detail-time">${SAYS[row.state] ?? row.state}</span></div>
    <div class="detail-acts">${one && html`<a href=${traceAddress(a.trace_id, { span: one.span_id })}>open in A</a>`}${two && html`<a href=${traceAddress(b.trace_id, { span: two.span_id })}>open in B</a>`}</div>
    <div class="pane">${[["Input", "input"], ["Output", "output"]].map(([title, key]) => html`<${Words} key=${key} title=${title} before=${one?.[key]?.text} after=${two?.[key]?.text} both=${Boolean(one && two)} />`)}
    ${[one, two].map((span, i) => span?.exception && html`<section key=${i}><h3>Error in ${"AB"[i]}</h3><p class="failure-type">${span.exception.type}</p><div class="text">${span.exception.message}</div></section>`)}</div></div>`;
}

function Words({ title, before, after, both }) {
  if (before === undefined && after === undefined) return null;
  if (!both || before === after) return html`<section><h3>${title} ${both && html`<span class="muted">the same</span>`}</h3><div class="text">${(before ?? after).slice(0, 20_000)}</div></section>`;
  const parts = wordDiff(readable(before ?? ""), readable(after ?? ""));
  return html`<section><h3>${title}</h3><div class="text words">${parts.map((part, i) => (part.kind === "same" ? part.text : part.kind === "gone" ? html`<del key=${i}>${part.text}</del>` : html`<ins key=${i}>${part.text}</ins>`))}</div></section>`;
}

// JSON on lines of its own is compared and read more easily.
function readable(text) {
  const cut = text.slice(0, 200_000);
  if (!/^\s*[[{]/.test(cut)) return cut;
  try {
    return JSON.stringify(JSON.parse(cut), null, 2);
  } catch {
    return cut;
  }
}

function makeRow() {
  const row = document.createElement("div");
  row.setAttribute("role", "row");
  const cells = {};
  for (const name of ["sign", "name", "a", "b", "delta", "tokens", "cost", "bars"]) {
    cells[name] = document.createElement("span");
    cells[name].className = `cell ${name}`;
    cells[name].setAttribute("role", "gridcell");
    row.append(cells[name]);
  }
  for (const name of ["barA", "barB"]) {
    cells[name] = document.createElement("i");
    cells[name].className = name;
    cells.bars.append(cells[name]);
  }
  row._cells = cells;
  return row;
}
