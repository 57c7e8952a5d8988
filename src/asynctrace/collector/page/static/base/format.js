// Numbers as a person reads them. Every function is pure; widths do not jump, because numerals are tabular.

const THIN = "\u202f"; // between a number and its unit

export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds === 0) return `0${THIN}s`;
  if (seconds < 0.000_999_5) return `${Math.round(seconds * 1e6)}${THIN}µs`;
  if (seconds < 0.009_995) return `${(seconds * 1e3).toFixed(2)}${THIN}ms`;
  if (seconds < 0.999_5) return `${Math.round(seconds * 1e3)}${THIN}ms`;
  if (seconds < 60) return `${seconds.toFixed(3)}${THIN}s`;
  return clock(seconds, 3);
}

// The time of something that goes on: tenths are enough, and nothing jumps in width within a minute.
export function ticking(seconds) {
  const passed = Math.max(0, seconds);
  return passed < 60 ? `${passed.toFixed(1)}${THIN}s` : clock(passed, 0);
}

function clock(seconds, digits) {
  const rounded = Number(seconds.toFixed(digits));
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  if (hours) return `${hours}${THIN}h ${String(minutes).padStart(2, "0")}${THIN}m`;
  return `${minutes}${THIN}m ${rest}${THIN}s`;
}

export function count(number) {
  return number == null ? "" : Math.round(number).toLocaleString("en-US").replaceAll(",", THIN);
}

export function short(number) {
  if (number == null) return "";
  if (number < 1e3) return String(number);
  if (number < 999_500) return `${(number / 1e3).toFixed(number < 9_950 ? 1 : 0)}${THIN}k`;
  return `${(number / 1e6).toFixed(number < 9_950_000 ? 1 : 0)}${THIN}M`;
}

export function cost(dollars) {
  if (!dollars) return "";
  if (dollars < 0.01) return `$${dollars.toPrecision(2)}`;
  return `$${dollars.toFixed(dollars < 1 ? 3 : 2)}`;
}

export function bytes(number) {
  if (number < 1000) return `${number}${THIN}B`;
  if (number < 999_500) return `${(number / 1e3).toFixed(number < 9_950 ? 1 : 0)}${THIN}kB`;
  if (number < 999_500_000) return `${(number / 1e6).toFixed(1)}${THIN}MB`;
  return `${(number / 1e9).toFixed(2)}${THIN}GB`;
}

export function percent(part, whole) {
  if (!whole) return "";
  const share = (100 * part) / whole;
  return `${share < 10 && share > 0 ? share.toFixed(1) : Math.round(share)}${THIN}%`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function moment(milliseconds, now = Date.now()) {
  if (!milliseconds) return "";
  const time = CLOCK.format(milliseconds);
  return Math.abs(now - milliseconds) < 43_200_000 ? time : `${DAY.format(milliseconds)}, ${time.slice(0, 5)}`;
}

export function instant(milliseconds) {
  return milliseconds ? `${WHOLE.format(milliseconds)}.${String(Math.floor(milliseconds % 1000)).padStart(3, "0")}` : "";
}

// Nanoseconds since the epoch do not fit a JavaScript number exactly; to the microsecond they do.
export function startOf(run) {
  return run.start_ns / 1e6;
}

// Two figures, where many stand beside each other.
export function brief(seconds) {
  if (seconds >= 0.995 && seconds < 9.95) return `${seconds.toFixed(1)}${THIN}s`;
  if (seconds >= 9.95 && seconds < 59.5) return `${Math.round(seconds)}${THIN}s`;
  if (seconds >= 59.5) return ticking(seconds);
  return seconds >= 0.000_999_5 && seconds < 0.995 ? `${Math.round(seconds * 1e3)}${THIN}ms` : duration(seconds);
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// One value under one key is shown without them: what is left of the JSON after it was cut is no JSON.
export function preview(text) {
  const found = /^\s*\{\s*"[^"]{1,40}"\s*:\s*"((?:[^"\\]|\\.)*)("\s*\}\s*)?$/s.exec(text);
  return found ? found[1].replace(/\\n/g, " ").replace(/\\(["\\/])/g, "$1") : text;
}

const MARKS = { ok: "●", error: "✕", open: "◌", cancelled: "⊘", timeout: "✕", abandoned: "⊘", incomplete: "⊘", interrupted: "⊘", lost: "?" };
const WORDS = { lost: "lost", open: "open", incomplete: "interrupted" };

export const FAILED = new Set(["error", "timeout"]);

export function mark(ending) {
  return MARKS[ending] ?? "●";
}

export function ending(word) {
  return WORDS[word] ?? word ?? "";
}

// The class that colors a mark: what failed, what goes on, what did not come to an end by itself, and all the rest.
export function tone(ending) {
  if (FAILED.has(ending)) return "bad";
  if (ending === "open") return "open";
  return ending === "ok" || !ending ? "good" : "cut";
}
