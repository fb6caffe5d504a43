"""Run the Triton kernels in Triton's interpreter, on the CPU: prints the largest error of each case as JSON.

A process of its own, because Triton looks at TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

import json
import os

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F  # noqa: N812

from profiler_kit.models.sam import fused_attention as attention
from profiler_kit.models.sam import row_operators as rows
from profiler_kit.models.sam2 import fused_decoder as decoder
from profiler_kit.models.sam2 import windows

torch.set_num_threads(1)
attention.wrap_triton = rows.wrap_triton = windows.wrap_triton = decoder.wrap_triton = lambda kernel: kernel


def attention_error(side: int, heads: int, dim: int, window: int, pair: int) -> float:
    """Against float64; a side of 20 and windows of 14 have windows that reach over the edge in both directions."""
    attention.GLOBAL = attention.Launch(64, pair, 4, 3)
    width, reach = heads * dim, window or side
    qkv, fill = torch.randn(1, side, side, 3 * width), torch.randn(3 * width)
    tables = [torch.randn(2 * reach - 1, dim) * 0.3 for _ in range(2)]
    got = attention._launch(qkv, fill, *tables, attention.window_places(window), heads, window)
    want = attention.reference_attention(qkv.double(), fill.double(), *(t.double() for t in tables), heads, window)
    return (got - want).abs().max().item()


def window_error(side: int, heads: int, dim: int, window: int, stride: int = 1) -> float:
    """SAM 2's, against float64: windows that a program takes in parts, alone, or several at once."""
    qkv = torch.randn(2, side, side, 3 * heads * dim)
    want = windows.reference_attention(qkv.double(), heads, window, stride)
    return (windows._launch(qkv, heads, window, stride) - want).abs().max().item()


def seen_error(prompts: int, rows: int, width: int) -> float:
    """SAM 2's decoder, against float64: what tokens see in 128 cells."""
    asked = torch.randn(prompts, rows, width) * width**-0.5
    given = asked, torch.randn(prompts, 128, width), torch.randn(128, width)
    want = decoder.seen(*(one.double() for one in given))
    return (decoder.launch_seen(*given) - want).abs().max().item()


def updated_error(prompts: int, heads: int, tokens: int, width: int, *, shared: bool) -> float:
    """What cells become after they have seen the tokens; cells of all prompts, or of each."""
    rows = heads * tokens
    cells = torch.randn(256, width) if shared else torch.randn(prompts, 256, width)
    folded, start, values = (torch.randn(prompts, *shape) for shape in ((width, rows), (1, rows), (rows, width)))
    given = cells, torch.randn(256, width), folded * width**-0.5, start, values, *torch.randn(3, width)
    want = decoder.updated(*(one.double() for one in given), 1e-5, heads)
    return (decoder.launch_updated(*given, 1e-5, heads) - want).abs().max().item()


def masks_error(prompts: int, width: int, across: int) -> float:
    """Masks of 128 cells, `across` in a row."""
    middle, narrow = width // 4, width // 8
    shapes = (
        *((prompts, 128, width), (width, 4 * middle), (middle,), (128, 4, middle), (middle,), (middle,)),
        *((middle, 4 * narrow), (narrow,), (128, 16, narrow), (prompts, 3, narrow)),
    )
    given = [torch.randn(shape) / (shape[0] ** 0.5 if len(shape) == 2 else 1) for shape in shapes]
    want = decoder.masks(*(one.double() for one in given), across, 1e-6)
    return ((decoder.launch_masks(*given, across, 1e-6) - want).abs() / want.abs().max()).max().item()


def rows_error(width: int) -> float:
    """Every operator over rows against torch, float8 stood in for by float32 (so that only the scaling is seen)."""
    x, more, weight, bias = torch.randn(5, width) * 3, torch.randn(5, width), torch.randn(width), torch.randn(width)
    x[0, :4] = torch.tensor([0.0, -9.0, 9.0, -30.0])
    _, first, rest, _ = rows._parts(x)
    out, scale, total = torch.empty_like(x), torch.empty(5, 1), torch.empty_like(x)
    errors = []
    parts = {"WIDTH": width, "WIDTH_A": first, "WIDTH_B": rest, "LARGEST": 448.0, "TINY": 1e-12}
    for gelu in (True, False):
        rows.round_rows_kernel[(5,)](x, out, scale, GELU=gelu, **parts)
        error = out * scale - (F.gelu(x) if gelu else x)
        errors.append((error.abs() - 7e-5).clamp(min=0) if gelu else error)  # as its docstring says
        assert out.abs().max() <= 448.0001
    for some in (more, more[:2]):  # whose rows repeat
        want = x + some.repeat(3, 1)[:5] if len(some) < 5 else x + some
        for rounded in (False, True):
            rows._launch_norm(x, some, weight, bias, total, out, scale if rounded else None, 1e-6)
            errors.append((out * scale if rounded else out) - F.layer_norm(want, (width,), weight, bias, 1e-6))
            errors.append(total - want)
    rows.gelu_kernel[(2,)](x, out, x.numel(), BLOCK=256)
    errors.append(out - F.gelu(x))
    return max(error.abs().max().item() for error in errors)


torch.manual_seed(0)
print(
    json.dumps(
        {
            "window": attention_error(20, 1, 16, 14, 1),
            "window, head of 48": attention_error(9, 2, 48, 7, 1),
            "global, head of 48": attention_error(16, 1, 48, 0, 1),
            "global, pairs of rows": attention_error(16, 1, 16, 0, 2),
            "windows in parts, head of 72": window_error(16, 2, 72, 16),
            "windows alone, head of 32": window_error(16, 1, 32, 8),
            "four windows at once, head of 24": window_error(16, 2, 24, 4),
            "two windows at once": window_error(8, 1, 24, 4),
            "queries halved, windows of 8": window_error(16, 2, 72, 8, 2),
            "queries halved, windows of 4": window_error(16, 2, 24, 4, 2),
            "queries halved, windows of 16": window_error(32, 1, 24, 16, 2),
            "tokens see cells": seen_error(3, 64, 128),
            "cells of all prompts see tokens": updated_error(3, 8, 8, 128, shared=True),
            "cells of each prompt see tokens": updated_error(2, 4, 8, 64, shared=False),
            "masks": masks_error(18, 128, 16),
            "rows of 64": rows_error(64),
            "rows of 96": rows_error(96),
        }
    )
)
