"""The frontier's plot: every point is on it, cliffs are named, and what is squashed gets a panel."""

from __future__ import annotations

import pytest

from tailprune.reports import FrontierMark, FrontierView, plot_frontier, save_figure
from tailprune.reports.frontier import CLIFFS_NAMED, cliffs

US, KEPT = [100.0, 110.0, 150.0, 200.0], [0.50, 0.52, 0.90, 1.00]


def view(marks=(), **more):
    return FrontierView(latency_us=US, importance=KEPT, bound=[k + 0.01 for k in KEPT], marks=marks, **more)


def test_the_line_is_a_staircase_through_every_plan() -> None:
    (axes,) = plot_frontier(view()).axes
    line = next(x for x in axes.lines if x.get_label().startswith("frontier"))
    assert line.get_drawstyle() == "steps-post"
    assert list(line.get_xdata()) == US
    assert list(line.get_ydata()) == [pytest.approx(100 * k) for k in KEPT]
    assert line.get_label() == "frontier, 4 plans"
    assert axes.get_xlabel() == "latency (µs, modelled)"
    assert plot_frontier(view(kind="measured")).axes[0].get_xlabel() == "latency (µs)"


def test_cliffs_are_the_largest_falls() -> None:
    assert cliffs(US, KEPT) == [2, 3]  # 0.38 and 0.10 of 0.50; 0.02 is less than a twentieth
    many = [0.0, 0.1, 0.3, 0.6, 0.8, 1.0]
    assert len(cliffs(list(range(6)), many)) == CLIFFS_NAMED
    assert 3 in cliffs(list(range(6)), many)
    assert cliffs([1.0, 2.0], [0.7, 0.7]) == []
    assert cliffs([1.0], [0.7]) == []
    texts = {text.get_text() for text in plot_frontier(view()).axes[0].texts}
    assert texts == {"−38.0 below 150 µs", "−10.0 below 200 µs"}


def test_marks_are_drawn_by_method_and_a_squashed_frontier_gets_a_panel() -> None:
    marks = (
        FrontierMark(method="host", role="host", latency_us=160.0, importance=0.8),
        FrontierMark(method="multiple 8", role="rival", latency_us=150.0, importance=0.6),
        FrontierMark(method="multiple 8", role="rival", latency_us=190.0, importance=0.7),
        FrontierMark(method="greedy", role="rival", latency_us=150.0, importance=0.9),
    )
    figure = plot_frontier(view(marks), title="t")
    assert len(figure.axes) == 1
    drawn = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert drawn["multiple 8"] == [150.0, 190.0]
    assert {"host", "greedy"} <= set(drawn)
    far = (*marks, FrontierMark(method="multiple 64", role="rival", latency_us=100.0, importance=-0.6))
    whole, alone = plot_frontier(view(far)).axes
    assert "multiple 64" in {line.get_label() for line in whole.lines}
    assert "multiple 64" not in {line.get_label() for line in alone.lines}
    assert alone.texts
    assert not whole.texts


def test_both_formats_are_written(tmp_path) -> None:
    for suffix in ("png", "svg"):
        assert save_figure(plot_frontier(view()), tmp_path / f"f.{suffix}").stat().st_size > 1000
