// ---- paint.js: the visible part of a device -> pixels ----

const CHART_HEIGHT = 400, AXIS_HEIGHT = 22, MINIMAP_HEIGHT = 46, BAND_HEIGHT = 18, MOST_BANDS = 5, LEFT = 76, RIGHT = 16;
// Seven hues that stay apart for colour-blind eyes, in this order; red is kept for out-of-memory.
const THEMES = {
  light: {
    hues: ["#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#e87ba4", "#008300", "#4a3aa7"],
    rest: ["#c3c2bb", "#b4b3ab", "#d0cfc8"], surface: "#fcfcfb", ink: "#1a1a19", soft: "#5f5e58", line: "#e6e4df",
    danger: "#c2231f", reserved: "#1a1a19", window: "#2a78d622", band: "#e9e7e1", total: "#8f8e86",
  },
  dark: {
    hues: ["#3987e5", "#d95926", "#199e70", "#c98500", "#d55181", "#35a335", "#9085e9"],
    rest: ["#55544f", "#63625c", "#484743"], surface: "#1a1a19", ink: "#f3f2ef", soft: "#a9a8a1", line: "#31302e",
    danger: "#ff7b74", reserved: "#f3f2ef", window: "#5a9cec33", band: "#31302d", total: "#8f8e86",
  },
};
const darkQuery = matchMedia("(prefers-color-scheme: dark)");
function theme() { return darkQuery.matches ? THEMES.dark : THEMES.light; }

function pixel(hex, towards, amount = 0) { // "#rrggbb", mixed with another colour -> ABGR word
  const part = (text, at) => parseInt(text.slice(at, at + 2), 16);
  const mix = (at) => Math.round(part(hex, at) * (1 - amount) + part(towards || hex, at) * amount);
  return ((255 << 24) | (mix(5) << 16) | (mix(3) << 8) | mix(1)) >>> 0;
}

function context(canvas, height) { // sized to the device's pixels, drawn in CSS pixels
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const draw = canvas.getContext("2d");
  draw.setTransform(ratio, 0, 0, ratio, 0, 0);
  draw.font = "12px system-ui, sans-serif";
  draw.textBaseline = "middle";
  return { draw, width, ratio };
}

// The x axis: time in µs or states in order. `from` and `to` are the visible part.
class Axis {
  constructor(device, kind) {
    this.device = device;
    this.kind = kind;
    this.end = kind === "time" ? device.span_us : device.states;
    this.from = 0;
    this.to = this.end;
    this.least = Math.min(this.end, kind === "time" ? 5 : 8);
  }
  stateAt(x) { return this.kind === "time" ? this.device.stateAtTime(x) : Math.max(0, Math.min(this.device.states - 1, Math.floor(x))); }
  ofState(state) { return this.kind === "time" ? this.device.time[state] : state; }
  endOfState(state) { return this.kind === "time" ? this.device.endOf(state) : state + 1; }
  ofTime(time) { return this.kind === "time" ? time : upperBound(this.device.time, time - 0.5); }
  show(from, to) {
    const width = Math.min(this.end, Math.max(this.least, to - from));
    this.from = Math.max(0, Math.min(this.end - width, (from + to - width) / 2));
    this.to = this.from + width;
  }
}

// For each pixel the visible state with the highest total, so that no peak is lost; and that total.
function sample(device, axis, from, to, pixels) {
  const states = new Uint32Array(pixels), each = (to - from) / pixels;
  let state = axis.stateAt(from);
  for (let p = 0; p < pixels; p++) {
    const until = from + each * (p + 1);
    let best = state;
    while (state + 1 < device.states && axis.ofState(state + 1) < until) {
      state++;
      if (device.allocated[state] > device.allocated[best]) best = state;
    }
    states[p] = best;
  }
  return states;
}

class Chart {
  constructor(canvas, bands, minimap) {
    Object.assign(this, { canvas, bands, minimap });
  }

  // view: {device, axis, mode, colours: key -> index or undefined, match: one byte per allocation or null, momentTime}
  draw(view) {
    const { draw, width, ratio } = context(this.canvas, CHART_HEIGHT + AXIS_HEIGHT);
    const { device, axis } = view;
    this.view = view;
    this.plot = Math.max(10, width - LEFT - RIGHT);
    this.columns = Math.max(10, Math.round(this.plot * ratio));
    this.rows = Math.round(CHART_HEIGHT * ratio);
    this.states = sample(device, axis, axis.from, axis.to, this.columns);
    this.top = this.scale(device);
    const c = theme();
    draw.clearRect(0, 0, width, CHART_HEIGHT + AXIS_HEIGHT);
    this.step = sizeStep(this.top, 7);
    draw.putImageData(this.stack(view, c), Math.round(LEFT * ratio), 0);
    this.gridLabels(draw, c);
    this.reservedLine(draw, device, c);
    this.timeAxis(draw, axis, c);
    this.marks(draw, view, c);
    this.drawBands(view, c);
    this.drawMinimap(view, c);
  }

  x(value) { return LEFT + ((value - this.view.axis.from) / (this.view.axis.to - this.view.axis.from)) * this.plot; }
  valueAt(x) { return this.view.axis.from + ((x - LEFT) / this.plot) * (this.view.axis.to - this.view.axis.from); }
  y(size) { return CHART_HEIGHT * (1 - size / this.top); }

  scale(device) {
    let highest = 0, reserved = 0;
    for (const state of this.states) highest = Math.max(highest, device.allocated[state]);
    reserved = Math.max(device.reservedAt(this.states[0]), device.reservedAt(this.states[this.states.length - 1]));
    for (let i = 0; i < device.reservedFrom.length; i++) {
      const state = device.reservedFrom[i];
      if (state > this.states[0] && state < this.states[this.states.length - 1]) reserved = Math.max(reserved, device.reservedBytes[i]);
    }
    if (!device.reserves) reserved = 0;
    this.reservedFits = reserved <= 3 * highest || highest === 0;
    return Math.max(1024, (this.reservedFits ? Math.max(highest, reserved) : highest * 1.15) * 1.06);
  }

  gridLabels(draw, c) {
    draw.textAlign = "right";
    for (let size = 0; size <= this.top; size += this.step) {
      const y = Math.round(this.y(size)) - 0.5;
      draw.fillStyle = c.soft;
      draw.fillText(size ? tick(size, this.step, SIZES, this.top) : "0", LEFT - 8, Math.max(7, Math.min(CHART_HEIGHT - 6, y)));
      draw.strokeStyle = c.ink;
      draw.globalAlpha = size ? 0.1 : 0.6;
      line(draw, LEFT, y, LEFT + this.plot, y);
      draw.globalAlpha = 1;
    }
  }

  // Allocations stacked in the order they were made, pixel by pixel; `picks` remembers whose pixel it is.
  stack({ device, mode, colours, match }, c) {
    const { columns, rows, states } = this;
    const image = new ImageData(columns, rows), words = new Uint32Array(image.data.buffer);
    const picks = (this.picks = new Int32Array(columns * rows).fill(-1));
    const paints = c.hues.concat(c.rest).map((hex) => [pixel(hex), pixel(hex, c.surface, 0.82), pixel(hex, c.surface, 0.28), pixel(hex, c.surface, 0.9)]);
    const colour = (i) => {
      const key = device.keyOf(mode, i), index = colours.get(key);
      return index === undefined ? c.hues.length + (Math.abs(key) % c.rest.length) : index;
    };
    const live = [], paintOf = new Uint8Array(device.count);
    const factor = rows / this.top, { born, gone, size } = device;
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
      for (; next < device.count && born[next] <= state; next++) {
        if (gone[next] > state) { live.push(next); paintOf[next] = colour(next); }
      }
      let below = 0, y0 = 0;
      for (const i of live) {
        below += size[i];
        const y1 = Math.min(rows, Math.round(below * factor));
        if (y1 <= y0) continue;
        const faded = match !== null && !match[i] ? 1 : 0, paint = paints[paintOf[i]], gap = y1 - y0 > 3;
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

  // The allocation under a point of the canvas, or -1.
  pick(x, y) {
    const ratio = this.columns / this.plot, column = Math.floor((x - LEFT) * ratio), row = Math.floor(y * (this.rows / CHART_HEIGHT));
    if (column < 0 || column >= this.columns || row < 0 || row >= this.rows) return -1;
    return this.picks[row * this.columns + column];
  }
  stateUnder(x) {
    const column = Math.floor((x - LEFT) * (this.columns / this.plot));
    return this.states[Math.max(0, Math.min(this.columns - 1, column))];
  }

  reservedLine(draw, device, c) {
    if (!device.reserves) return;
    const right = device.reservedAt(this.view.axis.stateAt(this.view.axis.to));
    draw.textAlign = "right";
    if (!this.reservedFits) {
      draw.fillStyle = c.soft;
      draw.fillText(`reserved ${bytes(right)}, above this view ↑`, LEFT + this.plot - 4, 9);
      return;
    }
    draw.strokeStyle = c.reserved;
    draw.lineWidth = 1.5;
    draw.setLineDash([5, 3]);
    draw.beginPath();
    const each = this.plot / this.columns;
    let y = this.y(device.reservedAt(this.states[0]));
    draw.moveTo(LEFT, y);
    for (let p = 1; p < this.columns; p++) {
      if (this.states[p] === this.states[p - 1]) continue;
      const now = this.y(device.reservedAt(this.states[p]));
      if (now !== y) { draw.lineTo(LEFT + p * each, y); draw.lineTo(LEFT + p * each, now); y = now; }
    }
    draw.lineTo(LEFT + this.plot, y);
    draw.stroke();
    draw.setLineDash([]);
    draw.lineWidth = 1;
    label(draw, `reserved ${bytes(right)}`, LEFT + this.plot - 4, y < 20 ? y + 11 : y - 10, c);
  }

  timeAxis(draw, axis, c) {
    draw.textAlign = "center";
    const span = axis.to - axis.from, step = Math.max(1, niceStep(span, Math.max(2, this.plot / 120)));
    for (let k = Math.ceil(axis.from / step); k * step <= axis.to; k++) {
      const value = k * step, x = this.x(value);
      const text = axis.kind === "time" ? tick(value, step, TIMES, Math.max(axis.to, 1)) : grouped(value);
      draw.fillStyle = c.soft;
      draw.fillText(text, Math.max(LEFT + 14, Math.min(LEFT + this.plot - 24, x)), CHART_HEIGHT + 13);
      draw.strokeStyle = c.soft;
      line(draw, x, CHART_HEIGHT, x, CHART_HEIGHT + 4);
    }
  }

  marks(draw, { device, axis, momentTime }, c) {
    const peakX = this.x(axis.ofState(device.peak_state));
    if (within(peakX, this) && device.peakBytes > 0) {
      const y = this.y(device.peakBytes);
      draw.fillStyle = draw.strokeStyle = c.ink;
      draw.beginPath(); draw.arc(peakX, y, 4, 0, 7); draw.fill();
      draw.lineWidth = 2; draw.strokeStyle = c.surface; draw.stroke(); draw.lineWidth = 1;
      const left = peakX > LEFT + this.plot * 0.75;
      draw.textAlign = left ? "right" : "left";
      draw.font = "600 12px system-ui, sans-serif";
      label(draw, `peak ${bytes(device.peakBytes)}`, peakX + (left ? -10 : 10), Math.max(9, y - 9), c);
      draw.font = "12px system-ui, sans-serif";
    }
    device.ooms.forEach((oom, number) => {
      const x = this.x(axis.kind === "time" ? oom.time_us : oom.state);
      if (!within(x, this)) return;
      draw.strokeStyle = c.danger;
      draw.lineWidth = 2;
      line(draw, x, 0, x, CHART_HEIGHT);
      draw.lineWidth = 1;
      const left = x > LEFT + this.plot / 2;
      draw.textAlign = left ? "right" : "left";
      draw.font = "600 12px system-ui, sans-serif";
      label(draw, `out of memory: asked for ${bytes(oom.requested_bytes)}`, x + (left ? -7 : 7), CHART_HEIGHT - 14 - 18 * (number % 8), c, c.danger);
      draw.font = "12px system-ui, sans-serif";
    });
    if (momentTime !== null) {
      const x = this.x(axis.ofTime(momentTime));
      if (!within(x, this)) return;
      draw.strokeStyle = c.ink;
      draw.setLineDash([2, 3]);
      line(draw, x, 0, x, CHART_HEIGHT);
      draw.setLineDash([]);
    }
  }

  // Regions as bands above the chart, nested ones below their parents; narrow neighbours merge in one pixel.
  drawBands({ device, axis, mode, colours }, c) {
    const levels = Math.min(device.depth, MOST_BANDS), height = levels ? levels * BAND_HEIGHT + 4 : 0;
    const { draw } = context(this.bands, height);
    if (!levels) return;
    const reached = new Float64Array(levels + 1).fill(-1), { path, start, end } = device.spans;
    draw.textAlign = "left";
    for (let i = 0; i < path.length; i++) {
      const names = device.paths[path[i]], level = names.length;
      if (level > levels) continue;
      const x0 = Math.max(LEFT, this.x(axis.ofTime(start[i]))), x1 = Math.min(LEFT + this.plot, this.x(axis.ofTime(end[i])));
      if (x1 < LEFT || x0 > LEFT + this.plot || x1 <= reached[level]) continue;
      reached[level] = Math.max(x1, x0 + 1);
      const hue = mode === "region" ? colours.get(path[i] + 1) : undefined, top = (level - 1) * BAND_HEIGHT, wide = Math.max(1, x1 - x0 - 1);
      draw.fillStyle = hue === undefined ? c.band : c.hues[hue];
      draw.globalAlpha = hue === undefined ? 1 : 0.35;
      draw.fillRect(x0, top, wide, BAND_HEIGHT - 2);
      draw.globalAlpha = 1;
      if (wide > 24) {
        draw.fillStyle = c.ink;
        draw.fillText(fitted(draw, names[level - 1], wide - 10), x0 + 5, top + BAND_HEIGHT / 2 - 1);
      }
    }
  }

  // What region bands lie under a point, outermost first.
  bandsUnder(x) {
    const { device, axis } = this.view, value = this.valueAt(x), found = [];
    for (let i = 0; i < device.spans.path.length; i++) {
      if (axis.ofTime(device.spans.start[i]) <= value && value <= axis.ofTime(device.spans.end[i])) found.push(i);
    }
    return found.sort((a, b) => device.paths[device.spans.path[a]].length - device.paths[device.spans.path[b]].length);
  }

  drawMinimap({ device, axis }, c) {
    const { draw, width } = context(this.minimap, MINIMAP_HEIGHT);
    const plot = Math.round(this.plot), key = `${device.device} ${axis.kind} ${plot}`;
    if (this.wholeKey !== key) { this.whole = sample(device, axis, 0, axis.end, plot); this.wholeKey = key; }
    const top = Math.max(1, device.peakBytes), x = (value) => LEFT + (value / axis.end) * this.plot;
    draw.clearRect(0, 0, width, MINIMAP_HEIGHT);
    draw.fillStyle = c.total;
    for (let p = 0; p < plot; p++) {
      const tall = (device.allocated[this.whole[p]] / top) * (MINIMAP_HEIGHT - 4);
      draw.fillRect(LEFT + p, MINIMAP_HEIGHT - tall, 1, tall);
    }
    for (const oom of device.ooms) {
      draw.fillStyle = c.danger;
      draw.fillRect(x(axis.kind === "time" ? oom.time_us : oom.state) - 1, 0, 2, MINIMAP_HEIGHT);
    }
    draw.fillStyle = c.window;
    draw.strokeStyle = c.soft;
    const x0 = x(axis.from), wide = Math.max(3, x(axis.to) - x0);
    draw.fillRect(x0, 0, wide, MINIMAP_HEIGHT);
    draw.strokeRect(x0 + 0.5, 0.5, wide - 1, MINIMAP_HEIGHT - 1);
    draw.fillStyle = c.soft;
    draw.textAlign = "right";
    draw.fillText("all", LEFT - 8, MINIMAP_HEIGHT / 2);
  }
}

function within(x, chart) { return x >= LEFT - 1 && x <= LEFT + chart.plot + 1; }
function line(draw, x0, y0, x1, y1) { draw.beginPath(); draw.moveTo(x0, y0); draw.lineTo(x1, y1); draw.stroke(); }
function label(draw, text, x, y, c, colour) { // text that stays readable over the stack
  draw.lineJoin = "round";
  draw.lineWidth = 4;
  draw.strokeStyle = c.surface;
  draw.strokeText(text, x, y);
  draw.lineWidth = 1;
  draw.fillStyle = colour || c.ink;
  draw.fillText(text, x, y);
}
function fitted(draw, text, width) {
  if (draw.measureText(text).width <= width) return text;
  let length = Math.max(1, Math.floor((text.length * width) / draw.measureText(text).width));
  while (length > 1 && draw.measureText(text.slice(0, length) + "…").width > width) length--;
  return length > 1 ? text.slice(0, length) + "…" : "";
}
