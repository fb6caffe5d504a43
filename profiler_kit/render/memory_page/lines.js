// ---- lines.js: fragmentation over time: active, inactive in used segments, unused segments, largest free block ----

import { LEFT } from "./chart.js";
import { stepPath } from "./marks.js";
import { element, swatch } from "./elements.js";

const FRAGMENTS = [["active blocks", "active"], ["inactive, in used segments", "split"], ["unused segments", "cached"]];

export function drawFragmentation(chart, draw, c) {
  const { device } = chart.view, { heap } = device;
  const areas = [
    [(state) => device.reservedAt(state), c.cached],
    [(state) => device.reservedAt(state) - heap.unused[state], c.split],
    [(state) => heap.active[state], c.active],
  ];
  for (const [values, colour] of areas) {
    stepPath(chart, draw, values);
    draw.lineTo(LEFT + chart.plot, chart.view.height);
    draw.lineTo(LEFT, chart.view.height);
    draw.closePath();
    draw.fillStyle = colour;
    draw.fill();
  }
  draw.strokeStyle = c.surface;
  draw.lineWidth = 3.5;
  stepPath(chart, draw, (state) => heap.largest[state]);
  draw.stroke();
  draw.strokeStyle = c.ink;
  draw.lineWidth = 1.5;
  draw.stroke();
  draw.lineWidth = 1;
}

export function fragmentationLegend(c) {
  const parts = FRAGMENTS.map(([name, colour]) => element("span", {}, swatch(c[colour]), name));
  return [...parts, element("span", {}, swatch(c.ink), "largest free block (line)")];
}
