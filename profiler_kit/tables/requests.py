"""`profiler-kit requests RUN`: what requests to a server waited for, recorded under load; --by stage, batch or part."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.serving.batches import BATCH_PARTS, BATCHES, REQUEST_PARTS, request_parts
from profiler_kit.analyses.serving.requests import REQUESTS
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "requests",
        "requests",
        "requests to a server",
        REQUESTS,
        lambda served: served.requests.sort_values("latency_ns", ascending=False, kind="stable", ignore_index=True),
        command="requests",
        by="request",
        order=("id", "batch", "batch_size", "status", "latency_ns"),
        top=20,
    ),
    Table(
        "request_parts",
        "requests",
        "stages of requests",
        REQUEST_PARTS,
        request_parts,
        command="requests",
        by="stage",
        top=40,
    ),
    Table(
        "batches",
        "requests",
        "batches of requests",
        BATCHES,
        lambda served: served.batches,
        command="requests",
        by="batch",
        top=20,
    ),
    Table(
        "batch_parts",
        "requests",
        "parts of the batches of requests",
        BATCH_PARTS,
        lambda served: served.parts,
        command="requests",
        by="part",
        top=20,
    ),
)
