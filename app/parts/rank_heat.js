export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".heat"), canvas = root.querySelector("canvas"), tip = root.querySelector(".tip");
  const { ranks, groups, steps, values, most, colours } = data, shades = colours.map(channels);
  const grouped = groups.some((name) => name), left = grouped ? 118 : 66, above = 7, below = 20;
  const rows = ranks.length, columns = steps.length;
  const height = Math.max(60, Math.min(440, rows * 18)), lines = Math.min(rows, Math.floor(height / 3));
  const context = canvas.getContext("2d");
  let width = 0;

  function colour(value) {
    const share = Math.min(1, Math.abs(value) / most), [r, g, b] = shades[value > 0 ? 0 : 1];
    return `rgba(${r},${g},${b},${(0.04 + 0.96 * share).toFixed(3)})`;
  }

  const firstRow = (line) => Math.floor((line * rows) / lines);

  // Where there are more ranks than lines, a line shows the one that is furthest from its peers; -1: none was recorded.
  function rowOf(line, column) {
    let found = -1, furthest = -1;
    for (let row = firstRow(line); row < firstRow(line + 1); row++) {
      const value = values[row * columns + column];
      if (value !== null && Math.abs(value) > furthest) [found, furthest] = [row, Math.abs(value)];
    }
    return found;
  }

  // The rank of a line that stands out, -1 where none does.
  function outlier(line) {
    let found = -1, furthest = most / 2;
    for (let column = 0; column < columns; column++) {
      const row = rowOf(line, column), value = row < 0 ? 0 : values[row * columns + column];
      if (value > furthest) [found, furthest] = [row, value];
    }
    return found;
  }

  function names(tall) {
    context.font = `11px ${getComputedStyle(root).fontFamily}`;
    context.textAlign = "right";
    const free = [], far = [];
    let group = null;
    for (let line = 0; line < lines; line++) {
      const row = firstRow(line), out = outlier(line), begins = grouped && groups[row] !== group;
      group = groups[row];
      if (out >= 0) far.push([line, `rank ${ranks[out]}`]);
      else if (!grouped || begins) free.push([line, grouped ? groups[row] || `rank ${ranks[row]}` : `rank ${ranks[row]}`]);
      if (begins && line) context.fillRect(left - 4, above + line * tall - 0.5, 4, 1);
    }
    const taken = [];
    for (const [bold, list] of [["bold ", far], ["", free]])
      for (const [line, text] of list) {
        const y = above + (line + 0.5) * tall;
        if (taken.some((other) => Math.abs(other - y) < 13)) continue;
        taken.push(y);
        context.font = `${bold}11px ${getComputedStyle(root).fontFamily}`;
        context.fillText(fit(context, text, left - 10), left - 6, y);
      }
  }

  function draw() {
    width = root.clientWidth;
    if (width <= left) return; // not laid out yet: the observer draws it then
    const scale = window.devicePixelRatio || 1;
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
    context.fillStyle = getComputedStyle(root).color;
    context.textBaseline = "middle";
    names(tall);
    context.textAlign = "center";
    const everyColumn = Math.ceil(44 / wide);
    for (let column = 0; column < columns; column += everyColumn)
      context.fillText(`${steps[column]}`, left + (column + 0.5) * wide, above + height + below / 2 + 2);
  }

  function cell(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left - left, y = event.clientY - box.top - above;
    const column = Math.floor((x / (width - left)) * columns), line = Math.floor((y / height) * lines);
    const row = x >= 0 && line >= 0 && line < lines && column >= 0 && column < columns ? rowOf(line, column) : -1;
    return row >= 0 ? [row, column] : null;
  }

  function tell([row, column], x, y) {
    const step = steps[column], value = values[row * columns + column];
    const where = `rank ${ranks[row]}${groups[row] ? ` (${groups[row]})` : ""}, step ${step}`;
    tip.textContent = `${where}: ${duration(Math.abs(value))} ${value >= 0 ? "more" : "less"} than its peers`;
    tip.style.display = "block";
    tip.style.left = `${Math.max(0, Math.min(x + 12, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 14}px`;
  }

  const open = ([row, column]) => setTriggerValue("cell", { rank: ranks[row], step: steps[column] });

  // The cell of the keys is a line and a column; they stay where something was recorded.
  let at = [0, 0];
  const tall = height / lines;

  function move(line, column) {
    if (line < 0 || line >= lines || column < 0 || column >= columns) return;
    at = [line, column];
    const row = rowOf(line, column), wide = (width - left) / columns, y = above + line * tall;
    draw();
    context.strokeStyle = getComputedStyle(root).color;
    context.lineWidth = 2;
    context.strokeRect(left + column * wide, y, Math.max(2, wide - 1), Math.max(3, tall - 1));
    if (row < 0) tip.style.display = "none";
    else tell([row, column], left + column * wide, y + tall);
  }

  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.onkeydown = (event) => {
    const by = MOVES[event.key], row = rowOf(...at);
    if (by) move(at[0] + by[0], at[1] + by[1]);
    else if (event.key === "Enter" && row >= 0) open([row, at[1]]);
    else return;
    event.preventDefault();
  };
  canvas.onfocus = () => canvas.matches(":focus-visible") && move(...at);
  canvas.onblur = () => {
    tip.style.display = "none";
    draw();
  };

  canvas.onmousemove = (event) => {
    const found = cell(event), box = root.getBoundingClientRect();
    if (found) tell(found, event.clientX - box.left, event.clientY - box.top);
    else tip.style.display = "none";
  };
  canvas.onmouseleave = () => (tip.style.display = "none");
  canvas.onclick = (event) => {
    const found = cell(event);
    if (found) open(found);
  };
  const watch = new ResizeObserver(() => root.clientWidth !== width && draw());
  watch.observe(root);
  draw();
  return () => watch.disconnect();
}
