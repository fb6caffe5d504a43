"""Load mutated traces in a process of its own, under a limit of memory and of time per file.

    python -m tests.fuzz.worker FIRST LAST FOLDER

Files FIRST to LAST - 1 (tests/fuzz/mutations.py) are written to FOLDER one at a time, loaded, and compared with what
a strict reader finds. One JSON line per file goes to stdout: before it is loaded, so that a file which kills this
process is known, and after.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from profiler_kit.errors import KitError, OptionError
from profiler_kit.findings.quality import flaws, of_flaw
from profiler_kit.load.trace.file_facts import read_file_facts
from profiler_kit.tables import tables_of
from profiler_kit.trace import Trace, load_trace
from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.strict import Found, Span, key, strict_events

MEMORY_BYTES = 384 << 20  # beyond what the imports take; the files are below 1 MB
SECONDS = 10  # of processor time for one file of some 40 kB; the SIGPROF of this limit ends the process
HANGS_S = 300  # and a file that only waits ends with SIGALRM


@dataclass
class Verdict:
    """What became of one file; `problems` is empty when every rule held."""

    file: int
    outcome: str  # "whole", "mended", "cut", "refused", "crashed", "killed"
    seconds: float = 0.0
    spans: int = 0
    repaired: int = 0
    dropped: int = 0
    message: str = ""
    problems: list[str] = field(default_factory=list)


def check(data: bytes, file: int, path: Path) -> Verdict:
    """Load one file, run what the commands run on it, and compare."""
    path.write_bytes(data)
    started = time.perf_counter()
    try:
        trace = load_trace(path, cache=False)
        quality = trace._file.quality
        spans = spans_of(trace)
        use(trace, everything=file % 10 == 0)
    except KitError as error:
        verdict = Verdict(file, "refused", message=str(error).replace(str(path), "FILE"))
        if "\n" in str(error) or str(path) not in str(error):
            verdict.problems.append(f"the message is not one line that names the file: {error}")
        found = strict_events(data)
        if found.spans and "after its end" not in str(error):
            verdict.problems.append(f"refused, though a strict reader finds {sum(found.spans.values())} spans: {error}")
    except Exception:
        return Verdict(file, "crashed", problems=[traceback.format_exc(limit=-4)])
    else:
        lost = quality.repaired_events or quality.dropped_events
        verdict = Verdict(
            file,
            "mended" if lost else "cut" if quality.truncated else "whole",
            spans=sum(spans.values()),
            repaired=quality.repaired_events,
            dropped=quality.dropped_events,
        )
        verdict.problems += broken_rules(trace, spans, strict_events(data))
    verdict.seconds = time.perf_counter() - started
    return verdict


def use(trace: Trace, *, everything: bool = True) -> None:
    """What the commands do with a trace."""
    timeline = trace.summary()["gpu_timeline"]
    assert timeline["busy_ns"] + timeline["idle_ns"] == timeline["total_ns"]
    assert trace.regions()["self_sum_ns"].sum() == trace.kernels()["sum_ns"].sum()
    trace.operators()
    trace.launches()
    trace.idle()
    for flaw in flaws(trace, read_file_facts(trace.path)):
        of_flaw(flaw)
    if everything:
        for table in tables_of("trace"):
            try:
                table.of_source(trace).records()
            except OptionError as error:  # a table that is not for such a trace: of several processes
                assert "\n" not in str(error)
        for finding in trace.findings():
            assert finding.sentence


def spans_of(trace: Trace) -> Counter[Span]:
    columns = trace.columns
    names = [columns.names[code] for code in columns.name.tolist()]
    return Counter(map(key, names, columns.start_ns.tolist(), columns.dur_ns.tolist()))


def broken_rules(trace: Trace, spans: Counter[Span], strict: Found) -> list[str]:
    """Nothing is invented, nothing disappears, no time is negative."""
    quality = trace._file.quality
    problems = []
    invented = spans - strict.spans
    if invented.total() > quality.repaired_events + strict.loose:
        problems.append(f"{invented.total()} spans no strict reader finds, {quality}: {list(invented)[:3]}")
    missing = strict.spans - spans
    if missing.total() > quality.dropped_events + quality.repaired_events:
        problems.append(f"{missing.total()} spans missing, {quality}, {strict.loose=}: {list(missing)[:3]}")
    if len(trace.columns) and int(trace.columns.dur_ns.min()) < 0:
        problems.append("a negative duration")
    return problems


def main() -> None:
    first, last, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("error")
    corpus = seeds()
    check(corpus[0], -1, folder / "warm.json")  # imports what is imported late
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    for number in range(first, last):
        print(json.dumps({"start": number}), flush=True)
        data = mutate(number, corpus)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(HANGS_S)
        verdict = check(data, number, folder / f"{number}.json")
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        (folder / f"{number}.json").unlink()
        print(json.dumps(asdict(verdict)), flush=True)


if __name__ == "__main__":
    main()
