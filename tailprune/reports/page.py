"""The result as one self-contained page: no network, inline plots, light and dark, readable on a phone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.artifact import write_text_atomically
from ..core.plan import WidthPlan
from ..steps import Staircase
from .canvas import figure_svg
from .comparison import Comparison, LayerTime, SweepPoint
from .notation import change, microseconds, percent
from .plots import plot_latency_by_layer, plot_predicted_measured, plot_ratio_sweep, plot_staircase, plot_widths
from .tables import row_cells, unbeaten_mark
from .template import markup, render


@dataclass(frozen=True, kw_only=True)
class StaircaseView:
    """One group's staircase, where networks landed on it, the host first: `{"host": 37, "tailprune": 48}`, and why it jumps."""

    name: str
    staircase: Staircase
    marks: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """All a page shows. What is empty is left out; `banner` stands above everything (sample data, a smoke test)."""

    title: str
    comparison: Comparison
    plan: WidthPlan | None = None
    staircases: tuple[StaircaseView, ...] = ()
    sweep: tuple[SweepPoint, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    environment: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    banner: str = ""


def render_page(page: ReportPage) -> str:
    """The page as HTML text; every name and note in it is escaped."""
    comparison = page.comparison
    rows = [(row, row_cells(comparison, row), unbeaten_mark(comparison, row)) for row in comparison.rows]
    return render(
        "page.html",
        page=page,
        comparison=comparison,
        rows=rows,
        key_figures=_key_figures(page),
        svg={name: markup(text) for name, text in _plots(page).items()},
    )


def write_page(page: ReportPage, path: str | os.PathLike[str]) -> None:
    """Write the page whole or not at all."""
    write_text_atomically(path, render_page(page))


def _plots(page: ReportPage) -> dict[str, str]:
    """Plot name -> SVG text, for what the page has data for."""
    drawn = {}
    for index, view in enumerate(page.staircases):
        landed = ", ".join(f"{name} at {width}" for name, width in view.marks.items())
        drawn[f"staircase-{index}"] = (
            plot_staircase(view.staircase, marks=view.marks),
            f"Latency against width of {view.name}; {landed}",
        )
    if page.sweep:
        drawn["sweep"] = plot_ratio_sweep(page.sweep), "Measured latency against pruning ratio, per method"
    if page.plan is not None and page.plan.choices:
        drawn["widths"] = plot_widths(page.plan), "Width of every channel group: original, host, tailprune"
    if page.layers:
        drawn["layers"] = plot_latency_by_layer(page.layers), "Latency of every layer, host and tailprune"
    if any(row.prediction_error is not None for row in page.comparison.rows):
        drawn["predicted"] = plot_predicted_measured(page.comparison.rows), "Predicted against measured latency"
    return {name: figure_svg(figure, name=name, alt=alt) for name, (figure, alt) in drawn.items()}


def _key_figures(page: ReportPage) -> list[tuple[str, str, str]]:
    """(value, what it is, detail) of the numbers to see first."""
    comparison = page.comparison
    best, host = comparison.best, comparison.host
    shown = []
    if best is None:
        return []
    if host.measured_us is not None:
        times = f"{microseconds(host.measured_us)} → {microseconds(best.measured_us)}"
        shown.append((change(comparison.against_host(best)), "measured latency against the host", times))
    if best.accuracy_after is not None and host.accuracy_after is not None:
        points = (best.accuracy_after - host.accuracy_after) * 100
        detail = f"{percent(best.accuracy_after, noise=best.accuracy_noise)}, host {percent(host.accuracy_after)}"
        shown.append((f"{points:+.2f} points".replace("-", "−"), "accuracy against the host, fine-tuned alike", detail))
    if best.groups_total:
        shown.append(
            (
                f"{best.groups_changed} of {best.groups_total}",
                "channel groups at another width than the host's",
                f"with {best.method}",
            )
        )
    return shown
