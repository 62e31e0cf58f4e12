"""Weights keep their memory format while channels leave: a cut by index returns contiguous ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..timing.memory_format import LAST, lies_channels_last


@contextmanager
def layouts_kept(model: nn.Module) -> Iterator[None]:
    """Weights that lie channels last still do afterwards, whoever cuts them inside.

    Torch-Pruning selects the kept channels by index, and what it gets is contiguous. A network that runs channels last then
    rearranges the weights of each layer at every call: on a CPU 5 to 15 % of the time of four networks out of five
    (benchmarks/layout.json).
    """
    last = {name for name, parameter in model.named_parameters() if lies_channels_last(parameter)}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            if name in last:
                parameter.data = parameter.data.to(memory_format=LAST[parameter.dim()])
