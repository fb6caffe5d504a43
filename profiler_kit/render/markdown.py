"""Text that Markdown leaves as it is: names and sentences in, escaped ones and tables out."""

from __future__ import annotations

from collections.abc import Sequence


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
