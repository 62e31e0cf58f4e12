"""Where a noisy sequence of sloped pieces breaks: penalised least squares over all partitions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Longest piece the search fits at once, in points. Longer plateaus come out in parts and are joined by the caller;
#: it bounds the work at n x 64 and costs no power, since 64 points settle a line far below any riser of interest.
WINDOW = 64
#: Steepest slope of a piece, in units of latency / width: 1 is proportional latency, the steepest a plateau can
#: honestly be; a little more for curvature. Without a bound two points across a riser would pass for a slope.
STEEPEST = 1.25
#: A plateau may fall a little (measured: boost clocks, better cache fit), never as fast as a riser.
FALLING = -0.1


class PieceCosts:
    """Weighted least-squares lines with bounded slope over any range of points, from prefix sums."""

    def __init__(self, x: Floats, y: Floats, sigma: Floats) -> None:
        self.x, self.y, self.sigma = x, y, sigma
        self.center = float(x.mean())
        # Prefix sums of weights cancel beyond 16 digits: weights span ten at most, more than any real device does.
        w = 1.0 / np.maximum(sigma, sigma.max() * 1e-5) ** 2
        u = x - self.center
        self.prefix: Floats = np.concatenate(
            [np.zeros((6, 1)), np.cumsum([w, w * u, w * u * u, w * y, w * u * y, w * y * y], axis=1)], axis=1
        )

    def fit(self, start: int, stop: int) -> tuple[float, float, float, float, float]:
        """(mean x, mean y, slope, weight, weighted spread of x) of the line through points start..stop-1."""
        w, wx, wxx, wy, wxy, _ = (float(v) for v in self.prefix[:, stop] - self.prefix[:, start])
        mean_x, mean_y = wx / w, wy / w
        natural = mean_y / (mean_x + self.center)
        if stop - start < 2:
            return mean_x + self.center, mean_y, 0.0, w, 0.0
        spread = wxx - w * mean_x * mean_x
        slope = (wxy - w * mean_x * mean_y) / spread
        slope = min(max(slope, FALLING * natural), STEEPEST * natural)
        return mean_x + self.center, mean_y, slope, w, spread

    def matrix(self, window: int, slope: float = 0.0, precision: float = 0.0, flat: float = 0.0) -> Floats:
        """cost[t - 1, j]: residual of the piece of j + 1 points that ends before point t, infinite off the start.

        With a `precision` a piece also pays for a slope other than `slope`, precision x difference squared; with `flat` for any,
        flat x (slope / proportional slope) squared.
        """
        n = len(self.x)
        # Row t - 1 of each difference is prefix[t] - prefix[t - 1], prefix[t] - prefix[t - 2], ...; before the start
        # the prefix is continued by its first value, and those entries are set to infinity at the end.
        padded = np.pad(self.prefix, ((0, 0), (window - 1, 0)))
        earlier = np.lib.stride_tricks.sliding_window_view(padded[:, :-1], window, axis=1)[:, :, ::-1]
        w, wx, wxx, wy, wxy, wyy = self.prefix[:, 1:, None] - earlier
        mean_x, mean_y = wx / w, wy / w
        sxx = np.maximum(wxx - wx * mean_x, 1e-30)
        sxy = wxy - wx * mean_y
        natural = mean_y / (mean_x + self.center)
        ridge = flat / natural**2
        fitted = np.clip((sxy + precision * slope) / (sxx + precision + ridge), FALLING * natural, STEEPEST * natural)
        cost = (
            wyy
            - wy * mean_y
            - fitted * (2.0 * sxy - fitted * sxx)
            + precision * (fitted - slope) ** 2
            + ridge * fitted**2
        )
        np.maximum(cost, 0.0, out=cost)
        cost[:, 0] = 0.0
        cost[np.arange(window) >= np.arange(1, n + 1)[:, None]] = math.inf
        return cost


def best_partition(
    costs: PieceCosts, penalty: float | Floats, *, slope: float = 0.0, precision: float = 0.0, flat: float = 0.0
) -> tuple[list[int], float]:
    """Starts of the pieces that minimise the sum of costs and of a penalty for each start (exact dynamic programme), and that
    sum."""
    n = len(costs.x)
    penalties = np.broadcast_to(penalty, n)
    window = min(WINDOW, n)
    matrix = costs.matrix(window, slope, precision, flat)
    best = np.zeros(n + 1)
    origin = [0] * (n + 1)
    for stop in range(1, n + 1):
        reach = min(window, stop)
        candidates = matrix[stop - 1, :reach] + (best[stop - reach : stop] + penalties[stop - reach : stop])[::-1]
        j = int(candidates.argmin())
        best[stop] = candidates[j]
        origin[stop] = stop - 1 - j
    starts = []
    stop = n
    while stop:
        stop = origin[stop]
        starts.append(stop)
    return starts[::-1], float(best[n])
