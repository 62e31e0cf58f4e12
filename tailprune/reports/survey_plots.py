"""What does a survey look like? Time by layer as areas, and networks by what they use of a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import InvalidShape
from ..survey import Survey
from ..survey.losses import PARTS
from .canvas import BAND, DENSE, HOST, INK, OURS, RIVAL, drawing
from .plots import _finish

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

LAUNCH = "#c9a227"
#: Parts of the time, from the ground up: what is used, what only another shape would save, what a width would save.
PART_LOOK = {
    "useful_us": ("useful", OURS),
    "launch_us": ("launch", LAUNCH),
    "memory_us": ("memory", RIVAL),
    "rest_us": ("below peak", BAND),
    "tile_us": ("tiles", DENSE),
    "tail_us": ("tail", HOST),
}
#: Columns narrower than this share of the network's time get no name.
LEAST_NAMED = 0.035


def plot_time_map(survey: Survey, *, title: str = "") -> Figure:
    """The network's time as an area: one column per layer, as wide as it is slow, divided by what its time goes into.

    Layers stand in the network's order. Raises InvalidShape for a survey without a device, which has nothing to divide by.
    """
    if survey.split is None:
        raise InvalidShape(f"The time of {survey.model} is not divided: {survey.peak_origin}. Name the device.")
    assert set(PART_LOOK) == set(PARTS)
    with drawing(height_in=3.8, width_in=8.4) as (figure, axes):
        lefts = [0.0]
        for layer in survey.layers:
            lefts.append(lefts[-1] + layer.latency_us)
        spans = [layer.latency_us for layer in survey.layers]
        bottoms = [0.0] * len(spans)
        for part, (label, color) in PART_LOOK.items():
            shares = [100 * getattr(la.split, part) / la.latency_us for la in survey.layers]
            axes.bar(lefts[:-1], shares, spans, bottoms, align="edge", color=color, ec=INK, lw=0.15, label=label)
            bottoms = [low + share for low, share in zip(bottoms, shares, strict=True)]
        for left, layer in zip(lefts, survey.layers, strict=False):
            if layer.latency_us >= LEAST_NAMED * survey.latency_us:
                place = (left + layer.latency_us / 2, 2)
                axes.annotate(layer.name, place, rotation=90, ha="center", va="bottom", fontsize=6.5, color="#ffffff")
        _finish(axes, x="time through the network (µs)", y="share of the layer's time (%)", title=title)
        axes.set_xlim(0, lefts[-1])
        axes.set_ylim(0, 100)
        axes.grid(visible=False)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), fontsize=9, handlelength=1.2)
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkUse:
    """One network of a survey of many: what it uses, how fast it is, and its published accuracy (percent), if there is one."""

    name: str
    family: str
    utilization: float
    images_per_s: float
    top1: float | None = None


def plot_networks(uses: Sequence[NetworkUse], *, by: Literal["images_per_s", "top1"], title: str = "") -> Figure:
    """Utilization of many networks against their throughput or published top-1; the largest and smallest of each family named."""
    shown = [use for use in uses if use.utilization > 0 and getattr(use, by) is not None]
    if not shown:
        raise InvalidShape(f"No network has both a utilization and {by}; there is nothing to plot.")
    families = sorted({use.family for use in shown}, key=lambda f: (-sum(u.family == f for u in shown), f))
    looks = [(color, marker) for marker in "osD^vPX" for color in (OURS, HOST, RIVAL, DENSE, INK)]
    with drawing(height_in=5.2, width_in=7.6) as (figure, axes):
        for family, (color, marker) in zip(families, looks, strict=False):
            mine = sorted((u for u in shown if u.family == family), key=lambda u: u.utilization)
            x = [getattr(use, by) for use in mine]
            axes.plot(x, [100 * u.utilization for u in mine], marker, ms=5, color=color, label=family, alpha=0.85)
        for use in _named(shown, by):
            axes.annotate(
                use.name, (getattr(use, by), 100 * use.utilization), (4, 3), textcoords="offset points", fontsize=6.5
            )
        if by == "images_per_s":
            axes.set_xscale("log")
            _plain_ticks(axes.xaxis)
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
        what = {"images_per_s": "images per second", "top1": "published ImageNet top-1 (%)"}[by]
        _finish(axes, x=what, y="utilization (% of the stated peak)", title=title)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=5, fontsize=8, handlelength=1.0)
    return figure


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, ... as they are spoken, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def _named(uses: Sequence[NetworkUse], by: str) -> list[NetworkUse]:
    """Names that do not touch: greedily those farthest from any named before, in units of the plot."""
    x = [math.log(getattr(u, by)) if by == "images_per_s" else getattr(u, by) for u in uses]
    y = [math.log(u.utilization) for u in uses]
    width, height = (max(x) - min(x)) or 1.0, (max(y) - min(y)) or 1.0
    places = [((a - min(x)) / width, (b - min(y)) / height) for a, b in zip(x, y, strict=True)]
    chosen: list[int] = []
    for i in sorted(range(len(uses)), key=lambda i: (-abs(places[i][0] - 0.5) - abs(places[i][1] - 0.5), uses[i].name)):
        if all(abs(places[i][0] - places[j][0]) > 0.14 or abs(places[i][1] - places[j][1]) > 0.03 for j in chosen):
            chosen.append(i)
    return [uses[i] for i in chosen]
