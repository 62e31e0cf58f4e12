"""What runs between two calls of a timed block: as much other work as lies between two calls of a layer in a network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from torch import Tensor

from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.shapes import DTYPE_BYTES, LayerShape
from .blocks import build_block
from .random_data import RandomBank

#: Four small blocks of unlike kernels: their code replaces the timed block's in the small caches.
NEIGHBOURS = tuple(
    LayerShape(op="conv", batch=1, in_channels=inputs, out_channels=outputs, in_hw=(side, side), kernel_hw=(kernel, kernel),
               padding_hw=(kernel // 2, kernel // 2), epilogue=("bias", "add", "relu"))
    for inputs, outputs, side, kernel in ((64, 64, 16, 3), (40, 72, 16, 1), (128, 128, 8, 3), (24, 96, 32, 1))
)  # fmt: skip
#: Read between two calls of a layer: sixteen times the L2 of the core this was measured on. From 4 to 64 MiB sums of layers stay the
#: same within noise (benchmarks/between-without-canary.csv), presumably since weights that have left the L2 wait in the L3 or behind it either way.
FORGOTTEN_MIB = 16
#: Networks with a smaller working set keep their weights near the core: there nothing is read (benchmarks/between.csv, "slim").
SMALL_MIB = 4
#: More than the L3 that one core gets of any CPU known to us.
RING_MIB = 128
_MIB = re.compile(r"(0|[1-9][0-9]{0,3}) MiB")


def l2_for(graph: ModelGraph) -> str:
    """In which cache state should layers be timed, so that their sum is this network on a CPU?

    A network whose working set in one forward pass, sum of weights + (inputs + outputs) / 2 (one layer's output is the next
    one's input), is 4 MiB or more has forgotten a layer's weights when it comes back to them: "16 MiB"; a smaller one has not:
    "0 MiB". An answer for `DeviceTimer(l2=...)`; a table holds one such state, so ask with the dense network.
    """
    mib = 0.0
    for layer, shape in graph.shapes_at():
        weights = shape.num_parameters * DTYPE_BYTES[shape.dtype]
        mib += (weights + layer.calls * (shape.num_bytes - weights) / 2) / 2**20
    return f"{FORGOTTEN_MIB if mib >= SMALL_MIB else 0} MiB"


class OtherWork:
    """What a pass through the rest of a network does between two calls of a block, in two parts with a call of its spare between.

    `forget` reads `mib` of numbers: weights that were not used since are then where the network's are. `arrive` runs the
    neighbours and reads the timed block's inputs, as the layer before it wrote them. Reading evicts code, too, which a network does
    not: code is small, and stays in the L3. So the spare, the same block with weights of its own, is called behind it: it brings the
    code back, and leaves the timed weights alone. Where nothing is read (a small network) weights stay warm.

    Each time the next part of a ring is read, so that no part of it is still cached: one part read again and again would stay in
    the L3, or not, as other programs please, and times would jump with that.
    """

    def __init__(self, mib: int, bank: RandomBank) -> None:
        self.mib = mib
        ring = bank.scratch(max(RING_MIB, 2 * mib) * 2**20 if mib else 0)
        self._parts = itertools.cycle(ring.split(mib * 2**18))  # float32
        self._neighbours = [build_block(shape, bank) for shape in NEIGHBOURS]

    def forget(self) -> None:
        next(self._parts).sum()

    def arrive(self, inputs: Sequence[Tensor]) -> None:
        for block in self._neighbours:
            block()
        for tensor in inputs:
            tensor.sum()


def other_work(l2: str, bank: RandomBank) -> OtherWork | None:
    """The work that leaves a CPU's caches in the state `l2`: None for "warm"; InvalidShape for what is no such state."""
    if l2 == "warm":
        return None
    found = _MIB.fullmatch(l2)
    if not found:
        raise InvalidShape(
            f"Unknown l2 {l2!r}; allowed on a CPU: warm, or the MiB of other work between two calls, such as '16 MiB'."
        )
    return OtherWork(int(found[1]), bank)
