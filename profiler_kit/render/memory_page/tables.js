// ---- tables.js: the facts, the notices, and the table of each view ----

import { bytes, columnUnit, grouped, inUnit, percent } from "./format.js";
import { theme } from "./theme.js";
import { NO_STACK } from "./stacks.js";
import { NO_REGION } from "./device.js";
import { streamText } from "./layers.js";
import { LEAST_REST } from "./heap.js";
import { groupsAt, segmentAddress } from "./moment.js";
import { ORDERS } from "./segments.js";
import { byId, element, fillTable, nameOf, shareBar, shortened, swatch } from "./elements.js";
import { kindText } from "./detail.js";

export function showFacts(device, all) {
  const peak = device.peakBytes, end = device.allocated[device.states - 1], reserved = device.reservedAt(device.states - 1);
  const highest = bound(device.stats[0][3], peak), when = device.followed ? `at ${device.when(device.time[device.peak_state])}` : "no history to follow";
  const top = all.liveAt(device.peak_state, "stack")[0], holder = top ? all.keyName("stack", top.key) : null;
  const facts = [
    [device.followed ? "Peak requested" : "Requested at the end", highest, when],
    ...(device.followed ? [["In region", device.peak_region.join(" > ") || NO_REGION, ""]] : []),
    ["Held most by", holder ? holder.main : "–", top ? `${percent(top.bytes / Math.max(peak, 1))} of ${device.followed ? "the peak" : "it"}${holderText(holder)}` : ""],
    device.reserves ? ["Reserved at the end", bytes(reserved), `${bytes(end)} requested, ${percent(device.fragmentation)} in no active block`] : ["Requested at the end", bytes(end), ""],
    ...(device.reserves ? [["At the end, as torch counts", statText(device.stats[0]), device.stats.slice(1).map(statText).join(" · ")]] : []),
  ];
  byId("chart").setAttribute("aria-label", `Memory over time. ${device.followed ? "Peak" : "At the end"} ${highest} ${when}${holder ? `, held most by ${shortened(holder.main)}` : ""}. ` +
    "W and S zoom, A and D move, P goes to the peak, Home shows all, comma and dot step from event to event.");
  byId("facts").replaceChildren(...facts.map(([name, value, note]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { title: shortened(value, 1000) }, nameOf(value), element("small", {}, nameOf(note))))));
}

// Of torch.cuda.memory_stats: requested, allocated, active, reserved, and frees that are pending.
function statText([quantity, current, peak, known]) { return `${bytes(current)} ${quantity}${peak === null ? "" : ` (highest ${bound(known, peak)})`}`; }

// A number of bytes that may be known as a bound only.
function bound(known, size) { return `${known && `${known} `}${bytes(size)}`; }

function holderText({ main, where }) { return where ? `, ${where}` : main === NO_STACK ? ", as on autograd's backward thread" : ""; }

const LONG_NOTICE = 110, KINDS = { error: "danger", warning: "warn", note: "plain" };
export function showNotices(device, goTo) {
  byId("notices").replaceChildren(...device.notices.map(({ level, text, state }) => {
    const oom = device.ooms.find((one) => one.state === state);
    return notice(KINDS[level], text, oom && (() => goTo(oom)));
  }));
}
function notice(kind, text, go) {
  const box = element("p", { className: kind });
  if (text.length > LONG_NOTICE && !go && kind === "danger") box.append(element("details", {}, element("summary", { textContent: `${text.slice(0, LONG_NOTICE)}…` }), text));
  else box.append(text);
  if (go) box.append(" ", element("button", { textContent: "Show it", onclick: go }));
  return box;
}

// onChoose(key) is called when a row is chosen.
export function showLive(table, layers, state, mode, colouring, chosen, onChoose) {
  const groups = layers.liveAt(state, mode), total = Math.max(1, layers.totals[state]), unit = columnUnit(groups.length ? groups[0].bytes : 0);
  const columns = [{ name: mode === "stack" ? "allocated by" : mode }, { name: "allocations", number: true }, { name: "size", number: true }, { name: "share", number: true }];
  fillTable(table, columns, groups.map((group) => {
    const name = layers.keyName(mode, group.key);
    return {
      className: group.key === chosen ? "chosen" : "", choose: () => onChoose(group.key),
      cells: [[swatch(colouring.of(group.key)), nameOf(name.main), " ", nameOf(name.where, "where")], grouped(group.count), inUnit(group.bytes, unit), percent(group.bytes / total)],
    };
  }), 200);
}

function numberColumns(...names) { return names.map((name) => ({ name, number: true })); }

export function showRegions(table, device, chosen, onChoose) {
  const rows = device.region_rows, unit = columnUnit(rows.reduce((most, row) => Math.max(most, row[3]), 0));
  const columns = [{ name: "region" }, ...numberColumns("instances", "peak of the device", "allocated inside", "freed inside", "net")];
  fillTable(table, columns, rows.map(([path, instances, peak, allocated, freed, net]) => {
    const names = path < 0 ? [NO_REGION] : device.paths[path], indent = element("span", { className: "indent" });
    indent.style.width = `${(names.length - 1) * 18}px`;
    return {
      title: shortened(names.join(" > "), 1000), className: path + 1 === chosen ? "chosen" : "", choose: () => onChoose(path + 1),
      cells: [[indent, swatch(path < 0 ? theme().rest[0] : device.colours[path]), nameOf(names.at(-1))], path < 0 ? "" : grouped(instances), ...[peak, allocated, freed].map((value) => inUnit(value, unit)), net > 0 ? `+${inUnit(net, unit).replace("< ", "")}` : inUnit(net, unit)],
    };
  }), 1000);
}

function useBar(one, size, c) {
  return shareBar([[one.active / size, c.active, `active ${bytes(one.active)}`], [(one.pending || 0) / size, c.split, `pending free ${bytes(one.pending || 0)}`]]);
}
// Columns that would say the same in every row are left out.
export function showSegments(table, device, segments, colouring, mode, onChoose) {
  const sorted = [...segments].sort(ORDERS.size), unit = columnUnit(sorted.length ? sorted[0].end - sorted[0].start : 0), c = theme();
  const keyOf = (one) => (mode === "stream" ? one.stream : mode === "size" ? one.kind & SMALL_RANGE : one.pool), { ranges } = device;
  const columns = [
    [{ name: "segment" }, (one) => [swatch(colouring.of(keyOf(one))), segmentAddress(device, one)]],
    [{ name: "size", number: true }, (one) => inUnit(one.end - one.start, unit)],
    [{ name: "active", number: true }, (one) => inUnit(one.active, unit)],
    [{ name: "pending free", number: true }, (one) => inUnit(one.pending, unit), sorted.some((one) => one.pending)],
    [{ name: "inactive", number: true }, (one) => inUnit(one.inactive, unit)],
    [{ name: "largest free", number: true }, (one) => inUnit(one.largest, unit)],
    [{ name: "blocks", number: true }, (one) => grouped(one.count)],
    [{ name: "in use" }, (one) => useBar(one, one.end - one.start, c)],
    [{ name: "kind" }, (one) => kindText(one).replace(" (requests up to 1 MiB)", "")],
    [{ name: "pool" }, (one) => ranges.poolName(one.pool), new Set(ranges.pool).size > 1],
    [{ name: "stream" }, (one) => streamText(ranges.streams[one.stream]), ranges.streams.length > 1],
  ].filter(([, , wanted = true]) => wanted);
  fillTable(table, columns.map(([column]) => column), sorted.map((one) => ({ choose: () => onChoose(one), cells: columns.map(([, cell]) => cell(one)) })));
}

export function showPools(table, device, segments, colouring, chosen, onChoose) {
  const pools = new Map(), c = theme();
  for (const one of segments) {
    const pool = pools.get(one.pool) || { pool: one.pool, segments: 0, size: 0, active: 0, pending: 0, inactive: 0, largest: 0, streams: new Set() };
    pool.segments++;
    pool.size += one.end - one.start;
    for (const part of ["active", "pending", "inactive"]) pool[part] += one[part];
    pool.largest = Math.max(pool.largest, one.largest);
    pool.streams.add(one.stream);
    pools.set(one.pool, pool);
  }
  const rows = [...pools.values()].sort((a, b) => b.size - a.size), unit = columnUnit(rows.length ? rows[0].size : 0), all = Math.max(1, rows.reduce((sum, one) => sum + one.size, 0));
  const columns = [{ name: "pool" }, ...numberColumns("segments", "reserved", "share", "active", "pending free", "inactive", "largest free"), { name: "in use" }, { name: "streams" }];
  fillTable(table, columns, rows.map((one) => ({
    className: one.pool === chosen ? "chosen" : "", choose: () => onChoose(one.pool),
    cells: [[swatch(colouring.of(one.pool)), device.ranges.poolName(one.pool)], grouped(one.segments), inUnit(one.size, unit), percent(one.size / all), inUnit(one.active, unit), one.pending ? inUnit(one.pending, unit) : "–",
      inUnit(one.inactive, unit), inUnit(one.largest, unit), useBar(one, one.size, c), [...one.streams].map((stream) => streamText(device.ranges.streams[stream])).join(", ")],
  })));
}

// What an allocation of `wanted` bytes would find in each place it may look.
export function showFits(table, device, segments, wanted) {
  const groups = groupsAt(device, segments), unit = columnUnit(groups.length ? groups[0].reserved : 0);
  const columns = [{ name: "usable by" }, ...numberColumns("segments", "reserved", "active", "inactive", "free blocks", "largest free", "blocks that would do")];
  fillTable(table, columns, groups.map((one) => {
    const fits = one.holes.filter((hole) => hole >= wanted).length, served = !!one.small === wanted <= LEAST_REST;
    return { cells: [
      [`${device.ranges.poolName(one.pool)}, ${streamText(device.ranges.streams[one.stream])}, ${one.small ? "up to 1 MiB" : "above 1 MiB"}`], grouped(one.segments), inUnit(one.reserved, unit), inUnit(one.active, unit), inUnit(one.inactive, unit),
      grouped(one.holes.length), inUnit(one.largest, unit), served ? grouped(fits) : "not asked"] };
  }));
}

export function showSettings(table, head) {
  const rows = [["snapshot", head.path], ["source", head.source], ["torch", head.torch || "not recorded"], ["ring buffer", head.max_entries ? `${grouped(head.max_entries)} events` : "not recorded"]];
  for (const [name, value] of Object.entries(head.settings)) rows.push([name, settingText(value)]);
  fillTable(table, [{ name: "setting" }, { name: "value" }], rows.map(([name, value]) => ({ cells: [name, value === "" ? element("span", { className: "where", textContent: "(empty)" }) : value] })), 2000);
}
function settingText(value) {
  if (value === null || typeof value !== "object") return String(value);
  const entries = Object.entries(value);
  if (entries.length && entries.every(([, one]) => one === entries[0][1])) return `${settingText(entries[0][1])} for all ${grouped(entries.length)}`;
  return entries.map(([name, one]) => `${name}: ${settingText(one)}`).join(", ");
}
