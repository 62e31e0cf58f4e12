"""Channels that must leave together, as values: what a dependency graph is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Member:
    """One end of one module (or of a bare parameter) that a group's channels pass through.

    `indices[i]` is a channel of this end, and `channels[i]` the group's channel it belongs to. Modules that keep their
    channels (batch norm, depthwise convolution, attention) appear once, as "out".
    """

    module: str
    side: Literal["in", "out"]
    indices: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CoupledChannels:
    """One channel group as Torch-Pruning sees it, in the original model's coordinates.

    `id` and `root` name the group's first producer; channel c of the group is output channel c of that module (of
    `channels`, all of them but for a producer whose outputs fall into several groups; ids of its further groups end in
    `:2`, `:3`). `min_width` is the narrowest width at which the layers are still the same kinds of layers, so that the
    pruned model traces to the same groups. `reason` says why nothing can be removed; empty if something can.
    """

    id: str
    root: str
    channels: tuple[int, ...]
    granule: int
    min_width: int
    members: tuple[Member, ...]
    reason: str = ""

    @property
    def width(self) -> int:
        return len(self.channels)

    @property
    def producers(self) -> tuple[str, ...]:
        return tuple(m.module for m in self.members if m.side == "out")

    @property
    def consumers(self) -> tuple[str, ...]:
        return tuple(m.module for m in self.members if m.side == "in")
