"""Can what is in this table be trusted? (Whether it still holds on the device is asked by `drift`.)"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import hypot

from ..core.errors import FormatError
from ..core.sample import MAD_TO_SIGMA, LatencySample
from ..core.shapes import LayerShape
from .compare import SIGMAS
from .held import HeldPlateau
from .table import LatencyTable
from .visits import counted_visits

#: A difference below this moves no decision: the smallest riser that filling is asked to find is 3 % (docs/measuring.md).
TOLERANCE = 0.03
#: A raw time is an outlier beyond ten robust sigmas and half the median again: no settled distribution reaches there.
OUTLIER_SIGMAS, OUTLIER_SHARE = 10.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Raw times of one visit far from its median."""

    sample: LatencySample
    times_us: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Visits of one shape whose medians differ by more than their noise explains."""

    shape: LayerShape
    medians_us: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A shape measured inside a held plateau, at another latency than the plateau's."""

    plateau: HeldPlateau
    shape: LayerShape
    measured_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCheck:
    """`problems` and `contradictions` make a table unfit; the rest is for the reader to weigh."""

    problems: tuple[str, ...]
    contradictions: tuple[Contradiction, ...] = ()
    unstable: tuple[LayerShape, ...] = ()
    failed: tuple[LayerShape, ...] = ()
    outliers: tuple[Outliers, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    duplicates: tuple[LatencySample, ...] = ()  # visits stored more than once, each named once

    @property
    def ok(self) -> bool:
        return not (self.problems or self.contradictions)

    def summary(self) -> str:
        counts = ", ".join(
            f"{len(found)} {name}"
            for name, found in (
                ("problems", self.problems),
                ("contradicted plateaus", self.contradictions),
                ("unstable shapes", self.unstable),
                ("failed shapes", self.failed),
                ("visits with outliers", self.outliers),
                ("shapes with disagreeing visits", self.disagreements),
                ("duplicates", self.duplicates),
            )
            if found
        )
        return f"{'sound' if self.ok else 'NOT SOUND'}: {counts or 'nothing to report'}"


def check_table(table: LatencyTable) -> TableCheck:
    """Read the whole table, change nothing. A file too damaged to read is a problem reported, not an error raised."""
    problems: tuple[str, ...] = ()
    try:
        problems = table.complaints()
        table.refresh()
    except FormatError as error:
        return TableCheck(problems=problems or (str(error),))
    samples, visits = tuple(table.samples()), table.visits()
    return TableCheck(
        problems=problems,
        contradictions=tuple(filter(None, (_contradiction(table, s) for s in samples))),
        unstable=table.unstable_shapes,
        failed=tuple(sample.shape for sample in samples if not sample.usable),
        outliers=tuple(filter(None, map(_outliers, visits))),
        disagreements=tuple(filter(None, (_disagreement(table.visits(sample.shape)) for sample in samples))),
        duplicates=tuple(visit for visit, times in Counter(visits).items() if times > 1),
    )


def _outliers(visit: LatencySample) -> Outliers | None:
    if not visit.usable:
        return None
    reach = max(OUTLIER_SIGMAS * MAD_TO_SIGMA * visit.mad_us, OUTLIER_SHARE * visit.median_us)
    times = tuple(time for time in visit.times_us if abs(time - visit.median_us) > reach)
    return Outliers(sample=visit, times_us=times) if times else None


def _disagreement(visits: tuple[LatencySample, ...]) -> Disagreement | None:
    counted = counted_visits(visits)
    if len(counted) < 2:
        return None
    low, high = min(counted, key=lambda v: v.median_us), max(counted, key=lambda v: v.median_us)
    noise_us = hypot(low.noise_us, high.noise_us)
    if high.median_us - low.median_us <= max(SIGMAS * noise_us, TOLERANCE * low.median_us):
        return None
    return Disagreement(shape=low.shape, medians_us=tuple(visit.median_us for visit in counted))


def _contradiction(table: LatencyTable, sample: LatencySample) -> Contradiction | None:
    plateau = table.plateau_of(sample.shape) if sample.usable else None
    if plateau is None:
        return None
    us = table.latency_us(sample.shape)
    if abs(us - plateau.us) <= max(SIGMAS * table.noise_us(sample.shape), TOLERANCE * plateau.us):
        return None
    return Contradiction(plateau=plateau, shape=sample.shape, measured_us=us)
