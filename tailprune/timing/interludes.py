"""A pass through a network is longer than most calm spells: a canary listens inside it, too."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import nn

from .canary import Canary

#: About so long between two songs inside a pass. Slow spells last for parts of a millisecond and longer (`canary`); a song takes 14 us.
EVERY_US = 500.0


class Interludes:
    """Songs of a canary between the modules of a network while it is timed; what they take is not the network's time.

    Before `listen_in` it hears nothing. `begin` before a pass and `end` behind it; then `slow` says whether any song was, `sung_us`
    what to take off, and `parts_us` how long the network took up to the first song, from each to the next and behind the last.
    Songs leave the small caches to the canary's 48 KiB.

    >>> import torch
    >>> interludes, net = Interludes(Canary()), nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())
    >>> interludes.listen_in(net, pass_us=1000)
    2
    >>> interludes.begin(); _ = net(torch.zeros(8)); interludes.end(); interludes.sung_us > 0, len(interludes.parts_us)
    (True, 3)
    """

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.begin()

    def listen_in(self, network: nn.Module, pass_us: float) -> int:
        """From now on listen in front of so many leaf modules of this network, evenly spread over a pass of this duration; how many.

        The network keeps them: give it a copy. Not by hooks, for which PyTorch calls a module on a slower path: `forward` is wrapped.
        """
        leaves = [module for module in network.modules() if next(module.children(), None) is None]
        songs = min(len(leaves), int(pass_us / EVERY_US))
        for song in range(songs):
            module = leaves[(2 * song + 1) * len(leaves) // (2 * songs)]
            module.forward = self._behind_a_song(module.forward)
        return songs

    def begin(self) -> None:
        self.slow = False
        self.sung_us = 0.0
        self.parts_us: list[float] = []
        self._since = time.perf_counter_ns()

    def end(self) -> None:
        self._part(time.perf_counter_ns())

    def _part(self, now: int) -> None:
        self.parts_us.append((now - self._since) / 1e3)

    def _behind_a_song(self, forward: Callable[..., object]) -> Callable[..., object]:
        def sing_first(*args: object, **kwargs: object) -> object:
            start = time.perf_counter_ns()
            self._part(start)
            self.slow = self.canary.is_slow() or self.slow
            self._since = time.perf_counter_ns()
            self.sung_us += (self._since - start) / 1e3
            return forward(*args, **kwargs)

        return sing_first
