"""Other layers, run between two calls of a timed one, as a network does."""

from __future__ import annotations

from collections.abc import Callable

from ..core.shapes import LayerShape
from .blocks import build_block
from .random_data import RandomBank

#: Four small blocks of unlike kernels, about 0.3 ms in all on one core: 2 MB of weights and activations, as much as most cores' L2.
#: In a trial (docs/measuring.md) calls timed straight after each other summed to 3-11 % less than the network they are
#: from; behind these four, to within 4 %.
NEIGHBOURS = tuple(
    LayerShape(op="conv", batch=1, in_channels=inputs, out_channels=outputs, in_hw=(side, side), kernel_hw=(kernel, kernel),
               padding_hw=(kernel // 2, kernel // 2), epilogue=("bias", "add", "relu"))
    for inputs, outputs, side, kernel in ((64, 64, 16, 3), (40, 72, 16, 1), (128, 128, 8, 3), (24, 96, 32, 1))
)  # fmt: skip


def run_neighbours(bank: RandomBank) -> Callable[[], None]:
    """A call of each neighbour: its code and data replace the timed layer's in the small caches."""
    blocks = tuple(build_block(shape, bank) for shape in NEIGHBOURS)

    def run() -> None:
        for block in blocks:
            block()

    return run
