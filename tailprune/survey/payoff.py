"""From which batch on does pruning pay?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.errors import InvalidShape, MissingLatency
from ..core.graph import ModelGraph
from ..core.protocols import LatencyKind, LatencySource
from .prices import weakest

#: Powers of two from one image to what fills any current GPU; the field reports 1 (GAC) to 256 (HALP).
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: Less than this is not worth a pruned network's loss of accuracy, and hardly beyond the noise of whole-model timings.
PAYS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTime:
    """Dense and pruned network at one batch."""

    batch: int
    dense_us: float
    pruned_us: float

    @property
    def saving(self) -> float:
        return 1 - self.pruned_us / self.dense_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Payoff:
    """The batches tried, and by which source. Empty `times`: nothing is known, and `why` says so."""

    times: tuple[BatchTime, ...] = ()
    kind: LatencyKind | None = None
    origin: str = ""
    why: str = ""

    @property
    def batch(self) -> int | None:
        """The smallest batch tried at which pruning saves at least 5 %."""
        return next((time.batch for time in self.times if time.saving >= PAYS), None)

    def __str__(self) -> str:
        if not self.times:
            return f"From which batch on pruning pays is unknown: {self.why}."
        tried = ", ".join(str(time.batch) for time in self.times)
        by = f"by the {self.origin}" if self.kind == "modelled" else f"by {self.origin}"
        if len(self.times) == 1:
            verb = "does not pay" if self.batch is None else "pays"
            return f"At batch {tried}, the only one known, pruning {verb}: it saves {self.times[0].saving:.1%} ({by})."
        if self.batch is None:
            best = max(self.times, key=lambda time: time.saving)
            return (
                f"Pruning pays at no batch tried ({tried}; {by}): the most is {best.saving:.1%} at batch {best.batch}."
            )
        after = [str(time.batch) for time in self.times if time.batch > self.batch and time.saving < PAYS]
        but = f", though not at {', '.join(after)}" if after else ""
        first = next(time for time in self.times if time.batch == self.batch)
        return f"Pruning pays from batch {self.batch} on ({first.saving:.0%} faster there{but}; {by})."


def find_payoff(graph: ModelGraph, widths: Mapping[str, int], sources: Sequence[LatencySource]) -> Payoff:
    """By the first source that knows both networks at two batches or more; else by one that knows one batch."""
    best = Payoff(why="the latencies known are of no batch on which both networks run; name the device for an estimate")
    for source in sources:
        found = _payoff_by(graph, widths, source)
        if len(found.times) > len(best.times):
            best = found
        if len(best.times) > 1:
            break
    return best


def _payoff_by(graph: ModelGraph, widths: Mapping[str, int], source: LatencySource) -> Payoff:
    times = []
    kinds: set[LatencyKind] = set()
    for batch in BATCHES:
        try:
            scaled = graph.at_batch(batch)
            calls = [(layer, shape) for at in (graph.widths, widths) for layer, shape in scaled.shapes_at(at)]
            costs = [layer.calls * source.latency_us(shape) for layer, shape in calls]
        except (MissingLatency, InvalidShape):  # a batch that no one measured, or that the trace does not scale to
            continue
        here = {source.kind(shape) for _, shape in calls}
        if "modelled" in here and len(here) > 1:
            continue  # measured against modelled is no comparison
        kinds |= here
        half = len(costs) // 2
        times.append(BatchTime(batch=batch, dense_us=sum(costs[:half]), pruned_us=sum(costs[half:])))
    if not times:
        return Payoff()
    return Payoff(times=tuple(times), kind=weakest(kinds), origin=source.origin)
