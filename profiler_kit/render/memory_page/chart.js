// ---- chart.js: the visible part of a layer, stacked pixel by pixel, and what lies under a point ----

import { sizeStep } from "./format.js";
import { context, mixed, pixel, theme } from "./theme.js";
import { upperBound } from "./device.js";
import { sample } from "./axis.js";
import { marks, reservedLine, sizeAxis, timeAxis } from "./marks.js";
import { drawFragmentation } from "./lines.js";

export const AXIS_HEIGHT = 22, LEFT = 76, RIGHT = 16;

export class Chart {
  constructor(canvas) { this.canvas = canvas; }

  // view: {device, layers, axis, mode, colouring, match: one byte per item or null, momentTime, height, kind}
  draw(view) {
    const { draw, width, ratio } = context(this.canvas, view.height + AXIS_HEIGHT);
    this.view = view;
    this.plot = Math.max(10, width - LEFT - RIGHT);
    this.columns = Math.max(10, Math.round(this.plot * ratio));
    this.rows = Math.round(view.height * ratio);
    const lines = view.kind === "lines";
    this.states = sample(view.axis, lines ? view.device.heap.active : view.layers.totals, view.axis.from, view.axis.to, this.columns);
    this.scale(view);
    const c = theme();
    draw.clearRect(0, 0, width, view.height + AXIS_HEIGHT);
    if (lines) { this.picks = null; drawFragmentation(this, draw, c); } else draw.putImageData(this.stack(view, c), Math.round(LEFT * ratio), 0);
    sizeAxis(this, draw, c);
    timeAxis(this, draw, c);
    marks(this, draw, c);
    if (!lines) reservedLine(this, draw, c);
  }

  x(value) { return LEFT + ((value - this.view.axis.from) / (this.view.axis.to - this.view.axis.from)) * this.plot; }
  valueAt(x) { return this.view.axis.from + ((x - LEFT) / this.plot) * (this.view.axis.to - this.view.axis.from); }
  y(size) { return this.view.height * (1 - size / this.top); }
  shows(x) { return x >= LEFT - 1 && x <= LEFT + this.plot + 1; }

  scale({ device, layers, kind }) {
    const { states } = this, first = states[0], last = states[states.length - 1];
    let highest = 0, reserved = 0;
    if (kind !== "lines") for (const state of states) highest = Math.max(highest, layers.totals[state]);
    if (device.reserves) {
      reserved = Math.max(device.reservedAt(first), device.reservedAt(last));
      for (let i = upperBound(device.reservedFrom, first); i < device.reservedFrom.length && device.reservedFrom[i] < last; i++) reserved = Math.max(reserved, device.reservedBytes[i]);
    }
    this.reservedFits = reserved <= 3 * highest || highest === 0;
    this.top = Math.max(1024, (this.reservedFits ? Math.max(highest, reserved) : highest * 1.15) * 1.06);
    this.step = sizeStep(this.top, this.view.height > 250 ? 7 : 4);
  }

  // Items stacked in the order they were made, pixel by pixel; `picks` remembers whose pixel it is.
  stack({ layers, mode, colouring, match }, c) {
    const { columns, rows, states } = this;
    const image = new ImageData(columns, rows), words = new Uint32Array(image.data.buffer);
    const picks = (this.picks = new Int32Array(columns * rows).fill(-1));
    const paints = colouring.list.map((hex) => [0, 0.82, 0.28, 0.9].map((amount) => pixel(mixed(hex, c.surface, amount))));
    const live = [], paintOf = new Uint16Array(layers.count);
    const factor = rows / this.top, { born, gone, size } = layers;
    let next = 0;
    for (let p = 0; p < columns; p++) {
      const state = states[p];
      if (p && state === states[p - 1]) {
        for (let at = p; at < words.length; at += columns) { words[at] = words[at - 1]; picks[at] = picks[at - 1]; }
        continue;
      }
      let kept = 0;
      for (const i of live) if (gone[i] > state) live[kept++] = i;
      live.length = kept;
      for (; next < layers.count && born[next] <= state; next++) {
        if (gone[next] > state) { live.push(next); paintOf[next] = colouring.number(layers.keyOf(mode, next)); }
      }
      let below = 0, y0 = 0;
      for (const i of live) {
        below += size[i];
        const y1 = Math.min(rows, Math.round(below * factor));
        if (y1 <= y0) continue;
        const faded = match !== null && !match[layers.id(i)] ? 1 : 0, paint = paints[paintOf[i]], gap = y1 - y0 > 3;
        for (let y = y0; y < y1; y++) {
          const at = (rows - 1 - y) * columns + p;
          words[at] = gap && y === y1 - 1 ? paint[faded + 2] : paint[faded];
          picks[at] = i;
        }
        y0 = y1;
      }
    }
    return image;
  }

  // The item under a point of the canvas (a number of its layer), or -1.
  pick(x, y) {
    if (!this.picks) return -1;
    const row = Math.floor(y * (this.rows / this.view.height)), at = Math.floor((x - LEFT) * (this.columns / this.plot));
    if (at < 0 || at >= this.columns || row < 0 || row >= this.rows) return -1;
    return this.picks[row * this.columns + at];
  }
  stateUnder(x) {
    const at = Math.floor((x - LEFT) * (this.columns / this.plot));
    return this.states[Math.max(0, Math.min(this.columns - 1, at))];
  }
  oomUnder(x) {
    const { device, axis } = this.view;
    return device.ooms.find((oom) => Math.abs(this.x(axis.kind === "time" ? oom.time_us : oom.state) - x) < 5);
  }
}
