"""Record jobs of two ranks or more in which it is known who is slow: python benchmarks/slow_rank.py OUT [--ranks 2]

One folder for each job, with the traces that profiler_runner writes and truth.json: nobody is slow; a rank's host
sleeps in one step, or in all from one on; a rank's GPU has more to do in one step, or in all from one on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from profiler_kit import profiler_runner, region

WARMUP, STEPS = 4, 10
# who is slow by what, in which steps (as the trace numbers them), and how communication is used
JOBS: dict[str, dict[str, Any]] = {
    "nobody": {"slow": None, "kind": "", "steps": [], "program": "ddp"},
    "host_step": {"slow": 1, "kind": "host", "steps": [9], "program": "ddp"},
    "gpu_step": {"slow": 0, "kind": "compute", "steps": [8], "program": "ddp"},
    "host_since": {"slow": 0, "kind": "host", "steps": list(range(9, 14)), "program": "ddp"},
    "gpu_experts": {"slow": 1, "kind": "compute", "steps": list(range(8, 14)), "program": "experts"},
}


class Net(nn.Module):
    """Layers between which ranks exchange tokens (experts), or a plain stack (ddp)."""

    def __init__(self, width: int, experts: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
                                    for _ in range(4))  # fmt: skip
        self.experts = experts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            if self.experts:
                got = torch.empty_like(x)
                dist.all_to_all_single(got, x.detach().contiguous())
                x = x + 0 * got
            x = x + layer(x)
        return x


def work(rank: int, ranks: int, out: str, cuda: bool, width: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=ranks)
    for name, job in JOBS.items():
        torch.manual_seed(rank)
        experts = job["program"] == "experts" and cuda
        net = nn.parallel.DistributedDataParallel(Net(width, experts).to(device), bucket_cap_mb=16)
        optimizer = torch.optim.SGD(net.parameters(), 1e-4)
        data = torch.randn(4096 if cuda else 16, width).pin_memory() if cuda else torch.randn(16, width)
        more = torch.randn(4096, 4096, device=device) if cuda else torch.randn(256, 256)

        def step(number: int, job: dict[str, Any] = job, net: Any = net, data: Any = data, more: Any = more,
                 optimizer: Any = optimizer) -> None:  # fmt: skip
            slow = job["slow"] == rank and number in job["steps"]
            with region("load"):
                x = data.to(device, non_blocking=True)
            with region("augment"):
                if slow and job["kind"] == "host":
                    time.sleep(0.02)
            with region("forward"):
                if slow and job["kind"] == "compute":
                    for _ in range(20):
                        more @ more
                loss = net(x).square().mean()
            with region("backward"):
                loss.backward()
            with region("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
            loss.item()

        dist.barrier()
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        with profiler_runner(folder / "trace.json.gz", warmup=WARMUP, active=STEPS) as profiler:
            for number in range(WARMUP + STEPS):
                step(number)
                profiler.step()
        if rank == 0:
            (folder / "truth.json").write_text(json.dumps(job))
        dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--width", type=int, default=1024)
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    torch.multiprocessing.spawn(work, (given.ranks, given.out, cuda, given.width), nprocs=given.ranks)


if __name__ == "__main__":
    main()
