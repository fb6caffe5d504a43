"""Run the ladder: every row in a fresh process, its outputs compared with the baseline's."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from profiler_kit.capture.run_folder import check_place
from profiler_kit.errors import InputError, OptionError, RunFormatError, WorkloadError
from profiler_kit.files import write_json
from profiler_kit.formats.checked import read_as
from profiler_kit.formats.ladder_file import write_csv
from profiler_kit.formats.ladder_record import (
    BASELINE,
    HINT,
    LOG,
    RESULTS,
    RESULTS_CSV,
    ROW,
    ROWS,
    SHARED,
    WHAT,
    LadderRecord,
    Round,
    RowResult,
    Setup,
    is_compiled,
    read_ladder,
    slug,
    write_record,
)
from profiler_kit.progress import Report, silent
from profiler_kit.workload.ceilings import Probe, probe
from profiler_kit.workload.ladder_plan import AGAIN, LadderOptions, LadderPlan, make_ladder_plan
from profiler_kit.workload.optimizations import parse_optimizations, unmet
from profiler_kit.workload.protocol import Workload
from profiler_kit.workload.row import RowPlan

INDUCTOR, PLAN, PROBE = "compile-cache", "plan.json", "probe.json"
_POLL_S: Final = 0.2
_GRACE_S: Final = 5.0


def run_ladder(workload: Workload, options: LadderOptions, *, report: Report = silent) -> tuple[Path, LadderRecord]:
    """Measure every row; return the folder and what its results.json says.

    Rows take turns on the device, one process each; results.json and results.csv are written after each. The baseline
    is measured again, in a process of its own, after every `baseline_every` rows and after the last one. A row that
    fails, dies or takes longer than `timeout_s` keeps its error and the next one starts. With `resume` rows of a ladder
    that was cut short are taken over when they were measured, and the others run, after the baseline once more.

    Raises OptionError for options that cannot be used, InputError for files, WorkloadError when no row could be
    measured.
    """
    plan = make_ladder_plan(workload, options)
    before = _open(plan)
    kept = {} if before is None else _resumed(plan, before)
    machine = _probe(plan)
    if before is not None and before.device_name != machine.device_name:
        raise OptionError(_other_options(plan, "device name", before.device_name, machine.device_name))
    record = LadderRecord(
        setup=plan.setup,
        rows=(),
        steps=plan.steps,
        device_name=machine.device_name,
        versions=machine.versions,
        git_commit=machine.git_commit,
        command=_portable(plan, machine.command),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        min_miou=options.min_miou,
        ceilings=machine.ceilings,
        rounds=() if before is None or BASELINE not in kept else before.rounds,
    )
    pace = _Pace(report, [name for name, _ in plan.rows], set(kept))

    def save(row: RowResult) -> LadderRecord:
        """Write what is measured so far, with this row as the last one."""
        return _written(plan, replace(record, rows=(*record.rows, _compared(plan, row) if row.status == "ok" else row)))

    def again() -> LadderRecord:
        """Measure the baseline once more, as the end of a round."""
        changed = _written(plan, replace(record, rounds=(*record.rounds, _round(plan, tuple(since), pace.again))))
        since.clear()
        return changed

    since: list[str] = []  # rows measured since the baseline was
    every, resumed = plan.options.baseline_every, BASELINE in kept
    with _ended_with_us():
        for technique, optimizations in plan.rows:
            row = kept.get(technique)
            if row is None:
                pace.begin(technique)
                if resumed and every:
                    record, resumed = again(), False
                row = _run(plan, technique, optimizations, pace.show, save)
                pace.end(row.wall_s)
                since += [technique] if row.status == "ok" and technique != BASELINE else []
            record = save(row)
            if every and len(since) == every and record.baseline is not None:
                record = again()
        if every and since and record.baseline is not None:
            record = again()
    shutil.rmtree(plan.out / SHARED, ignore_errors=True)
    if not any(row.status == "ok" for row in record.rows):
        first = next(row for row in record.rows if row.status != "ok")
        raise WorkloadError(f"no row could be measured; {first.technique}: {first.error} The rest is in {plan.out}.")
    return plan.out, record


def _written(plan: LadderPlan, record: LadderRecord) -> LadderRecord:
    write_record(plan.out / RESULTS, record)
    write_csv(plan.out / RESULTS_CSV, record)
    return record


def _round(plan: LadderPlan, rows: tuple[str, ...], show: Callable[[str], None]) -> Round:
    """The baseline once more; its log is kept when it fails."""
    folder = plan.out / ROWS / AGAIN
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    row = _process(plan, plan.round_plan, show)
    if row.status == "ok":
        shutil.rmtree(folder)
    return Round(rows, row.latency_ns, row.error)


def check_ladder(workload: Workload, options: LadderOptions) -> None:
    """Raise what `run_ladder` would before it begins."""
    _check_out(make_ladder_plan(workload, options))


def check_ladders(out: Path) -> None:
    """Raise OptionError where a folder for several ladders holds anything else."""
    other = next((one.name for one in sorted(out.iterdir()) if not _is_ladder(one)), None) if out.is_dir() else None
    if other is not None:
        raise OptionError(f"--out {out}: this folder holds {other}, expected ladders at most. Choose another --out.")


def _is_ladder(folder: Path) -> bool:
    return (folder / RESULTS).is_file() or (folder / ROWS).is_dir()


def _check_out(plan: LadderPlan) -> None:
    """Raise OptionError where the ladder cannot be written."""
    out, options = plan.out, plan.options
    check_place(out, out)
    if out.is_file():
        raise OptionError(f"--out {out}: this is a file, expected a folder. Choose another --out.")
    filled = out.is_dir() and any(out.iterdir())
    if filled and not _is_ladder(out):
        raise OptionError(f"--out {out}: this folder holds something other than a ladder. Choose another --out.")
    if filled and not options.resume and not options.overwrite:
        raise OptionError(
            f"--out {out}: there is a ladder already. Choose another --out, or add --resume or --overwrite."
        )


def _open(plan: LadderPlan) -> LadderRecord | None:
    """Make the folder; with --resume give what is in it. Raises OptionError."""
    _check_out(plan)
    out = plan.out
    before = read_ladder(out) if plan.options.resume and (out / RESULTS).is_file() else None
    if plan.options.overwrite and not plan.options.resume and out.is_dir() and any(out.iterdir()):
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return before


def _other_options(plan: LadderPlan, what: str, was: object, now: object) -> str:
    return (
        f"--resume: {plan.out} was measured with {what} {was}, now it is {now}. Use the same options, or another --out."
    )


def _resumed(plan: LadderPlan, before: LadderRecord) -> dict[str, RowResult]:
    """The rows that were measured with the very same options; raises OptionError for other ones."""
    for name in Setup.__dataclass_fields__:
        was, now = getattr(before.setup, name), getattr(plan.setup, name)
        if was != now:
            raise OptionError(_other_options(plan, name.replace("_", " "), was, now))
    wanted = {name: plan.names(text) for name, text in plan.rows}
    kept = {}
    for row in before.rows:
        if row.status != "ok" or row.technique not in wanted:
            continue
        if row.optimizations != wanted[row.technique]:
            raise OptionError(
                f"--resume: {row.technique} in {plan.out} was {','.join(row.optimizations) or 'as published'}, now "
                f"it is {','.join(wanted[row.technique]) or 'as published'}. Rename the row, or use another --out."
            )
        kept[row.technique] = row
    return kept


def _probe(plan: LadderPlan) -> Probe:
    """Versions, device and its ceilings; of a GPU from a process that lets go of it again."""
    if plan.device.type == "cpu":
        return probe(plan.device, sys.argv)
    path = plan.out / PROBE
    command = [sys.executable, "-m", "profiler_kit.workload.ceilings", str(plan.device), str(path), *sys.argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not path.is_file():
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise WorkloadError(f"device {plan.device}: its rates could not be measured ({last}). Try --device cpu.")
    found = read_as(path, Probe, WHAT, HINT)
    path.unlink()
    return found


@contextlib.contextmanager
def _ended_with_us() -> Iterator[None]:
    """Let SIGTERM end this process by an exception, so that the row's process is ended too and frees the device."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(
    plan: LadderPlan,
    technique: str,
    optimizations: str,
    show: Callable[[str], None],
    save: Callable[[RowResult], object],
) -> RowResult:
    """One row in a process of its own, saved when it is measured, and a second process for the warm compile."""
    row_plan = plan.row_plan(technique, optimizations)
    chosen = parse_optimizations(optimizations, plan.workload.optimizations)
    names = tuple(optimization.name for optimization in chosen)
    if plan.device.type == "cpu":  # a GPU is asked by the row's own process, since asking takes some of its memory
        lacking = [f"{o.name} {problem}." for o in chosen if (problem := unmet(o, plan.device)) is not None]
        if lacking:
            return RowResult(technique, names, "skipped", lacking[0], batch_size=row_plan.batch_size)
    folder = Path(row_plan.folder)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier try that did not finish
    folder.mkdir(parents=True)
    since = time.monotonic()
    try:
        row = _process(plan, row_plan, show)
        if row.status == "ok" and is_compiled(names) and plan.options.warm_compile:
            save(row)
            again = _process(plan, replace(row_plan, first_call_only=True, traces=False), show)
            if again.first_ns is not None:
                row = replace(row, phases_ns={**row.phases_ns, "compile_warm": again.first_ns})
            else:
                row = replace(row, notes=(*row.notes, f"warm compile: {again.error}"))
    finally:
        shutil.rmtree(folder / INDUCTOR, ignore_errors=True)
    row = replace(row, wall_s=time.monotonic() - since)
    write_record(folder / ROW, row)
    return row


def _process(plan: LadderPlan, row_plan: RowPlan, show: Callable[[str], None]) -> RowResult:
    """Start the process of a row, wait, and read what it wrote; a process that dies or hangs gets a row of its own."""
    folder = Path(row_plan.folder)
    failed = RowResult(row_plan.technique, row_plan.names, "failed", batch_size=row_plan.batch_size)
    write_json(folder / PLAN, dataclasses.asdict(row_plan))
    (folder / ROW).unlink(missing_ok=True)
    # caches of its own: the first compile of a row is cold, and the next process finds what it left
    cache = str((folder / INDUCTOR).absolute())
    env = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "PYTHONUNBUFFERED": "1",
    }
    with (
        (folder / LOG).open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "profiler_kit.workload.row", str(folder / PLAN)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,  # which closes when we are killed: then the row ends itself
            env=env,
            start_new_session=True,  # so that the compiler's workers can be ended with it
        ) as process,
    ):
        try:
            in_time = _wait(process, folder / LOG, plan.options.timeout_s, show)
        finally:
            _end(process)
    (folder / PLAN).unlink(missing_ok=True)
    if not in_time:
        error = f"took longer than --timeout {plan.options.timeout_s:g} s while at: {_last_stage(folder / LOG)}."
        return replace(failed, status="timeout", error=error)
    try:
        row = read_as(folder / ROW, RowResult, WHAT, HINT)
    except (InputError, RunFormatError):
        row = replace(failed, error=f"the process ended with {_how_it_ended(process.returncode)}; see {folder / LOG}.")
    return replace(row, error=_portable(plan, row.error), notes=tuple(_portable(plan, note) for note in row.notes))


def _portable(plan: LadderPlan, text: str) -> str:
    """The text with files named from the ladder's folder on, and that by its last name: it is read elsewhere."""
    for place in dict.fromkeys((plan.out.resolve(), plan.out.absolute(), plan.out)):
        text = re.sub(rf"(?<![\w./-]){re.escape(str(place))}/", "", text)
        text = re.sub(rf"(?<![\w./-]){re.escape(str(place))}(?![\w./-])", place.name, text)
        text = re.sub(rf"(?<=--out ){re.escape(str(place.parent))}(?![\w./-])", place.parent.name, text)
    return text


def _wait(process: subprocess.Popen[bytes], log: Path, timeout_s: float, show: Callable[[str], None]) -> bool:
    until = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > until:
            return False
        show(_last_stage(log))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, asking first."""
    for number, grace in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)


def _last_stage(log: Path) -> str:
    try:
        lines = log.read_bytes()[-4000:].decode("utf-8", "replace").splitlines()
    except OSError:
        return "start"
    return next((line.removeprefix("stage: ") for line in reversed(lines) if line.startswith("stage: ")), "start")


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        hint = " (the machine ran out of memory?)" if name == "SIGKILL" else ""
        return f"signal {name}{hint}"
    return f"exit code {code}"


def _compared(plan: LadderPlan, row: RowResult) -> RowResult:
    """The row with its outputs compared with the baseline's."""
    base, mine = (plan.out / ROWS / slug(name) for name in (BASELINE, row.technique))
    return plan.workload.compare(row, mine, base)


@dataclass
class _Pace:
    """Says which row runs, what it is doing, and about how long the rest will take."""

    report: Report
    rows: Sequence[str]
    kept: set[str]
    done: int = 0
    took: list[float] = field(default_factory=list)
    technique: str = ""
    since: float = 0.0

    def begin(self, technique: str) -> None:
        self.technique, self.since = technique, time.monotonic()
        self.done = list(self.rows).index(technique)
        self.show("start")

    def end(self, wall_s: float) -> None:
        self.took.append(wall_s)
        self.done += 1

    def again(self, what: str) -> None:
        """What the baseline's process does that belongs to no row."""
        place = f"after row {self.done} of {len(self.rows)}"
        self.report(self.done, len(self.rows), f"{place}, {BASELINE} once more: {what}")

    def show(self, what: str) -> None:
        after = sum(1 for name in self.rows[self.done + 1 :] if name not in self.kept)
        rest = ""
        mean = sum(self.took) / len(self.took) if self.took else 0.0
        seconds = mean * after + max(mean - (time.monotonic() - self.since), 0.0)
        if seconds >= 90:
            rest = f", about {seconds / 60:.0f} min left"
        elif seconds >= 1:  # rounded up: a log gets a line when the note changes
            rest = f", about {-(-seconds // 15) * 15:.0f} s left"
        note = f"row {self.done + 1} of {len(self.rows)}, {self.technique}: {what}{rest}"
        self.report(self.done, len(self.rows), note)
