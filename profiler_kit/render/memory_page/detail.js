// ---- detail.js: one allocation or segment in full, with its stack ----

import { bytes, counted, grouped, micros, percent } from "./format.js";
import { OTHER_FRAME, OWN_FRAME, PYTHON_FRAME } from "./stacks.js";
import { FOREVER } from "./device.js";
import { streamText } from "./layers.js";
import { EXPANDABLE_RANGE, SMALL_RANGE } from "./heap.js";
import { addressText, segmentAddress } from "./moment.js";
import { byId, element, nameOf } from "./elements.js";

export function lifetime(device, i) {
  const from = device.born[i] ? device.when(device.time[device.born[i]]) : device.followed ? "before the recording" : "not known";
  if (device.gone[i] === FOREVER) return `${from}, live at the end`;
  const freed = device.time[device.gone[i]];
  return device.born[i] ? `${from} to ${device.when(freed)}${device.timed ? ` (${micros(freed - device.time[device.born[i]])})` : ""}` : `${from}, freed at ${device.when(freed)}`;
}

// chosen: {allocation}, {segment}, {segment, block} of a hole, {oom}, or null.
export function showDetail(device, chosen) {
  const box = byId("detail"), what = chosen && describe(device, chosen);
  byId("copy").hidden = !what || what.stack === undefined;
  byId("detail-title").textContent = what ? what.title : "Details";
  if (!what) {
    box.replaceChildren(element("p", { textContent: "Point at the picture to see an allocation. A click keeps it here with its whole stack, and shows what else was live at that moment." }));
    return;
  }
  const list = element("dl", {}, ...what.facts.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", {}, nameOf(value))]));
  box.replaceChildren(list, ...(what.stack === undefined ? [] : stackList(device.stacks, what.stack)));
  box.scrollTop = 0;
}
function describe(device, { allocation, segment, block, oom }) {
  if (oom) return describeOom(oom);
  if (segment) return block ? describeHole(device, segment, block) : describeSegment(device, segment);
  const i = allocation, block_bytes = device.hasRanges && device.made.heap ? device.heap.blockBytes[i] : 0;
  return {
    title: "Allocation", stack: device.stack[i],
    facts: [
      ["Size", `${bytes(device.size[i])} (${grouped(device.size[i])} B)`], ...(block_bytes ? [["Block", `${bytes(block_bytes)}, ${bytes(block_bytes - device.size[i])} of it rounding`]] : []),
      ["Address", device.address(i)], ["Lived", lifetime(device, i)],
      ["Region", device.born[i] ? device.pathName(device.region[i]) : "–"], ["Stream", streamText(device.streams[device.stream[i]])],
      ...device.answers[device.said[i]].map(([key, text]) => [key[0].toUpperCase() + key.slice(1).replace("_", " "), text]),
    ],
  };
}
function describeSegment(device, segment) {
  const { ranges } = device, size = segment.end - segment.start, born = ranges.born[segment.ranges[0]];
  const share = (part) => `${bytes(part)} (${percent(part / size)})`;
  return {
    title: "Segment", stack: segment.stack,
    facts: [
      ["Size", `${bytes(size)} (${grouped(size)} B)`], ["Address", segmentAddress(device, segment)], ["Active", share(segment.active)],
      ...(segment.pending ? [["Pending free", share(segment.pending)]] : []), ["Inactive", share(segment.inactive)], ["Largest free", bytes(segment.largest)],
      ["Blocks", grouped(segment.count)], ["Kind", kindText(segment)], ["Pool", ranges.poolName(segment.pool)], ["Stream", streamText(ranges.streams[segment.stream])],
      ["Reserved", born ? `at ${device.when(device.time[born])}` : device.followed ? "before the recording" : "not known"],
    ],
  };
}
export function kindText(segment) {
  const small = segment.kind & SMALL_RANGE ? "small (requests up to 1 MiB)" : "large";
  return segment.kind & EXPANDABLE_RANGE ? `${small}, expandable, ${counted(segment.ranges.length, "mapping")}` : small;
}
function describeHole(device, segment, block) {
  return {
    title: "Inactive block", stack: undefined,
    facts: [
      ["Size", `${bytes(block.bytes)} (${grouped(block.bytes)} B)`], ["Address", addressText(block.start)],
      ["Segment", `${segmentAddress(device, segment)}, ${bytes(segment.end - segment.start)}, ${counted(segment.count, "block")} in use`],
      ["Usable by", `${device.ranges.poolName(segment.pool)}, ${streamText(device.ranges.streams[segment.stream])}, ${segment.kind & SMALL_RANGE ? "requests up to 1 MiB" : "requests above 1 MiB"}`],
    ],
  };
}
function describeOom(oom) {
  return {
    title: "Out of memory", stack: oom.stack,
    facts: [
      ["Asked for", bytes(oom.requested_bytes)], ["Time", device.when(oom.time_us)], ["Free on the device", bytes(oom.device_free_bytes)], ["Allocated", bytes(oom.allocated_bytes)],
      ["Reserved, not allocated", bytes(oom.reserved_bytes - oom.allocated_bytes)], ["Why", oom.why],
    ],
  };
}

// Runs of C++ frames fold up when there is Python to see.
function stackList(stacks, stack) {
  const frames = [...stacks.of(stack)];
  if (!frames.length) return ["No stack was recorded for it."];
  const item = (frame) => element("li", { className: stacks.kinds[frame] === OWN_FRAME ? "own" : "", textContent: stacks.shownText(frame) });
  const hasPython = frames.some((frame) => stacks.kinds[frame] >= PYTHON_FRAME), parts = [];
  for (let from = 0; from < frames.length;) {
    const other = hasPython && stacks.kinds[frames[from]] === OTHER_FRAME;
    let to = from + 1;
    while (to < frames.length && (hasPython && stacks.kinds[frames[to]] === OTHER_FRAME) === other) to++;
    const run = element("ol", {}, ...frames.slice(from, to).map(item));
    parts.push(other && to - from > 1 ? element("details", {}, element("summary", { textContent: `${to - from} C++ frames` }), run) : run);
    from = to;
  }
  return parts;
}

export function detailText(device, chosen) {
  const { title, facts, stack } = describe(device, chosen);
  const frames = stack === undefined ? [] : [...device.stacks.of(stack)].map((frame) => `  ${device.stacks.text(frame).replace("  ", " ")}`);
  return [title, ...facts.map(([name, value]) => `${name}: ${value}`), ...frames].join("\n");
}
