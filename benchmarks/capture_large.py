"""Record a large real trace on a GPU, with the variety of names that a day's work has: `capture_large.py OUT.json.xz`.

Trains and runs models of torchvision and a small language model, eager and compiled, in several precisions and batch
sizes, with input shapes and Python stacks. What a benchmark of loading needs
and a repeated small trace lacks: tens of thousands of different names, shapes and stacks.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torchvision

from profiler_kit import profiler_runner, region


class Words(torch.nn.Module):
    """A small language model."""

    def __init__(self, width: int = 512, layers: int = 6) -> None:
        super().__init__()
        self.names = torch.nn.Embedding(8000, width)
        layer = torch.nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, norm_first=True)
        self.body = torch.nn.TransformerEncoder(layer, layers)
        self.head = torch.nn.Linear(width, 8000)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.names(tokens))).mean(1)


def jobs() -> Iterator[tuple[str, Callable[[], None]]]:
    """Named steps to run, each model in several ways."""
    device = torch.device("cuda")
    makers = {
        name: getattr(torchvision.models, name)
        for name in ("resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "vit_b_16")
    } | {"swin_t": torchvision.models.swin_t, "densenet121": torchvision.models.densenet121, "words": Words}
    for name, make in makers.items():
        model = make().to(device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for dtype in (torch.float32, torch.bfloat16):
            for size in (2, 5, 8):
                batch = (
                    torch.randint(0, 8000, (size, 96), device=device)
                    if name == "words"
                    else torch.rand(size, 3, 224, 224, device=device)
                )

                def step(
                    model: torch.nn.Module = model,
                    batch: torch.Tensor = batch,
                    dtype: torch.dtype = dtype,
                    optimizer: torch.optim.Optimizer = optimizer,
                ) -> None:
                    with region("forward"), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                        loss = model(batch).square().mean()
                    with region("backward"):
                        loss.backward()
                    with region("optimizer"):
                        optimizer.step()
                        optimizer.zero_grad()

                yield f"{name} {dtype} batch {size}", step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=1, help="how often each step runs; the size is printed")
    chosen = parser.parse_args()
    steps = list(jobs())
    for _, step in steps:
        step()
    torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "trace.json"
        with profiler_runner(raw, record_shapes=True, with_stack=True):
            for _ in range(chosen.rounds):
                for name, step in steps:
                    with region(name):
                        step()
            torch.cuda.synchronize()
        with raw.open("rb") as source, lzma.open(chosen.out, "wb", preset=6) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)
        print(json.dumps({"json_bytes": raw.stat().st_size, "packed_bytes": chosen.out.stat().st_size}))


if __name__ == "__main__":
    main()
