"""Optimizations: order and names checked, settings put back, results equal within stated tolerances."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.models.sam import optimizations
from profiler_kit.models.sam.compiled import compile_encoder
from profiler_kit.models.sam.forward import Prediction, SamForward, prepare_batch
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import LADDER, OPTIMIZATIONS, encoder_dtype, parse_optimizations
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.workload.optimizations import Optimization, layer_optimizations, optimized, unmet

CPU = torch.device("cpu")


def run(*names: str) -> list[Prediction]:
    model = load_model("vit_tiny").model
    batch = prepare_batch(model, generate_scenes(2, height=96, width=128), PromptChoice("centers"))
    with optimized(model, parse_optimizations(",".join(names)), CPU) as sam:
        return list(SamForward(sam)(batch))


@pytest.mark.parametrize(
    ("name", "dtype", "pixels", "iou"),
    [("bf16", torch.bfloat16, 0.01, 0.02), ("fp16", torch.float16, 0.002, 0.003)],
)
def test_reduced_precision_changes_few_pixels(name: str, dtype: torch.dtype, pixels: float, iou: float) -> None:
    """bfloat16 keeps 8 bits of precision and float16 keeps 11: at most that share of mask pixels flips."""
    for want, got in zip(run(), run(name), strict=True):
        assert got.iou.dtype is torch.float32
        assert (want.masks != got.masks).float().mean() < pixels
        assert (want.iou - got.iou).abs().max() < iou
    model = load_model("vit_tiny").model
    with optimized(model, parse_optimizations(name), CPU) as sam:
        assert encoder_dtype(sam) is dtype
        assert {p.dtype for p in sam.mask_decoder.parameters()} == {dtype}
        assert {p.dtype for p in sam.prompt_encoder.parameters()} == {torch.float32}


def test_compile_keeps_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and run through AOTAutograd without code generation: the graph is what is compared, to float32 noise."""
    seen: list[str] = []

    def apply(sam: object) -> object:
        seen.append("compile")
        return compile_encoder(sam, backend="aot_eager")  # type: ignore[arg-type]

    fake = Optimization("compile", "", apply, after=("bf16",))  # type: ignore[arg-type]
    monkeypatch.setattr(optimizations, "OPTIMIZATIONS", {**OPTIMIZATIONS, "compile": fake})
    torch.compiler.reset()
    try:
        for plain, compiled in (((), ("compile",)), (("bf16",), ("bf16", "compile"))):
            for want, got in zip(run(*plain), run(*compiled), strict=True):
                assert (want.masks != got.masks).float().mean() < 0.001
                assert (want.iou - got.iou).abs().max() < 0.001
    finally:
        torch.compiler.reset()
    assert seen == ["compile", "compile"]


def test_settings_are_in_force_inside_and_put_back_also_after_an_error() -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def setting() -> Iterator[None]:
        events.append("on")
        try:
            yield
        finally:
            events.append("off")

    model = load_model("vit_tiny").model
    chosen = Optimization("x", "", lambda sam: sam, settings=setting)
    with pytest.raises(ZeroDivisionError), optimized(model, [chosen], CPU):
        events.append("run")
        raise ZeroDivisionError
    assert events == ["on", "run", "off"]
    before = torch.get_float32_matmul_precision()
    with OPTIMIZATIONS["tf32"].settings():
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_names_and_order() -> None:
    assert [o.name for o in parse_optimizations("bf16, compile")] == ["bf16", "compile"]
    assert parse_optimizations("") == ()
    known = ", ".join(OPTIMIZATIONS)
    for text, problem in {
        "int9": f"'int9' is not known, expected names from {known} separated by commas.",
        "bf16,": f"'' is not known, expected names from {known} separated by commas.",
        "bf16,bf16": "bf16 is listed twice; list it once.",
        "bf16,fp16": "bf16 and fp16 exclude each other; choose one of them.",
        "compile,aoti": "compile and aoti exclude each other; choose one of them.",
        "bf16,int8,fp8": "int8 and fp8 exclude each other; choose one of them.",
        "compile,bf16": "bf16 must come before compile. Change the order.",
        "rel_pos,sdpa": "sdpa must come before rel_pos. Change the order.",
        "bf16,fp8,window_pad": "window_pad must come before fp8. Change the order.",
        "fp8": "fp8 needs bf16 before it. Add it.",
        "bf16,fused_rows": "fused_rows needs window_pad before it. Add it.",
        "fused_attention": "fused_attention needs bf16 or fp16 before it. Add it.",
        "sparse24": "sparse24 needs bf16 or fp16 before it. Add it.",
    }.items():
        with pytest.raises(OptionError) as caught:
            parse_optimizations(text)
        assert str(caught.value) == f"--optimizations {text}: {problem}"


def test_every_optimization_is_on_the_ladder_and_every_row_is_in_order() -> None:
    for row in LADDER:
        assert tuple(o.name for o in parse_optimizations(str(row))) == row.optimizations
    assert {name for row in LADDER for name in row.optimizations} | {"fp16"} == set(OPTIMIZATIONS)
    assert LADDER[0].optimizations == ()


def test_tf32_needs_a_gpu() -> None:
    model = load_model("vit_tiny").model
    with pytest.raises(WorkloadError) as caught, optimized(model, parse_optimizations("tf32"), CPU):
        pass
    assert str(caught.value) == (
        "--optimizations tf32: needs a CUDA device, found cpu. Leave it out or use --device cuda."
    )


def test_what_the_machine_lacks_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    gpu = torch.device("cuda", 0)
    assert unmet(OPTIMIZATIONS["fp8"], gpu) == (
        "needs a GPU of compute capability 8.9 or more, found NVIDIA A100 with 8.0"
    )
    assert unmet(OPTIMIZATIONS["sparse24"], gpu) is None
    missing = Optimization("x", "", lambda sam: sam, package="not_there")
    assert unmet(missing, CPU) == "needs the package not_there, which is not installed"
    model = load_model("vit_tiny").model
    with pytest.raises(WorkloadError) as caught, optimized(model, [missing], CPU):
        pass
    assert str(caught.value) == (
        "--optimizations x: needs the package not_there, which is not installed. Leave it out."
    )


def test_layers_are_timed_without_compile() -> None:
    kept, notes = layer_optimizations(parse_optimizations("bf16,compile"))
    assert [o.name for o in kept] == ["bf16"]
    assert notes == ("layers: timed without compile (with bf16), because a compiled model shows no layers inside",)
    assert layer_optimizations(parse_optimizations("bf16")) == (parse_optimizations("bf16"), ())


def test_masks_are_not_all_alike() -> None:
    """The comparisons above mean something: with the random weights masks are neither empty nor full."""
    share = np.concatenate([p.masks.float().mean(dim=(2, 3)).flatten().numpy() for p in run()])
    assert ((share > 0.05) & (share < 0.95)).mean() > 0.5
