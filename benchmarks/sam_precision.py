"""How far the masks of SAM depend on the number format of its parts: all masks of images, beside those of float32.

python benchmarks/sam_precision.py --model vit_small --images 32 --out precision.json
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

import torch

from profiler_kit.capture.environment import describe_environment, resolve_device
from profiler_kit.files import write_json
from profiler_kit.models.sam.accuracy import ImageMasks, against_baseline, against_truth
from profiler_kit.models.sam.optimizations import ALL_MASKS_LADDER, MODES
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.workload.optimizations import cast_model, cast_outputs, optimized, parse_optimizations
from profiler_kit.workload.protocol import Bench

BF16, FP16 = torch.bfloat16, torch.float16
Dtypes = Sequence[torch.dtype | None]  # of encoder and decoder
OURS: Dtypes = (None, None)
TF32 = next(str(row) for row in ALL_MASKS_LADDER if row.label == "TF32 in graphs")
ROWS: dict[str, tuple[str, Dtypes]] = {
    "fp32": ("generator", OURS),
    "tf32": ("tf32,generator", OURS),
    "bf16": ("bf16,generator", OURS),
    "fp16": ("fp16,generator", OURS),
    "encoder bf16": ("generator", (BF16, None)),
    "decoder bf16": ("generator", (None, BF16)),
    "encoder fp16": ("generator", (FP16, None)),
    "decoder fp16": ("generator", (None, FP16)),
    "encoder bf16, decoder fp16": ("generator", (BF16, FP16)),
    "graphs": (",".join(MODES["graphs"]), OURS),
    "tf32 graphs": (TF32, OURS),
    "tf32 graphs host": (TF32.replace("device_resize,", ""), OURS),
}


def main() -> None:
    """Measure the rows and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rows", default=",".join(ROWS), help="the first is what the others are compared with")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("precision.json"))
    options = parser.parse_args()
    device, found = resolve_device(options.device), describe_environment(resolve_device(options.device))
    done = {"device_name": found.device_name, "versions": dict(found.versions), "git_commit": found.git_commit}
    record: dict[str, object] = {**done, "command": found.command, "model": options.model, "images": options.images}
    rows: dict[str, object] = {}
    base: list[ImageMasks] = []
    for name in options.rows.split(","):
        names, dtypes = ROWS[name]
        workload = SamWorkload(name=options.model, task="amg", count=options.images)
        model = workload.model(device)
        with optimized(model, parse_optimizations(names, workload.optimizations), device) as sam, torch.no_grad():
            for part, dtype in zip((sam.image_encoder, sam.mask_decoder), dtypes, strict=True):
                if dtype is not None:
                    cast_model(part, dtype).register_forward_hook(cast_outputs)
            bench, scenes = Bench(workload, sam, device, 1), workload.scenes(options.images)
            list(workload._masks(bench, scenes[:2]))
            since = time.perf_counter()
            images = list(workload._masks(bench, scenes))
            ms = (time.perf_counter() - since) / len(images) * 1e3
        base = base or images
        agreement, truth = against_baseline(images, base, paired=False), against_truth(images)
        masks = sum(len(image.counts) for image in images)
        miou = None if truth is None else truth.miou
        rows[name] = {"ms_an_image": ms, "masks": masks, "agreement": asdict(agreement), "miou_truth": miou}
        print(name, rows[name], flush=True)
        write_json(options.out, {**record, "rows": rows})
        del sam, model, bench
        gc.collect()
        torch.compiler.reset()


if __name__ == "__main__":
    main()
