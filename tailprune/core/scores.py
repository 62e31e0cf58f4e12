"""How much each channel matters, and which channels the host pruner would keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Literal, get_args

from .errors import InvalidShape

#: What keeping a channel counts for: its score, or its share of what its group scores.
Weigh = Literal["scores", "shares"]
#: The least share of its scores that a group is said to keep, so that a logarithm of it exists: where the channels kept
#: all score zero. Any other choice of widths keeps a larger one.
LEAST_SHARE = 1e-6


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

    def kept_share(self, width: int) -> float:
        """V(width) / V(all); of channels where none scores anything."""
        return self.kept_score(width) / self.total if self.total else width / self.width

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

    Importance kept by widths k is a fraction, 1 for the whole network. How groups are weighed against one another:

        scores   the sum over scopes s of  weight_s x (scores kept in s) / (scores of s),
                 weight_s = channels of s / channels of all scopes
        shares   the geometric mean over groups g of  (scores kept in g) / (scores of g)

    By `scores`, inside a scope raw scores are compared, as the host compares them; between scopes only shares are, because
    the host never compares the raw numbers there. Under one global scope it is simply kept over total. A channel counts
    alike wherever it is, so a narrow group weighs little and may be traded for channels of a wide one. By `shares` halving
    what a group scores counts the same in any group, and what is left of it is worth the more, the less it is.

    >>> both = ChannelScores(groups=(GroupScores(group="a", scores=(1.0,) * 2), GroupScores(group="b", scores=(1.0,) * 8)))
    >>> [round(both.weighed(weigh).importance_kept({"a": 1, "b": 8}), 3) for weigh in ("scores", "shares")]
    [0.9, 0.707]
    """

    groups: tuple[GroupScores, ...]
    method: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    weigh: Weigh = "scores"

    def __post_init__(self) -> None:
        if self.weigh not in get_args(Weigh):
            raise InvalidShape(f"Unknown weigh {self.weigh!r}; allowed: {', '.join(get_args(Weigh))}.")

    def weighed(self, weigh: Weigh) -> ChannelScores:
        """The same scores, groups weighed otherwise against one another."""
        return dataclasses.replace(self, weigh=weigh)

    @cached_property
    def by_group(self) -> Mapping[str, GroupScores]:
        return {scores.group: scores for scores in self.groups}

    @cached_property
    def _factor(self) -> Mapping[str, float]:
        """group -> what a unit of its raw score adds to the importance kept, by `scores`."""
        total: dict[str, float] = {}
        channels: dict[str, int] = {}
        for g in self.groups:
            scope = g.scope or g.group
            total[scope] = total.get(scope, 0.0) + g.total
            channels[scope] = channels.get(scope, 0) + g.width
        count = sum(channels.values())
        return {g.group: channels[g.scope or g.group] / count / (total[g.scope or g.group] or 1.0) for g in self.groups}

    def value(self, group: str, width: int) -> float:
        """What this group adds at this width to the sum that `importance` reads: values of groups add up either way."""
        scores = self.by_group[group]
        if self.weigh == "scores":
            return self._factor[group] * scores.kept_score(width)
        return math.log(max(scores.kept_share(width), LEAST_SHARE)) / len(self.groups)

    def importance(self, values: float) -> float:
        """The importance kept where the groups' values sum to this: the sum itself, or its exponential."""
        return values if self.weigh == "scores" else math.exp(values)

    def importance_kept(self, widths: Mapping[str, int]) -> float:
        return self.importance(sum(self.value(g.group, widths.get(g.group, g.width)) for g in self.groups))

    @property
    def host_widths(self) -> dict[str, int]:
        return {g.group: g.host_width for g in self.groups}
