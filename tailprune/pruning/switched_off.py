"""Which channels of a network are cut off already, seen from where its layers are switched off?"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..core.errors import InvalidShape
from ..core.graph import ChannelGroup, ModelGraph
from ..core.scores import ChannelScores, GroupScores
from ..tracing import CoupledChannels
from .apply import inputs_like
from .importance import BatchNorm, Convolution, dependency_of, score_channels
from .influence import Influence, measure_influence
from .verify import channels_at

#: What happens to a channel that is switched off but passes on a constant.
Constants = Literal["keep", "remove"]
#: (name of a module, its side, the module) -> which of its channels there are switched off; None where it has no say
Switch = Callable[[str, str, Any], "torch.Tensor | None"]
#: Images that the influence of switched-off channels is measured with.
BATCH = 2


def host_of_switches(
    net: nn.Module,
    graph: ModelGraph,
    is_off: Switch,
    *,
    word: str,
    constants: Constants,
    tolerance: float,
    importance: str,
    example_inputs: Any,
) -> ChannelScores | None:
    """The scores and the choice of a host that removed what is switched off; None where nothing is.

    A channel goes where something of its group is switched off there and nothing else of it is heard by its readers. What
    it passes on nevertheless, more than `tolerance`, is a constant.
    """
    if constants not in get_args(Constants):
        raise InvalidShape(f"Unknown answer to constants {constants!r}; allowed: {', '.join(get_args(Constants))}.")
    dependency = dependency_of(net, graph, example_inputs)
    modules = dict(net.named_modules())
    switches: dict[tuple[str, str], torch.Tensor] = {}
    for member in (m for group in dependency.groups for m in group.members):
        end = (member.module, member.side)
        if member.module in modules and end not in switches:
            flags = is_off(*end, modules[member.module])
            if flags is not None and len(flags) > max(member.indices):
                switches[end] = flags
    touched = {group.id: _touched(group, switches) for group in dependency.groups}
    if not any(flags.any() for flags, _ in touched.values()):
        return None
    suspects = [g for g in dependency.groups if graph.group(g.id).prunable and touched[g.id][0].any()]
    influences = _influences(net, graph, suspects, switches, example_inputs)
    kept, lines = {}, []
    for group in dependency.groups:
        flags, layers = touched[group.id]
        if group.id in influences:
            choice = _Choice(graph.group(group.id), flags, layers, influences[group.id], word, tolerance)
            kept[group.id], said = choice.kept(constants)
            lines += said
        elif flags.any():
            reason = graph.group(group.id).reason
            lines.append(f"{group.id}: {int(flags.sum())} channels are {word}, but its width stays: {reason}")
    scored = score_channels(net, graph, importance, example_inputs=example_inputs)
    groups = tuple(_with_choice(group, kept.get(group.group)) for group in scored.groups)
    return dataclasses.replace(scored, groups=groups, warnings=(*scored.warnings, *lines))


@dataclasses.dataclass(frozen=True)
class _Choice:
    """One group's switched-off channels, what they still do, and the words for it."""

    group: ChannelGroup
    touched: torch.Tensor
    layers: tuple[str, ...]
    influence: Influence
    word: str
    tolerance: float

    def kept(self, constants: Constants) -> tuple[tuple[int, ...], list[str]]:
        """The channels that stay, and a line for every kind of channel that is not simply gone."""
        name, word, passed = self.group.id, self.word, self.influence.passed
        lines = []
        partial = self.touched & ~self.influence.silent
        if partial.any():
            lines.append(
                f"{name}: {int(partial.sum())} channels are {word} in some layers of the group only ({few(self.layers)}), others "
                "still feed or read them: kept"
            )
        off = self.touched & self.influence.silent
        speaking = off & (passed > self.tolerance)
        if speaking.any():
            size = float(passed[speaking].max())
            what = (
                f"{name}: {int(speaking.sum())} {word} channels are still seen by a norm over channels"
                if size == torch.inf
                else f"{name}: {int(speaking.sum())} {word} channels still pass on a constant of up to {size:.2g} (a bias, or the shift of a norm)"
            )
            if constants == "keep":
                off = off & ~speaking
                lines.append(f"{what}: kept; zero that too, or ask for constants='remove'")
            else:
                lines.append(f"{what}, which goes with them: fine-tune, the pruned network is not the {word} one")
        units = off.view(self.group.granule, -1).all(0).repeat(self.group.granule)
        if (alone := int((off & ~units).sum())) > 0:
            lines.append(
                f"{name}: {alone} channels are {word} without those at the same place of the other {self.group.granule} blocks: kept"
            )
        if units.all():
            raise InvalidShape(
                f"All {self.group.width} channels of {name} are {word}, and a layer without channels cannot run; leave at "
                f"least {self.group.granule}."
            )
        return tuple(torch.nonzero(~units).flatten().tolist()), lines


def few(names: tuple[str, ...] | list[str], count: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


def _touched(
    group: CoupledChannels, switches: dict[tuple[str, str], torch.Tensor]
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Channels that some layer of the group has switched off, and those layers."""
    position = {channel: i for i, channel in enumerate(group.channels)}
    touched, layers = torch.zeros(group.width, dtype=torch.bool), []
    for member in group.members:
        flags = switches.get((member.module, member.side))
        if flags is None:
            continue
        here = torch.zeros(group.width, dtype=torch.int64)
        at = torch.tensor([position[channel] for channel in member.channels])
        here.index_add_(0, at, flags[list(member.indices)].long())
        off = here == len(member.indices) // group.width
        if off.any():
            touched |= off
            layers.append(member.module)
    return touched, tuple(dict.fromkeys(layers))


def _influences(
    net: nn.Module,
    graph: ModelGraph,
    groups: list[CoupledChannels],
    switches: dict[tuple[str, str], torch.Tensor],
    example_inputs: Any,
) -> dict[str, Influence]:
    """Measured on a copy in float32, in which what counts as off is exactly zero."""
    probe = copy.deepcopy(net).float()
    modules = dict(probe.named_modules())
    off: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for member in (m for group in groups for m in group.members if m.side == "out"):
            module: Any = modules.get(member.module)
            if not isinstance(module, (Convolution, nn.Linear, BatchNorm)):
                continue
            flags = switches.get((member.module, "out"))
            if flags is None:
                flags = torch.zeros(channels_at(module, "out") or 0, dtype=torch.bool)
            elif module.weight is not None:
                weight = module.weight.transpose(0, 1) if getattr(module, "transposed", False) else module.weight
                weight[flags.to(weight.device)] = 0
            off[member.module] = flags
    batch = min(BATCH, graph.input_shape[0])
    inputs = inputs_like(probe, (batch, *graph.input_shape[1:])) if example_inputs is None else example_inputs
    return measure_influence(probe, groups, off, inputs)


def _with_choice(group: GroupScores, kept: tuple[int, ...] | None) -> GroupScores:
    if kept is None:
        return dataclasses.replace(group, host_kept=tuple(range(group.width)))
    stays = set(kept)
    scores = tuple(score if channel in stays else 0.0 for channel, score in enumerate(group.scores))
    return dataclasses.replace(group, scores=scores, host_kept=kept)
