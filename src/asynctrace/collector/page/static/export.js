// The entry of an exported file: one trace, no network, the same screen. What unpacks it stands in the file.

import { html, render } from "./vendor/preact-htm.js";
import { listenToKeys } from "./base/keys.js";
import { Help } from "./screens/help.js";
import { Detail } from "./trace/detail.js";
import { EmbeddedTrace } from "./trace/embedded.js";
import { TraceScreen } from "./trace/screen.js";

// The view is kept behind the #, which works for files, too.
function note(values) {
  const params = new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === "" || value === false) params.delete(key);
    else params.set(key, value === true ? "1" : String(value));
  }
  history.replaceState(null, "", `#${params}`);
}

async function start() {
  const trace = await globalThis.unpacked("trace");
  const source = new EmbeddedTrace(trace);
  listenToKeys();
  const params = new URLSearchParams(location.hash.slice(1));
  render(html`<${TraceScreen} source=${source} traceId=${trace.skeleton.trace_id} params=${params} note=${note} isExported loadDetail=${async () => Detail} actions=${() => html`<${Help} />`} />`, document.getElementById("app"));
}

start().catch((error) => {
  document.getElementById("app").textContent = `This file could not be opened: ${error.message}`;
});
