"""One measurement of one shape, with every raw time kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median

from .errors import InvalidShape
from .shapes import LayerShape

#: `afresh`: taken beside all shapes that it is to be compared with, which earlier visits of this shape were not: they count no more.
FLAGS = ("unstable", "throttled", "noisy", "afresh", "out_of_memory", "refused")
#: Half-width of the normal's central 68 % in units of the median absolute deviation (Rousseeuw & Croux 1993).
MAD_TO_SIGMA = 1.4826
#: Among times of one and the same work: the usual one is the fastest but so many of them and one at least, the fast mode though
#: the machine were shared for most of the time, and what is so many times longer was taken while something else used the machine. A product of two matrices that never
#: left its core's caches falls into two groups on a busy host: 46 % within 3 % of the usual time, 41 % more than 15 % above
#: (`benchmarks/reading.csv`).
USUAL, SLOW = 0.1, 1.08
#: Fewer times do not tell what is usual; as many have a 95 % interval of their median (`timing.stopping.median_interval`).
FEWEST = 6
#: Standard error of the median of many normal values, in units of that of their mean: sqrt(pi / 2).
MEDIAN_TO_MEAN = 1.2533


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def calm_times(times_us: Sequence[float]) -> tuple[float, ...]:
    """Which of these times of the same work did nothing else prolong? Those not slower than usual, in order; of fewer than six all.

    >>> calm_times([10.0, 10.2, 13.0, 10.1, 12.5, 10.3])
    (10.0, 10.2, 10.1, 10.3)
    """
    if len(times_us) < FEWEST:
        return tuple(times_us)
    slow = SLOW * usual_time(times_us)
    return tuple(time for time in times_us if time <= slow)


def usual_time(times_us: Sequence[float]) -> float:
    """What the same work takes while nothing else uses the machine, of two times or more."""
    return sorted(times_us)[max(1, int(USUAL * len(times_us)))]


def median_error(values: Sequence[float]) -> float:
    """Standard error of the median of these values, from their MAD, as one outlier must not decide it: 1.2533 sigma / sqrt(n)
    for a normal.

    >>> median_error([68.0, 68.0, 122.0])
    0.0
    """
    middle = median(values)
    return MEDIAN_TO_MEAN * MAD_TO_SIGMA * median(abs(value - middle) for value in values) / math.sqrt(len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySample:
    """Raw times of one shape in microseconds, in the order they were taken; statistics are derived, never stored.

    The latency is the median of the calm times: work that others do on the machine prolongs some readings and shortens none.
    """

    shape: LayerShape
    times_us: tuple[float, ...]
    warmups: int = 0
    utc: str = ""
    flags: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        failed = "out_of_memory" in self.flags or "refused" in self.flags
        if not self.times_us and not failed:
            raise InvalidShape(f"A sample of {self.shape} holds no times; a failed one must say so in its flags.")
        if not all(math.isfinite(t) and t > 0 for t in self.times_us):
            raise InvalidShape(
                f"A sample of {self.shape} holds a time that is not a positive number: {self.times_us!r}."
            )
        unknown = [f for f in self.flags if f not in FLAGS]
        if unknown:
            raise InvalidShape(f"Unknown sample flag {unknown[0]!r}; allowed: {', '.join(FLAGS)}.")

    @property
    def calm_us(self) -> tuple[float, ...]:
        """The times during which nothing else seems to have used the machine (`calm_times`)."""
        return calm_times(self.times_us)

    @property
    def median_us(self) -> float:
        """Of the calm times."""
        return median(self.calm_us)

    @property
    def mad_us(self) -> float:
        """Median absolute deviation of the calm times from their median."""
        calm = self.calm_us
        middle = median(calm)
        return median(abs(time - middle) for time in calm)

    @property
    def noise_us(self) -> float:
        """Standard error of the median of the calm times (`median_error`)."""
        return median_error(self.calm_us)

    def quantile_us(self, q: float) -> float:
        """The q-quantile of all times, 0 <= q <= 1, by linear interpolation between order statistics."""
        ordered = sorted(self.times_us)
        position = q * (len(ordered) - 1)
        low, high = math.floor(position), math.ceil(position)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def usable(self) -> bool:
        """False for a shape the device could not run: kept, so that it is not tried again."""
        return bool(self.times_us)
