// The page: which screen the address means, the bar above it, the live connection, the theme.

import { html, render, useEffect, useState } from "./vendor/preact-htm.js";
import { bindKeys, listenToKeys } from "./base/keys.js";
import { Live, liveUrl } from "./base/live.js";
import { Problem } from "./base/parts.js";
import { followLinks, here, onRoute } from "./base/route.js";
import { Help } from "./screens/help.js";

const live = new Live(liveUrl());
const PLACES = [["/", "Runs"], ["/sessions", "Sessions"], ["/stats", "Statistics"]];
const THEMES = ["system", "light", "dark"];
const SCREENS = {
  runs: async () => (await import("./screens/runs.js")).Runs,
  trace: async () => (await import("./screens/trace.js")).Trace,
  sessions: async () => (await import("./screens/sessions.js")).Sessions,
  stats: async () => (await import("./screens/statistics.js")).Statistics,
  diff: async () => (await import("./screens/diff.js")).Diff,
};
const STATES = { live: "live", away: "reconnecting…", connecting: "connecting…" };

function Page() {
  const [route, setRoute] = useState(here());
  const [state, setState] = useState(live.state);
  useEffect(() => onRoute((next) => (scrollTo(0, 0), setRoute(next))), []);
  useEffect(() => live.watch(setState), []);
  return html`<a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    <${Bar} path=${route.path} state=${state} />
    <div id="content" tabindex="-1"><${Screen} route=${route} /></div>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

// A screen is loaded when its address is first met.
const loaded = new Map();

function Screen({ route: { path, params } }) {
  const [, first, rest] = /^\/([^/]*)(?:\/([^/]+))?$/.exec(path) ?? [null, "unknown"];
  const name = first || "runs";
  const [, again] = useState(0);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!SCREENS[name] || loaded.has(name)) return;
    SCREENS[name]().then((screen) => (loaded.set(name, screen), again((turn) => turn + 1)), setError);
  }, [name]);
  if (!SCREENS[name] || (name === "trace") !== Boolean(rest)) return html`<main class="page"><h1 class="offscreen">Not here</h1><${Problem} error="This address means nothing to the collector.">No such page</${Problem}></main>`;
  if (error) return html`<main class="page"><h1 class="offscreen">Not loaded</h1><${Problem} error=${error} onRetry=${() => location.reload()} /></main>`;
  const Shown = loaded.get(name);
  if (!Shown) return html`<main class="page"><h1 class="offscreen">Loading</h1></main>`;
  if (name === "trace") return html`<${Shown} key=${`${rest}${params.get("span")}`} traceId=${rest} params=${params} live=${live} />`;
  return html`<${Shown} key=${name === "diff" ? String(params) : name} params=${params} live=${live} />`;
}

function Bar({ path, state }) {
  return html`<header class="bar">
    <a class="brand" href="/" aria-label="asynctrace, runs"><svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><rect x="1" y="2" width="14" height="3" rx="1.5" /><rect x="4" y="6.5" width="8" height="3" rx="1.5" /><rect x="7" y="11" width="5" height="3" rx="1.5" /></svg>asynctrace</a>
    <nav aria-label="Pages">${PLACES.map(([to, name]) => html`<a key=${to} href=${to} aria-current=${to === path || (to === "/" && /^\/(trace\/|diff$)/.test(path)) ? "page" : null}>${name}</a>`)}</nav>
    <span class="connection ${state}" role="status"><i aria-hidden="true"></i>${STATES[state]}</span>
    <${Theme} /><${Help} />
  </header>`;
}

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "system");
  const next = () => {
    const chosen = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem("asynctrace.theme", chosen);
    } catch {
      // it holds as long as the page is open
    }
    setTheme(chosen);
  };
  useEffect(() => bindKeys("Everywhere", { t: ["theme", next] }), [theme]);
  return html`<button type="button" class="quiet theme" aria-label=${`Theme: ${theme}`} title="Theme" onClick=${next}><span aria-hidden="true">◐</span> ${theme}</button>`;
}

listenToKeys();
followLinks();
render(html`<${Page} />`, document.getElementById("app"));
