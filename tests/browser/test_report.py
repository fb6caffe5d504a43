"""The report in a real Chromium, from disk: it loads nothing, fits, sorts, and follows the colours of the system."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from profiler_kit.render.notebook import run_card
from profiler_kit.render.report.page import report_page
from profiler_kit.run import load_run, load_runs
from tests.browser.drive import new_page, until

pytestmark = pytest.mark.browser
SAMPLES = Path(__file__).parents[2] / "traces"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("report") / "report.html"
    runs = load_runs([SAMPLES / "h200-vit_b-eager-fp32", SAMPLES / "h200-vit_b-bf16-compile"])
    target.write_text(report_page(runs), encoding="utf-8")
    return target.as_uri()


def test_it_works_from_disk_and_loads_nothing(browser: Browser, report: str) -> None:
    page = new_page(browser)
    requests, said = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report)
    assert requests == [report] and said == []
    table = page.locator("#run0-kernels table")
    first = table.locator("tbody tr").first
    before = first.inner_text()
    table.get_by_role("button", name="count").click()
    until(page, lambda: first.inner_text() != before)
    counts = [int(text.replace(",", "")) for text in table.locator("tbody td:nth-child(4)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    table.get_by_role("button", name="max").click()  # cells in ms, and in µs where that reads better
    number = "cells => cells.map(cell => parseFloat(cell.dataset.n ?? cell.textContent.replaceAll(',', '')))"
    column = table.locator("tbody td:nth-child(7)")
    until(page, lambda: column.evaluate_all(number) == sorted(column.evaluate_all(number), reverse=True))
    assert column.evaluate_all("cells => cells.filter(cell => cell.dataset.n).length") > 0
    page.context.close()


def test_jupyterlab_does_not_lay_the_numbers_of_a_card_over_each_other(browser: Browser) -> None:
    page = new_page(browser)
    lab = ".jp-RenderedHTMLCommon dt { float: left; width: 20%; font-weight: bold }"
    card = run_card(load_run(SAMPLES / "h200-vit_b-eager-fp32"))._repr_html_()
    page.set_content(f"<style>{lab}</style><div class='jp-RenderedHTMLCommon'>{card}</div>")
    room = """terms => terms.map(term => term.nextElementSibling.getBoundingClientRect().top
      - term.getBoundingClientRect().bottom)"""
    assert min(page.locator(".tiles dt").evaluate_all(room)) >= 0
    page.context.close()


@pytest.mark.parametrize("width", [700, 1280, 2560])
def test_it_fits_the_window_and_follows_the_colours_of_the_system(browser: Browser, report: str, width: int) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page = new_page(browser, width, color_scheme=scheme)
        page.goto(report)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.context.close()
    assert colours == ["rgb(252, 252, 251)", "rgb(23, 23, 22)"]
