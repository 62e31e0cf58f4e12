"""Where is a step likely, before anything was measured?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..core.shapes import LayerShape
from .model import WaveModel

#: Smallest modelled rise that is worth a measurement: the threshold with the best F1 on the fitting half of the step-1 recordings.
LIKELY_RISER = 0.05


class ModelProposer:
    """A `WidthProposer`: the widths behind which the model's arithmetic jumps. What it says never becomes a latency.

    >>> from tailprune.waves import ModelProposer, WaveModel, load_device
    >>> layer = LayerShape(op="linear", batch=4096, in_channels=1024, out_channels=512, dtype="float16")
    >>> proposer = ModelProposer(WaveModel(load_device("a100")))
    >>> 256 in proposer.edge_widths(lambda width: [(layer.with_channels(out_channels=width), 1)], range(8, 513, 8))
    True
    """

    def __init__(self, model: WaveModel, *, min_riser: float = LIKELY_RISER) -> None:
        self.model = model
        self.min_riser = min_riser

    def edge_widths(
        self, calls_at: Callable[[int], Iterable[tuple[LayerShape, int]]], widths: Sequence[int]
    ) -> tuple[int, ...]:
        """The ascending widths after which the summed estimate rises, or falls, by `min_riser` or more."""
        us = [sum(calls * self.model.latency_us(shape) for shape, calls in calls_at(width)) for width in widths]
        return tuple(
            width
            for width, here, there in zip(widths, us, us[1:], strict=False)
            if abs(there - here) >= self.min_riser * here
        )
