// One span: what it is, and its panes.

import { Component, html, useState } from "../vendor/preact-htm.js";
import { bytes, cost, count, duration, ending, FAILED, instant, ticking } from "../base/format.js";
import { Mark, Problem } from "../base/parts.js";
import { traceAddress } from "../base/route.js";
import { conversation, tokensOf } from "../chat/dialects.js";
import { parsed } from "../chat/messages.js";
import { Chat } from "../chat/view.js";
import { term } from "../query/words.js";
import { Json, Leaf } from "../show/json.js";
import { CopyButton, Text } from "../show/text.js";

export class Detail extends Component {
  render({ panes, model, index, span, error, pane, onPane, onReroot, onRetry, onClose, isExported }) {
    if (index < 0) return html`<div class="empty-detail"><p>Choose a span to see its input and output.</p></div>`;
    const open = model.isOpen(index);
    const word = model.endingOf(index);
    const long = model.length(index) / 1e6;
    const available = span ? panesOf(span) : {};
    const shown = span ? choose(pane, available, word) : (pane ?? "Input");
    return html`<div class="detail-inner">
      <div class="detail-head">
        <h2><${Mark} state=${word} /><span class="span-name">${model.nameOf(index)}</span></h2>
        <span class="detail-time">${open ? ticking(long) : model.isLost(span) ? word : duration(long)}</span>
        ${span && html`<${CopyButton} text=${span.span_id} label="Copy id" />`}
        <button type="button" class="quiet close-detail" aria-label="Close the detail" onClick=${onClose}>×</button>
      </div>
      <${Facts} model=${model} index=${index} span=${span} word=${word} />
      <div class="detail-acts">
        ${model.childCount(index) > 0 && model.root !== index && html`<button type="button" class="quiet" onClick=${() => onReroot(index)}>Show only this branch</button>`}
      </div>
      <div class="tabs" role="tablist" aria-label="What to show of the span" onKeyDown=${arrows}>
        ${panes.map((name) => html`<button key=${name} type="button" role="tab" id="tab-${name}" aria-selected=${String(name === shown)} aria-controls="pane" tabindex=${name === shown ? 0 : -1} disabled=${span ? !available[name] : false} onClick=${() => onPane(name)}>${name}${name === "Logs" && available.Logs > 0 ? html` <span class="number">${available.Logs}</span>` : ""}</button>`)}
      </div>
      <div class="pane" id="pane" role="tabpanel" aria-labelledby="tab-${shown}" tabindex="0">
        ${error ? html`<${Problem} error=${error} onRetry=${onRetry} />` : span ? html`<${Pane} key=${`${span.span_id}${shown}`} name=${shown} span=${span} model=${model} isExported=${isExported} />` : html`<p class="loading">Loading…</p>`}
      </div>
    </div>`;
  }
}

function arrows(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...event.currentTarget.querySelectorAll("[role=tab]:not(:disabled)")];
  const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
  event.preventDefault();
  next.focus();
  next.click();
}

function panesOf(span) {
  const talk = talkOf(span);
  const logs = (span.events?.length ?? 0) + (span.logs?.length ?? 0);
  return {
    Input: Boolean(span.input || talk.input),
    Output: Boolean(span.output || talk.output),
    Logs: logs,
    Error: Boolean(span.exception || span.status_message || span.status === "error"),
    Attributes: true,
    Raw: true,
  };
}

const talks = new WeakMap();

function talkOf(span) {
  if (!talks.has(span)) talks.set(span, conversation(span));
  return talks.get(span);
}

function choose(pane, available, word) {
  if (pane && available[pane]) return pane;
  if (available.Error && (word === "error" || word === "timeout") && !pane) return "Error";
  return ["Input", "Output", "Error", "Logs"].find((name) => available[name]) ?? "Attributes";
}

function Facts({ model, index, span, word }) {
  const tokens = span ? tokensOf(span) : {};
  const [own, ownOut] = model.tokens.get(index) ?? [];
  const below = model.childCount(index) ? model.tokensBelow(index) : null;
  const flag = model.flags.get(index);
  const facts = [
    ["type", model.typeOf(index)],
    ["service", model.serviceOf(index)],
    ["model", model.model.get(index)],
    ["ending", word === "ok" ? "" : ending(word)],
    ["from", `+${duration(model.start[index] / 1e6)}`],
    ["tokens", own || ownOut || tokens.input || tokens.output ? `${count(own ?? tokens.input ?? 0)} in · ${count(ownOut ?? tokens.output ?? 0)} out` : below ? `${count(below[0])} in · ${count(below[1])} out below` : ""],
    ["cost", cost(model.cost.get(index) ?? span?.cost)],
    ["flag", flag === "skewed" ? "clock skew: it lies outside its parent's time" : flag],
  ];
  return html`<dl class="facts">${facts.filter(([, value]) => value).map(([key, value]) => html`<div key=${key} class="fact-${key} ${key === "ending" && FAILED.has(word) ? "failed" : ""}"><dt>${key}</dt><dd>${String(value)}</dd></div>`)}</dl>`;
}

function Pane({ name, span, model, isExported }) {
  const talk = talkOf(span);
  switch (name) {
    case "Input":
      return html`<${Content} value=${span.input} list=${talk.input} from=${talk.inputFrom} />`;
    case "Output":
      return html`<${Content} value=${span.output} list=${talk.output} from=${talk.outputFrom} />`;
    case "Logs":
      return html`<${Logs} span=${span} />`;
    case "Error":
      return html`<${Failure} span=${span} />`;
    case "Attributes":
      return html`<${Attributes} span=${span} isExported=${isExported} />`;
    default:
      return html`<${Raw} span=${span} />`;
  }
}

// What went in or came out: as a conversation, as a JSON tree, or as the text that was sent.
function Content({ value, list, from }) {
  const text = value?.text;
  const tree = text === undefined ? undefined : parsed(text);
  const isTree = tree !== null && typeof tree === "object";
  const views = [list && "Chat", isTree && "JSON", text !== undefined && "Text"].filter(Boolean);
  const [view, setView] = useState(views[0]);
  const original = text ?? JSON.stringify(list, null, 2);
  return html`<div class="content">
    <div class="pane-bar">
      ${views.length > 1 ? html`<div class="views" role="group" aria-label="View">${views.map((one) => html`<button key=${one} type="button" aria-pressed=${String(one === view)} onClick=${() => setView(one)}>${one}</button>`)}</div>` : html`<span></span>`}
      <span class="about">${view === "Chat" ? from : (value?.mime ?? "")}${value?.bytes > (text?.length ?? 0) * 4 ? `, cut: ${bytes(value.bytes)} in all` : ""}</span>
      <${CopyButton} text=${original} name="Copy the original text" />
    </div>
    ${view === "Chat" ? html`<${Chat} list=${list} />` : view === "JSON" ? html`<div class="json"><${Json} value=${tree} /></div>` : html`<${Text} text=${text ?? ""} mono=${isTree} />`}
  </div>`;
}

function Logs({ span }) {
  const logs = [...(span.events ?? []).map((event) => ({ ...event, what: event.name })), ...(span.logs ?? []).map((log) => ({ ...log, what: log.body ?? log.name ?? log.event_name }))];
  logs.sort((a, b) => a.time_ns - b.time_ns);
  return html`<ol class="logs">${logs.map((log, i) => {
    const level = String(log.severity ?? log.severity_text ?? log.attributes?.level ?? "").toLowerCase();
    const bad = log.what === "exception" || /error|fatal|critical/.test(level);
    return html`<li key=${i} class=${bad ? "bad" : ""}><span class="log-time">+${duration((log.time_ns - span.start_ns) / 1e9) || "0 s"}</span>
      <div class="log-body">${level && html`<span class="level">${level}</span>`}${typeof log.what === "object" && log.what !== null ? html`<${Json} value=${log.what} />` : html`<${Text} text=${log.what ?? ""} />`}
      ${Object.keys(log.attributes ?? {}).length > 0 && html`<${Fields} fields=${log.attributes} />`}</div></li>`;
  })}</ol>`;
}

const Fields = ({ fields }) => html`<dl class="fields">${Object.entries(fields).map(([key, value]) => html`<div key=${key} class=${typeof value === "string" && value.includes("\n") ? "lines" : ""}><dt>${key}</dt><dd>${value !== null && typeof value === "object" ? html`<${Json} value=${value} />` : html`<${Leaf} value=${value} />`}</dd></div>`)}</dl>`;

function Failure({ span }) {
  const failure = span.exception;
  const message = failure?.message ?? span.status_message;
  return html`<div class="failure">
    <p class="failure-type">${failure?.type ?? "error"}</p>
    ${message && html`<${Text} text=${message} className="failure-message" />`}
    ${failure && span.status_message && span.status_message !== failure.message && html`<p class="muted">${span.status_message}</p>`}
    ${failure?.stacktrace && html`<div class="pane-bar"><span class="about">stack</span><${CopyButton} text=${failure.stacktrace} name="Copy the stack" /></div><${Text} text=${failure.stacktrace} mono className="stack" />`}
  </div>`;
}

function Attributes({ span, isExported }) {
  const [filter, setFilter] = useState("");
  const sections = [["attributes", span.attributes ?? {}], ["resource", span.resource ?? {}], ["scope", span.scope ?? {}]];
  const wanted = filter.toLowerCase();
  return html`<div class="attributes">
    <input type="search" aria-label="Filter the attributes" placeholder="filter attributes" value=${filter} onInput=${(event) => setFilter(event.currentTarget.value)} />
    ${sections.map(([title, fields]) => {
      const entries = Object.entries(fields).filter(([key, value]) => !isEmpty(value) && (!wanted || key.toLowerCase().includes(wanted) || String(value).toLowerCase().includes(wanted)));
      if (!entries.length) return null;
      return html`<section key=${title} aria-label=${title}><h3>${title}</h3><dl class="table">${entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => html`<div key=${key}><dt>${broken(key)}</dt><dd><${Attribute} name=${key} value=${value} canFilter=${title === "attributes" && !isExported} /></dd></div>`)}</dl></section>`;
    })}
    <${Links} span=${span} />
  </div>`;
}

// A long key goes on in the next line after a dot, not within a word.
const broken = (key) => key.split(/(?<=\.)/).flatMap((word, i) => (i ? [html`<wbr />`, word] : [word]));

const isEmpty = (value) => value === null || value === "" || (typeof value === "object" && !Object.keys(value).length);

function Attribute({ name, value, canFilter }) {
  if (value !== null && typeof value === "object") return html`<${Json} value=${value} />`;
  const text = String(value);
  const inner = typeof value === "string" && text.length < 2_000_000 ? parsed(value) : value;
  return html`${inner !== null && typeof inner === "object" ? html`<${Json} value=${inner} />` : html`<${Leaf} value=${value} />`}
    <span class="attribute-acts"><${CopyButton} text=${text} label="copy" name=${`Copy ${name}`} />${canFilter && text.length <= 200 && html`<a href=${`/?q=${encodeURIComponent(term(`attr.${name}`, text, "="))}`} aria-label=${`Runs with this ${name}`}>runs</a>`}</span>`;
}

function Links({ span }) {
  if (!span.links?.length) return null;
  return html`<section aria-label="links"><h3>links</h3><ul class="links">${span.links.map((link, i) => html`<li key=${i}><a href=${traceAddress(link.trace_id, { span: link.span_id })}>${link.trace_id.slice(0, 8)}… ${link.span_id}</a>${Object.keys(link.attributes ?? {}).length > 0 && html`<${Fields} fields=${link.attributes} />`}</li>`)}</ul></section>`;
}

function Raw({ span }) {
  const text = JSON.stringify(span, null, 2);
  return html`<div><div class="pane-bar"><span class="about">${span.span_id} · ${instant(span.start_ns / 1e6)}</span><${CopyButton} text=${text} name="Copy the raw span" /></div><${Text} text=${text} mono className="raw" /></div>`;
}
