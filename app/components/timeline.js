// Canvas timeline: a description (tracks, labels, colours) once, then binary tiles for the view (see views/tiles.py).
// Wheel zooms, drag pans, shift+drag or a drag on the axis selects, WASD and arrows move, double click fits.

const AXIS = 26, GAP = 7, PAD = 2, MIN_VIEW = 200; // px, px, px, ns
const MARGIN = 0.35; // a tile reaches this share of the view beyond both edges, so a pan has something to show

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector('.tl');
  if (!root.timeline) root.timeline = new Timeline(root);
  root.timeline.update(data, setStateValue);
  return () => { root.timeline?.destroy(); root.timeline = null; };
}

class Timeline {
  constructor(root) {
    this.root = root;
    this.canvas = root.querySelector('canvas');
    this.context = this.canvas.getContext('2d');
    this.tip = root.querySelector('.tip');
    this.shown = root.querySelector('.shown');
    this.problem = root.querySelector('.problem');
    this.tile = this.meta = this.view = this.range = this.hover = this.drag = this.url = null;
    this.number = 0; // of the selection; an answer of the server to an older one is out of date
    this.pointer = { x: 0, y: 0 };
    this.aborter = null;
    this.listen();
  }

  async update(data, setStateValue) {
    this.setState = setStateValue;
    if (data.tiles !== this.url || data.number >= this.number) {
      this.range = data.range;
      this.number = data.number;
    }
    const focus = data.focus && String(data.focus);
    if (data.tiles !== this.url) {
      this.url = data.tiles;
      this.focus = null;
      this.meta = this.tile = this.view = null;
      const meta = await this.get(data.meta, 'json');
      if (!meta || this.url !== data.tiles) return;
      this.meta = meta;
      this.layout();
      this.view = { t0: meta.start, t1: meta.end };
      this.load();
    }
    if (focus && focus !== this.focus && this.meta) {
      const [t0, t1] = data.focus, room = Math.max((t1 - t0) * 0.04, 500);
      this.show(t0 - room, t1 + room);
    }
    this.focus = focus;
    this.draw();
  }

  async get(url, kind, signal) {
    try {
      const response = await fetch(url, { signal });
      if (!response.ok) throw new Error(await response.text());
      this.problem.textContent = '';
      return await response[kind]();
    } catch (error) {
      if (error.name !== 'AbortError') this.problem.textContent = `The timeline cannot be shown: ${error.message}`;
      return null;
    }
  }

  // ---- geometry

  layout() {
    const rows = this.meta.tracks.reduce((sum, track) => sum + track.rows, 0);
    const room = Math.max(6, Math.min(22, 560 / Math.max(1, rows)));
    this.rows = [];
    let y = AXIS + 4;
    for (const track of this.meta.tracks) {
      const height = track.kind === 'gpu' ? Math.max(room, Math.min(30, room * 1.3)) : room;
      track.y = y;
      for (let i = 0; i < track.rows; i++) {
        this.rows[track.first + i] = { y, height, track };
        y += height + PAD;
      }
      track.height = y - track.y - PAD;
      y += GAP;
    }
    this.height = y + 2;
  }

  get gutter() { return Math.min(210, Math.max(152, this.canvas.clientWidth * 0.13)); }
  get plot() { return Math.max(1, this.canvas.clientWidth - this.gutter); }
  x(t) { return this.gutter + (t - this.view.t0) / (this.view.t1 - this.view.t0) * this.plot; }
  time(x) { return this.view.t0 + (x - this.gutter) / this.plot * (this.view.t1 - this.view.t0); }

  show(t0, t1) {
    const { start, end } = this.meta, full = end - start, pad = full * 0.02;
    let width = Math.min(Math.max(t1 - t0, MIN_VIEW), full + 2 * pad);
    t0 = Math.min(Math.max(t0 + ((t1 - t0) - width) / 2, start - pad), end + pad - width);
    this.view = { t0, t1: t0 + width };
    this.draw();
    this.load();
  }

  zoom(factor, x) {
    const at = this.time(Math.max(x, this.gutter));
    this.show(at - (at - this.view.t0) * factor, at + (this.view.t1 - at) * factor);
  }

  pan(share) {
    const by = (this.view.t1 - this.view.t0) * share;
    this.show(this.view.t0 + by, this.view.t1 + by);
  }

  // ---- tiles

  load() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fetchTile(), this.tile ? 35 : 0);
  }

  async fetchTile() {
    const { t0, t1 } = this.view, more = (t1 - t0) * MARGIN;
    const a = Math.floor(t0 - more), b = Math.ceil(t1 + more), px = Math.round(this.plot * (1 + 2 * MARGIN));
    this.aborter?.abort();
    this.aborter = new AbortController();
    const tile = await this.ask(a, b, px, this.aborter.signal);
    if (!tile) return;
    this.tile = tile;
    this.canvas.dataset.tileBytes = tile.bytes;
    this.draw();
  }

  async ask(t0, t1, px, signal) {
    const buffer = await this.get(`${this.url}&t0=${t0}&t1=${t1}&px=${px}`, 'arrayBuffer', signal);
    if (!buffer) return null;
    const size = new DataView(buffer).getUint32(0, true);
    const tile = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    const types = { '<f8': Float64Array, '<f4': Float32Array, '<u4': Uint32Array, '<u2': Uint16Array, '|u1': Uint8Array };
    for (const row of tile.rows) {
      for (const key of ['start', 'dur', 'code', 'delay', 'busy', 'count']) {
        if (row[key]) row[key] = new types[row[key][2]](buffer, 4 + size + row[key][0], row[key][1]);
      }
    }
    return { ...tile, bytes: buffer.byteLength };
  }

  // ---- drawing

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }

  theme() {
    const style = getComputedStyle(this.root), get = name => style.getPropertyValue(name).trim();
    const back = get('--st-background-color') || '#fff';
    return { text: get('--st-text-color') || '#333', back, accent: get('--st-primary-color') || '#06c',
      font: get('--st-font') || 'sans-serif', dark: luminance(back) < 0.4 };
  }

  paint() {
    if (!this.meta || !this.view) return;
    const c = this.context, width = this.canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    if (!width) return;
    const w = Math.round(width * ratio), h = Math.round(this.height * ratio);
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.canvas.style.height = `${this.height}px`;
    }
    const theme = this.look = this.theme();
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, this.height);
    c.textBaseline = 'middle';
    this.paintTracks(c, theme, width);
    this.paintAxis(c, theme, width);
    c.save();
    c.beginPath();
    c.rect(this.gutter, AXIS, this.plot, this.height - AXIS);
    c.clip();
    for (const row of this.tile?.rows ?? []) row.start ? this.paintSpans(c, row, theme) : this.paintBins(c, row, theme);
    this.paintRange(c, theme);
    c.restore();
    this.shown.textContent = `${duration(this.view.t1 - this.view.t0)} in view`;
    Object.assign(this.canvas.dataset, { t0: this.view.t0, t1: this.view.t1, rows: this.tile?.rows.length ?? 0,
      range: this.range ? this.range.join() : '' });
  }

  paintTracks(c, theme, width) {
    for (const track of this.meta.tracks) {
      c.fillStyle = theme.text;
      c.globalAlpha = 0.045;
      c.fillRect(this.gutter, track.y, width - this.gutter, track.height);
      c.globalAlpha = track.kind === 'gpu' ? 1 : 0.75;
      c.font = `${track.kind === 'gpu' ? 600 : 400} 12px ${theme.font}`;
      c.textAlign = 'right';
      c.fillText(fit(c, track.label, this.gutter - 14), this.gutter - 8, track.y + this.rows[track.first].height / 2);
      if (track.kind === 'gpu' && track.rows > 1) { // a further row holds what ran while the one above was busy
        c.globalAlpha = 0.6;
        c.font = `400 11px ${theme.font}`;
        const second = this.rows[track.first + 1];
        c.fillText(fit(c, 'overlapping', this.gutter - 14), this.gutter - 8, second.y + second.height / 2);
      }
      c.globalAlpha = 1;
    }
    c.textAlign = 'left';
  }

  paintAxis(c, theme, width) {
    const span = this.view.t1 - this.view.t0, step = nice(span / Math.max(2, this.plot / 120));
    const from = this.meta.start, first = Math.ceil((this.view.t0 - from) / step) * step;
    c.font = `11px ${theme.font}`;
    c.fillStyle = theme.text;
    const unit = unitOf(Math.max(step * 5, Math.abs(this.view.t1 - from) / 1000));
    for (let t = first; t <= this.view.t1 - from; t += step) {
      const x = Math.round(this.x(t + from));
      c.globalAlpha = 0.10;
      c.fillRect(x, AXIS - 5, 1, this.height);
      c.globalAlpha = 0.75;
      const text = tick(t, step, unit);
      if (x + c.measureText(text).width + 4 < width) c.fillText(text, x + 4, AXIS / 2 - 1);
    }
    c.globalAlpha = 0.35;
    c.fillRect(this.gutter, AXIS - 1, this.plot, 1);
    c.globalAlpha = 1;
  }

  paintSpans(c, row, theme) {
    const place = this.rows[row.row], { y, height } = place, edge = this.gutter + this.plot;
    const t0 = this.tile.t0, text = height >= 13 && place.track.kind;
    c.font = `11px ${theme.font}`;
    for (let i = 0; i < row.start.length; i++) {
      let a = this.x(t0 + row.start[i]), b = this.x(t0 + row.start[i] + row.dur[i]);
      if (b < this.gutter || a > edge) continue;
      a = Math.max(a, this.gutter - 2);
      b = Math.min(b, edge + 2);
      const w = Math.max(0.7, b - a - (b - a > 3 ? 0.6 : 0));
      c.fillStyle = this.colour(row.code[i], theme);
      c.fillRect(a, y, w, height);
      if (text && w > 34) {
        c.fillStyle = ink(c.fillStyle);
        c.fillText(fit(c, this.meta.labels[row.code[i]][3], w - 8), a + 4, y + height / 2 + 0.5);
      }
      if (this.hover && this.hover.row === row.row && this.hover.start === t0 + row.start[i]) {
        c.strokeStyle = theme.text;
        c.lineWidth = 1.5;
        c.strokeRect(a + 0.5, y + 0.5, Math.max(1, w - 1), height - 1);
      }
    }
  }

  paintBins(c, row, theme) {
    const { y, height, track } = this.rows[row.row], n = row.busy.length, dt = (this.tile.t1 - this.tile.t0) / n;
    for (let i = 0; i < n; i++) {
      if (!row.busy[i]) continue;
      const a = this.x(this.tile.t0 + i * dt), b = this.x(this.tile.t0 + (i + 1) * dt);
      if (b < this.gutter || a > this.gutter + this.plot) continue;
      const tall = track.kind.endsWith('region') ? height : Math.max(1.5, height * row.busy[i] / 255);
      c.fillStyle = this.colour(row.code[i], theme);
      c.fillRect(a, y + height - tall, b - a + 0.4, tall);
    }
  }

  paintRange(c, theme) {
    const range = this.drag?.range ?? this.range;
    if (!range) return;
    const a = this.x(range[0]), b = this.x(range[1]);
    if (b < this.gutter || a > this.gutter + this.plot) return; // not in view, and neither is its label
    c.fillStyle = theme.accent;
    c.globalAlpha = 0.13;
    c.fillRect(a, AXIS, b - a, this.height);
    c.globalAlpha = 0.9;
    c.fillRect(a, AXIS, 1, this.height);
    c.fillRect(b, AXIS, 1, this.height);
    const text = duration(range[1] - range[0]);
    c.font = `600 11px ${theme.font}`;
    const w = c.measureText(text).width + 10;
    const x = Math.min(Math.max((a + b - w) / 2, this.gutter), this.gutter + this.plot - w);
    c.fillRect(x, AXIS, w, 16);
    c.globalAlpha = 1;
    c.fillStyle = ink(theme.accent);
    c.fillText(text, x + 5, AXIS + 8.5);
  }

  name(code) { return this.meta.labels[code][1]; }
  path(code) { return this.meta.paths[this.meta.labels[code][2]]; }

  // The region gives the hue; kernels of one region differ a little in lightness so that neighbours can be told apart.
  colour(code, theme) {
    const key = theme.dark ? 'dark' : 'light', cache = this.meta[key] ??= [];
    return cache[code] ??= shade(this.meta.colours[this.meta.labels[code][2]] || '#8A8F98',
      this.meta.labels[code][0].endsWith('region') ? 0 : (hash(this.name(code)) % 5 - 2) * 0.055);
  }

  // ---- pointing

  at(x, y) {
    if (!this.tile || x < this.gutter) return null;
    const number = this.rows.findIndex(place => place && y >= place.y && y < place.y + place.height);
    const row = this.tile.rows.find(r => r.row === number);
    if (!row) return null;
    const t = this.time(x) - this.tile.t0, slack = (this.view.t1 - this.view.t0) / this.plot * 1.5;
    if (!row.start) {
      const i = Math.floor(t / (this.tile.t1 - this.tile.t0) * row.busy.length);
      return row.busy[i] ? { row: number, bin: i, data: row } : null;
    }
    let low = 0, high = row.start.length;
    while (low < high) { const mid = (low + high) >> 1; row.start[mid] <= t ? low = mid + 1 : high = mid; }
    for (const i of [low - 1, low]) {
      if (i < 0 || i >= row.start.length || t < row.start[i] - slack || t > row.start[i] + row.dur[i] + slack) continue;
      return { row: number, span: i, data: row, start: this.tile.t0 + row.start[i], dur: row.dur[i] };
    }
    return null;
  }

  point(x, y) {
    const found = this.drag?.moved ? null : this.at(x, y);
    this.hover = found;
    if (!found) { this.tip.style.display = 'none'; this.draw(); return; }
    const { data } = found, code = data.code[found.span ?? found.bin], kind = this.meta.labels[code][0];
    const track = this.rows[found.row].track, path = this.path(code).join(' › ');
    const lines = [];
    if (found.span !== undefined) {
      lines.push([kind.startsWith('gpu') ? 'GPU time' : 'Host time', duration(found.dur)]);
      lines.push(['Starts at', duration(found.start - this.meta.start)]);
      if (kind === 'gpu' && !Number.isNaN(data.delay[found.span])) lines.push(['Launch delay', duration(data.delay[found.span])]);
    } else {
      lines.push(['Busy here', `${(data.busy[found.bin] / 2.55).toFixed(0)} %`]);
      const starting = data.count[found.bin];
      if (starting > 1) lines.push(['Starting here', `${starting.toLocaleString('en')}, the longest named above`]);
    }
    lines.push([kind === 'gpu' ? 'Stream' : 'Lane', track.label.replace(/^Stream /, '')]);
    if (path) lines.push(['Region', path]);
    this.tip.replaceChildren(bold(this.name(code)), list(lines));
    this.tip.style.display = 'block';
    const box = this.canvas.getBoundingClientRect(), top = this.canvas.offsetTop;
    const wide = this.tip.offsetWidth, tall = this.tip.offsetHeight;
    this.tip.style.left = `${x + 16 + wide > box.width ? Math.max(0, x - wide - 12) : x + 16}px`;
    this.tip.style.top = `${top + (y + 18 + tall > this.height ? Math.max(-top, y - tall - 10) : y + 18)}px`;
    this.draw();
  }

  select(range) {
    this.range = range && [Math.round(range[0]), Math.round(range[1])];
    this.number += 1;
    this.setState('selection', { range: this.range, number: this.number });
    this.draw();
  }

  listen() {
    const canvas = this.canvas, stop = new AbortController(), on = (target, type, run, more = {}) =>
      target.addEventListener(type, run, { signal: stop.signal, ...more });
    this.destroy = () => {
      stop.abort();
      this.resize.disconnect();
      this.aborter?.abort();
      clearTimeout(this.timer);
      cancelAnimationFrame(this.frame);
    };
    this.resize = new ResizeObserver(() => { if (this.view) { this.draw(); this.load(); } });
    this.resize.observe(canvas);
    on(canvas, 'wheel', event => {
      if (!this.view) return;
      event.preventDefault();
      const sideways = event.shiftKey ? event.deltaY : event.deltaX;
      if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) this.pan(sideways / this.plot);
      else this.zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY)) * 0.002), event.offsetX);
    }, { passive: false });
    on(canvas, 'pointerdown', event => {
      if (!this.view || event.button) return;
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      const select = event.shiftKey || event.offsetY < AXIS;
      this.drag = { x: event.offsetX, view: { ...this.view }, select, moved: false };
      canvas.classList.add(select ? 'selecting' : 'panning');
    });
    on(canvas, 'pointermove', event => {
      this.pointer = { x: event.offsetX, y: event.offsetY };
      if (!this.view) return;
      const drag = this.drag, by = drag ? event.offsetX - drag.x : 0;
      if (drag && (drag.moved || Math.abs(by) > 3)) {
        drag.moved = true;
        if (drag.select) {
          drag.range = [drag.x, event.offsetX].map(x => this.time(Math.max(x, this.gutter))).sort((a, b) => a - b);
          this.draw();
        } else {
          const shift = by / this.plot * (drag.view.t1 - drag.view.t0);
          this.show(drag.view.t0 - shift, drag.view.t1 - shift);
        }
      }
      this.point(event.offsetX, event.offsetY);
    });
    on(canvas, 'pointerup', event => {
      const drag = this.drag;
      this.drag = null;
      canvas.classList.remove('selecting', 'panning');
      if (!drag) return;
      if (drag.range) this.select(drag.range);
      else if (!drag.moved) this.click(event);
    });
    on(canvas, 'dblclick', event => {
      const found = this.at(event.offsetX, event.offsetY);
      if (found?.dur) this.show(found.start - found.dur * 0.05, found.start + found.dur * 1.05);
      else if (this.view) this.show(this.meta.start, this.meta.end);
    });
    on(canvas, 'pointerleave', () => { this.hover = null; this.tip.style.display = 'none'; this.draw(); });
    on(canvas, 'keydown', event => this.key(event));
    on(this.root.querySelector('.fit'), 'click', () => this.view && this.show(this.meta.start, this.meta.end));
    on(this.root.querySelector('.in'), 'click', () => this.view && this.zoom(0.5, this.gutter + this.plot / 2));
    on(this.root.querySelector('.out'), 'click', () => this.view && this.zoom(2, this.gutter + this.plot / 2));
  }

  click(event) {
    const found = this.at(event.offsetX, event.offsetY);
    if (found?.dur) this.select([found.start, found.start + found.dur]);
    else if (found) this.selectLongest(found);
    else if (this.range) this.select(null);
  }

  // The spans under the pointer are too short to draw: ask for those alone and take the longest, the one that is named.
  async selectLongest({ row, bin, data }) {
    const width = (this.tile.t1 - this.tile.t0) / data.busy.length, number = this.number;
    let a = Math.floor(this.tile.t0 + bin * width), b = Math.ceil(a + width + 1);
    for (let tries = 0; tries < 6; tries++) {
      const tile = await this.ask(a, b, 64);
      if (!tile || this.number !== number) return; // selected something else meanwhile
      const found = tile.rows.find(one => one.row === row);
      if (!found) return;
      if (found.start) {
        const at = found.dur.indexOf(Math.max(...found.dur));
        this.select([tile.t0 + found.start[at], tile.t0 + found.start[at] + found.dur[at]]);
        return;
      }
      const step = (tile.t1 - tile.t0) / found.busy.length, fullest = found.busy.indexOf(Math.max(...found.busy));
      [a, b] = [Math.floor(tile.t0 + fullest * step), Math.ceil(tile.t0 + (fullest + 1) * step)];
    }
  }

  key(event) {
    if (!this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const x = this.pointer.x || this.gutter + this.plot / 2;
    const moves = { w: () => this.zoom(0.7, x), s: () => this.zoom(1 / 0.7, x), a: () => this.pan(-0.2), d: () => this.pan(0.2),
      arrowup: () => this.zoom(0.7, x), arrowdown: () => this.zoom(1 / 0.7, x), arrowleft: () => this.pan(-0.2),
      arrowright: () => this.pan(0.2), f: () => this.show(this.meta.start, this.meta.end), escape: () => this.select(null) };
    const move = moves[event.key.toLowerCase()];
    if (!move) return;
    event.preventDefault();
    event.stopPropagation();
    move();
  }
}

// ---- text and colour

const UNITS = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];
const unitOf = ns => UNITS.find(([size]) => Math.abs(ns) >= size) ?? UNITS[3];

function duration(ns) {
  const [size, unit] = unitOf(ns);
  return `${(ns / size).toFixed(size === 1 ? 0 : size === 1e3 ? 2 : 3)} ${unit}`;
}

function tick(ns, step, [size, unit]) {
  return `${(ns / size).toFixed(Math.max(0, Math.min(6, Math.ceil(-Math.log10(step / size) - 1e-9))))} ${unit}`;
}

function nice(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  return Math.max(1, [1, 2, 5, 10].find(m => m * power >= raw) * power);
}

function fit(c, text, width) {
  if (width < 12) return '';
  if (text.length * 12 < width || c.measureText(text).width <= width) return text;
  let low = 0, high = Math.min(text.length, Math.ceil(width / 3));
  while (low < high) {
    const mid = (low + high + 1) >> 1;
    c.measureText(middleOut(text, mid)).width <= width ? low = mid : high = mid - 1;
  }
  return low ? middleOut(text, low) : '';
}

// `size` letters of a name: its middle goes, since kernels differ at both ends; a short rest is the beginning alone.
function middleOut(text, size) {
  const tail = size < 12 ? 0 : Math.floor(size * 0.4);
  return text.slice(0, size - tail) + '…' + (tail ? text.slice(-tail) : '');
}

function hash(text) {
  let h = 7;
  for (let i = 0; i < text.length; i++) h = (h * 31 + text.charCodeAt(i)) >>> 0;
  return h;
}

const channels = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
function luminance(colour) {
  const rgb = colour.startsWith('#') && colour.length >= 7 ? channels(colour) : (colour.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  return (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255;
}
const ink = colour => luminance(colour) > 0.52 ? '#111' : '#fff';
function shade(hex, by) {
  const mixed = channels(hex).map(v => Math.round(by >= 0 ? v + (255 - v) * by : v * (1 + by)));
  return '#' + mixed.map(v => v.toString(16).padStart(2, '0')).join('');
}

function bold(text) { const b = document.createElement('b'); b.textContent = text; return b; }
function list(lines) {
  const dl = document.createElement('dl');
  for (const [term, value] of lines) {
    const dt = document.createElement('dt'), dd = document.createElement('dd');
    dt.textContent = term;
    dd.textContent = value;
    dl.append(dt, dd);
  }
  return dl;
}
