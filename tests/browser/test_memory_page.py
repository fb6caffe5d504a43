"""The memory page in a real Chromium: it draws, loads nothing, and runs nothing that came with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.snapshot import load_snapshot
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


class Opened:
    """A page with what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri())
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
    held = [s.block(0, 32 * MiB, 1 * MiB), s.block(32 * MiB, 32 * MiB, 10 * MiB)]
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
        "Reserved at the end", "64.0 MiB", "11.0 MiB allocated, 0.0 % in no active block",
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
    driver.mouse.click(box["x"] + 76 + 0.15 * (box["width"] - 92), box["y"] + 395)
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


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_real_captures_draw(browser: Any, tmp_path: Path, path: Path) -> None:
    found = load_snapshot(path)
    out = tmp_path / "page.html"
    out.write_text(found.html(path.name), encoding="utf-8")
    opened = Opened(browser, out)
    one = found.replay(0)
    assert opened.ask("[...memoryPage.device.allocated]") == one.allocated_bytes.tolist()
    reserved = "[...Array(memoryPage.device.states).keys()].map((state) => memoryPage.device.reservedAt(state))"
    assert opened.ask(reserved) == one.reserved_bytes.tolist()
    assert opened.ask("memoryPage.chart.picks.some((pick) => pick >= 0)")
    region = " > ".join(found.peak_region(0)) or "(no region)"
    assert opened.ask("memoryPage.device.regionAt(memoryPage.device.peak_state)") == region
    assert opened.complaints == []
