// The collector's JSON over HTTP. Every failure is an ApiError with a sentence; `at` is where a query is malformed.

export class ApiError extends Error {
  constructor(message, status, at = null, end = null) {
    super(message);
    this.status = status;
    this.at = at;
    this.end = end;
  }
}

export async function get(path, params = {}, { signal } = {}) {
  return ask("GET", path, params, { signal });
}

export async function ask(method, path, params = {}, { signal, body } = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) if (value !== null && value !== undefined && value !== "") query.set(key, value);
  const text = query.toString();
  let response;
  try {
    response = await fetch(text ? `${path}?${text}` : path, { method, signal, body, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the collector does not answer", 0);
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    // an error without JSON has its status only
  }
  throw new ApiError(answer.error ?? `the collector answered ${response.status}`, response.status, answer.at ?? null, answer.end ?? null);
}

// One trace as the trace screen needs it. An exported page has the same four, see `embedded.js`.
export class LiveTrace {
  constructor(traceId) {
    this.traceId = traceId;
    this.base = `/api/v1/traces/${encodeURIComponent(traceId)}`;
  }

  skeleton(after, options) {
    return get(`${this.base}/skeleton`, { after: after || null }, options);
  }

  span(key, options) {
    return get(`${this.base}/span/${encodeURIComponent(key)}`, {}, options);
  }

  find(query, options) {
    return get(`${this.base}/find`, { q: query }, options);
  }

  criticalPath(options) {
    return get(`${this.base}/critical-path`, {}, options);
  }
}
