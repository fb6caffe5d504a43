"""Why a table of a trace is empty, and how to record what it would show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from profiler_kit.analyses.gpu.steps import STEP
from profiler_kit.attribute.regions import NO_REGION, UNLINKED
from profiler_kit.finding import Finding, say
from profiler_kit.findings.quality import WORDS
from profiler_kit.findings.time import missing_gpu
from profiler_kit.table import Filled
from profiler_kit.trace import Trace

_STACKS: Final = WORDS["no stacks"][2]
_COMMUNICATION: Final = (
    "No kernel of this trace counts as communication.",
    "--communication PATTERN  # where kernels of other names communicate",
)
# Table -> why it has no rows where GPU work was recorded, and what to try.
_REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "collectives": _COMMUNICATION,
    "communication": _COMMUNICATION,
    "compiled_regions": (
        "No call of a function that torch.compile compiled is numbered in this trace; torch 2.5 and later number them.",
        "",
    ),
    "triton_kernels": ("No Triton kernel ran.", ""),
    "graph_breaks": ("No graph break was recorded; they need Python stacks.", _STACKS),
    "replayed_graphs": ("No CUDA graph was replayed.", ""),
    "copy_totals": ("Nothing was copied or set on a GPU.", ""),
    "idle": ("No GPU was idle between its first event and its last.", ""),
    "short_kernels": ("No kernel is that short.", ""),
    "python_tree": ("No Python stacks were recorded.", _STACKS),
    "python_callers": ("No Python stacks were recorded.", _STACKS),
    "operator_work": ("No operators were recorded.", WORDS["no host activity"][2]),
    "operator_kernels": ("No GPU work of an operator was recorded.", WORDS["no host activity"][2]),
    "module_work": ("No nn.Module names were recorded.", WORDS["no modules"][2]),
    "roofline_by_module": ("No nn.Module names were recorded.", WORDS["no modules"][2]),
    "shape_work": ("No input shapes were recorded.", WORDS["no shapes"][2]),
    "regions": ("No regions were recorded.", WORDS["no regions"][2]),
    "region_instances": ("No regions were recorded.", WORDS["no regions"][2]),
    "left_out": ("Nothing was left out.", ""),
    "region_overview": ("No regions were recorded.", WORDS["no regions"][2]),
    "utilization": ("No regions were recorded.", WORDS["no regions"][2]),
    "kernel_sequences": ("No operator launched so many kernels in a row.", "--length 2"),
}
# Those that hold what the host did too: no GPU is not why they are empty.
_OF_HOST: Final = frozenset(
    ("compiled_regions", "graph_breaks", "python_tree", "python_callers", "operator_work", "module_work", "shape_work",
     "steps", "regions", "region_overview", "region_instances", "left_out")
)  # fmt: skip

_PARTS: Final = {"module_work": "path", "shape_work": "input_dims", "regions": "path", "region_overview": "path"}


def _no_steps(filled: Filled) -> tuple[str, str]:
    names, attempt = filled.source.region_instances()["name"], WORDS["no steps"][2]
    if (names == STEP).any():
        return "One ProfilerStep was recorded: there is nothing to compare it with.", attempt
    return "No iterations were recorded: there is no ProfilerStep, and no region that repeats.", attempt


_COMPUTED: Final[Mapping[str, Callable[[Filled], tuple[str, str]]]] = {
    "steps": _no_steps,
    "roofline_by_step": _no_steps,
}


def is_hollow(filled: Filled) -> bool:
    """Whether the table has no rows, or only those of what has no module, shapes or region."""
    column = _PARTS.get(filled.table.name)
    if not len(filled) or column is None:
        return not len(filled)
    return all(part in ("", (), NO_REGION, UNLINKED) for part in filled.frame[column])


def no_rows(filled: Filled) -> Finding | None:
    """Why the table is hollow, and what to try; None where nothing is to be said, and for what is of no trace."""
    name, trace = filled.table.name, filled.source
    if not isinstance(trace, Trace):
        return None
    if name not in _OF_HOST and trace.presence.ran != "gpu":
        said, attempt = missing_gpu(trace.presence).sentence, WORDS["no GPU activity"][2]
    elif name in _COMPUTED:
        said, attempt = _COMPUTED[name](filled)
    elif name in _REASONS:
        said, attempt = _REASONS[name]
    else:
        return None
    return Finding(f"no-{name.replace('_', '-')}", "missing", say(said), attempt=attempt, page="doctor")
