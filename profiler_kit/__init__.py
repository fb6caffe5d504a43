"""profiler_kit: capture, load, attribute and show where PyTorch inference spends time and memory.

The public names are imported when first used, so that the capture side needs nothing but torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from profiler_kit.version import __version__

if TYPE_CHECKING:
    from profiler_kit.analyses.gpu.operator_models import operator_model
    from profiler_kit.capture.layers import layer_timer
    from profiler_kit.capture.memory import memory_runner
    from profiler_kit.capture.record_run import record_run
    from profiler_kit.capture.regions import region
    from profiler_kit.capture.runners import profiler_runner
    from profiler_kit.errors import KitError
    from profiler_kit.ingest.one_rank import ingest_rank
    from profiler_kit.joined import JoinedRun, join_run
    from profiler_kit.models.sam.fast import sam_model_fast_registry
    from profiler_kit.ranks import Ranks, load_ranks
    from profiler_kit.run import Run, load_run
    from profiler_kit.snapshot import Snapshot, load_snapshot
    from profiler_kit.trace import Trace, load_trace

__all__ = [
    "JoinedRun",
    "KitError",
    "Ranks",
    "Run",
    "Snapshot",
    "Trace",
    "__version__",
    "ingest_rank",
    "join_run",
    "layer_timer",
    "load_ranks",
    "load_run",
    "load_snapshot",
    "load_trace",
    "memory_runner",
    "operator_model",
    "profiler_runner",
    "record_run",
    "region",
    "sam_model_fast_registry",
]

HOMES: Final = {
    "JoinedRun": "profiler_kit.joined",
    "KitError": "profiler_kit.errors",
    "Ranks": "profiler_kit.ranks",
    "Run": "profiler_kit.run",
    "Snapshot": "profiler_kit.snapshot",
    "Trace": "profiler_kit.trace",
    "ingest_rank": "profiler_kit.ingest.one_rank",
    "join_run": "profiler_kit.joined",
    "layer_timer": "profiler_kit.capture.layers",
    "load_ranks": "profiler_kit.ranks",
    "load_run": "profiler_kit.run",
    "load_snapshot": "profiler_kit.snapshot",
    "load_trace": "profiler_kit.trace",
    "memory_runner": "profiler_kit.capture.memory",
    "operator_model": "profiler_kit.analyses.gpu.library_models",  # those first, so that a user's replace them
    "profiler_runner": "profiler_kit.capture.runners",
    "record_run": "profiler_kit.capture.record_run",
    "region": "profiler_kit.capture.regions",
    "sam_model_fast_registry": "profiler_kit.models.sam.fast",
}


def __getattr__(name: str) -> object:
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
