"""Triton kernels: GELU in one pass over memory, alone or together with the rounding to float8 that follows it.

1 + erf comes from formula 7.1.26 of Abramowitz and Stegun (absolute error 1.5e-7, the order of float32's own
1 + erf(x)), written so that nothing cancels where x is negative.
"""

import triton
import triton.language as tl


@triton.jit
def _gelu(x):
    """x (1 + erf(x / sqrt 2)) / 2 in float32."""
    z = tl.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = series * tl.exp(-z * z)
    return 0.5 * x * tl.where(x < 0, tail, 2.0 - tail)


@triton.jit
def gelu_kernel(x, out, count, BLOCK: tl.constexpr):
    """GELU of `count` numbers, BLOCK a program."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    tl.store(out + at, _gelu(tl.load(x + at, mask=mask).to(tl.float32)).to(out.dtype.element_ty), mask=mask)


@triton.jit
def gelu_rows_kernel(x, out, scale, width, BLOCK: tl.constexpr, LARGEST: tl.constexpr, TINY: tl.constexpr):
    """GELU of one row of `width` numbers a program, divided by its scale: the largest answer becomes LARGEST."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    found = _gelu(tl.load(x + row * width + at, mask=mask, other=0.0).to(tl.float32))
    found = found.to(x.dtype.element_ty).to(tl.float32)  # rounded as the layer's own output would be
    own = tl.maximum(tl.max(tl.abs(found), 0), TINY) / LARGEST
    found = tl.minimum(tl.maximum(found / own, -LARGEST), LARGEST)
    tl.store(out + row * width + at, found.to(out.dtype.element_ty), mask=mask)
    tl.store(scale + row, own)
