// The list of runs: live, filtered, endless.

import { Component, createRef, html } from "../trace/kit.js";
import { useEffect, useState } from "../vendor/preact-htm.js";
import { ask, get } from "../base/api.js";
import { count, plural } from "../base/format.js";
import { bindKeys } from "../base/keys.js";
import { isCalm, Problem } from "../base/parts.js";
import { go, note } from "../base/route.js";
import { QueryInput } from "../query/input.js";
import { CopyButton } from "../show/text.js";
import { RunList } from "./run-list.js";

const UNHEARD = 500; // ms that a list waits for the collector to listen before it is read

export class Runs extends Component {
  constructor(props) {
    super(props);
    this.host = createRef();
    this.file = createRef();
    this.state = { query: props.params.get("q") ?? "", problem: null, changes: 0 };
  }

  componentDidMount() {
    const { live } = this.props;
    document.title = "Runs · asynctrace";
    const changed = () => {
      if (!this.list) return;
      if (this.list.isSearching) this.countSpans();
      this.setState((state) => ({ changes: state.changes + 1 }));
    };
    this.list = new RunList({
      host: this.host.current,
      load: (cursor, limit) => get("/api/v1/traces", { q: this.state.query, cursor, limit }),
      now: () => live.now(),
      onChange: changed,
      onProblem: (problem) => this.setState({ problem }),
    });
    this.list.begin();
    this.unsubscribe = live.subscribe("list", () => ({ subscribe: "list", q: this.state.query }), {
      message: (message) => this.list.receive(message),
      again: () => this.again(),
    });
    this.timer = setInterval(() => !document.hidden && this.list.tick(), isCalm() ? 1000 : 100);
    this.unbind = bindKeys("Runs", {
      "/": ["filter", () => document.querySelector("[data-focus-key=runs]")?.focus()],
      j: ["next run", () => this.step(1)],
      k: ["run before", () => this.step(-1)],
      ArrowDown: ["next run", () => this.step(1)],
      ArrowUp: ["run before", () => this.step(-1)],
      Enter: ["open the run", () => this.list.active >= 0 && go(`/trace/${this.list.items[this.list.active].trace_id}`)],
      p: ["pause, resume", () => this.list.pause(!this.list.paused)],
      x: ["mark for a diff; the second one opens it", () => this.list.mark()],
      Escape: ["stop searching", () => this.list.stop()],
    });
  }

  componentDidUpdate(before) {
    const query = this.props.params.get("q") ?? "";
    if (before.params !== this.props.params && query !== this.state.query) this.ask(query);
  }

  componentWillUnmount() {
    this.unbind();
    this.unsubscribe();
    clearInterval(this.timer);
    clearTimeout(this.asking);
    this.list.close();
  }

  step(by) {
    this.host.current.focus();
    this.list.activate(this.list.active + by);
  }

  // How many there are to read.
  async countSpans() {
    if (this.counting) return;
    this.counting = true;
    try {
      const { store } = await get("/api/v1/status");
      this.setState({ total: store.spans });
    } catch {
      // then it is told only how many were read
    }
  }

  ask(query) {
    this.counting = false;
    note({ q: query });
    this.setState({ query, problem: null }, () => {
      this.list.active = -1;
      this.props.live.send({ subscribe: "list", q: query });
      clearTimeout(this.asking);
      this.asking = setTimeout(() => this.again(), this.props.live.state === "live" ? UNHEARD : 0);
    });
  }

  // The collector listens for us, and what is read from now on has no gap before its news; or it does not, and is read anyway.
  again() {
    const isAsked = this.asking;
    clearTimeout(this.asking);
    this.asking = null;
    if (isAsked) this.list.begin();
    else if (!this.list.paused) this.list.begin({ keepPlace: true });
  }

  async take(event) {
    const [file] = event.currentTarget.files;
    event.currentTarget.value = "";
    if (!file) return;
    try {
      const { traces, spans } = await ask("POST", "/api/v1/import", {}, { body: file });
      this.setState({ said: `${plural(spans, "span")} of ${plural(traces.length, "run")} imported` });
      if (traces.length === 1) go(`/trace/${traces[0]}`);
      else this.list.begin();
    } catch (error) {
      this.setState({ said: `not imported: ${error.message}` });
    }
  }

  render(_, { query, problem, said, total }) {
    const list = this.list;
    const isWrong = problem && problem.status === 400;
    const hasNone = !list?.items.length;
    const isEmpty = list?.loaded && hasNone && !list.busy && !list.cursor && !problem;
    const isSearching = list && !problem && (list.isSearching || list.stopped);
    return html`<main class="page list-page">
      <div class="list-bar">
        <h1>Runs</h1>
        <div class="list-filter" role="search" aria-label="Runs"><${QueryInput} value=${query} onQuery=${(text) => text !== this.state.query && this.ask(text)} problem=${isWrong ? problem : null} label="Filter runs" placeholder=${'filter: service:shop status:error dur>2s input:"refund"'} focusKey="runs" /></div>
        ${this.pauseButton()}
        <input ref=${this.file} type="file" class="offscreen" tabindex="-1" aria-label="File to import" accept=".json,.gz,.pb,application/json" onChange=${(event) => this.take(event)} />
        <button type="button" onClick=${() => this.file.current.click()}>Import…</button>
      </div>
      <p class="said" role="status" aria-live="polite">${said ?? (list?.marked ? "marked: choose another run and press x for the diff" : "")}</p>
      ${problem && !isWrong && html`<${Problem} error=${problem} onRetry=${() => this.list.begin()}>The runs could not be loaded</${Problem}>`}
      ${isEmpty && (query ? html`<div class="notice"><h2>No run matches</h2><p>Nothing that was received satisfies <code>${query}</code>.</p><button type="button" onClick=${() => this.ask("")}>Clear the filter</button></div>` : html`<${Welcome} />`)}
      ${isSearching && html`<${Search} list=${list} total=${total} />`}
      <div class="run-grid" role="grid" aria-label="Runs" aria-busy=${String(Boolean(list?.busy))} hidden=${Boolean(isEmpty || (hasNone && (isSearching || (problem && !isWrong))))} tabindex="0" ref=${this.host}>
        <div class="run head" role="row">${[["mark", ""], ["what", "Run"], ["errors", ""], ["spans", "Spans"], ["tokens", "Tokens"], ["cost", "Cost"], ["time", "Time"], ["start", "Started"]].map(([name, title]) => html`<span key=${name} class="cell ${name}" role="columnheader" aria-label=${title || { mark: "State", errors: "Errors" }[name]}>${title}</span>`)}</div>
      </div>
    </main>`;
  }

  pauseButton() {
    const list = this.list;
    if (!list?.paused) return html`<button type="button" class="pause" aria-pressed="false" onClick=${() => list?.pause(true)}>Pause</button>`;
    const number = list.waiting.size;
    return html`<button type="button" class="pause resume" aria-pressed="true" onClick=${() => list.pause(false)}>${number ? `${count(number)} new · Resume` : "Resume"}</button>`;
  }
}

// A search that takes long: over the list where there is one, else in its place.
function Search({ list, total = 0 }) {
  const { read, stopped } = list;
  const hasNone = !list.items.length;
  const title = !stopped ? "Searching…" : hasNone ? "No match so far" : "Stopped";
  return html`<div class="searching ${hasNone ? "notice" : "over"}"><h2 role="status">${title}</h2>
    ${read > 0 && html`<progress max=${Math.max(read, total)} value=${read} aria-label="Spans that were read"></progress><p>${count(read)}${total >= read ? ` of ${count(total)}` : ""} spans read</p>`}
    ${stopped ? html`<button type="button" onClick=${() => list.goOn()}>Search on</button>` : html`<button type="button" onClick=${() => list.stop()}>Stop</button>`}</div>`;
}

function Welcome() {
  const [status, setStatus] = useState(null);
  useEffect(() => void get("/api/v1/status").then(setStatus, () => {}), []);
  if (status?.receiving === null) return html`<div class="notice welcome"><h2>Waiting for the first run</h2><p>This program only shows what others receive: send OTLP where <code>asynctrace ingest</code> runs.</p></div>`;
  const endpoint = location.origin;
  const shell = `export OTEL_EXPORTER_OTLP_ENDPOINT=${endpoint}${status?.needs_token ? `
export OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20$ASYNCTRACE_TOKEN"` : ""}`;
  const exporter = status?.needs_token ? `OTLPExporter(
    "${endpoint}",
    headers={"authorization": f"Bearer {os.environ['ASYNCTRACE_TOKEN']}"},
)` : `OTLPExporter("${endpoint}")`;
  const python = `import asyncio, ${status?.needs_token ? "os, " : ""}asynctrace
from asynctrace.exporters import OTLPExporter

exporter = ${exporter}

async def main():
    async with asynctrace.Tracer(service="hello", exporters=[exporter]) as tracer:
        async with tracer.trace("first run"):
            async with tracer.trace_component("say", type="tool", inputs={"to": "world"}) as said:
                said.set_outputs("hello, world")

asyncio.run(main())`;
  return html`<div class="notice welcome"><h2>Waiting for the first run</h2>
    <p>Whatever speaks OTLP over HTTP may send here: asynctrace, OpenTelemetry, Logfire, Langfuse, AgentOps.</p>
    <${Snippet} title="Any SDK" text=${shell} /><${Snippet} title="asynctrace" text=${python} />
    ${status?.needs_token && html`<p>This collector wants a token: <code>ASYNCTRACE_TOKEN</code> is the one with which it was started.</p>`}
    <p class="muted">This list is live: the run appears as soon as its first span arrives.</p></div>`;
}

const Snippet = ({ title, text }) => html`<figure class="snippet"><figcaption>${title}<${CopyButton} text=${text} name=${`Copy: ${title}`} /></figcaption><pre tabindex="0">${text}</pre></figure>`;
