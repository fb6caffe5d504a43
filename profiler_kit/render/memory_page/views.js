// ---- views.js: the views of the page: what the chart shows in each, how high it is, and what is below it ----

import { bytes, counted, percent } from "./format.js";
import { theme } from "./theme.js";
import { OWN_FRAME } from "./stacks.js";
import { fragmentationLegend } from "./lines.js";
import { flameTree } from "./flame.js";
import { byId, element } from "./elements.js";
import { showFits, showLive, showPools, showRegions, showSegments, showSettings } from "./tables.js";

// height: share of the window's height; colour: what the chart is coloured by at first.
export const VIEWS = {
  memory: { name: "Active memory", chart: "allocations", detail: true, height: 0.35, draw: drawLive },
  flame: { name: "Flame graph", chart: "allocations", detail: true, height: 0.2, draw: drawFlame },
  state: { name: "Allocator state", chart: "allocations", detail: true, height: 0.16, needs: "ranges", draw: drawState },
  segments: { name: "Cached segments", chart: "segments", detail: true, height: 0.3, needs: "ranges", draw: drawSegments },
  pools: { name: "Private pools", chart: "segments", height: 0.3, needs: "ranges", draw: drawPools },
  fragmentation: { name: "Fragmentation", chart: "lines", height: 0.32, needs: "ranges", draw: drawFragments },
  regions: { name: "Regions", needs: "history", chart: "allocations", colour: "region", height: 0.25, draw: drawRegions },
  settings: { name: "Settings", chart: "", draw: (page) => showSettings(byId("settings"), page.head) },
};

function drawLive(page) {
  byId("live-title").textContent = `Live ${page.momentText()}: ${bytes(page.layers.totals[page.state])}`;
  showLive(byId("live"), page.layers, page.state, page.mode, page.colouring, page.chosenKey, (key) => page.chooseKey(key));
}

function drawFlame(page) {
  const { layers, device, colouring, mode } = page, root = flameTree(layers, page.state, { regions: byId("flame-regions").checked, cpp: byId("flame-cpp").checked });
  byId("flame-title").textContent = `Live ${page.momentText()}: ${bytes(root.bytes)}`;
  const matches = page.searched ? (frame) => device.stacks.text(frame).toLowerCase().includes(page.searched) : null;
  page.flame.show({ root, matches, colour: (node) => flameColour(page, node, colouring, mode), own: (frame) => frame >= 0 && device.stacks.kinds[frame] === OWN_FRAME, fold: byId("flame-fold").checked });
}
// A frame takes the colour that its largest group has in the chart when it holds one group only, else a grey.
function flameColour({ device, layers }, node, colouring, mode) {
  if (node.frame === -2) return device.colours[device.paths.findIndex((path) => path.at(-1) === node.label)] || theme().rest[0];
  if (node.children.size) return theme().rest[Math.abs(node.frame) % theme().rest.length];
  return colouring.of(layers.keyOfId(mode, node.allocation));
}

export function drawState(page) {
  const { device, colouring, layers } = page, segments = page.segmentsNow(), { mode } = page;
  const sum = (part) => segments.reduce((total, one) => total + one[part], 0);
  byId("state-title").textContent = `Segments and blocks ${page.momentText()}`;
  byId("state-facts").textContent = `${counted(segments.length, "segment")} · ${bytes(sum("active"))} in active blocks` +
    `${sum("pending") ? ` · ${bytes(sum("pending"))} pending free` : ""} · ${bytes(sum("inactive"))} inactive`;
  page.bars.show({
    device, segments, order: byId("state-order").value, scale: byId("state-scale").value, match: page.matching(),
    chosen: page.kept && page.kept.allocation !== undefined ? page.kept.allocation : -1, colour: (i) => colouring.of(layers.keyOfId(mode, i)),
  });
}

function drawSegments(page) {
  byId("segments-title").textContent = `Segments ${page.momentText()}: ${bytes(page.device.reserved[page.state])} reserved`;
  showSegments(byId("segments"), page.device, page.segmentsNow(), page.colouring, page.mode, (segment) => page.keep({ segment }));
}

function drawPools(page) {
  const segments = page.segmentsNow(), { pools } = page.device.ranges, isPrivate = pools.some((id) => id !== "" && id !== "0,0");
  byId("pools-title").textContent = `Pools ${page.momentText()}`;
  byId("pools-note").textContent = (isPrivate ? "A private pool serves the CUDA graph (or the MemPool) it was made for and nothing else. " : "The snapshot holds no private pool: nothing was captured as a CUDA graph, or it was freed. ") +
    (segments.some((one) => pools[one.pool] === "") ? "A segment's pool is recorded at the end only: of segments given back before it is not known." : "");
  showPools(byId("pools"), page.device, segments, page.colouring, page.chosenKey, (key) => page.chooseKey(key));
}

function drawFragments(page) {
  const { device, state } = page, { heap } = device, reserved = device.reserved[state], active = heap.active[state], unused = heap.unused[state];
  byId("fragments-title").textContent = `Reserved memory ${page.momentText()}: ${bytes(reserved)}`;
  const parts = [["Active blocks", active], ["Inactive, in used segments", reserved - active - unused], ["Unused segments", unused], ["Largest free block", heap.largest[state]]];
  byId("fragments-facts").replaceChildren(...parts.map(([name, value]) => element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: bytes(value) },
    element("small", { textContent: `${percent(value / Math.max(1, reserved))} of reserved` })))));
  byId("fragments-legend").replaceChildren(...fragmentationLegend(theme()));
  const wanted = Math.max(0, Number(byId("fit-size").value) || 0) * 2 ** 20;
  showFits(byId("fits"), device, page.segmentsNow(), heap.rounded(wanted));
}

function drawRegions(page) {
  byId("regions-note").textContent = page.device.paths.length ? "An event counts in every region that was open at its time. The peak is the device's total while the region was open." : "No region was recorded: put work into record_function or profiler_kit.region blocks.";
  showRegions(byId("regions"), page.device, page.mode === "region" ? page.chosenKey : null, (key) => page.chooseRegion(key));
}
