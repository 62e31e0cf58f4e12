"""Let any latency source say where to look first: a wave model, or the table of a similar device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..core.errors import MissingLatency
from ..core.protocols import LatencySource
from ..core.shapes import LayerShape
from ..steps import detect_steps, summed_curve


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
        try:
            curve = summed_curve({width: calls_at(width) for width in widths}, self.source, name="a proposal")
        except MissingLatency:
            return ()
        return detect_steps(curve, min_riser=self.min_riser).edge_widths
