// Ranks down, steps across; the colour says how much more (or less) own work than its peers a rank had in a step.
const MORE = [204, 51, 17], LESS = [68, 119, 170];

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".heat"), canvas = root.querySelector("canvas"), tip = root.querySelector(".tip");
  const { ranks, steps, values, texts, most, labels } = data;
  const left = 58, above = 7, below = 20, rows = ranks.length, columns = steps.length;
  const height = Math.max(60, Math.min(440, rows * 18));
  const context = canvas.getContext("2d");
  let width = 0;

  function colour(value) {
    const share = Math.min(1, Math.abs(value) / most), [r, g, b] = value > 0 ? MORE : LESS;
    return `rgba(${r},${g},${b},${(0.04 + 0.96 * Math.sqrt(share)).toFixed(3)})`;
  }

  function draw() {
    width = root.clientWidth;
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(root);
    canvas.width = width * scale;
    canvas.height = (above + height + below) * scale;
    canvas.style.height = `${above + height + below}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, above + height + below);
    const wide = (width - left) / columns, tall = height / rows, gap = tall > 6 ? 1 : 0;
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const value = values[row * columns + column];
        if (value === null) continue;
        context.fillStyle = colour(value);
        context.fillRect(left + column * wide, above + row * tall, Math.max(1, wide - (wide > 6 ? 1 : 0)), Math.max(1, tall - gap));
      }
    context.fillStyle = style.color;
    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const everyRow = Math.ceil(14 / tall), everyColumn = Math.ceil(44 / wide);
    for (let row = 0; row < rows; row += everyRow) context.fillText(labels[row], left - 6, above + (row + 0.5) * tall);
    context.textAlign = "center";
    for (let column = 0; column < columns; column += everyColumn)
      context.fillText(steps[column] < 0 ? "other" : `${steps[column]}`, left + (column + 0.5) * wide, above + height + below / 2 + 2);
  }

  function cell(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - left, y = event.clientY - box.top - above;
    const column = Math.floor((x / (width - left)) * columns), row = Math.floor((y / height) * rows);
    return x >= 0 && row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  }

  canvas.onmousemove = (event) => {
    const found = cell(event);
    tip.style.display = found ? "block" : "none";
    if (!found) return;
    const [row, column] = found, step = steps[column];
    tip.textContent = `rank ${ranks[row]}, ${step < 0 ? "outside every step" : `step ${step}`}: ${texts[row * columns + column] || "not recorded"}`;
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
