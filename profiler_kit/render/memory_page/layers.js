// ---- layers.js: what a chart stacks: allocations (of every stream or one), or reserved segments ----

import { theme } from "./theme.js";
import { NO_STACK } from "./stacks.js";
import { BEFORE, FOREVER, totals } from "./device.js";

// A layer has born, gone and size per item, totals per state, and groups its items by a key.

export class Allocations {
  constructor(device, stream = -1) { // stream: number in device.streams, -1 for all
    this.device = device;
    this.all = stream < 0;
    if (this.all) Object.assign(this, { born: device.born, gone: device.gone, size: device.size, totals: device.allocated, count: device.count });
    else {
      this.ids = Uint32Array.from(device.stream.keys()).filter((i) => device.stream[i] === stream);
      for (const name of ["born", "gone", "size"]) this[name] = device[name].constructor.from(this.ids, (i) => device[name][i]);
      this.totals = totals(device.states, this.born, this.gone, this.size);
      this.count = this.ids.length;
    }
    this.top = this.totals.reduce((a, b) => Math.max(a, b), 0);
  }
  id(at) { return this.all ? at : this.ids[at]; }
  modes() { return this.device.followed ? ["stack", "region", "stream"] : ["stack", "stream"]; }

  // What an allocation is grouped and coloured by. Allocations from before the recording stand apart.
  keyOf(mode, at) { return this.keyOfId(mode, this.id(at)); }
  keyOfId(mode, i) {
    const { device } = this;
    if (mode === "region") return device.born[i] === 0 ? -1 : device.region[i];
    if (mode === "stream") return device.stream[i];
    return device.followed && device.born[i] === 0 ? -1 - device.stack[i] : device.stack[i];
  }
  keyName(mode, key) {
    const { device } = this;
    if (mode === "region") return { main: key < 0 ? BEFORE : device.pathName(key), where: "" };
    if (mode === "stream") return { main: streamText(device.streams[key]), where: "" };
    const stack = key < 0 ? -1 - key : key;
    const name = device.stacks.of(stack).length ? device.stacks.name(stack) : { main: key < 0 ? "" : NO_STACK, where: "" };
    return key < 0 ? { main: `${name.main} ${BEFORE}`.trim(), where: name.where } : name;
  }
  fixedColours(mode) { // the same in every figure of the project
    return mode === "region" ? new Map(this.device.colours.map((hex, number) => [number + 1, hex])) : null;
  }
  // Keys that deserve a hue: what holds 2 % of the peak or more, then what holds most bytes for longest.
  ranking(mode, most) {
    const { device } = this, peak = this.liveAt(device.peak_state, mode);
    const chosen = peak.filter((group) => group.bytes >= 0.02 * device.peakBytes).map((group) => group.key).slice(0, most), weights = new Map();
    for (let at = 0; at < this.count; at++) {
      const key = this.keyOf(mode, at), until = this.gone[at] === FOREVER ? device.span_us : device.time[this.gone[at]];
      weights.set(key, (weights.get(key) || 0) + this.size[at] * (until - device.time[this.born[at]]));
    }
    for (const [key] of [...weights].sort((a, b) => b[1] - a[1])) if (chosen.length < most && !chosen.includes(key)) chosen.push(key);
    return chosen;
  }
  // Groups of what is live in a state, most bytes first.
  liveAt(state, mode) {
    const groups = new Map();
    for (let at = 0; at < this.count && this.born[at] <= state; at++) {
      if (this.gone[at] <= state) continue;
      const key = this.keyOf(mode, at), group = groups.get(key);
      if (group) { group.count++; group.bytes += this.size[at]; } else groups.set(key, { key, count: 1, bytes: this.size[at] });
    }
    return [...groups.values()].sort((a, b) => b.bytes - a.bytes || a.key - b.key);
  }
}

// Segments as the driver gave them, stacked over time: what torch calls the active cached segments.
export class Segments {
  constructor(device) {
    const { ranges } = device;
    Object.assign(this, { device, ranges, born: ranges.born, gone: ranges.gone, size: ranges.size, count: ranges.count, totals: device.reserved });
    this.top = this.totals.reduce((a, b) => Math.max(a, b), 0);
  }
  id(at) { return at; }
  keyOfId(mode, at) { return this.keyOf(mode, at); }
  modes() { return ["pool", "stream", "size"]; }
  keyOf(mode, at) { return mode === "stream" ? this.ranges.stream[at] : mode === "size" ? this.ranges.kind[at] & SMALL_RANGE : this.ranges.pool[at]; }
  keyName(mode, key) {
    const main = mode === "stream" ? streamText(this.ranges.streams[key]) : mode === "size" ? (key ? "small (requests up to 1 MiB)" : "large") : this.ranges.poolName(key);
    return { main, where: "" };
  }
  fixedColours(mode) {
    const { hues, rest } = theme(), names = mode === "stream" ? this.ranges.streams : mode === "size" ? ["", ""] : this.ranges.pools;
    return new Map(names.map((_, key) => [key, mode === "pool" && key === 0 ? rest[0] : hues[(mode === "pool" ? key - 1 : key) % hues.length]]));
  }
}

export function streamText(id) { return id === "0" ? "default stream" : `stream ${id}`; }
