// ---- moment.js: the segments of a device at one moment, each with its blocks and holes ----

import { EXPANDABLE_RANGE, SMALL_RANGE } from "./heap.js";

// Returns [{start, end, ranges, blocks, active, pending, inactive, largest, pool, stream, kind, stack, key}] by address.
// A block is {i, start, bytes, pending}; a hole between them has i = -1. What lies in no known segment is left out.
export function segmentsAt(device, state) {
  const { heap } = device, found = reservedAt(device, state), live = [];
  for (let i = 0; i < device.count && device.born[i] <= state; i++) if (device.gone[i] > state) live.push(i);
  const starts = Float64Array.from(live, (i) => device.at(i));
  const order = Uint32Array.from(live.keys()).sort((a, b) => starts[a] - starts[b]);
  let at = 0;
  for (const segment of found) {
    let place = segment.start;
    while (at < order.length && starts[order[at]] < segment.start) at++;
    for (; at < order.length && starts[order[at]] < segment.end; at++) {
      const i = live[order[at]], start = starts[order[at]], size = Math.min(heap.blockBytes[i], segment.end - start), pending = device.isPending(i, state);
      if (start > place) addHole(segment, place, start);
      segment.blocks.push({ i, start, bytes: size, pending });
      segment[pending ? "pending" : "active"] += size;
      segment.count++;
      place = Math.max(place, start + size);
    }
    if (place < segment.end) addHole(segment, place, segment.end);
  }
  return found;
}
function addHole(segment, from, to) {
  segment.blocks.push({ i: -1, start: from, bytes: to - from, pending: false });
  segment.inactive += to - from;
  segment.largest = Math.max(segment.largest, to - from);
}

export function reservedAt(device, state) {
  const { ranges } = device, live = [];
  for (let r = 0; r < ranges.count && ranges.born[r] <= state; r++) if (ranges.gone[r] > state) live.push(r);
  live.sort((a, b) => ranges.at(a) - ranges.at(b));
  const found = [];
  for (const r of live) {
    const start = ranges.at(r), last = found.at(-1);
    const joins = last && last.end === start && ranges.kind[r] & last.kind & EXPANDABLE_RANGE;
    if (joins) { last.end = start + ranges.size[r]; last.ranges.push(r); continue; }
    found.push({
      start, end: start + ranges.size[r], ranges: [r], blocks: [], count: 0, active: 0, pending: 0, inactive: 0, largest: 0,
      pool: ranges.pool[r], stream: ranges.stream[r], kind: ranges.kind[r], stack: ranges.stack[r],
    });
  }
  return found;
}
export function segmentAddress(device, segment) { return device.ranges.address(segment.ranges[0]); }
export function addressText(start) { return "0x" + start.toString(16); }

// What an allocation of so many bytes would find: the free blocks that would do, by where they may be used.
// Requests up to 1 MiB are served from small segments only, larger ones from large segments; a pool and a stream keep
// their blocks to themselves.
export function groupsAt(device, segments) {
  const groups = new Map();
  for (const one of segments) {
    const small = one.kind & SMALL_RANGE, key = `${one.pool} ${one.stream} ${small}`;
    const group = groups.get(key) || { pool: one.pool, stream: one.stream, small, segments: 0, reserved: 0, active: 0, inactive: 0, largest: 0, holes: [] };
    group.segments++;
    group.reserved += one.end - one.start;
    group.active += one.active + one.pending;
    group.inactive += one.inactive;
    group.largest = Math.max(group.largest, one.largest);
    for (const block of one.blocks) if (block.i < 0) group.holes.push(block.bytes);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.reserved - a.reserved);
}
