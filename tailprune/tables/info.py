"""What is in this table? Counts, conditions and dates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from ..core.environment import Environment
from .table import LatencyTable


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """Counts are of distinct shapes, `visits` of measurements, `times` of raw times; dates are UTC, empty if none."""

    origin: str
    environment: Environment
    shapes: int
    failed: int
    unstable: int
    held_plateaus: int
    visits: int
    times: int
    by_op: Mapping[str, int]
    by_dtype: Mapping[str, int]
    by_batch: Mapping[int, int]
    first_utc: str
    last_utc: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def describe_table(table: LatencyTable) -> TableInfo:
    samples, visits = tuple(table.samples()), table.visits()
    dates = sorted(visit.utc for visit in visits if visit.utc)
    return TableInfo(
        origin=table.origin,
        environment=table.environment,
        shapes=len(samples),
        failed=sum(not sample.usable for sample in samples),
        unstable=len(table.unstable_shapes),
        held_plateaus=len(table.held),
        visits=len(visits),
        times=sum(len(visit.times_us) for visit in visits),
        by_op=dict(sorted(Counter(sample.shape.op for sample in samples).items())),
        by_dtype=dict(sorted(Counter(sample.shape.dtype for sample in samples).items())),
        by_batch=dict(sorted(Counter(sample.shape.batch for sample in samples).items())),
        first_utc=dates[0] if dates else "",
        last_utc=dates[-1] if dates else "",
    )
