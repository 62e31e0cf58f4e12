"""What does the doctor's finding look like? A change on its staircase, the waste by group, the saving against batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..survey import Diagnosis, Payoff, Place
from ..survey.payoff import PAYS
from .canvas import BAND, FAINT, HOST, INK, OURS, drawing
from .plots import _finish, _layer_names, _legend_above

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Widths drawn at least on either side of a step, so that a narrow one is seen among its neighbours.
FEWEST_AROUND = 12


def plot_change(place: Place, to: int, *, title: str = "") -> Figure:
    """The staircase around a group's width: the step it is on, its edges, the time wasted above the chord, and the move.

    The latency axis is cut where the steps would be lost in it otherwise.
    """
    curve = place.staircase.curve
    below, above = place.edge_below or curve.widths[0], place.edge_above
    margin = max(above - below, FEWEST_AROUND * curve.granule)
    near = [
        (w, us) for w, us in zip(curve.widths, curve.latency_us, strict=True) if below - margin <= w <= above + margin
    ]
    with drawing() as (figure, axes):
        widths, latencies = [w for w, _ in near], [us for _, us in near]
        axes.axvspan(below, above, color=BAND, alpha=0.12, lw=0)
        axes.plot(widths, latencies, color=INK, lw=1.1, marker="." if len(near) < 160 else "", ms=3.5)
        edges = [edge for edge in ([] if place.edge_below is None else [below]) + [above] if edge in curve]
        axes.plot(edges, [curve.at(edge) for edge in edges], "o", ms=5, mfc=INK, mec=INK, label="edge of the step")
        if len(edges) == 2 and place.width in curve and not place.on_edge:
            chord = curve.at(below) + (curve.at(above) - curve.at(below)) * place.used
            axes.plot(edges, [curve.at(edge) for edge in edges], color=FAINT, lw=1, ls=":")
            if chord < curve.at(place.width):
                axes.vlines(place.width, chord, curve.at(place.width), color=HOST, lw=5, alpha=0.45, label="wasted")
        for name, width, color in (("now", place.width, HOST), ("suggested", to, OURS)):
            axes.axvline(width, color=color, lw=1, alpha=0.6, ls="--")
            if width in curve:
                axes.plot(width, curve.at(width), "o", ms=7, color=color, label=f"{name}: {width:,}", zorder=4)
        low, high = min(latencies), max(latencies)
        _finish(axes, x="width (channels)", y="latency (µs)", title=title)
        axes.set_ylim(
            0 if low < high / 2 else low - 0.4 * (high - low) - 0.02 * low, high + 0.15 * (high - low) + 0.02 * low
        )
        _legend_above(figure)
    return figure


def plot_payoff(payoff: Payoff, *, expected: float | None = None, title: str = "") -> Figure:
    """Time saved by pruning against batch; `expected` is the share of multiply-adds saved."""
    with drawing() as (figure, axes):
        batches = [time.batch for time in payoff.times]
        savings = [100 * time.saving for time in payoff.times]
        axes.axhline(0, color=FAINT, lw=1)
        axes.axhspan(0, 100 * PAYS, color=BAND, alpha=0.16, lw=0, label="does not pay (below 5 %)")
        if expected is not None:
            axes.axhline(100 * expected, color=FAINT, lw=1.2, ls="--", label="multiply-adds saved")
        axes.plot(batches, savings, color=OURS, lw=2, marker="o", ms=5, label="latency saved")
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.minorticks_off()
        _finish(axes, x="batch", y="saved against dense (%)", title=title)
        top = max([*savings, 100 * (expected or 0), 100 * PAYS])
        axes.set_ylim(min(0.0, *savings) * 1.1 - 1, top * 1.12)
        _legend_above(figure)
    return figure


def plot_wasted(diagnosis: Diagnosis, *, title: str = "", largest: int = 12) -> Figure:
    """Which groups pay for channels that are not there? Those that waste most first, the rest summed into one bar."""
    ranked = sorted((p for p in diagnosis.places.values() if p.wasted_us > 0), key=lambda p: -p.wasted_us)
    bars = [(p.group, p.wasted_us, f"{p.width:,} of {p.edge_above:,}") for p in ranked[:largest]]
    if rest := ranked[largest:]:
        bars.append((f"{len(rest)} other groups", sum(p.wasted_us for p in rest), ""))
    with drawing(height_in=max(1.6, 0.75 + 0.27 * len(bars))) as (figure, axes):
        shown = axes.barh(range(len(bars)), [us for _, us, _ in bars], 0.66, color=HOST)
        axes.bar_label(shown, [label for _, _, label in bars], padding=4, fontsize=8, color=INK)
        axes.margins(x=0.24)  # room for the labels
        _layer_names(axes, [name for name, _, _ in bars])
        _finish(axes, x="wasted (µs)", y="", title=title)
        axes.grid(axis="y", visible=False)
    return figure
