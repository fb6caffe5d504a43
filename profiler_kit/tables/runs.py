"""The runs of a folder, from what lies in it: no trace is loaded."""

from __future__ import annotations

from typing import Final

from profiler_kit.load.discover.listing import RUN_LIST, run_list
from profiler_kit.names import fit_names
from profiler_kit.table import Option, Table

NAME_LETTERS: Final = 26  # so that what sets a run apart has room beside all that is known of it

TABLES: Final = (
    Table(
        "runs",
        "runs",
        "the runs of a folder",
        RUN_LIST,
        lambda runs, *, each_rank: run_list(runs, each_rank=each_rank),
        texts=lambda _, frame: {
            "run": fit_names(list(frame["run"]), NAME_LETTERS),
            "device": [name.removeprefix("NVIDIA ") for name in frame["device"]],
        },
        options=(Option("each_rank", False, "Show each rank of a job below the job's row.", "flag"),),
        order=("run", "health", "recorded", "model", "device", "latency_ns", "rate", "peak_bytes", "holds"),
    ),
)
