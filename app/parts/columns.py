"""What each table column means: shown on hover, with one format per unit so that numbers line up."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

_ROW_PX = 35
_NUMBER_PX = 68
_TEXT_PX: dict[str, Any] = {
    "region": 190, "kernel": 330, "operator": 240, "category": 90, "full_name": "large", "where": "large",
    "group": 190, "path": 310, "module": 240, "module_type": 130, "site": 330, "call": 170,
    "shapes": 380, "sequence": 640, "process_group": 110,
    "bound": 105, "incident": 230, "compared": 300, "layer_kind": 230, "layer": 280, "layer_type": 150, "variant": 100,
    "event_text": "large", "event_category": 190, "phase": 60,
    "used_as": "large",
}  # fmt: skip
_TEXT = {
    "colour": ("", "The colour of this region on every page."),
    "bound": (
        "Bound by",
        "GPU-bound: the GPU works at least 80 % of the time. host-bound: at least half of its idle time ends with a "
        "launch that came late. synchronising: the launch came late because the host had waited for the GPU.",
    ),
    "region": ("Region", "A record_function block; nested regions are indented under the one around them."),
    "kernel": ("Kernel", "GPU kernel, memory copy or memory set; the last column has its full name."),
    "full_name": ("Full name", "The name as the compiler wrote it, with all template arguments."),
    "operator": ("Operator", "A PyTorch operator on the host."),
    "category": ("Kind", "kernel, gpu_memcpy or gpu_memset."),
    "group": ("Group", "Told by the kernel's name, or the stream it ran on."),
    "path": ("Launched in", "The regions open on the launching thread at the launch, outermost first."),
    "module": ("nn.Module", "The module whose forward was running at the launch; nested modules are indented."),
    "module_type": ("nn.Module", "The class of the innermost module whose forward was running at the launch."),
    "site": ("Python function", "The innermost function outside torch at the launch; the line is where it begins."),
    "call": ("Runtime call", "The call of the CUDA (or ROCm) runtime or driver that launched it."),
    "shapes": ("Input shapes", "Sizes of the operator's tensor arguments, as the trace writes them."),
    "layer_kind": ("Kind of layer", "The class, with what sets layers of one class apart."),
    "layer": ("Layer", "Path of the module in the model."),
    "layer_type": ("Class", "Class of the module."),
    "variant": ("Variant", "What sets layers of one class apart: windowed or global attention."),
    "compared": ("What", "What is compared."),
    "incident": ("What", "What was done with the event that stands there."),
    "event_text": ("Text", "How the event begins."),
    "event_category": ("Category", "As the profiler writes it."),
    "phase": ("Phase", "X: a span, i: a moment, M: metadata, s and f: ends of an arrow, C: a counter."),
    "used_as": ("Used as", "What the analyses make of it; what is ignored says why."),
    "process_group": ("Process group", "As the trace names it."),
    "sequence": ("Kernels in order of launch", "Names shortened; one operator call launched these in a row."),
    "where": ("Allocated by", "The innermost Python frame of the stack that allocated it."),
}
_NUMBERS = {
    "utilization": (
        "Busy %",
        "%.1f",
        "Share of the region's time, from its start on the host to the end of its last kernel, in which the GPU worked "
        "for it.",
    ),
    "busy_ms": ("Busy ms", "%,.3f", "Time in which at least one of its kernels ran (overlaps counted once)."),
    "sum_ms": ("Sum ms", "%,.3f", "All its durations added up; above busy when several ran at once."),
    "self_sum_ms": ("Self ms", "%,.3f", "Sum of what it launched itself, outside nested regions."),
    "span_ms": ("Span ms", "%,.3f", "Last end minus first start of what it launched, added over its instances."),
    "host_ms": ("Host ms", "%,.3f", "Time the Python thread spent inside the region."),
    "self_ms": ("Self ms", "%,.3f", "Host time inside it, less the operators it calls."),
    "mean_us": ("Mean µs", "%,.2f", "Average duration."),
    "median_us": ("Median µs", "%,.2f", "Half of them took less."),
    "min_us": ("Min µs", "%,.2f", "Shortest."),
    "max_us": ("Max µs", "%,.2f", "Longest."),
    "gpu_ms": ("GPU ms", "%,.3f", "Sum of the kernels, copies and sets it launched."),
    "self_gpu_ms": ("Self GPU ms", "%,.3f", "Of that, launched by this module itself, outside the modules it calls."),
    "nested_gpu_ms": ("With nested ms", "%,.3f", "GPU time, operators called inside it included."),
    "operator_host_ms": ("Host ms", "%,.3f", "Time inside it on the host, operators it calls included."),
    "call_host_ms": ("Host ms", "%,.3f", "Time the host spent inside these calls."),
    "gap_ms": ("Gaps ms", "%,.3f", "Distances between neighbours in which neither ran."),
    "median_delay_us": (
        "Median delay µs",
        "%,.2f",
        "From the end of the call to the start of its first kernel: half took less.",
    ),
    "max_delay_us": ("Max delay µs", "%,.2f", "The longest such delay: the kernel waited behind earlier work."),
    "short": ("Short", "%,d", "Calls that took longer than what they launched: there the GPU cannot stay busy."),
    "slow": ("Slow", "%,d", "Calls that took more than 50 µs."),
    "delayed": ("Delayed", "%,d", "Calls whose first kernel began more than 100 µs later."),
    "mean_length": ("Mean queue", "%,.1f", "Launched kernels that had not begun, on average over time."),
    "max_length": ("Max queue", "%,d", "The most that were waiting at once."),
    "empty_ms": ("Empty ms", "%,.3f", "How long nothing was waiting: the host was not ahead."),
    "empty_share": ("Empty %", "%.1f", "Share of the time in which nothing was waiting."),
    "batch_size": ("Batch", "%,d", "Images in one forward."),
    "layers": ("Layers", "%,d", "How many layers of that kind."),
    "per_image_ms": ("Per image ms", "%,.3f", "Median time divided by the batch size."),
    "one_per_image_ms": ("One layer ms", "%,.3f", "Time per image of one such layer, on average."),
    "efficiency": (
        "Efficiency",
        "%.2f",
        "Time per image at the smallest batch over that here; above 1 is better.",
    ),
    "median_ms": ("Median ms", "%,.3f", "Of a whole batch, over the iterations."),
    "q1_ms": ("25 % ms", "%,.3f", "A quarter of the iterations took less."),
    "q3_ms": ("75 % ms", "%,.3f", "Three quarters of the iterations took less."),
    "offset": ("Offset", "%,d", "Bytes from the beginning of the uncompressed text."),
    "rank": ("Rank", "%d", "Number of the process in the job."),
    "busy_share": ("Busy %", "%.1f", "Share of the recorded span in which at least one kernel or copy ran."),
    "total_ms": ("Span ms", "%,.3f", "From the first GPU event to the end of the last."),
    "computation_ms": ("Computation ms", "%,.3f", "Kernels that are not communication, and memory sets."),
    "communication_ms": ("Communication ms", "%,.3f", "NCCL and RCCL kernels, waiting included."),
    "exposed_communication_ms": ("Exposed ms", "%,.3f", "Communication during which nothing was computed."),
    "hidden_share": ("Hidden %", "%.1f", "Share of communication that computation hides."),
    "wait_ms": ("Waited ms", "%,.3f", "In collectives, until the last rank arrived."),
    "held_ms": ("Held others ms", "%,.3f", "How long others waited at collectives where this rank came last."),
    "collectives": ("Collectives", "%,d", "Recorded on this rank and on another."),
    "arrived_last": ("Came last", "%,d", "Collectives at which this rank arrived last."),
    "collective": ("No.", "%,d", "Number of the collective, in order."),
    "wait_us": ("Longest wait µs", "%,.2f", "Of the rank that waited longest."),
    "last_rank": ("Last rank", "%d", "The rank that arrived last; the others waited for it."),
    "waiting_rank": ("Waiting rank", "%d", "The rank that waited longest."),
    "transfer_us": ("Itself µs", "%,.2f", "The shortest kernel: nobody was waited for any more."),
    "calls": ("Calls", "%,d", "How often it was called on the host."),
    "launches": (
        "Launches",
        "%,d",
        "Kernel, copy and graph launches made inside it. One graph launch, many kernels.",
    ),
    "gpu_events": ("Events", "%,d", "Kernels, memory copies and memory sets it launched."),
    "instances": ("Times", "%,d", "How often the region was entered."),
    "count": ("Count", "%,d", "How often."),
    "stream": ("Stream", "%,d", "CUDA stream; work on one stream runs in order."),
    "device": ("GPU", "%,d", "Device number."),
    "peak_mib": ("Peak MiB", "%,.1f", "Highest allocated total of the device while the region was open."),
    "allocated_mib": ("Allocated MiB", "%,.1f", "Allocated while it was open."),
    "freed_mib": ("Freed MiB", "%,.1f", "Freed while it was open."),
    "net_mib": ("Net MiB", "%,.1f", "Allocated less freed: what it left behind."),
    "churn_mib": (
        "Churn MiB",
        "%,.1f",
        "Allocated inside it and freed before it closed: a buffer could save that.",
    ),
    "largest_mib": ("Largest MiB", "%,.1f", "The largest single allocation inside it."),
    "size_mib": ("Live MiB", "%,.1f", "Held by tensors allocated there."),
}
# Of the run that the letter in front stands for.
_COMPARED = {
    "ms": ("{} ms", "%,.3f", "Time in run {}: the median over its rounds (steps, batches), or in all without rounds."),
    "change": ("{} vs A %", "%+.1f", "How much longer (+) or shorter (-) {} takes than A."),
    "noise_ms": (
        "{} noise ± ms",
        "%,.3f",
        "How far {} and A may be apart by chance, from repeated instances.",
    ),
    "is": ("{} is", "", "{} against A: slower, faster, same (within the noise), new, or gone."),
    "mib": ("{} peak MiB", "%,.1f", "Highest allocated total in run {} while the region was open."),
    "more_mib": ("{} more MiB", "%+,.1f", "Peak of {} less that of A."),
}
_SHARE = "Of the whole: the top-level regions, all kernels, or all operators of this table."


def explained(frame: pd.DataFrame) -> dict[str, Any]:
    """The column configuration of a table from views/tables.py."""
    return {str(name): _column(str(name)) for name in frame.columns}


def height(rows: int, most: int) -> int:
    """Pixels for that many rows, at most `most`; the header is one."""
    return _ROW_PX * (min(max(rows, 1), most) + 1) + 3


def _column(name: str) -> Any:
    letter, _, what = name.partition("_")
    if what in _COMPARED and len(letter) == 1:
        title, shape, meaning = _COMPARED[what]
        made = st.column_config.NumberColumn if shape else st.column_config.TextColumn
        how = {"format": shape} if shape else {}
        return made(title.format(letter), help=meaning.format(letter), width=8 * len(title) + 12, **how)
    if name == "colour":
        return st.column_config.ImageColumn("", width=36, help=_TEXT[name][1])
    if name == "share":
        return st.column_config.ProgressColumn(
            "Share", format="%.1f %%", min_value=0.0, max_value=100.0, help=_SHARE, width=100
        )
    if name in _NUMBERS:
        title, shape, meaning = _NUMBERS[name]
        return st.column_config.NumberColumn(title, format=shape, help=meaning, width=max(_NUMBER_PX, 8 * len(title)))
    title, help_text = _TEXT[name]
    return st.column_config.TextColumn(title, help=help_text, width=_TEXT_PX[name])
