"""What GPU work each region launched, and what it allocated."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.compare.clock import REGION_MEMORY, REGION_MEMORY_TOTALS
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.utilization import REGION_OVERVIEW, region_overview
from profiler_kit.table import Table
from profiler_kit.tables.utilization import NO_REGIONS, verdict_words

_NO_REGIONS: Final = NO_REGIONS._replace(of_host=True, nothing="path")

TABLES: Final = (
    Table(
        "regions",
        "trace",
        "time by region",
        REGION_TOTALS,
        lambda trace: trace.regions(),
        command="regions",
        order=("path", "instances", "gpu_events", "busy_ns", "sum_ns"),
        share_of="busy_ns",
        tree=True,
        host=("path", "instances", "host_ns"),
        empty=_NO_REGIONS,
    ),
    Table(
        "region_overview",
        "trace",
        "regions: time, and what bounds each",
        REGION_OVERVIEW,
        lambda trace: region_overview(trace.regions(), trace.utilization()),
        order=("path", "busy_ns", "verdict", "utilization", "other_ns", "idle_ns", "host_ns", "sum_ns"),
        share_of="busy_ns",
        tree=True,
        host=("path", "host_ns", "instances"),
        texts=verdict_words,
        empty=_NO_REGIONS,
    ),
    Table(
        "region_memory",
        "joined",
        "GPU time and memory by region",
        REGION_MEMORY_TOTALS,
        lambda joined: joined.region_totals(),
        order=("path", "device"),
        tree=True,
    ),
    Table(
        "region_memory_instances",
        "joined",
        "GPU time and memory of each opened region",
        REGION_MEMORY,
        lambda joined: joined.regions(),
        order=("path", "device"),
    ),
)
