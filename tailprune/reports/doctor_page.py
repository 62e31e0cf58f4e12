"""The doctor's finding as one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..core.artifact import write_text_atomically
from ..survey import Diagnosis
from .canvas import figure_svg
from .doctor_plots import plot_change, plot_payoff, plot_wasted
from .doctor_table import finding_cells, ranked_layers
from .notation import change, microseconds
from .template import markup, render


def render_doctor_page(diagnosis: Diagnosis, *, provenance: Mapping[str, object] | None = None) -> str:
    """The page as HTML text; `provenance` says what was pruned and how. Every name in it is escaped."""
    return render(
        "doctor.html",
        diagnosis=diagnosis,
        key_figures=_key_figures(diagnosis),
        rows=[(layer, finding_cells(layer, diagnosis)) for layer in ranked_layers(diagnosis)],
        svg={name: markup(text) for name, text in _plots(diagnosis).items()},
        bounds=_bounds(diagnosis),
        facts={
            "latencies": f"{diagnosis.origin} ({diagnosis.kind})",
            "batch": diagnosis.batch,
            "dtype": diagnosis.dtype,
            "memory format": diagnosis.memory_format,
        },
        provenance=provenance or {},
    )


def write_doctor_page(
    diagnosis: Diagnosis, path: str | os.PathLike[str], *, provenance: Mapping[str, object] | None = None
) -> None:
    """Write the page whole or not at all."""
    write_text_atomically(path, render_doctor_page(diagnosis, provenance=provenance))


def _key_figures(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    """(value, what it is, detail) of the numbers to see first."""
    kind, now = diagnosis.kind, diagnosis.latency_us
    shown = []
    if diagnosis.dense_us is not None and diagnosis.expected_us is not None:
        times = f"{microseconds(diagnosis.dense_us, kind=kind)} → {microseconds(now, kind=kind)}"
        shown.append((change(now / diagnosis.dense_us - 1), "latency against the dense network", times))
        promised = f"which would be {microseconds(diagnosis.expected_us, kind=kind)}"
        shown.append((change(diagnosis.macs_share - 1), "multiply-adds", promised))
    else:
        shown.append((microseconds(now, kind=kind), "latency", "a sum of layers"))
    paid = f"{diagnosis.off_edge} of {len(diagnosis.places)} groups stop short of an edge"
    shown.append((microseconds(diagnosis.wasted_us, kind=kind), "paid for channels that are not there", paid))
    if diagnosis.changes:
        times = f"{microseconds(now, kind=kind)} → {microseconds(diagnosis.together_us, kind=kind)}"
        what = (
            f"with the {len(diagnosis.changes)} changes below"
            if len(diagnosis.changes) > 1
            else "with the change below"
        )
        shown.append((change(diagnosis.together_us / now - 1), what, times))
    return shown


def _bounds(diagnosis: Diagnosis) -> list[tuple[str, float, str]]:
    """(what binds, share of the time, microseconds), the largest first."""
    ranked = sorted(diagnosis.us_by_bound.items(), key=lambda item: -item[1])
    return [(bound, us / diagnosis.latency_us, microseconds(us, kind=diagnosis.kind)) for bound, us in ranked]


def _plots(diagnosis: Diagnosis) -> dict[str, str]:
    drawn = {}
    for index, suggested in enumerate(diagnosis.changes):
        place = diagnosis.places[suggested.group]
        alt = f"Latency against width of {suggested.group}: now {suggested.width}, suggested {suggested.to}"
        drawn[f"change-{index}"] = plot_change(place, suggested.to), alt
    if len(diagnosis.payoff.times) > 1:
        figure = plot_payoff(diagnosis.payoff, expected=1 - diagnosis.macs_share)
        drawn["payoff"] = figure, "Latency saved by pruning against batch"
    if diagnosis.wasted_us > 0:
        drawn["wasted"] = plot_wasted(diagnosis), "Wasted microseconds by channel group"
    return {name: figure_svg(figure, name=name, alt=alt) for name, (figure, alt) in drawn.items()}
