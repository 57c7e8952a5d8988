// Percentiles by name, service, model or type, and how they went over time. The chart's library loads with this screen only.

import { Component, createRef, html } from "../trace/kit.js";
import { get } from "../base/api.js";
import { colors } from "../base/colors.js";
import { brief, cost, count, duration, instant, moment, percent, short } from "../base/format.js";
import { Problem } from "../base/parts.js";
import { note } from "../base/route.js";
import { QueryInput } from "../query/input.js";
import { term } from "../query/words.js";

const BY = ["name", "service", "model", "type"];
const SINCE = [["15m", "15 minutes", 15], ["1h", "hour", 60], ["6h", "6 hours", 360], ["24h", "day", 1440], ["7d", "week", 10080]];
const SORTS = { key: (row) => row.key, count: (row) => -row.count, errors: (row) => -row.errors, p50: (row) => -row.p50, p95: (row) => -row.p95, p99: (row) => -row.p99, tokens: (row) => -(row.input_tokens + row.output_tokens), cost: (row) => -row.cost };
/** Columns that leave when the window is narrow, and when it is narrower. */
const GOES = { p99: "minor", tokens: "minor", p50: "slight", cost: "slight" };

export class Statistics extends Component {
  constructor(props) {
    super(props);
    const { params } = props;
    this.times = createRef();
    this.counts = createRef();
    this.charts = [];
    this.state = { query: params.get("q") ?? "", by: BY.includes(params.get("by")) ? params.get("by") : "name", since: SINCE.some(([key]) => key === params.get("since")) ? params.get("since") : "1h", sort: "count" };
  }

  componentDidMount() {
    document.title = "Statistics · asynctrace";
    this.load();
    this.timer = setInterval(() => !document.hidden && this.load({ quietly: true }), 10_000);
    this.sizes = new ResizeObserver(() => this.fit());
    this.themes = new MutationObserver(() => this.draw());
    this.themes.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  componentWillUnmount() {
    this.gone = true;
    clearInterval(this.timer);
    this.sizes.disconnect();
    this.themes.disconnect();
    for (const chart of this.charts) chart.destroy();
  }

  async load({ quietly = false } = {}) {
    const { by, since, query } = this.state;
    const minutes = SINCE.find(([key]) => key === since)[2];
    const step = Math.max(60, Math.ceil(minutes / 120) * 60);
    try {
      const answer = await get("/api/v1/stats", { q: query, by, since, step });
      if (this.gone || by !== this.state.by || since !== this.state.since || query !== this.state.query) return;
      this.setState({ answer, step, problem: null }, () => this.draw());
    } catch (error) {
      if (!this.gone && !quietly) this.setState({ problem: error });
    }
  }

  change(values) {
    note(values);
    this.setState({ ...values, problem: null }, () => this.load());
  }

  ask(query) {
    note({ q: query });
    this.setState({ query, problem: null }, () => this.load());
  }

  async draw() {
    const series = gapless(this.state.answer?.series ?? [], this.state.step);
    if (!series.length || !this.times.current) return;
    const { default: UPlot } = await import("../vendor/uplot.js");
    if (this.gone || !this.times.current) return;
    for (const chart of this.charts) chart.destroy();
    const [muted, rule, strong, accent, soft, bad, ground] = colors("--muted", "--line", "--bar-strong", "--accent", "--accent-soft", "--bad", "--ground");
    const axis = { stroke: muted, grid: { stroke: rule, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const seconds = series.map(({ t }) => t);
    const options = (box, title, lines, value) => ({ width: box.clientWidth, height: 180, cursor: { sync: { key: "statistics" }, drag: { x: false, y: false } }, legend: { live: true }, scales: { x: { time: true, range: this.shown() } }, axes: [{ ...axis, size: 28, values: (_, ticks) => ticks.map((tick) => moment(tick * 1000).slice(0, ticks[1] - ticks[0] < 60 ? 8 : 5)) }, { ...axis, size: 64, values: (_, ticks) => ticks.map(value) }], series: [{ label: "at", value: (_, at) => (at == null ? "–" : moment(at * 1000)) }, ...lines] });
    const line = (label, stroke, extra = {}) => ({ label, stroke, width: 1.5, spanGaps: true, points: { show: series.length < 3, fill: ground }, value: (_, one) => (one == null ? "–" : extra.show(one)), ...extra });
    const long = (value) => duration(value);
    this.charts = [
      new UPlot(options(this.times.current, "time", [line("p50", strong, { show: long }), line("p95", accent, { show: long }), line("p99", muted, { show: long, dash: [4, 4] })], tick), [seconds, ...["p50", "p95", "p99"].map((key) => series.map((one) => one[key] ?? null))], this.times.current),
      new UPlot(options(this.counts.current, "count", [line("spans", accent, { show: count, fill: soft }), line("errors", bad, { show: count })], short), [seconds, series.map((one) => one.count), series.map((one) => one.errors)], this.counts.current),
    ];
    this.sizes.disconnect();
    this.sizes.observe(this.times.current);
  }

  // The whole time that was asked for, however little of it has spans; seconds since the epoch.
  shown() {
    const now = Date.now() / 1000;
    return [now - SINCE.find(([key]) => key === this.state.since)[2] * 60, now];
  }

  fit() {
    for (const chart of this.charts) {
      const width = chart.root.parentElement.clientWidth;
      if (Math.abs(width - chart.width) > 1) chart.setSize({ width, height: 180 });
    }
  }

  render(_, { query, by, since, answer, problem, sort }) {
    const isWrong = problem?.status === 400;
    const rows = [...(answer?.rows ?? [])].sort((a, b) => (SORTS[sort](a) < SORTS[sort](b) ? -1 : 1));
    return html`<main class="page scrolls">
      <link rel="stylesheet" href="/page/vendor/uplot.css" />
      <div class="list-bar"><h1>Statistics</h1><div class="list-filter" role="search" aria-label="Statistics"><${QueryInput} value=${query} onQuery=${(text) => text !== this.state.query && this.ask(text)} problem=${isWrong ? problem : null} label="Filter spans" placeholder="filter: service:shop type:llm" /></div>
        <label class="choice">by <select value=${by} onChange=${(event) => this.change({ by: event.currentTarget.value })}>${BY.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
        <label class="choice">last <select value=${since} onChange=${(event) => this.change({ since: event.currentTarget.value })}>${SINCE.map(([key, name]) => html`<option key=${key} value=${key}>${name}</option>`)}</select></label></div>
      ${problem && !isWrong && html`<${Problem} error=${problem} onRetry=${() => this.load()}>The statistics could not be loaded</${Problem}>`}
      ${answer && !answer.rows.length && html`<div class="notice"><h2>Nothing in this time</h2><p>No span ${query ? "that matches " : ""}started within the last ${SINCE.find(([key]) => key === since)[1]}.</p></div>`}
      ${answer?.counted_since_ns > 0 && html`<p class="note">Reading took too long: runs that began before ${instant(answer.counted_since_ns / 1e6)} are not counted.</p>`}
      <div class="charts" hidden=${!answer?.series?.length}><figure><figcaption>Time</figcaption><div ref=${this.times}></div></figure><figure><figcaption>Spans</figcaption><div ref=${this.counts}></div></figure></div>
      ${rows.length > 0 && html`<table class="plain-table figures"><thead><tr>${[["key", by[0].toUpperCase() + by.slice(1)], ["count", "Spans"], ["errors", "Errors"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"], ["tokens", "Tokens"], ["cost", "Cost"]].map(([key, title]) => html`<th key=${key} scope="col" class=${key === "key" ? "" : `n ${GOES[key] ?? ""}`} aria-sort=${sort === key ? (key === "key" ? "ascending" : "descending") : null}><button type="button" class="sort" onClick=${() => this.setState({ sort: key })}>${title}</button></th>`)}</tr></thead>
        <tbody>${rows.map((row) => html`<tr key=${row.key}><th scope="row"><a href=${`/?q=${encodeURIComponent(term(by, row.key))}`}>${row.key || "—"}</a></th><td class="n">${count(row.count)}</td><td class="n ${row.errors ? "bad" : ""}">${row.errors ? `${count(row.errors)} · ${percent(row.errors, row.count)}` : ""}</td><td class="n slight">${duration(row.p50)}</td><td class="n">${duration(row.p95)}</td><td class="n minor">${duration(row.p99)}</td><td class="n minor">${row.input_tokens || row.output_tokens ? short((row.input_tokens ?? 0) + (row.output_tokens ?? 0)) : ""}</td><td class="n slight">${cost(row.cost)}</td></tr>`)}</tbody></table>`}
    </main>`;
  }
}

// Where nothing ended, nothing was counted: the line goes down to zero, and not straight on to the next one.
function gapless(series, step) {
  const found = [];
  for (const one of series) {
    for (let t = found.length ? found.at(-1).t + step : one.t; t < one.t; t += step) found.push({ t, count: 0, errors: 0 });
    found.push(one);
  }
  return found;
}

const tick = (seconds) => brief(seconds).replace(".0", "");
