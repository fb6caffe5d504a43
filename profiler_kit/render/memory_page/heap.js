// ---- heap.js: the allocator's address space over time: blocks, free extents, fragmentation ----

import { FOREVER, upperBound } from "./device.js";

// It does what CUDACachingAllocator does with a request: round it, take it off the front of a free extent, and leave
// the rest free unless the rest is too small to split off.

export const SMALL_RANGE = 1, EXPANDABLE_RANGE = 2; // bits of Ranges.kind
export const ROUND = 512, LEAST_REST = 1 << 20; // kMinBlockSize, kSmallSize

export class Heap {
  constructor(device) {
    this.device = device;
    const { settings } = device, limit = Number(settings.max_split_size);
    this.mostSplit = limit > 0 ? limit : Infinity;
    this.divisions = Array.from({ length: 16 }, (_, i) => Number((settings.roundup_power2_divisions || {})[String(2 ** i)]) || 0);
    this.blockBytes = new Float64Array(device.count); // how much of its segment an allocation takes
    this.active = new Float64Array(device.states);
    this.unused = new Float64Array(device.states); // in segments without any block: could go back to the driver
    this.largest = new Float64Array(device.states); // largest free extent
    this.spaces = []; // contiguous reserved memory, by address
    this.widest = new MaxTree();
    this.total = { active: 0, unused: 0 };
    this.run();
    this.spaces = this.widest = null;
  }

  run() {
    const { device } = this, { ranges } = device, { of } = device.changes;
    let born = 0, dying = 0;
    const ended = [...ranges.gone.keys()].filter((r) => ranges.gone[r] !== FOREVER).sort((a, b) => ranges.gone[a] - ranges.gone[b]);
    for (; born < ranges.count && ranges.born[born] === 0; born++) this.addRange(born);
    this.placeFirst();
    this.note(0);
    for (let state = 1; state < device.states; state++) {
      for (; born < ranges.count && ranges.born[born] === state; born++) this.addRange(born);
      for (; dying < ended.length && ranges.gone[ended[dying]] === state; dying++) this.dropRange(ended[dying]);
      if (of[state] > 0) this.place(of[state] - 1);
      else if (of[state] < 0) this.release(-of[state] - 1);
      this.note(state);
    }
  }
  note(state) {
    this.active[state] = this.total.active;
    this.unused[state] = this.total.unused;
    this.largest[state] = this.widest.top;
  }
  rounded(size) {
    if (size < ROUND) return ROUND;
    const division = this.divisions[Math.max(0, Math.min(15, Math.floor(Math.log2(size)) - 20))];
    if (division > 1 && size > ROUND * division) {
      const floor = 2 ** Math.floor(Math.log2(size)), step = floor / 2 ** Math.floor(Math.log2(division));
      return size === floor ? size : Math.ceil(size / step) * step;
    }
    return Math.ceil(size / ROUND) * ROUND;
  }

  // ---- reserved memory ----
  addRange(r) {
    const { ranges } = this.device, start = ranges.at(r), end = start + ranges.size[r];
    const space = { start, end, kind: ranges.kind[r], from: [start], to: [end], slot: this.widest.add(end - start) };
    const at = this.spaceIndex(start) + 1, left = this.spaces[at - 1], right = this.spaces[at];
    this.spaces.splice(at, 0, space);
    this.total.unused += unusedIn(space);
    if (!(space.kind & EXPANDABLE_RANGE)) return;
    if (right && right.start === end && right.kind & EXPANDABLE_RANGE) this.join(at);
    if (left && left.end === start && left.kind & EXPANDABLE_RANGE) this.join(at - 1);
  }
  join(at) { // with the space to its right
    const space = this.spaces[at], [right] = this.spaces.splice(at + 1, 1);
    this.total.unused -= unusedIn(space) + unusedIn(right);
    space.end = right.end;
    if (space.to.at(-1) === right.from[0]) { space.to.pop(); right.from.shift(); }
    for (const from of right.from) space.from.push(from);
    for (const to of right.to) space.to.push(to);
    this.total.unused += unusedIn(space);
    this.widest.drop(right.slot);
    this.measure(space);
  }
  dropRange(r) {
    const { ranges } = this.device, start = ranges.at(r), end = start + ranges.size[r], at = this.spaceIndex(start), space = this.spaces[at];
    if (!space || space.end < end) return;
    const parts = [[space.start, start], [end, space.end]].filter(([from, to]) => to > from).map(([from, to]) => this.part(space, from, to));
    this.total.unused += parts.reduce((sum, part) => sum + unusedIn(part), 0) - unusedIn(space);
    this.widest.drop(space.slot);
    this.spaces.splice(at, 1, ...parts);
  }
  part(space, start, end) {
    const made = { start, end, kind: space.kind, from: [], to: [], slot: this.widest.add(0) };
    space.from.forEach((from, i) => {
      const low = Math.max(from, start), high = Math.min(space.to[i], end);
      if (low < high) { made.from.push(low); made.to.push(high); }
    });
    this.measure(made);
    return made;
  }
  measure(space) {
    let most = 0;
    for (let i = 0; i < space.from.length; i++) most = Math.max(most, space.to[i] - space.from[i]);
    this.widest.set(space.slot, most);
  }
  spaceIndex(place) {
    let low = 0, high = this.spaces.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.spaces[middle].start <= place) low = middle + 1; else high = middle;
    }
    return low - 1;
  }

  // ---- blocks ----
  placeFirst() { // what was there before: a rest too small to be a block of its own belongs to the block before it
    const { device } = this, first = [];
    for (let i = 0; i < device.count && device.born[i] === 0; i++) first.push(i);
    for (const i of first) this.place(i, true);
    for (const i of first) {
      const space = this.spaces[this.spaceIndex(device.at(i))];
      if (!space || device.block[i] || space.kind & (SMALL_RANGE | EXPANDABLE_RANGE)) continue;
      const at = space.from.indexOf(device.at(i) + this.blockBytes[i]), rest = at < 0 ? 0 : space.to[at] - space.from[at];
      if (!rest || rest > LEAST_REST) continue;
      space.from.splice(at, 1);
      space.to.splice(at, 1);
      this.blockBytes[i] += rest;
      this.total.active += rest;
      this.measure(space);
    }
  }
  place(i, exact = false) {
    const { device } = this, start = device.at(i), space = this.spaces[this.spaceIndex(start)];
    let taken = (exact && device.block[i]) || this.rounded(device.size[i]);
    if (space && start < space.end) {
      const at = upperBound(space.from, start) - 1, before = unusedIn(space);
      if (at >= 0 && start < space.to[at]) taken = this.take(space, at, start, taken, device.gone[i] === FOREVER ? device.block[i] : 0, exact);
      this.total.unused += unusedIn(space) - before;
    }
    this.blockBytes[i] = taken;
    this.total.active += taken;
  }
  take(space, at, start, wanted, known, exact) {
    const from = space.from[at], to = space.to[at], room = to - start;
    const splits = space.kind & (SMALL_RANGE | EXPANDABLE_RANGE) ? room - wanted >= ROUND : wanted < this.mostSplit && room - wanted > LEAST_REST;
    const taken = Math.min(room, known || (exact || splits ? wanted : room)), rest = room - taken;
    if (from < start && rest) { space.to[at] = start; space.from.splice(at + 1, 0, start + taken); space.to.splice(at + 1, 0, to); }
    else if (from < start) space.to[at] = start;
    else if (rest) space.from[at] = start + taken;
    else { space.from.splice(at, 1); space.to.splice(at, 1); }
    if (to - from >= this.widest.of(space.slot)) this.measure(space);
    return taken;
  }
  release(i) {
    const { device } = this, start = device.at(i), bytesOf = this.blockBytes[i], space = this.spaces[this.spaceIndex(start)];
    this.total.active -= bytesOf;
    if (!space || start >= space.end) return;
    const before = unusedIn(space);
    let at = upperBound(space.from, start), from = start, to = Math.min(space.end, start + bytesOf);
    if (at > 0 && space.to[at - 1] >= from) { at--; from = space.from[at]; to = Math.max(to, space.to[at]); }
    let joined = at;
    while (joined < space.from.length && space.from[joined] <= to) to = Math.max(to, space.to[joined++]);
    space.from.splice(at, joined - at, from);
    space.to.splice(at, joined - at, to);
    if (to - from > this.widest.of(space.slot)) this.widest.set(space.slot, to - from);
    this.total.unused += unusedIn(space) - before;
  }
}
// All of a segment without any block, else nothing. An expandable one counts as used: it is never given back whole.
function unusedIn({ start, end, kind, from, to }) {
  return from.length === 1 && from[0] === start && to[0] === end && !(kind & EXPANDABLE_RANGE) ? end - start : 0;
}

// The largest of many numbers that change one at a time.
class MaxTree {
  constructor() { this.size = 64; this.values = new Float64Array(128); this.free = Array.from({ length: 64 }, (_, i) => 63 - i); }
  get top() { return this.values[1]; }
  of(slot) { return this.values[this.size + slot]; }
  add(value) {
    if (!this.free.length) this.grow();
    const slot = this.free.pop();
    this.set(slot, value);
    return slot;
  }
  drop(slot) { this.set(slot, 0); this.free.push(slot); }
  set(slot, value) {
    const { values } = this;
    let at = this.size + slot;
    values[at] = value;
    for (at >>= 1; at; at >>= 1) values[at] = Math.max(values[2 * at], values[2 * at + 1]);
  }
  grow() {
    const old = this.values.slice(this.size), size = this.size;
    this.size = 2 * size;
    this.values = new Float64Array(2 * this.size);
    for (let slot = size; slot < this.size; slot++) this.free.push(slot);
    old.forEach((value, slot) => this.set(slot, value));
  }
}
