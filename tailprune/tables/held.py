"""Which shapes lie inside a plateau whose two ends were measured, and what they cost."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from ..core.errors import TableError
from ..core.shapes import LayerShape
from .rows import SHAPE_COLUMNS

#: Which channel count runs along the plateau; `both` where a layer keeps its channels (depthwise, pools, elementwise).
Axis = Literal["out", "in", "both"]

_FREE = {"out": ("out_channels",), "in": ("in_channels",), "both": ("in_channels", "out_channels", "conv_groups")}
_WHOLE_LINE = {axis: attrgetter(*(name for name in SHAPE_COLUMNS if name not in free)) for axis, free in _FREE.items()}


def coupled(shape: LayerShape) -> bool:
    """Whether a layer keeps its channels, so that in and out run together."""
    return shape.depthwise or shape.op not in ("conv", "linear", "attention")


def line_of(shape: LayerShape, axis: Axis) -> Hashable:
    """What all shapes along one axis share. The conv groups of a depthwise layer follow its channels; others stay."""
    return axis, axis == "both" and not shape.depthwise and shape.conv_groups, _WHOLE_LINE[axis](shape)


def are_on_one_line(a: LayerShape, b: LayerShape) -> bool:
    """Whether two shapes are equal but for one channel count (both, where a layer keeps its channels)."""
    axes: tuple[Axis, ...] = ("both",) if coupled(a) and coupled(b) else ("out", "in")
    return any(line_of(a, axis) == line_of(b, axis) for axis in axes)


def width_along(shape: LayerShape, axis: Axis) -> int:
    return shape.in_channels if axis == "in" else shape.out_channels


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPlateau:
    """Every shape from `low` to `high` along one channel axis costs `us` microseconds."""

    low: LayerShape
    high: LayerShape
    us: float

    def __post_init__(self) -> None:
        if not 0 < self.us < float("inf"):
            raise TableError(f"A held latency must be positive and finite, got {self.us!r} for {self.low}.")
        if line_of(self.low, self.axis) != line_of(self.high, self.axis):
            raise TableError(
                f"A plateau runs along one channel axis, but {self.low} and {self.high} differ in more than that. "
                "Hold one axis at a time."
            )
        if width_along(self.low, self.axis) > width_along(self.high, self.axis):
            raise TableError(f"The low end of a plateau is the narrower one; swap {self.low} and {self.high}.")

    @property
    def axis(self) -> Axis:
        if coupled(self.low) and coupled(self.high):
            return "both"
        return "out" if self.low.in_channels == self.high.in_channels else "in"


class HeldPlateaus:
    """The plateaus in force: on one line a new one replaces those it overlaps by more than a common end."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, list[tuple[int, int, HeldPlateau]]] = {}

    def add(self, plateau: HeldPlateau) -> None:
        axis = plateau.axis
        low, high = width_along(plateau.low, axis), width_along(plateau.high, axis)
        line = self._lines.setdefault(line_of(plateau.low, axis), [])
        line[:] = sorted(
            [*(old for old in line if old[1] <= low or old[0] >= high), (low, high, plateau)],
            key=lambda entry: entry[:2],
        )

    def find(self, shape: LayerShape) -> HeldPlateau | None:
        """The plateau around a shape; where one runs along out and another along in, the one along out."""
        axes: tuple[Axis, ...] = ("both",) if coupled(shape) else ("out", "in")
        for axis in axes:
            width = width_along(shape, axis)
            for low, high, plateau in self._lines.get(line_of(shape, axis), ()):
                if low <= width <= high:
                    return plateau
        return None

    def __contains__(self, plateau: HeldPlateau) -> bool:
        return any(plateau == entry[2] for entry in self._lines.get(line_of(plateau.low, plateau.axis), ()))

    def __iter__(self) -> Iterator[HeldPlateau]:
        return (plateau for line in self._lines.values() for _, _, plateau in line)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))
