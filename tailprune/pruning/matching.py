"""The host's groups and the planner's groups are the same channels: which is which, and what may be moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.graph import ChannelGroup, ModelGraph
from ..core.scores import ChannelScores, GroupScores
from ..tracing import ChannelDependency
from .rehearsal import HostGroup, Rehearsal


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a planner needs to start from the host, and `places`: group id -> its host group and the root's channel of
    each of its channels, by which a plan's kept channels become the host's indices again.

    `whole` are host groups left alone because nothing exact could be removed, `frozen` those replayed as the host chose.
    """

    graph: ModelGraph
    fingerprint: str  # of the graph as traced: the host's granules may be coarser
    scores: ChannelScores
    places: Mapping[str, tuple[HostGroup, tuple[int, ...]]]
    frozen: tuple[str, ...]
    replayed: tuple[HostGroup, ...]
    min_widths: Mapping[str, int]
    report: tuple[str, ...]

    def removed_by(self, kept: Mapping[str, Sequence[int]]) -> list[tuple[HostGroup, tuple[int, ...]]]:
        """(host group, channels of its root that leave) at these kept channels; groups that lose nothing are left out.

        In the model's order: a grouped convolution's inputs leave before its outputs, because Torch-Pruning takes one
        that is down to an output per conv group for a depthwise one.
        """
        gone: dict[int, set[int]] = {}
        groups: dict[int, HostGroup] = {}
        for group_id in self.graph.widths:
            if group_id in self.places:
                group, root_channels = self.places[group_id]
                groups[id(group)] = group
                stay = {root_channels[position] for position in kept[group_id]}
                gone.setdefault(id(group), set()).update(set(root_channels) - stay)
        for group in self.replayed:
            groups[id(group)], gone[id(group)] = group, set(group.removed)
        return [(groups[key], tuple(sorted(channels))) for key, channels in gone.items() if channels]


def match_groups(host: Any, rehearsal: Rehearsal, graph: ModelGraph) -> Match:
    """Find every group the host ranks in the traced graph, with the host's scores, scopes, granules and kept channels."""
    dependency = ChannelDependency(host.model, graph=host.DG)
    modules = dict(host.model.named_modules())
    places: dict[str, tuple[HostGroup, tuple[int, ...]]] = {}
    scores: list[GroupScores] = []
    frozen: list[str] = []
    replayed: list[HostGroup] = []
    granules: dict[str, int] = {}
    minimum: dict[str, int] = {}
    lines: list[str] = []
    shift = _shifts(rehearsal.groups, lines)
    for group in rehearsal.groups:
        found = _find(group, dependency, graph, modules)
        obstacle = _obstacle(group, found, dependency, graph)
        if group.heads:
            lines.append(f"{group.name}: attention, replayed as the host chose: {group.width} -> {len(group.kept)}")
            if obstacle:
                replayed.append(group)
                lines.append(
                    f"{group.name}: not in the plan (so no checkpoint can replay it) and not in its latencies, {obstacle}"
                )
                continue
            frozen += found
        elif obstacle:
            if group.removed:
                lines.append(
                    f"{group.name}: left whole at {group.width} where the host keeps {len(group.kept)}, {obstacle}"
                )
            continue
        kept = set(group.kept)
        for group_id, root_channels in found.items():
            places[group_id] = (group, root_channels)
            granules[group_id] = 1 if group.heads else group.granule
            scores.append(
                GroupScores(
                    group=group_id,
                    scores=tuple(group.scores[c] - shift[group.scope] for c in root_channels),
                    scope=group.scope,
                    host_kept=tuple(i for i, c in enumerate(root_channels) if c in kept),
                    granule=granules[group_id],
                )
            )
            minimum[group_id] = _least(host, group, len(root_channels))
    return Match(
        graph=_with_granules(graph, granules),
        fingerprint=graph.fingerprint,
        scores=ChannelScores(groups=tuple(scores), method=type(host.importance).__name__),
        places=places,
        frozen=tuple(frozen),
        replayed=tuple(replayed),
        min_widths=minimum,
        report=tuple(lines),
    )


def _find(
    group: HostGroup, dependency: ChannelDependency, graph: ModelGraph, modules: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Group id -> for each of its channels the root's channel; more than one group where a producer is split."""
    found = {}
    for coupled in dependency.groups:
        to_root = group.outputs.get(modules[coupled.root], {})
        if coupled.id in graph.widths and coupled.channels and all(c in to_root for c in coupled.channels):
            found[coupled.id] = tuple(to_root[c] for c in coupled.channels)
    return found


def _obstacle(
    group: HostGroup, found: Mapping[str, tuple[int, ...]], dependency: ChannelDependency, graph: ModelGraph
) -> str:
    """Why the planner may not move this group; empty if it may."""
    channels = sorted(c for part in found.values() for c in part)
    if channels != list(range(group.width)):
        return "its channels are not those of the groups traced in the model"
    for group_id, part in found.items():
        known: ChannelGroup = graph.group(group_id)
        if known.width != len(part):
            return f"the model as traced has {known.width} of its {len(part)} channels"
        if not known.prunable and not group.heads:
            return known.reason or "it cannot be pruned"
        if group.granule % math.lcm(known.granule, dependency.group(group_id).granule) and not group.heads:
            return f"the host removes blocks of {group.granule}, its layers need blocks of {known.granule}"
    if len(found) > 1 and group.granule > 1:
        return f"its blocks of {group.granule} reach over {len(found)} groups"
    return ""


def _shifts(groups: Sequence[HostGroup], lines: list[str]) -> dict[str, float]:
    """What to take off the scores of each scope so that the lowest is zero; nothing where none is negative."""
    lowest: dict[str, float] = {}
    for group in groups:
        lowest[group.scope] = min(0.0, *group.scores, lowest.get(group.scope, 0.0))
    lines += [
        f"scores of {'the whole network' if scope == 'DEFAULT_SCOPE' else scope} are negative down to {low:.4g}; raised by that much, their order is unchanged"
        for scope, low in lowest.items()
        if low < 0
    ]
    return lowest


def _least(host: Any, group: HostGroup, width: int) -> int:
    """The host's max_pruning_ratio as a width the plan may not go below; the host's own choice where that is lower."""
    if host.max_pruning_ratio >= 1 or len(group.kept) == 0 or width != group.width:
        return 1
    initial = host.layer_init_out_ch.get(group.root, width)
    return min(len(group.kept), math.ceil(initial * (1 - host.max_pruning_ratio)))


def _with_granules(graph: ModelGraph, granules: Mapping[str, int]) -> ModelGraph:
    """The graph with the host's granules, where its user asked for coarser ones than the layers need."""
    return replace(
        graph,
        groups=tuple(replace(g, granule=max(g.granule, granules.get(g.id, 1))) for g in graph.groups),
    )
