"""A latency curve read as plateaus and the edges between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..core.errors import InvalidShape, MissingLatency
from .curve import LatencyCurve

#: `confirmed`: a jump beyond the noise at an exactly known width; `ambiguous`: size or place is in doubt;
#: `end`: the curve stops here.
EdgeVerdict = Literal["confirmed", "ambiguous", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """Widths low..high between which nothing jumps. A plateau may slope.

    `riser` is the jump behind the edge `high` as a signed fraction of the latency at the edge, in excess of the local
    slope; negative where the next width is faster. `sigmas` is that jump over its standard error.
    """

    low: int
    high: int
    low_us: float
    high_us: float
    verdict: EdgeVerdict = "end"
    riser: float = 0.0
    sigmas: float = 0.0

    @property
    def slope_us(self) -> float:
        """Microseconds per channel from the start to the edge."""
        return (self.high_us - self.low_us) / (self.high - self.low) if self.high > self.low else 0.0


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """Plateaus in ascending order that cover every width of the curve; the last one's verdict is `end`.

    `noise_floor` is the median standard error as a fraction of latency: no edge much below it can be seen.
    """

    curve: LatencyCurve
    plateaus: tuple[Plateau, ...]
    noise_floor: float
    min_riser: float

    @cached_property
    def edge_widths(self) -> tuple[int, ...]:
        """The last width of every plateau, whatever its verdict; the widest width is always one."""
        return tuple(plateau.high for plateau in self.plateaus)

    @property
    def edges(self) -> tuple[Plateau, ...]:
        """Plateaus that end in a riser, confirmed or ambiguous."""
        return self.plateaus[:-1]

    @property
    def confirmed_edges(self) -> tuple[int, ...]:
        return tuple(plateau.high for plateau in self.edges if plateau.verdict == "confirmed")

    @property
    def usable(self) -> bool:
        """Whether there is any confirmed upward step at all: "no usable steps on this device" is an answer."""
        return any(plateau.verdict == "confirmed" and plateau.riser > 0 for plateau in self.edges)

    def plateau_at(self, width: int) -> Plateau:
        """The plateau a width lies on; MissingLatency in a gap of the grid that holds an edge at an unknown place."""
        if not self.plateaus[0].low <= width <= self.plateaus[-1].high:
            raise InvalidShape(
                f"Width {width} is outside this staircase, which covers {self.plateaus[0].low}..{self.plateaus[-1].high}."
            )
        plateau = self.plateaus[bisect_left(self.edge_widths, width)]
        if width < plateau.low:
            raise MissingLatency(
                f"An edge lies somewhere below width {plateau.low}, and width {width} may be on either side of it; measure it."
            )
        return plateau

    def covers(self, width: int) -> bool:
        """Whether the plateau of this width is known: between measured widths of one plateau no edge was found."""
        if not self.plateaus[0].low <= width <= self.plateaus[-1].high:
            return False
        return width >= self.plateaus[bisect_left(self.edge_widths, width)].low

    def headroom_at(self, width: int) -> int:
        """Channels that may be added before the next edge."""
        return self.plateau_at(width).high - width

    def steps_between(self, low: int, high: int) -> int:
        """Number of edges that lie between two widths, low below high."""
        inner = self.edge_widths[:-1]
        return bisect_left(inner, high) - bisect_left(inner, low)

    def edges_near(self, width: int, reach: int = 1) -> tuple[int, ...]:
        """Up to `reach` edge widths below and above this width, ascending, and the width itself where it is one."""
        below, above = bisect_left(self.edge_widths, width), bisect_right(self.edge_widths, width)
        return self.edge_widths[max(0, below - reach) : above + reach]
