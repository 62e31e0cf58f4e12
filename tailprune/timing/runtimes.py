"""How a module is run and clocked: one seam, one class per runtime. Times of different runtimes are never mixed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..core.errors import InvalidShape
from .l2_flush import L2Flush
from .machine import preemptions

#: A reading shorter than this is made of several calls. On the host perf_counter_ns and the loop cost about 0.1 us
#: a reading; a CUDA event resolves 0.5 us (CUDA runtime API, cudaEventElapsedTime). Both stay below 0.5 %.
MIN_READING_US = {"cpu": 20.0, "cuda": 300.0}
MAX_CALLS = 1000
#: A reading during which the system took the core is taken again this often in all; a millisecond then nearly always
#: gets through between two other processes (Linux runs each for about 3 ms), a tenth of a second never does.
TAKES = 3
#: Calls before the first estimate of the duration: kernels are generated, chosen and loaded in the first one, and
#: CUDA graph capture asks for three on a side stream (PyTorch notes, "CUDA graphs").
WARMUPS = {"cpu": 1, "cuda": 3}


class Reading(NamedTuple):
    """Microseconds per call, and whether other work took the core meanwhile."""

    us: float
    disturbed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A module that is warm and ready: `read()` runs it once untimed, then timed."""

    read: Callable[[], Reading]
    warmups: int
    calls: int


class Runtime(Protocol):
    """What turns a module and its inputs into readings. Runs inside `machine.pinned`."""

    @property
    def name(self) -> str: ...

    def prepare(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Prepared: ...


def calls_per_reading(call_us: float, device_type: str) -> int:
    return max(1, min(MAX_CALLS, math.ceil(MIN_READING_US[device_type] / max(call_us, 1e-3))))


class HostEager:
    """Eager PyTorch on the CPU, by the host's monotonic clock.

    `between` runs behind the untimed call and before the timed one: with other layers there, a layer finds its code,
    weights and output memory about as cold as inside its network.
    """

    name = "eager"

    def __init__(self, between: Callable[[], None] = lambda: None) -> None:
        self.between = between

    def prepare(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Prepared:
        def timed(calls: int) -> float:
            start = time.perf_counter_ns()
            for _ in range(calls):
                module(*inputs)
            return (time.perf_counter_ns() - start) / 1e3 / calls

        for _ in range(WARMUPS["cpu"]):
            module(*inputs)
        calls = calls_per_reading(timed(1), "cpu")

        def read() -> Reading:
            for _ in range(TAKES):
                module(*inputs)  # refills oneDNN's primitive cache
                self.between()
                before = preemptions()
                us = timed(calls)
                disturbed = preemptions() > before
                if not disturbed:
                    break
            return Reading(us, disturbed)

        return Prepared(read=read, warmups=WARMUPS["cpu"] + 1, calls=calls)


class CudaEager:
    """Eager PyTorch on CUDA between two events: launch gaps are in, where the host is slower than the device."""

    name = "eager"

    def __init__(self, device: torch.device, flush: L2Flush | None = None) -> None:
        self.device, self.flush = device, flush

    def prepare(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Prepared:
        def call() -> None:
            module(*inputs)

        for _ in range(WARMUPS["cuda"]):
            call()
        once = between_events(call, self.device)
        calls = calls_per_reading(once, "cuda")
        timed = event_reader(call, calls, self.device, self.flush)
        return Prepared(read=lambda: Reading(timed()), warmups=WARMUPS["cuda"] + 1, calls=calls)


class CudaGraph:
    """A captured CUDA graph of as many calls as a reading needs, replayed between two events: launch gaps are out."""

    name = "cuda-graph"

    def __init__(self, device: torch.device, flush: L2Flush | None = None) -> None:
        self.device, self.flush = device, flush
        self._stream = torch.cuda.Stream(device)
        #: Shared: a replay leaves nothing that another one reads, so all graphs may use the same activations' memory.
        self._pool = torch.cuda.graph_pool_handle()

    def prepare(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Prepared:
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARMUPS["cuda"]):
                module(*inputs)
            once = between_events(lambda: module(*inputs), self.device)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        calls = calls_per_reading(once, "cuda")
        in_graph = 1 if self.flush else calls  # a cold call needs a flush before each
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            for _ in range(in_graph):
                module(*inputs)
        replay = event_reader(graph.replay, calls if self.flush else 1, self.device, self.flush)
        return Prepared(read=lambda: Reading(replay() / in_graph), warmups=WARMUPS["cuda"] + 1, calls=calls)


def between_events(work: Callable[[], object], device: torch.device) -> float:
    """Microseconds from an event before `work` to one behind it, on the current stream."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record(torch.cuda.current_stream(device))
    work()
    end.record(torch.cuda.current_stream(device))
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def event_reader(
    work: Callable[[], object], calls: int, device: torch.device, flush: L2Flush | None
) -> Callable[[], float]:
    """One untimed call, then `calls` timed ones: back to back when warm, each behind its own flush when cold."""

    def warm() -> float:
        work()

        def repeat() -> None:
            for _ in range(calls):
                work()

        return between_events(repeat, device) / calls

    def cold() -> float:
        assert flush is not None
        work()
        pairs = []
        for _ in range(calls):
            flush()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            work()
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize(device)
        return sum(start.elapsed_time(end) for start, end in pairs) * 1e3 / calls

    return cold if flush else warm


def choose_runtime(
    device: torch.device, runtime: str | None, l2: str, *, between: Callable[[], None] = lambda: None
) -> Runtime:
    """The runtime of that name on the device (None: graphs on CUDA, eager on a CPU); InvalidShape for what is not measured."""
    runtime = runtime or ("cuda-graph" if device.type == "cuda" else "eager")
    if l2 not in ("warm", "cold"):
        raise InvalidShape(f"Unknown l2 {l2!r}; allowed: warm, cold.")
    if device.type == "cpu":
        if runtime != "eager" or l2 != "warm":
            raise InvalidShape(f"A CPU is timed eager and warm, got runtime {runtime!r} and l2 {l2!r}.")
        return HostEager(between)
    flush = L2Flush(device) if l2 == "cold" else None
    if runtime == "cuda-graph":
        return CudaGraph(device, flush)
    if runtime == "eager":
        return CudaEager(device, flush)
    raise InvalidShape(f"Unknown runtime {runtime!r}; allowed on CUDA: cuda-graph, eager.")
