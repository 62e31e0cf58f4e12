"""Which few changes of width would help most?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..core.graph import ModelGraph
from .places import Place
from .prices import Prices

#: A difference within two standard errors is none (95 % of normal noise).
SIGMAS = 2.0
#: A share of the network's latency too small to be called faster: it would print as 0.0 %.
LEAST_SHARE = 0.0005
#: Least share of a narrowing's saving that is wasted time, and that a widening must fall short of for it. One half: what
#: it repairs outweighs what it prunes.
REPAIR = 0.5
#: Sums of latencies are exact to this; a step used by exactly one half is narrowed whatever the rounding.
ROUNDING_US = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One group moved to an edge of its step, all others as they are. `saved_us` is off the whole network."""

    group: str
    width: int
    to: int
    saved_us: float
    network_us: float
    faster: bool  # whether `saved_us` exceeds the noise and would show

    @property
    def channels(self) -> int:
        """Channels gained; negative means lost."""
        return self.to - self.width

    @property
    def share(self) -> float:
        """Share of the network's latency saved."""
        return self.saved_us / self.network_us

    def __str__(self) -> str:
        """In plain words.

        >>> print(Change(group="conv1", width=47, to=48, saved_us=30.0, network_us=1000.0, faster=True))
        Widen conv1 from 47 to 48: 3.0 % faster (30.0 µs) and 1 channel more.
        """
        verb, gain = ("Widen", "more") if self.to > self.width else ("Narrow", "fewer")
        count = f"{abs(self.channels):,} channel{'s' * (abs(self.channels) > 1)} {gain}"
        if not self.faster:
            return f"{verb} {self.group} from {self.width:,} to {self.to:,}: no slower and {count}."
        joint = "and" if self.to > self.width else "with"
        return (
            f"{verb} {self.group} from {self.width:,} to {self.to:,}: {self.share * 100:.1f} % faster "
            f"({self.saved_us:,.1f} µs) {joint} {count}."
        )


def single_changes(
    graph: ModelGraph, widths: Mapping[str, int], places: Iterable[Place], prices: Prices, *, network_us: float
) -> list[Change]:
    """The move to suggest for every group that is off its edge, most microseconds saved first.

    Allowed are the edge above where it costs nothing, and the edge below where the saving exceeds the noise and at least
    half of it is wasted time (on a flat step: where at most half of the step is used). Else narrowing would be more
    pruning, not a repair. Of the two the one that saves more, but the edge above where it saves at least half as much: it
    adds channels instead of taking them. Each is priced over all layers that depend on the group. Moves between a measured
    and a modelled latency are left out.
    """
    found = []
    for place in places:
        layers = graph.layers_of(place.group)
        least = max(SIGMAS * place.noise_us, LEAST_SHARE * network_us)
        options = []
        for to in (place.edge_above, place.edge_below):
            if to is None or place.on_edge:
                continue
            moved = {**widths, place.group: to}
            saved = prices.layers_us(layers, widths) - prices.layers_us(layers, moved)
            faster = saved > least
            helps = saved >= 0 if to > place.width else faster and place.wasted_us >= REPAIR * saved - ROUNDING_US
            if helps and prices.comparable(layers, widths, moved):
                options.append(
                    Change(
                        group=place.group,
                        width=place.width,
                        to=to,
                        saved_us=saved,
                        network_us=network_us,
                        faster=faster,
                    )
                )
        if options:  # the edge above comes first
            found.append(options[0] if options[0].saved_us >= REPAIR * options[-1].saved_us else options[-1])
    return sorted(found, key=lambda change: (-change.saved_us, -change.channels, change.group))


def best_changes(
    graph: ModelGraph, widths: Mapping[str, int], changes: Sequence[Change], prices: Prices, *, count: int = 3
) -> tuple[tuple[Change, ...], float]:
    """The first changes that also help together, and the network's latency with all of them made.

    A change is passed over where, on top of those before it, it would make the network slower. The latency is NaN where
    the source lacks a joint shape.
    """
    chosen: list[Change] = []
    now = dict(widths)
    now_us = prices.layers_us(graph.layers, now)
    for change in changes:
        if len(chosen) == count:
            break
        then = {**now, change.group: change.to}
        then_us = prices.layers_us(graph.layers, then)
        if then_us > now_us:
            continue
        chosen.append(change)
        now, now_us = then, then_us
    return tuple(chosen), now_us
