"""Whether two servers gave the same masks of the same images."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass

from profiler_kit.errors import InputError, RunFormatError
from profiler_kit.formats.ladder_record import Agreement
from profiler_kit.formats.load_file import LoadFile
from profiler_kit.models.sam.accuracy import ImageMasks, against_baseline, decode


@dataclass(frozen=True)
class Answers:
    """How two loads compare. masks: on the images that both answered. step: the first load that both ran, if there is
    one; latencies: of its answers, nanoseconds, of the baseline and of the other.
    """

    masks: Agreement
    step: str
    latencies: tuple[list[int], list[int]]

    def as_json(self) -> dict[str, object]:
        """As plain values, medians in place of latencies."""
        medians = [statistics.median(one) if one else None for one in self.latencies]
        named = {f"{name}_p50_ns": one for name, one in zip(("baseline", "other"), medians, strict=True)}
        return {**dataclasses.asdict(self.masks), "step": self.step, **named}


def answers_agree(baseline: LoadFile, other: LoadFile) -> Answers:
    """Compare the answers of two loads.

    Raises InputError when they share no image with masks, RunFormatError for masks that are none.
    """
    base, mine = _masks(baseline), _masks(other)
    common = [name for name in base if name in mine]
    if not common:
        raise InputError(
            f"{other.path}: no image with masks that {baseline.path} has too, expected loads of the same images. "
            "Record both with the same --images, at /upload_rle."
        )
    for name in common:
        a, b = base[name], mine[name]
        if a.counts and b.counts and (a.height, a.width) != (b.height, b.width):
            raise InputError(
                f"{other.path}: {name}: masks of {b.width} x {b.height} pixels, expected {a.width} x {a.height} as in "
                f"{baseline.path}. Record both with the same --images."
            )
    found = against_baseline([mine[name] for name in common], [base[name] for name in common], paired=False)
    base_ns, mine_ns = _latencies(baseline), _latencies(other)
    step = next((step for step in base_ns if step in mine_ns), "")
    return Answers(found, step, (base_ns.get(step, []), mine_ns.get(step, [])))


def _latencies(file: LoadFile) -> dict[str, list[int]]:
    """Of the answers of each load, without the first calls."""
    found: dict[str, list[int]] = {}
    for one in file.samples:
        if one.status == 200 and not one.first:
            found.setdefault(one.step, []).append(one.latency_ns)
    return found


def _masks(file: LoadFile) -> dict[str, ImageMasks]:
    found = {}
    for sample in file.samples:
        if sample.masks is None or sample.image in found:
            continue
        sizes = {one.size for one in sample.masks} or {(1, 1)}
        problem = "masks of several sizes" if len(sizes) > 1 else ""
        for one in sample.masks:
            try:
                decode({"size": one.size, "counts": one.counts.encode("ascii")})
            except (ValueError, UnicodeEncodeError) as error:
                problem = f"a mask that is none ({error})"
        if problem:
            raise RunFormatError(f"{file.path}: {sample.image}: {problem}, expected COCO's run lengths of one size.")
        height, width = next(iter(sizes))
        found[sample.image] = ImageMasks(
            sample.image, height, width, tuple(one.counts for one in sample.masks), sample.scores
        )
    return found
