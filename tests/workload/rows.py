"""Rows of a ladder without processes of their own."""

from __future__ import annotations

import contextlib
import io

from profiler_kit.formats.ladder_record import RowResult
from profiler_kit.workload.ladder_plan import LadderPlan
from profiler_kit.workload.row import RowPlan, run_row


def row_here(_plan: LadderPlan, row_plan: RowPlan, _show: object) -> RowResult:
    """In place of `ladder._process`; what the row says goes where nobody looks."""
    with contextlib.redirect_stdout(io.StringIO()):
        return run_row(row_plan)
