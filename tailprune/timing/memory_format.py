"""In which memory format do a network's weights lie, and which of them lie in another one than the network runs in?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: The memory format a network can run in beside the contiguous one, by the dimensions of its weights.
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def lies_channels_last(tensor: Tensor) -> bool:
    """By strides: a 1x1 kernel is contiguous in both formats, and its strides still decide how its layer runs.

    >>> weight = torch.empty(8, 4, 1, 1)
    >>> lies_channels_last(weight), lies_channels_last(weight.to(memory_format=torch.channels_last))
    (False, True)
    """
    return tensor.dim() in LAST and tensor.stride() == _strides(tensor, LAST[tensor.dim()]) != _strides(tensor)


def stray_weights(model: nn.Module, inputs: tuple[Tensor, ...] = ()) -> tuple[str, ...]:
    """Names of contiguous weights in a network that runs channels last, as its inputs or its other weights say.

    oneDNN rearranges each of them at every call (benchmarks/layout.json; what cuDNN does was not measured). Cutting channels by index, as
    Torch-Pruning does, leaves such weights. A 1x1 kernel holds its numbers in one order in both formats, and never strays.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last)
    >>> net[1].weight.data = net[1].weight.data.contiguous()
    >>> stray_weights(net)
    ('1.weight',)
    """
    weights = {name: p for name, p in model.named_parameters() if p.dim() in LAST}
    if not any(map(lies_channels_last, [*inputs, *weights.values()])):
        return ()
    return tuple(name for name, p in weights.items() if not p.is_contiguous(memory_format=LAST[p.dim()]))


def _strides(tensor: Tensor, order: torch.memory_format = torch.contiguous_format) -> tuple[int, ...]:
    return torch.empty(tensor.shape, memory_format=order, device="meta").stride()
