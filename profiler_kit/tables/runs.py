"""The runs of a folder, from what lies in it: no trace is loaded."""

from __future__ import annotations

from typing import Final

from profiler_kit.load.discover.listing import RUN_LIST, run_list
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "runs",
        "runs",
        "the runs of a folder",
        RUN_LIST,
        run_list,
        texts=lambda _, frame: {"device": [name.removeprefix("NVIDIA ") for name in frame["device"]]},
        order=("run", "health", "recorded", "model", "device", "latency_ns", "rate", "peak_bytes", "holds"),
    ),
)
