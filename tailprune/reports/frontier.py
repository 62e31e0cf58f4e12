"""What does every latency buy? The frontier as a plot, with its cliffs, and rivals as points on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .canvas import FAINT, HOST, INK, OURS, RIVAL, drawing
from .comparison import Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..core.protocols import LatencyKind

#: A cliff is one step that costs at least this share of the frontier's whole height; so many of the largest are named.
CLIFF_SHARE, CLIFFS_NAMED = 0.05, 3
#: How many times higher than the frontier all points together are before it gets a panel of its own.
ZOOM = 2.0
#: Up to so many plans each is a dot; more would hide the line.
DOTTED = 80
MARKERS = {"multiple": "s^Dv<>", "greedy": "x"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierMark:
    """A plan beside the frontier: the host, a rival, or the plan that was chosen."""

    method: str
    role: Role
    latency_us: float
    importance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierView:
    """Best known importance (a share) by latency, ascending, and what no plan can exceed there."""

    latency_us: Sequence[float]
    importance: Sequence[float]
    bound: Sequence[float]
    marks: Sequence[FrontierMark] = ()
    kind: LatencyKind = "modelled"


def plot_frontier(view: FrontierView, *, title: str = "") -> Figure:
    """Importance kept against the latency budget. A budget between two plans buys the left one, so the line is a staircase.

    Where marks lie so far off that the frontier's own cliffs would vanish, a second panel shows it alone.
    """
    us, kept = list(view.latency_us), [100 * value for value in view.importance]
    everything = [*kept, *(100 * mark.importance for mark in view.marks)]
    zoomed = kept[-1] > kept[0] and max(everything) - min(everything) > ZOOM * (kept[-1] - kept[0])
    with drawing(width_in=6.2, height_in=6.6 if zoomed else 4.2) as (figure, axes):
        panels = [axes]
        if zoomed:
            axes.remove()
            panels = list(figure.subplots(2, 1))
        for panel in panels:
            panel.fill_between(us, kept, [100 * b for b in view.bound], step="post", color=FAINT, alpha=0.35, lw=0,
                               label="up to the proved bound")  # fmt: skip
            panel.step(us, kept, where="post", color=OURS, lw=1.8, label=f"frontier, {len(us):,} plans", zorder=3)
            if len(us) <= DOTTED:
                panel.plot(us, kept, "o", ms=3, color=OURS, zorder=3)
            panel.set_ylabel("importance kept (%)")
            panel.tick_params(length=0)
            panel.xaxis.set_major_formatter("{x:,.0f}")
        _marks(panels[0], view.marks)
        _cliffs(panels[-1], us, kept)
        panels[-1].set_xlabel("latency (µs)" if view.kind == "measured" else f"latency (µs, {view.kind})")
        if title:
            panels[0].set_title(title, loc="left", fontsize=10.5)
        if zoomed:
            panels[1].set_title("the frontier alone", loc="left", fontsize=9.5)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8.5, handlelength=1.6)
    return figure


def cliffs(us: Sequence[float], kept: Sequence[float]) -> list[int]:
    """The places of points just above a cliff: a microsecond less costs at least CLIFF_SHARE of all there is to lose."""
    least = CLIFF_SHARE * (kept[-1] - kept[0])
    falls = [(after - before, i + 1) for i, (before, after) in enumerate(pairwise(kept)) if after - before >= least > 0]
    return sorted(i for _, i in sorted(falls, reverse=True)[:CLIFFS_NAMED])


def _cliffs(axes: Axes, us: Sequence[float], kept: Sequence[float]) -> None:
    for i in cliffs(us, kept):
        axes.plot([us[i], us[i]], [kept[i - 1], kept[i]], color=HOST, lw=3, solid_capstyle="butt", zorder=4)
        axes.annotate(f"−{kept[i] - kept[i - 1]:.1f} below {us[i]:,.0f} µs", (us[i], (kept[i] + kept[i - 1]) / 2), (6, -2),
                      textcoords="offset points", fontsize=8, color=INK, va="center")  # fmt: skip


def _marks(axes: Axes, marks: Sequence[FrontierMark]) -> None:
    shapes = iter(MARKERS["multiple"] * len(marks))
    for method in dict.fromkeys(mark.method for mark in marks):
        points = [mark for mark in marks if mark.method == method]
        role = points[0].role
        if role == "rival":
            face, marker, size = RIVAL, MARKERS["greedy"] if method == "greedy" else next(shapes), 5.0
        else:
            face, marker, size = (HOST, "o", 7.0) if role == "host" else (OURS, "*", 12.0)
        axes.plot([p.latency_us for p in points], [100 * p.importance for p in points], marker, ms=size, color=face,
                  ls="", label=method, zorder=5 if role != "rival" else 4, alpha=0.9)  # fmt: skip
