"""The memory page in a real Chromium: it draws, loads nothing, and runs nothing that came with the file."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s

CHROMIUM = Path("/usr/bin/chromium")
EVIL = "</script><img src=x onerror=alert(2)>"
MiB = 1 << 20

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


SHOWN = """(({ device }, last = device.states - 1) => ({
    series: {
        allocated: [...device.allocated],
        reserved: [...Array(device.states).keys()].map((state) => device.reservedAt(state)),
        active: [...device.heap.active],
        largest: [...device.heap.largest],
        split: [...device.heap.active].map((active, at) => device.reserved[at] - active - device.heap.unused[at]),
    },
    blocks: segmentsAt(device, last).flatMap((segment) => segment.blocks.map(({ i, start, bytes, pending }) =>
        [start, bytes, i < 0 ? "inactive" : `active_${pending ? "pending_free" : "allocated"}`])),
    summary: {
        device: device.device, events: device.events,
        peak_allocated_bytes: device.allocated.reduce((a, b) => Math.max(a, b)),
        peak_time_us: device.origin_us + device.time[device.allocated.indexOf(device.peakBytes)],
        end_allocated_bytes: device.allocated[last], reserved_bytes: device.reservedAt(last),
        fragmentation: 1 - device.heap.active[last] / device.reservedAt(last), history_truncated: device.truncated,
        oom: device.ooms.map((oom) => oom.requested_bytes),
    },
}))(memoryPage)"""
FLAME = """(({ flame }) => flame.boxes.map(
    (box) => [flame.label(box.chain || [box.node]), box.node.bytes / 2 ** 20]))(memoryPage)"""
STATE = "(({ view, moment, axis, searched, kept }) => [view, moment, axis.from, axis.to, searched, kept])(memoryPage)"


def torch_blocks(found: Snapshot) -> list[list[object]]:
    """The blocks that torch wrote at the end, by address."""
    blocks = found.blocks[found.blocks["device"] == 0].sort_values("address")
    columns = (blocks["address"].tolist(), blocks["size_bytes"].tolist(), blocks["state"].tolist())
    return [list(row) for row in zip(*columns, strict=True)]


class Opened:
    """A page with what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, link: str = "") -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(f"{path.as_uri()}#{link}" if link else path.as_uri())
        self.page.wait_for_selector("html[data-ready]")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def ask(self, expression: str) -> Any:
        return self.page.evaluate(expression)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    own = [s.frame("linear", "torch/nn/functional.py", 7), s.frame("step", "work/train.py", 12)]
    trace = [
        s.event("segment_alloc", 100, 0, 64 * MiB),
        s.alloc(1000, 0, 30 * MiB, frames=own),
        s.alloc(2000, 32 * MiB, 10 * MiB, frames=[s.frame(EVIL, EVIL)]),
        {"action": "oom", "size": 60 * MiB, "device_free": 3 * MiB, "stream": 0, "time_us": s.T0 + 3000},
        *s.free(5000, 0, 30 * MiB),
        s.alloc(9000, 0, 1 * MiB),
    ]
    marks = [s.mark("START", EVIL, 0), s.mark("START", "inner", 1500), s.mark("END", "inner", 4000)]
    held = [
        s.block(0, 1 * MiB, 1 * MiB),
        s.block(1 * MiB, 31 * MiB, 0, "inactive"),
        s.block(32 * MiB, 10 * MiB, 10 * MiB),
        s.block(42 * MiB, 22 * MiB, 0, "inactive"),
    ]
    data = s.snapshot(trace, [s.alloc(1, 0, 5)], segments=[s.segment(0, 64 * MiB, *held)], marks=marks)
    found = load_snapshot(s.write(tmp_path / "m.pickle", data))
    out = tmp_path / "page.html"
    out.write_text(found.html(EVIL), encoding="utf-8")
    return out


def test_says_the_peak_when_where_and_who(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    facts = opened.text("#facts").split("\n")
    assert [line for line in facts if line] == [
        "Peak allocated", "40.0 MiB", "at 2.000 ms",
        "In region", f"{EVIL} > inner",
        "Held most by", "step › linear", "75.0 % of the peak, work/train.py:12",
        "Reserved at the end", "64.0 MiB", "11.0 MiB allocated, 82.8 % in no active block",
    ]  # fmt: skip
    assert opened.text("#notices").startswith("Out of memory at 3.000 ms: asked for 60.0 MiB; 3.0 MiB free")
    assert opened.text("#live tbody").split("\n") == [
        "step › linear work/train.py:12\t1\t30.0 MiB\t75.0 %",
        f"{EVIL} {'/'.join(EVIL.split('/')[-2:])}:1\t1\t10.0 MiB\t25.0 %",
    ]
    assert opened.requests == [page.as_uri()]
    assert opened.complaints == []


def test_moves_searches_and_keeps(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    driver = opened.page
    driver.keyboard.press("p")
    driver.wait_for_timeout(50)
    assert opened.ask("memoryPage.axis.from < 2000 && memoryPage.axis.to > 2000 && memoryPage.axis.to < 9000")
    driver.keyboard.press("w")
    driver.keyboard.press("d")
    driver.keyboard.press("r")
    assert opened.ask("[memoryPage.axis.from, memoryPage.axis.to]") == [0, 9000]
    driver.fill("#search", "functional.py:7")
    assert opened.text("#found") == "1 allocation, 30.0 MiB at the peak"
    driver.fill("#search", "0x2000001")
    assert opened.text("#found") == "1 allocation, 10.0 MiB at the peak"
    driver.fill("#search", "")
    driver.locator("#search").blur()
    box = driver.locator("#chart").bounding_box()
    driver.mouse.click(box["x"] + 76 + 0.15 * (box["width"] - 92), box["y"] + box["height"] - 30)
    assert "31,457,280 B" in opened.text("#detail")
    assert "step work/train.py:12" in opened.text("#detail")
    assert opened.text("#live-title").startswith("Live at 1.3")
    driver.keyboard.press("Escape")
    assert opened.text("#live-title") == "Live at the peak: 40.0 MiB"
    assert opened.complaints == []


def test_other_axis_colours_and_device(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    opened.page.click("text=event order")
    assert opened.ask("memoryPage.axis.end") == 8
    for colour, first in (("region", f"{EVIL}\t1\t30.0 MiB"), ("stream", "default stream\t2\t40.0 MiB")):
        opened.page.click(f"fieldset span:text-is('{colour}')")
        assert opened.text("#live tbody").startswith(first)
    opened.page.select_option("#device", "1")
    opened.page.wait_for_timeout(50)
    assert opened.text("#facts dd").split("\n")[0] == "5 B"
    assert opened.complaints == []


def test_a_click_shows_the_segments_and_blocks_of_that_moment(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    driver = opened.page
    driver.click("role=tab[name='Allocator state']")
    assert opened.text("#state-facts") == "1 segment · 40.0 MiB in active blocks · 24.0 MiB inactive"
    box = driver.locator("#chart").bounding_box()
    driver.mouse.click(box["x"] + 76 + 0.15 * (box["width"] - 92), box["y"] + 5)
    assert opened.text("#state-facts") == "1 segment · 30.0 MiB in active blocks · 34.0 MiB inactive"
    bars = driver.locator("#state canvas").bounding_box()
    left, width = bars["x"] + 236, bars["width"] - 248
    driver.mouse.click(left + width * 30 / 64 / 2, bars["y"] + 15)
    assert "step work/train.py:12" in opened.text("#detail")
    driver.mouse.click(left + width * 0.7, bars["y"] + 15)
    assert opened.text("#detail-title") == "Inactive block"
    assert "34.0 MiB (35,651,584 B)" in opened.text("#detail")
    driver.keyboard.press(",")
    assert opened.text("#moment-text") == "100 µs · event 1 · segment_alloc 64.0 MiB at 0x0"
    for key, said in ((".", "alloc"), (".", "alloc"), (".", "out of memory"), (".", "free_requested 30.0 MiB")):
        driver.keyboard.press(key)
        assert f"· {said}" in opened.text("#moment-text")
    for _ in range(2):
        driver.keyboard.press(",")
    assert opened.text("#moment-text").startswith("peak, 2.000 ms · event 3 · alloc 10.0 MiB at 0x2000000")
    assert opened.complaints == []


def test_every_view_says_what_it_is_for(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    driver = opened.page
    driver.keyboard.press("2")
    assert opened.text("#flame-title") == "Live at the peak: 40.0 MiB"
    assert opened.ask(FLAME) == [["all", 40], ["step", 30], [EVIL, 10]]
    driver.check("#flame-regions")
    assert opened.ask("memoryPage.flame.boxes.length") == 4  # the one made in `inner` stands below that region
    driver.keyboard.press("4")
    assert opened.text("#segments tbody").split("\t")[:4] == ["0x0", "64.0 MiB", "40.0 MiB", "24.0 MiB"]
    driver.keyboard.press("5")
    assert opened.text("#pools tbody").startswith("default pool\t1\t64.0 MiB\t100.0 %\t40.0 MiB")
    driver.keyboard.press("6")
    assert "Largest free block\n22.0 MiB" in opened.text("#fragments-facts")
    driver.fill("#fit-size", "23")
    assert opened.text("#fits tbody").endswith("\t0")
    driver.fill("#fit-size", "22")
    assert opened.text("#fits tbody").endswith("\t1")
    driver.keyboard.press("Escape")
    driver.locator("#fit-size").blur()
    driver.keyboard.press("7")
    assert opened.text("#regions tbody").split("\n") == [
        f"{EVIL}\t1\t40.0 MiB\t41.0 MiB\t30.0 MiB\t+11.0 MiB",
        "inner\t1\t40.0 MiB\t10.0 MiB\t0.0 MiB\t+10.0 MiB",
        "(no region)\t\t0.0 MiB\t0.0 MiB\t0.0 MiB\t0.0 MiB",
    ]
    driver.keyboard.press("8")
    assert "expandable_segments\tfalse" in opened.text("#settings")
    driver.keyboard.press("?")
    assert driver.locator("#help").is_visible()
    assert opened.complaints == []


def test_any_text_is_only_text(browser: Any, tmp_path: Path) -> None:
    names = [EVIL, "\u202egnp.exe\u202c RTL", "nul\0inside", "x" * 20_000, "\u540d\u524d", "\n\t newline", "{{data}}"]
    trace = [s.alloc(10 + i, i << 12, 4096, frames=[s.frame(name, name, 3)]) for i, name in enumerate(names)]
    marks = [s.mark(stage, name, 10 + i) for i, name in enumerate(names) for stage in ("START", "END")]
    held = [s.block(i << 12, 4096, 4096) for i in range(len(names))]
    data = s.snapshot(trace, segments=[s.segment(0, len(names) << 12, *held)], marks=marks)
    out = tmp_path / "page.html"
    out.write_text(load_snapshot(s.write(tmp_path / "m.pickle", data)).html("m"), encoding="utf-8")
    opened = Opened(browser, out)
    for view in ("flame", "state", "segments", "pools", "fragmentation", "regions", "settings", "memory"):
        opened.ask(f"memoryPage.show('{view}')")
        opened.page.wait_for_timeout(20)
    assert opened.ask("document.querySelectorAll('img, iframe, script[src]').length") == 0
    assert opened.ask("document.documentElement.scrollWidth <= innerWidth")  # nothing pushes the page apart
    lengths = opened.ask("[...document.querySelectorAll('#live tbody tr')].map((row) => row.textContent.length)")
    assert len(lengths) == len(names) and max(lengths) < 1000
    opened.page.fill("#search", "newline")
    assert opened.text("#found").startswith("1 allocation")
    opened.page.keyboard.press("Enter")
    opened.page.locator("#search").blur()
    opened.page.keyboard.press("c")
    assert opened.text("#copy") == "Copied"
    assert opened.requests == [out.as_uri()]
    assert opened.complaints == []


def test_says_what_the_ring_buffer_dropped(browser: Any, tmp_path: Path) -> None:
    trace = [*s.free(10, 0x9000, 5), s.alloc(20, 0x1000, 10)]
    held = [s.block(0x1000, 512, 10), s.block(0x2000, 512, 7, frames=[s.frame("f")])]
    data = s.snapshot(trace, segments=[s.segment(0, MiB, *held)])
    data["profiler_kit"] = {"source": "cuda", "max_entries": 3}
    out = tmp_path / "page.html"
    out.write_text(load_snapshot(s.write(tmp_path / "m.pickle", data)).html("m"), encoding="utf-8")
    assert Opened(browser, out).text("#notices") == (
        "The history lost its beginning: at least 2 recorded allocations are missing (1 freed later, 1 live to the "
        "end), so that an earlier peak may be too. The ring buffer held 3 events. Record with a larger max_entries."
    )


def test_the_page_fits_a_frame_without_an_address(browser: Any, page: Path, tmp_path: Path) -> None:
    """As a notebook and the dashboard show it."""
    frame = tmp_path / "frame.html"
    inner = html.escape(page.read_text(encoding="utf-8"))
    style = "width:100%;height:700px"
    frame.write_text(f'<iframe srcdoc="{inner}" sandbox="allow-scripts" style="{style}"></iframe>', encoding="utf-8")
    driver = browser.new_context(viewport={"width": 1000, "height": 760}).new_page()
    complaints: list[str] = []
    driver.on("pageerror", lambda error: complaints.append(str(error)))
    driver.goto(frame.as_uri())
    inside = driver.frame_locator("iframe")
    inside.locator("html[data-ready]").wait_for()
    inside.get_by_role("tab", name="Allocator state").click()
    assert inside.locator("#state-facts").inner_text().startswith("1 segment")
    assert complaints == []
    driver.context.close()


def test_the_address_keeps_the_view(browser: Any, page: Path) -> None:
    opened = Opened(browser, page)
    driver = opened.page
    driver.keyboard.press("3")
    driver.keyboard.press(",")
    driver.keyboard.press("w")
    driver.fill("#search", "step")
    driver.keyboard.press("Enter")
    driver.click("#theme")
    driver.wait_for_function("location.hash.includes('theme=dark')")
    again = Opened(browser, Path(page), driver.url.partition("#")[2])
    before, after = opened.ask(STATE), again.ask(STATE)
    assert (before[0], before[1], before[4:]) == ("state", 2, ["step", {"allocation": 0}])
    assert after == [*before[:2], *[pytest.approx(value, abs=0.1) for value in before[2:4]], *before[4:]]
    assert again.ask("getComputedStyle(document.body).backgroundColor") == "rgb(26, 26, 25)"
    assert again.complaints == []


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_real_captures_draw(browser: Any, tmp_path: Path, path: Path) -> None:
    found = load_snapshot(path)
    out = tmp_path / "page.html"
    out.write_text(found.html(path.name), encoding="utf-8")
    opened = Opened(browser, out)
    one, blocks = found.replay(0), found.block_replay(0)  # blocks: from the same rules, but by other means
    said = found.summary(0)["devices"][0]
    shown = json.loads(opened.ask(f"JSON.stringify({SHOWN})"))
    assert shown["series"] == {
        "allocated": one.allocated_bytes.tolist(),
        "reserved": one.reserved_bytes.tolist(),
        "active": blocks.active_bytes.tolist(),
        "largest": blocks.largest_free_bytes.tolist(),
        "split": blocks.split_bytes.tolist(),
    }
    assert shown["blocks"] == torch_blocks(found)
    oom = [row["requested_bytes"] for row in said["oom"]]
    assert shown["summary"] == {**{name: said.get(name) for name in shown["summary"]}, "oom": oom}
    assert opened.ask("memoryPage.chart.picks.some((pick) => pick >= 0)")
    region = " > ".join(found.peak_region(0)) or "(no region)"
    assert opened.ask("memoryPage.device.regionAt(memoryPage.device.peak_state)") == region
    assert opened.complaints == []
