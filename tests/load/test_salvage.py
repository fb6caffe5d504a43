"""Broken files as they occur, in every layout: each whole event is loaded, and what is not is counted and placed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.errors import TraceFormatError
from profiler_kit.load.trace import split_events
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.load.trace.decompress import as_utf8
from tests.builders import TraceBuilder
from tests.load.test_cache import read_trace, write_trace

pytestmark = pytest.mark.usefixtures("both_readers")

LAYOUTS = ("kineto", "compact", "indented", "list")


def span(name: str, start: float = 1.0) -> dict[str, Any]:
    return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1, "ts": start, "dur": 1.0, "args": {"x": [1]}}


def text(layout: str, *names: str) -> str:
    events = [span(name) for name in names]
    if layout == "kineto":
        trace = TraceBuilder()
        trace.events = events
        return trace.kineto().decode()
    value: Any = events if layout == "list" else {"schemaVersion": 1, "traceEvents": events, "traceName": "t"}
    return json.dumps(value, indent=2 if layout == "indented" else None, separators=(", ", ": "))


def load(data: str | bytes, path: Path) -> tuple[str, tuple[int, int, bool], ChromeTrace]:
    """The names that were loaded, (repaired, dropped, truncated), and the trace."""
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    loaded = read_chrome_trace(path)
    names = " ".join(loaded.columns.names[code] for code in loaded.columns.name)
    quality = loaded.quality
    return names, (quality.repaired_events, quality.dropped_events, quality.truncated), loaded


DAMAGE = {  # (text to replace, once, by what): names that come out, (repaired, dropped, truncated)
    "a quote in a name": ('"b"', '"b"x"', 'a b"x c', (1, 0, False)),
    "a lone backslash in a name": ('"b"', '"b\\x"', "a b\\x c", (1, 0, False)),
    "a control character": ('"b"', '"b\x02"', "a b  c", (1, 0, False)),
    "a tab": ('"b"', '"b\t"', "a b  c", (1, 0, False)),
    "half a surrogate pair": ('"b"', '"b\\ud83d"', "a b� c", (1, 0, False)),
    "NaN as an argument": ('"b"', '"b", "y": NaN', "a b c", (1, 0, False)),
    "Infinity as an argument": ('"b"', '"b", "y": [-Infinity, N/A]', "a b c", (1, 0, False)),
    "NaN as a duration": ('"name": "b"', '"dur": NaN, "dux": 1, "name": "b"', "a b c", (1, 0, False)),
    "a trailing comma": ('"b"', '"b", "y": {"z": [1,],}', "a b c", (1, 0, False)),
    "a key twice": ('"name": "b"', '"name": "x", "name": "b"', "a b c", (0, 0, False)),
    "no word": ('"name": "b"', '"name": b', "a c", (0, 1, False)),
    "a negative duration": ('"name": "b"', '"name": "b", "duration": 1', "a b c", (0, 0, False)),
    "a bracket too many": ('"b"', '"b", "y": 1]', "a c", (0, 1, False)),
    "deep nesting": ('"b"', '"b", "y": ' + "[" * 100_000 + "]" * 100_000, "a c", (0, 1, False)),
    "deep nesting without end": ('"b"', '"b", "y": ' + '{"a":' * 100_000, "a c", (0, 1, False)),
    "the text of a trace in a name": ('"b"', json.dumps('{"traceEvents": [{"ph": "X"}]}'), None, (0, 0, False)),
    "a name of 3 MB": ('"b"', '"' + "b" * 3_000_000 + '"', None, (0, 0, False)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", DAMAGE)
def test_damage_to_one_event_costs_at_most_that_event(case: str, layout: str, tmp_path: Path) -> None:
    old, new, names, counts = DAMAGE[case]
    good = text(layout, "a", "b", "c")
    assert good.count(old) == 1
    found, lost, loaded = load(good.replace(old, new), tmp_path / "t.json")
    assert found == (names if names is not None else f"a {json.loads(new)} c")
    assert lost == counts
    kinds = [incident.kind for incident in loaded.quality.incidents]
    assert kinds == ["repaired"] * counts[0] + ["dropped"] * counts[1]
    assert all(abs(incident.offset - good.index('"b"')) < 150 for incident in loaded.quality.incidents)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lost_byte", [",", "}", "{"])
def test_a_separator_that_lost_a_byte(layout: str, lost_byte: str, tmp_path: Path) -> None:
    good = text(layout, *"abcdef")
    at = good.index(lost_byte, good.index('"args"', good.index('"c"')) + 20)
    names, (_, dropped, truncated), _ = load(good[:at] + good[at + 1 :], tmp_path / "t.json")
    assert set("abdef") - {"d"} <= set(names.split())
    assert len(names.split()) + dropped >= 6 or names == "a b c d e f"
    assert not truncated


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_list_closed_too_early_goes_on(layout: str, tmp_path: Path) -> None:
    good = text(layout, "a", "b", "c")
    at = good.rindex("{", 0, good.index('"b"'))
    comma = good.rindex(",", 0, at)
    names, counts, loaded = load(good[:comma] + "]" + good[comma + 1 :], tmp_path / "t.json")
    assert (names, counts) == ("a b c", (1, 0, False))
    assert [(incident.kind, incident.offset) for incident in loaded.quality.incidents] == [("closed early", comma)]
    assert loaded.metadata.get("traceName") == (None if layout == "list" else json.loads(good)["traceName"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_traces_in_one_file_are_never_mixed(layout: str, tmp_path: Path) -> None:
    first, second = text(layout, "a", "b"), text("kineto", "c", "d", "e")
    names, counts, loaded = load(first + "\n" + second, tmp_path / "t.json")
    assert (names, counts) == ("a b", (0, 3, False))
    (incident,) = loaded.quality.incidents
    assert incident.kind == "after the end"
    assert abs(incident.offset - len(first)) <= 1
    assert incident.text.startswith('{ "schemaVersion": 1')
    assert bool(loaded.metadata) == (layout != "list")


def test_an_empty_trace_before_another_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(TraceFormatError) as raised:
        load('{"traceEvents": []}\n' + text("compact", "a", "b"), path)
    assert str(raised.value) == (
        f"{path}: found a trace without a single event (nothing ran while it was recorded), and 2 events of another "
        "trace after its end, expected a chrome trace with events. Record one with profiler_runner, or with "
        "torch.profiler's export_chrome_trace."
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_junk_behind_the_end_is_named_and_costs_no_event(layout: str, tmp_path: Path) -> None:
    names, counts, loaded = load(text(layout, "a", "b") + "\nlog line\n", tmp_path / "t.json")
    assert (names, counts) == ("a b", (0, 0, False))
    assert [incident.kind for incident in loaded.quality.incidents] == ["after the end"]
    assert load(text(layout, "a", "b") + "\n\0\0\0", tmp_path / "t.json")[2].quality.incidents == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hole_of_zeros_costs_the_events_in_it(layout: str, tmp_path: Path) -> None:
    good = text(layout, *"abcdefgh")
    first, last = good.index('"c"'), good.index('"e"')
    names, counts, _ = load(good[:first] + "\0" * (last - first) + good[last:], tmp_path / "t.json")
    assert names in ("a b f g h", "a b e f g h")
    assert counts[1] + counts[0] >= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_line_ends_and_encodings_change_nothing(layout: str, tmp_path: Path) -> None:
    good = text(layout, "größe", "名", "c")
    for data in (
        good.replace("\n", "\r\n"),
        "\ufeff" + good,
        ("\ufeff" + good).encode("utf-16-le"),
        ("\ufeff" + good).encode("utf-16-be"),
        gzip.compress(("\ufeff" + good).encode("utf-16-le")),
    ):
        assert load(data, tmp_path / "t.json")[:2] == ("größe 名 c", (0, 0, False))


@pytest.mark.parametrize("name", ["t.json", "t.json.gz", "t.json.tmp", "t", "t.json.gz.tmp"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_name_of_the_file_means_nothing(name: str, packed: bool, tmp_path: Path) -> None:
    data = text("kineto", "a", "b").encode()
    assert load(gzip.compress(data) if packed else data, tmp_path / name)[0] == "a b"


def test_a_wrong_checksum_is_named(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(text("kineto", "a", "b").encode()))
    packed[-6] ^= 1
    names, counts, loaded = load(bytes(packed), tmp_path / "t.json.gz")
    assert (names, counts) == ("a b", (0, 0, False))
    assert [incident.kind for incident in loaded.quality.incidents] == ["corrupt"]


def test_spans_without_a_start_are_dropped_and_placed(tmp_path: Path) -> None:
    good = text("kineto", "a", "b", "c")
    at = good.index('"ts"', good.index('"b"'))
    names, counts, loaded = load(good[:at] + '"tx"' + good[at + 4 :], tmp_path / "t.json")
    assert (names, counts) == ("a c", (0, 1, False))
    (incident,) = loaded.quality.incidents
    assert incident.kind == "of no use"
    assert good[incident.offset :].startswith('{\n    "ph": "X", "cat": "cpu_op", "name": "b"')


def test_damage_in_every_block_is_placed_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler_kit.load.trace.decompress.BLOCK_BYTES", 900)
    monkeypatch.setattr(split_events, "BLOCK_BYTES", 900)
    monkeypatch.setattr(split_events, "SALVAGE_BYTES", 1800)
    good = text("kineto", *(f"e{number}" for number in range(60)))
    bad = good.replace('"e7"', '"e"7"').replace('"e23"', "e23").replace('"e41"', '"e41", "y": NaN')
    names, counts, loaded = load(bad, tmp_path / "t.json")
    assert names == " ".join('e"7' if number == 7 else f"e{number}" for number in range(60) if number != 23)
    assert counts == (2, 1, False)
    starts = [bad.rindex("{", 0, bad.index(piece)) for piece in ('"e"7"', "e23,", '"e41"')]
    assert [incident.offset for incident in loaded.quality.incidents] == starts


def test_a_malformed_event_every_few_is_mended(tmp_path: Path) -> None:
    bad = text("kineto", *(f"event {number}" for number in range(2000))).replace('00"', '00"x"')
    names, counts, _ = load(bad, tmp_path / "bad.json")
    assert counts == (bad.count('00"x"'), 0, False)
    assert len(names.split()) == 4000


def test_a_cached_trace_keeps_its_incidents(tmp_path: Path) -> None:
    good = text("kineto", "a", "b", "c")
    trace = load(good.replace('"b"', '"b"x"'), tmp_path / "t.json")[2]
    write_trace(trace, tmp_path / "t.trace", {})
    assert read_trace(tmp_path / "t.trace", {}).quality.incidents == trace.quality.incidents != ()


def test_a_list_that_is_closed_after_every_event_goes_on(tmp_path: Path) -> None:
    good = text("compact", *(f"e{number}" for number in range(3000)))
    names, (_, dropped, truncated), _ = load(good.replace("}, {", "}], {"), tmp_path / "t.json")
    assert (len(names.split()), dropped, truncated) == (3000, 0, False)


def test_an_event_that_never_ends_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_events, "EVENT_BYTES", 1 << 20)
    body = text("kineto", "a", "b")
    at = body.index('"b"') + 2
    names, counts, _ = load(body[:at] + "x" * (5 << 20), tmp_path / "t.json")
    assert names == "a"
    assert counts[2]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_utf16_comes_out_as_utf8_however_it_is_cut(encoding: str, size: int) -> None:
    data = ("\ufeff" + '[{"name": "größe 名"}]').encode(encoding)
    blocks = [data[at : at + size] for at in range(0, len(data), size)] if size > 1 else [data[:2], data[2:5], data[5:]]
    assert b"".join(as_utf8(blocks)).decode() == '[{"name": "größe 名"}]'


def test_other_text_passes_unchanged() -> None:
    blocks = [b"\xef\xbb\xbf[", b"{}]", b"\xff\xfe"]
    assert list(as_utf8(blocks)) == blocks


@pytest.mark.parametrize(
    "first", ['{"ph": \x01"X", "name": "k", "ts": 3, "dur": 3}', '{"ph": "{{X", "name": "a\\U", "ts": 0}']
)
def test_a_first_event_without_a_phase_that_can_be_read_takes_no_other_with_it(first: str, tmp_path: Path) -> None:
    whole = '{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 10, "dur": 20}'
    path = tmp_path / "t.json"
    path.write_text(f'{{"traceEvents": [{first}, {whole}]}}', encoding="utf-8")
    found = read_chrome_trace(path)
    assert [found.columns.names[code] for code in found.columns.name.tolist()] == ["aten::mm"]
    assert found.quality.dropped_events == 1


def test_a_broken_event_behind_another_layout_takes_no_other_with_it(tmp_path: Path) -> None:
    """A copy that was cut in the middle of an event and went on with one on a line each."""
    rest = ",\n    ".join(json.dumps(span(name)) for name in "cde").replace('"name": "d"', '"name": "d", "y": [[1], [')
    data = text("kineto", "a", "b").partition('"b"')[0] + f'"b\n    {rest}\n  ],\n  "traceName": "t"\n}}\n'
    assert load(data, tmp_path / "t.json")[:2] == ("a c e", (0, 2, False))


def test_a_time_that_is_no_utf8_beside_an_odd_type_costs_no_other_event(tmp_path: Path) -> None:
    """They are valid one by one, but were not read together: all were lost, and nothing was said."""
    odd, bad = span("b") | {"tid": 1.5}, span("c") | {"ts": "?"}
    path = tmp_path / "t.json"
    events = [span("a"), odd, bad, *(span(f"d{number}", number + 2.0) for number in range(9))]
    path.write_bytes(json.dumps(events).encode().replace(b"?", b"\xef"))
    quality = read_chrome_trace(path).quality
    assert (quality.events, quality.repaired_events, quality.dropped_events, quality.useless_events) == (12, 0, 1, 1)


def test_a_value_that_is_no_event_is_of_no_use_whatever_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    events = [json.dumps(span(name)) for name in "abcd"]
    broken = '{"ph": "X", "name": "e", "ts": 1, "dur": 1, "args": {"device": +1}}'
    path.write_text("[" + ",".join([events[0], broken, events[1], '{"x": 1e100}', broken, *events[2:]]) + "]")
    quality = read_chrome_trace(path).quality
    assert (quality.events, quality.repaired_events, quality.dropped_events, quality.useless_events) == (5, 0, 3, 1)
    assert [incident.kind for incident in quality.incidents] == ["dropped", "of no use", "dropped"]
