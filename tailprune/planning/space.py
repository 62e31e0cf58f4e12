"""Which networks are worth trying? All widths of a network's channel groups, or only those on edges of its staircases."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..core.errors import InvalidShape
from ..core.graph import ChannelGroup, ModelGraph
from ..core.protocols import LatencySource
from ..steps import detect_steps, group_curve, undominated_widths


@dataclass(frozen=True, kw_only=True)
class WidthSpace:
    """Networks that differ in the widths of some channel groups: `choices`, ascending; all other groups keep theirs.

    `widths_before` counts what each group could be before the space was restricted.
    """

    graph: ModelGraph
    choices: Mapping[str, tuple[int, ...]]
    widths_before: Mapping[str, int]

    def __post_init__(self) -> None:
        for group_id, allowed in self.choices.items():
            group = self.graph.group(group_id)
            if not allowed or list(allowed) != sorted(set(allowed)) or any(w < 1 or w % group.granule for w in allowed):
                raise InvalidShape(
                    f"Group {group_id} needs ascending choices that are multiples of its granule {group.granule}, got {allowed}."
                )
        if not self.choices:
            raise InvalidShape(
                f"{self.graph.model} has no channel group whose width may vary; nothing can be searched."
            )

    @property
    def num_networks(self) -> int:
        return math.prod(len(allowed) for allowed in self.choices.values())

    @property
    def num_before(self) -> int:
        """Networks before the space was restricted."""
        return math.prod(self.widths_before[group] for group in self.choices)

    @property
    def reduction(self) -> float:
        """Orders of magnitude by which the space was reduced: log10 of networks before over networks left."""
        return math.log10(self.num_before) - math.log10(self.num_networks)

    @cached_property
    def narrowest(self) -> dict[str, int]:
        return {group: allowed[0] for group, allowed in self.choices.items()}

    def sample(self, draw: random.Random) -> dict[str, int]:
        """Every group's width, uniformly among its choices."""
        return {group: draw.choice(allowed) for group, allowed in self.choices.items()}

    def mutate(self, widths: Mapping[str, int], draw: random.Random) -> dict[str, int]:
        """One group, or with falling odds more of them, moved to another of its choices; a near one is likelier than a far one."""
        changed = dict(widths)
        free = [group for group, allowed in self.choices.items() if len(allowed) > 1]
        while free:
            group = draw.choice(free)
            changed[group] = self._moved(group, changed[group], draw)
            if draw.random() < 0.5:
                break
        return changed

    def narrower(self, widths: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Each group in turn one choice down."""
        return self._neighbours(widths, -1)

    def wider(self, widths: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """Each group in turn one choice up."""
        return self._neighbours(widths, 1)

    def _neighbours(self, widths: Mapping[str, int], way: int) -> Iterator[dict[str, int]]:
        for group, allowed in self.choices.items():
            place = allowed.index(widths[group]) + way
            if 0 <= place < len(allowed):
                yield {**widths, group: allowed[place]}

    def _moved(self, group: str, width: int, draw: random.Random) -> int:
        allowed = self.choices[group]
        here = allowed.index(width)
        others = [place for place in range(len(allowed)) if place != here]
        return allowed[draw.choices(others, [1 / abs(place - here) for place in others])[0]]


def full_space(
    graph: ModelGraph, *, narrowest: float = 0.0, widest: float = 1.0, frozen: Collection[str] = ()
) -> WidthSpace:
    """Every width of every prunable group, on its granule, from `narrowest` to `widest` times the original."""
    choices = {group.id: _grid(group, narrowest, widest) for group in _varied(graph, frozen)}
    return WidthSpace(graph=graph, choices=choices, widths_before={g: len(grid) for g, grid in choices.items()})


def edge_space(
    graph: ModelGraph,
    latency: LatencySource,
    *,
    narrowest: float = 0.0,
    widest: float = 1.0,
    frozen: Collection[str] = (),
) -> WidthSpace:
    """`full_space` without the widths that are pointless: only step edges that no larger width undercuts, and the widest.

    Edges are those of each group's latency curve, all other groups at their original width: between two of them a network
    pays for channels that it does not have (Yu et al., arXiv 2011.03897). Raises MissingLatency where a curve is unknown.

    >>> from tailprune.core.graph import Layer, WidthExpr
    >>> from tailprune.core.shapes import LayerShape
    >>> from tailprune.waves import WaveModel, load_device
    >>> shape = LayerShape(op="linear", batch=4096, in_channels=512, out_channels=1024, dtype="float16")
    >>> fc = Layer(name="fc", shape=shape, in_expr=WidthExpr(constant=512), out_expr=WidthExpr(terms=(("fc", 1),)))
    >>> graph = ModelGraph(model="one", layers=(fc,), groups=(ChannelGroup(id="fc", width=1024),), input_shape=(4096, 512))
    >>> space = edge_space(graph, WaveModel(load_device("h200")))
    >>> space.num_before, space.num_networks <= 128, {width % 8 for width in space.choices["fc"]}
    (1024, True, {0})
    """
    groups = _varied(graph, frozen)
    grids = {group.id: _grid(group, narrowest, widest) for group in groups}
    choices = {group: _edges(graph, group, latency, grid) for group, grid in grids.items()}
    return WidthSpace(graph=graph, choices=choices, widths_before={g: len(grid) for g, grid in grids.items()})


def _varied(graph: ModelGraph, frozen: Collection[str]) -> list[ChannelGroup]:
    for group_id in frozen:
        graph.group(group_id)
    return [g for g in graph.prunable_groups if g.id not in frozen and graph.layers_of(g.id)]


def _grid(group: ChannelGroup, narrowest: float, widest: float) -> tuple[int, ...]:
    if not 0 <= narrowest <= widest < math.inf or widest == 0:
        raise InvalidShape(
            f"A space runs from 0 or more to a finite multiple of the original widths, got {narrowest!r} to {widest!r}."
        )
    low = max(group.grid.start, -(-math.ceil(narrowest * group.width) // group.granule) * group.granule)
    high = max(low, int(widest * group.width) // group.granule * group.granule)
    return tuple(range(low, high + 1, group.granule))


def _edges(graph: ModelGraph, group_id: str, latency: LatencySource, grid: tuple[int, ...]) -> tuple[int, ...]:
    curve = group_curve(graph, group_id, latency, widths=grid)
    edges = set(detect_steps(curve).edge_widths) & set(undominated_widths(curve))
    return tuple(sorted(edges | {curve.widths[-1]}))
