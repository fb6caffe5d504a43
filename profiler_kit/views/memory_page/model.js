// ---- model.js: columns -> stacks, and per device the totals, allocations and regions ----
// State 0 is before the first event, state i + 1 after event i. An allocation lives in states [born, gone).

const FOREVER = 0xffffffff;
const OTHER_FRAME = 1, PYTHON_FRAME = 2, OWN_FRAME = 3;
const NO_STACK = "(no Python stack)"; // as on autograd's backward thread
const BEFORE = "(before the recording)";
const NO_REGION = "(no region)";

class Stacks {
  constructor(head, planes) {
    this.frames = head.frames;
    this.kinds = column(planes, head.frame_kinds);
    this.flat = column(planes, head.stack_frames);
    this.ends = running(column(planes, head.stack_lengths), Uint32Array);
    this.names = new Map();
  }
  get count() { return this.ends.length; }
  of(stack) { return this.flat.subarray(stack ? this.ends[stack - 1] : 0, this.ends[stack]); }

  // The user's own innermost line, then any Python line, then anything.
  shown(stack) {
    const frames = this.of(stack);
    for (const kind of [OWN_FRAME, PYTHON_FRAME])
      for (const frame of frames) if (this.kinds[frame] === kind) return frame;
    for (const frame of frames) if (!this.frames[frame][0].includes("CachingAllocator")) return frame;
    return frames.length ? frames[0] : -1;
  }
  // {main: "step › linear", where: "dir/train.py:12"}
  name(stack) {
    let name = this.names.get(stack);
    if (!name) this.names.set(stack, name = this.makeName(stack));
    return name;
  }
  makeName(stack) {
    const shown = this.shown(stack);
    if (shown < 0) return { main: NO_STACK, where: "" };
    const [called, file, line] = this.frames[shown];
    let main = called;
    if (this.kinds[shown] === OWN_FRAME) {
      const inner = this.of(stack).find((frame) => this.kinds[frame] >= PYTHON_FRAME);
      const name = this.frames[inner][0];
      if (this.kinds[inner] !== OWN_FRAME && !["_call_impl", "<lambda>", "<module>"].includes(name)) main += ` › ${name}`;
    }
    const known = file && file !== "none" && file !== "??";
    return { main, where: known ? `${file.replaceAll("\\", "/").split("/").slice(-2).join("/")}:${line}` : "" };
  }
  // One byte per stack: does a frame's function or file hold the text?
  matching(text) {
    const wanted = text.toLowerCase();
    const hit = this.frames.map(([name, file, line]) => `${name} ${file}:${line}`.toLowerCase().includes(wanted));
    const out = new Uint8Array(this.count);
    for (let stack = 0; stack < out.length; stack++) if (this.of(stack).some((frame) => hit[frame])) out[stack] = 1;
    return out;
  }
}

class Device {
  constructor(meta, planes, stacks) {
    Object.assign(this, meta);
    this.stacks = stacks;
    const read = (name) => column(planes, meta[name]);
    this.born = running(read("born"), Uint32Array);
    this.gone = read("life");
    this.gone = Uint32Array.from(this.gone, (life, i) => (life ? this.born[i] + life : FOREVER));
    this.size = read("size");
    this.stack = read("stack");
    this.region = read("region");
    this.stream = read("stream");
    this.low = read("address_low");
    this.high = read("address_high");
    this.count = this.size.length;
    this.states = meta.events + 1;
    this.time = new Float64Array(this.states); // when each state begins
    this.time.set(running(read("time")), 1);
    this.allocated = meta.allocated_bytes ? Float64Array.from(read("allocated_bytes")) : this.totals();
    this.reservedFrom = [0, ...running(read("reserved_state"))];
    this.reservedBytes = read("reserved_bytes");
    this.spans = { path: read("span_path"), start: read("span_start"), end: read("span_end") };
    this.depth = this.paths.reduce((depth, path) => Math.max(depth, path.length), 0);
    this.span_us = Math.max(this.span_us, 1);
  }
  totals() {
    const out = new Float64Array(this.states + 1);
    for (let i = 0; i < this.count; i++) {
      out[this.born[i]] += this.size[i];
      if (this.gone[i] !== FOREVER) out[this.gone[i]] -= this.size[i];
    }
    for (let i = 1; i < out.length; i++) out[i] += out[i - 1];
    return out.subarray(0, this.states);
  }
  get peakBytes() { return this.allocated[this.peak_state]; }
  get highestReserved() { return this.reservedBytes.reduce((a, b) => Math.max(a, b), 0); }
  reservedAt(state) { return this.reservedBytes[upperBound(this.reservedFrom, state) - 1]; }
  stateAtTime(time) { return Math.max(0, upperBound(this.time, time) - 1); }
  endOf(state) { return state + 1 < this.states ? this.time[state + 1] : this.span_us; }
  pathName(number) { return number ? this.paths[number - 1].join(" > ") : NO_REGION; }

  // Innermost region at a state's beginning, by the spans that hold its time: the deepest, then the latest.
  regionAt(state) {
    const time = this.time[state];
    let best = -1;
    for (let i = 0; i < this.spans.path.length && this.spans.start[i] <= time; i++) {
      const open = time < this.spans.end[i] || (time === this.spans.end[i] && time === this.span_us);
      const deeper = best < 0 || this.paths[this.spans.path[i]].length >= this.paths[this.spans.path[best]].length;
      if (open && deeper) best = i;
    }
    return best < 0 ? NO_REGION : this.paths[this.spans.path[best]].join(" > ");
  }
  address(i) { return "0x" + ((BigInt(this.high[i]) << 32n) | BigInt(this.low[i])).toString(16); }
  holds(i, address) {
    const start = (BigInt(this.high[i]) << 32n) | BigInt(this.low[i]);
    return address >= start && address < start + BigInt(this.size[i] || 1);
  }
  stackName(i) {
    const before = this.born[i] === 0;
    if (!this.stacks.of(this.stack[i]).length) return { main: before ? BEFORE : NO_STACK, where: "" };
    const name = this.stacks.name(this.stack[i]);
    return before ? { main: `${name.main} ${BEFORE}`, where: name.where } : name;
  }

  // What an allocation is grouped and coloured by. Allocations from before the recording stand apart.
  keyOf(mode, i) {
    if (mode === "region") return this.born[i] === 0 ? -1 : this.region[i];
    if (mode === "stream") return this.stream[i];
    return this.born[i] === 0 ? -1 - this.stack[i] : this.stack[i];
  }
  keyName(mode, key) {
    if (mode === "region") return { main: key < 0 ? BEFORE : this.pathName(key), where: "" };
    if (mode === "stream") return { main: key === 0 && this.streams[0] === "0" ? "default stream" : `stream ${this.streams[key]}`, where: "" };
    const stack = key < 0 ? -1 - key : key;
    const name = this.stacks.of(stack).length ? this.stacks.name(stack) : { main: key < 0 ? "" : NO_STACK, where: "" };
    return key < 0 ? { main: `${name.main} ${BEFORE}`.trim(), where: name.where } : name;
  }
  // Keys that deserve a hue: what holds 2 % of the peak or more, then what holds most bytes for longest.
  ranking(mode, most) {
    const peak = this.liveAt(this.peak_state, mode), keys = peak.filter((group) => group.bytes >= 0.02 * this.peakBytes).map((group) => group.key);
    const chosen = keys.slice(0, most), weights = new Map();
    for (let i = 0; i < this.count; i++) {
      const key = this.keyOf(mode, i), until = this.gone[i] === FOREVER ? this.span_us : this.time[this.gone[i]];
      weights.set(key, (weights.get(key) || 0) + this.size[i] * (until - this.time[this.born[i]]));
    }
    for (const [key] of [...weights].sort((a, b) => b[1] - a[1])) if (chosen.length < most && !chosen.includes(key)) chosen.push(key);
    return chosen;
  }
  // Groups of what is live in a state, most bytes first.
  liveAt(state, mode) {
    const groups = new Map();
    for (let i = 0; i < this.count && this.born[i] <= state; i++) {
      if (this.gone[i] <= state) continue;
      const key = this.keyOf(mode, i), group = groups.get(key);
      if (group) { group.count++; group.bytes += this.size[i]; } else groups.set(key, { key, count: 1, bytes: this.size[i] });
    }
    return [...groups.values()].sort((a, b) => b.bytes - a.bytes || a.key - b.key);
  }
}

// Index of the first item above the value in an ascending list.
function upperBound(list, value) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
}
