// The trace screen in the collector's page: what only a collector can do with a trace stands here.

import { Component, html, useEffect, useState } from "../vendor/preact-htm.js";
import { ask, get, LiveTrace } from "../base/api.js";
import { count, duration, moment, startOf } from "../base/format.js";
import { bindKeys } from "../base/keys.js";
import { Dialog, Mark, Menu, Problem } from "../base/parts.js";
import { go, note } from "../base/route.js";
import { term } from "../query/words.js";
import { copy } from "../show/text.js";
import { TraceScreen } from "../trace/screen.js";

export class Trace extends Component {
  constructor(props) {
    super(props);
    this.source = new LiveTrace(props.traceId);
  }

  render({ traceId, params, live }) {
    return html`<${TraceScreen} source=${this.source} traceId=${traceId} params=${params} live=${live} note=${note} loadDetail=${async () => (await import("../trace/detail.js")).Detail} back=${html`<a class="back" href="/"><span aria-hidden="true">‹ </span>Runs</a>`} actions=${(summary) => html`<${Acts} traceId=${traceId} summary=${summary} />`} />`;
  }
}

function Acts({ traceId, summary }) {
  const [pinned, setPinned] = useState(null);
  const [choosing, setChoosing] = useState(null);
  const [said, setSaid] = useState("");
  const isPinned = pinned ?? Boolean(summary.pinned);
  const base = `/api/v1/traces/${encodeURIComponent(traceId)}`;
  const pin = async () => {
    try {
      await ask(isPinned ? "DELETE" : "PUT", `/api/v1/pins/${encodeURIComponent(traceId)}`);
      setPinned(!isPinned);
      setSaid("");
    } catch (error) {
      setSaid(error.message);
    }
  };
  useEffect(() => bindKeys("Run", { p: ["pin the run", pin], d: ["diff with another run", () => setChoosing("diff")] }), [isPinned]);
  return html`<span class="said-here" role="status">${said}</span>
    <button type="button" aria-pressed=${String(isPinned)} title="A pinned run outlives retention" onClick=${pin}>${isPinned ? "Pinned" : "Pin"}</button>
    <button type="button" onClick=${() => setChoosing("diff")}>Diff…</button>
    <${Menu} label="Share">
      <button type="button" onClick=${() => copy(location.href)}>Copy the link</button>
      <a href=${`${base}.html`} download=${`${traceId}.html`}>Page in one file (.html)</a>
      <a href=${`${base}.otlp.json?redact=1`} download=${`${traceId}.otlp.json`}>OTLP, redacted (.otlp.json)</a>
      <a href=${`${base}.otlp.json`} download=${`${traceId}.otlp.json`}>OTLP, as it came (.otlp.json)</a>
      <a href=${`${base}.md?redact=1`} download=${`${traceId}.md`}>Text (.md)</a>
      <button type="button" class="dangerous" onClick=${() => setChoosing("delete")}>Delete the run…</button>
    </${Menu}>
    ${choosing === "diff" && html`<${Other} traceId=${traceId} summary=${summary} onClose=${() => setChoosing(null)} />`}
    ${choosing === "delete" && html`<${Delete} traceId=${traceId} base=${base} summary=${summary} onClose=${() => setChoosing(null)} />`}`;
}

// Which run to compare with: those of the same name first.
function Other({ traceId, summary, onClose }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [all, setAll] = useState(false);
  useEffect(() => {
    let gone = false;
    get("/api/v1/traces", { q: all || !summary.name ? "" : term("name", summary.name), limit: 50 }).then(
      ({ traces }) => gone || setFound(traces.filter(({ trace_id }) => trace_id !== traceId)),
      (problem) => gone || setError(problem),
    );
    return () => (gone = true);
  }, [all]);
  return html`<${Dialog} title="Diff with" onClose=${onClose}>
    ${error && html`<${Problem} error=${error} />`}
    <label class="check"><input type="checkbox" checked=${all} onChange=${(event) => setAll(event.currentTarget.checked)} /> runs of every name</label>
    ${found && !found.length && html`<p class="muted">No other run${all ? "" : " of this name"}.</p>`}
    <ul class="run-choices">${(found ?? []).map((run) => html`<li key=${run.trace_id}><button type="button" onClick=${() => go(`/diff?a=${run.trace_id}&b=${traceId}`)}><${Mark} state=${run.open ? "open" : run.ending} /><span class="grow">${run.name}</span><span class="muted">${count(run.spans)} spans</span><span>${duration(run.duration)}</span><span class="muted">${moment(startOf(run))}</span></button></li>`)}</ul>
  </${Dialog}>`;
}

function Delete({ base, summary, onClose }) {
  const [error, setError] = useState(null);
  const remove = async () => {
    try {
      await ask("DELETE", base);
      go("/");
    } catch (problem) {
      setError(problem);
    }
  };
  return html`<${Dialog} title="Delete the run?" onClose=${onClose}><p>${summary.name ?? "The run"} with ${count(summary.spans)} spans is gone for good.</p>${error && html`<${Problem} error=${error} />`}<button type="button" class="dangerous" onClick=${remove}>Delete</button></${Dialog}>`;
}
