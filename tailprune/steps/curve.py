"""What one width costs: latency against channel count, with the noise of each point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ..core.errors import InvalidShape, MissingLatency
from ..core.protocols import LatencyKind


@dataclass(frozen=True, kw_only=True)
class LatencyCurve:
    """Latency at ascending widths, not assumed monotone.

    `noise_us` is the standard error of each latency; empty where nothing is known about it (then `detect_steps`
    estimates it from the curve), zeros where latencies are exact (a model's). `kind` is the weakest kind among the
    points.

    >>> curve = LatencyCurve(widths=(8, 16, 24), latency_us=(10.0, 10.0, 14.0), noise_us=(0.1, 0.1, 0.1))
    >>> curve.at(24), curve.granule
    (14.0, 8)
    """

    widths: tuple[int, ...]
    latency_us: tuple[float, ...]
    noise_us: tuple[float, ...] = ()
    kind: LatencyKind = "measured"

    def __post_init__(self) -> None:
        if not self.widths:
            raise InvalidShape("A latency curve needs at least one width, got none; measure some first.")
        if len(self.latency_us) != len(self.widths) or len(self.noise_us) not in (0, len(self.widths)):
            raise InvalidShape(
                f"A latency curve needs one latency and one noise per width, got {len(self.widths)} widths, "
                f"{len(self.latency_us)} latencies and {len(self.noise_us)} noises."
            )
        if self.widths[0] < 1 or any(b <= a for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise InvalidShape("The widths of a latency curve must be positive and strictly ascending; sort them.")
        for width, us in zip(self.widths, self.latency_us, strict=True):
            if not (math.isfinite(us) and us > 0):
                raise InvalidShape(f"The latency at width {width} must be positive and finite, got {us!r}.")
        if not all(math.isfinite(noise) and noise >= 0 for noise in self.noise_us):
            raise InvalidShape("The noise of a latency curve must be finite and at least 0 everywhere.")

    def __len__(self) -> int:
        return len(self.widths)

    @cached_property
    def _at(self) -> dict[int, float]:
        return dict(zip(self.widths, self.latency_us, strict=True))

    def __contains__(self, width: object) -> bool:
        return width in self._at

    def at(self, width: int) -> float:
        """Latency at a width of the curve; MissingLatency elsewhere, because an edge may lie in between."""
        if width not in self._at:
            raise MissingLatency(
                f"Width {width} is not on this curve of {len(self)} widths {self.widths[0]}..{self.widths[-1]}; measure it."
            )
        return self._at[width]

    @cached_property
    def granule(self) -> int:
        """The finest distance the widths of this curve are multiples of: neighbours that far apart enclose no width."""
        return math.gcd(*(b - a for a, b in zip(self.widths, self.widths[1:], strict=False))) or 1
