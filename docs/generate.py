"""Make the pages of the documentation that stand elsewhere already: README and its kin, and the reference.

A hook of mkdocs (`make docs`). Tables come from their declarations, commands from their help, Python from docstrings:
nothing is written a second time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
COPIED = {
    "index.md": "README.md",
    "architecture.md": "ARCHITECTURE.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those of docs/."""
    pages = {name: _copied(source) for name, source in COPIED.items()}
    pages |= {"reference/tables.md": tables(), "reference/commands.md": commands(), "reference/python.md": python()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for picture in re.findall(r"\((benchmarks/results/[^)]+\.png)\)", pages["index.md"]):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def _copied(name: str) -> str:
    """A file of the repository's top as a page: links into docs/ and to other pages work, others become text."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for page, source in COPIED.items():
        text = text.replace(f"]({source})", f"]({page})")
    return re.sub(r"(?<!!)\[([^]]+)\]\((?!https?:|#|[\w-]+\.md)[^)]*\)", r"`\1`", text)


def tables() -> str:
    """One section a table: what one row is, its options, and of each column its type and meaning."""
    from profiler_kit.tables import every_table

    lines = ["# Tables", "", "Every table is on the command line, in SQL, the dashboard, the report and notebooks.", ""]
    for name, table in sorted(every_table().items()):
        schema = table.schema
        lines += [f"## {name}", "", f"One row per {schema.row.rstrip('.')}. Filled from a {table.of}.", ""]
        if table.command:
            lines += [f"Command: `profiler-kit {table.command}{f' --by {table.by}' if table.by else ''}`.", ""]
        if table.options:
            lines += ["| option | default | meaning |", "|---|---|---|"]
            lines += [f"| `{o.flag}` | {o.default} | {_cell(o.meaning)} |" for o in table.options]
            lines += [""]
        lines += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        for column in table.columns:
            dtype, unit = schema.columns[column].dtype, schema.unit(column)
            lines.append(f"| `{column}` | {dtype} | {unit} | {_cell(schema.meaning(column))} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def commands() -> str:
    """The help of every subcommand."""
    import typer
    from typer.testing import CliRunner

    from profiler_kit.cli import build_app

    app, runner = build_app(), CliRunner()
    group = typer.main.get_command(app) if isinstance(app, typer.Typer) else app
    lines = ["# Command line", ""]
    for name in group.list_commands(None):
        shown = runner.invoke(app, [name, "--help"], terminal_width=100, prog_name="profiler-kit").output
        lines += [f"## {name}", "", "```", shown.strip(), "```", ""]
    return "\n".join(lines)


def python() -> str:
    """Every public name, from its docstring."""
    import profiler_kit

    lines = ["# Python", "", "`from profiler_kit import …`", ""]
    for name in profiler_kit.__all__:
        if name in profiler_kit.HOMES:
            lines += [f"::: {profiler_kit.HOMES[name]}.{name}", ""]
    return "\n".join(lines)
