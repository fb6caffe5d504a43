// What is around the canvas: the tip under the pointer, details of the picked span, groups of lanes, search, help.

const APART = ['request', 'critical', 'counter']; // their paths are no regions
const took = kind => kind === 'request' ? 'Stage' : kind === 'critical' ? 'Stretch' : kind.startsWith('gpu') ? 'GPU time' : 'Host time';

class Tip {
  constructor(timeline) {
    this.timeline = timeline;
    this.box = timeline.find('.tip');
    this.of = null;
    this.arrows = [];
  }

  hide() {
    this.of = null;
    clearTimeout(this.timer);
    this.box.style.display = 'none';
    this.arrows = [];
  }

  // At once what the tile knows; what the server knows of a span once the pointer rests on it.
  show(found, x, y) {
    if (!found) { this.hide(); return; }
    const { timeline } = this, of = `${timeline.by} ${found.row} ${found.index ?? -found.bin}`;
    if (of !== this.of) {
      this.hide();
      this.of = of;
      this.fill(found);
      if (found.index !== undefined) this.timer = setTimeout(() => this.ask(found, of), 60);
    }
    this.box.style.display = 'block';
    const { canvas } = timeline, top = canvas.offsetTop, wide = this.box.offsetWidth, tall = this.box.offsetHeight;
    this.box.style.left = `${x + 16 + wide > canvas.clientWidth ? Math.max(0, x - wide - 12) : x + 16}px`;
    this.box.style.top = `${top + (y + 18 + tall > timeline.lanes.height ? Math.max(-top, y - tall - 10) : y + 18)}px`;
  }

  fill(found) {
    const { timeline } = this, { data, code } = found, kind = timeline.meta.labels[code][0], lines = [];
    if (found.index !== undefined) {
      lines.push([took(kind), duration(found.dur)]);
      lines.push(['Starts at', duration(found.start)]);
    } else if (kind === 'counter') {
      lines.push(['Mean here', `${(data.busy[found.bin] / 2.55).toFixed(0)} % of the most, ${timeline.lanes.trackOf(found.row).most}`]);
    } else {
      lines.push(['Busy here', `${(data.busy[found.bin] / 2.55).toFixed(0)} %`]);
      const starting = data.count[found.bin];
      if (starting > 1) lines.push(['Starting here', `${starting.toLocaleString('en')}, the longest named above`]);
    }
    const path = timeline.path(code).join(' › ');
    lines.push(['Lane', timeline.lanes.trackOf(found.row).label]);
    if (path && !APART.includes(kind)) lines.push(['Region', path]);
    this.box.replaceChildren(element('b', timeline.name(code)), list(lines));
  }

  async ask(found, of) {
    const facts = await this.timeline.server.span(this.timeline.by, found.row, found.index);
    if (this.of !== of || !facts) return;
    this.box.querySelector('dl').append(...list(facts.facts).childNodes);
    this.arrows = facts.arrows;
    this.timeline.draw();
  }
}

// All that is known of the picked span, below the canvas: text that can be copied, and reached without a mouse.
function showDetails(timeline, facts) {
  const step = (side, sign, key) => element('button', sign, { disabled: !facts[side], onclick: () => timeline.neighbour(side),
    title: `The span ${side} this one on its row (${key})` });
  const head = element('div', '', { className: 'head' });
  head.append(step('before', '‹', ','), step('after', '›', '.'), copier(facts.name));
  const lines = [[took(facts.kind), duration(facts.dur)],
    ['Starts at', duration(facts.start)],
    ...(facts.path.length && !APART.includes(facts.kind) ? [['Region', facts.path.join(' › ')]] : []),
    ...(facts.stack.length ? [['Python', caller(facts.stack[facts.site])]] : []), ...facts.facts];
  timeline.find('.details').replaceChildren(head, list(lines), ...stack(timeline, facts));
}

// All Python functions it was called in, the innermost first; stays open from span to span.
function stack(timeline, { stack: names, site }) {
  if (names.length < 2) return [];
  const all = element('ol'), fold = element('details', '', { open: timeline.stackOpen ?? false });
  all.append(...names.map((name, number) => {
    const line = element('li', '', { className: number === site ? 'site' : '' });
    line.append(caller(name));
    return line;
  }));
  fold.append(element('summary', `Python stack, ${names.length} functions, the innermost first`), all);
  fold.ontoggle = () => { timeline.stackOpen = fold.open; };
  return [fold];
}

// A switch for each group of lanes.
function showGroups(timeline) {
  const { lanes } = timeline;
  timeline.find('.groups').replaceChildren(...lanes.kinds.map(kind => {
    const label = element('label'), box = element('input', '', { type: 'checkbox', checked: !lanes.hidden.has(kind) });
    box.onchange = () => timeline.refold(() => lanes.hide(kind, !box.checked));
    label.append(box, GROUPS[kind]);
    return label;
  }));
}

// What the colours mean: regions, or the groups of another scheme; those with a region only, since others are grey.
const MOST_HUES = 14, MOST_LETTERS = 48;
function showLegend(timeline) {
  const { meta, scheme } = timeline, paths = new Map(), hues = new Map(Object.entries(meta.schemes[scheme]?.colours ?? {}));
  if (scheme === 'region') {
    meta.labels.forEach(([kind, , path]) => {
      const last = meta.paths[path].at(-1);
      if (last !== undefined && !APART.includes(kind)) hues.set(last, meta.colours[path]);
      if (kind === 'critical') paths.set(`critical path: ${last}`, meta.colours[path]);
    });
  } else hues.set(scheme === 'dtype' ? 'not in the name' : 'no work', '#8A8F98');
  const items = [...[...hues].slice(0, MOST_HUES), ...paths].map(([name, colour]) => {
    const item = element('li'), swatch = element('i');
    swatch.style.background = colour;
    item.append(swatch, middleOut(name, MOST_LETTERS));
    item.title = name;
    return item;
  });
  if (hues.size > MOST_HUES) items.push(element('li', `and ${hues.size - MOST_HUES} more`));
  timeline.find('.legend').replaceChildren(...items);
}

// The lanes as a table, which stands for the picture.
function showTable(timeline) {
  timeline.find('#tl-lanes tbody').replaceChildren(...timeline.meta.tracks.map(track => {
    const row = element('tr');
    row.append(element('th', track.label, { scope: 'row' }), element('td', track.spans.toLocaleString('en')), element('td', duration(track.busy)));
    return row;
  }));
}

// Mark the spans whose name holds the text, and go to the first one in view or after it.
async function search(timeline, text, back = false) {
  text = text.trim();
  const fresh = text !== timeline.text, said = timeline.find('.found');
  timeline.text = text;
  if (!text) {
    timeline.match = null;
    said.textContent = '';
    timeline.load();
    return;
  }
  const from = fresh || !timeline.match ? { t: Math.max(timeline.view.t0, timeline.meta.start - 1), row: -1 }
    : { t: timeline.match.start, row: timeline.match.row };
  // counters are no spans, and stretches of the critical path bear the names of others
  const every = timeline.lanes.shown.filter(track => !['critical', 'counter'].includes(track.kind)).flatMap(track => Array.from({ length: track.rows }, (_, i) => track.first + i));
  const answer = await timeline.server.search(timeline.by, text, every, from, back);
  if (!answer || timeline.text !== text) return;
  said.textContent = answer.total ? `${answer.number.toLocaleString('en')} of ${answer.total.toLocaleString('en')}` : 'no match';
  timeline.match = answer.total ? answer : null;
  if (timeline.match) timeline.walkTo(answer);
  if (fresh) timeline.load();
  timeline.draw();
}
