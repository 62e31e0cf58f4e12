"""Which widths a policy allows each group."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import lcm
from typing import Literal, get_args

from ..core.errors import InvalidShape
from ..core.graph import ChannelGroup, ModelGraph
from ..core.protocols import LatencySource
from ..core.scores import ChannelScores
from ..steps import Staircase, detect_steps, dominated_widths
from .costs import LayerCosts

Policy = Literal["snap", "shrink", "grow", "nearest", "reallocate"]
#: Least share of the host's width that a policy leaves a group: a sum of scores lets single layers collapse. On ResNet-20,
#: CIFAR-10, `snap` without a floor took a group from 9 channels to its next step at 3 and cost 10 points of accuracy in the
#: mean over 13 ratios, at no less importance kept (benchmarks/snap-cifar10-unfloored.json). Two thirds is what rounding takes from a
#: width halfway between the first step and the second, 24 channels to 16, the most that rounding to the nearest step ever takes.
FLOORS: Mapping[str, float] = {"snap": 2 / 3, "reallocate": 0.5}
#: Widths of one group that a solver chooses from: tables grow with its square, one look-up a cell.
MAX_CHOICES = 64
#: A step counts towards `reach` if its riser is at least this share of the curve's largest, in microseconds. On the CPUs
#: tried, true steps (vector width) differ by a factor of two; alignment notches and noise stay below a fifth of them.
STEP_SHARE = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Allowed widths of every group, ascending; the step edges they come from; those that count; what was worth a remark."""

    widths: Mapping[str, tuple[int, ...]]
    edges: Mapping[str, tuple[int, ...]]
    steps: Mapping[str, tuple[int, ...]]
    warnings: tuple[str, ...] = ()


def candidate_widths(
    graph: ModelGraph,
    scores: ChannelScores,
    latency: LatencySource,
    *,
    policy: Policy = "snap",
    reach: int = 1,
    min_widths: Mapping[str, int] | None = None,
    max_widths: Mapping[str, int] | None = None,
    frozen: Collection[str] = (),
    every: int | None = None,
    floor: float | None = None,
) -> Candidates:
    """Which widths may each group take?

    Edges are the undominated ones of the group's curve with all other groups dense: where odd widths are slow, every
    width ends a plateau, but few are faster than all larger ones. An edge is a **step** if its riser is at least
    STEP_SHARE of the curve's largest, in microseconds: notches and noise are edges too, and must not use up the reach.
    The widest width is a step, too: the original one, unless `max_widths` lies above it. With h the host's width:

        snap        h, and every edge from the `reach`-th step below h to the `reach`-th step above, `floor` x h at least
        shrink      the step at or below h, h itself where there is none
        grow        h, and every edge from h to the `reach`-th step above
        nearest     the step nearest to h, the wider one of two equally near
        reallocate  h, and every edge from `floor` x h up; of more than MAX_CHOICES an even selection, with a warning

    `floor` is the policy's own of FLOORS if not given. Growing looks at no width below h, so no latency is needed there.
    With `every`, snap, grow and reallocate choose from every multiple of it in that range, edge or not.

    Groups that are frozen, not prunable or without scores stay at h. `min_widths` and `max_widths` bind harder than
    the policy: where they exclude all it allows, the width closest to h within them is taken.
    """
    if policy not in get_args(Policy):
        raise InvalidShape(f"Unknown policy {policy!r}; allowed: {', '.join(get_args(Policy))}.")
    if isinstance(reach, bool) or not isinstance(reach, int) or reach < 1:
        raise InvalidShape(f"reach must be a whole number of at least 1, got {reach!r}.")
    costs = LayerCosts.over(latency)
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise InvalidShape(f"every must be a whole number of at least 1, got {every!r}.")
    if floor is None:
        floor = FLOORS.get(policy, 0.0)
    if not 0 <= floor <= 1:
        raise InvalidShape(f"floor must lie in 0..1, a share of the host's width, got {floor!r}.")
    low, high = min_widths or {}, max_widths or {}
    for group_id in (*low, *high, *frozen):
        graph.group(group_id)
    widths: dict[str, tuple[int, ...]] = {}
    edges: dict[str, tuple[int, ...]] = {}
    steps: dict[str, tuple[int, ...]] = {}
    warnings: list[str] = []
    seen: dict[object, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for group in graph.groups:
        scored = scores.by_group.get(group.id)
        if scored is None:
            widths[group.id] = (group.width,)
            continue
        if scored.width != group.width:
            raise InvalidShape(
                f"Group {group.id} has {group.width} channels but {scored.width} scores. Score the network that was traced."
            )
        host = scored.host_width
        if not group.prunable or group.id in frozen or not graph.layers_of(group.id):
            widths[group.id] = (host,)
            continue
        widest = max(group.width, high.get(group.id, group.width))
        narrowest = host if policy == "grow" else group.grid.start
        key = (_role(graph, group), narrowest, widest)
        if key not in seen:
            grid = range(narrowest, widest + 1, group.granule)
            staircase = detect_steps(costs.curve(graph, group, grid))
            seen[key] = _edges_and_steps(staircase, widest)
            unknown = sum(not staircase.covers(width) for width in grid)
            if unknown:
                warnings.append(
                    f"{group.id}: {unknown} of {len(grid)} widths have no latency, edges there are not seen"
                )
        edges[group.id], steps[group.id] = seen[key]
        choices = edges[group.id] if every is None else _multiples(group, every, widest)
        allowed = _allowed(choices, steps[group.id], host, policy, reach, floor)
        if len(allowed) > MAX_CHOICES and every is None:
            warnings.append(
                f"{group.id}: {len(allowed)} allowed widths were thinned to {MAX_CHOICES}; the gap is against those"
            )
            allowed = _thinned(allowed, host)
        widths[group.id] = _bounded(group, allowed, host, low.get(group.id), high.get(group.id))
    return Candidates(widths=widths, edges=edges, steps=steps, warnings=tuple(warnings))


def _role(graph: ModelGraph, group: ChannelGroup) -> object:
    """Groups of one role have one curve: residual networks repeat their blocks."""
    places = sorted(
        (repr(la.shape), la.calls, dict(la.in_expr.terms).get(group.id, 0), dict(la.out_expr.terms).get(group.id, 0))
        for la in graph.layers_of(group.id)
    )
    return group.width, group.granule, group.min_width, tuple(places)


def _edges_and_steps(staircase: Staircase, widest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    worth = set(staircase.curve.widths) - set(dominated_widths(staircase.curve))
    riser_us = {p.high: p.riser * p.high_us for p in staircase.plateaus if p.high in worth}
    least = STEP_SHARE * max(riser_us.values(), default=0.0)
    steps = {width for width, us in riser_us.items() if us > 0 and us >= least}
    return tuple(sorted({*riser_us, widest})), tuple(sorted({*steps, widest}))


def _multiples(group: ChannelGroup, every: int, widest: int) -> tuple[int, ...]:
    """Every multiple up to the widest; the original width counts as one."""
    step = lcm(every, group.granule)
    return tuple(sorted({*range(step, widest + 1, step), group.width}))


def _allowed(
    choices: tuple[int, ...], steps: tuple[int, ...], host: int, policy: Policy, reach: int, floor: float
) -> tuple[int, ...]:
    below = [step for step in steps if step < host]
    above = [step for step in steps if step > host]
    if policy == "snap":
        lowest, highest = (below[-reach:] or [host])[0], (above[:reach] or [host])[-1]
        return tuple(sorted({host, *(width for width in choices if max(lowest, floor * host) <= width <= highest)}))
    if policy == "grow":
        highest = (above[:reach] or [host])[-1]
        return tuple(sorted({host, *(width for width in choices if host <= width <= highest)}))
    if policy == "reallocate":
        return tuple(sorted({host, *(width for width in choices if width >= floor * host)}))
    at = [host] if host in steps else []
    if policy == "shrink":
        return tuple((at or below or [host])[-1:])
    return (min(steps, key=lambda step: (abs(step - host), -step)),)


def _thinned(allowed: tuple[int, ...], host: int) -> tuple[int, ...]:
    """MAX_CHOICES of these, evenly by rank, both ends and the host's width among them."""
    last = len(allowed) - 1
    ranks = {round(i * last / (MAX_CHOICES - 1)) for i in range(MAX_CHOICES)}
    at_host = allowed.index(host)
    ranks.discard(min(ranks - {0, last}, key=lambda rank: abs(rank - at_host)))
    return tuple(allowed[rank] for rank in sorted({*ranks, at_host}))


def _bounded(
    group: ChannelGroup, allowed: tuple[int, ...], host: int, low: int | None, high: int | None
) -> tuple[int, ...]:
    floor, ceiling = low if low is not None else 1, high if high is not None else group.width
    inside = tuple(width for width in allowed if floor <= width <= ceiling)
    if inside:
        return inside
    reachable = [
        width
        for width in range(group.granule, max(group.width, ceiling) + 1, group.granule)
        if floor <= width <= ceiling
    ]
    if not reachable:
        raise InvalidShape(
            f"Group {group.id} of {group.width} channels (granule {group.granule}) has no width in {floor}..{ceiling}. "
            "Change its min_widths or max_widths."
        )
    return (min(reachable, key=lambda width: abs(width - host)),)
