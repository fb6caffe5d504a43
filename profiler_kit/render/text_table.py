"""Tables as text: as wide as the terminal, numbers aligned and never cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from profiler_kit.names import printable
from profiler_kit.render.layout import layout, name_column
from profiler_kit.table import Filled

GAP: Final = "   "
NARROWEST: Final = 28  # what texts are shortened to before other columns go
LEAST: Final = 4  # and when none is left to go
LONGEST_NUMBER: Final = 20  # with its unit: what is longer is a text


def table_title(filled: Filled, where: object = "", top: int | None = None) -> str:
    """A table's title, with what it is of in front, and behind it the options that are not the usual ones."""
    said = f"{printable(str(where))}: {filled.table.title}" if where else filled.table.heading
    unusual = [
        f"{option.flag} {filled.options[option.name]}"
        for option in filled.table.options
        if filled.options[option.name] != option.default and option.name not in filled.frame
    ]
    said += f" ({', '.join(unusual)})" if unusual else ""
    return f"{said}, {top} of {len(filled):,} rows" if top is not None and top < len(filled) else said


def filled_lines(filled: Filled, *, top: int | None = None, width: int | None = None) -> list[str]:
    """A filled table, its first `top` rows; names are indented as the tree is. No lines without rows."""
    return table_lines(**filled_cells(filled, top), width=width) if len(filled) else []


def filled_cells(filled: Filled, top: int | None = None) -> dict[str, Any]:
    """What table_lines makes lines of: the texts of a filled table, however wide they will be."""
    shown = layout(filled, slice(top))
    cells = [one.indented("  ") for one in shown]
    return {
        "columns": [one.label for one in shown],
        "rows": [list(row) for row in zip(*cells, strict=True)],
        "left": name_column(shown),
        "optional": [one.label for one in reversed(shown) if one.optional],
    }


def table_lines(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    optional: Sequence[str] = (),
    width: int | None = None,
) -> list[str]:
    """The lines of a table: head, rule, one line a row.

    Numbers are never cut. When `width` is too little, the first column and what is longer than a number are shortened
    in the middle, the longest first, down to NARROWEST; then the `optional` columns go, the first named first; then
    texts are shortened further.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    kept = list(range(len(columns)))
    natural = [max(map(len, (columns[c], *(row[c] for row in rows)))) for c in kept]
    gives = [c for c in kept if c == 0 or max((len(row[c]) for row in rows), default=0) > LONGEST_NUMBER]
    for name in ("", *optional):
        kept = [c for c in kept if columns[c] != name or not name]
        fitted = _fitted([natural[c] for c in kept], [n for n, c in enumerate(kept) if c in gives], NARROWEST, width)
        if width is None or sum(fitted) + len(GAP) * (len(kept) - 1) <= width:
            break
    widths = _fitted(fitted, [n for n, c in enumerate(kept) if c in gives], LEAST, width)

    def line(cells: Sequence[str]) -> str:
        shown = [shorten(cells[c], size) for c, size in zip(kept, widths, strict=True)]
        aligned = [
            text.ljust(size) if c < left else text.rjust(size)
            for c, text, size in zip(kept, shown, widths, strict=True)
        ]
        return GAP.join(aligned).rstrip()

    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return [line(columns), rule, *map(line, rows)]


def _fitted(sizes: list[int], gives: Sequence[int], least: int, width: int | None) -> list[int]:
    """The widths of columns where those that give way do so, the widest first, until all fit or they are at `least`."""
    sizes = list(sizes)
    while width is not None and sum(sizes) + len(GAP) * (len(sizes) - 1) > width:
        widest = max(gives, key=lambda n: sizes[n])
        if sizes[widest] <= least:
            break
        sizes[widest] -= 1
    return sizes


def shorten(text: str, size: int) -> str:
    """`text` in at most `size` characters: the middle goes, since names differ at both ends."""
    if len(text) <= size:
        return text
    head = size // 2
    return text[:head] + "…" + text[len(text) - (size - head - 1) :]
