"""Measured beside modelled curves, and the page of staircases with their causes."""

from __future__ import annotations

import pytest

from tailprune.core.errors import InvalidShape
from tailprune.reports import ModelledCurve, StaircaseView, plot_modelled, render_staircase_page
from tailprune.steps import LatencyCurve, detect_steps


def test_each_curve_has_a_panel_with_both_lines():
    curves = [
        ModelledCurve(title=title, widths=widths, measured_us=[5.0, 7.0], modelled_us=[5.5, 6.5])
        for title, widths in (("near", [8, 16]), ("far", [8, 4096]), ("odd", [1, 2]))
    ]
    figure = plot_modelled(curves)
    assert [axes.get_title() for axes in figure.axes] == ["near", "far", "odd"]
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log", "linear"]
    for axes in figure.axes:
        assert [list(line.get_ydata()) for line in axes.lines] == [[5.0, 7.0], [5.5, 6.5]]


def test_no_curve_is_refused():
    with pytest.raises(InvalidShape, match="at least one curve"):
        plot_modelled([])


def test_a_page_shows_causes_and_escapes_names():
    us = tuple(10.0 + 4 * (w // 17) for w in range(1, 33))
    staircase = detect_steps(LatencyCurve(widths=tuple(range(1, 33)), latency_us=us, kind="modelled"))
    view = StaircaseView(name="<b>layer</b>", staircase=staircase, causes=("behind 16: wave",))
    page = render_staircase_page("net", [view], facts={"batch": 8})
    assert "behind 16: wave" in page
    assert "&lt;b&gt;layer" in page
    assert "<b>layer" not in page
    assert "batch: 8" in page
