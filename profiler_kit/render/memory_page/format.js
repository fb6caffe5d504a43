// ---- format.js: numbers -> text with units ----

export const SIZES = [["TiB", 2 ** 40, 2], ["GiB", 2 ** 30, 2], ["MiB", 2 ** 20, 1], ["KiB", 2 ** 10, 1], ["B", 1, 0]];
export const TIMES = [["s", 1e6, 3], ["ms", 1e3, 3], ["µs", 1, 0]];

const NUMBERS = [];
export function grouped(value, decimals = 0) {
  NUMBERS[decimals] ??= new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return NUMBERS[decimals].format(value);
}
export function unitOf(units, value) { return units.find((unit) => Math.abs(value) >= unit[1]) || units[units.length - 1]; }
// What is there but too little to show says so.
export function inUnit(value, [unit, size, decimals]) {
  const least = 10 ** -decimals;
  if (value !== 0 && Math.abs(value / size) < least / 2) return `${value < 0 ? "≈ 0" : `< ${grouped(least, decimals)}`} ${unit}`;
  return `${grouped(value / size, decimals)} ${unit}`;
}
export function counted(count, noun) { return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`; }
export function bytes(value) { return value === null ? "an unknown amount" : inUnit(value, unitOf(SIZES, value)); }
export function micros(value) { return inUnit(value, unitOf(TIMES, value)); }
export function percent(share) { return share > 0 && share < 0.0005 ? "< 0.1 %" : `${grouped(share * 100, 1)} %`; }
// One unit for a column, small enough that its small rows still say something.
export function columnUnit(largest) {
  const unit = unitOf(SIZES, largest);
  return unit[0] === "GiB" && largest < 100 * unit[1] ? SIZES[2] : unit;
}
// Ticks of an axis from 0: a step of 1, 2 or 5 times a power of ten, or of a power of two for sizes.
export function niceStep(span, most) {
  const rough = span / most, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= rough);
}
export function sizeStep(span, most) { return 2 ** Math.ceil(Math.log2(span / most)); }
// A tick's text: as many decimals as the step needs, so that no two ticks have the same.
export function tick(value, step, units, largest) {
  const unit = unitOf(units, largest);
  const size = step / unit[1];
  let decimals = 0;
  while (decimals < 9 && Math.abs(size * 10 ** decimals - Math.round(size * 10 ** decimals)) > 1e-6 * size * 10 ** decimals) decimals++;
  return `${grouped(value / unit[1], decimals)} ${unit[0]}`;
}
