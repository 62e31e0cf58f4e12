"""One measurement of one shape, with every raw time kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import median

from .errors import InvalidShape
from .shapes import LayerShape

FLAGS = ("unstable", "throttled", "noisy", "out_of_memory", "refused")
#: Half-width of the normal's central 68 % in units of the median absolute deviation (Rousseeuw & Croux 1993).
MAD_TO_SIGMA = 1.4826


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySample:
    """Raw times of one shape in microseconds, in the order they were taken; statistics are derived, never stored."""

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
    def median_us(self) -> float:
        return median(self.times_us)

    @property
    def mad_us(self) -> float:
        """Median absolute deviation from the median."""
        middle = self.median_us
        return median(abs(t - middle) for t in self.times_us)

    @property
    def noise_us(self) -> float:
        """Standard error of the median, from the MAD: 1.2533 sigma / sqrt(n) for a normal."""
        return 1.2533 * MAD_TO_SIGMA * self.mad_us / math.sqrt(len(self.times_us))

    def quantile_us(self, q: float) -> float:
        """The q-quantile, 0 <= q <= 1, by linear interpolation between order statistics."""
        ordered = sorted(self.times_us)
        position = q * (len(ordered) - 1)
        low, high = math.floor(position), math.ceil(position)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    @property
    def usable(self) -> bool:
        """False for a shape the device could not run: kept, so that it is not tried again."""
        return bool(self.times_us)
