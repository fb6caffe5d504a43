// ---- main.js: state of the page, and what the mouse, the keys and the fields do to it ----

class Page {
  constructor(head, planes) {
    this.head = head;
    this.planes = planes;
    this.stacks = new Stacks(head, planes);
    this.devices = new Map();
    this.chart = new Chart(byId("chart"), byId("bands"), byId("minimap"));
    this.mode = "stack";
    this.axisKind = "time";
    this.fillFields();
    this.listen();
    this.choose(head.first ?? 0);
  }

  fillFields() {
    const { head } = this;
    const made = head.source === "torch.profiler" ? "recorded on a CPU by torch.profiler" : "CUDA caching allocator";
    byId("about").textContent = [made, head.torch ? `torch ${head.torch}` : ""].filter(Boolean).join(" · ");
    byId("device").replaceChildren(...head.devices.map((one) => element("option", { value: one.device, textContent: `${one.name} (${grouped(one.events)} events)` })));
    byId("device-field").hidden = head.devices.length < 2;
  }

  // ---- state ----
  choose(number) {
    const meta = this.head.devices.find((one) => one.device === number) || this.head.devices[0];
    if (!meta) { byId("notices").replaceChildren(element("p", { className: "warn", textContent: "The snapshot names no device." })); return; }
    if (!this.devices.has(meta.device)) this.devices.set(meta.device, new Device(meta, this.planes, this.stacks));
    this.device = this.devices.get(meta.device);
    byId("device").value = meta.device;
    this.axis = new Axis(this.device, this.axisKind);
    this.moment = this.momentTime = null;
    this.kept = -1;
    this.chosen = null;
    showFacts(this.device);
    showNotices(this.device, this.head);
    showDetail(this.device, -1);
    this.search(byId("search").value);
    this.recolour();
  }
  get state() { return this.moment === null ? this.device.peak_state : this.moment; }

  // The groups that matter most get the hues; all others share the greys.
  recolour() {
    this.colours = new Map(this.device.ranking(this.mode, THEMES.light.hues.length).map((key, index) => [key, index]));
    this.refreshTable();
    this.redraw();
  }
  refreshTable() {
    const { device, state } = this, peak = state === device.peak_state;
    byId("live-title").textContent = `Live ${peak ? "at the peak" : "at " + micros(this.momentTime)}: ${bytes(device.allocated[state])}`;
    byId("live-peak").hidden = peak;
    showLive(device, state, this.mode, this.colours, this.chosen, (key) => this.chooseKey(key));
  }
  chooseKey(key) {
    this.chosen = this.chosen === key ? null : key;
    this.refreshTable();
    this.redraw();
  }
  setMoment(state, time = null) {
    this.moment = state;
    this.momentTime = time;
    this.refreshTable();
    this.redraw();
  }
  search(text) {
    const { device } = this, wanted = text.trim();
    this.found = null;
    byId("found").textContent = "";
    if (wanted) {
      this.found = new Uint8Array(device.count);
      const isAddress = /^0x[0-9a-f]{1,16}$/i.test(wanted), stacks = isAddress ? null : this.stacks.matching(wanted);
      const address = isAddress ? BigInt(wanted) : 0n;
      let count = 0, atPeak = 0;
      for (let i = 0; i < device.count; i++) {
        if (!(isAddress ? device.holds(i, address) : stacks[device.stack[i]])) continue;
        this.found[i] = 1;
        count++;
        if (device.born[i] <= device.peak_state && device.gone[i] > device.peak_state) atPeak += device.size[i];
      }
      byId("found").textContent = count ? `${grouped(count)} ${count === 1 ? "allocation" : "allocations"}, ${bytes(atPeak)} at the peak` : "nothing found";
    }
  }
  match() {
    if (this.chosen === null) return this.found;
    const out = new Uint8Array(this.device.count);
    for (let i = 0; i < out.length; i++) if (this.device.keyOf(this.mode, i) === this.chosen && (!this.found || this.found[i])) out[i] = 1;
    return out;
  }
  redraw() {
    if (this.waiting || !this.device) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.drawNow(); });
  }
  drawNow() {
    const since = performance.now();
    const { device, axis, mode, colours, momentTime } = this;
    this.chart.draw({ device, axis, mode, colours, momentTime, match: this.match() });
    this.status();
    this.drawing_ms = performance.now() - since;
  }
  status(x) {
    const { device, axis } = this;
    if (x === undefined) {
      const shown = axis.kind === "time" ? `${micros(axis.from)} to ${micros(axis.to)} of ${micros(axis.end)}` : `events ${grouped(Math.floor(axis.from))} to ${grouped(Math.ceil(axis.to))} of ${grouped(device.events)}`;
      byId("status").textContent = `${shown} · ${grouped(device.count)} allocations · wheel or W S zooms, drag or A D moves, P peak, R all, / search`;
      return;
    }
    const state = this.chart.stateUnder(x);
    byId("status").textContent = `${micros(device.time[state])} · event ${grouped(state)} · ${bytes(device.allocated[state])} allocated${device.reserves ? ` · ${bytes(device.reservedAt(state))} reserved` : ""} · ${device.regionAt(state)}`;
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
    this.chosen = null;
    this.setMoment(null);
  }
  setAxis(kind) {
    const first = this.axis.stateAt(this.axis.from), last = this.axis.stateAt(this.axis.to), all = this.axis.to - this.axis.from >= this.axis.end;
    this.axisKind = kind;
    this.axis = new Axis(this.device, kind);
    if (!all) this.axis.show(this.axis.ofState(first), this.axis.endOfState(last));
    this.redraw();
  }

  // ---- events ----
  listen() {
    byId("device").onchange = (event) => this.choose(Number(event.target.value));
    for (const input of document.getElementsByName("axis")) input.onchange = () => this.setAxis(input.value);
    for (const input of document.getElementsByName("colour")) input.onchange = () => { this.mode = input.value; this.chosen = null; this.recolour(); };
    byId("search").oninput = (event) => { this.search(event.target.value); this.redraw(); };
    byId("to-peak").onclick = () => this.toPeak();
    byId("to-all").onclick = () => this.showAll();
    byId("live-peak").onclick = () => this.setMoment(null);
    byId("copy").onclick = () => this.copy();
    addEventListener("resize", () => this.redraw());
    addEventListener("keydown", (event) => this.key(event));
    darkQuery.addEventListener("change", () => { if (this.device) { this.refreshTable(); this.redraw(); } });
    this.listenChart();
    this.listenMinimap();
    byId("bands").onpointermove = (event) => this.overBands(event);
    byId("bands").onpointerleave = () => showTip(0, 0);
    byId("bands").onclick = (event) => this.zoomToBand(event);
  }
  listenChart() {
    const { canvas } = this.chart;
    let drag = null;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.move(event.deltaX / 1000);
      else this.zoom(Math.exp(Math.max(-200, Math.min(200, event.deltaY)) * 0.0025), this.chart.valueAt(event.offsetX));
    }, { passive: false });
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      drag = { x: event.offsetX, from: this.axis.from, to: this.axis.to, moved: false };
    };
    canvas.onpointermove = (event) => {
      if (!drag) return this.hover(event);
      const by = event.offsetX - drag.x;
      if (Math.abs(by) > 3) drag.moved = true;
      if (!drag.moved) return;
      showTip(0, 0);
      const shift = (-by / this.chart.plot) * (drag.to - drag.from);
      this.axis.show(drag.from + shift, drag.to + shift);
      this.redraw();
    };
    canvas.onpointerup = (event) => {
      if (drag && !drag.moved) this.keep(event);
      drag = null;
    };
    canvas.onpointerleave = () => { showTip(0, 0); this.status(); };
  }
  hover(event) {
    if (!this.chart.picks) return;
    this.status(event.offsetX);
    const i = this.chart.pick(event.offsetX, event.offsetY), { device } = this;
    if (i < 0) return showTip(0, 0);
    const name = device.stackName(i);
    showTip(event.clientX, event.clientY,
      element("div", { className: "main" }, element("b", { textContent: bytes(device.size[i]) }), ` ${name.main}`),
      element("div", { textContent: [name.where, device.born[i] ? device.pathName(device.region[i]) : ""].filter(Boolean).join(" · ") }),
      element("div", { textContent: lifetime(device, i) }));
    if (this.kept < 0) showDetail(device, i);
  }
  keep(event) {
    const i = this.chart.pick(event.offsetX, event.offsetY);
    this.kept = i;
    showDetail(this.device, i);
    if (event.offsetX < LEFT) return;
    const state = this.chart.stateUnder(event.offsetX), { device } = this;
    const time = this.axis.kind === "time" ? this.chart.valueAt(event.offsetX) : device.time[state];
    this.setMoment(state, Math.max(device.time[state], Math.min(time, device.endOf(state))));
  }
  copy() {
    const i = this.kept;
    if (i < 0) return;
    const area = element("textarea", { value: detailText(this.device, i) }); // works from a file, where there is no clipboard API
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    byId("copy").textContent = "Copied";
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 1200);
  }
  overBands(event) {
    const { device } = this, under = this.chart.bandsUnder(event.offsetX).slice(0, 8);
    showTip(event.clientX, event.clientY, ...under.map((i) => element("div", { className: "main" },
      device.paths[device.spans.path[i]].at(-1), ` ${micros(device.spans.end[i] - device.spans.start[i])}`)));
  }
  zoomToBand(event) {
    const { device, axis } = this, level = Math.floor(event.offsetY / BAND_HEIGHT) + 1;
    const i = this.chart.bandsUnder(event.offsetX).find((one) => device.paths[device.spans.path[one]].length === level);
    if (i === undefined) return;
    axis.show(axis.ofTime(device.spans.start[i]), axis.ofTime(device.spans.end[i]));
    this.redraw();
  }
  listenMinimap() {
    const { minimap } = this.chart;
    const go = (event) => {
      const { axis } = this, x = ((event.offsetX - LEFT) / this.chart.plot) * axis.end, half = (axis.to - axis.from) / 2;
      axis.show(x - half, x + half);
      this.redraw();
    };
    minimap.onpointerdown = (event) => { minimap.setPointerCapture(event.pointerId); go(event); };
    minimap.onpointermove = (event) => { if (event.buttons) go(event); };
    minimap.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(event.deltaY * 0.0025)); }, { passive: false });
  }
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.device) return;
    const field = event.target;
    if (field.id === "search") {
      if (event.key === "Escape") { field.value = ""; this.search(""); field.blur(); this.redraw(); }
      return;
    }
    if (field.tagName === "SELECT" || (field.tagName === "INPUT" && event.key.startsWith("Arrow"))) return;
    const scrolls = field.closest && field.closest(".scroll") && event.key.startsWith("Arrow");
    const actions = {
      w: () => this.zoom(0.7), s: () => this.zoom(1 / 0.7), a: () => this.move(-0.15), d: () => this.move(0.15),
      ArrowUp: () => this.zoom(0.7), ArrowDown: () => this.zoom(1 / 0.7), ArrowLeft: () => this.move(-0.15), ArrowRight: () => this.move(0.15),
      p: () => this.toPeak(), r: () => this.showAll(), "/": () => byId("search").focus(),
      Escape: () => { this.chosen = null; this.kept = -1; showDetail(this.device, -1); this.setMoment(null); },
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || scrolls) return;
    event.preventDefault();
    action();
  }
}

(async () => {
  try {
    const { head, planes } = await unpack(byId("data").textContent);
    byId("data").remove();
    const page = new Page(head, planes);
    if (page.device) page.drawNow();
    window.memoryPage = page; // for the console, and for tests
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  } catch (error) {
    byId("notices").append(element("p", { className: "danger", textContent: `This page could not be drawn: ${error}` }));
    throw error;
  }
})();
