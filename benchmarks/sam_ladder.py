"""Time segment-anything 1.0 and our optimizations side by side: the image encoder alone, and encoder with decoder.

    python benchmarks/sam_ladder.py --model vit_b --batch 1,8,32 --rows sa_bf16,fused,graphs,fp8 --out sam-vit_b.json
    python benchmarks/sam_ladder.py --model sam2_large --batch 1,8 --rows ladder --out sam2-large.json
    python benchmarks/sam_ladder.py --model sam2_large --batch 1 --tasks amg,single-point,multi-point \
        --rows "fp32 as published,decoder graph" --out sam2-requests.json

With --tasks a row also answers whole requests at batch size 1, from an image on the host to packed masks there, as
`profiler-kit ladder --task` does: rows are those of its ladder, the first of them is what masks are compared with. At
other batch sizes amg takes so many images at once; --warmup and --repeats are then calls with all of them.

Of SAM 2 transformers' model takes the place of segment-anything's, and its rows are those of its ladder.

Every row starts from the same weights (random ones of a seed, or --checkpoint) and gets the same images and
centre-point prompts. Times lie between two CUDA events on an idle GPU (the wall clock on a CPU), after warm-up and
after compiling, which is timed apart; nothing is copied or synchronised between the events. Peak memory is reset
before the timed forwards and holds the model, the images and everything the row allocates; a CUDA graph's own pool
counts only as reserved (peak_reserved_mib), which includes what the allocator keeps for later. mIoU compares every
candidate mask with the one of segment-anything in float32 (row sa_fp32, run first at batch size 1 of the same images).

Rows that are done are written to --out as they come; one that fails keeps its error there and the rest goes on.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from profiler_kit import KitError, load_trace, profiler_runner
from profiler_kit.capture.device import Stopwatch
from profiler_kit.capture.environment import describe_environment, resolve_device
from profiler_kit.files import write_json
from profiler_kit.models.sam.accuracy import ImageMasks, against_baseline, against_truth, mask_iou
from profiler_kit.models.sam.forward import Batch, SamForward, move_batch, prepare_batch
from profiler_kit.models.sam.generator import MaskGenerator
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import ALL_MASKS, ALL_MASKS_LADDER, LADDER, OPTIMIZATIONS
from profiler_kit.models.sam.prompts import parse_prompts
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.sam2 import forward as sam2_forward
from profiler_kit.models.sam2 import models as sam2_models
from profiler_kit.models.sam2 import optimizations as sam2_optimizations
from profiler_kit.models.sam2.workload import Sam2Workload
from profiler_kit.workload.optimizations import optimized, parse_optimizations
from profiler_kit.workload.protocol import Bench

EXACT = "bf16,nosync,patch_linear,sdpa,rel_pos,window_pad,batched_decoder"
ROWS = {
    "sa_fp32": "",
    "sa_tf32": "tf32",
    "sa_bf16": "bf16",
    "sa_bf16_compile": "bf16,compile",
    "exact": f"{EXACT},compile",
    "fused": f"{EXACT},fused_attention,fused_rows",
    "fused_compile": f"{EXACT},fused_attention,fused_rows,compile",
    "graphs": f"{EXACT},fused_attention,fused_rows,compile_graphs",
    "int8": f"{EXACT},fused_attention,int8,compile",
    "sparse24": f"{EXACT},fused_attention,sparse24,fused_rows,compile",
    "fp8": f"{EXACT},fused_attention,fp8,fused_rows,compile_graphs",
}
BASELINE = "sa_bf16"
TASKS = ("amg", "single-point", "multi-point")


def forward_of(sam: torch.nn.Module) -> torch.nn.Module:
    """Encoder and decoder on prepared batches."""
    return sam2_forward.Sam2Forward(sam) if isinstance(sam, sam2_models.Sam2) else SamForward(sam)


def encoder_flops(sam: torch.nn.Module) -> float:
    """Floating-point operations one image needs in the blocks and the neck, counting real tokens and pairs only.

    Of SAM 2 those that torch counts, padding of windows included.
    """
    encoder = sam.image_encoder
    if isinstance(sam, sam2_models.Sam2):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder(torch.zeros(1, 3, sam.image_size, sam.image_size))
        return float(counter.get_total_flops())
    side = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    tokens = side * side
    width = encoder.pos_embed.shape[-1]
    total = 2.0 * tokens * encoder.patch_embed.proj.weight.numel()
    for block in encoder.blocks:
        total += 2.0 * tokens * 12 * width * width
        window = block.window_size
        if window:
            cut = [min(window, side - start) for start in range(0, side, window)]
            total += 4.0 * width * sum((h * w) * window * window for h in cut for w in cut)
        else:
            total += 4.0 * width * tokens * tokens
    return total + sum(2.0 * tokens * p.numel() for p in encoder.neck.parameters() if p.dim() == 4)


def samples_ms(run: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """`repeats` times how long one call takes, each on an idle device."""
    found = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock = Stopwatch(device)
        run()
        found.append(clock.stop_ns() / 1e6)
    return found


def summary(ms: list[float], batch: int) -> dict[str, object]:
    """Median, quartiles and images a second of one row; the samples too."""
    q1, median, q3 = statistics.quantiles(ms, n=4) if len(ms) > 1 else (ms[0],) * 3
    return {"n": len(ms), "q1_ms": q1, "median_ms": median, "q3_ms": q3, "images_per_s": batch / median * 1e3,
            "samples_ms": ms}  # fmt: skip


def masks_of(forward: torch.nn.Module, batch: Batch, size: int) -> list[np.ndarray]:
    """bool[P * C, H, W] of each image, from batches of `size`."""
    found: list[np.ndarray] = []
    for start in range(0, len(batch.images), size):
        part = Batch(
            batch.images[start : start + size], batch.queries[start : start + size], batch.scenes[start : start + size]
        )
        found += [answer.masks.flatten(0, 1).cpu().numpy() for answer in forward(part)]
    return found


def measure(base: torch.nn.Module, names: str, batch: Batch, device: torch.device, options: argparse.Namespace,
            want: list[np.ndarray] | None) -> dict[str, object]:  # fmt: skip
    """One row: both times, compile time, peak memory, masks against float32, kernels if asked for."""
    size = len(batch.images)
    model = copy.deepcopy(base).to(device)
    with optimized(model, parse_optimizations(names, options.known), device) as sam, torch.no_grad():
        del model
        since = time.perf_counter()
        forward = forward_of(sam)
        forward(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        row: dict[str, object] = {"optimizations": names, "first_call_s": time.perf_counter() - since}
        for part, run in (
            ("encoder", lambda: sam.image_encoder(batch.images)),
            ("encoder_and_decoder", lambda: forward(batch)),
        ):
            samples_ms(run, device, options.warmup)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            row[part] = summary(samples_ms(run, device, options.repeats), size)
            if device.type == "cuda":
                row[part]["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
                row[part]["peak_reserved_mib"] = torch.cuda.max_memory_reserved(device) / 2**20
        if size == 1:
            row |= {task: request(sam, task, device, options) for task in options.tasks}
        elif "amg" in options.tasks:
            row["amg"] = together(sam, size, device, options)
        if want is not None:
            iou = np.concatenate([mask_iou(a, b) for a, b in zip(masks_of(forward, batch, size), want, strict=True)])
            row["miou_fp32"], row["masks"] = float(iou.mean()), len(iou)
        if options.kernels:
            row["kernels"] = kernels(lambda: sam.image_encoder(batch.images))
    return row


def workload_of(sam: torch.nn.Module, task: str, count: int, options: argparse.Namespace) -> SamWorkload:
    """The loaded model's, for requests of that task on so many images."""
    kind = Sam2Workload if isinstance(sam, sam2_models.Sam2) else SamWorkload
    thresholds = {"pred_iou_thresh": options.pred_iou_thresh, "stability_score_thresh": options.stability_score_thresh}
    workload = kind(name=options.model, task=task, count=count, points_per_side=options.points_per_side, **thresholds)
    workload.image_size, workload.weights = side_of(sam), "as loaded"
    return workload


def together(
    sam: torch.nn.Module, size: int, device: torch.device, options: argparse.Namespace
) -> dict[str, object] | None:
    """What all masks of `size` images take in one call of our generator; None of a row that has another."""
    workload = workload_of(sam, "amg", size, options)
    generator = workload.assemble(sam)
    if not isinstance(generator, MaskGenerator):
        return None
    images = [scene.image for scene in workload.scenes(size)]
    samples_ms(lambda: generator.generate_batch(images), device, options.warmup)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = summary(samples_ms(lambda: generator.generate_batch(images), device, options.repeats), size)
    if device.type == "cuda":
        found["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        found["peak_reserved_mib"] = torch.cuda.max_memory_reserved(device) / 2**20
    return found


def request(sam: torch.nn.Module, task: str, device: torch.device, options: argparse.Namespace) -> dict[str, object]:
    """What one request of that task takes, and its masks beside those of the first row and the true ones."""
    workload = workload_of(sam, task, options.images, options)
    bench = Bench(workload, sam, device, 1)
    since = time.perf_counter()
    answered = list(workload._masks(bench, workload.scenes(options.images)))
    first = time.perf_counter() - since
    turns = itertools.cycle(bench.batches)
    samples_ms(lambda: bench.run(next(turns)), device, options.warmup)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = summary(samples_ms(lambda: bench.run(next(turns)), device, options.repeats), 1)
    if device.type == "cuda":
        found["peak_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        found["peak_reserved_mib"] = torch.cuda.max_memory_reserved(device) / 2**20
    base: list[ImageMasks] = options.answered.setdefault(task, answered)
    return {
        **found,
        "images": len(answered),
        "masks": sum(len(one.counts) for one in answered),
        "compile_and_answer_s": first,
        "agreement": asdict(against_baseline(answered, base, paired=task != "amg")),
        "truth": (truth := against_truth(answered)) and asdict(truth),
    }


def side_of(sam: torch.nn.Module) -> int:
    """Of the input, pixels."""
    return int(sam.image_size if isinstance(sam, sam2_models.Sam2) else sam.image_encoder.img_size)


def kernels(run: Callable[[], object], count: int = 14) -> list[dict[str, object]]:
    """The longest kernels of one call: name, how often, their time together."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        with profiler_runner(path):
            run()
        table = load_trace(path).kernels().sort_values("sum_ns", ascending=False).head(count)
    return [
        {"name": name, "count": int(n), "ms": ns / 1e6}
        for name, n, ns in zip(table["name"], table["count"], table["sum_ns"], strict=True)
    ]


def report(model: str, batch: int, name: str, row: dict[str, object], flops: float, base: dict[str, object]) -> None:
    """One line of a row, with its ratios to segment-anything in bfloat16."""
    parts = []
    for part in ("encoder", "encoder_and_decoder"):
        rate = row[part]["images_per_s"]
        ratio = f" {rate / base[part]['images_per_s']:.2f}x" if base else ""
        peak = f" {row[part]['peak_mib']:.0f} MiB" if "peak_mib" in row[part] else ""
        parts.append(f"{part} {row[part]['median_ms']:.2f} ms {rate:.1f} img/s{ratio}{peak}")
    tflops = flops * batch / row["encoder"]["median_ms"] / 1e9
    miou = f" mIoU {row['miou_fp32']:.4f}" if "miou_fp32" in row else ""
    print(f"{model} batch {batch} {name:15s} {'; '.join(parts)}; {tflops:.0f} TFLOP/s{miou}", flush=True)
    for task in (name for name in TASKS if row.get(name)):
        found = row[task]
        answered = f"{found['masks']} masks of {found['images']} images, {found['agreement']}" if batch == 1 else ""
        print(
            f"    {task}: {found['median_ms']:.2f} ms ({found['q1_ms']:.2f} to {found['q3_ms']:.2f}), "
            f"{found['images_per_s']:.1f} img/s, peak {found.get('peak_mib', 0):.0f} MiB, {answered}",
            flush=True,
        )
    for kernel in row.get("kernels", ()):
        print(f"    {kernel['ms']:8.3f} ms {kernel['count']:4d} x {kernel['name'][:90]}", flush=True)


def main() -> int:
    """Run the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_b")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--seed", type=int, help="of random weights; without, those the model ships with, or seed 0")
    parser.add_argument("--batch", default="8", help="batch sizes, separated by commas")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}; or 'ladder' for all its rows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", default="centers")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--tasks", default="", help=f"requests to time too, of {', '.join(TASKS)}")
    parser.add_argument("--images", type=int, default=6, help="images of --tasks")
    parser.add_argument("--points-per-side", type=int, default=32, help="of --tasks amg")
    parser.add_argument("--pred-iou-thresh", type=float)
    parser.add_argument("--stability-score-thresh", type=float)
    parser.add_argument("--kernels", action="store_true", help="also list the encoder's longest kernels")
    parser.add_argument("--miou", action="store_true", help="also compare masks with those of float32")
    parser.add_argument("--out", type=Path, default=Path("sam_ladder.json"))
    options = parser.parse_args()
    device = resolve_device(options.device)
    is_sam2 = options.model.startswith("sam2_")
    options.tasks, options.answered = [task for task in options.tasks.split(",") if task], {}
    ladder, options.known = (
        (sam2_optimizations.LADDER, sam2_optimizations.OPTIMIZATIONS) if is_sam2 else (LADDER, OPTIMIZATIONS)
    )
    if options.tasks:
        ladder, options.known = (
            (sam2_optimizations.ALL_MASKS_LADDER, {**options.known, **sam2_optimizations.ALL_MASKS})
            if is_sam2
            else (ALL_MASKS_LADDER, {**options.known, **ALL_MASKS})
        )
    load, prepare = (sam2_models.load_model, sam2_forward.prepare_batch) if is_sam2 else (load_model, prepare_batch)
    rows = {row.label: str(row) for row in ladder} if options.rows == "ladder" or options.tasks or is_sam2 else ROWS
    chosen = list(rows) if options.rows == "ladder" else options.rows.split(",")
    loaded = load(options.model, checkpoint=options.checkpoint, seed=options.seed)
    base, flops = loaded.model, encoder_flops(loaded.model)
    environment = describe_environment(device)
    done: dict[str, object] = {
        "device_name": environment.device_name, "versions": dict(environment.versions), "command": environment.command,
        "git_commit": environment.git_commit, "model": options.model, "weights": loaded.weights,
        "prompts": options.prompts, "thresholds": {"pred_iou": options.pred_iou_thresh,
        "stability": options.stability_score_thresh}, "encoder_gflop_per_image": flops / 1e9, "warmup": options.warmup,
        "batches": {},
    }  # fmt: skip
    for size in [int(text) for text in options.batch.split(",")]:
        image_size = side_of(base)
        scenes = generate_scenes(size, height=image_size * 3 // 4, width=image_size)
        batch = move_batch(prepare(base, scenes, parse_prompts(options.prompts)), device)
        found: dict[str, object] = {"prompts": sum(query.count for query in batch.queries), "rows": {}}
        done["batches"][str(size)] = found
        want = None
        if options.miou:
            reference = copy.deepcopy(base).to(device)
            want = masks_of(forward_of(reference), batch, 1)
            del reference
        for name in chosen:
            try:
                row = measure(base, rows[name], batch, device, options, want)
                report(options.model, size, name, row, flops, found["rows"].get(BASELINE, {}))
            except (KitError, RuntimeError) as error:
                row = {"optimizations": rows[name], "error": str(error).strip().splitlines()[0][:300]}
                print(f"{options.model} batch {size} {name}: {row['error']}", flush=True)
            found["rows"][name] = row
            write_json(options.out, done)
            torch.compiler.reset()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
