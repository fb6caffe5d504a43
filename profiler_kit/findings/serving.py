"""What requests to a server waited for, and how the answers of two servers agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from profiler_kit.analyses.serving.requests import FEWEST, REQUESTS, STAGES, idle_while_queued, spans
from profiler_kit.finding import Evidence, Finding, Piece, bold, counted, say
from profiler_kit.formats.ladder_record import too_few_masks
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.run import Run
from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

if TYPE_CHECKING:
    from profiler_kit.models.serving.compare import Answers

SLOWEST: Final = 0.05  # of the requests: whose waiting is looked at
WORTH: Final = 0.05  # of the time in which requests waited: less idle time is not worth a sentence
_NAMES: Final = dict(zip(STAGES, ("the upload", "decoding", "the queue", "the model", "encoding"), strict=True))


def of_requests(run: Run) -> list[Finding]:
    """How much slower the slowest requests were and what they waited for; the GPU idle while requests were queued."""
    if run.requests is None:
        return []
    found = (slowest(run.requests, run.record, None if run.served is None else run.served.shares), idle_in_queue(run))
    return [one for one in found if one is not None]


def slowest(requests: pd.DataFrame, record: RunRecord | None, shares: pd.DataFrame | None = None) -> Finding | None:
    """The 99th percentile (or the slowest) against the median, and the stage that makes most of the difference.

    shares: of `Served`, for what most of the time in the model went into.
    """
    REQUESTS.check(requests)
    good = requests[requests["status"] == 200].dropna(subset=["latency_ns"])
    if good.empty:
        return None
    latency = good["latency_ns"].astype("float64")
    median, high = float(latency.median()), float(latency.quantile(0.99) if len(good) >= FEWEST else latency.max())
    slow = good[latency >= latency.quantile(1 - SLOWEST)]
    took = {stage: float(slow[f"{stage}_ns"].sum()) for stage in STAGES}
    stage = max(took, key=lambda name: took[name])
    what = "99 % took less than" if len(good) >= FEWEST else "the slowest took"
    said: list[str | Piece] = [
        f"Half of {counted(len(good), 'request')} took less than ",
        bold(fmt_ns(median)),
        f", {what} ",
    ]
    number = "one" if len(slow) == 1 else fmt_count(len(slow))
    said += [bold(fmt_ns(high)), f", {high / max(median, 1):.1f} × as long. The slowest {number} spent "]
    said += [
        bold(fmt_percent(took[stage] / max(1.0, sum(took.values())), 0)),
        " of it in ",
        bold(_NAMES[stage]),
        *([] if stage != "gpu" or shares is None else _most_of(shares[shares["id"].isin(slow["id"])])),
        ".",
    ]
    batches = requests.drop_duplicates("batch")["batch_size"]
    most = "" if record is None else f" of at most {record.batch_size}"
    said.append(f" {counted(len(batches), 'batch', 'batches')} held {batches.mean():.1f}{most} requests on average.")
    evidence = Evidence("requests", {"id": tuple(slow["id"].tolist())})
    return Finding("slowest-requests", "why", say(*said), evidence=evidence, page="requests")


def _most_of(parts: pd.DataFrame) -> list[str | Piece]:
    """The part that took most of these requests: on the GPU if anything ran there, else on the host."""
    column, where = ("gpu_busy_ns", "on the GPU") if parts["gpu_events"].any() else ("host_ns", "on the host")
    taken = parts.groupby("part")[column].sum()
    if not taken.sum():
        return []
    share = fmt_percent(float(taken.max() / taken.sum()), 0)
    return [f", {where} ", bold(share), " of that in ", bold(str(taken.idxmax()))]


def idle_in_queue(run: Run) -> Finding | None:
    """How long no GPU worked while a request waited; None where it is not worth a word."""
    if run.requests is None or run.trace is None:
        return None
    waited, idle = idle_while_queued(run.requests, *spans(run.trace.gpu_events()))
    if not waited or idle < WORTH * waited:
        return None
    said = say(
        "No GPU worked for ", bold(fmt_ns(idle)), f", {fmt_percent(idle / waited, 0)} of the time in which requests "
        "were in the queue. A shorter --max-wait-ms helps where batches wait to fill up; else look at what the host "
        "does between batches.",
    )  # fmt: skip
    return Finding("idle-while-queued", "why", said, evidence=Evidence("requests"), page="requests")


def agreement(answers: Answers) -> Finding:
    """How the masks of two servers agree, and both median latencies."""
    found = answers.masks
    said: list[str | Piece] = [f"{counted(found.images, 'image')}, {counted(found.masks, 'mask')} of the baseline: "]
    if problem := too_few_masks(found.masks, found.images):
        said.append(f"{problem}; ")
    strict, miou = ("unknown" if one is None else f"{one:.4f}" for one in (found.strict_miou, found.miou))
    said += ["mean IoU of matched masks ", bold(miou), f", strict as the sam2 example counts {strict}"]
    said.append(
        f". A different number of masks in {counted(found.count_mismatch, 'image')}, a mask without a partner in "
        f"{counted(found.match_mismatch, 'image')}."
    )
    if answers.step:
        base, other = (float(pd.Series(one).median()) for one in answers.latencies)
        counts = " and ".join(fmt_count(len(one)) for one in answers.latencies)
        said += [f" Median latency at {answers.step} ", bold(fmt_ns(other)), f" against {fmt_ns(base)} of the baseline"]
        said.append(f" ({counts} answers).")
    return Finding("answers-agree", "table", say(*said))
