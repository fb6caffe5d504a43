// The parts of the memory page that draw nothing: formats, scales, columns, stacks and their search, the axis.
import assert from "node:assert/strict";
import test from "node:test";
import { Axis, sample } from "../../profiler_kit/render/memory_page/axis.js";
import { totals, upperBound } from "../../profiler_kit/render/memory_page/device.js";
import { bytes, columnUnit, counted, micros, niceStep, percent, sizeStep, tick, SIZES, TIMES } from "../../profiler_kit/render/memory_page/format.js";
import { NO_STACK, Stacks } from "../../profiler_kit/render/memory_page/stacks.js";
import { column, running } from "../../profiler_kit/render/memory_page/unpack.js";

test("sizes, times and shares have the unit that fits", () => {
  assert.equal(bytes(0), "0 B");
  assert.equal(bytes(1536), "1.5 KiB");
  assert.equal(bytes(5.14 * 2 ** 30), "5.14 GiB");
  assert.equal(bytes(null), "an unknown amount");
  assert.equal(micros(1234), "1.234 ms");
  assert.equal(micros(12), "12 µs");
  assert.equal(percent(0.0001), "< 0.1 %");
  assert.equal(counted(1, "event"), "1 event");
  assert.equal(counted(1234, "event"), "1,234 events");
});

test("a column has one unit in which its small rows still say something", () => {
  assert.equal(columnUnit(3 * 2 ** 30)[0], "MiB");
  assert.equal(columnUnit(300 * 2 ** 30)[0], "GiB");
});

test("ticks are round, and have the decimals that their step needs", () => {
  assert.equal(niceStep(97, 10), 10);
  assert.equal(niceStep(110, 10), 20);
  assert.equal(sizeStep(5 * 2 ** 20, 5), 2 ** 20);
  assert.equal(tick(1500, 500, TIMES, 5000), "1.5 ms");
  const GIB = 2 ** 30;
  for (const [step, largest, units] of [
    [GIB / 4, GIB, SIZES], [GIB / 8, 1.1 * GIB, SIZES], [GIB / 2, 3 * GIB, SIZES], [2 ** 38, 2 ** 40, SIZES], [2 ** 8, 2 ** 10, SIZES],
    [1, 5e6, TIMES], [2, 90e6, TIMES], [50, 1500, TIMES], [1, 7, TIMES],
  ]) {
    const texts = [1, 2, 3, 4, 5, 6, 7].map((number) => tick(number * step, step, units, largest));
    assert.equal(new Set(texts).size, 7, texts.join(", "));
    const [unit, size] = units.find(([name]) => texts[0].endsWith(` ${name}`));
    texts.forEach((text, at) => assert.equal(Number(text.replace(/,/g, "").split(" ")[0]) * size / step, at + 1, `${text} in ${unit}`));
  }
  assert.deepEqual([1, 2, 3].map((number) => tick(number * GIB / 4, GIB / 4, SIZES, GIB)), ["0.25 GiB", "0.50 GiB", "0.75 GiB"]);
  assert.equal(tick(2 ** 21, 2 ** 20, SIZES, 2 ** 23), "2 MiB");
});

test("a column of byte planes becomes numbers, above 32 bits too", () => {
  const planes = Uint8Array.from([1, 2, 0, 1]); // 1 + 0 * 256, 2 + 1 * 256
  assert.deepEqual([...column(planes, [0, 2, 2])], [1, 258]);
  assert.deepEqual([...column(Uint8Array.from([7, 0, 0, 0, 0, 1]), [0, 1, 6])], [7 + 2 ** 40]);
  assert.deepEqual([...running([3, -1, 4])], [3, 2, 6]);
});

test("bytes held in each state follow births and ends", () => {
  assert.deepEqual([...totals(4, [0, 1], [3, 2], [10, 5])], [10, 15, 10, 0]);
  assert.equal(upperBound(Float64Array.from([0, 10, 10, 20]), 10), 3);
});

test("a stack is named by its innermost own line, and found by function or file", () => {
  const frames = [["linear", "torch/nn/functional.py", 9], ["step", "my/dir/train.py", 12], ["main", "my/dir/run.py", 3]];
  const planes = Uint8Array.from([2, 3, 3, 0, 1, 2, 0, 3]); // kinds, frames of the second stack, lengths
  const stacks = new Stacks({ frames, frame_kinds: [0, 3, 1], stack_frames: [3, 3, 1], stack_lengths: [6, 2, 1] }, planes);
  assert.deepEqual(stacks.name(1), { main: "step › linear", where: "dir/train.py:12" });
  assert.deepEqual(stacks.name(0), { main: NO_STACK, where: "" });
  assert.deepEqual([...stacks.matching("TRAIN.py")], [0, 1]);
  assert.deepEqual([...stacks.matching("conv")], [0, 0]);
});

test("the axis stays inside the recording, and no pixel loses a peak", () => {
  const device = { states: 6, span_us: 100, time: Float64Array.from([0, 10, 20, 30, 40, 50]) };
  const axis = new Axis(device, "order");
  axis.show(-5, 1000);
  assert.deepEqual([axis.from, axis.to, axis.whole], [0, 6, true]);
  axis.show(5, 6);
  assert.deepEqual([axis.from, axis.to], [0, 6]); // the least it shows is all of so few
  assert.deepEqual([...sample(axis, [1, 9, 2, 3, 8, 4], 0, 6, 3)], [1, 1, 4]); // what a pixel begins with counts, too
});
