"""Let any latency source say where to look first: a wave model, or the table of a similar device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from ..core.errors import MissingLatency
from ..core.protocols import LatencySource
from ..core.shapes import LayerShape
from ..steps import LatencyCurve, detect_steps, summed_curve


class ModelledEdges:
    """Proposes the edges of a source's own curve; implements `core.protocols.WidthProposer`.

    Steps the source does not know are still found where they leave a difference between two measured widths, so a
    wrong source costs measurements and recall of small steps, never a wrong latency.

    >>> from tailprune import LayerShape, WaveModel, load_device
    >>> layer = LayerShape(op="linear", batch=4096, in_channels=512, out_channels=256, dtype="float16")
    >>> proposer = ModelledEdges(WaveModel(load_device("h200")))
    >>> 128 in proposer.edge_widths(lambda width: [(layer.with_channels(out_channels=width), 1)], range(8, 257, 8))
    True
    """

    def __init__(self, source: LatencySource, *, min_riser: float = 0.02) -> None:
        self.source, self.min_riser = source, min_riser

    def edge_widths(
        self, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> Sequence[int]:
        curve = self._curve(calls_at, widths)
        if curve is None:
            return ()
        edges = detect_steps(curve, min_riser=self.min_riser).edge_widths
        return sorted({*edges, *self._kinks(curve)}) if curve.kind == "modelled" else edges

    def expected_us(
        self, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> Sequence[float]:
        curve = self._curve(calls_at, widths)
        return () if curve is None or len(curve) < len(widths) else curve.latency_us

    def _kinks(self, curve: LatencyCurve) -> Iterator[int]:
        """Widths behind which a curve without noise rises by a riser more than before and after: a step on a slope."""
        rises = [there / here - 1 for here, there in pairwise(curve.latency_us)]
        for width, before, rise, after in zip(curve.widths[1:], rises, rises[1:], rises[2:], strict=False):
            if abs(rise - before) >= self.min_riser <= abs(rise - after):
                yield width

    def _curve(
        self, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> LatencyCurve | None:
        try:
            return summed_curve({width: calls_at(width) for width in widths}, self.source, name="a proposal")
        except MissingLatency:
            return None
