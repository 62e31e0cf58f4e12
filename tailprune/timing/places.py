"""Where a call's output lies in memory: somewhere else at each reading, so that no place is taken for the shape's speed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import torch
from torch import Tensor

#: Places that an output may lie in. Sixteen leave a sixteenth of the readings to the worst of them.
PLACES = 16
#: All places together take no more than this: an output of many MiB lies in good and bad places at once.
MOST_BYTES = 32 * 2**20
#: What glibc's aligned allocation asks for beside the block itself: 64 bytes to align, 32 for the smallest rest, rounded up. In a
#: wider hole another block may fit better; in one too narrow none does.
SLACK = 128
#: Holes elsewhere that fit the output better are plugged, this many at most: those that came since the heap's were (`heap.holes_plugged`), one to
#: six at one visit in sixteen in a trial of 200 shapes; where nothing plugs the heap, in processes that had run hundreds of other things, 64 did not do.
PLUGS = 512


class Places:
    """Makes the allocator put the output of the next calls elsewhere.

    An allocator hands a freed block out again, so a call that is repeated writes into the same pages every time, and shapes that
    are alike lie in unlike places for a whole measurement. What a place costs (presumably by the sets of the caches that its pages
    share with weights and inputs) then looks like a property of the shape: a step that is none (`benchmarks/reading.csv`). Inside a network an
    output lies where the heap has room. So before each reading a row of blocks of the output's size is held and one of them,
    drawn at random, is freed: the hole between its neighbours is what fits best, for the untimed call and the timed one alike.
    In about half of all processes earlier rows have left a hole elsewhere that fits better still; a probe shows, and plugs it. (Curtsinger & Berger, "Stabilizer", ASPLOS 2013, randomise layouts for the same reason.)

    Memory that a network hands on was written by a layer or two before. So the place is written once: without, small layers took a tenth longer
    than inside their networks (`benchmarks/between-second-cpu.csv`, "output's place").

    >>> places = Places(torch.zeros(1000))
    >>> with places.another():
    ...     output = torch.zeros(1000)
    """

    def __init__(self, output: object, seed: int = 0) -> None:
        self._bytes = output.numel() * output.element_size() if isinstance(output, Tensor) else 0
        self.count = max(1, min(PLACES, MOST_BYTES // max(self._bytes, 1)))
        self._random = random.Random(seed)

    @contextlib.contextmanager
    def another(self, *, written: bool = True) -> Iterator[None]:
        """Meanwhile a new output lies in one of `count` places, drawn anew, and `written` just before."""
        if self.count == 1:
            yield
            return
        row = [torch.empty(self._bytes + SLACK, dtype=torch.uint8) for _ in range(self.count + 2)]
        hole = row.pop(self._random.randrange(1, self.count + 1)).data_ptr()
        plugs: list[Tensor] = []
        while len(plugs) < PLUGS:
            probe = torch.empty(self._bytes, dtype=torch.uint8)
            if abs(probe.data_ptr() - hole) <= SLACK:
                break
            plugs.append(probe)
        if written:
            probe.zero_()
        del probe
        yield
        del row, plugs
