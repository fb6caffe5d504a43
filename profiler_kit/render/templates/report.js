// Sorts the tables marked sortable by a click on a column's head; the page can be read without it.
const number = (text) => {
  const value = parseFloat(text.replace(/[,\s]/g, ""));
  return Number.isNaN(value) ? -Infinity : value;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = !head.classList.contains("text");
      const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numeric;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[column].dataset.n ?? row.cells[column].textContent;
      const rows = [...body.rows].sort((a, b) =>
        numeric ? number(text(a)) - number(text(b)) : text(a).localeCompare(text(b)));
      body.append(...(down ? rows.reverse() : rows));
    });
  });
}
