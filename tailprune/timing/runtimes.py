"""How a module is run and clocked: one seam, one row per runtime. Times of different runtimes are never mixed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..core.errors import InvalidShape
from .between import other_work
from .compiled import compiled_call
from .cuda_clock import EventClock, GraphClock
from .host_clock import HostClock
from .l2_flush import L2Flush
from .onnx_session import load_onnxruntime, onnx_call
from .random_data import RandomBank
from .readings import Call, Clock, Prepared

#: Default first. An imported table is measured elsewhere, and has no runtime here.
RUNTIMES = {"cpu": ("eager", "compile", "onnxruntime"), "cuda": ("cuda-graph", "eager", "compile")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What turns a module and its inputs into readings: `deploy` makes the call, `clock` reads it. Runs inside `machine.pinned`."""

    name: str
    l2: str
    deploy: Callable[[nn.Module, tuple[Tensor, ...]], Call]
    clock: Clock
    version: str = ""

    @property
    def copies(self) -> int:
        """How many times a module's weights are held while it is timed."""
        return 2 if self.clock.wants_spare else 1

    def prepare(self, module: nn.Module, inputs: tuple[Tensor, ...], *, whole: bool = False) -> Prepared:
        """`whole`: a network, whose pass may be longer than a calm spell. Where it can be listened to inside, it stays so: give a copy."""
        spare = self.deploy(copy.deepcopy(module), inputs) if self.clock.wants_spare else None
        call = self.deploy(module, inputs)
        if whole and self.name == "eager" and isinstance(self.clock, HostClock):
            call()
            start = time.perf_counter_ns()
            call()
            self.clock.interludes.listen_in(module, (time.perf_counter_ns() - start) / 1e3)
        return self.clock.prepare(call, inputs, spare)


def eager_call(module: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    return lambda: module(*inputs)


def choose_runtime(
    device: torch.device, name: str | None, l2: str, *, threads: int = 1, bank: RandomBank | None = None
) -> Runtime:
    """The runtime of that name on the device (None: its default) in the cache state `l2`; InvalidShape for what is not timed.

    On a CPU `l2` is "warm" or the MiB of other work between two calls, for which it takes a `bank`; on CUDA "warm" or "cold".
    """
    known = RUNTIMES[device.type]
    name = name or known[0]
    if name not in known:
        raise InvalidShape(f"Unknown runtime {name!r}; allowed on {device.type}: {', '.join(known)}.")
    clock: Clock
    if device.type == "cpu":
        clock = HostClock(other_work(l2, bank or RandomBank(device)))
    else:
        if l2 not in ("warm", "cold"):
            raise InvalidShape(f"Unknown l2 {l2!r}; allowed on CUDA: warm, cold.")
        flush = L2Flush(device) if l2 == "cold" else None
        clock = (GraphClock if name == "cuda-graph" else EventClock)(device, flush)
    if name == "onnxruntime":
        version = load_onnxruntime().__version__
        return Runtime(name=name, l2=l2, deploy=partial(onnx_call, threads=threads), clock=clock, version=version)
    return Runtime(name=name, l2=l2, deploy=compiled_call if name == "compile" else eager_call, clock=clock)
