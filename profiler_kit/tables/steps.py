"""`profiler-kit steps TRACE`: how long each iteration took, which ones stand out, and what differs in them."""

from __future__ import annotations

from typing import Any, Final

from profiler_kit.analyses.gpu.steps import STEP, STEPS
from profiler_kit.table import Empty, Option, Table


def no_steps(trace: Any) -> Empty:
    """Why a trace has no steps to tell of: none at all, or one alone."""
    if (trace.region_instances()["name"] == STEP).any():
        said = "One ProfilerStep was recorded: there is nothing to compare it with."
    else:
        said = "No iterations were recorded: there is no ProfilerStep, and no region that repeats."
    return Empty(said, lacks="no steps", of_host=True)


TABLES: Final = (
    Table(
        "steps",
        "trace",
        "iterations",
        STEPS,
        lambda trace, region: trace.steps(region=region),
        options=(
            Option("region", None, "The region whose instances are the steps; else ProfilerStep, or what repeats."),
        ),
        command="steps",
        order=("step", "name", "kind", "wall_ns", "median_share", "outlier", "busy_ns", "idle_ns"),
        host=("step", "name", "kind", "tokens", "sequences", "wall_ns", "median_share", "outlier"),
        top=40,
        empty=no_steps,
    ),
)
