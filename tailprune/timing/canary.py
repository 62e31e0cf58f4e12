"""Whether the core runs at its usual speed just now: what no counter of a virtual machine tells."""

from __future__ import annotations

import time
from collections import deque

import torch

from ..core.sample import SLOW, usual_time
from .random_data import RandomBank

#: A product of two square matrices of this side: 7 us on one core with AVX-512, all of it in the core's own caches.
SIDE = 64
#: Its usual time is that of the last so many: a clock that sinks for good becomes usual.
REMEMBERED = 2000
#: How often the usual time is worked out anew, and how many times come before the first answer.
EVERY = 50
#: In trials calm spells came every few milliseconds on a busy host; a core that is slow for longer is not waited for.
PATIENCE_US = 3_000.0


class Canary:
    """A small fixed computation, timed beside every reading.

    Readings on a virtual machine are 15 % and more too long for milliseconds to seconds, and no counter that it can read says so:
    presumably another machine computes on the same core. A canary does say so. Its own work never changes, so that a time far
    above its usual one is the machine's doing. Call it in `machine.pinned`.

    >>> isinstance(Canary().is_slow(), bool)
    True
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=REMEMBERED)
        self._matrix = RandomBank("cpu").view((SIDE, SIDE), torch.float32)
        self._product = torch.empty(SIDE, SIDE)
        self._usual_us = 0.0
        self._asked = 0

    def sing(self) -> float:
        """Microseconds that its work takes now: the second of two products, as the first brings code and numbers into the caches."""
        torch.mm(self._matrix, self._matrix, out=self._product)
        start = time.perf_counter_ns()
        torch.mm(self._matrix, self._matrix, out=self._product)
        return (time.perf_counter_ns() - start) / 1e3

    def is_slow(self) -> bool:
        """Does the core take notably longer than usual right now?"""
        while len(self._times) < EVERY:
            self._times.append(self.sing())
        if self._asked % EVERY == 0:
            self._usual_us = usual_time(self._times)
        self._asked += 1
        us = self.sing()
        self._times.append(us)
        return us > SLOW * self._usual_us

    def wait(self) -> None:
        """Return as soon as the core is calm, or patience ends."""
        start = time.perf_counter_ns()
        slow = self.is_slow()
        while slow and (time.perf_counter_ns() - start) / 1e3 < PATIENCE_US:
            slow = self.sing() > SLOW * self._usual_us  # not remembered: a crowd of them would become usual
