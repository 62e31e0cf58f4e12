"""Do the plots of a search draw what they are given, and refuse what they cannot draw?"""

from __future__ import annotations

import pytest

from tailprune.core.errors import InvalidShape
from tailprune.reports import figure_svg, plot_search, plot_search_pace


def lines(figure):
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in figure.axes[0].get_lines()}


def test_the_front_is_of_trials_that_no_other_beats():
    points = [(10.0, 0.90), (12.0, 0.95), (11.0, 0.93), (13.0, 0.94), (12.5, 0.2)]
    figure = plot_search(points, budget_us=14.0, score="accuracy", title="a search")
    drawn = lines(figure)
    assert drawn["Pareto front"] == [(10.0, 0.90), (11.0, 0.93), (12.0, 0.95)]
    assert "trial (darker: later); 1 below" in drawn
    low, high = figure.axes[0].get_ylim()
    assert 0.2 < low < 0.9 and high > 0.95
    assert "budget" in figure_svg(figure)


def test_one_trial_and_negative_scores_are_drawn():
    assert lines(plot_search([(1.0, -0.3)], budget_us=2.0))["Pareto front"] == [(1.0, -0.3)]


def test_a_search_without_scores_is_refused():
    with pytest.raises(InvalidShape, match="No trial of this search has a score"):
        plot_search([], budget_us=1.0)


def test_the_pace_is_the_mean_of_the_runs_up_to_the_shortest():
    figure = plot_search_pace({"off": [[0.0, 0.5, 0.6, 0.7], [0.2, 0.7, 0.8]], "order": [[0.8, 0.9, 0.9]]})
    assert lines(figure)["off"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.6)), (3, pytest.approx(0.7))]
    low, high = figure.axes[0].get_ylim()
    assert low < 0.7 and high > 0.9
