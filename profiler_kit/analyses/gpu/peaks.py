"""What a GPU can do at most: dense operations per second by dtype, and bytes per second of its memory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiler_kit.errors import InputError
from profiler_kit.files import require_file

DTYPES: Final = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")


@dataclass(frozen=True)
class Peaks:
    """tflop_per_s: of matrix products by dtype, without sparsity; fp32 is what other operators compute with."""

    name: str
    tflop_per_s: Mapping[str, float]
    tb_per_s: float


# TFLOP/s of fp64, fp32 (without tensor cores), tf32, bf16 and fp16, fp8 (0: has none), int8, and TB/s, per device as
# the trace counts them (an MI250 is two), dense: where a sheet gives numbers with sparsity, half of them. The first
# pattern that the device's name matches counts. Sheets, as of their last revision:
# A100 (nvidia-a100-datasheet), H100 (nvidia-h100-datasheet), H200 (hpc-datasheet-sc23-h200), B200 (HGX B200, an eighth
# of the board), L4 (l4-datasheet), L40S (l40s-datasheet), RTX 4090 (Ada architecture white paper, appendix A: with fp32
# accumulation), MI250, MI250X and MI300X (AMD's data sheets).
_SHEETS: Final = (
    ("A100.*(80GB PCIe)", (19.5, 19.5, 156, 312, 0, 624), 1.935),
    ("A100.*80GB", (19.5, 19.5, 156, 312, 0, 624), 2.039),
    ("A100", (19.5, 19.5, 156, 312, 0, 624), 1.555),
    ("H100 NVL", (60, 60, 417.5, 835.5, 1670.5, 1670.5), 3.9),
    ("H100 PCIe", (51, 51, 378, 756, 1513, 1513), 2.0),
    ("H100", (66.9, 66.9, 494.7, 989.4, 1978.9, 1978.9), 3.35),
    ("H200 NVL", (60, 60, 417.5, 835.5, 1670.5, 1670.5), 4.8),
    ("H200", (66.9, 66.9, 494.7, 989.4, 1978.9, 1978.9), 4.8),
    (r"\bB200", (37, 75, 1125, 2250, 4500, 4500), 8.0),
    ("L40S", (1.4, 91.6, 183, 362, 733, 733), 0.864),
    (r"\bL4\b", (0.5, 30.3, 60, 121, 242, 242), 0.3),
    ("RTX 4090", (1.3, 82.6, 82.6, 165.2, 330.3, 660.6), 1.008),
    ("MI250X", (47.9, 23.95, 0, 191.5, 0, 191.5), 1.6384),
    ("MI250", (45.3, 22.65, 0, 181.05, 0, 181.05), 1.6384),
    ("MI300X", (163.4, 163.4, 653.7, 1307.4, 2614.9, 2614.9), 5.3),
)
_DTYPES: Final = {
    "double": "fp64", "float": "fp32", "c10::BFloat16": "bf16", "c10::Half": "fp16", "signed char": "int8",
    "char": "int8", "unsigned char": "int8",
}  # fmt: skip
_TF32: Final = re.compile(r"tf32|s1688gemm", re.IGNORECASE)  # in the names of tensor-core kernels
_LADDER: Final = {"float32": "fp32", "tf32": "tf32", "bfloat16": "bf16", "float16": "fp16"}


def peaks_of(device_name: str) -> Peaks | None:
    """The data sheet of a device of that name; None for one that is not in the table."""
    for pattern, (fp64, fp32, tf32, half, fp8, int8), tb_per_s in _SHEETS:
        if re.search(pattern, device_name):
            rates = dict(zip(DTYPES, (fp64, fp32, tf32, half, half, fp8, int8), strict=True))
            return Peaks(device_name, {dtype: rate for dtype, rate in rates.items() if rate}, tb_per_s)
    return None


def peak_dtype(dtype: str, kernel: str) -> str:
    """The key of the peak that a matrix product in that dtype can reach; kernel: the one that ran."""
    if dtype == "float" and _TF32.search(kernel):
        return "tf32"
    return "fp8" if dtype.startswith("c10::Float8_") else _DTYPES.get(dtype, "")


def read_peaks(path: str) -> Peaks:
    """Peaks from a JSON file, {"bf16": 800, "tb_per_s": 4.3}, or those that a ladder measured (its results.json).

    Raises InputError when the file is missing or holds neither.
    """
    file = require_file(path, "a file of peaks", "Write one: " + _EXAMPLE)
    try:
        data: Any = json.loads(Path(file).read_bytes())
    except (ValueError, RecursionError):
        data = None
    found = data if isinstance(data, dict) else {}
    ceilings = found.get("ceilings")
    if isinstance(ceilings, dict) and isinstance(ceilings.get("matrix_tflops"), dict):
        rates = {_LADDER.get(name, name): rate for name, rate in ceilings["matrix_tflops"].items()}
        found = {**rates, "tb_per_s": _thousandth(ceilings.get("copy_gb_per_s"))}
    numbers = {name: rate for name, rate in found.items() if name in (*DTYPES, "tb_per_s")}
    wrong = [name for name, rate in numbers.items() if type(rate) not in (int, float) or not 0 < rate < 1e9]
    if wrong or not {"tb_per_s"} < set(numbers):
        what = f"{wrong[0]} = {json.dumps(numbers[wrong[0]])[:40]}" if wrong else "no peaks"
        raise InputError(
            f"{file}: found {what}, expected TFLOP/s by dtype ({', '.join(DTYPES)}) and tb_per_s. Try: {_EXAMPLE}"
        )
    bandwidth = float(numbers.pop("tb_per_s"))
    return Peaks(str(path), {name: float(rate) for name, rate in numbers.items()}, bandwidth)


_EXAMPLE: Final = '{"bf16": 989, "fp32": 67, "tb_per_s": 3.35}'


def _thousandth(rate: object) -> object:
    return rate / 1000 if isinstance(rate, int | float) else rate
