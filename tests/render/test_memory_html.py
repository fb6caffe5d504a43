from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler_kit.errors import OptionError
from profiler_kit.render.memory_page.pack import Packer
from profiler_kit.render.memory_page.page import FOLDER, bundle, memory_page, modules
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{data}}"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self._inside, []).append(data)


def hostile(tmp_path: Path) -> Snapshot:
    trace = [s.alloc(10, 0xFFFF_FFFF_FFFF_0000, 1 << 40, frames=[s.frame(EVIL, EVIL)]), *s.free(20, 0x5000, 7)]
    marks = [s.mark("START", EVIL, 5)]
    return load_snapshot(s.write(tmp_path / "m.pickle", s.snapshot(trace, [], marks=marks)))


def unpacked(page: str) -> tuple[dict[str, Any], bytes]:
    (text,) = re.findall(r'<script id="data" type="application/octet-stream">([^<]*)</script>', page)
    data = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(data[:4], "little")
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def column(planes: bytes, place: list[int]) -> list[int]:
    offset, items, width = place
    raw = np.frombuffer(planes, np.uint8, items * width, offset).reshape(width, items)
    return [sum(int(raw[plane, i]) << (8 * plane) for plane in range(width)) for i in range(items)]


def test_names_from_the_file_reach_the_page_packed_only(tmp_path: Path) -> None:
    page = memory_page(hostile(tmp_path), EVIL)
    tags = Tags(page)
    assert [tag for tag, _ in tags.tags].count("script") == 2
    assert "img" not in [tag for tag, _ in tags.tags]
    assert "".join(tags.text["title"]).strip() == EVIL
    head, _ = unpacked(page)
    assert head["frames"] == [[EVIL, EVIL, 1]]
    assert head["devices"][0]["paths"] == [[EVIL]]


def test_the_page_may_load_nothing(tmp_path: Path) -> None:
    page = memory_page(hostile(tmp_path), "m")
    tags = Tags(page)
    (policy,) = [attrs["content"] for tag, attrs in tags.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    script, style = (re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[0] for tag in ("script", "style"))
    allowed = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{allowed[0]}'; style-src 'sha256-{allowed[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not [attrs for _, attrs in tags.tags if {"src", "href", "style", "onclick", "onerror"} & set(attrs)]
    assert "http://" not in script and "https://" not in script


def test_the_script_never_parses_text_as_markup() -> None:
    script = bundle()
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "</script"):
        assert word not in script


def test_every_module_is_in_the_script_after_what_it_needs_and_names_are_unique() -> None:
    assert set(modules()) == {path.name for path in FOLDER.glob("*.js")} and modules()[-1] == "input.js"
    assert modules().index("format.js") < modules().index("tables.js")
    assert "import " not in bundle() and "export " not in bundle()
    names = re.findall(r"^(?:async )?(?:function\*?|class|const|let) ([\w$]+)", bundle(), re.M)
    assert len(names) == len(set(names)) > 100


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_scales_formats_search_and_columns() -> None:
    """The parts that draw nothing; see memory_page.test.mjs."""
    tests = Path(__file__).with_name("memory_page.test.mjs")
    done = subprocess.run(["node", "--test", tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_columns_say_what_the_replay_says(tmp_path: Path) -> None:
    head, planes = unpacked(memory_page(hostile(tmp_path), "m", device=1))
    assert head["first"] == 1
    first, second = head["devices"]
    assert second["events"] == 0
    assert np.cumsum(column(planes, first["born"])).tolist() == [0, 1]
    assert column(planes, first["life"]) == [3, 0]
    assert column(planes, first["size"]) == [7, 1 << 40]
    assert column(planes, first["address_high"]) == [0, 0xFFFF_FFFF]
    assert column(planes, first["address_low"]) == [0x5000, 0xFFFF_0000]
    assert column(planes, first["region"]) == [0, 1]
    assert column(planes, first["time"]) == [5, 10, 0]
    assert "allocated_bytes" not in first


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_totals_of_real_captures_follow_from_the_allocations(path: Path) -> None:
    found = load_snapshot(path)
    head, planes = unpacked(found.html("m"))
    for device in head["devices"]:
        assert "allocated_bytes" not in device  # only a history with a gap needs them beside
        born = np.cumsum(column(planes, device["born"]))
        life, size = column(planes, device["life"]), column(planes, device["size"])
        totals = np.zeros(device["events"] + 2, np.int64)
        for start, states, held in zip(born.tolist(), life, size, strict=True):
            totals[start] += held
            totals[start + states if states else -1] -= held
        assert np.cumsum(totals)[:-1].tolist() == found.replay(device["device"]).allocated_bytes.tolist()


def test_a_history_with_a_gap_brings_its_totals_along(tmp_path: Path) -> None:
    trace = [s.alloc(1, 0x1000, 10), s.alloc(2, 0x1000, 20)]
    found = load_snapshot(s.write(tmp_path / "m.pickle", s.snapshot(trace)))
    head, planes = unpacked(memory_page(found, "m"))
    assert column(planes, head["devices"][0]["allocated_bytes"]) == [0, 10, 30]


def test_regions_of_dropped_events_stay_away(tmp_path: Path) -> None:
    marks = [
        s.mark("START", "gone", 1),
        s.mark("START", "around", 5),
        s.mark("END", "gone", 6),
        s.mark("END", "around", 9),
    ]
    found = load_snapshot(s.write(tmp_path / "m.pickle", s.snapshot([s.alloc(8, 1, 1)], marks=marks)))
    head, planes = unpacked(memory_page(found, "m"))
    (device,) = head["devices"]
    assert device["origin_us"] == s.T0 + 5
    assert (column(planes, device["span_start"]), column(planes, device["span_end"])) == ([0], [4])
    assert device["peak_region"] == ["gone", "around"]


def test_packing_round_trip() -> None:
    packer = Packer()
    columns = [np.array(values, np.int64) for values in ([], [0], [255, 256, 3], [1 << 40, 7])]
    places = [packer.add(values) for values in columns]
    data = gzip.decompress(packer.pack({}))
    planes = data[4 + int.from_bytes(data[:4], "little") :]
    assert [place[2] for place in places] == [1, 1, 2, 6]
    assert [column(planes, place) for place in places] == [values.tolist() for values in columns]


def test_no_device_at_all(tmp_path: Path) -> None:
    found = load_snapshot(s.write(tmp_path / "m.pickle", s.snapshot()))
    head, _ = unpacked(found.html("m"))
    assert (head["devices"], head["first"]) == ([], None)


def test_unknown_device(tmp_path: Path) -> None:
    found = hostile(tmp_path)
    with pytest.raises(OptionError) as caught:
        memory_page(found, "m", device=9)
    assert str(caught.value) == f"device 9: not in {found.path}, found 0, 1. Choose one of these with --device."
