"""Is the page whole, self-contained, well-formed and safe, whatever it is given?"""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser

import pytest

from tailprune.core.errors import FormatError
from tailprune.reports import Comparison, ComparisonRow, ReportPage, StaircaseView, render_page, write_page
from tailprune.steps import LatencyCurve, detect_steps

VOID = {"meta", "link", "br", "img", "hr", "input"}


class _Reader(HTMLParser):
    """Checks the balance of tags and collects text, ids and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def html(sample_page) -> str:
    return render_page(sample_page)


def test_what_a_device_does_not_have_takes_no_row(sample_page):
    page = dataclasses.replace(sample_page, environment={"device": "some CPU", "cudnn": "", "tf32": False, "sms": 0})
    terms = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", render_page(page))
    assert terms[:3] == [("device", "some CPU"), ("tf32", "False"), ("sms", "0")]


def test_the_page_is_balanced_and_ids_are_unique(html):
    reader = _read(html)
    ids = [value for name, value in reader.attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))


def test_the_balance_check_can_fail(html):
    with pytest.raises(AssertionError):
        _read(html.replace("</table>", "", 1))


def test_nothing_comes_from_elsewhere(html):
    assert not re.search(r"https?:|//[a-z]|src=|@import|url\((?!#)", html)
    assert "script" not in _read(html).tags
    hrefs = [value for name, value in _read(html).attributes if name in ("href", "xlink:href")]
    assert hrefs
    assert all(value.startswith("#") for value in hrefs)


def test_every_row_warning_fact_and_plot_is_there(html, sample_page):
    text = " ".join(" ".join(_read(html).text).split())
    for row in sample_page.comparison.rows:
        assert row.method in text
        assert f"{row.measured_us:,.0f} ± {row.spread_us:.0f} µs" in text
        assert row.note in text
    for said in (
        *sample_page.warnings,
        *sample_page.comparison.caveats,
        sample_page.comparison.sentence,
        sample_page.banner,
    ):
        assert said in text
    for facts in (sample_page.environment, sample_page.provenance):
        for name, value in facts.items():
            assert name in text
            assert str(value) in text
    assert html.count("<svg") == len(sample_page.staircases) + 4
    assert html.count("we do not win here") == 1


def test_both_themes_define_every_colour_of_the_plots(html):
    light, dark = html.split("@media (prefers-color-scheme: dark)")[:2]
    for used in set(re.findall(r"var\(--([a-z]+)", html)):
        assert f"--{used}:" in light
        assert f"--{used}:" in dark.split("}")[0]


def test_hostile_names_stay_text(sample_page):
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> {{ 7 * 7 }} $\\frac"
    rows = tuple(
        dataclasses.replace(row, method=f"{row.method} {evil}", note=evil) for row in sample_page.comparison.rows
    )
    choices = tuple(dataclasses.replace(c, group=f"{i}{evil}") for i, c in enumerate(sample_page.plan.choices))
    html = render_page(
        dataclasses.replace(
            sample_page,
            title=evil,
            banner=evil,
            comparison=Comparison(rows=rows),
            plan=dataclasses.replace(sample_page.plan, choices=choices, policy=evil),
            staircases=tuple(
                dataclasses.replace(v, name=evil, note=evil, marks={evil: 5}) for v in sample_page.staircases
            ),
            sweep=tuple(dataclasses.replace(p, method=evil) for p in sample_page.sweep),
            layers=tuple(dataclasses.replace(la, name=evil) for la in sample_page.layers),
            environment={evil: evil},
            provenance={evil: evil},
            warnings=(evil,),
        )
    )
    reader = _read(html)
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert "{{ 7 * 7 }}" in html


def test_a_page_with_little_to_show_claims_nothing():
    host = ComparisonRow(method="host", role="host")
    html = render_page(ReportPage(title="empty", comparison=Comparison(rows=(host,))))
    _read(html)
    assert "Nothing was measured" in html
    assert "<svg" not in html


def test_a_device_without_steps_is_said_to_have_none():
    flat = detect_steps(LatencyCurve(widths=tuple(range(1, 33)), latency_us=(90.0,) * 32, noise_us=(0.4,) * 32))
    comparison = Comparison(rows=(ComparisonRow(method="host", role="host", measured_us=90.0),))
    html = render_page(
        ReportPage(title="flat", comparison=comparison, staircases=(StaircaseView(name="a", staircase=flat),))
    )
    assert "no usable steps here" in html


def test_the_page_is_written_whole_or_not_at_all(sample_page, tmp_path):
    write_page(sample_page, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").endswith("</html>\n")
    with pytest.raises(FormatError, match=r"Cannot write"):
        write_page(sample_page, tmp_path / "absent" / "report.html")


def test_reports_are_imported_without_plots_pages_or_torch():
    import subprocess

    code = "import sys, tailprune.reports; print([m for m in ('matplotlib', 'jinja2', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
