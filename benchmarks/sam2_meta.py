"""All masks of an image by Meta's own SAM 2 code and by ours, the same weights and images in one process.

    python benchmarks/sam2_meta.py --meta FOLDER --out meta.json

--meta: the folder that holds Meta's package `sam2` (an unpacked sam2-1.1.0.tar.gz; hydra and iopath are not needed).
Both are timed in turn, host waiting included, and asked for COCO's run lengths: Meta's in bfloat16 autocast and in
float32, ours as published and as the ladder's last row. Then masks are compared one by one in float32, of weights that
are stretched until the masks of points differ.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import statistics
import sys
import types
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

import numpy as np
import torch

from benchmarks.sam_ladder import samples_ms
from profiler_kit.capture.environment import describe_environment, resolve_device
from profiler_kit.files import write_json
from profiler_kit.models.sam.generator import MaskGenerator, mask_of
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam2.models import SHAPES, Sam2, load_model, to_meta
from profiler_kit.models.sam2.optimizations import ALL_MASKS, OPTIMIZATIONS
from profiler_kit.models.sam2.segmenter import Sam2Segmenter
from profiler_kit.models.sam2.workload import Sam2Workload
from profiler_kit.workload.optimizations import optimized, parse_optimizations

GRAPHS = (
    "bf16,fused_gelu,window_attention,products,all_points,device_resize,shared_decoder,fused_decoder,"
    "compile_graphs,graph_decoder"
)


def meta_module(name: str) -> Any:
    """A module of Meta's package, whose configuration and file layers are stood in for where they are missing."""
    for absent, inside in (("hydra", "initialize_config_module"), ("hydra.core.global_hydra", "GlobalHydra"),
                           ("hydra.core", ""), ("iopath", ""), ("iopath.common", ""),
                           ("iopath.common.file_io", "g_pathmgr")):  # fmt: skip
        try:
            importlib.import_module(absent)
        except ImportError:
            sys.modules[absent] = types.ModuleType(absent)
            setattr(sys.modules[absent], inside, types.SimpleNamespace(
                instance=lambda: types.SimpleNamespace(is_initialized=lambda: True)))  # fmt: skip
    return importlib.import_module(f"sam2.{name}")


def meta_model(sam: Sam2, name: str) -> torch.nn.Module:
    """Meta's model with our weights, built as sam2.1_hiera_*.yaml says; what only videos need is left out."""
    shape = SHAPES[name]
    hiera, encoder, position = (
        meta_module(f"modeling.{one}") for one in ("backbones.hieradet", "backbones.image_encoder", "position_encoding")
    )
    trunk = hiera.Hiera(
        embed_dim=shape.width, num_heads=shape.heads, stages=shape.blocks, global_att_blocks=shape.everywhere,
        window_pos_embed_bkg_spatial_size=(shape.background,) * 2, window_spec=shape.windows,
    )  # fmt: skip
    neck = encoder.FpnNeck(
        position.PositionEmbeddingSine(num_pos_feats=256), 256, [shape.width * 8 >> step for step in range(4)],
        fpn_top_down_levels=[2, 3], fpn_interp_model="nearest",
    )  # fmt: skip
    nothing = torch.nn.Identity()
    model = meta_module("modeling.sam2_base").SAM2Base(
        encoder.ImageEncoder(trunk, neck, scalp=1), nothing, nothing, image_size=sam.image_size,
        directly_add_no_mem_embed=True, use_high_res_features_in_sam=True, multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True, pred_obj_scores=True, pred_obj_scores_mlp=True,
        multimask_min_pt_num=0, multimask_max_pt_num=1,
    )  # fmt: skip
    missing, unknown = model.load_state_dict(to_meta(sam.state_dict()), strict=False)
    assert not unknown, unknown
    assert not [key for key in missing if key.startswith(("image_encoder", "sam_"))], missing
    return model.to(sam.device).eval()


def stretched(sam: Sam2) -> Sam2:
    """Random weights whose masks differ from point to point."""
    with torch.no_grad():
        for name, parameter in sam.mask_decoder.named_parameters():
            factor = next((by for part, by in (("_proj", 8), ("mlps", 16), ("iou_prediction", 4)) if part in name), 1)
            parameter.mul_(factor)
        sam.prompt_encoder.prompts.point_embed.weight.mul_(30)
    return sam


def equal_masks(name: str, device: torch.device, side: int, points: int) -> dict[str, object]:
    """Meta's masks and ours in float32: how many, how many have the same pixels, and the least IoU of a pair."""
    sam = stretched(load_model(name, seed=0, device=device).model)
    image = generate_scenes(1, height=side * 9 // 16, width=side, seed=3)[0].image
    how = {"points_per_side": min(points, 12), "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    how |= {"box_nms_thresh": 0.99}
    amg = meta_module("automatic_mask_generator").SAM2AutomaticMaskGenerator
    theirs = amg(meta_model(sam, name), **how).generate(image)
    ours = MaskGenerator(Sam2Segmenter(sam), **how).generate(image)
    ious = [
        float((a["segmentation"] & b["segmentation"]).sum() / max(1, (a["segmentation"] | b["segmentation"]).sum()))
        for a, b in zip(theirs, ours, strict=False)
    ]
    same = sum(a["bbox"] == b["bbox"] and iou == 1 for a, b, iou in zip(theirs, ours, ious, strict=False))
    return {"thresholds": how, "masks_meta": len(theirs), "masks_ours": len(ours), "identical": same,
            "least_iou": min(ious, default=None)}  # fmt: skip


def main() -> None:
    """Time, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meta", type=Path, required=True)
    parser.add_argument("--model", default="sam2_large")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=int, default=1920, help="of the image; it is 9/16 as high")
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pred-iou-thresh", type=float, default=0.8)
    parser.add_argument("--stability-score-thresh", type=float, default=0.95)
    parser.add_argument("--dtypes", default="bf16,fp32", help="of Meta's")
    parser.add_argument("--row", default=GRAPHS, help="optimizations of ours beside none")
    parser.add_argument("--out", type=Path, default=Path("meta.json"))
    options = parser.parse_args()
    sys.path.insert(0, str(options.meta))
    device = resolve_device(options.device)
    found = describe_environment(device)
    image = generate_scenes(1, height=options.width * 9 // 16, width=options.width, seed=1)[0].image
    side, known = options.points_per_side, {**OPTIMIZATIONS, **ALL_MASKS}
    limits = {name: getattr(options, name) for name in ("pred_iou_thresh", "stability_score_thresh")}
    how = {"points_per_side": side, "output_mode": "uncompressed_rle", **limits}
    record: dict[str, Any] = {
        "device_name": found.device_name, "versions": dict(found.versions), "git_commit": found.git_commit,
        "command": found.command, "model": options.model, "weights": "random, seed 0", "image": list(image.shape[:2]),
        "points": side**2, "thresholds": limits, "row": options.row,
    }  # fmt: skip
    amg = meta_module("automatic_mask_generator").SAM2AutomaticMaskGenerator
    with ExitStack() as stack, torch.no_grad():
        sam = load_model(options.model, seed=0, device=device).model
        theirs = meta_model(sam, options.model)
        runs: dict[str, Callable[[], list[dict[str, Any]]]] = {}
        for dtype in options.dtypes.split(","):
            for batch in (64, side**2):
                generator = amg(theirs, points_per_batch=batch, **how)

                def meta(generator: Any = generator, half: bool = dtype == "bf16") -> list[dict[str, Any]]:
                    with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
                        return list(generator.generate(image))

                runs[f"Meta's, {dtype}, {batch} points a batch"] = meta
        ours = MaskGenerator(Sam2Segmenter(sam), **how)
        runs["ours, fp32 as published"] = lambda: ours.generate(image)
        workload = Sam2Workload(name=options.model, task="amg", seed=0, points_per_side=side, **limits)
        chosen = parse_optimizations(options.row, known)
        fast = stack.enter_context(optimized(workload.model(device), chosen, device))
        best = workload.assemble(fast)
        best.options = type(best.options)(**{**vars(best.options), "output_mode": "uncompressed_rle"})
        runs["ours, the row"] = lambda: best.generate(image)
        samples: dict[str, list[float]] = {name: [] for name in runs}
        rows: dict[str, Any] = {}
        for name, run in runs.items():  # compiles, warms up; the peak of each alone
            run()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            masks = run()
            rows[name] = {"masks": len(masks), "areas": [int(mask_of(one["segmentation"]).sum()) for one in masks[:4]]}
            if device.type == "cuda":
                rows[name]["peak_mib_above"] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
        for _ in range(options.repeats):
            for name, run in runs.items():
                samples[name] += samples_ms(run, device, 1)
        for name, ms in samples.items():
            q1, median, q3 = statistics.quantiles(ms, n=4)
            rows[name] |= {"n": len(ms), "median_ms": median, "q1_ms": q1, "q3_ms": q3, "samples_ms": ms}
            times = float(np.median(np.array(ms) / np.array(samples["ours, the row"])))
            rows[name]["times_ours"] = times
            peak = rows[name].get("peak_mib_above", 0)
            print(f"{name}: {median:.1f} ms ({q1:.1f} to {q3:.1f}), {times:.1f} x, {rows[name]['masks']} masks, "
                  f"{peak:.0f} MiB", flush=True)  # fmt: skip
        record["rows"] = rows
        write_json(options.out, record)
    record["agreement_fp32"] = equal_masks(options.model, device, options.width, side)
    print(record["agreement_fp32"], flush=True)
    write_json(options.out, record)


if __name__ == "__main__":
    main()
