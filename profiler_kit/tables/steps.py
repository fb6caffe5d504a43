"""`profiler-kit steps TRACE`: how long each iteration took, which ones stand out, and what differs in them."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.steps import STEPS
from profiler_kit.table import Option, Table

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
    ),
)
