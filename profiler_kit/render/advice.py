"""Advice in words: a cause with its numbers in; a headline, the evidence, and what to try, out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from profiler_kit.findings.advice import FASTER, Advice
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_path, fmt_percent

PageName = Literal["regions", "kernels", "operators", "layers", "ranks"]


@dataclass(frozen=True)
class Hint:
    """One thing worth fixing. gain: what it could give back at most. page: where it shows; region, kernel, operator:
    what to open there, "" when it is none.
    """

    title: str
    gain: str
    share: str
    evidence: str
    attempt: str
    page: PageName
    region: str = ""
    kernel: str = ""
    operator: str = ""


_NAME_LETTERS: Final = 40
NOTHING: Final = "No single cause holds 1 % of the time or more."
HELP: Final = (
    "Causes found in the events, the one that could give back most first. Each gain is an upper bound for that cause "
    f"alone; causes may overlap. Faster kernels are taken to be {FASTER:.0f} times as fast."
)


def hint(one: Advice) -> Hint:
    """The cause in words."""
    title, evidence, attempt, page = _WORDS[one.kind](one)
    region = fmt_path(one.path)
    if one.path and one.gain_ns and page != "layers":
        share = one.inside_ns / one.gain_ns
        evidence += f" {'All' if share > 0.995 else fmt_percent(share, 0)} of it in {one.path[-1]}."
    first = one.names[0] if one.names else ""
    return Hint(
        title,
        _gain(one),
        fmt_percent(one.share),
        evidence,
        attempt,
        page,
        region if page == "regions" else "",
        first if page == "kernels" else "",
        first if page == "operators" else "",
    )


def markdown_list(found: Sequence[Advice]) -> list[str]:
    """Each cause as one line of plain text: title, gain, evidence, what to try."""
    return [
        f"{said.title}: up to {said.gain} ({said.share}). {said.evidence} Try: {said.attempt}"
        for said in map(hint, found)
    ]


def _gain(one: Advice) -> str:
    each = one.gain_ns / one.whole.rounds
    what = {"recording": "the recording", "forward": "a forward"}.get(one.whole.unit, f"each {one.whole.unit}")
    return f"{fmt_ns(each)} of {what}"


def _host_bound(one: Advice) -> tuple[str, str, str, PageName]:
    scaled = " while recorded (the gain is scaled to a batch without the profiler)" if one.whole.unrecorded else ""
    launches = f" Half of the kernels take less than {fmt_ns(one.value)}; a launch call takes {fmt_ns(one.other)}."
    rare = one.mean_ns >= _LONG_GAP_NS
    return (
        "The GPU waits for the host",
        f"{fmt_count(one.count)} of {fmt_count(one.of)} gaps between GPU events end with a launch that came late, "
        f"after {fmt_ns(one.mean_ns)} on average{scaled}.{'' if rare else launches}",
        _PREPARE if rare else _GRAPHS,
        "regions",
    )


_LONG_GAP_NS: Final = 1_000_000  # no launch takes that long: the host does something else
_GRAPHS: Final = 'torch.compile(mode="reduce-overhead") or CUDA graphs, which launch without the host; a larger batch.'
_PREPARE: Final = (
    "Do what the host does there (loading, preparing, Python) ahead of time: in workers, or while the GPU works."
)


def _synchronising(one: Advice) -> tuple[str, str, str, PageName]:
    where = ", ".join(one.names)
    return (
        "The host waits for the GPU, then the GPU for the host",
        f"In {_counted(one.count, 'gap', 'gaps')} the host had been waiting for the GPU. The trace holds "
        f"{_counted(int(one.other), 'call', 'calls')} that wait, {fmt_ns(one.value)} in all, most of it in {where}.",
        "Leave out .item(), .cpu(), nonzero() and prints in the loop; copy pinned memory with non_blocking=True.",
        "regions",
    )


def _copies(one: Advice) -> tuple[str, str, str, PageName]:
    pageable = int(one.other)
    how = f"{fmt_count(pageable)} of them from or to pageable memory" if pageable else "all of them of pinned memory"
    attempt = "Pin the memory (pin_memory=True) and copy with non_blocking=True on a stream of its own."
    return (
        "Copies between host and GPU that nothing hides",
        f"{_counted(one.count, 'copy', 'copies')} of {fmt_bytes(one.value)}, {how}.",
        attempt if pageable else "Copy the next batch on a stream of its own while this one computes.",
        "regions",
    )


def _communication(one: Advice) -> tuple[str, str, str, PageName]:
    hidden = 1 - one.gain_ns / one.value if one.value else 0.0
    return (
        "Communication that no computation hides",
        f"{_counted(one.count, 'collective', 'collectives')} take {fmt_ns(one.value)}, {fmt_percent(hidden)} of that "
        "hidden behind computation.",
        "Look for the rank the others wait for; larger buckets, or communication started earlier.",
        "ranks",
    )


def _chains(one: Advice) -> tuple[str, str, str, PageName]:
    return (
        "Elementwise kernels in chains",
        f"{fmt_count(one.count)} elementwise kernels follow one another in {fmt_count(one.of)} runs and take "
        f"{fmt_ns(one.value)}; fused, a run would take what its longest takes.",
        "torch.compile, which fuses them; or one custom kernel.",
        "kernels",
    )


def _fp32(one: Advice) -> tuple[str, str, str, PageName]:
    return (
        "Matrix products without tensor cores",
        f"{_counted(one.count, 'kernel', 'kernels')} in fp32 on CUDA cores take {fmt_ns(one.value)}, "
        f"{fmt_percent(one.other)} of all GPU time (the gain takes them to be {FASTER:.0f} times as fast).",
        'torch.set_float32_matmul_precision("high") for TF32; or bf16.',
        "kernels",
    )


def _one_kernel(one: Advice) -> tuple[str, str, str, PageName]:
    return (
        f"One kernel: {fit_names(kernel_names(one.names[:1]), _NAME_LETTERS)[0]}",
        f"It ran {_counted(one.count, 'time', 'times')} and takes {fmt_ns(one.value)}, {fmt_percent(one.other)} of all "
        f"GPU time (the gain takes it to be {FASTER:.0f} times as fast).",
        "Another algorithm for it: a fused attention, another layout or tile size, a lower precision.",
        "kernels",
    )


def _kernel_gaps(one: Advice) -> tuple[str, str, str, PageName]:
    mean = one.gain_ns / one.count if one.count else 0.0
    return (
        "The way from one kernel to the next",
        f"{fmt_count(one.count)} short gaps between kernels that were launched in time, {fmt_ns(mean)} each on "
        f"average; half of the kernels take less than {fmt_ns(one.value)}.",
        "Fewer kernels (torch.compile), or CUDA graphs, which shorten the way.",
        "regions",
    )


def _one_operator(one: Advice) -> tuple[str, str, str, PageName]:
    return (
        f"One operator: {one.names[0]}",
        f"It was called {_counted(one.count, 'time', 'times')} and holds {fmt_ns(one.value)} of host time itself "
        f"(the gain takes it to be {FASTER:.0f} times as fast).",
        "Fewer calls, another algorithm or precision; or a GPU.",
        "operators",
    )


def _batch_scaling(one: Advice) -> tuple[str, str, str, PageName]:
    return (
        f"{one.names[0]} scales badly with the batch",
        f"An image takes {fmt_ns(one.other)} at batch {one.of} and {fmt_ns(one.value)} at batch {one.count}.",
        "Run it for all images at once instead of one after another.",
        "layers",
    )


_WORDS: Final = {
    "host-bound": _host_bound,
    "synchronising": _synchronising,
    "exposed copies": _copies,
    "exposed communication": _communication,
    "elementwise chains": _chains,
    "fp32 products": _fp32,
    "one kernel": _one_kernel,
    "kernel gaps": _kernel_gaps,
    "one operator": _one_operator,
    "batch scaling": _batch_scaling,
}


def _counted(count: int, one: str, many: str) -> str:
    return f"{fmt_count(count)} {one if count == 1 else many}"
