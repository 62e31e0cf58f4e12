"""How would a device time these layers, if there were one? A layer timer without hardware, for tests and demonstrations."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..core.device import DeviceSpec
from ..core.environment import Environment
from ..core.errors import InvalidShape
from ..core.protocols import LatencySource, Notebook
from ..core.sample import LatencySample
from ..core.shapes import LayerShape
from .model import WaveModel

#: Times per visit; odd, so that the median is one of them.
TIMES_PER_VISIT = 11
#: One time in a hundred is hit by something else on the machine, and takes up to three times as long.
OUTLIER_SHARE = 0.01
LARGEST_OUTLIER = 3.0


class SimulatedTimer:
    """Times layers by a latency source, with noise: log-normal of relative scale `noise`, and rare outliers.

    Takes a device (its wave model is used) or any latency source. The same seed gives the same times whatever the order in
    which shapes are visited; a second visit of one shape gives new times. Its environment's runtime is "simulated", so that its
    tables are never taken for measured ones.

    >>> from tailprune.waves import load_device
    >>> timer = SimulatedTimer(load_device("h200"), seed=1)
    >>> timer.environment.runtime, len(timer.time(LayerShape(op="linear", batch=8, in_channels=64, out_channels=64)).times_us)
    ('simulated', 11)
    """

    def __init__(self, device_or_source: DeviceSpec | LatencySource, *, noise: float = 0.005, seed: int = 0) -> None:
        if not (math.isfinite(noise) and noise >= 0):
            raise InvalidShape(f"A simulated timer's noise must be a fraction of at least 0, got {noise!r}; try 0.005.")
        source = WaveModel(device_or_source) if isinstance(device_or_source, DeviceSpec) else device_or_source
        self.source: LatencySource = source
        self.noise = noise
        self.seed = seed
        self._visits: Counter[LayerShape] = Counter()
        device = source.device if isinstance(source, WaveModel) else None
        self._environment = Environment(
            device=device.name if device else source.origin,
            num_sms=device.num_sms if device else 1,
            partition=device.partition if device else "",
            runtime="simulated",
        )

    @property
    def environment(self) -> Environment:
        return self._environment

    def time(self, shape: LayerShape) -> LatencySample:
        """One sample; MissingLatency where the source knows no latency."""
        sample = self._visit(shape, self._visits[shape])
        self._visits[shape] += 1
        return sample

    def _visit(self, shape: LayerShape, visit: int) -> LatencySample:
        true_us = self.source.latency_us(shape)
        digest = hashlib.blake2b(f"{self.seed}|{visit}|{shape!r}".encode(), digest_size=8).digest()
        draw = np.random.default_rng(int.from_bytes(digest, "little"))
        factors = np.exp(self.noise * draw.standard_normal(TIMES_PER_VISIT))
        if self.noise:
            hit = draw.random(TIMES_PER_VISIT) < OUTLIER_SHARE
            factors = np.where(hit, draw.uniform(1.0, LARGEST_OUTLIER, TIMES_PER_VISIT) * factors, factors)
        return LatencySample(shape=shape, times_us=tuple((true_us * factors).tolist()))

    def time_many(self, shapes: Sequence[LayerShape]) -> Iterator[LatencySample]:
        """One sample per distinct shape, in the order given."""
        for shape in dict.fromkeys(shapes):
            yield self.time(shape)

    def resume_many(self, shapes: Sequence[LayerShape], notebook: Notebook) -> Iterator[LatencySample]:
        """The same, a visit that the notebook has already counted as made: another process' run goes on with new times."""
        for shape in dict.fromkeys(shapes):
            yield self._visit(shape, len(notebook.visits(shape)))
