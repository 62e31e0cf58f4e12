"""How far a point of a curve may be off by chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tailprune.core.sample import MAD_TO_SIGMA

from .curve import LatencyCurve

#: Fewer points than this say nothing about their own noise.
FEWEST_POINTS = 8


def point_noise_us(curve: LatencyCurve) -> NDArray[np.float64]:
    """Standard error of each latency in microseconds.

    Given errors are believed, but none below the curve's median share of latency, since an error derived from few
    times is itself noisy. Where none is given it is estimated from the second differences
    d_i = log y_{i-1} - 2 log y_i + log y_{i+1}, of variance 6 sigma^2, of which risers touch a minority only.
    Modelled latencies have none.
    """
    y = np.asarray(curve.latency_us)
    if curve.noise_us:
        given = np.asarray(curve.noise_us)
        return np.maximum(given, np.median(given / y) * y)
    if curve.kind == "modelled" or len(curve) < FEWEST_POINTS:
        return np.zeros_like(y)
    bends = np.abs(np.diff(np.log(y), n=2))
    return float(np.median(bends)) * MAD_TO_SIGMA / math.sqrt(6) * y
