// ---- axis.js: the x axis (time in µs, or states in order), and what state each pixel shows ----

import { upperBound } from "./device.js";

export class Axis {
  constructor(device, kind) {
    this.device = device;
    this.kind = kind;
    this.end = kind === "time" ? device.span_us : device.states;
    this.from = 0;
    this.to = this.end;
    this.least = Math.min(this.end, kind === "time" ? 5 : 8);
  }
  get whole() { return this.to - this.from >= this.end; }
  stateAt(x) { return this.kind === "time" ? this.device.stateAtTime(x) : Math.max(0, Math.min(this.device.states - 1, Math.floor(x))); }
  ofState(state) { return this.kind === "time" ? this.device.time[state] : state; }
  endOfState(state) { return this.kind === "time" ? this.device.endOf(state) : state + 1; }
  ofTime(time) { return this.kind === "time" ? time : upperBound(this.device.time, time - 0.5); }
  show(from, to) {
    const width = Math.min(this.end, Math.max(this.least, to - from));
    this.from = Math.max(0, Math.min(this.end - width, (from + to - width) / 2));
    this.to = this.from + width;
  }
}

// For each pixel the visible state with the highest total, so that no peak is lost.
export function sample(axis, totals, from, to, pixels) {
  const states = new Uint32Array(pixels), each = (to - from) / pixels, count = totals.length;
  let state = axis.stateAt(from);
  for (let p = 0; p < pixels; p++) {
    const until = from + each * (p + 1);
    let best = state;
    while (state + 1 < count && axis.ofState(state + 1) < until) {
      state++;
      if (totals[state] > totals[best]) best = state;
    }
    states[p] = best;
  }
  return states;
}
