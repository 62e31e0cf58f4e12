"""Channels that must leave together, as values: what a dependency graph is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..core.errors import TraceError


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

    def ends(self, channels: Iterable[int]) -> dict[tuple[str, str], set[int]]:
        """(module, side) -> what these channels of the group are there."""
        wanted = set(channels)
        found: dict[tuple[str, str], set[int]] = {}
        for member in self.members:
            indices = {i for i, channel in zip(member.indices, member.channels, strict=True) if channel in wanted}
            found.setdefault((member.module, member.side), set()).update(indices)
        return found

    def check_removal(self, gone: Sequence[int], *, present: Sequence[int]) -> None:
        """Refuse to take `gone` out of the channels that are still `present`, in one sentence, where that cannot be."""
        if self.reason:
            raise TraceError(f"Group {self.id} cannot be pruned: {self.reason}.")
        absent = sorted(set(gone) - set(present))
        if absent:
            raise TraceError(
                f"Group {self.id} has no channels {absent[:5]} (any more); it has {len(present)} channels."
            )
        if len(gone) == len(present):
            raise TraceError(
                f"Group {self.id} would lose all its {len(present)} channels; keep at least {self.granule}."
            )
        block = len(present) // self.granule
        offsets = Counter(present.index(channel) % block for channel in gone) if self.granule > 1 else {}
        if any(count != self.granule for count in offsets.values()):
            raise TraceError(
                f"Group {self.id} has granule {self.granule}: a channel leaves together with those at the same offset in "
                f"each block of {block} channels."
            )
