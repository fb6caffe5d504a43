"""Ladders that take no seconds: rows without processes of their own, and small matrices for what the device can do."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from profiler_kit.formats.ladder_record import LOG, RowResult
from profiler_kit.workload.ladder_plan import LadderPlan
from profiler_kit.workload.row import RowPlan, run_row

# for profiler_kit.workload.ceilings: with those of a user it takes ten seconds a ladder
LOW_CEILINGS = {"_SIDE": {"cpu": 64}, "_COPY_BYTES": {"cpu": 1 << 20}, "_SECONDS": 0.0}


def row_here(_plan: LadderPlan, row_plan: RowPlan, _show: object) -> RowResult:
    """In place of `ladder._process`; what the row says goes where nobody looks."""
    (Path(row_plan.folder) / LOG).touch()
    with contextlib.redirect_stdout(io.StringIO()):
        return run_row(row_plan)
