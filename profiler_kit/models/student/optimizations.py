"""What makes a student fast: general optimizations for its encoder, SAM's own for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from profiler_kit.models.sam import optimizations as sam1
from profiler_kit.models.sam.sync_free import SyncFreePromptEncoder
from profiler_kit.models.sam2 import optimizations as sam2
from profiler_kit.workload.optimizations import GENERAL, PRECISION, LadderRow, Optimization, others

STUDENT: Final = "student"  # the optimization that puts the student in its teacher's place
_WHOLE: Final = ("cuda_graphs", "compile", "compile_max", "compile_graphs")


def _of_encoder(one: Optimization, **changed: Any) -> Optimization:
    """An optimization that needs no model, of the encoder alone."""

    def apply(sam: Any) -> Any:
        sam.image_encoder = one.apply(sam.image_encoder)
        return sam

    return replace(one, apply=apply, **changed)


def _encode_prompts_alone(sam: Any) -> Any:
    """A student's own encoder waits for nothing."""
    sam.prompt_encoder = SyncFreePromptEncoder(sam.prompt_encoder)
    return sam


_AFTER: Final = (STUDENT, *PRECISION, "channels_last")
OPTIMIZATIONS: Final[Mapping[str, Optimization]] = {
    one.name: replace(one, after=(STUDENT, *one.after))
    for one in (
        *(sam1.OPTIMIZATIONS[name] for name in PRECISION),
        _of_encoder(GENERAL["channels_last"]),
        _of_encoder(GENERAL["cuda_graphs"], excludes=others(_WHOLE, "cuda_graphs"), after=_AFTER),
        *(
            replace(sam2.OPTIMIZATIONS[name], excludes=others(_WHOLE, name), after=_AFTER)
            for name in ("compile", "compile_max", "compile_graphs", "compile_decoder")
        ),
    )
}
# With what a SAM's decoder has and a SAM 2's has not.
WITH_DECODER: Final[Mapping[str, Optimization]] = {
    **OPTIMIZATIONS,
    "nosync": replace(sam1.OPTIMIZATIONS["nosync"], apply=_encode_prompts_alone),
    "batched_decoder": sam1.OPTIMIZATIONS["batched_decoder"],
}

LADDER: Final = (
    LadderRow("fp32"),
    LadderRow("TF32", ("tf32",), alternative=True),
    LadderRow("fp16", ("fp16",)),
    LadderRow("bf16", ("bf16",), alternative=True),
    LadderRow("channels_last", ("fp16", "channels_last"), alternative=True),
    LadderRow("CUDA graph", ("fp16", "cuda_graphs"), alternative=True),
    LadderRow("compile", ("fp16", "compile")),
    LadderRow("compiled CUDA graph", ("fp16", "compile_graphs")),
    LadderRow("max-autotune", ("fp16", "compile_max"), alternative=True),
)
CPU_LADDER: Final = (
    LadderRow("fp32"),
    LadderRow("bf16", ("bf16",), alternative=True),
    LadderRow("channels_last", ("channels_last",), alternative=True),
    LadderRow("compile", ("compile",)),
)


def beside_teacher(rows: tuple[LadderRow, ...]) -> tuple[LadderRow, ...]:
    """The same rows with the student put in first; the teacher as published comes before them."""
    first = LadderRow("teacher")
    return first, *(
        replace(row, label=f"student, {row.label}", optimizations=(STUDENT, *row.optimizations)) for row in rows
    )
