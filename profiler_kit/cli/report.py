"""`profiler-kit report RUN [RUN ...] -o report.html`: runs as one offline HTML page, or as Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import whole_file
from profiler_kit.names import printable
from profiler_kit.progress import progress_bar

PAGES: Final = (".html", ".htm")
TEXTS: Final = (".md", ".markdown")
DEFAULT: Final = "report.html"


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Run folders, chrome traces or memory snapshots; several are compared with the first. Ladders and "
            "folders with the ranks of a job, too.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=f"The file to write: .html, or .md. [default: {DEFAULT}]")
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Markdown to paste into a pull request; printed when no -o is given.")
    ] = False,
) -> None:
    """Write what a run shows into one HTML file that needs no network: time, regions, kernels, layers, memory, ranks.

    Several runs are compared with the first. The report says what a run lacks, and shows the rest.
    """
    from profiler_kit.cli.output import open_ranks
    from profiler_kit.formats.ladder_record import RESULTS, RESULTS_CSV, read_ladder
    from profiler_kit.load.rank_store import is_job
    from profiler_kit.run import load_runs

    target = _target(output, runs, as_markdown=as_markdown)
    folders = [path for path in runs if (path / RESULTS).is_file() and (path / RESULTS_CSV).is_file()]
    ladders = [(folder, read_ladder(folder)) for folder in folders]
    of_ranks = [path for path in runs if path not in folders and is_job(path)]
    others = [path for path in runs if path not in (*folders, *of_ranks)]
    jobs = [open_ranks([str(path)]) for path in of_ranks]
    with progress_bar("Loading") as report:
        loaded = load_runs(others, report=report) if others else []
    for run in loaded:
        for problem in run.problems:
            typer.echo(f"profiler-kit: {printable(problem)}", err=True)
    if target is not None:
        _refuse_inputs(target, [file for run in loaded for file in run.files])
    if not ladders and not jobs and not any(set(run.holds) - {"record"} for run in loaded):
        why = next((problem for run in loaded for problem in run.problems), "")
        raise InputError(
            f"{runs[0]}: nothing to report, expected a trace, a snapshot, layer timings or a job that can be read. "
            f"{f'Found: {why}' if why else 'Record one with: profiler-kit capture --out DIR'}"
        )
    if as_markdown or (target is not None and target.suffix.lower() in TEXTS):
        from profiler_kit.render.report.job import job_markdown
        from profiler_kit.render.report.markdown import ladder_markdown, report_markdown

        parts = [*([report_markdown(loaded)] if loaded else []), *map(job_markdown, jobs)]
        text = "\n".join([*parts, *(ladder_markdown(*one) for one in ladders)])
    else:
        from profiler_kit.render.report.page import report_page

        text = report_page(loaded, ladders, jobs)
    if target is None:
        typer.echo(text, nl=False)
        return
    _write(target, text)


def _target(output: Path | None, runs: Sequence[Path], *, as_markdown: bool) -> Path | None:
    """Where to write, None for standard output; refuses, before anything is read, what is not a report's name."""
    if output is None:
        return None if as_markdown else Path(DEFAULT)
    if os.path.isdir(output):  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        raise OptionError(f"-o {output}: this is a folder, expected a file. Try: -o {output / DEFAULT}")
    wanted = TEXTS if as_markdown else (*PAGES, *TEXTS)
    if output.suffix.lower() not in wanted:
        better = output.with_suffix(wanted[0]) if output.name else Path(f"report{wanted[0]}")
        raise OptionError(f"-o {output}: expected a name that ends in {' or '.join(wanted)}. Try: -o {better}")
    _refuse_inputs(output, runs)
    return output


def _refuse_inputs(target: Path, inputs: Sequence[Path]) -> None:
    """Raises OptionError when the report would replace what it is made of."""
    for file in inputs:
        if os.path.exists(target) and os.path.exists(file) and target.samefile(file):  # noqa: PTH110 - as above
            raise OptionError(
                f"-o {target}: this is one of the files to read, expected another name. Try: -o {DEFAULT}"
            )


def _write(target: Path, text: str) -> None:
    from profiler_kit.text import fmt_bytes

    data = text.encode("utf-8", "replace")
    with whole_file(target) as temporary:
        temporary.write_bytes(data)
    typer.echo(f"{printable(target)}: {fmt_bytes(len(data))}")
