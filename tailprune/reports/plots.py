"""What does it look like? One figure per question; every function takes values and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..core.errors import MissingLatency
from ..core.plan import WidthPlan
from ..steps import Staircase
from .canvas import BAND, FAINT, HOST, INK, OURS, ROLE_COLOR, drawing
from .comparison import ComparisonRow, LayerTime, SweepPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Rivals are told apart by their line and marker, not by colour alone.
RIVAL_LINES = (("--", "s"), (":", "^"), ("-.", "D"), ((0, (5, 1)), "v"))


def plot_staircase(staircase: Staircase, *, marks: Mapping[str, int] | None = None, title: str = "") -> Figure:
    """Latency against channel count: plateaus shaded in turn, edges marked, landing points and the way between them.

    `marks` names widths, the host's first: `{"host": 37, "tailprune": 48}`. A filled edge is confirmed, a hollow one
    ambiguous. Where a mark's latency is not known, only its width is drawn.
    """
    curve = staircase.curve
    with drawing() as (figure, axes):
        for index, plateau in enumerate(staircase.plateaus):
            step = curve.granule / 2
            axes.axvspan(plateau.low - step, plateau.high + step, color=BAND, alpha=0.16 if index % 2 else 0.05, lw=0)
        axes.plot(curve.widths, curve.latency_us, color=INK, lw=1.1, marker="." if len(curve) < 160 else "", ms=3.5)
        for verdict, face in (("confirmed", INK), ("ambiguous", "none")):
            edges = [p for p in staircase.edges if p.verdict == verdict]
            points = [(p.high, p.high_us) for p in edges]
            if points:
                axes.plot(*zip(*points, strict=True), "o", ms=5, mfc=face, mec=INK, label=f"{verdict} edge")
        landed = [(name, width, _latency_at(staircase, width)) for name, width in (marks or {}).items()]
        for index, (name, width, us) in enumerate(landed):
            color = HOST if index == 0 and len(landed) > 1 else OURS
            axes.axvline(width, color=color, lw=1, alpha=0.6, ls="--")
            label = f"{name}: {width}"
            if us is not None:
                axes.plot(width, us, "o", ms=7, color=color, label=label, zorder=4)
            else:
                axes.plot([], [], "--", color=color, label=f"{label} (latency unknown)")
        top = max(curve.latency_us)
        for (_, start, start_us), (_, end, end_us) in pairwise(landed):
            if start_us is not None and end_us is not None and start != end:
                height = max(start_us, end_us) + 0.09 * top  # above both points, so that a short way stays visible
                way = {"arrowstyle": "-|>", "color": OURS, "lw": 1.6, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 11}
                axes.annotate("", (end, height), (start, height), arrowprops=way)
        _finish(axes, x="width (channels)", y="latency (µs)", title=title)
        axes.set_ylim(0, top * 1.15)
        axes.set_xlim(curve.widths[0] - curve.granule, curve.widths[-1] + curve.granule)
        _legend_above(figure)
    return figure


def plot_ratio_sweep(points: Sequence[SweepPoint], *, title: str = "") -> Figure:
    """Measured latency of whole networks against the host's pruning ratio, one line per method, spread as a band."""
    with drawing() as (figure, axes):
        rivals = iter(RIVAL_LINES * len(points))
        for method in dict.fromkeys(point.method for point in points):
            line = sorted((p for p in points if p.method == method), key=lambda p: p.ratio)
            role = line[0].role
            style, marker = next(rivals) if role == "rival" else ("-", "o")
            x, y = [p.ratio for p in line], [p.measured_us for p in line]
            look: dict[str, Any] = {
                "color": ROLE_COLOR[role],
                "lw": 2.2 if role == "ours" else 1.4,
                "zorder": 3 if role == "ours" else 2,
            }
            axes.plot(x, y, ls=style, marker=marker, ms=4, label=method, **look)
            low, high = [p.measured_us - p.spread_us for p in line], [p.measured_us + p.spread_us for p in line]
            axes.fill_between(x, low, high, color=ROLE_COLOR[role], alpha=0.15, lw=0)
        _finish(axes, x="the host's pruning ratio", y="measured latency (µs)", title=title)
        axes.set_ylim(bottom=0)
        _legend_above(figure)
    return figure


def plot_widths(plan: WidthPlan, *, title: str = "") -> Figure:
    """Every group's width: the original as outline, the host's and the plan's as bars."""
    choices = plan.choices
    with drawing(height_in=max(1.6, 0.75 + 0.36 * len(choices))) as (figure, axes):
        place = range(len(choices))
        axes.barh(place, [c.original for c in choices], 0.78, fill=False, ec=FAINT, lw=0.8, label="original")
        axes.barh([p - 0.18 for p in place], [c.host for c in choices], 0.34, color=HOST, label="host")
        axes.barh([p + 0.18 for p in place], [c.width for c in choices], 0.34, color=OURS, label="tailprune")
        for p, c in zip(place, choices, strict=True):
            said = f"{c.host} → {c.width}" if c.width != c.host else f"{c.width}"
            axes.annotate(said, (max(c.original, c.width), p), (4, 0), textcoords="offset points", va="center",
                          fontsize=8.5, color=OURS if c.width != c.host else INK)  # fmt: skip
        _layer_names(axes, [c.group for c in choices])
        _finish(axes, x="width (channels)", y="", title=title)
        axes.set_xlim(0, max(max(c.original, c.width) for c in choices) * 1.2)
        axes.grid(axis="y", visible=False)
        _legend_above(figure)
    return figure


def plot_predicted_measured(rows: Sequence[ComparisonRow], *, title: str = "") -> Figure:
    """Does the sum of layers predict the network? On the line: yes; the band is 5 % to either side."""
    known = [
        (r, r.predicted_us, r.measured_us) for r in rows if r.predicted_us is not None and r.measured_us is not None
    ]
    with drawing() as (figure, axes):
        top = 1.12 * max([max(predicted, measured) for _, predicted, measured in known], default=1.0)
        axes.fill_between([0, top], [0, 0.95 * top], [0, 1.05 * top], color=BAND, alpha=0.16, lw=0, label="within 5 %")
        axes.plot([0, top], [0, top], color=FAINT, lw=1)
        rivals, ours = iter(RIVAL_LINES * len(known)), iter("oPX*" * len(known))
        for row, predicted, measured in known:
            marker = next(rivals)[1] if row.role == "rival" else next(ours) if row.role == "ours" else "o"
            axes.errorbar(
                measured, predicted, xerr=row.spread_us, fmt=marker, ms=6, color=ROLE_COLOR[row.role], label=row.method
            )
        _finish(axes, x="measured (µs)", y="predicted (µs)", title=title)
        low = 0.85 * min([min(predicted, measured) for _, predicted, measured in known], default=0.0)
        axes.set_xlim(low, top)
        axes.set_ylim(low, top)
        _legend_above(figure)
    return figure


def plot_latency_by_layer(layers: Sequence[LayerTime], *, title: str = "", largest: int = 16) -> Figure:
    """Where does the time go? Layers in the network's order; beyond `largest` the quickest are summed into one bar."""
    kept = sorted(range(len(layers)), key=lambda i: -layers[i].host_us)[: largest if len(layers) > largest else None]
    shown = [layers[i] for i in sorted(kept)]
    rest = [layer for i, layer in enumerate(layers) if i not in set(kept)]
    if rest:
        shown.append(
            LayerTime(
                name=f"{len(rest)} quicker layers",
                host_us=sum(r.host_us for r in rest),
                ours_us=sum(r.ours_us for r in rest),
            )
        )
    with drawing(height_in=max(1.6, 0.75 + 0.32 * len(shown))) as (figure, axes):
        place = range(len(shown))
        axes.barh([p - 0.18 for p in place], [layer.host_us for layer in shown], 0.34, color=HOST, label="host")
        axes.barh([p + 0.18 for p in place], [layer.ours_us for layer in shown], 0.34, color=OURS, label="tailprune")
        _layer_names(axes, [layer.name for layer in shown])
        _finish(axes, x="latency (µs)", y="", title=title)
        axes.grid(axis="y", visible=False)
        _legend_above(figure)
    return figure


def _latency_at(staircase: Staircase, width: int) -> float | None:
    """The curve's own value, else the plateau's line; None outside and in gaps that hide an edge."""
    if width in staircase.curve:
        return staircase.curve.at(width)
    try:
        plateau = staircase.plateau_at(width)
    except (MissingLatency, ValueError):
        return None
    return plateau.low_us + plateau.slope_us * (width - plateau.low)


def _layer_names(axes: Axes, names: Sequence[str]) -> None:
    short = [name if len(name) <= 22 else f"…{name[-21:]}" for name in names]
    axes.set_yticks(range(len(short)), short, fontsize=8.5)
    axes.invert_yaxis()


def _finish(axes: Axes, *, x: str, y: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title, loc="left", fontsize=10.5, wrap=True)
    axes.tick_params(length=0)
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_formatter(), ScalarFormatter) and max(axis.get_view_interval()) >= 1000:
            axis.set_major_formatter("{x:,.0f}")
            axis.set_major_locator(MaxNLocator(5))  # labels of five digits must not touch


def _legend_above(figure: Figure) -> None:
    """Outside the axes, so that it never hides a point."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        columns = 1 if max(map(len, labels)) > 24 else 2 if max(map(len, labels)) > 15 else 3
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, fontsize=9, handlelength=1.8)
