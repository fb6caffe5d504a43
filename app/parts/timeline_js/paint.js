// Draws a timeline: lanes, axis, spans or bins, bands of regions, arrows, the selected range.

function look(root) {
  const style = getComputedStyle(root), get = name => style.getPropertyValue(name).trim();
  const back = get('--st-background-color') || '#fff';
  return { text: get('--st-text-color') || '#333', back, accent: get('--st-primary-color') || '#06c',
    font: get('--st-font') || 'sans-serif', dark: luminance(back) < 0.4 };
}

class Painter {
  constructor(timeline) {
    this.timeline = timeline;
    this.canvas = timeline.canvas;
    this.c = this.canvas.getContext('2d');
  }

  paint() {
    const { timeline, canvas, c } = this, width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    if (!timeline.lanes || !timeline.view || !width) return false;
    Object.assign(this, { width, lanes: timeline.lanes, tile: timeline.tile, theme: look(timeline.root),
      edge: timeline.gutter + timeline.plot });
    const w = Math.round(width * ratio), height = this.lanes.height, h = Math.round(height * ratio);
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
      canvas.style.height = `${height}px`;
    }
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.textBaseline = 'middle';
    this.paintLanes();
    this.paintAxis();
    c.save();
    c.beginPath();
    c.rect(timeline.gutter, AXIS, timeline.plot, height - AXIS);
    c.clip();
    this.paintBands();
    for (const row of this.tile?.rows ?? []) {
      if (!this.lanes.rows[row.row]) continue;
      row.start ? this.paintSpans(row) : this.paintBins(row);
    }
    this.paintOutline(timeline.match, this.theme.accent);
    this.paintOutline(timeline.picked, this.theme.text);
    this.paintOutline(timeline.hover?.dur !== undefined ? timeline.hover : null, this.theme.text);
    this.paintArrows();
    this.paintRange();
    c.restore();
    return true;
  }

  paintLanes() {
    const { c, theme, lanes } = this, { gutter } = this.timeline;
    for (const track of lanes.shown) {
      c.fillStyle = theme.text;
      c.globalAlpha = 0.045;
      c.fillRect(gutter, track.y, this.width - gutter, track.height);
      c.globalAlpha = track.kind === 'gpu' ? 1 : 0.75;
      c.font = `${track.kind === 'gpu' ? 600 : 400} 12px ${theme.font}`;
      c.textAlign = 'right';
      const middle = track.y + lanes.rows[track.first].height / 2, fold = track.rows > 1;
      c.fillText(fit(c, track.label, gutter - (fold ? 28 : 14)), gutter - (fold ? 21 : 8), middle);
      if (fold) this.paintFold(track, gutter - 12, middle);
      if (track.kind === 'gpu' && track.open && fold && lanes.rows[track.first].height > 9) {
        c.globalAlpha = 0.75; // a further row holds what ran while the one above was busy
        c.font = `400 11px ${theme.font}`;
        const second = lanes.rows[track.first + 1];
        c.fillText(fit(c, 'overlapping', gutter - 28), gutter - 21, second.y + second.height / 2);
      }
      c.globalAlpha = 1;
    }
    c.textAlign = 'left';
  }

  paintFold(track, x, y) {
    const { c } = this, size = 3.5;
    c.beginPath();
    const [dx, dy] = track.open ? [size, size * 0.7] : [size * 0.7, size];
    if (track.open) { c.moveTo(x - dx, y - dy); c.lineTo(x + dx, y - dy); c.lineTo(x, y + dy); }
    else { c.moveTo(x - dx, y - dy); c.lineTo(x + dx, y); c.lineTo(x - dx, y + dy); }
    c.fill();
  }

  paintAxis() {
    const { c, theme, timeline } = this, { view } = timeline;
    const span = view.t1 - view.t0, step = nice(span / Math.max(2, timeline.plot / 120));
    c.font = `11px ${theme.font}`;
    c.fillStyle = theme.text;
    const unit = unitOf(Math.max(step * 5, Math.abs(view.t1) / 1000));
    for (let t = Math.ceil(view.t0 / step) * step; t <= view.t1; t += step) {
      const x = Math.round(timeline.x(t));
      c.globalAlpha = 0.10;
      c.fillRect(x, AXIS - 5, 1, this.lanes.height);
      c.globalAlpha = 0.75;
      const text = tick(t, step, unit);
      if (x + c.measureText(text).width + 4 < this.width) c.fillText(text, x + 4, AXIS / 2 - 1);
    }
    c.globalAlpha = 0.35;
    c.fillRect(timeline.gutter, AXIS - 1, timeline.plot, 1);
    c.globalAlpha = 0.85;
    c.textAlign = 'right';
    c.fillText(timeline.focused ? 'wheel zooms' : 'Ctrl + wheel zooms', timeline.gutter - 8, AXIS / 2 - 1);
    c.textAlign = 'left';
    c.globalAlpha = 1;
  }

  // Behind the GPU's lanes, the time each region has work there.
  paintBands() {
    const { c, lanes, tile, timeline } = this;
    for (const row of tile?.rows ?? []) {
      const of = lanes.trackOf(row.row), work = lanes.shown.filter(track => track.kind === 'gpu' && track.part === of?.part);
      if (!row.start || of?.kind !== 'gpu_region' || !work.length) continue;
      const top = work[0].y, height = work[work.length - 1].y + work[work.length - 1].height - top;
      for (let i = 0; i < row.start.length; i++) {
        const a = timeline.x(tile.t0 + row.start[i]), b = timeline.x(tile.t0 + row.start[i] + row.dur[i]);
        if (b < timeline.gutter || a > this.edge || b - a < 4) continue;
        c.fillStyle = this.colour(row.code[i]);
        c.globalAlpha = 0.07;
        c.fillRect(a, top, b - a, height);
        c.globalAlpha = 0.25;
        c.fillRect(a, top, 1, height);
      }
    }
    c.globalAlpha = 1;
  }

  paintSpans(row) {
    const { c, tile, timeline, edge } = this, place = this.lanes.rows[row.row], { y, height } = place;
    const t0 = tile.t0, text = height >= 13, { gutter } = timeline;
    c.font = `11px ${this.theme.font}`;
    for (let i = 0; i < row.start.length; i++) {
      let a = timeline.x(t0 + row.start[i]), b = timeline.x(t0 + row.start[i] + row.dur[i]);
      if (b < gutter || a > edge) continue;
      a = Math.max(a, gutter - 2);
      b = Math.min(b, edge + 2);
      const w = Math.max(0.7, b - a - (b - a > 3 ? 0.6 : 0));
      c.globalAlpha = row.hit && !row.hit[i] ? 0.22 : 1;
      c.fillStyle = this.colour(row.code[i]);
      c.fillRect(a, y, w, height);
      if (text && w > 34) {
        c.fillStyle = ink(c.fillStyle);
        c.fillText(fit(c, timeline.meta.labels[row.code[i]][3], w - 8), a + 4, y + height / 2 + 0.5);
      }
    }
    c.globalAlpha = 1;
  }

  // Bins are drawn into a picture once, a pixel wide each, which every frame stretches to where the view has them.
  paintBins(row) {
    const { c, tile, timeline } = this, { y, height, track } = this.lanes.rows[row.row];
    const tall = Math.max(1, Math.round(height * (window.devicePixelRatio || 1))), of = `${tall} ${this.theme.dark} ${timeline.scheme}`;
    if (row.pictureOf !== of) {
      row.picture = this.picture(row, tall, track.kind.endsWith('region'));
      row.pictureOf = of;
    }
    c.imageSmoothingEnabled = false;
    const a = timeline.x(tile.t0), b = timeline.x(tile.t1);
    c.drawImage(row.picture, a, y, b - a, height);
  }

  picture(row, tall, full) {
    const wide = row.busy.length, image = new ImageData(wide, tall), pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < wide; i++) {
      if (!row.busy[i]) continue;
      const colour = this.packed(row.code[i]) & (row.hit && !row.hit[i] ? 0x38ffffff : 0xffffffff);
      const high = full ? tall : Math.max(1, Math.round(tall * row.busy[i] / 255));
      for (let at = (tall - high) * wide + i; at < pixels.length; at += wide) pixels[at] = colour;
    }
    const canvas = element('canvas', '', { width: wide, height: tall });
    canvas.getContext('2d').putImageData(image, 0, 0);
    return canvas;
  }

  paintOutline(span, colour) {
    const place = span && this.lanes.rows[span.row];
    if (!place) return;
    const { c, timeline } = this, a = Math.max(timeline.x(span.start), timeline.gutter - 2);
    const b = Math.min(timeline.x(span.start + span.dur), this.edge + 2);
    c.strokeStyle = colour;
    c.lineWidth = 1.5;
    c.strokeRect(a + 0.5, place.y + 0.5, Math.max(2, b - a - 1), place.height - 1);
  }

  // From the end of each launch to the start of what it launched.
  paintArrows() {
    const { c, timeline, lanes } = this;
    for (const [from, to] of timeline.arrows) {
      const start = lanes.rows[from.row], end = lanes.rows[to.row];
      if (!start || !end) continue;
      const x0 = timeline.x(from.start + from.dur / 2), x1 = timeline.x(to.start), up = end.y < start.y;
      const y0 = up ? start.y : start.y + start.height, y1 = up ? end.y + end.height : end.y;
      const bend = Math.max(24, Math.abs(x1 - x0) * 0.35), tip = up ? 6 : -6;
      for (const [colour, width] of [[this.theme.back, 4], [this.theme.text, 1.6]]) {
        c.strokeStyle = c.fillStyle = colour;
        c.lineWidth = width;
        c.beginPath();
        c.moveTo(x0, y0);
        c.bezierCurveTo(x0 + bend, y0 + (y1 - y0) * 0.2, x1 - bend, y1 - (y1 - y0) * 0.2, x1, y1 + tip);
        c.stroke();
      }
      c.beginPath();
      c.moveTo(x1, y1);
      c.lineTo(x1 - 4, y1 + tip * 1.3);
      c.lineTo(x1 + 4, y1 + tip * 1.3);
      c.fill();
    }
  }

  paintRange() {
    const { c, theme, timeline } = this, range = timeline.drag?.range ?? timeline.range;
    if (!range) return;
    const a = timeline.x(range[0]), b = timeline.x(range[1]);
    if (b < timeline.gutter || a > this.edge) return; // not in view, and neither is its label
    c.fillStyle = theme.accent;
    c.globalAlpha = 0.13;
    c.fillRect(a, AXIS, b - a, this.lanes.height);
    c.globalAlpha = 0.9;
    c.fillRect(a, AXIS, 1, this.lanes.height);
    c.fillRect(b, AXIS, 1, this.lanes.height);
    const text = duration(range[1] - range[0]);
    c.font = `600 11px ${theme.font}`;
    const w = c.measureText(text).width + 10;
    const x = Math.min(Math.max((a + b - w) / 2, timeline.gutter), this.edge - w);
    c.fillRect(x, AXIS, w, 16);
    c.globalAlpha = 1;
    c.fillStyle = ink(theme.accent);
    c.fillText(text, x + 5, AXIS + 8.5);
  }

  // The same as a pixel: alpha, blue, green, red from the high byte down.
  packed(code) {
    const { meta } = this.timeline, cache = meta[this.theme.dark ? 'darkPixel' : 'lightPixel'] ??= [];
    if (cache[code] === undefined) {
      const [red, green, blue] = channels(this.colour(code));
      cache[code] = 0xff000000 | blue << 16 | green << 8 | red;
    }
    return cache[code];
  }

  // The region gives the hue; kernels of one region differ a little in lightness so that neighbours can be told apart.
  colour(code) {
    const { meta } = this.timeline, cache = meta[this.theme.dark ? 'dark' : 'light'] ??= [];
    const [kind, name, path] = meta.labels[code], scheme = meta.schemes[this.timeline.scheme];
    const hue = scheme ? scheme.colours[scheme.groups[code]] : meta.colours[path];
    return cache[code] ??= shade(hue || '#8A8F98', /re(gion|quest)$|critical|counter/.test(kind) ? 0 : (hash(name) % 5 - 2) * 0.055);
  }
}
