"""`profiler-kit ranks TRACE...`: compare the ranks of one job: busy, communication, and who waited for whom in its
collectives.
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.ranks.ranks import COLLECTIVE_WAITS, RANK_COLLECTIVES, RANK_TOTALS, collective_waits
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "ranks",
        "job",
        "ranks side by side",
        RANK_TOTALS,
        lambda ranks: ranks.totals(),
        command="ranks",
        by="rank",
    ),
    Table(
        "rank_collectives",
        "job",
        "collectives and who waited for whom",
        RANK_COLLECTIVES,
        lambda ranks: ranks.collectives(),
        command="ranks",
        by="collective",
        top=30,
    ),
    Table(
        "collective_waits",
        "job",
        "wait at each collective",
        COLLECTIVE_WAITS,
        lambda ranks: collective_waits(ranks.collectives()),
    ),
)
