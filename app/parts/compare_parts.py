"""The parts of the compare page: which runs, what is said about them, and one function a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from app import cache, query_params
from app.parts import tables, timeline_parts, widgets
from profiler_kit.analyses.compare.partner import best_partner
from profiler_kit.analyses.compare.side_by_side import common_batches, compared, compared_layers
from profiler_kit.analyses.compare.snapshots import compare_snapshots
from profiler_kit.analyses.compare.traces import Comparison, Kind
from profiler_kit.findings.compare import DIFFERENT_ROUNDS, NOTHING_OF_THAT_KIND, not_compared, of_comparison, of_memory
from profiler_kit.findings.records import in_brief
from profiler_kit.load.discover.listing import recorded_at
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import compare
from profiler_kit.render.figures.tree import tree_figure
from profiler_kit.table import Value
from profiler_kit.tables import every_table
from profiler_kit.tables.diff import TREE, of_letter
from profiler_kit.text import fmt_path
from profiler_kit.timeline.several import common_regions, starts_of

Sides = dict[str, RunFolder]
Found = dict[str, Comparison]
VIEW_HELP = (
    "A change counts when it exceeds the noise: the notches around the medians (1.57 · IQR / √n) do not overlap. "
    "Kernels are matched by name without dtype and sizes, so that float and bfloat16 meet."
)
NO_PARTNER = (
    "No other run here is known to be of the same model, kind of device and task (run.json tells). Pick any run above, "
    "or record one like this:"
)
ALONE = "There is no other run here. Record one like this:"
_MOST = len(compare.LETTERS) - 1


def pick_others(run: RunFolder) -> list[RunFolder]:
    """The runs to compare with, kept in the address; without any there, the one that is most like this, if any is."""
    runs = {one.key: one for one in cache.runs() if one.key != run.key}
    wanted = st.query_params.get_all("with")
    for gone in (key for key in wanted if key not in runs and key != run.key):
        widgets.problem(f"{gone}: no run here (moved or deleted?). It is left out.")
    asked = [key for key in wanted if key in runs][:_MOST]
    partner = best_partner(run, list(runs.values()), recorded_at)
    default = asked or ([] if partner is None else [partner.key])
    chosen = st.multiselect(
        f"Compare {widgets.plain(run.label)} with",
        list(runs),
        default=default,
        key=f"with-{run.key}",
        format_func=lambda key: in_brief(runs[key]),
        max_selections=_MOST,
        help="The run on the left is A, what everything is compared with; these are B, C, …",
    )
    query_params.keep_all("with", chosen)
    return [runs[key] for key in chosen]


def legend(sides: Sides, of_a: str = " (what it is compared with)") -> None:
    """Which letter is which run. of_a: what to say of A."""
    colours = compare.run_colours()
    lines = [
        f'<span style="color:{colours[letter]}">■</span> **{letter}** {widgets.plain(run.label)}'
        + (of_a if letter == "A" else "")
        for letter, run in sides.items()
    ]
    st.markdown("&emsp;".join(lines), unsafe_allow_html=True)


def comparisons(sides: Sides) -> Found:
    """Each run against A; a run whose trace is missing or broken says so, the others go on."""
    found: Found = {}
    without = [letter for letter, run in sides.items() if run.trace is None]
    if (missing := not_compared(without)) is not None and len(without) < len(sides):
        widgets.note(missing)
    for letter, run in sides.items():
        if letter == "A" or letter in without or "A" in without:
            continue
        with widgets.one_line_errors(), st.spinner(f"Comparing {letter} with A …", show_time=True):
            found[letter] = cache.comparison(sides["A"], run)
    return found


def verdicts(sides: Sides, found: Found) -> None:
    """What changed, the first sentence large; letters in place of A and B."""
    for number, (letter, one) in enumerate(found.items()):
        first, *others = of_comparison(one, (sides["A"].record, sides[letter].record), b=letter)
        if len(found) == 1:
            widgets.say(first)
            st.markdown("\n".join(f"- {widgets.sentence(line)}" for line in others))
        else:
            st.markdown(" ".join(map(widgets.sentence, (first, *others))), help=None if number else VIEW_HELP)
    rounds = {one.round for one in found.values()}
    if len(rounds) > 1:
        widgets.note(DIFFERENT_ROUNDS)


def latency(sides: Sides) -> None:
    """The samples of all that have any."""
    samples = {letter: run.record.latency_ns for letter, run in sides.items() if run.record and run.record.latency_ns}
    if len(samples) > 1:
        st.subheader("Latency of a batch", help="Measured without the profiler; one dot is one timed iteration.")
        widgets.figure(compare.latency_boxes(samples), "compare-latency")


def _tables(names: Sequence[str], source: Mapping[str, Any], **options: Value) -> None:
    """Tables of one run against A, the first of them or the one that is picked."""
    letters = [letter for letter in source if letter != "A"]
    letter = letters[0]
    if len(letters) > 1:
        picked = st.segmented_control("Table of", letters, default=letter, key="of", required=True, bind="query-params")
        letter = picked if picked in letters else letter
    for name in names:
        filled = of_letter(every_table()[name], letter).of_source(source, run=letter, **options)
        if len(filled):
            tables.show(filled, f"compare-{name}", rows=14)


def regions(sides: Sides, found: Found) -> None:
    """Regions as bars and as a tree."""
    rows = compared(found)
    metric = "gpu" if all(one.metric == "gpu" for one in found.values()) else "host"
    mine = rows[(rows["kind"] == "region") & (rows["metric"] == metric)].reset_index(drop=True)
    if mine.empty:
        widgets.empty("No regions to compare", "Name the parts of your code:", 'with region("encoder"): ...')
        return
    what = "GPU busy time" if metric == "gpu" else "Host time"
    st.subheader(f"{what} of each region", help="Whiskers: the notch around the median over repeated instances.")
    widgets.figure(compare.compared_bars(mine), "compare-regions")
    _tables(["diff_regions"], found)


def _kind(kind: Kind, table: str, title: str) -> Callable[[Sides, Found], None]:
    def show(sides: Sides, found: Found) -> None:
        rows = compared(found)
        mine = rows[rows["kind"] == kind].reset_index(drop=True)
        if mine.empty:
            widgets.note(NOTHING_OF_THAT_KIND)
            return
        st.subheader(title, help=VIEW_HELP)
        widgets.figure(compare.compared_bars(mine), f"compare-{kind}")
        _tables([table], found)

    return show


def call_tree(sides: Sides, found: Found) -> None:
    """The trees of calls of A and of each other run, as a drawing and as a table."""
    traces = {letter: cache.run(run).trace for letter, run in sides.items()}
    for letter in found:
        filled = of_letter(TREE, letter).of_source({"A": traces["A"], "B": traces[letter]})
        st.subheader(f"A and {letter}: {TREE.title}", help=f"One row per {TREE.schema.row}. Red: more in {letter}.")
        picture = tree_figure(filled)
        if picture is not None:
            widgets.figure(picture, f"compare-tree-{letter}")
        tables.show(filled, f"compare-tree-table-{letter}", rows=14)


def timeline(sides: Sides, found: Found) -> None:
    """A and the others on one timeline and one clock, from an instance of a region on that all have."""
    folders = [sides["A"], *(sides[letter] for letter in found)]
    traces = [cache.trace(folder) for folder in folders]
    regions = {fmt_path(path): path for path in common_regions([one.region_instances() for one in traces])}
    begins, names = "the start of the recording", list(regions)
    with st.container(horizontal=True):
        chosen = st.selectbox("Align at", [*names, begins], key="align", bind="query-params", width=420)
        starts = [[one.zero_ns] for one in traces]
        if chosen in regions:
            starts = starts_of([one.region_instances() for one in traces], regions[chosen])
        most = min(map(len, starts))
        which = f"Which of its {most} instances"
        number = 1 if most == 1 else st.number_input(which, 1, most, key="aligned", width=220)
    own, *others = (instances[number - 1] for instances in starts)
    beside = tuple((folder, start - own) for folder, start in zip(folders[1:], others, strict=True))
    drawn = dict(zip(compare.LETTERS, folders, strict=False))
    if drawn != sides:  # one of them has no trace
        legend(drawn)
    timeline_parts.show(sides["A"], headed=False, beside=beside)
    widgets.go("timeline", "Open on the Timeline page", beside=timeline_parts.named(beside))


def layers(sides: Sides, found: Found) -> None:
    """Layers at a batch size that all have."""
    totals = {}
    for letter, run in sides.items():
        if run.layers is not None:
            with widgets.one_line_errors():
                totals[letter] = cache.layers(run).totals
    batches = common_batches(totals)
    if "A" not in totals or len(totals) < 2 or not batches:
        widgets.empty(
            "No layers to compare",
            "A and another run need layer timings at the same batch size. Record them:",
            widgets.record_hint(next((run for run in sides.values() if run.layers is None), sides["A"]), "layers"),
        )
        return
    batch = st.segmented_control(
        "Batch size", batches, default=batches[-1], required=True, key="batch", bind="query-params"
    )
    size = int(batch or batches[-1])
    st.subheader("Time per item of each layer", help="Whiskers: the notch around the median over the iterations.")
    widgets.figure(compare.compared_bars(compared_layers(totals, size)), "compare-layers")
    _tables(["diff_layers"], totals, batch_size=size)


def memory(sides: Sides, found: Found) -> None:
    """What is different in the memory: totals, peaks of regions, and stacks."""
    held = {}
    for letter, run in sides.items():
        if run.memory is not None:
            with widgets.one_line_errors():
                held[letter] = cache.snapshot(run)
    first = held.pop("A", None)
    if first is None or not held:
        widgets.empty(
            "No memory to compare",
            "A and another run need a memory snapshot. Record one:",
            'with memory_runner("memory.pickle"): step()',
        )
        return
    changes = {letter: compare_snapshots(first, other) for letter, other in held.items()}
    for letter, one in changes.items():
        said = " ".join(map(widgets.sentence, of_memory(one, [("A", first), (letter, held[letter])])))
        st.markdown(f"**{letter}:** {said}" if len(changes) > 1 else said)
    _tables(["memory_diff_totals", "memory_diff_regions", "memory_diff_stacks"], changes)


_OF_TRACES: dict[str, Callable[[Sides, Found], None]] = {
    "Regions": regions,
    "Timeline": timeline,
    "Call tree": call_tree,
    "Kinds of work": _kind("work", "diff_work", "GPU work by kind"),
    "Kernels": _kind("kernel", "diff_kernels", "Kernels, largest change first"),
    "Operators": _kind("operator", "diff_operators", "Operators, self time on the host"),
}
_OTHERS: dict[str, Callable[[Sides, Found], None]] = {"Layers": layers, "Memory": memory}


def views(sides: Sides, found: Found) -> dict[str, Callable[[Sides, Found], None]]:
    """What can be compared of these runs; of runs without a trace first what they both hold, if anything."""
    if found:
        return {**_OF_TRACES, **_OTHERS}
    shared = [part for part in ("memory", "layers") if all(getattr(run, part) is not None for run in sides.values())]
    return {name: _OTHERS[name] for name in (*(part.capitalize() for part in shared), *_OTHERS)} if shared else {}
