"""How far a point of a curve may be off by chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .curve import LatencyCurve

#: Fewer points than this say nothing about their own noise.
FEWEST_POINTS = 8
#: A quarter of all standard normals lie within 0.3186 of the centre, nine in ten within 1.6449.
QUARTER, NINE_TENTHS = 0.3186, 1.6449
#: Two standard errors of that quarter of n differences, relative: sqrt(p(1-p)) / (density x quantile) = 1.79 / sqrt(n).
CAUTION = 2 * 1.79
#: Chatter is what a running median of 9 points cannot follow, judged over 33: it keeps every monotone staircase and
#: every step between plateaus of 5 points, and a lone spike moves too few of the 33 to matter.
MEDIAN_POINTS, LOCAL_POINTS = 9, 33
#: What recurs 8 points further on is alignment (float16: multiples of 8; TF32: of 4) and no chatter.
ALIGNMENT = 8
#: Scatter this many times that of the whole curve is chatter. It comes in runs, so averaging over a plateau helps less
#: than independent errors would: it counts this many times. Settled on replicates of one curve measured twice.
EVIDENT = RUNS = 2.0


def point_noise_us(curve: LatencyCurve) -> NDArray[np.float64]:
    """Standard error of each latency in microseconds.

    Given errors are believed, but none below the curve's median share of latency, since an error derived from few
    times is itself noisy. Modelled latencies have none. Where none is given it is estimated from the curve itself:
    from the smallest quarter of its differences, which risers leave alone, and higher where neighbours jump up and
    down at random (there a library wavers between two kernels, and a single number per width cannot tell which of it
    would repeat).
    """
    y = np.asarray(curve.latency_us)
    if curve.noise_us:
        given = np.asarray(curve.noise_us)
        return np.maximum(given, np.median(given / y) * y)
    if curve.kind == "modelled" or len(curve) < FEWEST_POINTS:
        return np.zeros_like(y)
    log_y = np.log(y)
    differences = np.diff(log_y)
    quarter = np.quantile(np.abs(differences - np.median(differences)), 0.25)
    overall = quarter / (QUARTER * math.sqrt(2)) * (1 + CAUTION / math.sqrt(len(differences)))
    local = _chatter(log_y)
    return np.where(local > EVIDENT * overall, RUNS * local, overall) * y


def _chatter(log_y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local scatter, as the standard deviation of a normal, of jumps that neither last nor recur."""
    off = log_y - np.median(_windows(log_y, MEDIAN_POINTS), axis=1)
    period = min(ALIGNMENT, len(off) - 1)
    around = np.pad(off, period, mode="reflect")
    irregular = np.maximum(np.abs(off - around[: -2 * period]), np.abs(off - around[2 * period :]))
    return np.quantile(_windows(np.minimum(np.abs(off), irregular), LOCAL_POINTS), 0.9, axis=1) / NINE_TENTHS


def _windows(values: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Each point with its neighbours; beyond the ends the curve is continued by its own mirror image."""
    half = min(points, 2 * len(values) - 1) // 2
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, half, mode="reflect"), 2 * half + 1)
