"""What runs between two calls of a timed block: as much other work as lies between two calls of a layer in a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from ..core.errors import InvalidShape
from .random_data import RandomBank

#: Read right before a call's spare, so that nothing is left in the near caches by chance: eight to sixteen times the L2 of the cores this was
#: measured on. With four times as much sums of layers grow by 5 %: code goes, too (benchmarks/between-second-cpu.json).
FORGOTTEN_MIB = 16
#: Read in all before a block's weights are used again. Alone in a loop, 16 MiB apart, a block is 11 % faster than among hundreds; twelve in turn,
#: 192 MiB apart, are as fast as among hundreds (benchmarks/between-second-cpu.json, "company").
RING_MIB = 256
_MIB = re.compile(r"([1-9][0-9]{0,3}) MiB")


class OtherWork:
    """What a pass through the rest of a network does between two calls of a block, in two parts with a call of its spare between.

    `forget` reads `mib` of numbers: weights that were not used since are then where the network's are. `arrive` reads the timed
    block's inputs, as the layer before it wrote them. Reading evicts code, too, which a network does not: code is small, and stays
    near. So the spare, the same block with weights of its own, is called behind it: it brings the code back, and leaves the timed
    weights alone.

    How long ago a block's own weights were used must not depend on how many others are timed in turn with it: where fewer than
    `RING_MIB` were read since (`read_mib` now, less then), `forget` reads the rest of them as well.

    Each time the next part of a ring is read, so that no part of it is still cached: one part read again and again would stay in
    the L3, or not, as other programs please, and times would jump with that.
    """

    def __init__(self, mib: int, bank: RandomBank) -> None:
        self.mib = mib
        self.read_mib = 0
        self._bank = bank

    @cached_property
    def _parts(self) -> tuple[Tensor, ...]:
        """One MiB each; made when first read, since most timers are only asked for their environment."""
        mib = max(RING_MIB, 2 * self.mib)
        return self._bank.scratch(mib * 2**20).split(2**18)  # float32

    def forget(self, since_mib: int) -> None:
        for _ in range(max(self.mib, since_mib + RING_MIB - self.read_mib)):
            self._parts[self.read_mib % len(self._parts)].sum()
            self.read_mib += 1

    def arrive(self, inputs: Sequence[Tensor]) -> None:
        for tensor in inputs:
            tensor.sum()


def other_work(l2: str, bank: RandomBank) -> OtherWork | None:
    """The work that leaves a CPU's caches in the state `l2`: None for "warm"; InvalidShape for what is no such state."""
    if l2 == "warm":
        return None
    found = _MIB.fullmatch(l2)
    if not found:
        raise InvalidShape(
            f"Unknown l2 {l2!r}; allowed on a CPU: warm, or the MiB of other work between two calls, such as '{FORGOTTEN_MIB} MiB'."
        )
    return OtherWork(int(found[1]), bank)
