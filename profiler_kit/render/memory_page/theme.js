// ---- theme.js: colours, and lines and text drawn with them ----

// Seven hues that stay apart for colour-blind eyes, in this order; red is kept for out-of-memory.
const THEMES = {
  light: {
    hues: ["#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#e87ba4", "#008300", "#4a3aa7"],
    rest: ["#c3c2bb", "#b4b3ab", "#d0cfc8"], surface: "#fcfcfb", raised: "#f3f2ef", ink: "#1a1a19", soft: "#5f5e58", line: "#dddbd5",
    danger: "#c2231f", warn: "#b07400", window: "#2a78d622", shade: "#fcfcfbb8", band: "#e9e7e1", total: "#a9a79f",
    active: "#2a78d6", split: "#eda100", cached: "#c3c2bb", hole: "#efeee9",
  },
  dark: {
    hues: ["#3987e5", "#d95926", "#199e70", "#c98500", "#d55181", "#35a335", "#9085e9"],
    rest: ["#55544f", "#63625c", "#484743"], surface: "#1a1a19", raised: "#262624", ink: "#f3f2ef", soft: "#a9a8a1", line: "#3d3c39",
    danger: "#ff7b74", warn: "#e0b050", window: "#5a9cec33", shade: "#1a1a19b0", band: "#31302d", total: "#6d6c66",
    active: "#3987e5", split: "#c98500", cached: "#55544f", hole: "#2a2a28",
  },
};
export const FONT = "12px system-ui, sans-serif", BOLD = "600 12px system-ui, sans-serif";
export const darkQuery = matchMedia("(prefers-color-scheme: dark)");
export function themeName() { return document.documentElement.dataset.theme || (darkQuery.matches ? "dark" : "light"); }
export function theme() { return THEMES[themeName()]; }

function channels(hex) { return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)); }
export function mixed(hex, towards, amount) { // "#rrggbb" between two colours
  const from = channels(hex), to = channels(towards);
  return "#" + from.map((value, i) => Math.round(value * (1 - amount) + to[i] * amount).toString(16).padStart(2, "0")).join("");
}
export function pixel(hex) { // -> ABGR word of an ImageData
  const [red, green, blue] = channels(hex);
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
export function inkOn(hex) { // black or white, whichever reads better on the colour
  const [red, green, blue] = channels(hex);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 150 ? "#1a1a19" : "#ffffff";
}

export function context(canvas, height) { // sized to the screen's pixels, drawn in CSS pixels
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const draw = canvas.getContext("2d");
  draw.setTransform(ratio, 0, 0, ratio, 0, 0);
  draw.font = FONT;
  draw.textBaseline = "middle";
  return { draw, width, ratio };
}
export function line(draw, x0, y0, x1, y1) { draw.beginPath(); draw.moveTo(x0, y0); draw.lineTo(x1, y1); draw.stroke(); }
export function label(draw, text, x, y, c, colour) { // text that stays readable over what is drawn
  draw.lineJoin = "round";
  draw.lineWidth = 4;
  draw.strokeStyle = c.surface;
  draw.strokeText(text, x, y);
  draw.lineWidth = 1;
  draw.fillStyle = colour || c.ink;
  draw.fillText(text, x, y);
}
export function fitted(draw, text, width) {
  if (width < 8) return "";
  if (text.length < 400 && draw.measureText(text).width <= width) return text;
  let length = Math.max(1, Math.min(text.length, Math.ceil(width / 3)));
  while (length > 1 && draw.measureText(text.slice(0, length) + "…").width > width) length--;
  return length > 1 ? text.slice(0, length) + "…" : "";
}

// The colours of the groups of a layer: key -> "#rrggbb". What matters most gets a hue, all others share the greys.
export class Colouring {
  constructor(layers, mode) {
    const c = theme();
    this.fixed = layers.fixedColours(mode);
    this.ranks = this.fixed ? new Map() : new Map(layers.ranking(mode, c.hues.length).map((key, rank) => [key, rank]));
    this.list = [...new Set([...(this.fixed ? this.fixed.values() : c.hues), ...c.rest])];
    this.numbers = new Map(this.list.map((hex, i) => [hex, i]));
    this.c = c;
  }
  of(key) {
    const { c } = this, grey = c.rest[Math.abs(key) % c.rest.length];
    if (this.fixed) return this.fixed.get(key) || grey;
    const rank = this.ranks.get(key);
    return rank === undefined ? grey : c.hues[rank];
  }
  number(key) { return this.numbers.get(this.of(key)); }
}
