"""Markdown to paste into a pull request: tables, and text escaped so that it reads as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from profiler_kit.findings.no_rows import no_rows
from profiler_kit.render.layout import layout, name_column
from profiler_kit.render.text_table import table_title
from profiler_kit.table import Filled

WIDTH: Final = 70  # of a name, so that there is room for the columns beside it


def document(heading: str, said: Sequence[str], tables: Sequence[tuple[Filled, int | None, bool]]) -> str:
    """A heading, sentences as a list, and tables: each with how many rows to show, and whether it is folded away."""
    out = [f"### {plain(heading)}", "", *(f"- {plain(line)}" for line in said), ""]
    for filled, top, folded in tables:
        head, rows = plain(table_title(filled, top=top)), table_markdown(filled, top)
        if folded:
            out += ["<details>", f"<summary>{head}</summary>", "", *rows, "", "</details>", ""]
        else:
            out += [f"**{head}**", "", *rows, ""]
    return "\n".join(out)


def table_markdown(
    filled: Filled,
    rows: int | None = None,
    *,
    columns: Sequence[str] = (),
    extra: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """The lines of a filled table, its first `rows` rows; names are indented as the tree is. Without rows why there are
    none, where that is known.

    columns: names of those to show, in this order, as `layout` names them; else all that are not optional. extra:
    heading and cells of further columns.
    """
    if not len(filled) and (why := no_rows(filled)) is not None:
        return [plain(why.line)]
    found = {one.name: one for one in layout(filled, slice(rows))}
    names = columns or [name for name, one in found.items() if not one.optional]
    shown = [found[name] for name in names if name in found]
    left = name_column(shown)
    cells = [
        [code(cut(cell)) if n < left else plain(cell) for cell in one.indented("  ")] for n, one in enumerate(shown)
    ]
    cells += [list(map(plain, more)) for more in (extra or {}).values()]
    rule = [" --- " if n < left or one.kind == "text" else " ---: " for n, one in enumerate(shown)]
    rule += [" ---: "] * len(extra or {})
    heads = [plain(one.label) or " " for one in shown] + list(extra or {})
    head, *body = ["| " + " | ".join(line) + " |" for line in (heads, *zip(*cells, strict=True))]
    return [head, "|" + "|".join(rule) + "|", *body]


def cut(name: str) -> str:
    """A name at most WIDTH letters long."""
    return name if len(name) <= WIDTH else name[: WIDTH - 1] + "…"


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], *, named: bool = True) -> list[str]:
    """The lines of a table: numbers to the right; with `named` the first column is names, set as code."""
    rule = [" --- " if named else " ---: ", *[" ---: "] * (len(columns) - 1)]
    first = code if named else plain
    return [
        "| " + " | ".join(plain(column) or " " for column in columns) + " |",
        "|" + "|".join(rule) + "|",
        *("| " + " | ".join([first(row[0]), *map(plain, row[1:])]) + " |" for row in rows),
    ]


def plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    for mark in "\\|<>*_`#[]@":
        text = text.replace(mark, f"\\{mark}" if mark != "@" else "&#64;")
    return text


def code(text: str) -> str:
    """A name as code, indentation kept; a pipe would end the cell even there."""
    name = text.lstrip()
    indent = "&emsp;" * ((len(text) - len(name)) // 2)
    return f"{indent}`{name.replace('`', chr(39)).replace('|', chr(0x2502))}`" if name else " "
