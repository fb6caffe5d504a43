// Ranks down, steps across; the colour says how much more (or less) own work than its peers a rank had in a step.
const MORE = [204, 51, 17], LESS = [68, 119, 170];

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".heat"), canvas = root.querySelector("canvas"), tip = root.querySelector(".tip");
  const { ranks, steps, values, texts, most, labels } = data;
  const left = 58, above = 7, below = 20, rows = ranks.length, columns = steps.length;
  const height = Math.max(60, Math.min(440, rows * 18)), lines = Math.min(rows, Math.floor(height / 3));
  const context = canvas.getContext("2d");
  let width = 0;

  function colour(value) {
    const share = Math.min(1, Math.abs(value) / most), [r, g, b] = value > 0 ? MORE : LESS;
    return `rgba(${r},${g},${b},${(0.04 + 0.96 * share).toFixed(3)})`;
  }

  // Where there are more ranks than lines, a line shows the one that is furthest from its peers; -1: none was recorded.
  function rowOf(line, column) {
    let found = -1, furthest = -1;
    for (let row = Math.floor((line * rows) / lines); row < Math.floor(((line + 1) * rows) / lines); row++) {
      const value = values[row * columns + column];
      if (value !== null && Math.abs(value) > furthest) [found, furthest] = [row, Math.abs(value)];
    }
    return found;
  }

  function draw() {
    width = root.clientWidth;
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(root);
    canvas.width = width * scale;
    canvas.height = (above + height + below) * scale;
    canvas.style.height = `${above + height + below}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, above + height + below);
    const wide = (width - left) / columns, tall = height / lines, gap = tall > 6 ? 1 : 0;
    for (let line = 0; line < lines; line++)
      for (let column = 0; column < columns; column++) {
        const row = rowOf(line, column);
        if (row < 0) continue;
        context.fillStyle = colour(values[row * columns + column]);
        context.fillRect(left + column * wide, above + line * tall, Math.max(1, wide - (wide > 6 ? 1 : 0)), tall - gap);
      }
    context.fillStyle = style.color;
    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const everyRow = Math.ceil(14 / tall), everyColumn = Math.ceil(44 / wide);
    for (let line = 0; line < lines; line += everyRow)
      context.fillText(labels[Math.floor((line * rows) / lines)], left - 6, above + (line + 0.5) * tall);
    context.textAlign = "center";
    for (let column = 0; column < columns; column += everyColumn)
      context.fillText(steps[column] < 0 ? "other" : `${steps[column]}`, left + (column + 0.5) * wide, above + height + below / 2 + 2);
  }

  function cell(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - left, y = event.clientY - box.top - above;
    const column = Math.floor((x / (width - left)) * columns), line = Math.floor((y / height) * lines);
    const row = x >= 0 && line >= 0 && line < lines && column >= 0 && column < columns ? rowOf(line, column) : -1;
    return row >= 0 ? [row, column] : null;
  }

  canvas.onmousemove = (event) => {
    const found = cell(event);
    tip.style.display = found ? "block" : "none";
    if (!found) return;
    const [row, column] = found, step = steps[column];
    tip.textContent = `rank ${ranks[row]}, ${step < 0 ? "outside every step" : `step ${step}`}: ${texts[row * columns + column]}`;
    const box = root.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - box.left + 12, width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${event.clientY - box.top + 14}px`;
  };
  canvas.onmouseleave = () => (tip.style.display = "none");
  canvas.onclick = (event) => {
    const found = cell(event);
    if (found) setTriggerValue("cell", { rank: ranks[found[0]], step: steps[found[1]] });
  };
  const watch = new ResizeObserver(() => root.clientWidth !== width && draw());
  watch.observe(root);
  draw();
  return () => watch.disconnect();
}
