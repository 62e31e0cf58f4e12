"""When enough times have been taken: the median is known to the asked precision, or it will not settle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ..core.errors import InvalidShape


@lru_cache(maxsize=4096)
def interval_rank(count: int, confidence: float) -> int:
    """The largest k with P(x_(k) <= median <= x_(count + 1 - k)) >= confidence; 0 where even the full range is too short.

    The number of times below the median is binomial with p = 1/2, whatever their distribution.
    """
    tail, rank = 0.0, 0
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if 1 - 2 * tail < confidence:
            break
        rank = below + 1
    return rank


def median_interval(times: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Between which values the true median lies, free of any assumption on the distribution.

    Unbounded while too few times were taken (fewer than 6 at 95 %).

    >>> median_interval([1.0, 1.1, 1.2, 1.3, 1.4, 9.0])
    (1.0, 9.0)
    """
    rank = interval_rank(len(times), confidence)
    if rank == 0:
        return -math.inf, math.inf
    ordered = sorted(times)
    return ordered[rank - 1], ordered[-rank]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """Stop when half the confidence interval of the median is within `precision` of it, or at a limit.

    A shape that reaches a limit first is unstable. `max_seconds` counts the shape's own visits only.
    """

    precision: float = 0.01
    confidence: float = 0.95
    min_visits: int = 6
    max_visits: int = 25
    max_seconds: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1 or not 0 < self.confidence < 1:
            raise InvalidShape(
                f"Precision and confidence must lie between 0 and 1, got {self.precision!r} and {self.confidence!r}."
            )
        if not 1 <= self.min_visits <= self.max_visits or not self.max_seconds > 0:
            raise InvalidShape(
                f"A stopping rule needs 1 <= min_visits <= max_visits and a positive time limit, got "
                f"{self.min_visits!r}, {self.max_visits!r} and {self.max_seconds!r} s."
            )

    def half_width(self, times: Sequence[float]) -> float:
        """Half the interval of the median, as a fraction of the median's midpoint."""
        low, high = median_interval(times, self.confidence)
        return (high - low) / (high + low) if math.isfinite(high) else math.inf

    def verdict(
        self, times: Sequence[float], *, visits: int, seconds: float
    ) -> Literal["go on", "settled", "unstable"]:
        """`visits` counts rejected readings, too, `seconds` what all of them took."""
        if len(times) >= self.min_visits and self.half_width(times) <= self.precision:
            return "settled"
        if visits >= self.max_visits or (seconds >= self.max_seconds and visits >= self.min_visits):
            return "unstable"
        return "go on"
