// ---- segments.js: each segment as a bar with its blocks; only the visible rows are drawn ----

import { bytes, counted, percent } from "./format.js";
import { FONT, context, fitted, inkOn, line, mixed, theme } from "./theme.js";
import { streamText } from "./layers.js";
import { addressText, segmentAddress } from "./moment.js";
import { showTip, tipLine } from "./elements.js";
import { lifetime } from "./detail.js";
import { hover } from "./input.js";

const SEGMENT_ROW = 30, BAR_TOP = 4, BAR_HEIGHT = 20, BAR_LEFT = 236, BAR_RIGHT = 12;
export const ORDERS = {
  size: (a, b) => b.end - b.start - (a.end - a.start) || a.start - b.start,
  inactive: (a, b) => b.inactive - a.inactive || a.start - b.start,
  address: (a, b) => a.start - b.start,
};

export class SegmentBars {
  constructor(box, onPick) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.spacer = box.querySelector(".spacer");
    this.shown = [];
    box.addEventListener("scroll", () => this.draw());
    this.canvas.onpointermove = (event) => this.hover(event);
    this.canvas.onpointerleave = () => showTip(0, 0);
    this.canvas.onclick = (event) => {
      const found = this.under(event.offsetX, event.offsetY);
      if (found) onPick(found.block && found.block.i >= 0 ? { allocation: found.block.i } : found);
    };
  }
  // view: {device, segments, order, scale, colour: i -> "#rrggbb", match, chosen: allocation or -1}
  show(view) {
    this.view = view;
    this.shown = [...view.segments].sort(ORDERS[view.order]);
    this.widest = this.shown.reduce((most, one) => Math.max(most, one.end - one.start), 1);
    this.spacer.style.height = `${this.shown.length * SEGMENT_ROW}px`;
    this.draw();
  }
  draw() {
    if (!this.view || !this.box.clientHeight) return;
    const c = theme(), height = this.box.clientHeight, { draw, width } = context(this.canvas, height), top = this.box.scrollTop;
    this.spacer.style.marginTop = `${-height}px`;
    this.plot = Math.max(40, width - BAR_LEFT - BAR_RIGHT);
    this.hatch = hatchOf(draw, c);
    draw.clearRect(0, 0, width, height);
    const first = Math.floor(top / SEGMENT_ROW), last = Math.min(this.shown.length, Math.ceil((top + height) / SEGMENT_ROW));
    for (let row = first; row < last; row++) this.drawRow(draw, this.shown[row], row * SEGMENT_ROW - top, c);
    this.rows = last - first;
  }
  scaleOf(segment) { // pixels per byte
    const size = segment.end - segment.start;
    return Math.max(this.view.scale === "same" ? this.plot / this.widest : 0, this.view.scale === "same" ? 4 / size : this.plot / size);
  }
  drawRow(draw, segment, y, c) {
    const { device, colour, match, chosen } = this.view, size = segment.end - segment.start, scale = this.scaleOf(segment);
    draw.textAlign = "left";
    draw.font = FONT;
    draw.fillStyle = c.soft;
    draw.fillText(segmentAddress(device, segment), 0, y + SEGMENT_ROW / 2);
    draw.textAlign = "right";
    draw.fillStyle = c.ink;
    draw.fillText(bytes(size), 172, y + SEGMENT_ROW / 2);
    draw.fillStyle = c.soft;
    draw.fillText(percent((segment.active + segment.pending) / size), BAR_LEFT - 8, y + SEGMENT_ROW / 2);
    draw.fillStyle = c.hole;
    draw.fillRect(BAR_LEFT, y + BAR_TOP, size * scale, BAR_HEIGHT);
    let reached = -1; // many blocks in a pixel: one is drawn
    for (const block of segment.blocks) {
      const x0 = BAR_LEFT + (block.start - segment.start) * scale, x1 = x0 + block.bytes * scale;
      if (block.i < 0 || x1 <= reached) continue;
      const wide = Math.max(1, x1 - x0 - (x1 - x0 > 3 ? 1 : 0)), faded = match && !match[block.i];
      draw.fillStyle = mixed(colour(block.i), c.surface, faded ? 0.82 : 0);
      draw.fillRect(x0, y + BAR_TOP, wide, BAR_HEIGHT);
      if (block.pending) { draw.fillStyle = this.hatch; draw.fillRect(x0, y + BAR_TOP + BAR_HEIGHT - 7, wide, 7); }
      if (block.i === chosen) { draw.strokeStyle = c.ink; draw.lineWidth = 2; draw.strokeRect(x0, y + BAR_TOP - 1, Math.max(3, wide), BAR_HEIGHT + 2); draw.lineWidth = 1; }
      reached = Math.max(x1, x0 + 1);
      if (wide > 64) this.drawName(draw, block, x0, y, wide, faded ? c.ink : inkOn(colour(block.i)));
    }
    draw.strokeStyle = c.line;
    draw.strokeRect(BAR_LEFT + 0.5, y + BAR_TOP + 0.5, Math.max(1, size * scale - 1), BAR_HEIGHT - 1);
  }
  drawName(draw, block, x, y, wide, ink) {
    draw.textAlign = "left";
    draw.fillStyle = ink;
    draw.fillText(fitted(draw, `${bytes(block.bytes)}  ${this.view.device.stackName(block.i).main}`, wide - 10), x + 5, y + SEGMENT_ROW / 2);
  }
  under(x, y) {
    if (!this.view) return null;
    const segment = this.shown[Math.floor((y + this.box.scrollTop) / SEGMENT_ROW)];
    if (!segment) return null;
    const place = segment.start + (x - BAR_LEFT) / this.scaleOf(segment);
    return { segment, block: x < BAR_LEFT ? null : segment.blocks.find((block) => place >= block.start && place < block.start + block.bytes) };
  }
  hover(event) {
    const found = this.under(event.offsetX, event.offsetY);
    if (!found) return showTip(0, 0);
    const { segment, block } = found, { device } = this.view;
    if (!block) {
      return showTip(event.clientX, event.clientY, tipLine(`segment at ${segmentAddress(device, segment)}`, bytes(segment.end - segment.start)),
        tipLine(`${counted(segment.count, "block")} · ${bytes(segment.active)} active · ${bytes(segment.inactive)} inactive`),
        tipLine(`${device.ranges.poolName(segment.pool)} · ${streamText(device.ranges.streams[segment.stream])}`));
    }
    if (block.i < 0) {
      return showTip(event.clientX, event.clientY, tipLine(segment.count ? "inactive, split off a used segment" : "inactive, the whole segment", bytes(block.bytes)), tipLine(addressText(block.start)));
    }
    const name = device.stackName(block.i);
    showTip(event.clientX, event.clientY, tipLine(name.main, bytes(device.size[block.i])), tipLine([name.where, device.address(block.i)].filter(Boolean).join(" · ")),
      tipLine(`${block.pending ? "freed, waiting for another stream · " : ""}block of ${bytes(block.bytes)} · ${lifetime(device, block.i)}`));
  }
}

function hatchOf(draw, c) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const brush = tile.getContext("2d");
  brush.strokeStyle = c.surface;
  brush.lineWidth = 1.6;
  for (const shift of [-6, 0, 6]) line(brush, shift, 6, shift + 6, 0);
  return draw.createPattern(tile, "repeat");
}
