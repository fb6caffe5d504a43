"""Triton kernels: SAM's encoder attention straight from the output of `qkv` to the input of `proj`.

q, k and v are read where the linear layer left them ([B, H, W, 3, heads, d]) and the answer is written where the next
one reads it ([B, H, W, heads, d]): windows, their padding, the split into heads and the relative position exist in
registers only. Scores and sums are float32; softmax is taken in base 2.

A head dimension that is not a power of two is cut in two that are (80 = 64 + 16): DIM_A and DIM_B, the second may be 0.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
NEVER = tl.constexpr(-60000.0)  # a bias that no score outweighs, and float16 holds


@triton.jit
def relative_kernel(
    qkv, table_h, table_w, rows, columns,
    SIDE: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The bias of each query for each row and column of keys: rows[B n, row, token], columns[B n, token, column].

    One program takes one line of the image, SIDE queries that share their row (first SIDE programs) or their column.
    Global attention over SIDE x SIDE tokens.
    """
    line = tl.program_id(0)
    head = tl.program_id(1) % HEADS
    image = tl.program_id(1) // HEADS
    down = line < SIDE
    own = line % SIDE
    ticks = tl.arange(0, SIDE)
    tokens = tl.where(down, own * SIDE + ticks, ticks * SIDE + own)
    table = tl.where(down, table_h, table_w)
    base = qkv + (image.to(tl.int64) * SIDE * SIDE + tokens[:, None]) * (3 * HEADS * DIM) + head * DIM
    offsets = own - ticks + SIDE - 1
    dims = tl.arange(0, DIM_A)
    entries = table + offsets[None, :] * DIM
    want = tl.dot(tl.load(base + dims[None, :]), tl.load(entries + dims[:, None]), input_precision=PRECISION)
    if DIM_B > 0:
        more = DIM_A + tl.arange(0, DIM_B)
        want = tl.dot(tl.load(base + more[None, :]), tl.load(entries + more[:, None]), want, input_precision=PRECISION)
    found = want.to(rows.dtype.element_ty)
    area = SIDE * SIDE
    start = tl.program_id(1).to(tl.int64) * SIDE * area
    if down:
        tl.store(rows + start + ticks[None, :] * area + tokens[:, None], found)
    else:
        tl.store(columns + start + tokens[:, None] * SIDE + ticks[None, :], found)


@triton.jit
def _score(q_a, q_b, k_at, score, dims, more, DIM_B: tl.constexpr, PRECISION: tl.constexpr):
    """`score` + q k of a step: k_at points to the step's keys, [1, keys]."""
    score = tl.dot(q_a, tl.load(k_at + dims[:, None]), score, input_precision=PRECISION)
    if DIM_B > 0:
        score = tl.dot(q_b, tl.load(k_at + more[:, None]), score, input_precision=PRECISION)
    return score


@triton.jit
def _gather_values(weight, v_at, out_a, out_b, dims, more, DIM_B: tl.constexpr, PRECISION: tl.constexpr):
    """Add `weight` times the step's values to both parts of the answer; v_at points to them, [keys, 1]."""
    out_a = tl.dot(weight, tl.load(v_at + dims[None, :]), out_a, input_precision=PRECISION)
    if DIM_B > 0:
        out_b = tl.dot(weight, tl.load(v_at + more[None, :]), out_b, input_precision=PRECISION)
    return out_a, out_b


@triton.jit
def global_kernel(
    qkv, rows, columns, out,
    SIDE: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, DIM_A: tl.constexpr, DIM_B: tl.constexpr,
    SCALE: tl.constexpr, BLOCK_M: tl.constexpr, PAIR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over all SIDE x SIDE tokens, a row of keys (or a PAIR of rows) a step.

    Within a row of keys the row's bias is one number a query: it moves the maximum and costs nothing a score.
    """
    AREA: tl.constexpr = SIDE * SIDE
    WIDTH: tl.constexpr = HEADS * DIM
    STEP: tl.constexpr = SIDE * 3 * WIDTH
    FACTOR: tl.constexpr = SCALE * LOG2_E
    head = tl.program_id(1) % HEADS
    image = (tl.program_id(1) // HEADS).to(tl.int64)
    queries = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    keys = tl.arange(0, SIDE)
    dims = tl.arange(0, DIM_A)
    more = DIM_A + tl.arange(0, DIM_B if DIM_B > 0 else 1)
    base = qkv + image * AREA * 3 * WIDTH + head * DIM
    q_at = base + queries[:, None] * (3 * WIDTH)
    q_a = tl.load(q_at + dims[None, :])
    q_b = tl.load(q_at + more[None, :])
    out_a = tl.zeros((BLOCK_M, DIM_A), dtype=tl.float32)
    out_b = tl.zeros((BLOCK_M, DIM_B if DIM_B > 0 else 1), dtype=tl.float32)
    start = tl.program_id(1).to(tl.int64) * SIDE * AREA
    bias = tl.load(columns + start + queries[:, None] * SIDE + keys[None, :]).to(tl.float32) * LOG2_E
    row_at = rows + start + queries
    top = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    none = tl.zeros((BLOCK_M, SIDE), dtype=tl.float32)
    k_at = base + WIDTH + keys[None, :] * (3 * WIDTH)
    v_at = base + 2 * WIDTH + keys[:, None] * (3 * WIDTH)
    for row in range(0, SIDE, 2 if PAIR else 1):
        score = _score(q_a, q_b, k_at, none, dims, more, DIM_B, PRECISION) * FACTOR + bias
        own = tl.load(row_at + row * AREA).to(tl.float32) * LOG2_E
        new_top = tl.maximum(top, tl.max(score, 1) + own)
        if PAIR:
            score_2 = _score(q_a, q_b, k_at + STEP, none, dims, more, DIM_B, PRECISION) * FACTOR + bias
            own_2 = tl.load(row_at + row * AREA + AREA).to(tl.float32) * LOG2_E
            new_top = tl.maximum(new_top, tl.max(score_2, 1) + own_2)
        shrink = tl.exp2(top - new_top)
        weight = tl.exp2(score - (new_top - own)[:, None])
        total = total * shrink + tl.sum(weight, 1)
        out_a = out_a * shrink[:, None]
        out_b = out_b * shrink[:, None]
        out_a, out_b = _gather_values(weight.to(qkv.dtype.element_ty), v_at, out_a, out_b, dims, more, DIM_B, PRECISION)
        if PAIR:
            weight_2 = tl.exp2(score_2 - (new_top - own_2)[:, None])
            total += tl.sum(weight_2, 1)
            out_a, out_b = _gather_values(
                weight_2.to(qkv.dtype.element_ty), v_at + STEP, out_a, out_b, dims, more, DIM_B, PRECISION
            )
        top = new_top
        k_at += 2 * STEP if PAIR else STEP
        v_at += 2 * STEP if PAIR else STEP
    out_at = out + (image * AREA + queries[:, None]) * WIDTH + head * DIM
    tl.store(out_at + dims[None, :], (out_a / total[:, None]).to(out.dtype.element_ty))
    if DIM_B > 0:
        tl.store(out_at + more[None, :], (out_b / total[:, None]).to(out.dtype.element_ty))


@triton.jit
def window_kernel(
    qkv, fill, table_h, table_w, places, out, height, width, across, windows,
    SIDE: tl.constexpr, PAD: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, DIM_A: tl.constexpr,
    DIM_B: tl.constexpr, SCALE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention inside windows of SIDE x SIDE tokens, laid out PAD x PAD.

    fill: the bias of `qkv`, what q, k and v are outside the image. places[PAD * PAD, 2 PAD]: a one at the row and a
    one at the column of each token. The bias of a score is the product of that with the query's bias for each row
    and column, computed against every offset of the tables and then picked. The bias of rows and columns from SIDE on
    is so low that their keys do not count.
    """
    WIDTH: tl.constexpr = HEADS * DIM
    FACTOR: tl.constexpr = SCALE * LOG2_E
    image = (tl.program_id(2) // windows).to(tl.int64)
    window = tl.program_id(2) % windows
    top_row, left = (window // across) * SIDE, (window % across) * SIDE
    head = tl.program_id(1)
    first = tl.program_id(0) * BLOCK_M
    if top_row + first // PAD >= height:
        return
    queries = first + tl.arange(0, BLOCK_M)
    q_row, q_column = queries // PAD, queries % PAD
    y, x = top_row + q_row, left + q_column
    inside = (q_row < SIDE) & (q_column < SIDE) & (y < height) & (x < width)
    base = qkv + image * height * width * 3 * WIDTH + head * DIM
    dims = tl.arange(0, DIM_A)
    more = DIM_A + tl.arange(0, DIM_B if DIM_B > 0 else 1)
    q_at = base + (y * width + x) * (3 * WIDTH)
    q_a = tl.load(q_at[:, None] + dims[None, :], mask=inside[:, None], other=0.0)
    q_b = tl.load(q_at[:, None] + more[None, :], mask=inside[:, None], other=0.0)

    entry = tl.arange(0, 4 * PAD)  # every offset of a row, then every offset of a column
    offset = entry % (2 * PAD)
    table = tl.where(entry < 2 * PAD, table_h + offset * DIM, table_w + offset * DIM)[None, :]
    known = (offset < 2 * SIDE - 1)[None, :]
    every = tl.dot(q_a, tl.load(table + dims[:, None], mask=known, other=0.0), input_precision=PRECISION)
    if DIM_B > 0:
        tail = tl.load(table + more[:, None], mask=known, other=0.0)
        every = tl.dot(q_b, tail, every, input_precision=PRECISION)
    spot = tl.arange(0, 2 * PAD)
    of_rows = (spot < PAD)[None, :]
    distance = tl.where(of_rows, q_row[:, None], q_column[:, None]) - (spot % PAD)[None, :] + SIDE - 1
    wanted = tl.gather(every, tl.maximum(distance, 0) + tl.where(of_rows, 0, 2 * PAD), 1)
    wanted = tl.where((spot % PAD < SIDE)[None, :], wanted / SCALE, NEVER).to(q_a.dtype)

    out_a = tl.zeros((BLOCK_M, DIM_A), dtype=tl.float32)
    out_b = tl.zeros((BLOCK_M, DIM_B if DIM_B > 0 else 1), dtype=tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    padding = fill + WIDTH + head * DIM
    for start in range(0, SIDE * PAD, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k_row, k_column = keys // PAD, keys % PAD
        ky, kx = top_row + k_row, left + k_column
        real = (k_row < SIDE) & (k_column < SIDE) & (ky < height) & (kx < width)
        k_at = tl.where(real, base + WIDTH + (ky * width + kx) * (3 * WIDTH), padding)
        bias = tl.dot(wanted, tl.load(places + keys[None, :] * (2 * PAD) + spot[:, None]), input_precision=PRECISION)
        score = _score(q_a, q_b, k_at[None, :], bias, dims, more, DIM_B, PRECISION)
        new_top = tl.maximum(top, tl.max(score, 1) * FACTOR)
        weight = tl.exp2(score * FACTOR - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 1)
        out_a = out_a * shrink[:, None]
        out_b = out_b * shrink[:, None]
        out_a, out_b = _gather_values(
            weight.to(q_a.dtype), k_at[:, None] + WIDTH, out_a, out_b, dims, more, DIM_B, PRECISION
        )
        top = new_top
    out_at = (out + (image * height * width + y * width + x) * WIDTH + head * DIM)[:, None]
    tl.store(out_at + dims[None, :], (out_a / total[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
    if DIM_B > 0:
        tl.store(out_at + more[None, :], (out_b / total[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
