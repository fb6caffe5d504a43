"""`profiler-kit flight DUMP...`: who is missing in which collective, from dumps of torch's flight recorder."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.ranks.flight import FLIGHT, flight
from profiler_kit.table import Table

TABLES: Final = (Table("flight", "flight", "collectives of a job that hung", FLIGHT, flight, command="flight", top=20),)
