"""Templates escape whatever is in a value, and a table is laid out with its bars, colours and the rest in a line."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
from markupsafe import Markup

from profiler_kit.render.html import HtmlColumn, environment, fill, table, table_html, verdict_chip
from profiler_kit.render.svg import clean, draw, joined
from profiler_kit.tables import every_table
from profiler_kit.trace import load_trace
from tests.app.samples import gpu_trace
from tests.render.test_report import EVIL, Page


def test_every_value_is_escaped_and_what_cannot_be_printed_is_replaced() -> None:
    evil = Markup("&lt;/style&gt;")
    assert draw("<b>{}</b>{}{}", EVIL, Markup("<i/>"), 1.5).startswith(f"<b>{evil}&lt;script&gt;")
    assert str(joined([draw("{}", "a\x1b[31m\nb")])) == "a�[31m\nb"
    assert clean("ü → µs") == "ü → µs"
    shown = fill("facts.html.j2", rows=[(EVIL, "\x07")], name="facts")
    assert "<script" not in shown and "<dd>�</dd>" in shown


def test_a_misspelt_name_in_a_template_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'rows' is undefined"):
        fill("facts.html.j2", name="facts")
    assert all(environment().get_template(name) for name in environment().list_templates(extensions=["j2"]))


def test_cells_columns_and_hover() -> None:
    column = HtmlColumn("name", ["a", draw("<i>{}</i>", "<")], "text", "What it is.", ["<long>", ""])
    shown = table([column, HtmlColumn("n", ["1", "2 µs"], numbers=["", "0.002"])], "t", more="3 more rows.")
    assert '<th class="text" title="What it is.">name</th><th>n</th>' in shown
    assert '<td class="text" title="&lt;long&gt;">a</td><td>1</td>' in shown
    assert '<td class="text"><i>&lt;</i></td><td data-n="0.002">2 µs</td>' in shown
    assert shown.endswith('<p class="note">3 more rows.</p>') and 'class="sortable"' in shown
    assert table([HtmlColumn("n", [])], "t") == ""
    assert verdict_chip("–") == "" and 'class="chip mixed"' in verdict_chip("<odd>")


def test_a_tree_has_colours_and_bars_and_a_ranking_says_what_is_left(tmp_path: Path) -> None:
    trace = load_trace(gpu_trace().write(tmp_path / "t.json"))
    regions = table_html(every_table()["regions"].of_source(trace), colours={"image encoder": "#123456"})
    assert "sortable" not in regions and regions.count("<tr>") == 4
    encoder = next(row for row in regions.split("<tr>") if "image encoder" in row)
    assert '<span class="named d1"><svg class="swatch" aria-hidden="true"><rect fill="#123456"/></svg>' in encoder
    assert '<rect y="0" width="90%" height="10" fill="#123456"/></svg>90.0 %' in encoder
    kernels = table_html(every_table()["kernels"].of_source(trace), top=1)
    assert kernels.endswith('<p class="note">2 more rows: 400.00 µs, 40.0 %.</p>')
    assert [heading.split(",")[0] for heading in re.findall("<th(?: [^>]*)?>(.*?)</th>", kernels)][:3] == [
        "kernel", "of sum", "sum",
    ]  # fmt: skip


def test_a_filled_table_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    trace = load_trace(gpu_trace().write(tmp_path / "t.json"))
    page = Page(every_table()["kernels"].of_source(trace)._repr_html_())
    assert page.says("gemm") and page.loads == []
