"""A pass through a network is longer than most calm spells: a canary listens inside it, too."""

from __future__ import annotations

import time

from torch import nn

from .canary import Canary

#: Between two songs inside a pass. Slow spells last for parts of a millisecond and longer (`canary`); a song takes 14 us.
EVERY_US = 500.0


class Interludes:
    """Songs of a canary between the modules of a network while it is timed; what they take is not the network's time.

    Without modules (`listen_in`) it hears nothing. `begin` before a pass; after it `slow` says whether any song was, `sung_us` what to
    take off. Songs leave the small caches to the canary's 48 KiB.

    >>> import torch
    >>> interludes, net = Interludes(Canary(), every_us=0), nn.Sequential(nn.ReLU(), nn.ReLU())
    >>> interludes.listen_in(net)
    >>> interludes.begin(); _ = net(torch.zeros(8)); interludes.sung_us > 0
    True
    """

    def __init__(self, canary: Canary, every_us: float = EVERY_US) -> None:
        self.canary = canary
        self.every_ns = every_us * 1e3
        self.begin()

    def listen_in(self, network: nn.Module) -> None:
        """From now on listen before the leaf modules of this network, which keeps the hooks: give it a copy."""
        for module in network.modules():
            if next(module.children(), None) is None:
                module.register_forward_pre_hook(self._before)

    def begin(self) -> None:
        self.slow = False
        self.sung_us = 0.0
        self._last_ns = time.perf_counter_ns()

    def _before(self, _module: nn.Module, _inputs: object) -> None:
        start = time.perf_counter_ns()
        if start - self._last_ns >= self.every_ns:
            self.slow = self.canary.is_slow() or self.slow
            self._last_ns = time.perf_counter_ns()
            self.sung_us += (self._last_ns - start) / 1e3
