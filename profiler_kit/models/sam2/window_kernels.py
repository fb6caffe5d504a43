"""The Triton kernel of attention inside windows, straight from the output of `qkv` to the input of `proj`.

Scores and sums are float32; softmax is taken in base 2. A head whose width is no power of two is cut in two: DIM_A, and
what is left of it in DIM_B columns, which may be more (then they are zero) or 0.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def window_kernel(
    qkv, out, width, across, windows,
    SIDE: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, DIM_A: tl.constexpr,
    DIM_B: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK queries of one head against all keys of their windows, BLOCK keys a step.

    GROUP: windows side by side that a program takes together, so many that they fill BLOCK; `across` counts such
    groups in a row, `windows` in an image.
    """
    AREA: tl.constexpr = SIDE * SIDE
    STEPS: tl.constexpr = GROUP * AREA // BLOCK
    WIDTH: tl.constexpr = HEADS * DIM
    FACTOR: tl.constexpr = SCALE * LOG2_E
    program = tl.program_id(0)
    head = program % HEADS
    step = program // HEADS % STEPS
    group = program // (HEADS * STEPS)
    image, place = group // windows, group % windows
    corner = image.to(tl.int64) * windows * GROUP * AREA
    corner += (place // across) * SIDE * width + (place % across) * GROUP * SIDE
    ticks = tl.arange(0, BLOCK)
    dims = tl.arange(0, DIM_A)
    more = DIM_A + tl.arange(0, DIM_B if DIM_B > 0 else 1)
    real = more < DIM

    queries = step * BLOCK + ticks
    inner = queries % AREA
    token = corner + inner // SIDE * width + queries // AREA * SIDE + inner % SIDE
    q_at = (qkv + token * (3 * WIDTH) + head * DIM)[:, None]
    q_a = tl.load(q_at + dims[None, :])
    q_b = tl.load(q_at + more[None, :], mask=real[None, :], other=0.0)
    out_a = tl.zeros((BLOCK, DIM_A), dtype=tl.float32)
    out_b = tl.zeros((BLOCK, DIM_B if DIM_B > 0 else 1), dtype=tl.float32)
    top = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in tl.static_range(0, GROUP * AREA, BLOCK):
        keys = start + ticks
        within = keys % AREA
        place_of = corner + within // SIDE * width + keys // AREA * SIDE + within % SIDE
        k_at = qkv + place_of * (3 * WIDTH) + WIDTH + head * DIM
        score = tl.dot(q_a, tl.load(k_at[None, :] + dims[:, None]), input_precision=PRECISION)
        if DIM_B > 0:
            tail = tl.load(k_at[None, :] + more[:, None], mask=real[:, None], other=0.0)
            score = tl.dot(q_b, tail, score, input_precision=PRECISION)
        score = score * FACTOR
        if GROUP > 1:
            score = tl.where((queries // AREA)[:, None] == (keys // AREA)[None, :], score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 1)
        v_at = k_at[:, None] + WIDTH
        rounded = weight.to(q_a.dtype)
        out_a = tl.dot(rounded, tl.load(v_at + dims[None, :]), out_a * shrink[:, None], input_precision=PRECISION)
        if DIM_B > 0:
            tail = tl.load(v_at + more[None, :], mask=real[None, :], other=0.0)
            out_b = tl.dot(rounded, tail, out_b * shrink[:, None], input_precision=PRECISION)
        top = new_top
    out_at = (out + token * WIDTH + head * DIM)[:, None]
    tl.store(out_at + dims[None, :], (out_a / total[:, None]).to(out.dtype.element_ty))
    if DIM_B > 0:
        tl.store(out_at + more[None, :], (out_b / total[:, None]).to(out.dtype.element_ty), mask=real[None, :])
