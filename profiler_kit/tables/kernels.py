"""`profiler-kit kernels TRACE`: how long each kernel, memory copy and memory set took."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from profiler_kit.analyses.gpu.kernels import KERNEL_GROUPS, KERNEL_ORIGINS, KERNEL_TOTALS
from profiler_kit.table import Option, Table

if TYPE_CHECKING:
    import pandas as pd

REGION: Final = Option("region", None, "Only what this region launched, nested regions included.")
BY: Final = Option("by", "name", "What makes a group.", "choice", ("name", "kind", "stream"))
KEY: Final = Option("key", None, "Only this group; all of them where it is left out.")


def _files(_: object, rows: pd.DataFrame) -> dict[str, list[str]]:
    """Python functions without the folders of their files, so that the line can be read."""
    return {"site": [re.sub(r"^.*[/\\\\](?=[^/\\\\]*\(\d+\): )", "", str(site)) for site in rows["site"]]}


TABLES: Final = (
    Table(
        "kernels",
        "trace",
        "GPU time by kernel",
        KERNEL_TOTALS,
        lambda trace, region: trace.kernels(region=region),
        options=(REGION,),
        command="kernels",
        order=("name", "sum_ns", "count", "mean_ns", "min_ns", "max_ns", "stream", "device", "category"),
        share_of="sum_ns",
        top=30,
        needs_gpu=True,
    ),
    Table(
        "kernel_groups",
        "trace",
        "GPU time by group",
        KERNEL_GROUPS,
        lambda trace, by: trace.kernel_groups(by),
        options=(BY,),
        order=("key", "sum_ns", "share", "count"),
        needs_gpu=True,
    ),
    Table(
        "kernel_origins",
        "trace",
        "where GPU events were launched",
        KERNEL_ORIGINS,
        lambda trace, by, key: trace.kernel_origins(by, key),
        options=(BY, KEY),
        order=("path", "operator", "sum_ns", "count", "module", "site", "call"),
        texts=_files,
        share_of="sum_ns",
        needs_gpu=True,
    ),
)
