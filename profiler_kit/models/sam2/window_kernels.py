"""The Triton kernel of attention inside windows, straight from the output of `qkv` to the input of `proj`.

Scores and sums are float32; softmax is taken in base 2. A head whose width is not a power of two is cut in two that
are: its first DIM_A columns and its last DIM_B, which may overlap (or 0); what both have counts once in the scores.
"""

import triton
import triton.language as tl

from profiler_kit.models.sam.attention_kernels import LOG2_E, _gather_values, _score


@triton.jit
def _largest(at, width, STRIDE: tl.constexpr, STEP: tl.constexpr):
    """What `at` points to, or the largest of it and its neighbours to the right and below."""
    found = tl.load(at)
    if STRIDE == 2:
        found = tl.maximum(found, tl.load(at + STEP))
        found = tl.maximum(found, tl.load(at + width * STEP))
        found = tl.maximum(found, tl.load(at + (width + 1) * STEP))
    return found.to(at.dtype.element_ty)  # Triton compares bfloat16 as float32


@triton.jit
def window_kernel(
    qkv, out, width, across, windows, reach,
    SIDE: tl.constexpr, GROUP: tl.constexpr, STRIDE: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
    DIM_A: tl.constexpr, DIM_B: tl.constexpr, SCALE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_M queries of one head against all `reach` keys of their windows, BLOCK_N keys a step.

    GROUP: windows side by side that a program takes together, so many that they fill BLOCK_M; `across` counts such
    groups in a row, `windows` in an image. STRIDE: a query is the largest of 2 x 2 tokens where it is 2; the answer has
    one for each query.
    """
    AREA: tl.constexpr = SIDE * SIDE
    ASKING: tl.constexpr = SIDE // STRIDE
    ASKED: tl.constexpr = ASKING * ASKING
    STEPS: tl.constexpr = GROUP * ASKED // BLOCK_M
    WIDTH: tl.constexpr = HEADS * DIM
    FACTOR: tl.constexpr = SCALE * LOG2_E
    program = tl.program_id(0)
    head = program % HEADS
    step = program // HEADS % STEPS
    group = program // (HEADS * STEPS)
    place = group % windows
    base = qkv + (group // windows).to(tl.int64) * windows * (GROUP * AREA) * (3 * WIDTH) + head * DIM
    corner = (place // across) * SIDE * width + (place % across) * (GROUP * SIDE)
    dims = tl.arange(0, DIM_A)
    more = DIM - DIM_B + tl.arange(0, DIM_B if DIM_B > 0 else 1)

    queries = step * BLOCK_M + tl.arange(0, BLOCK_M)
    inner = queries % ASKED
    down = inner // ASKING
    right = queries // ASKED * SIDE + inner % ASKING * STRIDE
    q_at = base + (corner + down * STRIDE * width + right)[:, None] * (3 * WIDTH)
    q_a = _largest(q_at + dims[None, :], width, STRIDE, 3 * WIDTH)
    q_b = _largest(q_at + more[None, :], width, STRIDE, 3 * WIDTH)
    q_b = tl.where(more[None, :] >= DIM_A, q_b, 0.0).to(q_a.dtype)
    out_a = tl.zeros((BLOCK_M, DIM_A), dtype=tl.float32)
    out_b = tl.zeros((BLOCK_M, DIM_B if DIM_B > 0 else 1), dtype=tl.float32)
    none = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    for start in range(0, reach, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        within = keys % AREA
        k_at = corner + within // SIDE * width + keys // AREA * SIDE + within % SIDE
        k_at = base + WIDTH + k_at * (3 * WIDTH)
        score = _score(q_a, q_b, k_at[None, :], none, dims, more, DIM_B, PRECISION) * FACTOR
        if GROUP > 1:
            score = tl.where((queries // ASKED)[:, None] == (keys // AREA)[None, :], score, -60000.0)
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 1)
        out_a = out_a * shrink[:, None]
        out_b = out_b * shrink[:, None]
        out_a, out_b = _gather_values(
            weight.to(q_a.dtype), k_at[:, None] + WIDTH, out_a, out_b, dims, more, DIM_B, PRECISION
        )
        top = new_top
    out_at = out + (group // windows).to(tl.int64) * windows * (GROUP * ASKED) * WIDTH + head * DIM
    across_out = (place % across) * (GROUP * ASKING) + right // STRIDE
    out_at += (((place // across) * ASKING + down) * (width // STRIDE) + across_out)[:, None] * WIDTH
    tl.store(out_at + dims[None, :], (out_a / total[:, None]).to(out.dtype.element_ty))
    if DIM_B > 0:
        tl.store(out_at + more[None, :], (out_b / total[:, None]).to(out.dtype.element_ty))
