"""What got slower or faster between two runs, and how their memory changed, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.compare.measurements import STEP
from profiler_kit.analyses.compare.snapshots import PEAK, MemoryChange, MemoryComparison
from profiler_kit.analyses.compare.traces import LATENCY, Change, Comparison
from profiler_kit.analyses.gpu.regions import HOLDS
from profiler_kit.analyses.gpu.utilization import STARVED
from profiler_kit.finding import Evidence, Finding, Level, Piece, bold, say
from profiler_kit.findings import memory
from profiler_kit.findings.devices import holds_memory
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.snapshot import Snapshot
from profiler_kit.text import MISSING, byte_unit, fmt_bytes, fmt_ns, fmt_path, fmt_percent, time_unit

Records = tuple[RunRecord | None, RunRecord | None]
AS_FACTOR: Final = 1.5  # from here on "2.1 × faster" reads better than "-52 %"
FUNCTIONS: Final = 2  # of a stack's key, the innermost, that a sentence names
_FACTS: Final = ("model", "weights", "optimizations", "dtype", "batch_size", "image_size", "device_name", "images")
_WORK: Final = ("model", "image_size", "device_name")  # what a difference in time is not to be compared across unsaid


def of_comparison(found: Comparison, records: Records = (None, None), *, b: str = "B") -> list[Finding]:
    """What is different in B, the most important first. b: what the second run is called."""
    devices, settings = _devices(found, records, b), _settings(records)
    # what says that these times may be of other work comes before a difference of them
    first = [settings] if settings.level == "warning" else []
    other = devices is not None or (settings.level == "warning" and _other_work(found, records))
    parts = (_both,) if other else (_headline, _where, _waiting)
    last = [_memory(records), *([] if first else [settings]), _basis(found, b)]
    said = [devices, *first, *(part(found, records, b) for part in parts), *last]
    return [one for one in said if one is not None]


def _other_work(found: Comparison, records: Records) -> bool:
    """Whether records say so; without them, whether there are regions, and none but the repeated one in both traces."""
    if None not in records:
        return True
    rows = [row for row in found.of("region") if row.path != (found.round,)]
    return bool(rows) and not any(row.a and row.b for row in rows)


def ratio(change: float | None) -> str:
    """`+4.8 %`, `3.09 × faster`, of B / A - 1; without asking the noise."""
    if change is None:
        return MISSING
    factor = 1 + change
    if factor >= AS_FACTOR:
        return f"{factor:,.2f} × slower"
    if 0 < factor <= 1 / AS_FACTOR:
        return f"{1 / factor:,.2f} × faster"
    return f"{change * 100:+.1f} %"


def changed(row: Change | MemoryChange) -> str:
    """The change in words: `+4.8 %`, `3.09 × faster`, `same`, `new`, `gone`."""
    fixed = {"added": "new", "removed": "gone", "same": "same"}.get(row.status)
    if fixed or row.change is None:
        return fixed or MISSING
    return ratio(row.change) if isinstance(row, Change) else f"{row.change * 100:+.1f} %"


def from_to(row: Change | MemoryChange) -> str:
    """`91.828 → 29.681 ms`, in one unit."""
    if isinstance(row, Change):
        unit = time_unit([side.value_ns for side in (row.a, row.b) if side])
        a, b = (fmt_ns(side.value_ns if side else None, unit) for side in (row.a, row.b))
        return f"{a.removesuffix(unit).strip()} → {b}"
    a, b = memory_cells(row)
    return f"{a.rsplit(' ', 1)[0]} → {b}" if row.a_bytes is not None and row.b_bytes is not None else f"{a} → {b}"


def memory_cells(row: MemoryChange) -> tuple[str, str]:
    """Both sizes in one unit."""
    unit = byte_unit([size for size in (row.a_bytes, row.b_bytes) if size is not None])
    return fmt_bytes(row.a_bytes, unit), fmt_bytes(row.b_bytes, unit)


def noise(row: Change) -> str:
    """`± 0.092 ms`; `unknown` when both sides ran once."""
    return "unknown" if row.noise_ns is None else f"± {fmt_ns(row.noise_ns)}"


def _finding(one: str, *said: str | Piece, level: Level = "note", **more: object) -> Finding:
    return Finding(one, "change", say(*said), level, **more)  # type: ignore[arg-type]  # fields of a Finding


def _devices(found: Comparison, records: Records, b: str) -> Finding | None:
    """That a run on a GPU is compared with one on none, which all other sentences are to be read by."""
    first, second = records
    if first is not None and second is not None:
        kinds = [record.device.partition(":")[0] for record in (first, second)]
        names = [record.device_name for record in (first, second)]
        differ = kinds[0] != kinds[1]
    else:
        busy = next((row for row in found.of("total") if row.path[0] == "GPU busy"), None)
        names = ["a GPU" if busy and side else "none" for side in ((busy.a, busy.b) if busy else (None, None))]
        differ = names[0] != names[1]
    if not differ:
        return None
    said = f"A ran on {names[0]}, {b} on {names[1]}: what follows compares two kinds of device."
    return _finding("change-devices", said, level="warning")


def not_compared(letters: Sequence[str]) -> Finding | None:
    """Which runs have no trace; None where all have one."""
    if not letters:
        return None
    what = f"{letters[0]} has" if len(letters) == 1 else f"{', '.join(letters[:-1])} and {letters[-1]} have"
    said = f"{what} no trace: regions, kernels and operators cannot be compared with it."
    return _finding("no-trace-to-compare", said if len(letters) == 1 else said.replace("with it", "with them"))


NOTHING_OF_THAT_KIND: Final = _finding("nothing-of-that-kind", "These runs hold nothing of that kind.")
DIFFERENT_ROUNDS: Final = _finding(
    "different-rounds",
    "These runs repeat different things: some are compared per step, others per region or in total.",
    level="warning",
)


_NO_TIME: Final = _finding("nothing-to-compare", "Nothing to compare: the traces share no time.", level="warning")


def _whole(found: Comparison, records: Records) -> tuple[Change, str] | None:
    """The row of what took longest of all that was measured, and what it is of; None where they share no time."""
    totals = {row.path[0]: row for row in found.of("total")}
    row = totals.get(LATENCY) or totals.get("round") or totals.get("GPU busy") or totals.get("trace")
    if row is None or row.a is None or row.b is None:
        return None
    first, second = records
    same = first is not None and second is not None and first.batch_size == second.batch_size
    batch = f"a batch of {first.batch_size} {first.unit}" if first and same else "one item of the batch"
    what = {
        LATENCY: f"{batch}, without the profiler",
        "round": "a step" if found.round == STEP else f"a {found.round}",
        "GPU busy": "in all",
        "trace": "from first to last event",
    }[row.path[0]]
    return row, what


def _both(found: Comparison, records: Records, b: str) -> Finding | None:
    """How long each took, of runs of other work: none is faster."""
    whole = _whole(found, records)
    if whole is None:
        return _NO_TIME
    row, what = whole
    unit = time_unit([side.value_ns for side in (row.a, row.b) if side])
    first, second = (fmt_ns(side.value_ns if side else None, unit) for side in (row.a, row.b))
    evidence = Evidence("diff_totals", {"path": (row.path,)})
    return _finding("change", f"A: {first}, {b}: {second}, {what} (noise {noise(row)}).", evidence=evidence)


def _headline(found: Comparison, records: Records, b: str) -> Finding | None:
    whole = _whole(found, records)
    if whole is None:
        return _NO_TIME
    row, what = whole
    # of traces that repeat nothing together it is not known that they did the same: neither is said to be faster
    takes, much, more, less = {
        "GPU busy": ("holds", "as much GPU work as", "more GPU work", "less GPU work"),
        "trace": ("is", "as long as", "longer", "shorter"),
    }.get(row.path[0], ("takes", "as long as", "longer", "less time"))
    if row.status == "same":
        said = f"{b} {takes} {much} A"
    elif row.change is not None and 1 / AS_FACTOR < 1 + row.change < AS_FACTOR:
        said = f"{b} {takes} {abs(row.change) * 100:.1f} % {more if row.change > 0 else less} than A"
    elif takes == "takes":
        said = f"{b} is {ratio(row.change)} than A"
    else:
        said = f"{b} {takes} {ratio(row.change).replace('slower', more).replace('faster', less)} than A"
    evidence = Evidence("diff_totals", {"path": (row.path,)})
    return _finding("change", f"{said}: {from_to(row)} {what} (noise {noise(row)}).", evidence=evidence)


def _where(found: Comparison, records: Records, b: str) -> Finding | None:
    """The innermost region that holds most of the change of GPU (else host) time."""
    rows = [row for row in found.of("region", found.metric) if row.a and row.b and row.status in ("slower", "faster")]
    whole = next((row.delta_ns for row in found.of("total") if row.path[0] == "GPU busy"), 0.0)
    if found.metric == "host":
        whole = next((row.delta_ns for row in found.of("total", "wall")), 0.0)
    best: Change | None = None
    while True:
        below = [row for row in rows if row.path[:-1] == (best.path if best else ())]
        around = best.delta_ns if best else whole
        share = [row.delta_ns / around for row in below if around]
        if not share or max(share) < HOLDS:
            break
        best = below[share.index(max(share))]
    if best is None or best.path == (found.round,):
        return None
    what = "GPU" if found.metric == "gpu" else "Host"
    return _finding(
        "change-where",
        f"{what} time changed most in ",
        bold(fmt_path(best.path)),
        f": {from_to(best)} ({ratio(best.change)}).",
        where=best.path,
        evidence=Evidence("diff_regions", {"path": (best.path,)}),
    )


def _waiting(found: Comparison, records: Records, b: str) -> Finding | None:
    """Say so when the GPU work of B takes little of its time, and less than that of A."""
    totals = {row.path[0]: row for row in found.of("total")}
    step, busy = totals.get("round") or totals.get("trace"), totals.get("GPU busy")
    if step is None or busy is None or not (step.a and step.b and busy.a and busy.b):
        return None
    if not (step.a.value_ns and step.b.value_ns):  # what is recorded took no time
        return None
    share_a, share_b = busy.a.value_ns / step.a.value_ns, busy.b.value_ns / step.b.value_ns
    if 1 - share_b < STARVED or share_b > share_a:
        return None
    # not the busy share of a recording: what was launched in a round may run after it, other work in it
    one = "step" if found.round == STEP else found.round
    what = f"GPU work launched in a {one} takes" if one else "GPU work takes"
    of = f"the {one}" if one else "the time from first to last event, on the host too"
    return _finding(
        "change-busy",
        f"In {b} {what} {fmt_percent(share_b, 0)} of {of} ({fmt_percent(share_a, 0)} in A): look at launches and "
        "copies next.",
    )


def _memory(records: Records) -> Finding | None:
    a, b = (record.peak_memory_bytes if record else None for record in records)
    if a is None or b is None:
        return None
    return _finding("change-memory", f"Peak memory: {fmt_bytes(a)} → {fmt_bytes(b)}.")


def _settings(records: Records) -> Finding:
    """What was set differently; a warning where the work or the device is another, or that is not known."""
    first, second = records
    if first is None or second is None:
        said = "Whether both ran the same model is unknown: not every run has a run.json."
        return _finding("change-settings", said, level="warning")
    differ, other = [], False
    for name in _FACTS:
        values = [getattr(record, name, record.workload.get(name, "")) for record in (first, second)]
        if values[0] != values[1]:
            texts = [", ".join(v) or "none" if isinstance(v, tuple) else str(v) for v in values]
            differ.append(f"{name.replace('_', ' ')} {texts[0]} → {texts[1]}")
            other |= name in _WORK
    torch = [record.versions.get("torch", "") for record in (first, second)]
    differ += [f"torch {torch[0]} → {torch[1]}"] if torch[0] != torch[1] else []
    alike = "Same settings: model, optimizations, sizes, device, torch."
    said = f"Different settings: {'; '.join(differ)}." if differ else alike
    if other:
        said += " These are not times of the same work on the same device."
    return _finding("change-settings", said, level="warning" if other else "note")


def _basis(found: Comparison, b: str) -> Finding:
    if found.round is None:
        said = (
            "The traces share no ProfilerSteps and no repeated outermost region: regions are compared per instance, "
            "kernels and operators in total."
        )
    elif found.rounds == (1, 1):
        said = f"Times are of one {found.round} each, so the noise is unknown."
    else:
        first, second = found.rounds
        samples = f"{first}" if first == second else f"{first} (A) and {second} ({b})"
        said = f"Times are per {found.round}: medians of {samples}."
    return _finding("change-basis", said)


def of_memory(found: MemoryComparison, sides: Sequence[tuple[str, Snapshot]]) -> list[Finding]:
    """How the peaks of two snapshots differ, what held more (or less) at them, and what their histories lack.

    sides: the snapshots by their letters.
    """
    said: list[Finding] = []
    devices = sorted({row.device for row in found.changes})
    for device in devices:
        where, end = (f" on device {device}", f"-device-{device}") if len(devices) > 1 else ("", "")
        peak = next(row for row in found.of("total") if row.device == device and row.path == (PEAK,))
        if peak.a_bytes is None or peak.b_bytes is None:
            side, size = "B" if peak.a_bytes is None else "A", peak.b_bytes if peak.a_bytes is None else peak.a_bytes
            both = all(device in one.devices for _, one in sides)
            known = (
                f"a peak of device {device}: {fmt_bytes(size)}"
                if both
                else f"device {device}: its peak is {fmt_bytes(size)}"
            )
            said += [_finding(f"change-peak{end}", f"Only {side} knows {known}.")] if size is not None else []
        elif peak.status == "same" and peak.a_bytes:
            said.append(_finding(f"change-peak{end}", f"The peak is the same{where}: {fmt_bytes(peak.a_bytes)}."))
        elif peak.a_bytes or peak.b_bytes:
            verb = "grew" if peak.delta_bytes > 0 else "shrank"
            said.append(
                _finding(f"change-peak{end}", bold(f"The peak {verb}{where}"), f": {from_to(peak)} ({changed(peak)}).")
            )
            rows = [row for row in found.of("stack") if row.device == device and row.delta_bytes * peak.delta_bytes > 0]
            if rows:  # the stacks that went the way of the peak, the largest change first
                word = {"added": " (new)", "removed": " (gone)"}.get(rows[0].status, "")
                stack = f"{fmt_path(rows[0].path[-FUNCTIONS:])}{word}"
                said.append(
                    _finding(f"change-stack{end}", f"Most of it: {stack}, {from_to(rows[0])} live at the peak.")
                )
    for letter, held in sides:
        for row in held.summary()["devices"]:
            lacks = [memory.history(held, row["device"]), memory.completed(held, row["device"])]
            for one in lacks if holds_memory(row) else ():
                if one is not None:
                    said.append(_finding(f"{one.id}-{letter}", f"{letter}: {one.sentence}", level="warning"))
    return said or [_finding("no-memory", "Neither snapshot holds any memory.", level="warning")]
