"""`profiler-kit roofline TRACE`: how far each operator is from what the GPU can do, and what bounds it.

FLOPs and bytes come from the shapes and dtypes that were recorded (record_shapes=True), the peaks from the GPU's data
sheet or --peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from profiler_kit.analyses.gpu.roofline import ARGUMENTS, ROOFLINE, ROOFLINE_TOTALS
from profiler_kit.table import Empty, Option, Table
from profiler_kit.tables.steps import no_steps

PEAKS: Final = Option(
    "peaks",
    None,
    'JSON file with TFLOP/s by dtype and TB/s ({"bf16": 989, "tb_per_s": 3.35}), or the results.json of a ladder, in '
    "place of the GPU's data sheet.",
    "file",
)

_EMPTY: Final[Mapping[str, Empty | Callable[[Any], Empty]]] = {
    "module": Empty("No nn.Module names were recorded.", lacks="no modules"),
    "step": lambda trace: no_steps(trace)._replace(of_host=False),
}

TABLES: Final = (
    Table(
        "roofline",
        "trace",
        "operators against the limits of the GPU",
        ROOFLINE,
        lambda trace, peaks: trace.roofline(peaks=peaks),
        options=(PEAKS,),
        command="roofline",
        by="operator",
        order=("operator", "shapes", "category", "count", "bound", "peak_share", "gpu_ns", "tflop_per_s", "tb_per_s"),
        share_of="gpu_ns",
        top=20,
        needs_gpu=True,
        arguments=ARGUMENTS,
    ),
    *(
        Table(
            f"roofline_by_{by}",
            "trace",
            f"{title} against the limits of the GPU",
            ROOFLINE_TOTALS,
            lambda trace, peaks, by=by: trace.roofline_totals(by, peaks=peaks),
            options=(PEAKS,),
            command="roofline",
            by=by,
            share_of="gpu_ns" if by in ("kernel", "step") else "",  # regions and modules hold those inside them
            top=20,
            needs_gpu=True,
            arguments=ARGUMENTS,
            empty=_EMPTY.get(by),
        )
        for by, title in (("kernel", "kernels"), ("module", "nn.Modules"), ("region", "regions"), ("step", "steps"))
    ),
)
