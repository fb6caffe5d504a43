"""The layer sweep: every layer there, told apart, kept when a later batch size does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from profiler_kit.analyses.layers.totals import explained, layer_totals
from profiler_kit.capture import layers as timer_module
from profiler_kit.capture.device import is_out_of_memory
from profiler_kit.capture.layer_sweep import SweepPlan, parse_batch_sizes, sweep_layers
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.layer_file import LayerFile
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.progress import Report, silent
from profiler_kit.workload.protocol import Bench, make_model

CPU = torch.device("cpu")


def sweep(plan: SweepPlan, report: Report = silent, *, most: int = 1024) -> LayerFile:
    """The layers of a vit_tiny; a batch of more than `most` images does not fit."""
    workload = SamWorkload("vit_tiny")
    bench = Bench(workload, make_model(workload, CPU), CPU, 1)

    def batch_of(size: int) -> object:
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        return bench.of_size(size)

    select, label = workload.layers(bench.program)
    return sweep_layers(bench.program, bench.run, batch_of, CPU, plan, select=select, label=label, report=report)


class Operators(TorchDispatchMode):
    """A clock that goes on by one with each operator: what a layer takes depends on what it does alone."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))

    def perf_counter_ns(self) -> int:
        return self.count


def test_every_layer_is_timed_and_nearly_all_of_the_forward_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[tuple[float, float]] = []
    plan = SweepPlan((1, 2), warmup=1, iterations=3)
    with Operators() as clock:
        monkeypatch.setattr(timer_module, "time", clock)
        found = sweep(plan, lambda d, t, note="": reports.append((d, t)))
    totals = layer_totals(found.calls)
    assert reports[0] == (1, 14) and reports[-1] == (14, 14) == (plan.forwards, plan.forwards)
    rows = totals[totals["batch_size"] == 2].set_index("layer")
    parts = [f"image_encoder.blocks.{i}{part}" for i in range(4) for part in ("", ".norm1", ".attn", ".norm2", ".mlp")]
    decoder = ["transformer", "output_upscaling", "iou_prediction_head", "transformer.layers.1"]
    decoder += [f"output_hypernetworks_mlps.{i}" for i in range(4)]
    wanted = ["(model)", "image_encoder", "image_encoder.patch_embed", "image_encoder.neck", "prompt_encoder"]
    wanted += [*parts, "mask_decoder", *(f"mask_decoder.{name}" for name in decoder), "postprocess"]
    assert set(wanted) <= set(rows.index)
    variants = rows["variant"].to_dict()
    assert [variants[f"image_encoder.blocks.{i}"] for i in range(4)] == ["window 7", "global"] * 2
    assert [variants[f"image_encoder.blocks.{i}.attn"] for i in range(4)] == ["window 7", "global"] * 2
    assert {v for layer, v in variants.items() if "blocks" not in layer or "mlp" in layer} == {""}
    assert rows.loc["mask_decoder", "calls"] == 2 and rows.loc["image_encoder", "calls"] == 1
    assert (totals["iterations"] == 3).all()
    coverage = explained(found.calls, found.forwards)
    assert coverage["batch_size"].tolist() == [1, 2]
    assert (found.forwards.groupby("batch_size").size() == 3).all()
    shares = coverage["layers_ns"] / coverage["hooked_ns"]
    assert shares.between(0.8, 1.0).all(), shares.tolist()
    assert found.notes == ()


def test_batch_sizes_before_the_one_that_does_not_fit_are_kept() -> None:
    found = sweep(SweepPlan((1, 2, 4, 8), warmup=0, iterations=1), most=2)
    assert sorted(set(found.calls["batch_size"])) == [1, 2]
    assert found.notes == ("layers: batch size 4 ran out of memory on cpu; measured 1, 2",)
    with pytest.raises(WorkloadError) as caught:
        sweep(SweepPlan((4, 8), warmup=0, iterations=1), most=2)
    assert str(caught.value) == (
        "layers at batch size 4: out of memory on cpu. Try a smaller batch size, a smaller model or --optimizations "
        "bf16."
    )


def test_the_cpus_own_out_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_parse_batch_sizes() -> None:
    assert parse_batch_sizes("8, 1,2,1") == (1, 2, 8)
    for text, part in {"0": "0", "1,x": "x", "": "", "1,,2": "", "-1": "-1", "1025": "1025", "²": "²"}.items():
        with pytest.raises(OptionError) as caught:
            parse_batch_sizes(text)
        assert str(caught.value) == (
            f"--batch-sizes {text!r}: found {part!r}, expected whole numbers from 1 to 1024 separated by commas. "
            "Try 1,2,4,8."
        )
