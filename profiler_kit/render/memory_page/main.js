// ---- main.js: what the page shows (device, view, moment, selection), and how that changes ----

import { bytes, counted, grouped, micros } from "./format.js";
import { Colouring, theme } from "./theme.js";
import { Stacks } from "./stacks.js";
import { Device } from "./device.js";
import { Allocations, Segments, streamText } from "./layers.js";
import { segmentsAt } from "./moment.js";
import { Axis } from "./axis.js";
import { Chart } from "./chart.js";
import { Bands, Minimap } from "./marks.js";
import { Flame } from "./flame.js";
import { SegmentBars } from "./segments.js";
import { byId, copyText, element, shortened } from "./elements.js";
import { detailText, showDetail } from "./detail.js";
import { showFacts, showNotices } from "./tables.js";
import { VIEWS, drawState } from "./views.js";
import { followLink, linkNumber, readLink, writeLink } from "./link.js";

const MOST_PREPARED = 700_000;

export class Page {
  constructor(head, planes) {
    Object.assign(this, { head, planes, stacks: new Stacks(head, planes), devices: new Map(), stream: -1, view: "memory", axisKind: "time", searched: "", link: "" });
    this.modes = {}; // what each view is coloured by, where it is not as at first
    this.chart = new Chart(byId("chart"));
    this.bands = new Bands(byId("bands"), this.chart);
    this.minimap = new Minimap(byId("minimap"), this.chart);
    this.flame = new Flame(byId("flame"), (node) => { if (node.allocation >= 0) this.keep({ allocation: node.allocation }); });
    this.bars = new SegmentBars(byId("state"), (found) => this.keep(found));
    this.fillFields();
    const parts = readLink(), device = linkNumber(parts, "device");
    if (["light", "dark"].includes(parts.get("theme"))) document.documentElement.dataset.theme = parts.get("theme");
    this.choose(device ?? head.first ?? 0);
    if (this.device) followLink(this, parts);
  }

  fillFields() {
    const { head } = this;
    const made = head.source === "torch.profiler" ? "recorded on a CPU by torch.profiler" : "CUDA caching allocator";
    byId("about").textContent = [made, head.torch ? `torch ${head.torch}` : ""].filter(Boolean).join(" · ");
    byId("device").replaceChildren(...head.devices.map((one) => element("option", { value: one.device, textContent: `${one.name} (${grouped(one.events)} events)` })));
    byId("device-field").hidden = head.devices.length < 2;
    byId("tabs").replaceChildren(...Object.entries(VIEWS).map(([key, view], i) => {
      const tab = element("button", { id: `tab-${key}`, textContent: view.name, title: `${i + 1}`, onclick: () => this.show(key) });
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-controls", `panel-${key}`);
      return tab;
    }));
  }

  // ---- state ----
  choose(number) {
    const meta = this.head.devices.find((one) => one.device === number) || this.head.devices[0];
    if (!meta) { byId("notices").replaceChildren(element("p", { className: "warn", textContent: "The snapshot names no device." })); return; }
    if (!this.devices.has(meta.device)) this.devices.set(meta.device, new Device(meta, this.planes, this.stacks, this.head.settings));
    const device = (this.device = this.devices.get(meta.device));
    byId("device").value = meta.device;
    byId("stream").replaceChildren(element("option", { value: -1, textContent: "all" }), ...device.streams.map((id, i) => element("option", { value: i, textContent: streamText(id) })));
    byId("moment").max = device.states - 1;
    for (const [key, view] of Object.entries(VIEWS)) byId(`tab-${key}`).hidden = !this.has(view);
    this.setAxisKind(device.timed ? this.axisKind : "order");
    byId("axis-field").hidden = !device.timed;
    this.moment = this.momentTime = null;
    this.kept = null;
    this.found = null;
    this.setLayers(-1);
    showFacts(device, this.layers);
    showNotices(device, (oom) => this.showOom(oom));
    this.search(byId("search").value);
    this.show(this.view);
  }
  get state() { return this.moment === null ? this.device.peak_state : this.moment; }
  get kind() { return VIEWS[this.view].chart === "segments" ? "segments" : "allocations"; }
  get current() { return this.kind === "segments" ? this.segmentLayer() : this.layers; }
  get mode() { return this.modes[VIEWS[this.view].colour || this.kind] || this.defaultMode(); }
  defaultMode() { return VIEWS[this.view].colour || (this.kind === "segments" ? "pool" : "stack"); }
  segmentLayer() { return (this.device.made.segments ||= new Segments(this.device)); }
  momentText() { return !this.device.followed ? "at the end" : this.state === this.device.peak_state ? "at the peak" : `at ${this.device.when(this.momentTime ?? this.device.time[this.state])}`; }

  show(view) {
    if (!this.has(VIEWS[view])) view = "memory";
    const before = this.mode;
    this.view = view;
    if (before !== this.mode) this.chosenKey = null;
    for (const key of Object.keys(VIEWS)) {
      byId(`tab-${key}`).setAttribute("aria-selected", String(key === view));
      byId(`tab-${key}`).tabIndex = key === view ? 0 : -1;
      byId(`panel-${key}`).hidden = key !== view;
    }
    const { chart, detail } = VIEWS[view];
    byId("toolbar").hidden = !chart;
    byId("picture").hidden = byId("moves").hidden = !chart || !this.device.followed; // nothing moves without a history
    byId("detail-panel").hidden = !detail;
    byId("panels").className = detail ? `panels ${view}` : "panels alone";
    byId("colour-field").hidden = chart === "lines";
    byId("search").hidden = byId("found").hidden = chart !== "allocations";
    byId("stream-field").hidden = chart !== "allocations" || this.device.streams.length < 2;
    byId("colours").replaceChildren(...this.current.modes().map((mode) => element("label", {},
      element("input", { type: "radio", name: "colour", value: mode, checked: mode === this.mode, onchange: () => this.setMode(mode) }), element("span", { textContent: mode }))));
    showDetail(this.device, this.kept);
    this.recolour();
  }
  has({ needs }) { return needs === "ranges" ? this.device.hasRanges : needs !== "history" || this.device.followed; }
  setMode(mode) {
    this.modes[VIEWS[this.view].colour || this.kind] = mode;
    for (const input of document.getElementsByName("colour")) input.checked = input.value === mode;
    this.chosenKey = null;
    this.recolour();
  }
  setStream(number) {
    this.setLayers(number);
    this.recolour();
  }
  setLayers(number) {
    this.stream = number;
    byId("stream").value = number;
    this.layers = new Allocations(this.device, number);
    this.chosenKey = null;
  }
  recolour() {
    this.colouring = new Colouring(this.current, this.mode);
    this.refresh();
  }
  // What is below the chart, and the chart.
  refresh() {
    const { device, state } = this;
    byId("back").hidden = state === device.peak_state;
    byId("moment").value = state;
    byId("moment-text").textContent = !device.followed ? "the end" : `${state === device.peak_state ? "peak, " : ""}${device.timed ? `${micros(this.momentTime ?? device.time[state])} · ` : ""}event ${grouped(state)} · ${device.eventText(state)}`;
    VIEWS[this.view].draw(this);
    this.redraw();
  }
  // Replay the blocks before anybody asks, where that takes no longer than a blink.
  prepare() { if (this.device.hasRanges && this.device.states < MOST_PREPARED) this.device.heap; }
  segmentsNow() {
    const { device, state } = this, { made } = device;
    if (!made.now || made.now.state !== state) made.now = { state, segments: segmentsAt(device, state) };
    return made.now.segments;
  }
  chooseKey(key) {
    this.chosenKey = this.chosenKey === key ? null : key;
    this.refresh();
  }
  chooseRegion(key) {
    if (this.mode !== "region") this.setMode("region");
    this.chooseKey(key);
  }
  setMoment(state, time = null) {
    this.moment = state;
    this.momentTime = time;
    this.refresh();
  }
  stepMoment(by) { this.setMoment(Math.max(0, Math.min(this.device.states - 1, this.state + by))); }
  showOom(oom) {
    this.setMoment(oom.state, oom.time_us);
    this.keep({ oom });
  }
  // chosen: an allocation, a segment, a hole in one, a failure (detail.js), or null.
  keep(chosen) {
    this.kept = chosen;
    showDetail(this.device, chosen);
    if (this.view === "state") drawState(this);
    this.redraw();
  }
  search(text) {
    const { device } = this, wanted = text.trim();
    this.found = null;
    this.searched = wanted.toLowerCase();
    byId("found").textContent = "";
    if (!wanted) return;
    this.found = new Uint8Array(device.count);
    const isAddress = /^0x[0-9a-f]{1,16}$/i.test(wanted), stacks = isAddress ? null : this.stacks.matching(wanted);
    const address = isAddress ? BigInt(wanted) : 0n;
    let count = 0, atPeak = 0;
    for (let i = 0; i < device.count; i++) {
      if (!(isAddress ? device.holds(i, address) : stacks[device.stack[i]])) continue;
      this.found[i] = 1;
      count++;
      if (device.isLive(i, device.peak_state)) atPeak += device.size[i];
    }
    byId("found").textContent = count ? `${counted(count, "allocation")}, ${bytes(atPeak)} ${device.followed ? "at the peak" : "at the end"}` : "nothing found";
  }
  nextFound() { // the next one after what is kept, with the moment it was made
    if (!this.found) return;
    const from = this.kept && this.kept.allocation !== undefined ? this.kept.allocation + 1 : 0;
    let i = this.found.indexOf(1, from);
    if (i < 0) i = this.found.indexOf(1);
    if (i < 0) return;
    this.keep({ allocation: i });
    this.setMoment(this.device.born[i]);
  }
  // One byte per item of the chart's layer: is it what was searched for and chosen? null: everything is.
  matching() {
    const { device, current, chosenKey, found, mode } = this, searched = this.kind === "segments" ? null : found;
    if (chosenKey === null) return searched;
    const out = new Uint8Array(this.kind === "segments" ? current.count : device.count);
    const within = mode === "region" && chosenKey > 0 ? this.pathsWithin(chosenKey) : null; // a region and those inside it
    for (let i = 0; i < out.length; i++) {
      const key = current.keyOfId(mode, i);
      if ((within ? within.has(key) : key === chosenKey) && (!searched || searched[i])) out[i] = 1;
    }
    return out;
  }
  pathsWithin(key) {
    const { paths } = this.device, path = paths[key - 1];
    return new Set(paths.flatMap((one, number) => (path.every((name, depth) => one[depth] === name) ? [number + 1] : [])));
  }

  // ---- drawing ----
  redraw() {
    if (this.waiting || !this.device) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.drawNow(); });
  }
  drawNow() {
    const since = performance.now();
    const { device, axis, mode, colouring, momentTime, current, moment } = this, { chart, height } = VIEWS[this.view];
    if (chart && device.followed) {
      const time = moment === null ? null : momentTime ?? device.time[moment];
      const view = { device, layers: current, axis, mode, colouring, match: this.matching(), momentTime: time, height: Math.round(Math.max(130, height * Math.min(1400, innerHeight))), kind: chart };
      this.chart.draw(view);
      this.bands.draw(view, theme());
      this.minimap.draw(view, theme());
      this.status();
    }
    writeLink(this);
    this.drawing_ms = performance.now() - since;
  }
  status(x) {
    const { device, axis } = this;
    if (x === undefined) {
      const shown = axis.kind === "time" ? `${micros(axis.from)} to ${micros(axis.to)} of ${micros(axis.end)}` : `events ${grouped(Math.floor(axis.from))} to ${grouped(Math.ceil(axis.to))} of ${grouped(device.events)}`;
      byId("status").textContent = `${shown} · ${counted(this.layers.count, "allocation")}`;
      return;
    }
    const state = this.chart.stateUnder(x);
    byId("status").textContent = `${device.timed ? `${micros(device.time[state])} · ` : ""}event ${grouped(state)} · ${bytes(this.layers.totals[state])} allocated${device.reserves ? ` · ${bytes(device.reservedAt(state))} reserved` : ""} · ${shortened(device.regionAt(state))}`;
  }

  // ---- moving ----
  zoom(factor, at) {
    const { axis } = this, x = at ?? (axis.from + axis.to) / 2, wide = axis.to - axis.from;
    const next = Math.min(axis.end, Math.max(axis.least, wide * factor)), share = (x - axis.from) / wide;
    axis.show(x - next * share, x + next * (1 - share));
    this.redraw();
  }
  move(share) {
    const { axis } = this, by = (axis.to - axis.from) * share;
    axis.show(axis.from + by, axis.to + by);
    this.redraw();
  }
  showAll() { this.axis.show(0, this.axis.end); this.redraw(); }
  toPeak() {
    const { axis, device } = this, x = axis.ofState(device.peak_state), wide = Math.max(axis.least * 4, axis.end / 20);
    axis.show(x - wide / 2, x + wide / 2);
    this.chosenKey = null;
    this.setMoment(null);
  }
  setAxisKind(kind) {
    this.axis = new Axis(this.device, kind);
    for (const input of document.getElementsByName("axis")) input.checked = input.value === kind;
  }
  setAxis(kind) {
    const first = this.axis.stateAt(this.axis.from), last = this.axis.stateAt(this.axis.to), { whole } = this.axis;
    this.axisKind = kind;
    this.setAxisKind(kind);
    if (!whole) this.axis.show(this.axis.ofState(first), this.axis.endOfState(last));
    this.redraw();
  }
  clear() {
    this.chosenKey = null;
    this.flame.path = [];
    this.keep(null);
    this.setMoment(null);
  }
  setTheme(name) {
    document.documentElement.dataset.theme = name;
    this.recolour();
  }
  copy() {
    if (!this.kept) return;
    copyText(detailText(this.device, this.kept));
    byId("copy").textContent = "Copied";
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1200);
  }
}
