// ---- panels.js: text beside the chart; everything from the file goes through textContent ----

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
function byId(id) { return document.getElementById(id); }

function showFacts(device) {
  const peak = device.peakBytes, end = device.allocated[device.states - 1], reserved = device.reservedAt(device.states - 1);
  const when = device.events ? `at ${micros(device.time[device.peak_state])}` : "no history";
  const top = device.liveAt(device.peak_state, "stack")[0], holder = top ? device.keyName("stack", top.key) : null;
  const facts = [
    ["Peak allocated", bytes(peak), when],
    ["In region", device.events ? device.peak_region.join(" > ") || NO_REGION : "–", ""],
    ["Held most by", holder ? holder.main : "–", top ? `${percent(top.bytes / Math.max(peak, 1))} of the peak${holder.where ? ", " + holder.where : ""}` : ""],
    device.reserves ? ["Reserved at the end", bytes(reserved), `${bytes(end)} allocated, ${percent(device.fragmentation)} in no active block`] : ["Allocated at the end", bytes(end), ""],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value, note]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }, element("small", { textContent: note })))));
}

function showNotices(device, head) {
  const notices = device.ooms.map((oom) => ["danger",
    `Out of memory at ${micros(oom.time_us)}: asked for ${bytes(oom.requested_bytes)}; ${bytes(oom.device_free_bytes)} free on the device, ` +
    `${bytes(oom.allocated_bytes)} allocated, ${bytes(oom.reserved_bytes - oom.allocated_bytes)} reserved but not allocated. ${oom.why}`]);
  if (notices.length > 3) notices.splice(3, notices.length - 3, ["danger", `${grouped(device.ooms.length - 3)} more allocations failed.`]);
  if (head.error) notices.push(["danger", `The recorded function raised: ${head.error}`]);
  if (device.truncated) notices.push(["warn", `The history lost its beginning: at least ${grouped(device.known_missing)} recorded allocations are missing, so that an earlier peak may be too. Record with a larger max_entries.`]);
  if (!device.events) notices.push(["warn", device.count ? "No history: only the state at the end is known. Record with profiler_kit.memory_runner." : "Nothing was allocated on this device, and no event was recorded."]);
  byId("notices").replaceChildren(...notices.map(([kind, text]) => element("p", { className: kind, textContent: text })));
}

const TABLE_ROWS = 200;
// onChoose(key) is called when a row is chosen.
function showLive(device, state, mode, colours, chosen, onChoose) {
  const groups = device.liveAt(state, mode), total = Math.max(1, device.allocated[state]), c = theme();
  const unit = columnUnit(groups.length ? groups[0].bytes : 0);
  const header = [["", mode === "stack" ? "allocated by" : mode], ["number", "allocations"], ["number", "size"], ["number", "share"]];
  byId("live").tHead.replaceChildren(element("tr", {}, ...header.map(([className, textContent]) => element("th", { className, textContent }))));
  const rows = groups.slice(0, TABLE_ROWS).map((group) => {
    const name = device.keyName(mode, group.key), swatch = element("span", { className: "swatch" });
    const hue = colours.get(group.key);
    swatch.style.background = hue === undefined ? c.rest[Math.abs(group.key) % c.rest.length] : c.hues[hue];
    const first = element("td", {}, swatch, name.main, " ", element("span", { className: "where", textContent: name.where }));
    const row = element("tr", { tabIndex: 0, className: group.key === chosen ? "chosen" : "" }, first, ...[grouped(group.count), inUnit(group.bytes, unit), percent(group.bytes / total)].map((textContent) =>
      element("td", { className: "number", textContent })));
    row.onclick = () => onChoose(group.key);
    row.onkeydown = (event) => { if (event.key === "Enter") onChoose(group.key); };
    return row;
  });
  if (groups.length > TABLE_ROWS) rows.push(element("tr", {}, element("td", { colSpan: 4, textContent: `${grouped(groups.length - TABLE_ROWS)} more` })));
  byId("live").tBodies[0].replaceChildren(...rows);
}

function lifetime(device, i) {
  const from = device.born[i] ? micros(device.time[device.born[i]]) : "before the recording";
  if (device.gone[i] === FOREVER) return `${from}, live at the end`;
  const freed = device.time[device.gone[i]];
  return device.born[i] ? `${from} to ${micros(freed)} (${micros(freed - device.time[device.born[i]])})` : `${from}, freed at ${micros(freed)}`;
}

function showDetail(device, i) {
  const box = byId("detail");
  byId("copy").hidden = i < 0;
  if (i < 0) {
    box.replaceChildren("Point at the chart to see an allocation, click to keep it here with its whole stack. A click also shows what else was live then.");
    return;
  }
  const facts = [
    ["Size", `${bytes(device.size[i])} (${grouped(device.size[i])} B)`], ["Address", device.address(i)], ["Lived", lifetime(device, i)],
    ["Region", device.born[i] ? device.pathName(device.region[i]) : "–"], ["Stream", device.streams[device.stream[i]]],
  ];
  const list = element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  box.replaceChildren(list, ...stackList(device.stacks, device.stack[i]));
  box.scrollTop = 0;
}

// Runs of C++ frames fold up when there is Python to see.
function stackList(stacks, stack) {
  const frames = [...stacks.of(stack)];
  if (!frames.length) return ["No stack was recorded for it."];
  const item = (frame) => {
    const [name, file, at] = stacks.frames[frame];
    return element("li", { className: stacks.kinds[frame] === OWN_FRAME ? "own" : "", textContent: `${name}  ${file}:${at}` });
  };
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

function detailText(device, i) {
  const frames = [...device.stacks.of(device.stack[i])].map((frame) => { const [name, file, at] = device.stacks.frames[frame]; return `  ${name} ${file}:${at}`; });
  return [`${device.address(i)} ${grouped(device.size[i])} B, ${lifetime(device, i)}`, ...frames].join("\n");
}

function showTip(x, y, ...lines) {
  const tip = byId("tip");
  tip.hidden = !lines.length;
  if (!lines.length) return;
  tip.replaceChildren(...lines);
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 16 + box.width > innerWidth ? x - box.width - 12 : x + 16)}px`;
  tip.style.top = `${Math.max(4, Math.min(innerHeight - box.height - 4, y + 14))}px`;
}
