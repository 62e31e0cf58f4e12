"""What runs between two calls of a timed block: as much other work as lies between two calls of a layer in a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from ..core.errors import InvalidShape
from .random_data import RandomBank

#: Read between a block's last call and its spare's, so that nothing is left in the near caches by chance: twice the L2 of the core this was measured
#: on. From 4 to 16 MiB sums of layers hardly change; from 64 MiB on they are too long by 6 % and more (benchmarks/between-second-cpu.json).
FORGOTTEN_MIB = 4
#: Read in all before a block comes round again. Without, a block alone is 7 to 12 % faster than among hundreds; with 32 MiB it is, too, with 256 it is
#: 5 to 10 % slower (trials; benchmarks/between-second-cpu.json, "company", has what 128 does).
RING_MIB = 128
_MIB = re.compile(r"([1-9][0-9]{0,3}) MiB")


class OtherWork:
    """What a pass through the rest of a network does between two calls of a block, in three parts.

    `come_round` reads of a ring of numbers what was not read since the block was last timed (`read_mib` now, `used_at_mib` then): how long ago that
    is must not depend on how many others are timed in turn with it. Then the block itself is called, as by the network's last pass.
    `forget` reads `mib` more: the weights are then where the network's are. Reading evicts code, too, which a network does not: code is
    small, and stays near. So the spare, the same block with weights of its own, is called behind it: it brings the code back, and
    leaves the timed weights alone. `arrive` reads the timed block's inputs, as the layer before it wrote them.

    Each time the next part of the ring is read, so that no part of it is still cached: one part read again and again would stay in
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

    def come_round(self, used_at_mib: int) -> None:
        self._read(used_at_mib + RING_MIB - self.read_mib)

    def forget(self) -> None:
        self._read(self.mib)

    def _read(self, mib: int) -> None:
        for _ in range(mib):
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
