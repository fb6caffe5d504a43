// ---- marks.js: axes, lines and marks over a chart; the region bands above it and the minimap below ----

import { SIZES, TIMES, bytes, grouped, niceStep, tick } from "./format.js";
import { BOLD, FONT, context, fitted, label, line, mixed, themeName } from "./theme.js";
import { sample } from "./axis.js";
import { LEFT } from "./chart.js";

export const MINIMAP_HEIGHT = 46, BAND_HEIGHT = 18, MOST_BANDS = 5;

export function sizeAxis(chart, draw, c) {
  const { height } = chart.view;
  draw.textAlign = "right";
  for (let size = 0; size <= chart.top; size += chart.step) {
    const y = Math.round(chart.y(size)) - 0.5;
    draw.fillStyle = c.soft;
    draw.fillText(size ? tick(size, chart.step, SIZES, chart.top) : "0", LEFT - 8, Math.max(7, Math.min(height - 6, y)));
    draw.strokeStyle = c.ink;
    draw.globalAlpha = size ? 0.1 : 0.6;
    line(draw, LEFT, y, LEFT + chart.plot, y);
    draw.globalAlpha = 1;
  }
}

export function timeAxis(chart, draw, c) {
  const { axis, height } = chart.view, span = axis.to - axis.from, step = Math.max(1, niceStep(span, Math.max(2, chart.plot / 120)));
  draw.textAlign = "center";
  for (let k = Math.ceil(axis.from / step); k * step <= axis.to; k++) {
    const value = k * step, x = chart.x(value);
    const text = axis.kind === "time" ? tick(value, step, TIMES, Math.max(axis.to, 1)) : grouped(value);
    draw.fillStyle = c.soft;
    draw.fillText(text, Math.max(LEFT + 14, Math.min(LEFT + chart.plot - 24, x)), height + 13);
    draw.strokeStyle = c.soft;
    line(draw, x, height, x, height + 4);
  }
}

// A line of states over the chart, in steps.
export function stepPath(chart, draw, values) {
  const each = chart.plot / chart.columns;
  let y = chart.y(values(chart.states[0]));
  draw.beginPath();
  draw.moveTo(LEFT, y);
  for (let p = 1; p < chart.columns; p++) {
    if (chart.states[p] === chart.states[p - 1]) continue;
    const now = chart.y(values(chart.states[p]));
    if (now !== y) { draw.lineTo(LEFT + p * each, y); draw.lineTo(LEFT + p * each, now); y = now; }
  }
  draw.lineTo(LEFT + chart.plot, y);
}

export function reservedLine(chart, draw, c) {
  const { device, axis, kind } = chart.view;
  if (!device.reserves || kind === "segments") return;
  const right = device.reservedAt(axis.stateAt(axis.to));
  draw.textAlign = "right";
  if (!chart.reservedFits) {
    draw.fillStyle = c.soft;
    draw.fillText(`reserved ${bytes(right)}, above this view ↑`, LEFT + chart.plot - 4, 9);
    return;
  }
  draw.strokeStyle = c.ink;
  draw.lineWidth = 1.5;
  draw.setLineDash([5, 3]);
  stepPath(chart, draw, (state) => device.reservedAt(state));
  draw.stroke();
  draw.setLineDash([]);
  const peakX = chart.x(axis.ofState(device.peak_state)), crowded = chart.shows(peakX) && peakX > LEFT + chart.plot * 0.75;
  const y = chart.y(crowded ? device.reservedAt(chart.states[0]) : right), at = y < 20 ? y + 11 : y - 10;
  draw.textAlign = crowded ? "left" : "right"; // at the other end from the peak's label
  label(draw, crowded ? "reserved" : `reserved ${bytes(right)}`, crowded ? LEFT + 6 : LEFT + chart.plot - 4, at, c);
}

export function marks(chart, draw, c) {
  const { device, axis, momentTime, layers, kind, height } = chart.view;
  if (kind === "allocations" && layers.all) peakMark(chart, draw, c);
  device.ooms.forEach((oom, number) => {
    const x = chart.x(axis.kind === "time" ? oom.time_us : oom.state);
    if (!chart.shows(x)) return;
    draw.strokeStyle = c.danger;
    draw.lineWidth = 2;
    line(draw, x, 0, x, height);
    const left = x > LEFT + chart.plot / 2;
    draw.textAlign = left ? "right" : "left";
    draw.font = BOLD;
    label(draw, `out of memory: asked for ${bytes(oom.requested_bytes)}`, x + (left ? -7 : 7), height - 14 - 18 * (number % 8), c, c.danger);
    draw.font = FONT;
  });
  if (momentTime === null) return;
  const x = chart.x(axis.ofTime(momentTime));
  if (!chart.shows(x)) return;
  draw.strokeStyle = draw.fillStyle = c.ink;
  draw.lineWidth = 1;
  draw.setLineDash([2, 3]);
  line(draw, x, 0, x, height);
  draw.setLineDash([]);
  draw.beginPath();
  draw.moveTo(x - 5, height); draw.lineTo(x + 5, height); draw.lineTo(x, height - 7);
  draw.fill();
}

function peakMark(chart, draw, c) {
  const { device, axis } = chart.view, x = chart.x(axis.ofState(device.peak_state));
  if (!chart.shows(x) || !(device.peakBytes > 0)) return;
  const y = chart.y(device.peakBytes), left = x > LEFT + chart.plot * 0.75;
  draw.fillStyle = c.ink;
  draw.beginPath(); draw.arc(x, y, 4, 0, 7); draw.fill();
  draw.lineWidth = 2; draw.strokeStyle = c.surface; draw.stroke(); draw.lineWidth = 1;
  draw.textAlign = left ? "right" : "left";
  draw.font = BOLD;
  label(draw, `peak ${device.stats[0][3] && `${device.stats[0][3]} `}${bytes(device.peakBytes)}`, x + (left ? -10 : 10), Math.max(9, y - 9), c);
  draw.font = FONT;
}

// Regions as bands above the chart, nested ones below their parents; narrow neighbours merge in one pixel.
export class Bands {
  constructor(canvas, chart) { Object.assign(this, { canvas, chart }); }

  draw({ device, axis }, c) {
    const levels = Math.min(device.depth, MOST_BANDS), height = levels ? levels * BAND_HEIGHT + 4 : 0;
    const { draw } = context(this.canvas, height), { chart } = this;
    if (!levels) return;
    const reached = new Float64Array(levels + 1).fill(-1), { path, start, end } = device.spans, dark = themeName() === "dark";
    draw.textAlign = "left";
    for (let i = 0; i < path.length; i++) {
      const names = device.paths[path[i]], level = names.length;
      if (level > levels) continue;
      const x0 = Math.max(LEFT, chart.x(axis.ofTime(start[i]))), x1 = Math.min(LEFT + chart.plot, chart.x(axis.ofTime(end[i])));
      if (x1 < LEFT || x0 > LEFT + chart.plot || x1 <= reached[level]) continue;
      reached[level] = Math.max(x1, x0 + 1);
      const top = (level - 1) * BAND_HEIGHT, wide = Math.max(1, x1 - x0 - 1);
      draw.fillStyle = mixed(device.colours[path[i]], c.surface, dark ? 0.55 : 0.68);
      draw.fillRect(x0, top, wide, BAND_HEIGHT - 2);
      draw.fillStyle = device.colours[path[i]];
      if (wide > 3) draw.fillRect(x0, top, 3, BAND_HEIGHT - 2);
      if (wide <= 24) continue;
      draw.fillStyle = c.ink;
      draw.fillText(fitted(draw, names[level - 1], wide - 12), x0 + 7, top + BAND_HEIGHT / 2 - 1);
    }
  }
  // What region bands lie under a point, outermost first.
  under(x) {
    const { device, axis } = this.chart.view, value = this.chart.valueAt(x), found = [];
    for (let i = 0; i < device.spans.path.length; i++) {
      if (axis.ofTime(device.spans.start[i]) <= value && value <= axis.ofTime(device.spans.end[i])) found.push(i);
    }
    return found.sort((a, b) => device.paths[device.spans.path[a]].length - device.paths[device.spans.path[b]].length);
  }
}

export class Minimap {
  constructor(canvas, chart) { Object.assign(this, { canvas, chart }); }

  draw({ device, axis, layers, momentTime }, c) {
    const { draw, width } = context(this.canvas, MINIMAP_HEIGHT), plot = Math.round(this.chart.plot);
    if (this.layers !== layers || this.kind !== axis.kind || this.plot !== plot) {
      Object.assign(this, { layers, kind: axis.kind, plot, whole: sample(axis, layers.totals, 0, axis.end, plot) });
    }
    const top = Math.max(1, layers.top), x = (value) => LEFT + (value / axis.end) * this.chart.plot;
    draw.clearRect(0, 0, width, MINIMAP_HEIGHT);
    draw.fillStyle = c.total;
    for (let p = 0; p < plot; p++) {
      const tall = (layers.totals[this.whole[p]] / top) * (MINIMAP_HEIGHT - 4);
      draw.fillRect(LEFT + p, MINIMAP_HEIGHT - tall, 1, tall);
    }
    draw.fillStyle = c.danger;
    for (const oom of device.ooms) draw.fillRect(x(axis.kind === "time" ? oom.time_us : oom.state) - 1, 0, 2, MINIMAP_HEIGHT);
    draw.fillStyle = c.ink;
    if (momentTime !== null) draw.fillRect(x(axis.ofTime(momentTime)) - 0.5, 0, 1, MINIMAP_HEIGHT);
    const x0 = x(axis.from), wide = Math.max(3, x(axis.to) - x0);
    draw.fillStyle = c.shade;
    draw.fillRect(LEFT, 0, x0 - LEFT, MINIMAP_HEIGHT);
    draw.fillRect(x0 + wide, 0, LEFT + this.chart.plot - x0 - wide, MINIMAP_HEIGHT);
    draw.strokeStyle = c.soft;
    draw.strokeRect(x0 + 0.5, 0.5, wide - 1, MINIMAP_HEIGHT - 1);
    draw.fillStyle = c.soft;
    draw.textAlign = "right";
    draw.fillText("all", LEFT - 8, MINIMAP_HEIGHT / 2);
  }
}
