"""`profiler-kit advice RUN`: what is worth knowing about a run, and what is most worth fixing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli.output import AsJson, hanging, print_json
from profiler_kit.names import printable
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.finding import Finding, Kind

_TITLES: Final[dict[Kind, str]] = {
    "headline": "",
    "problem": "Broken",
    "lost": "Lost",
    "missing": "Not recorded",
    "odd": "Odd",
    "why": "Why GPUs waited",
    "advice": "Most worth fixing",
    "memory": "Memory",
    "layers": "Layers",
}


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder, a chrome trace, a memory snapshot (memory.pickle) or a layers.parquet."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say where the time went, what is most worth fixing, what went wrong in memory, and what was lost.

    Each gain is an upper bound for that cause alone, and causes may overlap; of a kernel or an operator it is the time
    that it holds. --json has the rows of the tables that prove each finding.
    """
    from profiler_kit.finding import of_kind
    from profiler_kit.findings.advice import NOTHING
    from profiler_kit.run import load_run

    with progress_bar(f"Loading {run.name}") as report:
        loaded = load_run(run, report=report)
    found = loaded.findings
    if as_json:
        print_json([one.to_json() for one in found])
        return
    typer.echo(printable(run))
    for kind, title in _TITLES.items():
        mine = of_kind(found, kind)
        if mine or (kind == "advice" and loaded.trace is not None):
            typer.echo(f"\n{title}" if title else "")
            _print(mine, numbered=kind == "advice")
            typer.echo(f"  {NOTHING}\n" if not mine else "", nl=False)


def _print(found: list[Finding], *, numbered: bool) -> None:
    for number, one in enumerate(found, 1):
        start = f"  {number:>2}. " if numbered else "  "
        lines = [one.heading, one.sentence] if one.title else [one.sentence]
        lines += [f"Try: {one.attempt}"] if one.attempt else []
        lines += [f"Affects: {one.affects}."] if one.affects else []
        lines += one.details
        below = " " * (len(start) + 2)
        typer.echo("\n".join([hanging(start, lines[0]), *(hanging(below, line) for line in lines[1:])]))
