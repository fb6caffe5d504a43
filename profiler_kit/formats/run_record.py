"""run.json: what ran, on what, and how long it took; written by the capture side, read by everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from profiler_kit.files import write_json
from profiler_kit.formats.checked import FORMAT, Count, Positive, read_as
from profiler_kit.later import shown

RECORD, TRACE, MEMORY, MEMORY_TRACE, GRAPH_TRACE, LAYERS, MASKS, REQUESTS = (
    "run.json",
    "trace.json.gz",
    "memory.pickle",
    "memory_trace.json.gz",  # of the batch that memory.pickle is of: kernels and memory on one clock
    "graph_trace.json.gz",  # of a batch whose CUDA graphs ran kernel by kernel: the operators of replayed kernels
    "layers.parquet",
    "masks.json",
    "requests.parquet",
)


@dataclass(frozen=True)
class RunRecord:
    """One run. Times are nanoseconds, sizes bytes.

    weights: "checkpoint:<sha256>" or "random:<seed>". phases_ns: load, compile_cold, warmup, steady (wall time
    of each; compile_cold is 0 when nothing was compiled). latency_ns: one sample per timed iteration, that is
    per batch. peak_memory_bytes, peak_reserved_bytes: torch.cuda.max_memory_allocated and max_memory_reserved after a
    reset before the timed iterations, missing on a CPU. snapshot_peak_bytes: the highest total of requested bytes held
    by CPU tensors in memory.pickle, where that tells it exactly; missing on a GPU and in older runs. image_size: side
    in pixels, 0 for what takes no images. workload: what the model adds: its spec ("mine.py:workload"), the unit of a
    batch, where its images came from.
    """

    name: str
    created: str
    model: str
    weights: str
    optimizations: tuple[str, ...]
    batch_size: Positive
    image_size: Count
    dtype: str
    device: str
    device_name: str
    versions: Mapping[str, str]
    warmup_iterations: Count
    timed_iterations: Count
    phases_ns: Mapping[str, Count]
    latency_ns: tuple[Count, ...]
    peak_memory_bytes: Count | None
    command: str
    git_commit: str | None
    peak_reserved_bytes: Count | None = None
    snapshot_peak_bytes: Count | None = None
    workload: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: Count = FORMAT

    @property
    def unit(self) -> str:
        """What a batch is counted in."""
        return str(self.workload.get("unit", "images"))

    @property
    def batch(self) -> str:
        """The batch in words: `2 images of 1024 px`."""
        unit = self.unit.removesuffix("s") if self.batch_size == 1 else self.unit
        return f"{self.batch_size} {unit}" + (f" of {self.image_size} px" if self.image_size else "")

    @property
    def peak_bytes(self) -> int | None:
        """The peak of the timed iterations; on a CPU, where torch counts none, that of the snapshot."""
        return self.peak_memory_bytes if self.peak_memory_bytes is not None else self.snapshot_peak_bytes

    def _repr_html_(self) -> str:
        """What ran, for a notebook."""
        return shown("record_card", self)

    def write(self, folder: Path) -> None:
        """Write `run.json` into the folder, whole or not at all."""
        write_json(folder / RECORD, dataclasses.asdict(self))


@dataclass(frozen=True)
class _Written(RunRecord):
    """As it was before there was `workload`, too."""

    images: object = None
    prompts: object = None


def read_record(folder: Path) -> RunRecord:
    """Read `run.json` of a run folder; keys this version does not know are ignored.

    Raises InputError when the file is missing, RunFormatError when it is not such a record, with what is wrong in it.
    """
    hint = "Record a run with: profiler-kit capture --out DIR"
    found = read_as(folder / RECORD, _Written, "the record of a run", hint)
    values = {one.name: getattr(found, one.name) for one in dataclasses.fields(RunRecord)}
    older = {name: value for name in ("images", "prompts") if (value := getattr(found, name))}
    return RunRecord(**{**values, "workload": {**older, **found.workload}})
