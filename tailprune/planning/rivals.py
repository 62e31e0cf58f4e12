"""The rivals every plan is compared with: the host unrounded, and fixed multiples in their fair form."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from ..core.errors import InvalidShape, NoPlan
from ..core.graph import ModelGraph
from ..core.plan import WidthPlan
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from .costs import TICKS_PER_US, LayerCosts
from .describe import assemble_plan
from .host import Scope, choose_host
from .structure import Integers

#: Ratios priced before the walk. Latency wobbles by a step or two of single groups around a falling trend: a first row
#: that fits lies within a few rows of the trend, and 64 intervals of ResNet-50's multiples of 8 hold some 50 rows each.
SCANNED = 64


def host_plan(graph: ModelGraph, scores: ChannelScores, latency: LatencySource) -> WidthPlan:
    """The unrounded host as a plan: what its own widths cost and keep."""
    costs = LayerCosts.over(latency)
    widths = {**graph.widths, **scores.host_widths}
    return assemble_plan(
        graph, scores, costs, widths=widths, host_widths=widths, reasons=dict.fromkeys(widths, "host"),
        policy="host", goal="host", reach=None, solver="host", status="host", optimality_gap=None,
        original_us=costs.total(graph, graph.widths) / TICKS_PER_US, budget_us=None, warnings=scores.warnings,
    )  # fmt: skip


def fixed_multiple(
    graph: ModelGraph,
    scores: ChannelScores,
    latency: LatencySource,
    multiple: int,
    *,
    target_us: float | None = None,
    target_importance: float | None = None,
    scope: Scope = "global",
    min_widths: Mapping[str, int] | None = None,
) -> WidthPlan:
    """What do fixed multiples reach at the same latency, or at the same importance kept, done fairly?

    Every group goes to the multiple nearest to the width an unrounded host gives it (the wider of two equally near),
    at least one multiple and at most the original; groups narrower than the multiple keep the host's width and are
    named. `min_widths` hold as they do for a plan, before rounding and after. With granule G the multiple
    is the least common one of both. `multiple=1` is the unrounded host at that target. Hosts in `scores` are not asked
    for: channels are ranked by score, and importance is counted in the scopes that `scores` names.

    Widths, and with them the importance kept, only fall as the host's ratio rises; latency need not. Under `target_us`
    the plan is the first one that fits on the way from ratio 0 to 1, under `target_importance` the fastest of those
    that keep it: SCANNED ratios are priced, and every one in the interval where the answer lies.
    Raises NoPlan where none of the scanned ratios reaches the target.
    """
    if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
        raise InvalidShape(f"A fixed multiple must be a whole number of at least 1, got {multiple!r}.")
    given = target_us if target_importance is None else target_importance
    if (target_us is None) == (target_importance is None) or not (math.isfinite(given or 0.0) and (given or 0.0) > 0):
        raise InvalidShape(
            "A fixed multiple is brought to exactly one target, positive and finite: "
            f"got target_us={target_us!r}, target_importance={target_importance!r}."
        )
    way = _Way(graph, scores, LayerCosts.over(latency), multiple, scope, min_widths or {})
    if target_us is not None:
        row = way.first_within(target_us)
        note = f"latency is {1 - way.us(row) / target_us:.2%} below the target"
    else:
        row = way.fastest_keeping(target_importance or 0.0)
        note = f"importance kept is {way.kept(row) - (target_importance or 0.0):.2%} above the target"
    return way.plan(row, budget_us=target_us, note=f"{note}, at ratio {way.ratios[row]:.4f}")


class _Way:
    """The rounded hosts on the way from ratio 0 to ratio 1, each once: rows of widths that only fall."""

    def __init__(
        self,
        graph: ModelGraph,
        scores: ChannelScores,
        costs: LayerCosts,
        multiple: int,
        scope: Scope,
        min_widths: Mapping[str, int],
    ) -> None:
        self.graph, self.costs, self.multiple, self.scope = graph, costs, multiple, scope
        self.scores = dataclasses.replace(
            scores, groups=tuple(dataclasses.replace(g, host_kept=None) for g in scores.groups)
        )
        self.steps = {g.group: math.lcm(multiple, graph.group(g.group).granule) for g in scores.groups}
        self.left_out = tuple(g.group for g in scores.groups if g.width < self.steps[g.group])
        ratios, hosts = hosts_by_ratio(self.scores, scope)
        self.floors = {g.group: -(-min_widths.get(g.group, 1) // g.granule) * g.granule for g in scores.groups}
        for column, g in enumerate(scores.groups):
            if g.group not in self.left_out and graph.group(g.group).prunable:
                hosts[:, column] = _nearest(hosts[:, column], self.steps[g.group], self.floors[g.group], g.width)
        new = np.concatenate([[True], np.any(hosts[1:] != hosts[:-1], axis=1)])
        self.ratios: Sequence[float] = ratios[new].tolist()
        self.rows = hosts[new]

    def widths(self, row: int) -> dict[str, int]:
        chosen = zip(self.scores.groups, self.rows[row].tolist(), strict=True)
        return {**self.graph.widths, **{g.group: width for g, width in chosen}}

    def us(self, row: int) -> float:
        return self.costs.total(self.graph, self.widths(row)) / TICKS_PER_US

    def kept(self, row: int) -> float:
        return self.scores.importance_kept(self.widths(row))

    def first_within(self, target_us: float) -> int:
        scanned = self._scanned(len(self.rows))
        before, least = -1, math.inf
        for row in scanned:
            us = self.us(row)
            if us <= target_us:
                return next(i for i in range(before + 1, row + 1) if self.us(i) <= target_us)
            before, least = row, min(least, us)
        raise NoPlan(
            f"Multiples of {self.multiple} cannot reach {target_us:,.1f} us: at best they cost {least:,.1f} us. "
            "Change the target, or lower the multiple."
        )

    def fastest_keeping(self, target: float) -> int:
        # what is kept falls with the row, so those that keep enough come first
        enough = bisect_left(range(len(self.rows)), True, key=lambda row: self.kept(row) < target)
        if not enough:
            raise NoPlan(
                f"Multiples of {self.multiple} cannot reach {target:.2%}: at best, ratio 0, they keep "
                f"{self.kept(0):.2%}. Change the target, or lower the multiple."
            )
        scanned = [row for row in self._scanned(len(self.rows)) if row < enough]
        tried = sorted({*scanned, *range(scanned[-1], enough)})
        return min(tried, key=lambda row: (self.us(row), row))

    def _scanned(self, count: int) -> list[int]:
        return sorted({round(rank) for rank in np.linspace(0, count - 1, SCANNED)})

    def plan(self, row: int, *, budget_us: float | None, note: str) -> WidthPlan:
        host = choose_host(self.scores, self.ratios[row], scope=self.scope, keep_one=True)
        scored = dataclasses.replace(host, groups=tuple(
            dataclasses.replace(g, scope=given.scope) for g, given in zip(host.groups, self.scores.groups, strict=True)
        ))  # fmt: skip
        widths = self.widths(row)
        before = {g.group: max(g.host_width, self.floors[g.group]) for g in host.groups}
        notes = [note]
        if self.left_out:
            notes.append(f"narrower than {self.multiple}, left out: {', '.join(self.left_out)}")
        return assemble_plan(
            self.graph, scored, self.costs, widths=widths, host_widths={**self.graph.widths, **before},
            reasons={g: "left out" if g in self.left_out else f"multiple of {self.steps.get(g, 1)}" for g in widths},
            policy=f"multiple-{self.multiple}", goal="rule", reach=None, solver="scan", status="feasible",
            optimality_gap=None, original_us=self.costs.total(self.graph, self.graph.widths) / TICKS_PER_US,
            budget_us=budget_us, warnings=(*self.scores.warnings, *notes),
        )  # fmt: skip


def hosts_by_ratio(scores: ChannelScores, scope: Scope) -> tuple[np.ndarray, Integers]:
    """The width of every group (columns) under `choose_host(..., keep_one=True)` at every ratio that makes a difference
    (rows): 0, and the middle of each interval between two ratios at which one more unit goes."""
    units = [np.sort(np.array(g.scores).reshape(g.granule, -1).mean(axis=0)) for g in scores.groups]
    if scope == "global":
        everything = np.sort(np.concatenate(units))
        breaks = np.arange(len(everything) + 1) / len(everything)
        ratios = np.concatenate([[0.0], (breaks[1:] + breaks[:-1]) / 2])
        thresholds = np.concatenate([[-math.inf], everything])
        kept = [len(unit) - np.searchsorted(unit, thresholds, side="right") for unit in units]
    else:
        breaks = np.unique(np.concatenate([np.arange(size + 1) / size for size in {len(unit) for unit in units}]))
        ratios = np.concatenate([[0.0], (breaks[1:] + breaks[:-1]) / 2])
        kept = [len(unit) - np.ceil(len(unit) * ratios).astype(np.int64) for unit in units]
    granules = np.array([g.granule for g in scores.groups])
    return ratios, np.maximum(np.stack(kept, axis=1), 1) * granules


def _nearest(widths: Integers, multiple: int, floor: int, original: int) -> Integers:
    lowest = max(-(-floor // multiple), 1) * multiple
    return np.minimum(
        np.maximum((widths + multiple // 2) // multiple * multiple, lowest), original // multiple * multiple
    )
