"""CUDA's clock: two events around a captured graph of enough calls (launch gaps out), or around plain calls (in)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .l2_flush import L2Flush
from .readings import Call, Prepared, Reading, calls_per_reading

#: A CUDA event resolves 0.5 us (CUDA runtime API, cudaEventElapsedTime), which is then below 0.2 %.
MIN_READING_US = 300.0
#: Kernels are chosen and loaded in the first calls; graph capture asks for three on a side stream (PyTorch notes,
#: "CUDA graphs").
WARMUPS = 3


class EventClock:
    """Two events around plain calls: launch gaps are in, where the host is slower than the device."""

    wants_spare = False
    protocol = 1

    def __init__(self, device: torch.device, flush: L2Flush | None = None) -> None:
        self.device, self.flush = device, flush

    def prepare(self, call: Call, inputs: Sequence[Tensor], spare: Call | None = None) -> Prepared:
        for _ in range(WARMUPS):
            call()
        calls = calls_per_reading(between_events(call, self.device), MIN_READING_US)
        timed = event_reader(call, calls, self.device, self.flush)
        return Prepared(read=lambda: Reading(timed()), warmups=WARMUPS + 1, calls=calls)


class GraphClock:
    """A captured CUDA graph of as many calls as a reading needs, replayed between two events: launch gaps are out."""

    wants_spare = False
    protocol = 1

    def __init__(self, device: torch.device, flush: L2Flush | None = None) -> None:
        self.device, self.flush = device, flush
        self._stream = torch.cuda.Stream(device)
        #: Shared: a replay leaves nothing that another one reads, so all graphs may use the same activations' memory.
        self._pool = torch.cuda.graph_pool_handle()

    def prepare(self, call: Call, inputs: Sequence[Tensor], spare: Call | None = None) -> Prepared:
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARMUPS):
                call()
            once = between_events(call, self.device)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        calls = calls_per_reading(once, MIN_READING_US)
        in_graph = 1 if self.flush else calls  # a cold call needs a flush before each
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            for _ in range(in_graph):
                call()
        replay = event_reader(graph.replay, calls if self.flush else 1, self.device, self.flush)
        return Prepared(read=lambda: Reading(replay() / in_graph), warmups=WARMUPS + 1, calls=calls)


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
