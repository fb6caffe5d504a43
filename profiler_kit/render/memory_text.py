"""Put findings about memory into words (OomReport, Advice -> sentences)."""

from __future__ import annotations

from profiler_kit.analyses.memory.oom import Advice, OomReport
from profiler_kit.text import fmt_bytes, fmt_percent

CONFIG = "PYTORCH_CUDA_ALLOC_CONF"


def oom_lines(report: OomReport) -> list[str]:
    """What was asked, what there was, and why it did not do; then what would have helped and what not."""
    free = report.device_free_bytes
    lines = [
        f"asked for {fmt_bytes(report.requested_bytes)}"
        + (f", a segment of {fmt_bytes(report.segment_bytes)} from the driver" if free is not None else ""),
        f"{'an unknown amount' if free is None else fmt_bytes(free)} free on the device, "
        f"{fmt_bytes(report.reserved_bytes)} reserved by this process, of it "
        f"{fmt_bytes(report.allocated_bytes)} allocated",
    ]
    if report.cached_bytes:
        parts = [f"{fmt_bytes(report.split_bytes)} beside blocks in use"] if report.split_bytes else []
        parts += [f"{fmt_bytes(report.private_bytes)} in pools of CUDA graphs"] if report.private_bytes else []
        parts += [f"{fmt_bytes(report.other_stream_bytes)} on other streams"] if report.other_stream_bytes else []
        lines.append(
            f"{fmt_bytes(report.cached_bytes)} reserved and in no active block"
            + (f" ({', '.join(parts)})" if parts else "")
            + f"; its largest free block is {fmt_bytes(report.largest_free_bytes)}"
        )
    return lines + [advice_text(one) for one in report.advice]


def advice_text(one: Advice) -> str:
    """One sentence: the setting, whether it would have helped, and the numbers that say so."""
    n = {name: fmt_bytes(value) for name, value in one.numbers.items() if name != "limit_mb"}
    if one.setting == "limit":
        return (
            f"Raise the limit: the device had {n['room']} free, enough for {n['need']}, so that a limit of the process "
            "(torch.cuda.set_per_process_memory_fraction) stood in the way."
        )
    if one.setting == "expandable_segments":
        sum_ = f"{n['free']} free on the device and {n['cached']} cached make {n['room']}"
        if one.helps:
            return (
                f"Set {CONFIG}=expandable_segments:True: {sum_}, enough for {n['need']} once it need not be one piece."
            )
        return f"expandable_segments:True would not have helped: {sum_}, less than {n['need']}."
    if one.setting == "max_split_size_mb":
        where = f"a segment of {n['room']} holds only {n['used']}, in blocks of at most {n['largest_used']}"
        if one.helps:
            setting = f"{CONFIG}=max_split_size_mb:{one.numbers['limit_mb']}"
            return f"Or set {setting}: {where}, and would have been left whole for {n['need']}."
        return f"max_split_size_mb is set already, and still {where}: choose a smaller one."
    if one.setting == "pools":
        held = f"{n['private']} lies free in pools of CUDA graphs and {n['streams']} on other streams"
        if one.helps:
            return f"Share one pool between the CUDA graphs, or use fewer streams: {held}, which nobody else may use."
        return f"Sharing pools of CUDA graphs or streams would not have helped: {held}, together too little."
    if one.setting == "garbage_collection_threshold":
        return (
            "garbage_collection_threshold would not have helped: it gives whole cached segments back earlier, and the "
            f"allocator does so anyway before it fails ({n['whole']} of such was left)."
        )
    return _batch_text(one, n)


def _batch_text(one: Advice, n: dict[str, str]) -> str:
    missing, scales = one.numbers["missing"], max(one.numbers["scales"], 1)
    if not one.helps:
        return (
            f"A smaller batch would not have helped: {n['missing']} were missing, and what was allocated since the "
            f"recording began, the failed allocation included, is {n['scales']}."
        )
    return (
        f"Use a smaller batch: {n['missing']} were missing. If what was allocated since the recording began "
        f"({n['scales']}, the failed allocation included) grows with it, one {fmt_percent(missing / scales)} smaller "
        "would have fitted."
    )
