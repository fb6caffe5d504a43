// The timeline: what is in view, picked, found and selected, and what changes it. Times count from the trace's start.

const MIN_VIEW = 200; // ns
const MARGIN = 0.35; // a tile reaches this share of the view beyond both edges, so a pan has something to show

class Timeline {
  constructor(root) {
    this.root = root;
    this.find = name => root.querySelector(name);
    this.canvas = this.find('canvas');
    this.painter = new Painter(this);
    this.tile = this.meta = this.lanes = this.view = this.range = this.hover = this.picked = this.drag = this.run = null;
    this.match = null;
    this.by = 'stream';
    this.scheme = 'region';
    this.text = ''; // what is searched for
    this.number = 0; // of the selection; an answer of the server to an older one is out of date
    this.pointer = { x: 0, y: 0 };
    this.tip = new Tip(this);
    listen(this);
  }

  async update(data, setState) {
    this.setState = setState;
    const drawn = [data.run, ...data.beside].join(' '), moved = drawn !== this.drawn;
    this.answered = data.number; // the selection that the page below was last drawn for
    if (moved || data.number >= this.number) {
      this.range = data.range;
      this.number = data.number;
    }
    const focus = data.focus && String(data.focus);
    if (moved) {
      const first = this.run === null;
      this.drawn = drawn;
      this.run = data.run;
      this.focus = null;
      this.server = new Server(data.base, data.run, data.beside, text => {
        this.find('.problem').textContent = text && `The timeline cannot be shown: ${text}`;
      });
      this.lanes = null;
      const linked = first ? readAddress(data.run) : {};
      this.by = linked.by ?? 'stream';
      this.find('.by').value = this.by;
      this.scheme = this.find('.colour').value = linked.colour ?? this.scheme;
      if (!await this.open(linked.view)) return;
      this.pickLinked(linked.span);
    }
    if (focus && focus !== this.focus && this.meta) {
      const [t0, t1] = data.focus, room = Math.max((t1 - t0) * 0.04, 500);
      this.show(t0 - room, t1 + room);
    }
    this.focus = focus;
    this.draw();
  }

  // Read the description anew and show `view`, or all of it; false when another run was chosen meanwhile.
  async open(view) {
    const drawn = this.drawn, by = this.by, meta = await this.server.describe(by);
    if (!meta || this.drawn !== drawn || this.by !== by) return false;
    meta.by = by;
    Object.assign(this, { meta, tile: null, hover: null, picked: null, match: null, asking: false });
    this.lanes = new Lanes(meta, this.lanes);
    showGroups(this);
    showTable(this);
    showLegend(this);
    this.find('.details').replaceChildren();
    this.view = null;
    view ? this.show(view.t0, view.t1) : this.show(meta.start, meta.end);
    return true;
  }

  // Colour spans by region, kind of work, operator's category or dtype.
  paintBy(scheme) {
    this.scheme = this.find('.colour').value = scheme;
    for (const known of ['dark', 'light', 'darkPixel', 'lightPixel']) delete this.meta[known];
    showLegend(this);
    this.draw();
    writeAddress(this);
  }

  async group(by) {
    const view = this.view;
    this.by = by;
    if (await this.open(view) && this.text) search(this, this.text);
  }

  // ---- geometry

  get gutter() { return Math.min(230, Math.max(152, this.canvas.clientWidth * 0.13)); }
  get plot() { return Math.max(1, this.canvas.clientWidth - this.gutter); }
  x(t) { return this.gutter + (t - this.view.t0) / (this.view.t1 - this.view.t0) * this.plot; }
  time(x) { return this.view.t0 + (x - this.gutter) / this.plot * (this.view.t1 - this.view.t0); }

  show(t0, t1) {
    const before = this.view, { start, end } = this.meta, full = end - start, pad = full * 0.02;
    const width = Math.min(Math.max(t1 - t0, MIN_VIEW), full + 2 * pad);
    t0 = Math.min(Math.max(t0 + ((t1 - t0) - width) / 2, start - pad), end + pad - width);
    this.view = { t0, t1: t0 + width };
    this.draw();
    this.load();
    // a zoom or a jump is a place to come back to, moving on is not
    const isPlace = before && (Math.abs(width / (before.t1 - before.t0) - 1) > 0.01 || t0 > before.t1 || t0 + width < before.t0);
    writeAddress(this, isPlace);
  }

  zoom(factor, x) {
    const at = this.time(Math.max(x, this.gutter));
    this.show(at - (at - this.view.t0) * factor, at + (this.view.t1 - at) * factor);
  }

  pan(share) {
    const by = (this.view.t1 - this.view.t0) * share;
    this.show(this.view.t0 + by, this.view.t1 + by);
  }

  fitAll() { this.show(this.meta.start, this.meta.end); }

  // The selection; everything when there is none, or it fills the view already.
  fit() {
    if (!this.range) { this.fitAll(); return; }
    const [a, b] = this.range, room = Math.max((b - a) * 0.05, MIN_VIEW / 2), before = { ...this.view };
    this.show(a - room, b + room);
    if (Math.abs(before.t0 - this.view.t0) + Math.abs(before.t1 - this.view.t1) < (b - a) * 0.01) this.fitAll();
  }

  // ---- tiles: one request at a time; the view that counts when it is answered is asked for next

  async load() {
    this.wanted = true;
    if (this.asking) return;
    const server = this.server, meta = this.meta;
    this.asking = true;
    while (this.wanted && this.meta === meta) {
      this.wanted = false;
      const { t0, t1 } = this.view, more = (t1 - t0) * MARGIN, px = Math.round(this.plot * (1 + 2 * MARGIN));
      const tile = await server.tile(this.by, Math.floor(t0 - more), Math.ceil(t1 + more), px, this.lanes.rowNumbers, this.text);
      if (this.meta !== meta) return; // of another run or grouping, which asks for itself
      if (!tile) break;
      this.tile = { ...tile, of: `${t0},${t1}` };
      this.paint(); // at once: the next frame would be up to 16 ms away
    }
    this.asking = false;
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }

  paint() {
    if (!this.painter.paint()) return;
    const { t0, t1 } = this.view;
    this.find('.shown').textContent = `${duration(t1 - t0)} in view`;
    Object.assign(this.canvas.dataset, { t0, t1, rows: this.tile?.rows.length ?? 0, tileBytes: this.tile?.bytes ?? 0,
      range: this.range ? this.range.join() : '', arrows: this.arrows.length, by: this.meta.by,
      lanes: this.lanes.shown.length, ...(this.tile ? { sharp: this.tile.of } : {}) });
  }

  // Those of the picked span, and of the one under the pointer.
  get arrows() {
    const { picked, tip } = this;
    return [...picked?.arrows ?? [], ...tip.of === `${this.by} ${picked?.row} ${picked?.index}` ? [] : tip.arrows];
  }

  name(code) { return this.meta.labels[code][1]; }
  path(code) { return this.meta.paths[this.meta.labels[code][2]]; }

  get focused() { return this.canvas.getRootNode().activeElement === this.canvas; }

  // ---- pointing

  // The span or bin at a point of the canvas.
  at(x, y) {
    if (!this.tile || x < this.gutter) return null;
    const number = this.lanes.row(y), row = this.tile.rows.find(one => one.row === number);
    if (!row) return null;
    const t = this.time(x) - this.tile.t0, slack = (this.view.t1 - this.view.t0) / this.plot * 1.5;
    if (!row.start) {
      const bin = Math.floor(t / (this.tile.t1 - this.tile.t0) * row.busy.length);
      return row.busy[bin] ? { row: number, bin, data: row, code: row.code[bin] } : null;
    }
    let low = 0, high = row.start.length;
    while (low < high) { const mid = (low + high) >> 1; row.start[mid] <= t ? low = mid + 1 : high = mid; }
    for (const i of [low - 1, low]) {
      if (i < 0 || i >= row.start.length || t < row.start[i] - slack || t > row.start[i] + row.dur[i] + slack) continue;
      return { row: number, index: row.first + i, data: row, code: row.code[i], start: this.tile.t0 + row.start[i], dur: row.dur[i] };
    }
    return null;
  }

  point(x, y) {
    this.hover = this.drag?.moved ? null : this.at(x, y);
    this.canvas.classList.toggle('folding', x < this.gutter && (this.lanes.track(y)?.rows ?? 0) > 1);
    this.tip.show(this.hover, x, y);
    this.draw();
  }

  click(x, y) {
    if (x < this.gutter) {
      const track = this.lanes.track(y);
      if (track?.rows > 1) this.refold(() => this.lanes.toggle(track));
      return;
    }
    const found = this.at(x, y);
    if (found?.dur !== undefined) this.pick(found);
    else if (found && this.lanes.trackOf(found.row).kind !== 'counter') this.pickLongest(found);
    else if (this.range) this.select(null);
  }

  // The spans under the pointer are too short to draw: ask for those alone and take the longest, the one that is named.
  async pickLongest({ row, bin, data }) {
    const width = (this.tile.t1 - this.tile.t0) / data.busy.length, number = this.number;
    let a = Math.floor(this.tile.t0 + bin * width), b = Math.ceil(a + width + 1);
    for (let tries = 0; tries < 6; tries++) {
      const tile = await this.server.tile(this.by, a, b, 2048, [row]);
      if (!tile || this.number !== number) return; // selected something else meanwhile
      const found = tile.rows[0];
      if (!found) return;
      if (found.start) {
        const i = found.dur.indexOf(Math.max(...found.dur));
        this.pick({ row, index: found.first + i, start: tile.t0 + found.start[i], dur: found.dur[i] });
        return;
      }
      const step = (tile.t1 - tile.t0) / found.busy.length, fullest = found.busy.indexOf(Math.max(...found.busy));
      [a, b] = [Math.floor(tile.t0 + fullest * step), Math.ceil(tile.t0 + (fullest + 1) * step)];
    }
  }

  // Select a span, and show all that is known of it below.
  async pick({ row, index, start, dur }) {
    this.select([start, start + dur]);
    this.picked = { row, index, start, dur };
    const picked = this.picked, facts = await this.server.span(this.by, row, index);
    if (this.picked !== picked || !facts) return;
    this.picked = { ...picked, ...facts };
    showDetails(this, facts);
    this.draw();
  }

  walkTo(span) {
    this.goTo(span);
    this.pick(span);
  }

  // The span before or after the picked one on its row; the first in view when none is picked.
  neighbour(side) {
    if (!this.picked) { this.follow(); return; }
    const next = this.picked[side];
    if (next) this.walkTo({ ...next, index: this.picked.index + (side === 'after' ? 1 : -1) });
  }

  // The span nearest to the picked one on the row above or below that has any.
  across(step) {
    if (!this.picked) { this.follow(); return; }
    const rows = this.lanes.rowNumbers.filter(row => this.lanes.trackOf(row).kind !== 'counter').sort((a, b) => this.lanes.rows[a].y - this.lanes.rows[b].y);
    const next = rows[rows.indexOf(this.picked.row) + step];
    if (next !== undefined) this.nearest(next, this.picked.start + this.picked.dur / 2);
  }

  // Along an arrow of the picked span, to what launched it or the first that it launched; without one the first in view.
  follow() {
    if (!this.picked) {
      const rows = this.lanes.shown.filter(track => track.kind === 'gpu').concat(this.lanes.shown);
      if (rows.length) this.nearest(rows[0].first, Math.max(this.view.t0, this.meta.start));
      return;
    }
    const [from, to] = this.picked.arrows?.[0] ?? [];
    if (from) { const other = from.row === this.picked.row ? to : from; this.nearest(other.row, other.start); }
  }

  async nearest(row, time) {
    const number = this.number, found = await this.server.nearest(this.by, row, Math.round(time));
    if (found && this.number === number) this.walkTo(found);
  }

  // The span that a link names: its lane, its row there, and its start.
  async pickLinked(span) {
    const track = span && this.range && this.lanes.tracks.find(one => one.label === span.label && span.row < one.rows);
    if (!track) return;
    const [start, end] = this.range, number = this.number;
    const found = await this.server.nearest(this.by, track.first + span.row, start);
    if (!found || this.number !== number || found.start !== start || found.start + found.dur !== end) return;
    if (this.lanes.reveal(found.row)) showGroups(this);
    this.picked = found;
    showDetails(this, found);
    this.load();
    this.draw();
    writeAddress(this);
  }

  // Bring a span into view: by moving, and closer only when it could not be seen otherwise.
  goTo({ row, start, dur }) {
    if (this.lanes.reveal(row)) showGroups(this);
    const width = this.view.t1 - this.view.t0, small = dur / width * this.plot < 4, large = dur > width * 0.9;
    const wide = small ? Math.max(dur * 80, MIN_VIEW) : large ? dur * 1.2 : width, middle = start + dur / 2;
    if (!small && !large && start >= this.view.t0 && start + dur <= this.view.t1) this.load();
    else this.show(middle - wide / 2, middle + wide / 2);
    this.draw();
  }

  select(range) {
    this.range = range && [Math.round(range[0]), Math.round(range[1])];
    this.number += 1;
    this.picked = null;
    this.find('.details').replaceChildren();
    this.setState('selection', { range: this.range, number: this.number });
    writeAddress(this);
    this.draw();
  }

  // Change which rows are shown; what is now shown shares the bytes of a tile anew.
  refold(change) {
    change();
    showGroups(this);
    this.hover = null;
    this.tip.hide();
    this.draw();
    this.load();
  }

  destroy() {
    this.stop.abort();
    this.resize.disconnect();
    clearTimeout(this.writing);
    cancelAnimationFrame(this.frame);
    this.meta = null;
  }
}

// ---- the address, so that the view is a link that can be sent, and Back undoes a zoom

const OURS = ['t0', 't1', 'sel', 'by', 'span', 'colour'];

function readAddress(run) {
  const query = new URLSearchParams(location.search), [t0, t1] = ['t0', 't1'].map(name => Number(query.get(name) ?? NaN));
  if (query.has('run') && query.get('run') !== run) return {};
  const by = ['stream', 'region', 'thread', 'operator'].find(one => one === query.get('by'));
  const [, row, label] = query.get('span')?.match(/^(\d{1,6}) (.+)$/) ?? [];
  const sel = query.get('sel')?.match(/^(-?\d{1,18})-(-?\d{1,18})$/)?.slice(1).map(Number);
  return { ...(Number.isFinite(t0) && t1 > t0 ? { view: { t0, t1 } } : {}), ...(by ? { by } : {}),
    ...(['work', 'operator', 'dtype'].includes(query.get('colour')) ? { colour: query.get('colour') } : {}),
    ...(label ? { span: { row: Number(row), label } } : {}), range: sel ?? null };
}

// `place`: one to come back to. What changes in quick succession is one.
function writeAddress(timeline, place = false) {
  clearTimeout(timeline.writing);
  timeline.place ||= place;
  timeline.writing = setTimeout(() => {
    const { view, meta, range, by, picked } = timeline, address = new URL(location.href), query = address.searchParams;
    if (!meta) return;
    const set = (name, value) => value === null ? query.delete(name) : query.set(name, value);
    const whole = view.t0 <= meta.start && view.t1 >= meta.end, track = picked && timeline.lanes.trackOf(picked.row);
    set('t0', whole ? null : Math.round(view.t0));
    set('t1', whole ? null : Math.round(view.t1));
    set('sel', range ? range.join('-') : null);
    set('span', track ? `${picked.row - track.first} ${track.label}` : null);
    set('by', by === 'stream' ? null : by);
    set('colour', timeline.scheme === 'region' ? null : timeline.scheme);
    if (address.href !== location.href) {
      timeline.place ? history.pushState(history.state, '', address) : history.replaceState(history.state, '', address);
    }
    timeline.place = false;
    timeline.address = address.href;
  }, 250);
}

// Back and forward among what this page wrote: show it, and keep it from the page, which would load itself anew.
async function goBack(timeline, event) {
  const rest = href => {
    const address = new URL(href);
    OURS.forEach(name => address.searchParams.delete(name));
    return address.href;
  };
  if (!timeline.address || !timeline.meta || rest(timeline.address) !== rest(location.href)) return;
  event.stopImmediatePropagation();
  clearTimeout(timeline.writing);
  timeline.address = location.href;
  const { view, by = 'stream', range, span } = readAddress(timeline.run), { start, end } = timeline.meta;
  if (by !== timeline.by) {
    timeline.find('.by').value = timeline.by = by;
    if (!await timeline.open(view)) return;
  } else view ? timeline.show(view.t0, view.t1) : timeline.show(start, end);
  if (String(range) !== String(timeline.range)) timeline.select(range);
  clearTimeout(timeline.writing); // it is what the address says
  timeline.place = false;
  if (range && !timeline.picked) timeline.pickLinked(span);
}

export default function (component) {
  const { data, parentElement, setStateValue } = component;
  const root = parentElement.querySelector('.tl');
  if (!root.timeline) root.timeline = new Timeline(root);
  root.timeline.update(data, setStateValue);
  return () => { root.timeline?.destroy(); root.timeline = null; };
}
