"""What does a switched-off channel still pass on? Found by running the network, not by reading its structure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..tracing import CoupledChannels
from .importance import Convolution, by_channel
from .verify import CHANNEL_NORMS

#: What multiplies the noise, run by run: far above any norm's running mean, far below what overflows float32. Of the other
#: sign the second time, since ReLU hides one, and of another size, since a product of two branches hides the sign.
LOUDNESS = (1e3, -5e2)
#: Float32 sums differ by about 1e-7 of their size from one order to another.
SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Influence:
    """Per channel of a group: whether what its readers get depends on nothing but the channel itself, and how large that is.

    `silent[c]`: no layer of the group that is not switched off at c changes what is read at c. `passed[c]`: the largest
    value read at c, infinite behind a norm over channels, which sees how many there are.
    """

    silent: torch.Tensor
    passed: torch.Tensor


@torch.no_grad()
def measure_influence(
    net: nn.Module, groups: Iterable[CoupledChannels], off: Mapping[str, torch.Tensor], inputs: Any
) -> dict[str, Influence]:
    """What do the layers that read these groups get from channels that are switched off?

    `off[m]` marks the output rows of layer m that are switched off in `net`. All other rows of the groups' convolutions and
    linear layers are replaced by loud noise, and the network runs twice, with noise v and with -v/2; depthwise layers pass
    on what they are given, norms over channels are passed by (they would carry the noise of one channel into all). What is
    heard the same both times is cut off: a masked expansion in front of a depthwise layer is, and a masked convolution
    under a squeeze-excite gate; one branch of a residual sum is not, while another one goes on. Columns of zeros read
    nothing. `net` must be a copy in evaluation mode; its hooks are removed again.
    """
    groups, modules = tuple(groups), dict(net.named_modules())
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    loud, other = (_heard(net, groups, off, args, loudness) for loudness in LOUDNESS)
    return {group.id: _influence(group, modules, loud, other) for group in groups}


def _heard(
    net: nn.Module, groups: Iterable[CoupledChannels], off: Mapping[str, torch.Tensor], args: Any, loudness: float
) -> dict[str, torch.Tensor]:
    """Reader -> a row per channel of its input and call: a random mixture of the values there, and the largest of them."""
    heard: dict[str, list[torch.Tensor]] = {}
    noise, mixing = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)

    def shout(name: str, module: nn.Module, output: torch.Tensor) -> torch.Tensor:
        axis = _channel_axis(module, output)
        view = [-1 if d == axis else 1 for d in range(output.dim())]
        shape = [1 if d == axis else size for d, size in enumerate(output.shape)]
        loud = loudness * torch.randn(shape, generator=noise)
        return torch.where(off[name].to(output.device).view(view), output, loud.to(output))

    def listen(name: str, module: nn.Module, read: torch.Tensor) -> None:
        channels = read.movedim(_channel_axis(module, read), 0).flatten(1)
        weights = torch.randn(channels.shape[1], generator=mixing).to(channels) / channels.shape[1] ** 0.5
        heard.setdefault(name, []).append(torch.stack([channels @ weights, channels.abs().amax(1)], 1).cpu())

    modules = dict(net.named_modules())
    handles = []
    for end in dict.fromkeys((m.module, m.side) for group in groups for m in group.members):
        name, side = end
        module = modules.get(name)
        if isinstance(module, CHANNEL_NORMS):
            handles.append(module.register_forward_hook(lambda module, args, output: args[0]))
        elif isinstance(module, (Convolution, nn.Linear)) and side == "out" and not _depthwise(module):
            handles.append(module.register_forward_hook(lambda m, args, output, name=name: shout(name, m, output)))
        elif isinstance(module, (Convolution, nn.Linear)):
            handles.append(module.register_forward_pre_hook(lambda m, args, name=name: listen(name, m, args[0])))
    try:
        net(*args)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(calls, 1) for name, calls in heard.items()}


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, Convolution) and 1 < module.groups == module.out_channels


def _channel_axis(module: nn.Module, tensor: torch.Tensor) -> int:
    return 1 if isinstance(module, Convolution) else tensor.dim() - 1


def _influence(
    group: CoupledChannels,
    modules: Mapping[str, nn.Module],
    loud: dict[str, torch.Tensor],
    other: dict[str, torch.Tensor],
) -> Influence:
    position = {channel: i for i, channel in enumerate(group.channels)}
    silent, passed = torch.ones(group.width, dtype=torch.bool), torch.zeros(group.width)
    for member in group.members:
        module: Any = modules.get(member.module)
        if isinstance(module, CHANNEL_NORMS):
            passed.fill_(torch.inf)
        if member.side == "out" and not isinstance(module, nn.MultiheadAttention):
            continue
        rows, at = list(member.indices), torch.tensor([position[channel] for channel in member.channels])
        columns = by_channel(module, "in", module.weight) if isinstance(module, (Convolution, nn.Linear)) else None
        if columns is None or member.module not in loud:
            silent[at] = False
            continue
        reading = columns[rows].ne(0).any(1).cpu()
        first, second = loud[member.module][rows], other[member.module][rows]
        size = first[..., 1].amax(1)
        same = (first - second)[..., 0].abs().amax(1) <= SAME * (1 + size)
        silent[at[reading & ~same]] = False
        passed.scatter_reduce_(0, at[reading], size[reading], "amax")
    return Influence(silent=silent, passed=passed)
