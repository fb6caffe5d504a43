"""run.json: what ran, on what, and how long it took; written by the capture side, read by everything else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from profiler_kit.errors import RunFormatError
from profiler_kit.files import require_file, write_json
from profiler_kit.later import shown

FORMAT: Final = 1
RECORD, TRACE, MEMORY, MEMORY_TRACE, LAYERS, MASKS = (
    "run.json",
    "trace.json.gz",
    "memory.pickle",
    "memory_trace.json.gz",  # of the batch that memory.pickle is of: kernels and memory on one clock
    "layers.parquet",
    "masks.json",
)


@dataclass(frozen=True)
class RunRecord:
    """One run. Times are nanoseconds, sizes bytes.

    weights: "checkpoint:<sha256>" or "random:<seed>". phases_ns: load, compile_cold, warmup, steady (wall time
    of each; compile_cold is 0 when nothing was compiled). latency_ns: one sample per timed iteration, that is
    per batch. peak_memory_bytes, peak_reserved_bytes: torch.cuda.max_memory_allocated and max_memory_reserved after a
    reset before the timed iterations, missing on a CPU. image_size: side in pixels, 0 for what takes no images.
    workload: what the model adds: its spec ("mine.py:workload"), the unit of a batch, where its images came from.
    """

    name: str
    created: str
    model: str
    weights: str
    optimizations: tuple[str, ...]
    batch_size: int
    image_size: int
    dtype: str
    device: str
    device_name: str
    versions: Mapping[str, str]
    warmup_iterations: int
    timed_iterations: int
    phases_ns: Mapping[str, int]
    latency_ns: tuple[int, ...]
    peak_memory_bytes: int | None
    command: str
    git_commit: str | None
    peak_reserved_bytes: int | None = None
    workload: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: int = field(default=FORMAT)

    @property
    def unit(self) -> str:
        """What a batch is counted in."""
        return str(self.workload.get("unit", "images"))

    @property
    def batch(self) -> str:
        """The batch in words: `2 images of 1024 px`."""
        unit = self.unit.removesuffix("s") if self.batch_size == 1 else self.unit
        return f"{self.batch_size} {unit}" + (f" of {self.image_size} px" if self.image_size else "")

    def _repr_html_(self) -> str:
        """What ran, for a notebook."""
        return shown("record_card", self)

    def write(self, folder: Path) -> None:
        """Write `run.json` into the folder, whole or not at all."""
        write_json(folder / RECORD, dataclasses.asdict(self))


def read_record(folder: Path) -> RunRecord:
    """Read `run.json` of a run folder; keys this version does not know are ignored.

    Raises RunFormatError when the file is missing, is no JSON object, lacks a key, or is of a newer format.
    """
    hint = "Record a run with: profiler-kit capture --out DIR"
    path = require_file(folder / RECORD, "the record of a run", hint)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunFormatError(f"{path}: not JSON ({error}), expected the record of a run. {hint}") from error
    if not isinstance(data, dict):
        raise RunFormatError(f"{path}: top level is {type(data).__name__}, expected an object. {hint}")
    known = {f.name: f for f in dataclasses.fields(RunRecord)}
    missing = [
        n
        for n, f in known.items()
        if n not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RunFormatError(f"{path}: key {missing[0]!r} is missing, found {sorted(data)}. {hint}")
    written = data.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise RunFormatError(
            f"{path}: format {written}, expected {FORMAT} or less: it was written by a newer profiler_kit. Update this "
            "one."
        )
    values = {key: value for key, value in data.items() if key in known}
    record = _typed(path, values)
    older = {key: data[key] for key in ("images", "prompts") if data.get(key)}  # as it was before there was `workload`
    return dataclasses.replace(record, workload={**older, **record.workload}) if older else record


def _typed(path: Path, values: dict[str, object]) -> RunRecord:
    """Check each value against the kind of its field; lists become tuples."""
    for key, kind in _KINDS.items():
        if key in values and not isinstance(values[key], kind):
            raise RunFormatError(
                f"{path}: {key} is {values[key]!r}, expected {' or '.join(k.__name__ for k in kind)}. "
                "Write the file again with profiler-kit capture, or correct the value."
            )
    for key in ("optimizations", "latency_ns", "notes"):
        if key in values:
            values[key] = tuple(cast("list[object]", values[key]))
    return RunRecord(**values)  # type: ignore[arg-type]  # checked one by one above


_NUMBER: Final = (int,)
_TEXT: Final = (str,)
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("batch_size", "image_size", "warmup_iterations", "timed_iterations", "format"), _NUMBER),
    **dict.fromkeys(("name", "created", "model", "weights", "dtype", "device", "device_name", "command"), _TEXT),
    **dict.fromkeys(("optimizations", "latency_ns", "notes"), (list,)),
    **dict.fromkeys(("versions", "phases_ns", "workload"), (dict,)),
    **dict.fromkeys(("peak_memory_bytes", "peak_reserved_bytes"), (int, type(None))),
    "git_commit": (str, type(None)),
}
