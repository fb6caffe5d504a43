// Text and colour: durations with units, names cut in their middle, shades that can be read on light and on dark.

const UNITS = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];
const unitOf = ns => UNITS.find(([size]) => Math.abs(ns) >= size) ?? UNITS[3];

function duration(ns) {
  const [size, unit] = unitOf(ns);
  return `${(ns / size).toFixed(size === 1 ? 0 : size === 1e3 ? 2 : 3)} ${unit}`;
}

function tick(ns, step, [size, unit]) {
  return `${(ns / size).toFixed(Math.max(0, Math.min(9, Math.ceil(-Math.log10(step / size) - 1e-9))))} ${unit}`;
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
  return text.length <= size ? text : text.slice(0, size - tail) + '…' + (tail ? text.slice(-tail) : '');
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

function element(name, text = '', more = {}) {
  return Object.assign(document.createElement(name), { textContent: text, ...more });
}

// Each line a term and its text or element.
function list(lines) {
  const dl = element('dl');
  for (const [term, value] of lines) {
    const dd = element('dd');
    dd.append(value);
    dl.append(element('dt', term), dd);
  }
  return dl;
}

// Shown text that a click copies, or what it stands for.
function copier(shown, text = shown, more = '') {
  const button = element('button', shown, { type: 'button', className: 'copy', title: `Copy ${text}${more}` });
  button.onclick = async () => {
    await copy(text, button);
    button.dataset.copied = 'copied';
    button.setAttribute('aria-label', `${shown}, copied`);
    setTimeout(() => { delete button.dataset.copied; button.removeAttribute('aria-label'); }, 1500);
  };
  return button;
}

// A page that did not come over https or from this machine has no clipboard but this one.
async function copy(text, beside) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = element('textarea', text, { className: 'aside' });
  beside.after(box);
  box.select();
  document.execCommand('copy');
  box.remove();
}

// A Python function as the profiler names it, `file(line): name`; a click copies file:line.
function caller(name) {
  const [, file, line] = name.match(/^(.*)\((\d+)\): /) ?? [];
  return file ? copier(name, `${file}:${line}`, ', where the function begins') : copier(name);
}
