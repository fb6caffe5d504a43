"""A small transformer encoder of torch.nn as a workload: three functions are enough, the rest has defaults."""

from __future__ import annotations

import torch

from profiler_kit import region

TOKENS, WORDS, WIDTH = 64, 1000, 128


class Transformer(torch.nn.Module):
    """Token numbers int64[B, T] to scores of the next token, float32[B, T, WORDS]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, nhead=4, dim_feedforward=4 * WIDTH, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, num_layers=4)
        self.head = torch.nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The scores."""
        with region("embed"):
            x = self.embed(tokens)
        with region("encoder"):
            x = self.encoder(x)
        with region("head"):
            scores: torch.Tensor = self.head(x)
        return scores


class workload:  # noqa: N801 - what the command line looks for
    """What profiler-kit runs; `self` is not needed where nothing is kept."""

    name = "transformer"
    unit = "sequences"
    weights = "random"
    optimizations = ("tf32", "bf16", "fp16", "int8", "fp8", "cuda_graphs", "compile", "compile_max", "compile_graphs")

    @staticmethod
    def model(device: torch.device) -> torch.nn.Module:
        """The model with random weights."""
        return Transformer().to(device)

    @staticmethod
    def batch(size: int, device: torch.device) -> torch.Tensor:
        """Random sentences."""
        return torch.randint(WORDS, (size, TOKENS), device=device)

    @staticmethod
    def step(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """One forward."""
        scores: torch.Tensor = model(tokens)
        return scores
