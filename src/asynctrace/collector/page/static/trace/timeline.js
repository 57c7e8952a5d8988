// The scale above the bars, and the minimap: a canvas with every span of the trace, on which a piece of time is chosen.

import { colors } from "../base/colors.js";
import { duration } from "../base/format.js";

const STEPS = [1, 2, 5];

// From a minute on, time is not counted in tens.
const CLOCK_STEPS = [1, 2, 5, 10, 20, 30, 60, 120, 180, 360, 720, 1440].map((minutes) => minutes * 60e6);

function stepOf(rough) {
  const round = rough > 50e6 && CLOCK_STEPS.find((step) => step >= rough);
  if (round) return round;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1e-9)));
  return (STEPS.find((factor) => factor * power >= rough) ?? 10) * power;
}

// Round moments between two, about `wanted` of them.
export function ticks(from, to, wanted) {
  const step = stepOf((to - from) / Math.max(1, wanted));
  const found = [];
  for (let at = Math.ceil(from / step - 1e-9) * step; at <= to + step * 1e-6 && found.length < 40; at += step) found.push(at);
  return found;
}

export function tickText(microseconds, from, to) {
  const seconds = microseconds / 1e6;
  const span = (to - from) / 1e6;
  if (Math.abs(seconds) < 1e-9) return "0 s";
  if (span < 0.002) return `${+(seconds * 1e6).toFixed(1)} µs`;
  if (span < 2) return seconds < 10 ? `${+(seconds * 1e3).toFixed(2)} ms` : `${+seconds.toFixed(4)} s`;
  if (seconds < 60) return `${+seconds.toFixed(3)} s`;
  return duration(Math.round(seconds)).replace(/[.,]000/, "");
}

export class Minimap {
  constructor({ canvas, model, onChoose }) {
    Object.assign(this, { canvas, model, onChoose });
    this.view = [0, 1];
    this.anchor = null;
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", () => this.forget());
    canvas.addEventListener("dblclick", () => onChoose(null));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
    this.themes = new MutationObserver(() => this.draw());
    this.themes.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  close() {
    this.observer.disconnect();
    this.themes.disconnect();
  }

  setView(from, to) {
    this.view = [from, to];
    this.draw();
  }

  draw() {
    const { canvas, model } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const brush = canvas.getContext("2d");
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    brush.clearRect(0, 0, width, height);
    const [plain, accent, bad, veil] = colors("--bar", "--accent", "--bad", "--veil");
    this.drawDensity(brush, width, height, { plain, accent, bad });
    this.drawWindow(brush, width, height, { accent, veil });
    canvas.setAttribute("data-spans", model.count);
  }

  // For each pixel how many spans were at work, by the root of the number: one is seen beside a thousand. Errors below.
  drawDensity(brush, width, height, { plain, accent, bad }) {
    const { model } = this;
    const [begin, end] = model.bounds();
    const scale = width / Math.max(1, end - begin);
    const work = new Int32Array(Math.ceil(width) + 2);
    const models = new Int32Array(Math.ceil(width) + 2);
    const errors = new Uint8Array(Math.ceil(width) + 2);
    const clamp = (value) => Math.max(0, Math.min(Math.ceil(width), value));
    for (let span = 0; span < model.count; span++) {
      const from = clamp(Math.floor((model.start[span] - begin) * scale));
      const to = clamp(Math.floor((model.start[span] + model.length(span) - begin) * scale));
      if (model.childCount(span) === 0) {
        const into = model.typeOf(span) === "llm" ? models : work;
        into[from] += 1;
        into[to + 1] -= 1;
      }
      if (model.failed(span)) errors[clamp(Math.floor((model.start[span] + model.length(span) - begin) * scale))] = 1;
    }
    let most = 6; // a few spans at a time do not fill it
    const heights = [];
    for (let x = 0, one = 0, two = 0; x < width; x++) {
      one += work[x];
      two += models[x];
      heights.push([one, two]);
      most = Math.max(most, one + two);
    }
    const room = height - 7;
    const tall = (number) => (number ? Math.max(2, (Math.sqrt(number) / Math.sqrt(most)) * room) : 0);
    heights.forEach(([one, two], x) => {
      const whole = tall(one + two);
      if (!whole) return;
      const part = (whole * two) / (one + two);
      brush.fillStyle = plain;
      brush.fillRect(x, height - 4 - whole, 1, whole - part);
      brush.fillStyle = accent;
      brush.fillRect(x, height - 4 - part, 1, part);
    });
    brush.fillStyle = bad;
    errors.forEach((is, x) => is && brush.fillRect(x - 1, height - 3, 3, 3));
  }

  drawWindow(brush, width, height, { accent, veil }) {
    const [begin, end] = this.model.bounds();
    const at = (moment) => ((moment - begin) / Math.max(1, end - begin)) * width;
    const isWhole = this.view[0] <= begin && this.view[1] >= end;
    const from = this.anchor === null ? at(this.view[0]) : Math.min(this.anchor, this.pointer);
    const to = this.anchor === null ? at(this.view[1]) : Math.max(this.anchor, this.pointer);
    if (isWhole && this.anchor === null) return;
    brush.fillStyle = veil;
    brush.fillRect(0, 0, from, height);
    brush.fillRect(to, 0, width - to, height);
    brush.fillStyle = accent;
    brush.fillRect(from, 0, 1, height);
    brush.fillRect(to - 1, 0, 1, height);
  }

  place(event) {
    return Math.max(0, Math.min(this.canvas.clientWidth, event.clientX - this.canvas.getBoundingClientRect().left));
  }

  pressed(event) {
    if (event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.anchor = this.pointer = this.place(event);
  }

  moved(event) {
    if (this.anchor === null) return;
    this.pointer = this.place(event);
    this.draw();
  }

  released(event) {
    if (this.anchor === null) return;
    const [low, high] = [Math.min(this.anchor, this.place(event)), Math.max(this.anchor, this.place(event))];
    this.forget();
    const [begin, end] = this.model.bounds();
    const moment = (pixel) => begin + (pixel / this.canvas.clientWidth) * (end - begin);
    if (high - low >= 3) this.onChoose([moment(low), moment(high)]);
    else this.slide(moment(low));
  }

  // A click brings the window there.
  slide(moment) {
    const [begin, end] = this.model.bounds();
    const half = (this.view[1] - this.view[0]) / 2;
    if (half * 2 >= end - begin) return;
    const middle = Math.max(begin + half, Math.min(end - half, moment));
    this.onChoose([middle - half, middle + half]);
  }

  forget() {
    this.anchor = null;
    this.draw();
  }
}
