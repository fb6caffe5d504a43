"""Frames as people read them: totals in; columns named with their units, times in ms or µs, and shares, out."""

from __future__ import annotations

from urllib.parse import quote

import pandas as pd

from profiler_kit.analyses.compare.clock import REGION_MEMORY_TOTALS
from profiler_kit.analyses.gpu.kernels import KERNEL_TOTALS
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.analyses.gpu.window import OPERATOR_SUMS
from profiler_kit.analyses.memory.regions import MEMORY_REGIONS
from profiler_kit.analyses.memory.replay import MEMORY_LIVE
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.text import MISSING, fmt_ns, fmt_path
from profiler_kit.timeline.palette import region_colours
from profiler_kit.units import bytes_to_mib, ns_to_ms, ns_to_us

INDENT = "\u2003"
REGION_LETTERS, KERNEL_LETTERS = 26, 42  # what fits into the column of a page


def region_table(regions: pd.DataFrame, *, host: bool = False, utilization: pd.DataFrame | None = None) -> pd.DataFrame:
    """REGION_TOTALS as a tree: a colour, an indented name, share of the rows at the top, then the numbers.

    With `host` (a run without GPU events) only what a CPU run has: host time and instances. utilization:
    REGION_UTILIZATION of the same trace, for what bounds each region and how busy the GPU is while it runs.
    """
    REGION_TOTALS.check(regions)
    column = "host_ns" if host else "busy_ns"
    whole = int(regions.loc[regions["path"].map(len) == 1, column].sum()) or 1
    colour = region_colours(name for path in regions["path"] for name in path)
    table = pd.DataFrame(
        {
            "colour": [swatch(colour[path[-1]]) for path in regions["path"]],
            "region": _tree(regions["path"]),
            "share": 100 * regions[column] / whole,
        }
    )
    if host:
        return table.assign(host_ms=regions["host_ns"].map(ns_to_ms), instances=regions["instances"])
    if utilization is not None:
        REGION_UTILIZATION.check(utilization)
        by_path = utilization.set_index(pd.Series(map(fmt_path, utilization["path"]), dtype=object))
        mine = by_path.reindex([fmt_path(path) for path in regions["path"]])
        table["bound"] = mine["verdict"].fillna(MISSING).to_numpy()
        table["utilization"] = 100 * mine["utilization"].to_numpy()
    for name in ("busy", "host", "sum", "self_sum", "span"):
        table[f"{name}_ms"] = regions[f"{name}_ns"].map(ns_to_ms)
    for name in ("launches", "gpu_events", "instances"):
        table[name] = regions[name]
    return table


def kernel_table(kernels: pd.DataFrame) -> pd.DataFrame:
    """KERNEL_TOTALS with the share of their sum."""
    KERNEL_TOTALS.check(kernels)
    whole = int(kernels["sum_ns"].sum()) or 1
    return pd.DataFrame(
        {
            "kernel": [printable(name) for name in fit_names(kernel_names(list(kernels["name"])), KERNEL_LETTERS)],
            "share": 100 * kernels["sum_ns"] / whole,
            "sum_ms": kernels["sum_ns"].map(ns_to_ms),
            "count": kernels["count"],
            "mean_us": kernels["mean_ns"].map(ns_to_us),
            "min_us": kernels["min_ns"].map(ns_to_us),
            "max_us": kernels["max_ns"].map(ns_to_us),
            "stream": kernels["stream"],
            "device": kernels["device"],
            "category": kernels["category"],
            "full_name": kernels["name"].map(printable),
        }
    )


def operator_table(operators: pd.DataFrame) -> pd.DataFrame:
    """OPERATOR_SUMS with the share of all self time."""
    OPERATOR_SUMS.check(operators)
    whole = int(operators["self_ns"].sum()) or 1
    return pd.DataFrame(
        {
            "operator": operators["name"].map(printable),
            "share": 100 * operators["self_ns"] / whole,
            "self_ms": operators["self_ns"].map(ns_to_ms),
            "sum_ms": operators["sum_ns"].map(ns_to_ms),
            "count": operators["count"],
        }
    )


def memory_region_table(regions: pd.DataFrame) -> pd.DataFrame:
    """MEMORY_REGIONS of one device as a tree, in MiB."""
    MEMORY_REGIONS.check(regions)
    colour = region_colours(name for path in regions["path"] for name in path)
    table = pd.DataFrame(
        {
            "colour": [swatch(colour[path[-1]]) for path in regions["path"]],
            "region": _tree(regions["path"]),
        }
    )
    for name in ("peak", "allocated", "freed", "net", "churn", "largest"):
        table[f"{name}_mib"] = regions[f"{name}_bytes"].map(bytes_to_mib)
    return table.assign(instances=regions["instances"])


def joined_table(totals: pd.DataFrame) -> pd.DataFrame:
    """REGION_MEMORY_TOTALS of one device as a tree: what each region ran on the GPU and what it allocated."""
    REGION_MEMORY_TOTALS.check(totals)
    colour = region_colours(name for path in totals["path"] for name in path)
    return pd.DataFrame(
        {
            "colour": [swatch(colour[path[-1]]) for path in totals["path"]],
            "region": _tree(totals["path"]),
            "busy_ms": totals["busy_ns"].map(ns_to_ms),
            "sum_ms": totals["sum_ns"].map(ns_to_ms),
            "gpu_events": totals["gpu_events"],
            "peak_mib": totals["peak_bytes"].map(bytes_to_mib),
            "allocated_mib": totals["allocated_bytes"].map(bytes_to_mib),
            "net_mib": totals["net_bytes"].map(bytes_to_mib),
            "instances": totals["instances"],
        }
    )


def live_table(live: pd.DataFrame, stacks: list[str]) -> pd.DataFrame:
    """MEMORY_LIVE with where each was allocated; `stacks` names one stack a row."""
    MEMORY_LIVE.check(live)
    return pd.DataFrame(
        {
            "where": [printable(name) for name in stacks],
            "share": 100 * live["share"],
            "size_mib": live["size_bytes"].map(bytes_to_mib),
            "count": live["count"],
        }
    )


def record_table(record: RunRecord) -> pd.DataFrame:
    """What ran: one row a fact."""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    phases = ", ".join(f"{name} {fmt_ns(value)}" for name, value in record.phases_ns.items() if value)
    facts = {
        "Model": record.model,
        "Weights": record.weights,
        "Optimizations": ", ".join(record.optimizations) or "none",
        "Batch": ", ".join(filter(None, (record.batch, record.dtype))),
        "Device": f"{record.device_name} ({record.device})",
        "Versions": versions,
        "Iterations": f"{record.timed_iterations} timed after {record.warmup_iterations} of warm-up",
        "Phases": phases,
        **{name.capitalize(): str(value) for name, value in record.workload.items() if name not in ("spec", "unit")},
        "Workload": str(record.workload.get("spec", "")),
        "Recorded": record.created,
        "Commit": record.git_commit or "",
        "Command": record.command,
        "Notes": " · ".join(record.notes),
    }
    rows = [(name, printable(str(value))) for name, value in facts.items() if value]
    return pd.DataFrame(rows, columns=["fact", "value"])


def _tree(paths: pd.Series) -> list[str]:
    """Names indented below the region around them, shortened so that they stay apart."""
    widths = [max(14, REGION_LETTERS - 2 * (len(path) - 1)) for path in paths]
    names = fit_names([path[-1] for path in paths], widths)
    return [INDENT * (len(path) - 1) + printable(name) for path, name in zip(paths, names, strict=True)]


def printable(text: str) -> str:
    """The text with what cannot be printed shown as �."""
    return "".join(c if c.isprintable() else "�" for c in text) or MISSING


def swatch(colour: str) -> str:
    """A small square of that colour, as an image in a data URL."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" fill="{colour}"/></svg>'
    )
    return "data:image/svg+xml," + quote(svg)


def path_label(path: tuple[str, ...]) -> str:
    """A region path for a heading."""
    return printable(fmt_path(path))
