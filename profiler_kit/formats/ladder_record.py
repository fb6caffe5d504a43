"""What a ladder measured: one record a technique, all of them in results.json; needs neither torch nor pandas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from profiler_kit.files import write_json
from profiler_kit.formats.checked import FORMAT, Amount, Count, Positive, Score, Share, Whole, read_as

RESULTS, RESULTS_CSV, ROW, ROWS, LOG, OUTPUTS, SAMPLES, SHARED, WATERFALL = (
    "results.json",
    "results.csv",
    "row.json",
    "rows",
    "log.txt",
    "outputs.pt",  # of one batch, in a row's folder: compared with the baseline's
    "samples",
    ".shared",  # what rows hand on to each other while the ladder runs
    "waterfall.png",
)
BASELINE: Final = "fp32"  # the name of the row without optimizations, which every other is compared with
WHAT: Final = "results of profiler-kit ladder"
HINT: Final = "Measure one with: profiler-kit ladder --out DIR"
NO_MASKS: Final = "no masks"
FEWEST_MASKS: Final = 5  # an image: fewer say little about how well a row segments
Status = Literal["ok", "failed", "timeout", "oom", "skipped"]


@dataclass(frozen=True)
class Truth:
    """Masks against the true ones. A mean over true masks, each with its prompt's mask (or the best one generated).

    small, medium, large: the same over true masks of at most 32**2 - 1, at most 96**2 - 1 and more pixels. None where
    there is none. categories: how many masks each annotated category has, and the same over them.
    """

    masks: Count
    miou: Share | None
    small: Share | None
    medium: Share | None
    large: Share | None
    counts: tuple[Count, Count, Count]
    categories: Mapping[str, tuple[Count, Share]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """Masks against those of the baseline on the same images.

    miou: mean over the baseline's masks, each with its partner's (0 without one). strict_miou: mean over the images
    whose number of masks is the baseline's, None when there is no such image; count_mismatch: the other images.
    match_mismatch: images in which a mask of either side has no partner of IoU 0.5 or more.
    """

    images: Count
    masks: Count
    miou: Share | None
    strict_miou: Share | None
    count_mismatch: Count
    match_mismatch: Count


@dataclass(frozen=True)
class Work:
    """What the published model does for one batch: FLOP, and bytes its operators read and write in float32."""

    flop: Count
    bytes: Count


@dataclass(frozen=True)
class RowResult:
    """One technique. Times are nanoseconds, sizes bytes; what was not measured is empty, 0 or None.

    parameters: of the whole model. phases_ns: load, compile_cold, compile_warm, warmup, steady. latency_ns: raw
    samples, one a batch (for task amg one an image). first_ns: the first call of the process. peak_memory_bytes:
    after a reset before the timed batches; of torch's allocator on a GPU, of the process (resident set) on a CPU.
    peak_reserved_bytes: likewise what the allocator held from the driver, to which the pools of CUDA graphs belong.
    fitted_batch_size: when memory ran out, the batch size that did fit. traces: the run folder below the ladder's.
    masks, truth, agreement: of a model that makes masks. scores: how far the outputs of any other agree with the
    baseline's (relative_error, cosine; None: no number).
    error and notes name files from the ladder's folder on.
    """

    technique: str
    optimizations: tuple[str, ...]
    status: Status
    error: str = ""
    dtype: str = ""
    weights: str = ""
    batch_size: Count = 0
    image_size: Count = 0
    parameters: Count = 0
    phases_ns: Mapping[str, Count] = dataclasses.field(default_factory=dict)
    latency_ns: tuple[Positive, ...] = ()
    first_ns: Count | None = None
    peak_memory_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None
    total_memory_bytes: Count | None = None
    fitted_batch_size: Count | None = None
    masks: Count = 0
    truth: Truth | None = None
    agreement: Agreement | None = None
    scores: Mapping[str, Score | None] = dataclasses.field(default_factory=dict)
    work: Work | None = None
    traces: str | None = None
    wall_s: Amount = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError when there are samples of batches without a size."""
        if self.latency_ns and not self.batch_size:
            raise ValueError("`batch_size` is 0 beside samples in `latency_ns`")


@dataclass(frozen=True)
class Round:
    """The baseline measured again, in a process of its own. rows: those measured since it was measured last.

    latency_ns: raw samples, none when it failed. Without rows it begins the rest of a ladder that was cut short.
    """

    rows: tuple[str, ...] = ()
    latency_ns: tuple[Positive, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Ceilings:
    """What the device can do, measured in the same run: matrix products by dtype, and a copy (read plus written)."""

    matrix_tflops: Mapping[str, Amount]
    copy_gb_per_s: Amount
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """What all rows have in common; `--resume` needs it unchanged.

    workload: the spec of a user's ("mine.py:workload"). family: what kind of model, before its name. unit: what a batch
    is counted in. For a model that makes masks: task: points, boxes, amg, single-point or multi-point; images:
    "generated:<seed>", or a folder or file; batch_size is 1 for the last three; batches of amg are of points_per_batch
    points, and its thresholds the generator's own if None. multimask: of a box three masks, of
    which the one with the highest predicted IoU counts. annotated: boxes and areas as COCO's json has them, not those
    of the masks' pixels. crowds: annotations of crowds count too.
    """

    model: str
    weights: str
    seed: Whole
    task: str
    batch_size: Positive
    device: str
    images: str
    num_images: Count
    warmup: Count
    iterations: Count
    points_per_side: Count
    points_per_batch: Count
    traces: bool
    workload: str = ""
    family: str = "SAM"
    unit: str = "images"
    multimask: bool = False
    annotated: bool = False
    crowds: bool = False
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None


@dataclass(frozen=True)
class LadderRecord:
    """results.json: the rows in order, the baseline first; rows that are still to run are missing.

    steps: the techniques that the waterfall climbs over, the others are alternatives. rounds: the baseline measured
    again, in the order of time; its first measurement is its row.
    """

    setup: Setup
    rows: tuple[RowResult, ...]
    steps: tuple[str, ...]
    device_name: str
    versions: Mapping[str, str]
    git_commit: str | None
    command: str
    created: str
    min_miou: Amount | None = None
    ceilings: Ceilings | None = None
    rounds: tuple[Round, ...] = ()
    format: Count = FORMAT

    def row(self, technique: str) -> RowResult | None:
        """The row of that name."""
        return next((row for row in self.rows if row.technique == technique), None)

    @property
    def baseline(self) -> RowResult | None:
        """The row without optimizations, when it was measured."""
        row = self.rows[0] if self.rows else None
        return row if row is not None and row.status == "ok" else None


def write_record(path: Path, record: LadderRecord | RowResult | Ceilings) -> None:
    """Write a record as JSON, whole or not at all."""
    write_json(path, dataclasses.asdict(record))


def read_ladder(path: Path) -> LadderRecord:
    """Read results.json, or that of a ladder's folder.

    Raises InputError when there is none, RunFormatError when it is not such a record.
    """
    return read_as(path / RESULTS if path.is_dir() else path, LadderRecord, WHAT, HINT)


def too_few_masks(masks: int, images: int) -> str:
    """What to say beside a metric that rests on so many masks of so many images; "" where they are enough."""
    if masks >= FEWEST_MASKS * images:
        return ""
    return "too few masks to judge" if masks else NO_MASKS


def is_compiled(optimizations: Iterable[str]) -> bool:
    """Whether one of these names compiles the model or loads a compiled one."""
    return any(name.startswith(("compile", "aot")) for name in optimizations)


def as_one_compiler(optimizations: Iterable[str]) -> frozenset[str]:
    """The names as a set in which every way of compiling is called the same."""
    return frozenset("compile" if is_compiled((name,)) else name for name in optimizations)


def slug(technique: str) -> str:
    """A technique's name as the name of a folder."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "_" for c in technique).lstrip(".")
    return plain[:80] or "row"


def climb(rows: list[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Which of the rows (name, optimizations) are steps of one ladder: each holds all optimizations of the one before.

    The ways of compiling count as one. The longest such chain from the first row on; it ends below rows of which either
    one could be its last: those are alternatives (int8 or fp8 on top of the same step), and so is every row beside it.
    """
    sets = [as_one_compiler(optimizations) for _, optimizations in rows]
    longest = [1] * len(rows)  # of the chains that start at each row
    for at in reversed(range(len(rows))):
        onward = [longest[to] for to in range(at + 1, len(rows)) if sets[to] > sets[at]]
        longest[at] = 1 + max(onward, default=0)
    chain = [0] if rows else []
    while chain:
        onward = [to for to in range(chain[-1] + 1, len(rows)) if sets[to] > sets[chain[-1]]]
        best = [to for to in onward if longest[to] == longest[chain[-1]] - 1]
        if not best or (len(best) > 1 and longest[best[0]] == 1):
            break
        chain.append(best[0])
    return tuple(rows[at][0] for at in chain)
