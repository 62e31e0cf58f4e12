"""Does this table still hold? A few entries are timed again on the device and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from statistics import median
from typing import Literal

from ..core.errors import TableError
from ..core.protocols import LayerTimer
from ..core.shapes import LayerShape
from .compare import SIGMAS
from .integrity import TOLERANCE
from .table import LatencyTable, compare_environments

#: Up to one re-timed entry in three may have moved. Between two sweeps of the same shapes minutes apart on a shared CPU, where nothing had
#: changed, one in five does. Replayed checks of them (benchmarks/check.json) chose this share and how many to re-time.
MOVED_SHARE = 1 / 3
RETIMED = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftEntry:
    """One shape, then and now; `noise_us` is one standard error of their difference."""

    shape: LayerShape
    table_us: float
    now_us: float
    noise_us: float

    @property
    def ratio(self) -> float:
        return self.now_us / self.table_us

    def moved(self, scale: float = 1.0) -> bool:
        """Away from `scale` times its old latency by more than noise and tolerance allow."""
        expected = scale * self.table_us
        return abs(self.now_us - expected) > max(SIGMAS * self.noise_us, TOLERANCE * expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """What re-timing showed. `unsettled`: shapes that failed or scattered too much now, left out of the verdict."""

    entries: tuple[DriftEntry, ...]
    unsettled: tuple[LayerShape, ...]
    warnings: tuple[str, ...]

    @property
    def scale(self) -> float:
        """Median of now over then."""
        return median(entry.ratio for entry in self.entries)

    @property
    def moved(self) -> tuple[DriftEntry, ...]:
        return tuple(entry for entry in self.entries if entry.moved())

    @property
    def verdict(self) -> Literal["holds", "scaled", "drifted"]:
        """`holds`: at most one entry in three moved. `scaled`: they moved by one factor (a clock): edges stay where
        they are, microseconds do not. `drifted`: measure again."""
        if self._few_moved(1.0):
            return "holds"
        return "scaled" if self._few_moved(self.scale) else "drifted"

    def _few_moved(self, scale: float) -> bool:
        return sum(entry.moved(scale) for entry in self.entries) <= MOVED_SHARE * len(self.entries)

    def summary(self) -> str:
        advice = {
            "holds": "the table still holds",
            "scaled": "edges stay, microseconds do not: check the clocks, or measure into a new table",
            "drifted": "the table no longer holds: measure into a new one",
        }[self.verdict]
        left_out = f", {len(self.unsettled)} did not settle and were left out" if self.unsettled else ""
        return (
            f"{self.verdict}: {len(self.moved)} of {len(self.entries)} re-timed entries moved, "
            f"now / then {self.scale:.3f}{left_out}; {advice}"
        )


def drift(table: LatencyTable, timer: LayerTimer, count: int = RETIMED) -> DriftReport:
    """Time `count` entries again whose medians are known to the tolerance, spread evenly over the table's latencies.

    The table is not changed. Entries that did not settle to the timer's own precision may be known well enough for this.

    EnvironmentMismatch where the timer's device is another one; TableError if nothing could be compared.
    """
    warnings = compare_environments(str(table.path or "the table"), table.environment, timer.environment)
    shapes = _spread(table, count)
    entries: list[DriftEntry] = []
    unsettled: list[LayerShape] = []
    for sample in timer.time_many(shapes) if shapes else ():
        if not sample.usable or sample.noise_us > TOLERANCE * sample.median_us:
            unsettled.append(sample.shape)
            continue
        noise_us = hypot(table.noise_us(sample.shape), sample.noise_us)
        entries.append(
            DriftEntry(
                shape=sample.shape,
                table_us=table.latency_us(sample.shape),
                now_us=sample.median_us,
                noise_us=noise_us,
            )
        )
    if not entries:
        raise TableError(
            f"No entry of {table.origin} could be compared: {len(shapes)} were re-timed and {len(unsettled)} did not "
            "settle. Measure more shapes, or quieten the machine."
        )
    return DriftReport(entries=tuple(entries), unsettled=tuple(unsettled), warnings=warnings)


def _spread(table: LatencyTable, count: int) -> Sequence[LayerShape]:
    settled = sorted(
        (s for s in table.samples() if s.usable and table.noise_us(s.shape) <= TOLERANCE * s.median_us),
        key=lambda sample: sample.median_us,
    )
    if count < 1:
        raise TableError(f"At least one entry has to be re-timed to see a drift, got {count}.")
    if len(settled) <= count:
        return [sample.shape for sample in settled]
    return [settled[round(i * (len(settled) - 1) / max(count - 1, 1))].shape for i in range(count)]
