"""The Triton kernels of SAM 2's mask decoder, for many prompts of one image with few tokens each.

What a cell of the image has in common with a prompt's tokens is written to memory once: scores, weights and sums exist
in registers only, in float32; softmax is taken in base 2.
"""

import triton
import triton.language as tl

from profiler_kit.models.sam.attention_kernels import LOG2_E
from profiler_kit.models.sam.row_kernels import _gelu, _near_gelu


@triton.jit
def to_image_kernel(
    folded, keys, position, out, cells, stride,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the tokens of one prompt see in all cells, BLOCK cells a step: softmax(folded (keys + position)) keys.

    folded: [P, ROWS, WIDTH]. keys: [P, cells, WIDTH], `stride` numbers from prompt to prompt. out: as folded.
    """
    prompt = tl.program_id(0).to(tl.int64)
    rows, wide = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    own = prompt * ROWS * WIDTH + rows[:, None] * WIDTH + wide[None, :]
    asked = tl.load(folded + own)
    seen = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    top = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, cells, BLOCK):
        at = (start + tl.arange(0, BLOCK))[:, None] * WIDTH + wide[None, :]
        x = tl.load(keys + prompt * stride + at)
        score = tl.dot(asked, tl.trans(tl.load(position + at)), input_precision=PRECISION)
        score = tl.dot(asked, tl.trans(x), score, input_precision=PRECISION) * LOG2_E
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weight, 1)
        seen = tl.dot(weight.to(x.dtype), x, seen * shrink[:, None], input_precision=PRECISION)
        top = new_top
    tl.store(out + own, (seen / total[:, None]).to(out.dtype.element_ty))


@triton.jit
def to_tokens_kernel(
    keys, position, folded, start, values, bias, norm, norm_bias, out, cells, stride,
    EPS: tl.constexpr, HEADS: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """STEPS blocks of BLOCK cells of one prompt after they saw its tokens: norm(keys + softmax(...) values + bias).

    folded: [P, WIDTH, HEADS TOKENS]; start: [P, HEADS TOKENS], added to the scores; softmax over the tokens of each
    head. values: [P, HEADS TOKENS, WIDTH]. keys: `stride` numbers from prompt to prompt. out: [P, cells, WIDTH].
    """
    ROWS: tl.constexpr = HEADS * TOKENS
    prompt = tl.program_id(0).to(tl.int64)
    rows, wide = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    known = tl.load(folded + prompt * ROWS * WIDTH + wide[:, None] * ROWS + rows[None, :])
    said = tl.load(values + prompt * ROWS * WIDTH + rows[:, None] * WIDTH + wide[None, :])
    first = tl.load(start + prompt * ROWS + rows).to(tl.float32)[None, :]
    for step in range(0, STEPS):
        cell = (tl.program_id(1) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        at = cell[:, None] * WIDTH + wide[None, :]
        x = tl.load(keys + prompt * stride + at)
        placed = x + tl.load(position + at)
        score = tl.dot(placed, known, input_precision=PRECISION) + first
        each = tl.reshape(score * LOG2_E, (BLOCK, HEADS, TOKENS))
        weight = tl.exp2(each - tl.max(each, 2)[:, :, None])
        weight = tl.reshape(weight / tl.sum(weight, 2)[:, :, None], (BLOCK, ROWS)).to(x.dtype)
        found = tl.dot(weight, said, input_precision=PRECISION)
        found += x.to(tl.float32) + tl.load(bias + wide).to(tl.float32)[None, :]
        found -= (tl.sum(found, 1) / WIDTH)[:, None]
        found *= tl.rsqrt(tl.sum(found * found, 1) / WIDTH + EPS)[:, None]
        found = found * tl.load(norm + wide).to(tl.float32)[None, :] + tl.load(norm_bias + wide).to(tl.float32)[None, :]
        tl.store(out + prompt * cells * WIDTH + at, found.to(out.dtype.element_ty))


@triton.jit
def masks_kernel(
    keys, first, inner, norm, norm_bias, second, outer, said, out, prompts, cells, across,
    EPS: tl.constexpr, WIDTH: tl.constexpr, MIDDLE: tl.constexpr, NARROW: tl.constexpr, MASKS: tl.constexpr,
    BLOCK: tl.constexpr, EACH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One of the four pixels that each of BLOCK cells becomes, and the four of that, in EACH prompts one by one.

    What is the same for all prompts is loaded once: two transposed convolutions and what is added to them. The sums
    with `said` are one product for all masks and the four pixels, with zeros where a pixel is another one.

    keys: [P, cells, WIDTH]; first: [WIDTH, 4 MIDDLE], the four pixels side by side; inner: [cells, 4, MIDDLE]; second:
    [MIDDLE, 4 NARROW]; outer: [cells, 16, NARROW], biases in inner and outer; said: [P, MASKS, NARROW]. out:
    float32[P, MASKS, 4 h, 4 w]; `across`: w.
    """
    FOUR: tl.constexpr = 4 * NARROW
    block = tl.program_id(0) % 4
    cell = tl.program_id(0) // 4 * BLOCK + tl.arange(0, BLOCK)
    wide, middle, fours, column = tl.arange(0, WIDTH), tl.arange(0, MIDDLE), tl.arange(0, FOUR), tl.arange(0, 16)
    weight = tl.load(first + wide[:, None] * (4 * MIDDLE) + block * MIDDLE + middle[None, :])
    then = tl.load(second + middle[:, None] * FOUR + fours[None, :])
    row = cell[:, None] * 4 + block
    beside = tl.load(inner + row * MIDDLE + middle[None, :]).to(tl.float32)
    beside_four = tl.load(outer + row * FOUR + fours[None, :]).to(tl.float32)
    factor, shift = tl.load(norm + middle).to(tl.float32)[None, :], tl.load(norm_bias + middle).to(tl.float32)[None, :]
    mask, pixel = column // 4, column % 4
    own = (mask < MASKS)[:, None] & (pixel[:, None] == (fours // NARROW)[None, :])
    corner = (cell // across * 4 + block // 2 * 2) * (4 * across) + cell % across * 4 + block % 2 * 2
    at = mask[None, :] * (16 * cells) + corner[:, None] + (pixel // 2 * (4 * across) + pixel % 2)[None, :]
    start = tl.program_id(1) * EACH
    for number in range(0, tl.minimum(EACH, prompts - start)):
        prompt = start.to(tl.int64) + number
        x = tl.load(keys + prompt * cells * WIDTH + cell[:, None] * WIDTH + wide[None, :])
        y = tl.dot(x, weight, beside, input_precision=PRECISION)
        y -= (tl.sum(y, 1) / MIDDLE)[:, None]
        y *= tl.rsqrt(tl.sum(y * y, 1) / MIDDLE + EPS)[:, None]
        z = tl.dot(_rounded_gelu(y * factor + shift, x), then, beside_four, input_precision=PRECISION)
        says = said + (prompt * MASKS + mask[:, None]) * NARROW + (fours % NARROW)[None, :]
        says = tl.trans(tl.load(says, mask=own, other=0.0))
        found = tl.dot(_rounded_gelu(z, x), says, input_precision=PRECISION)
        tl.store(out + prompt * (MASKS * 16) * cells + at, found, mask=(mask < MASKS)[None, :])


@triton.jit
def _rounded_gelu(x, like):
    """GELU in the dtype of `like`: to 7e-5 where that is less than what it loses."""
    found = _gelu(x) if like.dtype == tl.float32 else _near_gelu(x)
    return found.to(like.dtype)
