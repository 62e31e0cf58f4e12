"""How much each channel matters, and which channels the host pruner would keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from .errors import InvalidShape


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """Scores of one channel group.

    `scores` has one finite, non-negative number per channel. `scope` names the set of groups whose scores the host
    compares with one another (the group itself under local ranking). `host_kept` are the channels the host keeps, or
    None where there is no host. With granule G a channel is removed together with its peers at the same offset in
    each of the G blocks of width/G channels, so the unit of choice is an offset.
    """

    group: str
    scores: tuple[float, ...]
    scope: str = ""
    host_kept: tuple[int, ...] | None = None
    granule: int = 1

    def __post_init__(self) -> None:
        if not self.scores or len(self.scores) % self.granule:
            raise InvalidShape(
                f"Group {self.group}: {len(self.scores)} scores do not fill blocks of granule {self.granule}."
            )
        for channel, score in enumerate(self.scores):
            if not (math.isfinite(score) and score >= 0):
                raise InvalidShape(
                    f"Group {self.group}: the score of channel {channel} is {score!r}; scores must be finite and at least 0. Check the importance."
                )

    @cached_property
    def _values(self) -> tuple[float, ...]:
        """What each offset is worth: the sum over its channels."""
        block = len(self.scores) // self.granule
        return tuple(sum(self.scores[offset::block]) for offset in range(block))

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """Offsets from first kept to last: the host's choice first, then by score, then by position."""
        block, value = len(self._values), self._values
        kept = {channel % block for channel in self.host_kept or ()}
        return tuple(sorted(range(block), key=lambda offset: (offset not in kept, -value[offset], offset)))

    @cached_property
    def _kept_score(self) -> tuple[float, ...]:
        return tuple(accumulate((self._values[offset] for offset in self._order), initial=0.0))

    @property
    def width(self) -> int:
        return len(self.scores)

    @property
    def host_width(self) -> int:
        return self.width if self.host_kept is None else len(self.host_kept)

    def kept_channels(self, width: int) -> tuple[int, ...]:
        """Which channels to keep at this width, ascending: the host's own at its width, all of them at any wider one."""
        block = len(self.scores) // self.granule
        offsets = self._order[: self._units(width)]
        return tuple(sorted(offset + block * i for offset in offsets for i in range(self.granule)))

    def kept_score(self, width: int) -> float:
        """V(width): the sum of the scores of the channels kept at this width.

        A channel beyond the original width does not exist yet; it counts as much as the least of those that do.
        """
        units, known = self._units(width), len(self._values)
        if units <= known:
            return self._kept_score[units]
        return self.total + (units - known) * min(self._values)

    @property
    def total(self) -> float:
        return self._kept_score[-1]

    def _units(self, width: int) -> int:
        if width % self.granule or width < 0:
            raise InvalidShape(
                f"Group {self.group} cannot have {width} channels; allowed: multiples of {self.granule}."
            )
        return width // self.granule


@dataclass(frozen=True, kw_only=True)
class ChannelScores:
    """Scores for every prunable group of a network.

    Importance kept by widths k is a fraction: the sum over scopes s of

        weight_s x (scores kept in s) / (scores of s),    weight_s = channels of s / channels of all scopes.

    Inside a scope raw scores are compared, as the host compares them; between scopes only shares are, because the
    host never compares the raw numbers there. Under one global scope it is simply kept over total.
    """

    groups: tuple[GroupScores, ...]
    method: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def by_group(self) -> Mapping[str, GroupScores]:
        return {scores.group: scores for scores in self.groups}

    @cached_property
    def _factor(self) -> Mapping[str, float]:
        """group -> what a unit of its raw score adds to the importance kept."""
        total: dict[str, float] = {}
        channels: dict[str, int] = {}
        for g in self.groups:
            scope = g.scope or g.group
            total[scope] = total.get(scope, 0.0) + g.total
            channels[scope] = channels.get(scope, 0) + g.width
        count = sum(channels.values())
        return {g.group: channels[g.scope or g.group] / count / (total[g.scope or g.group] or 1.0) for g in self.groups}

    def value(self, group: str, width: int) -> float:
        """What this group adds to the importance kept (a fraction of the whole network's) at this width."""
        return self._factor[group] * self.by_group[group].kept_score(width)

    def importance_kept(self, widths: Mapping[str, int]) -> float:
        return sum(self.value(g.group, widths.get(g.group, g.width)) for g in self.groups)

    @property
    def host_widths(self) -> dict[str, int]:
        return {g.group: g.host_width for g in self.groups}
