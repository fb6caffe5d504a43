"""`profiler-kit requests RUN`: what each request to a server waited for, recorded under load."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.serving.requests import REQUESTS
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "requests",
        "requests",
        "requests to a server",
        REQUESTS,
        lambda requests: requests.sort_values("latency_ns", ascending=False, kind="stable", ignore_index=True),
        command="requests",
        order=("id", "batch", "batch_size", "status", "latency_ns"),
        top=20,
    ),
)
