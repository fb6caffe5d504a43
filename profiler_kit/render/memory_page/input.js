// ---- input.js: what the mouse, the keys and the fields do; then the page starts ----

import { unpack } from "./unpack.js";
import { bytes, micros } from "./format.js";
import { darkQuery, themeName } from "./theme.js";
import { streamText } from "./layers.js";
import { EXPANDABLE_RANGE, SMALL_RANGE } from "./heap.js";
import { LEFT } from "./chart.js";
import { BAND_HEIGHT } from "./marks.js";
import { byId, element, showTip, swatch, tipLine } from "./elements.js";
import { lifetime } from "./detail.js";
import { VIEWS } from "./views.js";
import { Page } from "./main.js";

function listen(page) {
  byId("device").onchange = (event) => page.choose(Number(event.target.value));
  byId("stream").onchange = (event) => page.setStream(Number(event.target.value));
  for (const input of document.getElementsByName("axis")) input.onchange = () => page.setAxis(input.value);
  byId("search").oninput = (event) => { page.search(event.target.value); page.refresh(); };
  byId("to-peak").onclick = () => page.toPeak();
  byId("to-all").onclick = () => page.showAll();
  byId("back").onclick = () => page.setMoment(null);
  byId("before").onclick = () => page.stepMoment(-1);
  byId("after").onclick = () => page.stepMoment(1);
  byId("moment").oninput = (event) => page.setMoment(Number(event.target.value));
  byId("copy").onclick = () => page.copy();
  byId("theme").onclick = () => page.setTheme(themeName() === "dark" ? "light" : "dark");
  byId("help-button").onclick = () => byId("help").showModal();
  byId("help-close").onclick = () => byId("help").close();
  for (const id of ["flame-fold", "flame-regions", "flame-cpp", "state-order", "state-scale"]) byId(id).onchange = () => page.refresh();
  byId("flame-all").onclick = () => { page.flame.path = []; page.flame.draw(); };
  byId("fit-size").oninput = () => page.refresh();
  addEventListener("resize", () => page.refresh());
  addEventListener("keydown", (event) => onKey(page, event));
  darkQuery.addEventListener("change", () => page.recolour());
  listenChart(page);
  listenMinimap(page);
  listenBands(page);
}

function listenChart(page) {
  const { chart } = page, { canvas } = chart;
  let drag = null, hovering = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) page.move(event.deltaX / 1000);
    else page.zoom(Math.exp(Math.max(-200, Math.min(200, event.deltaY)) * 0.0025), chart.valueAt(event.offsetX));
  }, { passive: false });
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag = { x: event.offsetX, from: page.axis.from, to: page.axis.to, moved: false };
  };
  canvas.onpointermove = (event) => {
    if (!drag) { // once a frame is enough
      if (!hovering) requestAnimationFrame(() => { if (hovering) hover(page, hovering); hovering = null; });
      hovering = event;
      return;
    }
    const by = event.offsetX - drag.x;
    if (Math.abs(by) > 3) drag.moved = true;
    if (!drag.moved) return;
    showTip(0, 0);
    const shift = (-by / chart.plot) * (drag.to - drag.from);
    page.axis.show(drag.from + shift, drag.to + shift);
    page.redraw();
  };
  canvas.onpointerup = (event) => {
    if (drag && !drag.moved) click(page, event);
    drag = null;
  };
  canvas.onpointerleave = () => { hovering = null; showTip(0, 0); page.status(); };
}

export function hover(page, event) {
  const { chart, device } = page, oom = chart.oomUnder(event.offsetX);
  page.status(event.offsetX);
  if (oom) return showTip(event.clientX, event.clientY, tipLine("out of memory", `asked for ${bytes(oom.requested_bytes)}`), tipLine(oom.why));
  const at = chart.pick(event.offsetX, event.offsetY);
  if (at < 0) return showTip(0, 0);
  if (page.kind === "segments") {
    const { ranges } = device;
    return showTip(event.clientX, event.clientY, tipLine(`${ranges.kind[at] & EXPANDABLE_RANGE ? "mapping of an expandable segment" : "segment"} at ${ranges.address(at)}`, bytes(ranges.size[at])),
      tipLine(`${ranges.poolName(ranges.pool[at])} · ${streamText(ranges.streams[ranges.stream[at]])} · ${ranges.kind[at] & SMALL_RANGE ? "small" : "large"}`));
  }
  const i = page.layers.id(at), name = device.stackName(i);
  showTip(event.clientX, event.clientY, tipLine(name.main, bytes(device.size[i])),
    tipLine([name.where, device.born[i] ? device.pathName(device.region[i]) : ""].filter(Boolean).join(" · ")), tipLine(lifetime(device, i)));
}

// A click keeps what is under it, and chooses the moment.
function click(page, event) {
  const { chart, device, axis } = page;
  if (event.offsetX < LEFT) return;
  const oom = chart.oomUnder(event.offsetX), at = chart.pick(event.offsetX, event.offsetY);
  if (oom) return page.showOom(oom);
  const state = chart.stateUnder(event.offsetX), time = axis.kind === "time" ? chart.valueAt(event.offsetX) : device.time[state];
  page.setMoment(state, Math.max(device.time[state], Math.min(time, device.endOf(state))));
  if (page.kind === "allocations" && VIEWS[page.view].chart !== "lines") page.keep(at < 0 ? null : { allocation: page.layers.id(at) });
  else if (at >= 0) page.keep({ segment: page.segmentsNow().find((one) => one.ranges.includes(at)) });
}

function listenMinimap(page) {
  const { canvas } = page.minimap;
  const go = (event) => {
    const { axis } = page, x = ((event.offsetX - LEFT) / page.chart.plot) * axis.end, half = (axis.to - axis.from) / 2;
    axis.show(x - half, x + half);
    page.redraw();
  };
  canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); go(event); };
  canvas.onpointermove = (event) => { if (event.buttons) go(event); };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); page.zoom(Math.exp(event.deltaY * 0.0025)); }, { passive: false });
}

function listenBands(page) {
  const { canvas } = page.bands;
  canvas.onpointermove = (event) => {
    const { device } = page, under = page.bands.under(event.offsetX).slice(0, 8);
    showTip(event.clientX, event.clientY, ...under.map((i) => element("div", { className: "main" },
      swatch(device.colours[device.spans.path[i]]), device.paths[device.spans.path[i]].at(-1), ` ${micros(device.spans.end[i] - device.spans.start[i])}`)));
  };
  canvas.onpointerleave = () => showTip(0, 0);
  canvas.onclick = (event) => {
    const { device, axis } = page, level = Math.floor(event.offsetY / BAND_HEIGHT) + 1;
    const i = page.bands.under(event.offsetX).find((one) => device.paths[device.spans.path[one]].length === level);
    if (i === undefined) return;
    axis.show(axis.ofTime(device.spans.start[i]), axis.ofTime(device.spans.end[i]));
    page.redraw();
  };
}

function onKey(page, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !page.device || byId("help").open) return;
  const field = event.target, arrow = event.key.startsWith("Arrow");
  if (field.id === "search") {
    if (event.key === "Escape") { field.value = ""; page.search(""); field.blur(); page.refresh(); }
    if (event.key === "Enter") page.nextFound();
    return;
  }
  if (field.tagName === "SELECT" || (field.tagName === "INPUT" && (arrow || field.type === "number" || event.key === "Home"))) return;
  if (arrow && field.closest && field.closest(".scroll")) return;
  if (arrow && field.role === "tab") return turnTab(page, event);
  const zoom = (factor) => () => page.zoom(factor), move = (share) => () => page.move(share);
  const actions = {
    w: zoom(0.7), s: zoom(1 / 0.7), a: move(-0.15), d: move(0.15), "+": zoom(0.7), "=": zoom(0.7), "-": zoom(1 / 0.7),
    ArrowUp: zoom(0.7), ArrowDown: zoom(1 / 0.7), ArrowLeft: move(-0.15), ArrowRight: move(0.15), Home: () => page.showAll(), r: () => page.showAll(),
    p: () => page.toPeak(), "/": () => byId("search").focus(), "?": () => byId("help").showModal(), c: () => page.copy(), n: () => page.nextFound(),
    ",": () => page.stepMoment(-1), ".": () => page.stepMoment(1), Escape: () => page.clear(),
  };
  const tab = Object.keys(VIEWS)[Number(event.key) - 1];
  const action = tab ? () => page.show(tab) : actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}
function turnTab(page, event) { // arrows walk along the tabs
  const tabs = Object.keys(VIEWS).filter((key) => !byId(`tab-${key}`).hidden), by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const next = tabs[(tabs.indexOf(page.view) + by + tabs.length) % tabs.length];
  page.show(next);
  byId(`tab-${next}`).focus();
}

function whenIdle(act) { if (window.requestIdleCallback) requestIdleCallback(act); else setTimeout(act, 200); }

(async () => {
  try {
    const { head, planes } = await unpack(byId("data").textContent);
    byId("data").remove();
    const page = new Page(head, planes);
    if (page.device) { listen(page); page.drawNow(); }
    window.memoryPage = page; // for the console, and for tests
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
    if (page.device) whenIdle(() => page.prepare());
  } catch (error) {
    byId("notices").append(element("p", { className: "danger", textContent: `This page could not be drawn: ${error}` }));
    throw error;
  }
})();
