"""Is the sum of a table's layers the network? The whole beside the sum, and each layer inside the network beside its entry."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.environment import Environment
from ..core.errors import InvalidShape
from ..core.graph import ModelGraph
from ..core.protocols import LatencySource
from ..core.sample import calm_times
from ..core.shapes import LayerShape
from .canary import Canary
from .device_timer import find_device
from .heap import holes_plugged
from .machine import pinned
from .whole_model import FEWEST, ModelTimings, measure_model

#: A sum of layers is taken for the network if it lies this close (on a CPU; docs/measuring.md).
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResidual:
    """One layer, with its epilogue: as the table says, and inside the network (until the next layer starts)."""

    name: str
    shape: LayerShape
    table_us: float
    inside_us: float

    @property
    def residual_us(self) -> float:
        return self.table_us - self.inside_us


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """The predicted sum beside the measured whole. `layers` is in the order of the graph.

    The network's time inside layers is read with a clock between them, so its sum exceeds `measured_us` a little;
    layers that are no module of their own (functional pools) count to the layer before them, and are not in `layers`.
    """

    predicted_us: float
    timings: ModelTimings
    layers: tuple[LayerResidual, ...]

    @property
    def measured_us(self) -> float:
        """Put together from the calm times of its parts, as the sum is from those of its layers."""
        return self.timings.undisturbed_us("model")

    @property
    def gap(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_us / self.measured_us - 1

    @property
    def holds(self) -> bool:
        return abs(self.gap) <= TOLERANCE

    def summary(self) -> str:
        low, high = self.timings.interval_us("model")
        word = "holds" if self.holds else "misses"
        return (
            f"the sum of layers {word}: {self.predicted_us:,.0f} us predicted, {self.measured_us:,.0f} us measured "
            f"(whole passes {low:,.0f} to {high:,.0f}), {self.gap:+.1%}"
        )


def check_model(
    latency: LatencySource,
    graph: ModelGraph,
    model: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    environment: Environment,
    *,
    device: str | torch.device = "cpu",
    rounds: int = 20,
) -> ModelCheck:
    """Is the sum of `latency` over the layers of `graph` what `model` takes here, and which layers are off?

    `model` is the network as deployed (`fold_norms`), `graph` its trace at these inputs, `environment` that of the table or
    timer. Raises MissingLatency where a layer is unknown, InvalidShape where the runtime cannot be looked into: only
    eager ones are, others have no `layers`.

    >>> import tailprune
    >>> net, images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), torch.randn(1, 3, 16, 16)
    >>> graph, timer = tailprune.trace_model(net, images), tailprune.DeviceTimer("cpu", max_visits=6)
    >>> table = tailprune.LatencyTable.in_memory(timer.environment)
    >>> table.add_many(timer.time_many([layer.shape for layer in graph.layers]))
    >>> check = check_model(table, graph, net, images, timer.environment, rounds=6)
    >>> [layer.name for layer in check.layers], check.predicted_us > 0
    (['0', '2'], True)
    """
    predicted_us = sum(layer.calls * latency.latency_us(shape) for layer, shape in graph.shapes_at())
    timings = measure_model(
        {"model": model}, example_inputs, device=device, rounds=rounds, threads=environment.threads,
        runtime=environment.runtime, l2=environment.l2 if environment.l2 in ("warm", "cold") else "warm",
        tf32=environment.tf32, autotuning=environment.autotuning, memory_format=graph.memory_format,
    )  # fmt: skip
    inside = {}
    if environment.runtime in ("eager", "cuda-graph"):
        inside = inside_us(
            model, example_inputs, graph, find_device(device), threads=environment.threads, rounds=rounds
        )
    layers = tuple(
        LayerResidual(name=layer.name, shape=shape, table_us=layer.calls * latency.latency_us(shape), inside_us=inside[layer.name])
        for layer, shape in graph.shapes_at()
        if layer.name in inside
    )  # fmt: skip
    return ModelCheck(predicted_us=predicted_us, timings=timings, layers=layers)


class Mark(NamedTuple):
    """A layer is about to start: when it was reached, when it was let go on, and whether the core was slow in between."""

    layer: str
    reached: Any
    left: Any
    slow: bool


def inside_us(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor], graph: ModelGraph, device: torch.device, *, threads: int, rounds: int
) -> dict[str, float]:  # fmt: skip
    """Per layer that is a module: the median calm time from its start to the next layer's start (or the end), over all its calls.

    On a CPU a canary sings between the layers, outside of their times, and rounds in which it was slow at either end of a layer
    are left out for that layer, as soon as there are enough others.
    """
    layout = torch.channels_last if graph.memory_format == "channels_last" else torch.contiguous_format
    twin = copy.deepcopy(model).eval().to(device=device).to(memory_format=layout)
    given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    inputs = [t.to(device).contiguous(memory_format=layout) if t.dim() == 4 else t.to(device) for t in given]
    names = {layer.name for layer in graph.layers}
    marks: list[Mark] = []
    mark, between_us = _marker(device)
    for name, module in twin.named_modules():
        if name in names:
            module.register_forward_pre_hook(lambda _module, _args, name=name: marks.append(mark(name)))
    if not any(name in names for name, _ in twin.named_modules()):
        raise InvalidShape(f"None of the layers of {graph.model} is a module of this model; trace this model first.")
    spent: dict[str, list[float]] = {}
    calm: dict[str, list[float]] = {}
    with pinned(threads=threads), holes_plugged():
        twin(*inputs)
        for _ in range(rounds):
            marks.clear()
            twin(*inputs)
            marks.append(mark(""))
            one: dict[str, float] = {}
            slow: set[str] = set()
            for start, end in pairwise(marks):
                one[start.layer] = one.get(start.layer, 0.0) + between_us(start.left, end.reached)
                slow |= {start.layer} if start.slow or end.slow else set()
            for name, us in one.items():
                spent.setdefault(name, []).append(us)
                if name not in slow:
                    calm.setdefault(name, []).append(us)
    heard = {name: calm[name] if len(calm.get(name, ())) >= FEWEST else times for name, times in spent.items()}
    return {name: median(calm_times(times)) for name, times in heard.items()}


def _marker(device: torch.device) -> tuple[Callable[[str], Mark], Callable[[Any, Any], float]]:
    """How to mark a moment on the device, and the microseconds between two."""
    if device.type == "cpu":
        canary = Canary()

        def listen(name: str) -> Mark:
            reached = time.perf_counter_ns()
            slow = canary.is_slow()
            return Mark(name, reached, time.perf_counter_ns(), slow)

        return listen, lambda start, end: (end - start) / 1e3

    def record(name: str) -> Mark:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return Mark(name, event, event, slow=False)

    def between_us(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    return record, between_us
