// Sessions: what belongs together beyond one run.

import { Component, html } from "../trace/kit.js";
import { get } from "../base/api.js";
import { cost, count, moment, instant, preview, short } from "../base/format.js";
import { Problem } from "../base/parts.js";
import { note } from "../base/route.js";
import { QueryInput } from "../query/input.js";
import { term } from "../query/words.js";

export class Sessions extends Component {
  constructor(props) {
    super(props);
    this.state = { query: props.params.get("q") ?? "", sessions: null, cursor: null };
  }

  componentDidMount() {
    document.title = "Sessions · asynctrace";
    this.load();
    this.timer = setInterval(() => !document.hidden && !this.state.further && this.load({ quietly: true }), 5000);
  }

  componentWillUnmount() {
    this.gone = true;
    clearInterval(this.timer);
  }

  async load({ cursor = null, quietly = false } = {}) {
    const { query } = this.state;
    try {
      const page = await get("/api/v1/sessions", { q: query, cursor, limit: 50 });
      if (this.gone || query !== this.state.query) return;
      this.setState((state) => ({ sessions: cursor ? [...state.sessions, ...page.sessions] : page.sessions, cursor: page.cursor, problem: null, further: Boolean(cursor) }));
    } catch (error) {
      if (!this.gone && !quietly) this.setState({ problem: error });
    }
  }

  ask(query) {
    note({ q: query });
    this.setState({ query, problem: null, further: false }, () => this.load());
  }

  render(_, { query, sessions, cursor, problem }) {
    const isWrong = problem?.status === 400;
    return html`<main class="page scrolls">
      <div class="list-bar"><h1>Sessions</h1><div class="list-filter" role="search" aria-label="Sessions"><${QueryInput} value=${query} onQuery=${(text) => text !== this.state.query && this.ask(text)} problem=${isWrong ? problem : null} label="Filter sessions" placeholder="filter: user:u-7 since:24h" /></div></div>
      ${problem && !isWrong && html`<${Problem} error=${problem} onRetry=${() => this.load()}>The sessions could not be loaded</${Problem}>`}
      ${sessions && !sessions.length && html`<div class="notice"><h2>No sessions${query ? " match" : " yet"}</h2><p>Runs with a session id stand here together: <code>tracer.trace(…, session_id="s-1")</code>, or the attribute <code>session.id</code>.</p></div>`}
      ${sessions?.length > 0 && html`<table class="plain-table"><thead><tr><th scope="col">Session</th><th scope="col">User</th><th scope="col" class="wide">Last input</th><th scope="col" class="n">Runs</th><th scope="col" class="n">Spans</th><th scope="col" class="n">Errors</th><th scope="col" class="n">Tokens</th><th scope="col" class="n">Cost</th><th scope="col" class="n">Last</th></tr></thead>
        <tbody>${sessions.map((one) => html`<tr key=${one.session}><th scope="row"><a href=${`/?q=${encodeURIComponent(term("session", one.session))}`}>${one.session}</a></th><td>${one.user}</td><td class="wide preview">${preview(one.last_input ?? "")}</td><td class="n">${count(one.traces)}</td><td class="n" title=${one.open ? `${count(one.open)} open` : null}>${count(one.spans)}${one.open ? " ◌" : ""}</td><td class="n ${one.errors ? "bad" : ""}">${one.errors ? count(one.errors) : ""}</td><td class="n">${one.input_tokens || one.output_tokens ? short((one.input_tokens ?? 0) + (one.output_tokens ?? 0)) : ""}</td><td class="n">${cost(one.cost)}</td><td class="n" title=${instant(one.last_ns / 1e6)}>${moment(one.last_ns / 1e6)}</td></tr>`)}</tbody></table>
        ${cursor && html`<button type="button" class="more-rows" onClick=${() => this.load({ cursor })}>More sessions</button>`}`}
    </main>`;
  }
}
