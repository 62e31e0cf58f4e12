"""Pipelines that say how many channels stay, or how much each is worth, by layer name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidShape
from ..core.graph import ChannelGroup, ModelGraph
from ..core.scores import ChannelScores, GroupScores
from ..planning import Scope, choose_host
from ..tracing import copy_without_masks
from .importance import score_channels

#: Decides whether 0.3 x 10 channels are 3: shares of channels are never finer than this.
WHOLE = 1e-9


def host_from_widths(
    model: nn.Module,
    graph: ModelGraph,
    widths: Mapping[str, float],
    *,
    importance: str = "magnitude",
    seed: int = 0,
    example_inputs: Any = None,
) -> ChannelScores:
    """Which channels would a pipeline keep that says only how many, layer by layer?

    `widths` maps layers to channels kept (a whole number) or to the share removed (a fraction r in [0, 1): of N channels,
    N(1 - r) stay, rounded down to the granule). A layer is named by any producer of its channel group, or by the norm folded
    into one; layers left out keep all their channels. Which channels stay is decided by `importance`, highest first.

    Each group is ranked by itself: the host has said how much every group loses.

    Raises InvalidShape, with the name at fault, for unknown layers (with those of similar names), two names of one group
    that ask for different widths, widths of 0, above the group's, off its granule, or of a group that cannot be pruned.

    >>> from tailprune.tracing import trace_model
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.ReLU(), nn.Conv2d(12, 4, 3))
    >>> graph = trace_model(net, torch.zeros(1, 3, 16, 16))
    >>> host_from_widths(net, graph, {"0": 10, "2": 0.25}).host_widths
    {'0': 10, '2': 9}
    """
    asked: dict[str, tuple[str, float, int]] = {}
    for name, value in widths.items():
        group = group_named(graph, name)
        width = _width(group, name, value)
        other = asked.setdefault(group.id, (name, value, width))
        if other[2] != width:
            raise InvalidShape(
                f"{other[0]}: {other[1]} and {name}: {value} ask for two widths of one channel group ({group.id}, {group.width} "
                "channels); give one of them, or the same width for both."
            )
        if width != group.width and not group.prunable:
            raise InvalidShape(
                f"{name} cannot have {value} of its {group.width} channels: {group.reason}. Leave it out."
            )
    settled = copy_without_masks(model)
    scored = score_channels(settled, graph, importance, seed=seed, example_inputs=example_inputs)
    for group_id, (name, value, width) in asked.items():
        if width != graph.group(group_id).width and group_id not in scored.by_group:
            raise InvalidShape(
                f"{name}: {value} needs scores to choose channels by, but {importance} finds nothing to score there; choose another importance."
            )
    groups = tuple(
        dataclasses.replace(g, host_kept=g.kept_channels(asked[g.group][2] if g.group in asked else g.width))
        for g in scored.groups
    )
    return dataclasses.replace(scored, groups=groups, method=f"widths, {scored.method}")


def host_from_scores(
    graph: ModelGraph, scores: Mapping[str, Any], ratio: float, scope: Scope = "global"
) -> ChannelScores:
    """Which channels would a pipeline keep that scores them itself, and removes the lowest?

    `scores` maps layers to one number per output channel (a tensor, an array or a list), the higher the better. Layers are
    named as in `host_from_widths`; where several names of one channel group are scored (the branches of a residual sum), its
    scores are their **mean**, channel by channel. `ratio` of the channels go, ranked over the whole network (`global`) or
    group by group (`local`), as `choose_host` does. Groups without scores keep all their channels.

    Negative scores are raised by the minimum of their scope, which leaves their order, and `warnings` says so; scores of layers
    that cannot be pruned are not used, which it says as well.

    Raises InvalidShape for unknown layers, a wrong number of scores, NaN or infinite ones, and a ratio outside [0, 1).

    >>> from tailprune.tracing import trace_model
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> graph = trace_model(net, torch.zeros(1, 3, 16, 16))
    >>> host_from_scores(graph, {"0": [0.1, 3.0, 0.2, 2.0]}, ratio=0.5).by_group["0"].host_kept
    (1, 3)
    """
    check_ratio(ratio)
    given: dict[str, list[torch.Tensor]] = {}
    notes = []
    for name, values in scores.items():
        group = group_named(graph, name)
        numbers = _numbers(group, name, values)
        if group.prunable:
            given.setdefault(group.id, []).append(numbers)
        else:
            notes.append(f"{name}: its scores are not used, since its width stays: {group.reason}")
    means = {group_id: torch.stack(each).mean(0) for group_id, each in given.items()}
    if not means:
        raise InvalidShape("None of the scored layers can be pruned, so there is nothing to choose from; score others.")
    lowest = min(float(mean.min()) for mean in means.values())
    groups: list[GroupScores] = []
    for group in graph.prunable_groups:
        if group.id in means:
            mean = means[group.id]
            low = min(lowest if scope == "global" else float(mean.min()), 0.0)
            if low < 0 and (scope == "local" or not groups):
                where = "the whole network" if scope == "global" else group.id
                notes.append(
                    f"scores of {where} are negative down to {low:.4g}; raised by that much, their order is unchanged"
                )
            groups.append(GroupScores(group=group.id, scores=tuple((mean - low).tolist()), granule=group.granule))
    unscored = [group.id for group in graph.prunable_groups if group.id not in means]
    if unscored:
        notes.append(f"no scores, so they keep all their channels: {', '.join(unscored)}")
    return choose_host(
        ChannelScores(groups=tuple(groups), method="scores given", warnings=tuple(notes)), ratio, scope=scope
    )


def check_ratio(ratio: float) -> None:
    """Refuse what is no share of channels to remove, all of them included."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 <= float(ratio) < 1:
        why = "a ratio of 1 leaves no channel" if ratio == 1 else "it is the share of channels removed"
        raise InvalidShape(f"A pruning ratio must be at least 0 and below 1, got {ratio!r}: {why}.")


def group_named(graph: ModelGraph, name: str) -> ChannelGroup:
    """The channel group that a layer produces: by the group's id, any of its producers, or the norm folded into one.

    Raises InvalidShape for names that produce no group, or parts of several.
    """
    names: dict[str, list[str]] = {}
    for group in graph.groups:
        for producer in dict.fromkeys((group.id, *group.producers)):
            names.setdefault(producer, []).append(group.id)
    if name in graph.widths:
        return graph.group(name)
    norms = {layer.norm: layer.name for layer in graph.layers if layer.norm is not None}
    found = names.get(name) or names.get(norms.get(name, ""), [])
    if len(found) == 1:
        return graph.group(found[0])
    if found:
        raise InvalidShape(f"The channels of {name} belong to several groups; name one of {', '.join(found)}.")
    if any(layer.name == name for layer in graph.layers):
        raise InvalidShape(
            f"{name} has no width of its own: it takes over the channels of the layers before it. Name those."
        )
    close = get_close_matches(str(name), [*names, *norms], 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(list(names)[:3])} and others."
    raise InvalidShape(f"{graph.model} has no layer {name!r}; {hint}")


def _width(group: ChannelGroup, name: str, value: Any) -> int:
    """Channels kept, from a width or a ratio."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        width = int(value)
        if width < 1:
            raise InvalidShape(
                f"{name}: {width} would leave channel group {group.id} empty; keep at least {group.granule} of its {group.width} channels."
            )
        if width > group.width:
            raise InvalidShape(
                f"{name}: {width} is more than the {group.width} channels that channel group {group.id} has."
            )
        if width % group.granule:
            below, above = width // group.granule * group.granule, -(-width // group.granule) * group.granule
            near = f"{below} or {above}" if below else str(above)
            raise InvalidShape(
                f"{name}: {width} is no multiple of {group.granule}, the granule of channel group {group.id}; use {near}."
            )
        return width
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise InvalidShape(
            f"{name}: {value!r} is neither a number of channels (a whole number, up to {group.width}) nor a share to remove "
            "(a fraction below 1)."
        )
    width = math.floor((1 - float(value)) * (group.width // group.granule) + WHOLE) * group.granule
    if not width:
        raise InvalidShape(
            f"{name}: a ratio of {value} would remove all {group.width} channels of channel group {group.id}; keep at least {group.granule}."
        )
    return width


def _numbers(group: ChannelGroup, name: str, values: Any) -> torch.Tensor:
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidShape(
            f"The scores of {name} are no numbers ({type(error).__name__}); give one per channel."
        ) from None
    if numbers.shape != (group.width,):
        got = f"{len(numbers)} scores" if numbers.dim() == 1 else f"scores of shape {tuple(numbers.shape)}"
        raise InvalidShape(f"{name} has {group.width} channels in its group, but {got}; give one per channel.")
    bad = torch.nonzero(~numbers.isfinite()).flatten().tolist()
    if bad:
        raise InvalidShape(
            f"The score of channel {bad[0]} of {name} is {float(numbers[bad[0]])}; scores must be finite."
        )
    return numbers
