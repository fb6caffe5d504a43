"""What ran, and what ladders and studies say, in a sentence each."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from profiler_kit.errors import KitError
from profiler_kit.finding import Evidence, Finding, Piece, bold, counted, say
from profiler_kit.formats.ladder_ratios import NOISE, UNSURE, baseline_medians, drift
from profiler_kit.formats.ladder_record import BASELINE, FEWEST_MASKS, NO_MASKS, LadderRecord
from profiler_kit.formats.notes_file import Note, read_notes
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.formats.study_file import StudyRecord
from profiler_kit.joined import JoinedRun
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.names import printable
from profiler_kit.run import Run
from profiler_kit.text import fmt_ns, fmt_percent, fmt_rate

PARTS: Final = (
    ("record", "run.json", "what ran, and its latency without the profiler"),
    ("trace", "trace.json.gz", "regions, kernels, operators"),
    ("memory", "memory.pickle", "memory over time, live at the peak"),
    ("layers", "layers.parquet", "time per layer and batch size"),
)


def what_ran(record: RunRecord | None, broken: str | None = None) -> str:
    """The run in one line: model, optimizations, number format, batch, device, torch. broken: what is wrong with it."""
    if broken is not None:
        return "What ran is unknown: run.json cannot be read."
    if record is None:
        return "What ran is unknown: there is no run.json. profiler-kit capture and record_run write one."
    device = record.device_name if record.device_name == record.device else f"{record.device_name} ({record.device})"
    facts = [record.model, *(record.optimizations or ("no optimizations",)), record.dtype]
    facts += [f"batch {record.batch_size}", f"{record.image_size} px" if record.image_size else "", device]
    facts += [f"torch {record.versions['torch']}"] if "torch" in record.versions else []
    return " · ".join(filter(None, facts))


def in_brief(run: RunFolder) -> str:
    """Name, model, optimizations, device and latency, as far as they are known, for a list to choose from."""
    record = run.record
    facts = [run.label if run.key != "." else run.path.name]
    if record is not None:
        facts += [record.model, *record.optimizations, record.device_name]
        facts += [fmt_ns(statistics.median(record.latency_ns))] if record.latency_ns else []
    return printable(" · ".join(filter(None, facts)))


def record_facts(record: RunRecord) -> list[tuple[str, str]]:
    """All that run.json says about what ran: a name and a value each."""
    said = {
        "Model": record.model,
        "Weights": record.weights,
        "Optimizations": ", ".join(record.optimizations) or "none",
        "Batch": ", ".join(filter(None, (record.batch, record.dtype))),
        "Device": f"{record.device_name} ({record.device})",
        "Versions": _versions(record.versions),
        "Iterations": f"{record.timed_iterations} timed after {record.warmup_iterations} of warm-up",
        "Phases": ", ".join(f"{name} {fmt_ns(value)}" for name, value in record.phases_ns.items() if value),
        **{name.capitalize(): str(value) for name, value in record.workload.items() if name not in ("spec", "unit")},
        "Workload": str(record.workload.get("spec", "")),
        "Recorded": record.created,
        "Commit": record.git_commit or "",
        "Command": record.command,
        "Notes": " · ".join(record.notes),
    }
    return [(name, printable(value)) for name, value in said.items() if value]


ASKED: Final = ("multimask", "annotated", "crowds")  # options of a ladder's task


def _rounds(record: LadderRecord) -> str:
    """`fp32; bf16, compile; fp32; int8; fp32`: in which order the baseline and the rows were measured."""
    if not record.rounds:
        return ""
    return "; ".join([BASELINE, *(part for one in record.rounds for part in (", ".join(one.rows), BASELINE) if part)])


def ladder_setup(record: LadderRecord) -> list[tuple[str, str]]:
    """What a ladder ran on: a name and a value each."""
    setup, ceilings = record.setup, record.ceilings
    rates = [f"{name} {fmt_rate(rate)} TFLOP/s" for name, rate in ceilings.matrix_tflops.items()] if ceilings else []
    rates += [f"copy {fmt_rate(ceilings.copy_gb_per_s)} GB/s", *ceilings.notes] if ceilings else []
    points = f", grid {setup.points_per_side}, {setup.points_per_batch} at once" if setup.task == "amg" else ""
    thresholds = [("IoU", setup.pred_iou_thresh), ("stability", setup.stability_score_thresh)]
    points += "".join(f", {name} from {value:g}" for name, value in thresholds if value is not None)
    said = {
        "Model": setup.model,
        "Weights": setup.weights,
        "Task": ", ".join([f"{setup.task}{points}", *(name for name in ASKED if getattr(setup, name))]),
        "Workload": setup.workload,
        "Images": f"{setup.num_images} ({setup.images})" if setup.images else "",
        "Batch": str(setup.batch_size),
        "Batches": f"{setup.iterations} timed after {setup.warmup} of warm-up, each row in a fresh process",
        "Rounds": _rounds(record),
        "Device": f"{record.device_name} ({setup.device})",
        "Measured rates": ", ".join(rates),
        "Versions": _versions(record.versions),
        "Recorded": record.created,
        "Commit": record.git_commit or "",
        "Command": record.command,
        "Notes": " · ".join(f"{row.technique}: {note}" for row in record.rows for note in row.notes),
    }
    return [(name, printable(value)) for name, value in said.items() if value]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def one_iteration(record: RunRecord) -> Finding | None:
    """That the latency is that of one timed iteration; None where there are more."""
    if len(record.latency_ns) != 1:
        return None
    said = say(f"Only one timed iteration: {fmt_ns(record.latency_ns[0])}. Ask for more with --iterations.")
    return Finding("one-iteration", "missing", said)


def about_note(note: Note) -> str:
    """What a note is about and when it was written."""
    at = ", ".join(f"{name} {value}" for name, value in note.at.items())
    return printable(" · ".join(filter(None, (note.page, at, note.created[:16].replace("T", " ")))))


def notes(run: Run) -> list[Finding]:
    """What people wrote about a run, the oldest first."""
    try:
        found = read_notes(run.path) if run.path.is_dir() else ()
    except KitError as error:
        return [Finding("unreadable-notes", "problem", say(str(error)), "error")]
    return [
        Finding(f"note-{number}", "missing", say(f"{' '.join(one.text.split())} ({about_note(one)})"))
        for number, one in enumerate(found, 1)
    ]


def problems(run: Run) -> list[Finding]:
    """The parts of a run that are there but cannot be read."""
    return [
        Finding(f"unreadable-{number}", "problem", say(problem), "error", page="doctor")
        for number, problem in enumerate(run.problems, 1)
    ]


def absent(run: Run) -> Finding | None:
    """Which parts a run folder does not hold, and what they would show; broken ones have their own finding."""
    return None if run.path.is_file() else not_recorded(run.holds, " ".join(run.problems))


def not_recorded(holds: Collection[str], broken: str = "") -> Finding | None:
    """Likewise, of the names of the parts that are there; broken: what says which files cannot be read."""
    gone = [f"{file} ({shows})" for part, file, shows in PARTS if part not in holds and file not in broken]
    said = say(f"Not in this run: {'; '.join(gone)}.")
    return Finding("not-recorded", "missing", said, page="doctor") if gone else None


_CAPTURE: Final = ["profiler-kit", "capture"]


def _captured_by(record: RunRecord | None) -> list[str]:
    """The words of the `profiler-kit capture` that a run is of; none where it is of something else."""
    try:
        words = shlex.split(record.command) if record is not None else []
    except ValueError:
        words = []
    return words if words[:2] == _CAPTURE else []


def to_add(record: RunRecord | None, missing: Collection[str], out: str, *, on_gpu: bool = False) -> str:
    """The command that records a run like this one with what is missing in it; else what does it in code of one's own.

    missing: names of PARTS. out: the folder to write, as one would type it. on_gpu: there, wherever this one was.
    """
    words = _captured_by(record)
    if not words:
        if set(missing) - {"layers"}:
            return f'record_run("{out}", step, batch)  # records step(batch), as often as needed'
        spec = record.workload.get("spec") if record is not None else None
        return f"profiler-kit layers {spec or 'mine.py:workload'} --batch-sizes 1,2,4,8 --out {out}"
    anew = ("--out", "--device") if on_gpu else ("--out",)
    places = [place for place, word in enumerate(words) if word in anew]
    kept = [word for place, word in enumerate(words) if not {place, place - 1} & set(places)]
    kept += ["--device", "cuda"] if on_gpu else []
    layers = [] if "layers" not in missing or "--layers" in kept else ["--layers", "1,2,4,8"]
    return f"{shlex.join([*kept, *layers])} --out {out}"


def no_ladder_of(record: RunRecord | None, run: str, shown: str, out: str) -> Finding:
    """That the ladder that is shown is of another model than the run, and what measures one.

    out: the folder to write, as one would type it.
    """
    said: list[str | Piece] = ["The model of ", bold(run), " is unknown, for it has no run.json"]
    workload = "mine.py:workload"
    if record is not None:
        said = ["No ladder of ", bold(record.model), f", the model of {run}, is here"]
        workload = f"--model {record.model}" if _captured_by(record) else workload
        workload = str(record.workload.get("spec") or workload)
    attempt = f"profiler-kit ladder {workload} --out {out}"
    return Finding("no-ladder", "missing", say(*said, f". This one is of {shown}."), "warning", attempt=attempt)


FROM_TRACE: Final = Finding(
    "memory-from-trace",
    "missing",
    say(
        "There is no memory snapshot: this is what the trace's memory events say. They do not hold segments, and only "
        "what happened while it was recorded."
    ),
    page="memory",
)


def clock(joined: JoinedRun) -> Finding:
    """How far the clocks of a trace and a snapshot of one run disagree."""
    one = joined.clock
    said = (
        f"{joined.trace.path.name} and {Path(joined.snapshot.path).name} were recorded at the same time; their "
        f"clocks differ by "
        f"{one.median_us:.1f} µs (median of {one.readings} region boundaries; p99 {one.p99_us:.1f} µs, at most "
        f"{one.max_us:.1f} µs)."
    )
    return Finding("clock", "odd", say(said), page="memory")


def of_ladder(record: LadderRecord, rows: pd.DataFrame) -> list[Finding]:
    """The fastest row, the rows without numbers, and those whose masks agree too little. Takes LADDER_ROWS."""
    found = []
    measured = rows[rows["images_per_s"].notna()]
    if len(measured) > 1 and rows["speedup"].notna().any():
        best = measured.iloc[int(measured["images_per_s"].to_numpy().argmax())]
        agrees = best["agreement"]
        how: str = (
            "mean IoU of {:.4f} with its masks" if pd.isna(best["cosine"]) else "cosine of {:.4f} with its outputs"
        )
        few = f" ({best['masks_judged']})" if best["masks_judged"] else ""
        first = best["technique"] == BASELINE
        said = say(
            "No row is faster than the baseline, " if first else "The fastest row is ",
            bold(str(best["technique"])),
            ": ",
            bold(f"{fmt_rate(float(best['images_per_s']))} {best['unit']}/s"),
            "" if first else f", {best['speedup']:.2f} times the {_baseline(record)}{_how_sure(best)}",
            "." if first or pd.isna(agrees) else f", with a {how.format(agrees)}{few}.",
        )
        evidence = Evidence("ladder", {"technique": (str(best["technique"]),)})
        found.append(Finding("fastest-row", "ladder", said, evidence=evidence))
    for row in record.rows:
        if row.status != "ok":
            said = say(f"{row.technique}: {row.status}. {' '.join(row.error.split())}")
            found.append(Finding(f"row-{row.technique}", "ladder", said, "warning"))
    found += _noise(record, rows)
    found += _few_masks(rows)
    poor = [str(name) for name in rows.loc[rows["below_min_miou"], "technique"]]
    if poor:
        text = f"Masks agree less with those of fp32 than --min-miou {record.min_miou:g} asks for: {', '.join(poor)}."
        found.append(Finding("below-min-miou", "ladder", say(text), "error", names=tuple(poor)))
    if record.setup.task and record.setup.weights.startswith("random"):
        text = "Weights are random: times are those of the real model, masks are noise and so is their mIoU."
        found.append(Finding("random-weights", "ladder", say(text)))
    if (record.git_commit or "").endswith("-dirty"):
        text = "Measured with uncommitted changes: the exact code is not on record."
        found.append(Finding("dirty-commit", "ladder", say(text)))
    return found


def _baseline(record: LadderRecord) -> str:
    """What a ladder compares with: SAM as it was published, or a user's own model as it is."""
    return "published model" if record.setup.task else "baseline"


def _how_sure(row: pd.Series) -> str:
    """` (4.90 to 5.10 at 95 %)` after a ratio to the baseline, and whether that is noise."""
    if row["speedup_verdict"] == UNSURE:
        return f" ({UNSURE} to say how sure that is: {row['samples']})"
    noise = f", {NOISE}" if row["speedup_verdict"] == NOISE else ""
    return (
        ""
        if pd.isna(row["speedup_low"])
        else f" ({row['speedup_low']:.2f} to {row['speedup_high']:.2f} at 95 %{noise})"
    )


def _noise(record: LadderRecord, rows: pd.DataFrame) -> list[Finding]:
    """How far the baseline drifted, and the rows that are no faster or slower than that and their samples tell."""
    found, measured, apart = [], baseline_medians(record), drift(record)
    if len(measured) > 1:
        text = f"The baseline was measured {len(measured)} times: its medians differ by up to {fmt_percent(apart)}."
        found.append(Finding("baseline-drift", "ladder", say(text)))
    elif measured and rows["speedup"].notna().sum() > 1:
        text = "The baseline was measured once, before the other rows: how much the device drifted is unknown."
        found.append(Finding("baseline-drift", "ladder", say(text)))
    for one in (one for one in record.rounds if one.error):
        said = say(f"The baseline could not be measured again: {' '.join(one.error.split())}")
        found.append(Finding(f"baseline-round-{len(found)}", "ladder", said, "warning"))
    for over, what in (("speedup", "the baseline"), ("gain", "the step below it")):
        noise = rows[(rows[f"{over}_verdict"] == NOISE) & ((over == "speedup") | (rows["parent"] != BASELINE))]
        if len(noise):
            names = tuple(str(name) for name in noise["technique"])
            said = say(f"Within the noise of {what}: {', '.join(names)}.")
            evidence = Evidence("ladder", {"technique": names})
            found.append(Finding(f"noise-{over}", "ladder", said, evidence=evidence, names=names))
    return found


def _few_masks(rows: pd.DataFrame) -> list[Finding]:
    """Rows whose metrics rest on no masks, or on too few."""
    found = []
    for judged, of in rows[rows["masks_judged"] != ""].groupby("masks_judged", sort=False):
        names = tuple(str(name) for name in of["technique"])
        counts = ", ".join(f"{name} ({counted(count, 'mask')})" for name, count in zip(names, of["masks"], strict=True))
        says = "there is nothing to compare" if judged == NO_MASKS else f"expected {FEWEST_MASKS} an image or more"
        said = say(f"{str(judged).capitalize()}: {counts}; {says}.")
        found.append(Finding(str(judged).replace(" ", "-"), "ladder", said, "warning", names=names))
    return found


NO_OVERLAYS: Final = Finding("no-overlays", "missing", say("This ladder kept no masks."))
NO_ROOFLINE: Final = Finding(
    "no-roofline", "missing", say("No row has both its work counted and the device's rates measured.")
)


def of_study(record: StudyRecord) -> list[Finding]:
    """What a study could not measure."""
    return [Finding(f"study-{n}", "ladder", say(note), "warning") for n, note in enumerate(record.notes, 1)]
