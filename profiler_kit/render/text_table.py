"""Tables as text: as wide as the terminal, numbers aligned and never cut."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any, Final

from profiler_kit.names import printable
from profiler_kit.render.layout import layout, name_column
from profiler_kit.table import Filled

GAP: Final = "   "
LEAST: Final = 28  # letters that the first column keeps
LEAST_TEXT: Final = 16  # and other texts
LONGEST_NUMBER: Final = 20  # with its unit: what is longer is a text, unless it is a moment or a count
_NUMBER: Final = re.compile(r"[\d,.:+ -]*")


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

    Numbers are never cut. When `width` is too little, the first column and texts are shortened in the middle, down to
    LEAST and LEAST_TEXT letters; where that is not enough, columns go: the `optional` ones, the first named first, then
    others, the last first, but never the first column. A line says which are left out.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    kept = list(range(len(columns)))
    natural = [max(map(len, (columns[c], *(row[c] for row in rows)))) for c in kept]
    texts = [c for c in kept if any(len(row[c]) > LONGEST_NUMBER and not _NUMBER.fullmatch(row[c]) for row in rows)]
    least = [min(natural[c], LEAST if c == 0 else LEAST_TEXT) if c == 0 or c in texts else natural[c] for c in kept]
    spare = [c for name in optional for c in kept if columns[c] == name]
    going = [*spare, *(c for c in reversed(kept) if c and c not in spare)]
    while going and not _fits([least[c] for c in kept], width):
        kept.remove(going.pop(0))
    widths = [natural[c] for c in kept]
    while not _fits(widths, width):  # the one that is most above its least gives way
        above = [size - least[c] for c, size in zip(kept, widths, strict=True)]
        widths[above.index(max(above))] -= 1

    def line(cells: Sequence[str]) -> str:
        shown = [shorten(cells[c], size) for c, size in zip(kept, widths, strict=True)]
        aligned = [
            text.ljust(size) if c < left else text.rjust(size)
            for c, text, size in zip(kept, shown, widths, strict=True)
        ]
        return GAP.join(aligned).rstrip()

    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    gone = ", ".join(columns[c] for c in range(len(columns)) if c not in kept)
    said = textwrap.wrap(f"Left out for lack of room: {gone}.", width or 1) if gone else []
    return [line(columns), rule, *map(line, rows), *said]


def _fits(sizes: Sequence[int], width: int | None) -> bool:
    return width is None or sum(sizes) + len(GAP) * (len(sizes) - 1) <= width


def shorten(text: str, size: int) -> str:
    """`text` in at most `size` characters: the middle goes, since names differ at both ends."""
    if len(text) <= size:
        return text
    head = size // 2
    return text[:head] + "…" + text[len(text) - (size - head - 1) :]
