"""The memory page in a real Chromium: it draws, loads nothing, and runs nothing that came with the file."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.browser.drive import becomes, new_page, until

EVIL = "</script><img src=x onerror=alert(2)>"
MiB = 1 << 20

pytestmark = pytest.mark.browser
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

    def __init__(self, browser: Browser, path: Path, link: str = "") -> None:
        self.page = new_page(browser)
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

    def says(self, selector: str, text: str | Callable[[str], bool]) -> None:
        """Wait until the text there is this one, or one of which this holds."""
        if isinstance(text, str):
            becomes(self.page, lambda: self.text(selector), text)
        else:
            until(self.page, lambda: text(self.text(selector)))

    def has(self, expression: str, value: object = True) -> None:
        """Wait until the page gives this value."""
        becomes(self.page, lambda: self.ask(expression), value)

    def click_chart(self, share: float, y: float) -> None:
        """Click at that share of the width of what the chart shows, once it is drawn; y from its top, or its bottom."""
        self.has("!memoryPage.waiting")
        chart = self.page.locator("#chart")
        width, height = chart.evaluate("c => [c.clientWidth, c.clientHeight]")
        chart.click(position={"x": 76 + share * (width - 92), "y": y if y > 0 else height + y})


@pytest.fixture
def opens(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a page; at the end they are closed."""
    pages: list[Opened] = []

    def opened(path: Path, link: str = "") -> Opened:
        pages.append(Opened(browser, path, link))
        return pages[-1]

    yield opened
    for one in pages:
        one.page.context.close()


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


def test_says_the_peak_when_where_and_who(opens: Callable[..., Opened], page: Path) -> None:
    opened = opens(page)
    facts = opened.text("#facts").split("\n")
    assert [line for line in facts if line] == [
        "Peak requested", "40.0 MiB", "at 2.000 ms",
        "In region", f"{EVIL} > inner",
        "Held most by", "step › linear", "75.0 % of the peak, work/train.py:12",
        "Reserved at the end", "64.0 MiB", "11.0 MiB requested, 82.8 % in no active block",
        "At the end, as torch counts", "11.0 MiB requested (highest 40.0 MiB)",
        "11.0 MiB allocated · 11.0 MiB active · 64.0 MiB reserved (highest 64.0 MiB) · 0 B pending free",
    ]  # fmt: skip
    opened.says(
        "#notices",
        lambda text: text.startswith(
            "Out of memory: At 3.000 ms, 60.0 MiB were requested on device 0; 3.0 MiB free on the device"
        ),
    )
    assert opened.text("#live tbody").split("\n") == [
        "step › linear work/train.py:12\t1\t30.0 MiB\t75.0 %",
        f"{EVIL} {'/'.join(EVIL.split('/')[-2:])}:1\t1\t10.0 MiB\t25.0 %",
    ]
    assert opened.requests == [page.as_uri()]
    assert opened.complaints == []


def test_moves_searches_and_keeps(opens: Callable[..., Opened], page: Path) -> None:
    opened = opens(page)
    driver = opened.page
    driver.keyboard.press("p")
    opened.has("memoryPage.axis.from < 2000 && memoryPage.axis.to > 2000 && memoryPage.axis.to < 9000")
    driver.keyboard.press("w")
    driver.keyboard.press("d")
    driver.keyboard.press("r")
    opened.has("[memoryPage.axis.from, memoryPage.axis.to]", [0, 9000])
    driver.fill("#search", "functional.py:7")
    opened.says("#found", "1 allocation, 30.0 MiB at the peak")
    driver.fill("#search", "0x2000001")
    opened.says("#found", "1 allocation, 10.0 MiB at the peak")
    driver.fill("#search", "")
    driver.locator("#search").blur()
    opened.click_chart(0.15, -30)
    opened.says("#detail", lambda text: "31,457,280 B" in text and "step work/train.py:12" in text)
    opened.says("#live-title", lambda text: text.startswith("Live at 1.3"))
    driver.keyboard.press("Escape")
    opened.says("#live-title", "Live at the peak: 40.0 MiB")
    assert opened.complaints == []


def test_other_axis_colours_and_device(opens: Callable[..., Opened], page: Path) -> None:
    opened = opens(page)
    opened.page.click("text=event order")
    opened.has("memoryPage.axis.end", 8)
    for colour, first in (("region", f"{EVIL}\t1\t30.0 MiB"), ("stream", "default stream\t2\t40.0 MiB")):
        opened.page.click(f"fieldset span:text-is('{colour}')")
        opened.says("#live tbody", lambda text, first=first: text.startswith(first))
    opened.page.select_option("#device", "1")
    opened.says("#facts dd", lambda text: text.split("\n")[0] == "5 B")
    assert opened.complaints == []


def test_a_click_shows_the_segments_and_blocks_of_that_moment(opens: Callable[..., Opened], page: Path) -> None:
    opened = opens(page)
    driver = opened.page
    driver.click("role=tab[name='Allocator state']")
    opened.says("#state-facts", "1 segment · 40.0 MiB in active blocks · 24.0 MiB inactive")
    opened.click_chart(0.15, 5)
    opened.says("#state-facts", "1 segment · 30.0 MiB in active blocks · 34.0 MiB inactive")
    bars = driver.locator("#state canvas")
    width = bars.evaluate("c => c.clientWidth") - 248
    bars.click(position={"x": 236 + width * 30 / 64 / 2, "y": 15})
    opened.says("#detail", lambda text: "step work/train.py:12" in text)
    bars.click(position={"x": 236 + width * 0.7, "y": 15})
    opened.says("#detail-title", "Inactive block")
    opened.says("#detail", lambda text: "34.0 MiB (35,651,584 B)" in text)
    driver.keyboard.press(",")
    opened.says("#moment-text", "100 µs · event 1 · segment_alloc 64.0 MiB at 0x0")
    for key, said in ((".", "alloc"), (".", "alloc"), (".", "out of memory"), (".", "free_requested 30.0 MiB")):
        driver.keyboard.press(key)
        opened.says("#moment-text", lambda text, said=said: f"· {said}" in text)
    for _ in range(2):
        driver.keyboard.press(",")
    opened.says("#moment-text", lambda text: text.startswith("peak, 2.000 ms · event 3 · alloc 10.0 MiB at 0x2000000"))
    assert opened.complaints == []


def test_every_view_says_what_it_is_for(opens: Callable[..., Opened], page: Path) -> None:
    opened = opens(page)
    driver = opened.page
    driver.keyboard.press("2")
    opened.says("#flame-title", "Live at the peak: 40.0 MiB")
    opened.has(FLAME, [["all", 40], ["step", 30], [EVIL, 10]])
    driver.check("#flame-regions")
    opened.has("memoryPage.flame.boxes.length", 4)  # the one made in `inner` stands below that region
    driver.keyboard.press("4")
    opened.says("#segments tbody", lambda text: text.split("\t")[:4] == ["0x0", "64.0 MiB", "40.0 MiB", "24.0 MiB"])
    driver.keyboard.press("5")
    opened.says("#pools tbody", lambda text: text.startswith("default pool\t1\t64.0 MiB\t100.0 %\t40.0 MiB"))
    driver.keyboard.press("6")
    opened.says("#fragments-facts", lambda text: "Largest free block\n22.0 MiB" in text)
    driver.fill("#fit-size", "23")
    opened.says("#fits tbody", lambda text: text.endswith("\t0"))
    driver.fill("#fit-size", "22")
    opened.says("#fits tbody", lambda text: text.endswith("\t1"))
    driver.keyboard.press("Escape")
    driver.locator("#fit-size").blur()
    driver.keyboard.press("7")
    rows = [
        f"{EVIL}\t1\t40.0 MiB\t41.0 MiB\t30.0 MiB\t+11.0 MiB",
        "inner\t1\t40.0 MiB\t10.0 MiB\t0.0 MiB\t+10.0 MiB",
        "(no region)\t\t0.0 MiB\t0.0 MiB\t0.0 MiB\t0.0 MiB",
    ]
    opened.says("#regions tbody", "\n".join(rows))
    driver.keyboard.press("8")
    opened.says("#settings", lambda text: "expandable_segments\tfalse" in text)
    driver.keyboard.press("?")
    expect(driver.locator("#help")).to_be_visible()
    assert opened.complaints == []


def test_any_text_is_only_text(opens: Callable[..., Opened], tmp_path: Path) -> None:
    names = [EVIL, "\u202egnp.exe\u202c RTL", "nul\0inside", "x" * 20_000, "\u540d\u524d", "\n\t newline", "{{data}}"]
    trace = [s.alloc(10 + i, i << 12, 4096, frames=[s.frame(name, name, 3)]) for i, name in enumerate(names)]
    marks = [s.mark(stage, name, 10 + i) for i, name in enumerate(names) for stage in ("START", "END")]
    held = [s.block(i << 12, 4096, 4096) for i in range(len(names))]
    data = s.snapshot(trace, segments=[s.segment(0, len(names) << 12, *held)], marks=marks)
    out = tmp_path / "page.html"
    out.write_text(load_snapshot(s.write(tmp_path / "m.pickle", data)).html("m"), encoding="utf-8")
    opened = opens(out)
    for view in ("flame", "state", "segments", "pools", "fragmentation", "regions", "settings", "memory"):
        opened.ask(f"memoryPage.show('{view}')")
        opened.has("!memoryPage.waiting")  # drawn
    assert opened.ask("document.querySelectorAll('img, iframe, script[src]').length") == 0
    assert opened.ask("document.documentElement.scrollWidth <= innerWidth")  # nothing pushes the page apart
    lengths = opened.ask("[...document.querySelectorAll('#live tbody tr')].map((row) => row.textContent.length)")
    assert len(lengths) == len(names) and max(lengths) < 1000
    opened.page.fill("#search", "newline")
    opened.says("#found", lambda text: text.startswith("1 allocation"))
    opened.page.keyboard.press("Enter")
    opened.page.locator("#search").blur()
    opened.ask(
        "(({ said, copy }) => { window.said = said;"
        " new MutationObserver(() => said.push(copy.textContent)).observe(copy, { childList: true }); })"
        "({ said: [], copy: document.getElementById('copy') })"
    )
    opened.page.keyboard.press("c")
    opened.has("said[0]", "Copied")  # for a second only
    assert opened.requests == [out.as_uri()]
    assert opened.complaints == []


def test_says_what_the_ring_buffer_dropped(opens: Callable[..., Opened], tmp_path: Path) -> None:
    trace = [*s.free(10, 0x9000, 5), s.alloc(20, 0x1000, 10)]
    held = [s.block(0x1000, 0x1000, 10), s.block(0x2000, 0x1000, 7, frames=[s.frame("f")])]
    data = s.snapshot(trace, segments=[s.segment(0x1000, 0x2000, *held)])
    data["profiler_kit"] = {"source": "cuda", "max_entries": 3}
    out = tmp_path / "page.html"
    out.write_text(load_snapshot(s.write(tmp_path / "m.pickle", data)).html("m"), encoding="utf-8")
    assert opens(out).text("#notices") == (
        "The history lost its beginning: at least 2 recorded allocations are missing, and an earlier, higher peak "
        "may be missing too. Try: Record with a larger max_entries. 1 of them were freed later, 1 were live to the "
        "end. The ring "
        "buffer held 3 events."
    )


def test_the_page_fits_a_frame_without_an_address(browser: Browser, page: Path, tmp_path: Path) -> None:
    """As a notebook and the dashboard show it."""
    frame = tmp_path / "frame.html"
    inner = html.escape(page.read_text(encoding="utf-8"))
    style = "width:100%;height:700px"
    frame.write_text(f'<iframe srcdoc="{inner}" sandbox="allow-scripts" style="{style}"></iframe>', encoding="utf-8")
    driver = new_page(browser, 1000, 760)
    complaints: list[str] = []
    driver.on("pageerror", lambda error: complaints.append(str(error)))
    driver.goto(frame.as_uri())
    inside = driver.frame_locator("iframe")
    inside.locator("html[data-ready]").wait_for()
    inside.get_by_role("tab", name="Allocator state").click()
    expect(inside.locator("#state-facts")).to_contain_text("1 segment")
    assert complaints == []
    driver.context.close()


def test_the_address_keeps_the_view(opens: Callable[..., Opened], page: Path) -> None:
    opened = opens(page)
    driver = opened.page
    driver.keyboard.press("3")
    driver.keyboard.press(",")
    driver.keyboard.press("w")
    driver.fill("#search", "step")
    driver.keyboard.press("Enter")
    driver.click("#theme")
    until(driver, lambda: "theme=dark" in driver.url)
    again = opens(Path(page), driver.url.partition("#")[2])
    before, after = opened.ask(STATE), again.ask(STATE)
    assert (before[0], before[1], before[4:]) == ("state", 2, ["step", {"allocation": 0}])
    assert after == [*before[:2], *[pytest.approx(value, abs=0.1) for value in before[2:4]], *before[4:]]
    assert again.ask("getComputedStyle(document.body).backgroundColor") == "rgb(26, 26, 25)"
    assert again.complaints == []


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_real_captures_draw(opens: Callable[..., Opened], tmp_path: Path, path: Path) -> None:
    found = load_snapshot(path)
    out = tmp_path / "page.html"
    out.write_text(found.html(path.name), encoding="utf-8")
    opened = opens(out)
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
