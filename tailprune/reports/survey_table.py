"""What does a survey find, layer by layer? One table for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..survey import LayerUse, Survey
from .notation import microseconds
from .tables import _table


def survey_table(survey: Survey, *, most: int | None = None, wide: bool = True) -> Table:
    """One row per layer, those that waste most first, then the slowest; `most` leaves the rest to one line.

    Not `wide`, it fits into eighty characters and leaves out intensity, tiles and warps.
    """
    table = _table(
        f"{escape(survey.model)}: what each layer uses (µs)",
        caption=f"{survey.kind}, {escape(survey.origin)}; batch {survey.batch}, {survey.dtype}, {survey.memory_format}. Use: "
        "useful FLOP/s over the stated peak (>: faster than a direct product can be). Waves (the last one's fill), tiles (their used share) and tail (time that SMs wait for "
        "it) are the wave model's. Wasted: paid for channels that are not there; free: channels up to the edge, at no cost.",
    )
    table.padding = (0, 1, 0, 0)
    table.add_column("layer", overflow="fold", min_width=14)
    ranked = survey.by_wasted
    headings = [heading for heading in survey_cells(ranked[0]) if wide or heading not in ("FLOP/B", "tiles", "warps")]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in ranked[:most]:
        cells = survey_cells(layer)
        table.add_row(
            Text(layer.name), *(cells[heading] for heading in headings), style="" if layer.wasted_us else "dim"
        )
    if most is not None and (left := ranked[most:]):
        table.add_row(f"… {len(left)} more", style="dim")
    return table


def survey_cells(layer: LayerUse) -> dict[str, str]:
    """A layer's numbers as text, heading by heading; `–` for what nobody states."""
    shape, grid = layer.shape, layer.grid

    def us(value: float | None) -> str:
        return microseconds(value, kind=layer.kind).replace(" µs", "") if value else "–"

    free = layer.free_headroom
    return {
        "channels": f"{shape.in_channels:,}→{shape.out_channels:,}",
        "time": us(layer.latency_us),
        "use": (">" * layer.beyond_peak + f"{layer.utilization:.1%}") if layer.utilization else "–",
        "FLOP/B": f"{layer.intensity:,.0f}",
        "waves": f"{grid.num_waves} ({grid.tail_fill:.0%})" if grid else "–",
        "tiles": f"{grid.tile_efficiency:.0%}" if grid else "–",
        "warps": f"{layer.occupancy:.0%}" if layer.occupancy else "–",
        "tail": us(layer.split.tail_us if layer.split else None),
        "wasted": us(layer.wasted_us),
        "free": "–" if free is None else f"{free:,}",
    }
