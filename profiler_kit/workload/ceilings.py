"""Measure what the device can do and count what the model asks of it, for the roofline.

`python -m profiler_kit.workload.ceilings DEVICE OUT ARGV...` writes a Probe: a GPU is asked by a process that lets go
of it again.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from profiler_kit.capture.device import Stopwatch
from profiler_kit.capture.environment import command_line, describe_environment
from profiler_kit.files import write_json
from profiler_kit.formats.ladder_record import Ceilings, Work
from profiler_kit.units import ns_to_s

_SIDE: Final = {"cuda": 8192, "cpu": 1024}  # of the square matrices: large enough to fill the device
_COPY_BYTES: Final = {"cuda": 1 << 30, "cpu": 1 << 28}  # far beyond any cache
_SECONDS: Final = 0.25  # for each rate
_FEWEST: Final = 3
_DTYPES: Final = (
    ("float32", torch.float32, "highest"),
    ("tf32", torch.float32, "high"),
    ("bfloat16", torch.bfloat16, "highest"),
    ("float16", torch.float16, "highest"),
)


@dataclass(frozen=True)
class Probe:
    """The machine of a ladder. command: the command line of the process that asked."""

    device_name: str
    versions: Mapping[str, str]
    git_commit: str | None
    command: str
    ceilings: Ceilings


def probe(device: torch.device, arguments: list[str]) -> Probe:
    """Describe the device and measure its ceilings."""
    found = describe_environment(device)
    ceilings = measure_ceilings(device)
    return Probe(found.device_name, found.versions, found.git_commit, command_line(arguments), ceilings)


def measure_ceilings(device: torch.device) -> Ceilings:
    """The best rate of a square matrix product in each dtype, TFLOP/s, and of a device-to-device copy, GB/s.

    2 n**3 operations over the median time between events around one product; a copy counts what is read and what is
    written. Inputs are random: zeros run faster than data. On a CPU there is no tf32.
    """
    side = _SIDE[device.type]
    rates: dict[str, float] = {}
    notes: list[str] = [f"matrix products of {side} x {side}, copies of {_COPY_BYTES[device.type] >> 20} MiB"]
    for name, dtype, precision in _DTYPES:
        if name == "tf32" and device.type == "cpu":
            continue
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            out = torch.empty(side, side, device=device, dtype=dtype)
            seconds = _best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device)  # type: ignore[misc]  # a default in a lambda
        except RuntimeError as error:
            notes.append(f"{name}: no matrix product on {device} ({str(error).splitlines()[0]})")
            continue
        finally:
            torch.set_float32_matmul_precision(before)
        rates[name] = 2 * side**3 / seconds / 1e12
    size = _COPY_BYTES[device.type]
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _best(lambda: target.copy_(source), device)
    return Ceilings(rates, 2 * size / seconds / 1e9, tuple(notes))


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the work: the median of what fits into a quarter of a second, after a warm-up."""
    for _ in range(2):
        work()
    samples: list[int] = []
    until = time.monotonic() + _SECONDS
    while len(samples) < _FEWEST or time.monotonic() < until:
        clock = Stopwatch(device)
        work()
        samples.append(clock.stop_ns())
    return ns_to_s(sorted(samples)[len(samples) // 2])


def count_work(run: Callable[[], object]) -> Work:
    """FLOP (torch.utils.flop_counter's formulas) and operator bytes of what `run` does; run it on the published model.

    Bytes: every tensor that an operator reads or writes, once an operator, as if nothing stayed in a cache; views move
    nothing. It is the traffic of a run operator by operator, which fusing kernels reduces.
    """
    flops = FlopCounterMode(display=False)
    traffic = _Traffic()
    with traffic, flops:
        run()
    return Work(int(flops.get_total_flops()), traffic.total)


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of operators' tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and count its tensors."""
        out = func(*args, **(kwargs or {}))
        if not _is_view(func):
            for leaf in tree_leaves((args, kwargs, out)):
                if isinstance(leaf, torch.Tensor):
                    self.total += _bytes(leaf)
        return out


def _is_view(func: Any) -> bool:
    """Whether the operator's result is its argument under another shape, as its schema says."""
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _bytes(tensor: torch.Tensor) -> int:
    """Bytes of the elements that are stored: an expanded dimension (stride 0) counts once."""
    count = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= length if stride or not length else 1
    return count * tensor.element_size()


if __name__ == "__main__":
    write_json(Path(sys.argv[2]), dataclasses.asdict(probe(torch.device(sys.argv[1]), sys.argv[3:])))
