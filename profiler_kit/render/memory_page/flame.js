// ---- flame.js: what was live at a moment as a flame graph: outermost frame at the top, width is bytes ----

import { bytes, counted, percent } from "./format.js";
import { context, fitted, inkOn, label, mixed, theme } from "./theme.js";
import { NO_STACK, PYTHON_FRAME } from "./stacks.js";
import { BEFORE, NO_REGION } from "./device.js";
import { showTip, tipLine } from "./elements.js";
import { hover } from "./input.js";

const FLAME_ROW = 20, MOST_FRAMES = 14;

// A tree of {label, where, frame, bytes, count, children, allocation}. `regions`: the region path is above the stack.
export function flameTree(layers, state, { regions, cpp }) {
  const { device } = layers, { stacks } = device, root = flameNode("all", "", -1), byStack = new Map();
  for (let at = 0; at < layers.count && layers.born[at] <= state; at++) {
    if (layers.gone[at] <= state) continue;
    const i = layers.id(at), region = regions ? (device.born[i] ? device.region[i] : -1) : 0, key = region * 2 ** 32 + device.stack[i];
    const group = byStack.get(key);
    if (group) { group.bytes += layers.size[at]; group.count++; } else byStack.set(key, { region, stack: device.stack[i], bytes: layers.size[at], count: 1, allocation: i });
  }
  for (const group of byStack.values()) {
    let node = flameAdd(root, group);
    if (regions) for (const name of group.region < 0 ? [BEFORE] : group.region ? device.paths[group.region - 1] : [NO_REGION]) node = flameAdd(flameChild(node, "region " + name, name, "", -2), group);
    for (const frame of flameFrames(stacks, group.stack, cpp)) {
      node = flameAdd(flameChild(node, frame, frame < 0 ? NO_STACK : stacks.frames[frame][0], frame < 0 ? "" : stacks.where(frame), frame), group);
    }
  }
  return root;
}
function flameFrames(stacks, stack, cpp) { // outermost first; C++ only when asked for or when there is nothing else
  const all = [...stacks.of(stack)].reverse(), python = all.filter((frame) => stacks.kinds[frame] >= PYTHON_FRAME);
  const chosen = cpp || !python.length ? all : python;
  return chosen.length ? chosen : [-1];
}
function flameNode(label, where, frame) { return { label, where, frame, bytes: 0, count: 0, children: new Map(), most: -1, allocation: -1 }; }
function flameChild(node, key, label, where, frame) {
  let child = node.children.get(key);
  if (!child) node.children.set(key, child = flameNode(label, where, frame));
  return child;
}
function flameAdd(node, group) {
  node.bytes += group.bytes;
  node.count += group.count;
  if (group.bytes > node.most) { node.most = group.bytes; node.allocation = group.allocation; } // stands for the node
  return node;
}

// A frame with the frames that are the only thing it calls.
function onlyCalls(node) {
  const chain = [node];
  for (let at = node; at.children.size === 1; chain.push(at)) [at] = at.children.values();
  return chain;
}

export class Flame {
  constructor(canvas, onPick) {
    this.canvas = canvas;
    this.path = []; // nodes zoomed into, outermost first
    this.boxes = [];
    canvas.onpointermove = (event) => this.hover(event);
    canvas.onpointerleave = () => showTip(0, 0);
    canvas.onclick = (event) => {
      const box = this.under(event.offsetX, event.offsetY);
      if (!box) return;
      this.zoom(box.node);
      onPick(box.node);
    };
  }
  // colour: node -> "#rrggbb"; matches: frame -> bool, or null when nothing is searched for; own: frame -> bool, is it
  // the user's; fold: draw a chain of calls that are the only one of their caller as one box.
  show({ root, colour, matches, own, fold }) {
    if (this.root && this.path.length) this.path = this.again(root);
    Object.assign(this, { root, colour, matches, own, fold });
    this.draw();
  }
  again(root) { // the same zoom in another moment's tree
    const path = [];
    let node = root;
    for (const old of this.path) {
      const next = [...node.children.values()].find((child) => child.frame === old.frame && child.label === old.label);
      if (!next) break;
      path.push(node = next);
    }
    return path;
  }
  zoom(node) {
    const found = this.pathTo(this.root, node, []);
    this.path = found && node !== this.root && this.path.at(-1) !== node ? found : found ? found.slice(0, -1) : [];
    this.draw();
  }
  pathTo(from, wanted, path) {
    if (from === wanted) return path;
    for (const child of from.children.values()) {
      const found = this.pathTo(child, wanted, [...path, child]);
      if (found) return found;
    }
    return null;
  }
  draw() {
    const c = theme(), width = this.canvas.clientWidth, rows = [];
    this.boxes = [];
    const chain = [this.root, ...this.path];
    chain.forEach((node, depth) => this.boxes.push({ node, depth, x: 0, width, dim: depth < chain.length - 1 }));
    this.lay(chain.at(-1), chain.length, 0, width, rows);
    const depth = this.boxes.reduce((most, box) => Math.max(most, box.depth), 0) + 1;
    const { draw } = context(this.canvas, depth * FLAME_ROW);
    draw.textAlign = "left";
    for (const box of this.boxes) this.drawBox(draw, box, c);
  }
  lay(node, depth, x, width) {
    const scale = width / Math.max(1, node.bytes);
    for (const child of [...node.children.values()].sort((a, b) => b.bytes - a.bytes)) {
      const wide = child.bytes * scale, chain = this.fold ? onlyCalls(child) : [child], last = chain.at(-1);
      if (wide < 0.7) break;
      this.boxes.push({ node: last, chain, depth, x, width: wide, dim: false });
      this.lay(last, depth + 1, x, wide);
      x += wide;
    }
  }
  label(chain) { // the user's own functions stand for the chain
    if (chain.length === 1) return chain[0].label;
    const own = chain.filter((node) => this.own(node.frame)), shown = own.length ? own : [chain[0], chain.at(-1)];
    return shown.map((node) => node.label).filter((name, i, all) => name !== all[i - 1]).join(" › ").slice(0, 1000);
  }
  drawBox(draw, { node, chain = [node], depth, x, width, dim }, c) {
    const matched = this.matches && chain.some((one) => one.frame >= 0 && this.matches(one.frame)), faded = dim || (this.matches && !matched);
    const fill = mixed(node === this.root ? c.band : this.colour(node), c.surface, faded ? 0.75 : 0.25), y = depth * FLAME_ROW;
    draw.fillStyle = fill;
    draw.fillRect(x, y, Math.max(0.7, width - 1), FLAME_ROW - 1);
    if (matched) { draw.strokeStyle = c.ink; draw.strokeRect(x + 0.5, y + 0.5, Math.max(1, width - 2), FLAME_ROW - 2); }
    if (width < 30) return;
    draw.fillStyle = inkOn(fill);
    draw.fillText(fitted(draw, `${bytes(node.bytes)}  ${this.label(chain)}`, width - 8), x + 4, y + FLAME_ROW / 2);
  }
  under(x, y) {
    const depth = Math.floor(y / FLAME_ROW);
    return this.boxes.find((box) => box.depth === depth && x >= box.x && x < box.x + box.width);
  }
  hover(event) {
    const box = this.under(event.offsetX, event.offsetY);
    if (!box) return showTip(0, 0);
    const { node, chain = [node] } = box, frames = chain.slice(-MOST_FRAMES);
    showTip(event.clientX, event.clientY, tipLine(this.label(chain), bytes(node.bytes)),
      ...(chain.length > frames.length ? [tipLine(`${chain.length - frames.length} frames, then`)] : []), ...frames.map((one) => tipLine(`${one.label} ${one.where}`)),
      tipLine([counted(node.count, "allocation"), percent(node.bytes / Math.max(1, this.root.bytes))].filter(Boolean).join(" · ")));
  }
}
