"""Does a model follow the device? Measured staircases beside modelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import InvalidShape
from .canvas import INK, OURS, WIDTH_IN, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Sparse widths over more than this ratio are drawn on logarithmic scales; a straight scale would show the largest only.
DECADES = 100


@dataclass(frozen=True, kw_only=True)
class ModelledCurve:
    """One curve twice: measured and modelled microseconds at the same widths."""

    title: str
    widths: Sequence[int]
    measured_us: Sequence[float]
    modelled_us: Sequence[float]


def plot_modelled(curves: Sequence[ModelledCurve], *, columns: int = 2, axis: str = "width (channels)") -> Figure:
    """Panels side by side, each with its own scale: where the model is good, and where it is not."""
    if not curves:
        raise InvalidShape("A plot of modelled curves needs at least one curve, got none.")
    with drawing() as (figure, first):
        first.remove()
        rows = -(-len(curves) // columns)
        figure.set_size_inches(WIDTH_IN * columns, 2.7 * rows)
        for index, curve in enumerate(curves):
            axes = figure.add_subplot(rows, columns, index + 1)
            dense = len(curve.widths) > 60
            axes.plot(curve.widths, curve.measured_us, color=INK, lw=1.1, marker="" if dense else ".", label="measured")
            axes.plot(
                curve.widths,
                curve.modelled_us,
                color=OURS,
                lw=1.4,
                ls="--",
                marker="" if dense else ".",
                label="modelled",
            )
            if not dense and curve.widths[-1] > DECADES * curve.widths[0]:
                axes.set(xscale="log", yscale="log")
                for side in (axes.xaxis, axes.yaxis):
                    side.set_major_formatter("{x:g}")  # our style draws no formulas, which 10^3 would be
                    side.set_minor_formatter("")
            else:
                axes.set_ylim(bottom=0)
            axes.set_title(curve.title, fontsize=9)
            axes.set_xlabel(axis)
            axes.set_ylabel("latency (µs)")
        figure.axes[0].legend(loc="upper left", fontsize=8)
    return figure
