"""Widths that nobody should choose, because more channels cost no more."""

from __future__ import annotations

import math

import numpy as np

from ..core.errors import InvalidShape
from .curve import LatencyCurve
from .noise import point_noise_us

#: Two latencies closer than this many standard errors of their difference count as equal.
INDISTINGUISHABLE = 2.0


def dominated_widths(curve: LatencyCurve, *, sigmas: float = INDISTINGUISHABLE) -> tuple[int, ...]:
    """Which widths have a larger width that is no slower?

    Width w is dominated when some measured w' > w has

        latency(w') <= latency(w) + sigmas x sqrt(noise(w)^2 + noise(w')^2)

    so inside a flat plateau every width but the edge is. `sigmas` 0 compares the bare numbers.

    >>> dominated_widths(LatencyCurve(widths=(8, 16, 24, 32), latency_us=(5.0, 9.0, 9.0, 8.0), kind="modelled"))
    (16, 24)
    """
    if not (math.isfinite(sigmas) and sigmas >= 0):
        raise InvalidShape(f"sigmas must be finite and at least 0, got {sigmas!r}; {INDISTINGUISHABLE} is usual.")
    y, noise = np.asarray(curve.latency_us), point_noise_us(curve)
    return tuple(
        width
        for i, width in enumerate(curve.widths[:-1])
        if bool(np.any(y[i + 1 :] <= y[i] + sigmas * np.hypot(noise[i], noise[i + 1 :])))
    )


def undominated_widths(curve: LatencyCurve, *, sigmas: float = INDISTINGUISHABLE) -> tuple[int, ...]:
    """The widths left to choose from: each is faster than every larger one. The widest always is among them."""
    dominated = set(dominated_widths(curve, sigmas=sigmas))
    return tuple(width for width in curve.widths if width not in dominated)
