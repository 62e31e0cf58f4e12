"""What does a search look like? Every trial in the plane of latency and score, and the best found against evaluations spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING

from ..core.errors import InvalidShape
from .canvas import DENSE, FAINT, HOST, INK, OURS, RIVAL, drawing
from .plots import _finish, _legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How far below the front trials are shown, in heights of the front.
DEPTH = 2.0
#: The first evaluations tell of luck; the score's axis begins where the ways stand after so many.
SETTLED = 3
#: (latency in microseconds, score) of one trial.
Point = tuple[float, float]


def plot_search(points: Sequence[Point], *, budget_us: float, score: str = "score", title: str = "") -> Figure:
    """Trials by latency and score, in the order they were made (darker is later), their Pareto front, and the budget."""
    if not points:
        raise InvalidShape("No trial of this search has a score; there is nothing to plot.")
    front: list[Point] = []
    for us, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((us, value))
    with drawing(width_in=5.6, height_in=3.6) as (figure, axes):
        values = [value for _, value in front]
        floor = (
            min(values) - max(values[-1] - values[0], 0.02 * abs(values[-1])) * DEPTH
        )  # one failed training hides nothing
        below = sum(value < floor for _, value in points)
        for place, (us, value) in enumerate(points):
            axes.plot(us, value, "o", ms=5, mew=0, color=RIVAL, alpha=0.3 + 0.7 * (place + 1) / len(points))
        axes.step(
            [us for us, _ in front],
            [value for _, value in front],
            where="post",
            color=OURS,
            lw=1.6,
            label="Pareto front",
        )
        axes.plot(*zip(*front, strict=True), "o", ms=6, color=OURS)
        axes.plot([], [], "o", ms=5, color=RIVAL, label="trial (darker: later)" + (f"; {below} below" if below else ""))
        axes.axvline(budget_us, color=HOST, lw=1.2, ls="--", label="budget")
        _finish(axes, x="latency (µs)", y=score, title=title)
        axes.set_ylim(bottom=max(floor, min(value for _, value in points)) - 0.05 * (values[-1] - floor))
        _legend_above(figure)
    return figure


def plot_search_pace(runs: Mapping[str, Sequence[Sequence[float]]], *, score: str = "score", title: str = "") -> Figure:
    """The best score after each evaluation, one line per way to search: the mean of its runs, and their range as a band."""
    from matplotlib.ticker import MaxNLocator

    with drawing(width_in=5.6, height_in=3.6) as (figure, axes):
        settled: list[float] = []
        looks = zip((INK, HOST, RIVAL, OURS, DENSE, FAINT), ("o", "s", "^", "D", "v", "P"), strict=True)
        for (way, paths), (color, marker) in zip(runs.items(), looks, strict=False):
            shortest = min(len(path) for path in paths)
            spent = list(range(1, shortest + 1))
            after = list(zip(*(path[:shortest] for path in paths), strict=True))
            means = [mean(values) for values in after]
            axes.plot(spent, means, color=color, marker=marker, ms=3.5, lw=1.6, label=way)
            axes.fill_between(spent, [min(v) for v in after], [max(v) for v in after], color=color, alpha=0.08, lw=0)
            settled += [means[min(SETTLED, shortest) - 1], means[-1]]
        margin = 0.4 * (max(settled) - min(settled)) or 0.01
        axes.set_ylim(min(settled) - margin, max(settled) + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _finish(axes, x="evaluations spent", y=f"best {score} found", title=title)
        _legend_above(figure)
    return figure
