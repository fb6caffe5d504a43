"""Triton kernels over rows (tokens), each in one pass over memory: GELU, residual sum and LayerNorm, float8 rounding.

A row is held in registers, cut in two powers of two (1280 = 1024 + 256): WIDTH_A and WIDTH_B, the second may be 0.
Sums are float32; where the layers one by one would round to the model's dtype, so do the kernels.
"""

import triton
import triton.language as tl


@triton.jit
def _gelu(x):
    """x (1 + erf(x / sqrt 2)) / 2 in float32.

    1 + erf from formula 7.1.26 of Abramowitz and Stegun (absolute error 1.5e-7, the order of float32's own
    1 + erf(x)), written so that nothing cancels where x is negative.
    """
    t = tl.fdiv(1.0, 1.0 + 0.2316418882 * tl.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * tl.exp2(x * x * -0.7213475204444817)
    return 0.5 * x * tl.where(x < 0, tail, 2.0 - tail)


@triton.jit
def _near_gelu(x):
    """GELU to 7e-5, far below what rounding to float8 loses, for a third of the instructions.

    erf(x / sqrt 2) / 2 as an odd polynomial, fitted on 0 to 4.5 to the smallest largest error of the product with x
    (least squares, reweighted); beyond, its value at 4.5.
    """
    near = tl.clamp(x, -4.5, 4.5)
    square = near * near
    p = square * 3.036432233e-11 - 3.314672259e-09
    p = square * p + 1.591001421e-07
    p = square * p - 4.451738139e-06
    p = square * p + 8.142526522e-05
    p = square * p - 1.037591936e-03
    p = square * p + 9.585205173e-03
    p = square * p - 6.598465947e-02
    p = square * p + 3.987126084e-01
    return x * (0.5 + near * p)


@triton.jit
def gelu_kernel(x, out, count, BLOCK: tl.constexpr):
    """GELU of `count` numbers, BLOCK a program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    tl.store(out + at, _gelu(tl.load(x + at, mask=mask).to(tl.float32)).to(out.dtype.element_ty), mask=mask)


@triton.jit
def _store_rounded(part_a, part_b, at_a, at_b, out, scale, row, LARGEST: tl.constexpr, TINY: tl.constexpr,
                   WIDTH_B: tl.constexpr):  # fmt: skip
    """Write a row divided by its scale, so that its largest number becomes LARGEST, and the scale."""
    top = tl.max(tl.abs(part_a), 0)
    if WIDTH_B > 0:
        top = tl.maximum(top, tl.max(tl.abs(part_b), 0))
    top = tl.maximum(top, TINY)
    factor = LARGEST / top
    tl.store(scale + row, top / LARGEST)
    tl.store(out + at_a, (part_a * factor).to(out.dtype.element_ty))  # a last bit over LARGEST rounds to it
    if WIDTH_B > 0:
        tl.store(out + at_b, (part_b * factor).to(out.dtype.element_ty))


@triton.jit
def round_rows_kernel(x, out, scale, GELU: tl.constexpr, WIDTH: tl.constexpr, WIDTH_A: tl.constexpr,
                      WIDTH_B: tl.constexpr, LARGEST: tl.constexpr, TINY: tl.constexpr):  # fmt: skip
    """A row of x, after GELU if asked for, as `_store_rounded` writes it."""
    row = tl.program_id(0).to(tl.int64)
    at_a = row * WIDTH + tl.arange(0, WIDTH_A)
    at_b = row * WIDTH + WIDTH_A + tl.arange(0, WIDTH_B if WIDTH_B > 0 else 1)
    part_a = tl.load(x + at_a).to(tl.float32)
    part_b = part_a
    if WIDTH_B > 0:
        part_b = tl.load(x + at_b).to(tl.float32)
    if GELU:
        part_a = _near_gelu(part_a)
        if WIDTH_B > 0:
            part_b = _near_gelu(part_b)
    _store_rounded(part_a, part_b, at_a, at_b, out, scale, row, LARGEST, TINY, WIDTH_B)


@triton.jit
def norm_kernel(x, more, weight, bias, total, out, scale, period, EPS: tl.constexpr, ROUND: tl.constexpr,
                WIDTH: tl.constexpr, WIDTH_A: tl.constexpr, WIDTH_B: tl.constexpr, LARGEST: tl.constexpr,
                TINY: tl.constexpr):  # fmt: skip
    """A row of x plus one of `more` (the sum goes to `total`), normalised; with ROUND in float8.

    `more` has `period` rows and repeats.
    """
    row = tl.program_id(0).to(tl.int64)
    columns_a = tl.arange(0, WIDTH_A)
    columns_b = WIDTH_A + tl.arange(0, WIDTH_B if WIDTH_B > 0 else 1)
    at_a, at_b = row * WIDTH + columns_a, row * WIDTH + columns_b
    more += (row % period) * WIDTH
    dtype = x.dtype.element_ty
    sum_a = (tl.load(x + at_a).to(tl.float32) + tl.load(more + columns_a).to(tl.float32)).to(dtype)
    tl.store(total + at_a, sum_a)
    part_a = sum_a.to(tl.float32)
    part_b = part_a
    mean = tl.sum(part_a, 0)
    if WIDTH_B > 0:
        sum_b = (tl.load(x + at_b).to(tl.float32) + tl.load(more + columns_b).to(tl.float32)).to(dtype)
        tl.store(total + at_b, sum_b)
        part_b = sum_b.to(tl.float32)
        mean += tl.sum(part_b, 0)
    mean = mean / WIDTH
    part_a -= mean
    variance = tl.sum(part_a * part_a, 0)
    if WIDTH_B > 0:
        part_b -= mean
        variance += tl.sum(part_b * part_b, 0)
    factor = tl.rsqrt(variance / WIDTH + EPS)
    part_a = part_a * factor * tl.load(weight + columns_a).to(tl.float32) + tl.load(bias + columns_a).to(tl.float32)
    if WIDTH_B > 0:
        part_b = part_b * factor * tl.load(weight + columns_b).to(tl.float32)
        part_b += tl.load(bias + columns_b).to(tl.float32)
    if ROUND:
        part_a, part_b = part_a.to(dtype).to(tl.float32), part_b.to(dtype).to(tl.float32)
        _store_rounded(part_a, part_b, at_a, at_b, out, scale, row, LARGEST, TINY, WIDTH_B)
    else:
        tl.store(out + at_a, part_a.to(dtype))
        if WIDTH_B > 0:
            tl.store(out + at_b, part_b.to(dtype))
