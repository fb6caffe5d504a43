// Mouse, trackpad, fingers and keys.

function listen(timeline) {
  const { canvas, root } = timeline, stop = timeline.stop = new AbortController();
  const on = (target, type, run, more = {}) => target.addEventListener(type, run, { signal: stop.signal, ...more });
  timeline.resize = new ResizeObserver(() => { if (timeline.view) { timeline.draw(); timeline.load(); } });
  timeline.resize.observe(canvas);
  on(canvas, 'wheel', event => wheel(timeline, event), { passive: false });
  new Fingers(timeline, on);
  on(canvas, 'dblclick', event => {
    if (!timeline.view || event.offsetX < timeline.gutter) return;
    const found = timeline.at(event.offsetX, event.offsetY);
    if (found?.dur) timeline.show(found.start - found.dur * 0.05, found.start + found.dur * 1.05);
    else timeline.fitAll();
  });
  on(canvas, 'pointerleave', () => { timeline.hover = null; timeline.tip.hide(); timeline.draw(); });
  on(canvas, 'keydown', event => key(timeline, event));
  for (const type of ['focus', 'blur']) on(canvas, type, () => timeline.draw()); // says what the wheel does
  on(window, 'popstate', event => goBack(timeline, event), { capture: true });
  on(document, 'keydown', event => anywhere(timeline, event));
  const middle = () => timeline.gutter + timeline.plot / 2, whenOpen = run => () => timeline.view && run();
  on(root.querySelector('.fit'), 'click', whenOpen(() => timeline.fitAll()));
  on(root.querySelector('.in'), 'click', whenOpen(() => timeline.zoom(0.5, middle())));
  on(root.querySelector('.out'), 'click', whenOpen(() => timeline.zoom(2, middle())));
  on(root.querySelector('.by'), 'change', event => timeline.view && timeline.group(event.target.value));
  on(root.querySelector('.colour'), 'change', event => timeline.view && timeline.paintBy(event.target.value));
  on(root.querySelector('.ask'), 'click', () => help(timeline));
  on(root.querySelector('.help'), 'click', () => help(timeline));
  const box = root.querySelector('.search');
  on(box, 'input', () => {
    clearTimeout(timeline.typing);
    timeline.typing = setTimeout(() => timeline.view && search(timeline, box.value), 160);
  });
  on(box, 'keydown', event => {
    event.stopPropagation();
    if (event.key === 'Enter' && timeline.view) {
      clearTimeout(timeline.typing);
      search(timeline, box.value, event.shiftKey);
    } else if (event.key === 'Escape') {
      box.value = '';
      if (timeline.view) search(timeline, '');
      canvas.focus();
    }
  });
  on(root.querySelector('.before'), 'click', whenOpen(() => search(timeline, box.value, true)));
  on(root.querySelector('.after'), 'click', whenOpen(() => search(timeline, box.value)));
}

// A wheel scrolls the page, unless Ctrl is held (so comes a pinch on a trackpad too) or the canvas has the focus: then it
// zooms. Sideways it pans.
function wheel(timeline, event) {
  if (!timeline.view) return;
  const aside = Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (!aside && !event.ctrlKey && !event.metaKey && !timeline.focused) return;
  event.preventDefault();
  const down = event.deltaMode ? event.deltaY * 30 : event.deltaY;
  const sideways = event.shiftKey && !event.deltaX ? down : event.deltaX;
  if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : down)) timeline.pan(sideways / timeline.plot);
  else timeline.zoom(Math.exp(Math.max(-240, Math.min(240, down)) * (event.ctrlKey && Math.abs(down) < 50 ? 0.01 : 0.002)), event.offsetX);
}

// One finger or the mouse pans, or selects with shift and on the axis; two fingers pinch. A tap picks.
class Fingers {
  constructor(timeline, on) {
    this.timeline = timeline;
    this.down = new Map(); // pointer id -> x
    this.pinch = null;
    on(timeline.canvas, 'pointerdown', event => this.press(event));
    on(timeline.canvas, 'pointermove', event => this.move(event));
    on(timeline.canvas, 'pointerup', event => this.lift(event));
    on(timeline.canvas, 'pointercancel', event => { this.down.delete(event.pointerId); this.pinch = null; this.drop(); });
  }

  press(event) {
    const { timeline, down } = this, { canvas } = timeline, x = event.offsetX;
    if (!timeline.view || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    down.set(event.pointerId, x);
    if (down.size === 2) {
      const [a, b] = [...down.values()];
      this.drop();
      this.pinch = { apart: Math.max(20, Math.abs(a - b)), at: timeline.time((a + b) / 2), width: timeline.view.t1 - timeline.view.t0 };
      return;
    }
    const select = event.shiftKey || event.offsetY < AXIS;
    timeline.drag = { x, view: { ...timeline.view }, select, moved: false };
    canvas.classList.add(select ? 'selecting' : 'panning');
  }

  move(event) {
    const { timeline, down } = this, x = event.offsetX;
    timeline.pointer = { x, y: event.offsetY };
    if (!timeline.view) return;
    if (down.has(event.pointerId)) down.set(event.pointerId, x);
    if (this.pinch) { this.squeeze(); return; }
    const { drag } = timeline, by = drag ? x - drag.x : 0;
    if (drag && (drag.moved || Math.abs(by) > 3)) {
      drag.moved = true;
      if (drag.select) {
        drag.range = [drag.x, x].map(at => timeline.time(Math.max(at, timeline.gutter))).sort((a, b) => a - b);
        timeline.draw();
      } else {
        const shift = by / timeline.plot * (drag.view.t1 - drag.view.t0);
        timeline.show(drag.view.t0 - shift, drag.view.t1 - shift);
      }
    }
    timeline.point(x, event.offsetY);
  }

  squeeze() {
    const { timeline, pinch } = this, [a, b] = [...this.down.values()];
    const width = pinch.width * pinch.apart / Math.max(20, Math.abs(a - b));
    const t0 = pinch.at - ((a + b) / 2 - timeline.gutter) / timeline.plot * width;
    timeline.show(t0, t0 + width);
  }

  lift(event) {
    const { timeline } = this, { drag } = timeline;
    this.down.delete(event.pointerId);
    if (this.pinch) { this.pinch = this.down.size ? this.pinch : null; return; }
    this.drop();
    if (drag?.range) timeline.select(drag.range);
    else if (drag && !drag.moved) timeline.click(event.offsetX, event.offsetY);
  }

  drop() {
    this.timeline.drag = null;
    this.timeline.canvas.classList.remove('selecting', 'panning');
  }
}

function key(timeline, event) {
  if (!timeline.view || event.ctrlKey || event.metaKey || event.altKey) return;
  const x = timeline.pointer.x || timeline.gutter + timeline.plot / 2, far = event.shiftKey ? 0.8 : 0.2;
  const before = () => timeline.neighbour('before'), after = () => timeline.neighbour('after');
  const moves = { w: () => timeline.zoom(0.7, x), s: () => timeline.zoom(1 / 0.7, x), a: () => timeline.pan(-far), d: () => timeline.pan(far),
    arrowup: () => timeline.across(-1), arrowdown: () => timeline.across(1), arrowleft: before, arrowright: after,
    ',': before, '.': after, enter: () => timeline.follow(), f: () => timeline.fit(), escape: () => escape(timeline),
    n: () => timeline.text && search(timeline, timeline.text, event.shiftKey) };
  const move = moves[event.key.toLowerCase()];
  if (!move) return;
  event.preventDefault();
  event.stopPropagation();
  move();
}

function escape(timeline) {
  if (!timeline.find('.help').hidden) help(timeline);
  else if (timeline.range) timeline.select(null);
  else timeline.canvas.blur();
}

// From anywhere on the page, unless something is being typed: / searches, ? explains.
function anywhere(timeline, event) {
  const from = event.composedPath()[0];
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(from?.tagName ?? '') || from?.isContentEditable) return;
  if (event.key === '/') timeline.find('.search').select();
  else if (event.key === '?') help(timeline);
  else return;
  event.preventDefault();
}

function help(timeline) {
  const box = timeline.find('.help');
  box.hidden = !box.hidden;
  if (box.hidden) timeline.canvas.focus({ preventScroll: true });
}
