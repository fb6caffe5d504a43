// ---- elements.js: what the page is made of; everything from the file goes through textContent ----

import { grouped } from "./format.js";

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
export function byId(id) { return document.getElementById(id); }

// A name from the file: on its own whatever way it runs, and no longer than anybody reads (the title says more of it).
const MOST_LETTERS = 240;
export function shortened(text, most = MOST_LETTERS) { return text.length > most ? `${text.slice(0, most)}…` : text; }
export function nameOf(text, className = "") { return element("bdi", { className, textContent: shortened(text), title: text.length > MOST_LETTERS ? shortened(text, 4000) : "" }); }

export function showTip(x, y, ...lines) {
  const tip = byId("tip");
  tip.hidden = !lines.length;
  if (!lines.length) return;
  tip.replaceChildren(...lines);
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 16 + box.width > innerWidth ? x - box.width - 12 : x + 16)}px`;
  tip.style.top = `${Math.max(4, Math.min(innerHeight - box.height - 4, y + 14))}px`;
}
export function tipLine(text, strong = "") {
  return element("div", { className: strong ? "main" : "" }, ...(strong ? [element("b", { textContent: strong }), " "] : []), nameOf(text));
}

export function swatch(colour) {
  const made = element("span", { className: "swatch" });
  made.style.background = colour;
  return made;
}

// columns: [{name, number, title}], rows: [{cells: [text or node], title, className, choose}]; returns nothing.
export function fillTable(table, columns, rows, most = 300) {
  table.tHead.replaceChildren(element("tr", {}, ...columns.map((column) =>
    element("th", { scope: "col", className: column.number ? "number" : "", textContent: column.name, title: column.title || "" }))));
  const shown = rows.slice(0, most).map((row) => {
    const made = element("tr", { className: row.className || "", title: row.title || "" }, ...row.cells.map((cell, i) => {
      const box = element("td", { className: columns[i].number ? "number" : "" });
      box.append(...(Array.isArray(cell) ? cell : [cell]));
      return box;
    }));
    if (row.choose) {
      made.tabIndex = 0;
      made.classList.add("can");
      made.onclick = row.choose;
      made.onkeydown = (event) => { if (event.key === "Enter") row.choose(); };
    }
    return made;
  });
  if (rows.length > most) shown.push(element("tr", {}, element("td", { colSpan: columns.length, className: "where", textContent: `${grouped(rows.length - most)} more` })));
  table.tBodies[0].replaceChildren(...shown);
}

// A thin bar of parts that fill a cell: [[share, colour, title]].
export function shareBar(parts) {
  const bar = element("span", { className: "share" });
  for (const [share, colour, title] of parts) {
    if (!(share > 0)) continue;
    const part = element("i", { title });
    part.style.width = `${Math.min(100, share * 100)}%`;
    part.style.background = colour;
    bar.append(part);
  }
  return bar;
}

export function copyText(text) { // works from a file, where there is no clipboard API
  const area = element("textarea", { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
