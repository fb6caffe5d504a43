"""Measure what recording costs: profiler_runner against bare torch.profiler, layer_timer against the plain run.

    python benchmarks/overhead.py --device cuda --model vit_b --batch-size 8 --out overhead.json

Samples are taken in turn (A B, B A, A B, ...), so that drift of the machine hits both alike. A sample is the wall
time of --iterations forward passes, with the GPU synchronised before each reading of the clock and never between.
Each comparison also holds a control, the plain variant against itself: what the ratio of two equal things looks like.
Needs torch, segment-anything for vit_b, and pandas for the time that LayerTimer.frame() takes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from profiler_kit import KitError, layer_timer, profiler_runner
from profiler_kit.capture.environment import describe_environment, resolve_device
from profiler_kit.capture.runners import ProfilerOptions, ProfilerRunner
from profiler_kit.capture.torch_profile import quiet
from profiler_kit.files import write_json

LIMITS = {"profiler_runner": 1.02, "layer_timer": 1.03}
COMPARED = ("run", "control", "whole_with_export", "start_stop_export")
Sample = dict[str, int]  # ns by what was measured


class TinyBlock(nn.Module):
    """A transformer block, for a machine without segment-anything."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.attention(self.norm(x)).chunk(3, dim=-1)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.mlp(x)


def make_model(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The model and the shape of one input."""
    if name == "tiny":
        return nn.Sequential(*(TinyBlock(256) for _ in range(8))), (256, 256)
    from segment_anything import sam_model_registry

    return sam_model_registry[name]().image_encoder, (3, 1024, 1024)


class Bench:
    """Runs one model; every method that measures returns ns."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        model, shape = make_model(args.model)
        dtype = getattr(torch, args.dtype)
        self.model = model.eval().to(device=device, dtype=dtype)
        self.value = torch.randn(args.batch_size, *shape, device=device, dtype=dtype)
        self.device = device
        self.iterations = args.iterations
        self.batch_size = args.batch_size
        self.calls = 0  # layer calls in one sample

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forward(self) -> int:
        """Wall time of the forward passes."""
        self.synchronize()
        start = time.perf_counter_ns()
        with torch.no_grad():
            for _ in range(self.iterations):
                self.model(self.value)
        self.synchronize()
        return time.perf_counter_ns() - start

    def plain(self) -> Sample:
        return {"run": self.forward()}

    def hooked(self) -> Sample:
        with layer_timer(self.model, batch_size=self.batch_size) as timer:
            run = self.forward()
        start = time.perf_counter_ns()
        self.calls = len(timer.frame())
        return {"run": run, "frame": time.perf_counter_ns() - start}

    def bare_profiler(self, path: Path) -> Sample:
        activities = ProfilerRunner(path, ProfilerOptions())._activities
        start = time.perf_counter_ns()
        with quiet(), torch.profiler.profile(activities=activities) as recording:
            run = self.forward()
        recorded = time.perf_counter_ns()
        recording.export_chrome_trace(str(path))
        end = time.perf_counter_ns()
        return {"run": run, "whole": end - start, "around": end - start - run, "export": end - recorded}

    def our_profiler(self, path: Path) -> Sample:
        start = time.perf_counter_ns()
        with profiler_runner(path):
            run = self.forward()
        whole = time.perf_counter_ns() - start
        return {"run": run, "whole": whole, "around": whole - run}


def alternate(variants: dict[str, Callable[[], Sample]], repeats: int, note: str) -> dict[str, list[Sample]]:
    """Samples of each variant, taken in turn; every other round goes backwards."""
    samples: dict[str, list[Sample]] = {name: [] for name in variants}
    order = list(variants)
    for repeat in range(repeats):
        print(f"\r{note} {repeat + 1}/{repeats}", end="", file=sys.stderr, flush=True)
        for name in order if repeat % 2 == 0 else reversed(order):
            samples[name].append(variants[name]())
    print(file=sys.stderr)
    return samples


def spread(values: list[int]) -> dict[str, float]:
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return {"median_ns": middle, "q1_ns": first, "q3_ns": third}


def compare(samples: dict[str, list[Sample]], base: str, other: str, what: str) -> dict[str, float]:
    """Ratio of the medians, and the quartiles of the ratio round by round."""
    mine, theirs = ([sample[what] for sample in samples[name]] for name in (other, base))
    q1, median, q3 = statistics.quantiles([a / b for a, b in zip(mine, theirs, strict=True)], n=4, method="inclusive")
    ratio = statistics.median(mine) / statistics.median(theirs)
    return {"ratio_of_medians": ratio, "round_q1": q1, "round_median": median, "round_q3": q3}


def measure(args: argparse.Namespace, device: torch.device) -> dict[str, object]:
    bench = Bench(args, device)
    for _ in range(args.warmup):
        bench.forward()
    with tempfile.TemporaryDirectory() as folder:
        bare, ours = Path(folder) / "bare.json.gz", Path(folder) / "ours.json.gz"
        bench.bare_profiler(bare)  # the first recording of a process starts CUPTI
        bench.our_profiler(ours)
        bench.hooked()
        traced = alternate(
            {
                "bare": lambda: bench.bare_profiler(bare),
                "profiler_runner": lambda: bench.our_profiler(ours),
                "control": lambda: bench.bare_profiler(bare),
            },
            args.repeats,
            "profiler_runner",
        )
        sizes = {"bare": bare.stat().st_size, "profiler_runner": ours.stat().st_size}
    timed = alternate(
        {"plain": bench.plain, "layer_timer": bench.hooked, "control": bench.plain}, args.repeats, "layer_timer"
    )
    return {
        "profiler_runner": {
            "run": compare(traced, "bare", "profiler_runner", "run"),
            "control": compare(traced, "bare", "control", "run"),
            "whole_with_export": compare(traced, "bare", "profiler_runner", "whole"),
            "start_stop_export": compare(traced, "bare", "profiler_runner", "around"),
            "times": {f"{n} {w}": spread([s[w] for s in traced[n]]) for n in traced for w in traced[n][0]},
            "file_bytes": sizes,
            "samples_ns": traced,
        },
        "layer_timer": {
            "run": compare(timed, "plain", "layer_timer", "run"),
            "control": compare(timed, "plain", "control", "run"),
            "times": {n: spread([s["run"] for s in timed[n]]) for n in timed},
            "frame": spread([s["frame"] for s in timed["layer_timer"]]),
            "calls_per_sample": bench.calls,
            "samples_ns": timed,
        },
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--model", default="vit_b", choices=["vit_b", "vit_l", "vit_h", "tiny"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=3, help="forward passes in one sample")
    parser.add_argument("--repeats", type=int, default=15, help="samples of each variant")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, help="torch.set_num_threads")
    parser.add_argument("--out", type=Path, help="write everything, raw samples included, as JSON")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 when a ratio is above {LIMITS}")
    args = parser.parse_args()
    for name, least in (("batch_size", 1), ("iterations", 1), ("repeats", 2), ("warmup", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected a whole number from {least}")
    return args


def main() -> int:
    args = parse()
    try:
        device = resolve_device(args.device)
    except KitError as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 1
    if args.threads:
        torch.set_num_threads(args.threads)
    environment = describe_environment(device)
    results = measure(args, device)
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "check")}
    record = {
        "device_name": environment.device_name,
        "versions": dict(environment.versions),
        "git_commit": environment.git_commit,
        "command": environment.command,
        "threads": torch.get_num_threads(),
        **settings,
        **results,
    }
    if args.out:
        write_json(args.out, record)
    failed = False
    print(f"{environment.device_name}, torch {torch.__version__}, {args.model} {args.dtype}, batch {args.batch_size}")
    for name, limit in LIMITS.items():
        for what, ratios in ((w, r) for w, r in record[name].items() if w in COMPARED):
            print(
                f"{name:16} {what:18} {ratios['ratio_of_medians']:.4f} x  "
                f"(by round {ratios['round_median']:.4f}, {ratios['round_q1']:.4f} to {ratios['round_q3']:.4f})"
            )
        failed |= record[name]["run"]["ratio_of_medians"] > limit
    return int(args.check and failed)


if __name__ == "__main__":
    sys.exit(main())
