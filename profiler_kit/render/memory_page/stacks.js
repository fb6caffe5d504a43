// ---- stacks.js: frames and stacks, and the one line that stands for a stack ----

import { column, running } from "./unpack.js";
import { shortened } from "./elements.js";

export const OTHER_FRAME = 1, PYTHON_FRAME = 2, OWN_FRAME = 3;
export const NO_STACK = "(no Python stack)"; // as on autograd's backward thread

function place(file, line) { return line === null ? file : `${file}:${line}`; } // null: not known

export class Stacks {
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
    let main = this.frames[shown][0];
    if (this.kinds[shown] === OWN_FRAME) {
      const inner = this.of(stack).find((frame) => this.kinds[frame] >= PYTHON_FRAME);
      const name = this.frames[inner][0];
      if (this.kinds[inner] !== OWN_FRAME && !["_call_impl", "<lambda>", "<module>"].includes(name)) main += ` › ${name}`;
    }
    return { main, where: this.where(shown) };
  }
  where(frame) { // the last two parts of the path, and the line
    const [, file, at] = this.frames[frame];
    return file && file !== "none" && file !== "??" ? place(file.replaceAll("\\", "/").split("/").slice(-2).join("/"), at) : "";
  }
  text(frame) {
    const [name, file, at] = this.frames[frame];
    return `${name}  ${place(file, at)}`;
  }
  shownText(frame) { return shortened(this.text(frame), 2000); }
  // One byte per stack: does a frame's function or file hold the text?
  matching(text) {
    const wanted = text.toLowerCase();
    const hit = this.frames.map(([name, file, at]) => `${name} ${file}:${at}`.toLowerCase().includes(wanted));
    const out = new Uint8Array(this.count);
    for (let stack = 0; stack < out.length; stack++) if (this.of(stack).some((frame) => hit[frame])) out[stack] = 1;
    return out;
  }
}
