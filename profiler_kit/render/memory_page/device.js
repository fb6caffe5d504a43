// ---- device.js: one device as columns: allocations, reserved ranges, regions, and the totals over time ----

import { column, running } from "./unpack.js";
import { bytes, grouped, micros } from "./format.js";
import { NO_STACK } from "./stacks.js";
import { EXPANDABLE_RANGE, Heap } from "./heap.js";
import { reservedAt } from "./moment.js";
import { shortened } from "./elements.js";

// State 0 is before the first event, state i + 1 after event i. An allocation lives in states [born, gone).

export const FOREVER = 0xffffffff;
export const BEFORE = "(before the recording)";
export const NO_REGION = "(no region)";

export class Device {
  constructor(meta, planes, stacks, settings) {
    Object.assign(this, meta, { stacks, settings });
    this.states = meta.events + 1;
    const read = (name) => column(planes, meta[name]);
    Object.assign(this, lives(read("born"), read("life")));
    this.size = read("size");
    this.count = this.size.length;
    this.wait = read("wait");
    this.block = read("block");
    this.stack = read("stack");
    this.region = read("region");
    this.stream = read("stream");
    this.said = read("said"); // number of what the file says of each, in answers: [[key, text], ...]
    this.low = read("address_low");
    this.high = read("address_high");
    this.time = new Float64Array(this.states); // when each state begins
    this.time.set(running(read("time")), 1);
    this.allocated = meta.allocated_bytes ? Float64Array.from(read("allocated_bytes")) : totals(this.states, this.born, this.gone, this.size);
    this.reservedFrom = [0, ...running(read("reserved_state"))];
    this.reservedBytes = read("reserved_bytes");
    this.spans = { path: read("span_path"), start: read("span_start"), end: read("span_end") };
    this.depth = this.paths.reduce((depth, path) => Math.max(depth, path.length), 0);
    this.span_us = Math.max(this.span_us, 1);
    this.ranges = new Ranges(meta.ranges, planes);
    this.made = {};
  }
  get peakBytes() { return this.allocated[this.peak_state]; }
  get hasRanges() { return this.reserves && this.ranges.count > 0; }
  get heap() { return (this.made.heap ||= new Heap(this)); } // computed when first asked for
  get reserved() { return (this.made.reserved ||= this.reservedSeries()); }
  get changes() { return (this.made.changes ||= this.changeTable()); }

  reservedSeries() {
    const out = new Float64Array(this.states);
    for (let i = 0; i < this.reservedFrom.length; i++) out.fill(this.reservedBytes[i], this.reservedFrom[i], this.reservedFrom[i + 1]);
    return out;
  }
  reservedAt(state) { return this.reservedBytes[upperBound(this.reservedFrom, state) - 1]; }
  when(time) { return this.timed ? micros(time) : `event ${grouped(Math.floor(time))}`; }
  stateAtTime(time) { return Math.max(0, upperBound(this.time, time) - 1); }
  endOf(state) { return state + 1 < this.states ? this.time[state + 1] : this.span_us; }
  pathName(number) { return number ? this.paths[number - 1].join(" > ") : NO_REGION; }

  // Innermost region at a state's beginning, by the spans that hold its time: the deepest, then the latest.
  spanAt(state) {
    const time = this.time[state];
    let best = -1;
    for (let i = 0; i < this.spans.path.length && this.spans.start[i] <= time; i++) {
      const open = time < this.spans.end[i] || (time === this.spans.end[i] && time === this.span_us);
      const deeper = best < 0 || this.paths[this.spans.path[i]].length >= this.paths[this.spans.path[best]].length;
      if (open && deeper) best = i;
    }
    return best;
  }
  regionAt(state) {
    const span = this.spanAt(state);
    return span < 0 ? NO_REGION : this.paths[this.spans.path[span]].join(" > ");
  }
  at(i) { return this.high[i] * 2 ** 32 + this.low[i]; } // exact below 2 ** 53
  address(i) { return hexAddress(this.high[i], this.low[i]); }
  holds(i, address) {
    const start = (BigInt(this.high[i]) << 32n) | BigInt(this.low[i]);
    return address >= start && address < start + BigInt(this.size[i] || 1);
  }
  isLive(i, state) { return this.born[i] <= state && this.gone[i] > state; }
  // Freed by the program, but held until another stream is done with it.
  isPending(i, state) { return this.wait[i] > 0 && state >= this.askedAt(i); }
  askedAt(i) { return (this.gone[i] === FOREVER ? this.states : this.gone[i]) - this.wait[i]; }
  stackName(i) {
    const before = this.followed && this.born[i] === 0;
    if (!this.stacks.of(this.stack[i]).length) return { main: before ? BEFORE : NO_STACK, where: "" };
    const name = this.stacks.name(this.stack[i]);
    return before ? { main: `${name.main} ${BEFORE}`, where: name.where } : name;
  }

  // Which allocation or range an event made or ended: allocation + 1, -(allocation + 1), or 0; asked: to be freed.
  changeTable() {
    const of = new Int32Array(this.states), asked = new Int32Array(this.states), ranges = new Map();
    for (let i = 0; i < this.count; i++) {
      if (this.born[i]) of[this.born[i]] = i + 1;
      if (this.gone[i] !== FOREVER) of[this.gone[i]] = -(i + 1);
      if (this.wait[i]) asked[this.askedAt(i)] = i + 1;
    }
    for (let r = 0; r < this.ranges.count; r++) {
      if (this.ranges.born[r]) ranges.set(this.ranges.born[r], r + 1);
      if (this.ranges.gone[r] !== FOREVER) ranges.set(this.ranges.gone[r], -(r + 1));
    }
    return { of, asked, ranges };
  }
  // What the event that began a state did, in words.
  eventText(state) {
    if (!state) return "before the first event";
    const { of, asked, ranges } = this.changes, i = Math.abs(of[state] || asked[state]) - 1, range = ranges.get(state);
    const oom = this.ooms.find((one) => one.state === state);
    if (oom) return `out of memory: asked for ${bytes(oom.requested_bytes)}`;
    if (i >= 0) return `${of[state] > 0 ? "alloc" : of[state] ? "free_completed" : "free_requested"} ${bytes(this.size[i])} at ${this.address(i)}, ${shortened(this.stackName(i).main)}`;
    if (range) return `${this.ranges.verb(range)} ${bytes(this.ranges.size[Math.abs(range) - 1])} at ${this.ranges.address(Math.abs(range) - 1)}`;
    return "an event that changes no total";
  }
}

// What was reserved from the driver, one item a range; heap.js joins the ranges of expandable segments.
class Ranges {
  constructor(meta, planes) {
    Object.assign(this, { pools: meta.pools, streams: meta.streams });
    const read = (name) => column(planes, meta[name]);
    Object.assign(this, lives(read("born"), read("life")));
    for (const name of ["size", "stack", "pool", "stream", "kind"]) this[name] = read(name);
    this.low = read("address_low");
    this.high = read("address_high");
    this.count = this.size.length;
  }
  at(r) { return this.high[r] * 2 ** 32 + this.low[r]; }
  address(r) { return hexAddress(this.high[r], this.low[r]); }
  verb(change) {
    const expandable = this.kind[Math.abs(change) - 1] & EXPANDABLE_RANGE;
    return change > 0 ? (expandable ? "segment_map" : "segment_alloc") : expandable ? "segment_unmap" : "segment_free";
  }
  poolName(number) { return poolText(this.pools[number]); }
}
function poolText(id) { return id === "" ? "not recorded" : id === "0,0" ? "default pool" : `private pool ${id.replace(",", ", ")}`; }

function hexAddress(high, low) { return "0x" + ((BigInt(high) << 32n) | BigInt(low)).toString(16); }
function lives(steps, life) {
  const born = running(steps, Uint32Array);
  return { born, gone: Uint32Array.from(life, (states, i) => (states ? born[i] + states : FOREVER)) };
}
// Bytes held in each state.
export function totals(states, born, gone, size) {
  const out = new Float64Array(states + 1);
  for (let i = 0; i < born.length; i++) {
    out[born[i]] += size[i];
    if (gone[i] !== FOREVER) out[gone[i]] -= size[i];
  }
  for (let i = 1; i < out.length; i++) out[i] += out[i - 1];
  return out.subarray(0, states);
}
// Index of the first item above the value in an ascending list.
export function upperBound(list, value) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
}
