// Where the page is: a path and its parameters, in the address bar, so that every view can be linked to.

const listeners = new Set();

export function here() {
  return { path: location.pathname, params: new URLSearchParams(location.search) };
}

export function onRoute(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  for (const listener of [...listeners]) listener(here());
}

// Note the view in the address without going anywhere. Empty values leave it.
export function note(values) {
  const params = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === "" || value === false) params.delete(key);
    else params.set(key, value === true ? "1" : String(value));
  }
  const query = params.toString();
  history.replaceState(null, "", location.pathname + (query ? `?${query}` : "") + location.hash);
}

export function address(path, values = {}) {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) if (value !== null && value !== undefined && value !== "") params.set(key, value);
  const query = params.toString();
  return query ? `${path}?${query}` : path;
}

export const traceAddress = (id, values) => address(`/trace/${encodeURIComponent(id)}`, values);

export function followLinks() {
  addEventListener("popstate", () => {
    for (const listener of [...listeners]) listener(here());
  });
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href^='/']") : null;
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (link.target || link.hasAttribute("download") || link.getAttribute("href").startsWith("/api/")) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}
