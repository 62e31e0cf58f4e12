"""Does this table still hold? A few entries are timed again on the device and compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from statistics import median
from typing import Literal

from ..core.errors import TableError
from ..core.protocols import LayerTimer
from ..core.sample import LatencySample
from ..core.shapes import LayerShape
from .compare import SIGMAS
from .integrity import TOLERANCE
from .table import LatencyTable, compare_environments
from .visits import merge_visits

#: An entry has moved if it is so much off, and up to one re-timed entry in five may have. Between two sweeps of the same shapes minutes
#: apart on a shared CPU, where nothing had changed, two in five are more than 3 % off, three to eleven in a hundred more than 8. Of
#: tolerances of 3 to 8 % and shares of a fifth to a third, tried on two pairs of sweeps, these took least for a drift where nothing
#: had changed, and missed hardly any where a third of the layers had become 15 % slower (benchmarks/check.json).
MOVED, MOVED_SHARE = 0.08, 1 / 5
RETIMED = 36
#: A shared core is slow for seconds at a time, a changed device for good: what does not hold at the first look is looked at again, so
#: many times in all and so many seconds apart. The three of a CPU's 36 entries took 21 s, process start included (benchmarks/check.json).
LOOKS, PAUSE_S = 3, 5.0


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
        return abs(self.now_us - expected) > max(SIGMAS * self.noise_us, MOVED * expected)


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
        """`holds`: at most one entry in five moved. `scaled`: they moved by one factor (a clock): edges stay where
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


def drift(table: LatencyTable, timer: LayerTimer, count: int = RETIMED, *, pause_s: float = PAUSE_S) -> DriftReport:
    """Time `count` entries again whose medians are known to the tolerance, spread evenly over the table's latencies.

    Unless the table holds at once they are timed again after `pause_s` seconds, up to three times in all, and the readings of all
    looks count together: work that others do on the machine prolongs some and shortens none. The table is not changed. Entries that
    did not settle to the timer's own precision may be known well enough for this.

    EnvironmentMismatch where the timer's device is another one; TableError if nothing could be compared.
    """
    warnings = compare_environments(str(table.path or "the table"), table.environment, timer.environment)
    shapes = _spread(table, count)
    looks: list[LatencySample] = []
    for look in range(LOOKS if shapes else 1):
        if look:
            time.sleep(pause_s)
        looks += timer.time_many(shapes)
        report = _compare(table, looks, warnings)
        if report.entries and report.verdict == "holds":
            return report
    if not report.entries:
        raise TableError(
            f"No entry of {table.origin} could be compared: {len(shapes)} were re-timed and {len(report.unsettled)} did "
            "not settle. Measure more shapes, or quieten the machine."
        )
    return report


def _compare(table: LatencyTable, looks: Sequence[LatencySample], warnings: tuple[str, ...]) -> DriftReport:
    settled: dict[LayerShape, list[LatencySample]] = {}
    for sample in looks:
        if sample.usable and sample.noise_us <= TOLERANCE * sample.median_us:
            settled.setdefault(sample.shape, []).append(sample)
    entries = []
    for shape, visits in settled.items():
        now = merge_visits(visits)
        noise_us = hypot(table.noise_us(shape), now.noise_us)
        entries.append(
            DriftEntry(shape=shape, table_us=table.latency_us(shape), now_us=now.median_us, noise_us=noise_us)
        )
    unsettled = dict.fromkeys(sample.shape for sample in looks if sample.shape not in settled)
    return DriftReport(entries=tuple(entries), unsettled=tuple(unsettled), warnings=warnings)


def _spread(table: LatencyTable, count: int) -> Sequence[LayerShape]:
    settled = sorted(
        (s for s in table.samples() if s.usable and table.noise_us(s.shape) <= TOLERANCE * table.latency_us(s.shape)),
        key=lambda sample: table.latency_us(sample.shape),
    )
    if count < 1:
        raise TableError(f"At least one entry has to be re-timed to see a drift, got {count}.")
    if len(settled) <= count:
        return [sample.shape for sample in settled]
    return [settled[round(i * (len(settled) - 1) / max(count - 1, 1))].shape for i in range(count)]
