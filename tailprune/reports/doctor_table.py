"""What does the doctor find, layer by layer? The same cells on the terminal and on the page."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..survey import Diagnosis, LayerFinding, Place
from .notation import microseconds
from .tables import _table


def diagnosis_table(diagnosis: Diagnosis, *, most: int | None = None) -> Table:
    """One row per layer, those that waste most first, then the slowest; `most` leaves the rest to one line."""
    table = _table(
        f"{escape(diagnosis.model)}: where the time goes (µs)",
        caption=f"{diagnosis.kind}, {escape(diagnosis.origin)}; batch {diagnosis.batch}, {diagnosis.dtype}, "
        f"{diagnosis.memory_format}. Wasted: paid for the part of a step that the width does not use. Headroom: channels up to "
        "the edge, and what they cost.",
    )
    table.padding = (0, 1, 0, 0)  # eight columns in eighty characters
    table.add_column("layer", overflow="fold", min_width=14)
    ranked = ranked_layers(diagnosis)
    for heading in finding_cells(ranked[0], diagnosis) if ranked else ():
        table.add_column(heading, justify="left" if heading == "bound by" else "right")
    for layer in ranked[:most]:
        style = "" if layer.wasted_us else "dim"
        cells = [cell.replace(" µs", "") for cell in finding_cells(layer, diagnosis).values()]
        table.add_row(Text(layer.name), *cells, style=style)
    if most is not None and (left := ranked[most:]):
        table.add_row(f"… {len(left)} more", style="dim")
    return table


def ranked_layers(diagnosis: Diagnosis) -> list[LayerFinding]:
    return sorted(diagnosis.layers, key=lambda layer: (-layer.wasted_us, -layer.latency_us))


def finding_cells(layer: LayerFinding, diagnosis: Diagnosis) -> dict[str, str]:
    """A layer's numbers as text, heading by heading."""
    shape = layer.shape
    dense = {} if diagnosis.dense_us is None else {"dense": microseconds(layer.dense_us, kind=layer.kind)}
    return {
        "channels": f"{shape.in_channels:,}→{shape.out_channels:,}",
        **dense,
        "now": microseconds(layer.latency_us, kind=layer.kind),
        "wasted": microseconds(layer.wasted_us, kind=layer.kind) if layer.wasted_us else "–",
        "step": _step(layer.place),
        "headroom": _headroom(layer.place, layer),
        "bound by": layer.binding.bound + ("?" if layer.binding.kind == "modelled" else ""),
    }


def _step(place: Place | None) -> str:
    """`33..40`: the first width above the edge below, and the edge above."""
    return "–" if place is None else f"{(place.edge_below or 0) + 1:,}..{place.edge_above:,}"


def _headroom(place: Place | None, layer: LayerFinding) -> str:
    if place is None or place.on_edge:
        return "–" if place is None else "on edge"
    if place.fill_us <= max(2 * place.noise_us, 0.005):  # what would print as 0.00
        return f"{place.headroom:,} free"
    return f"{place.headroom:,} for {microseconds(place.fill_us, kind=layer.kind)}"
