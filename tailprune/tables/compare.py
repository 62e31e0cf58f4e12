"""Two tables side by side: bring one into the other, or say where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot

from ..core.shapes import LayerShape
from .table import LatencyTable, compare_environments

#: Standard errors beyond which a difference is no accident: 99.7 % of a normal lies within three.
SIGMAS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """Counts of what was new to the receiving table, and the differences that did not stop the merge."""

    added: int
    already_there: int
    held: int
    warnings: tuple[str, ...]


def merge(into: LatencyTable, other: LatencyTable) -> MergeReport:
    """Bring every visit and held plateau of `other` into `into`, whose environment must be the same.

    EnvironmentMismatch where steps may lie elsewhere. Visits it already has are passed over, so merging again (after
    a kill, or overlapping shards) changes nothing.
    """
    warnings = compare_environments(str(into.path or "the table"), into.environment, other.environment)
    into.refresh()
    known, plateaus = set(into.visits()), set(into.held)
    visits, held = other.visits(), other.held
    new = [visit for visit in visits if visit not in known]
    into.add_many(new)
    for plateau in held:
        into.hold(plateau.low, plateau.high, plateau.us)
    return MergeReport(
        added=len(new), already_there=len(visits) - len(new), held=len(set(held) - plateaus), warnings=warnings
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeDifference:
    """One shape measured in both tables."""

    shape: LayerShape
    a_us: float
    b_us: float
    noise_us: float  # one standard error of the difference

    @property
    def ratio(self) -> float:
        return self.b_us / self.a_us

    @property
    def significant(self) -> bool:
        return abs(self.b_us - self.a_us) > SIGMAS * self.noise_us


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDifference:
    """`environment`: field -> (a's, b's). `only_a`, `only_b`: shapes measured in one and not (or failing) in the other."""

    environment: Mapping[str, tuple[object, object]]
    common: tuple[ShapeDifference, ...]
    only_a: tuple[LayerShape, ...]
    only_b: tuple[LayerShape, ...]


def diff(a: LatencyTable, b: LatencyTable) -> TableDifference:
    """Shape by shape, of any two tables: other devices, other versions. Held values are not compared, measured ones are."""
    refused, warned = a.environment.differences(b.environment)
    in_a = {sample.shape: a.latency_us(sample.shape) for sample in a.samples() if sample.usable}
    in_b = {sample.shape: b.latency_us(sample.shape) for sample in b.samples() if sample.usable}
    common = tuple(
        ShapeDifference(shape=shape, a_us=us, b_us=in_b[shape], noise_us=hypot(a.noise_us(shape), b.noise_us(shape)))
        for shape, us in in_a.items()
        if shape in in_b
    )
    return TableDifference(
        environment=refused | warned,
        common=common,
        only_a=tuple(shape for shape in in_a if shape not in in_b),
        only_b=tuple(shape for shape in in_b if shape not in in_a),
    )
