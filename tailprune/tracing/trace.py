"""A model as a planner sees it: layers, channel groups and width expressions, proved by a trial cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidShape, TraceError
from ..core.graph import ChannelGroup, ModelGraph
from ..core.shapes import DTYPES
from .coupling import CoupledChannels
from .dependency import ChannelDependency, build_graph
from .layers import Style, layers_of, merge_calls
from .record import Recording, record
from .trial import unfollowed
from .twin import Inputs, twin_of


def trace_model(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[Any, ...],
    *,
    name: str | None = None,
    dtype: str | None = None,
) -> ModelGraph:
    """What is in this model, and which width does each layer's cost depend on?

    `example_inputs` is what the forward pass takes: a tensor, or a tuple of arguments. Batch, image size and memory format
    of the layers are those of this call, their dtype is the model's, or `dtype` where it will run in another. The model is neither changed nor run: a twin on the meta device
    is, in evaluation mode (a copy with data where the forward pass depends on data).

    Every layer is a deployed block. Every width expression is proved before it is returned: one granule is cut from each
    prunable group of a twin, and all layers must have the channels that the expressions foretell. Groups that fail, and
    those of layers that cannot be described, stay in the graph as not prunable, with the reason. What does not run, or has
    no latency shape, is in `untraced`.

    Raises TraceError, in one sentence, where the model does not run on these inputs or Torch-Pruning cannot follow it.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> graph = trace_model(net, torch.zeros(1, 3, 8, 8), name="tiny")
    >>> [str(layer.shape) for layer in graph.layers]
    ['conv 3x3+bias+relu 3->8 at 8x8, batch 1, float32', 'conv 3x3+bias 8->4 at 6x6, batch 1, float32']
    >>> [(group.id, group.width, group.prunable) for group in graph.groups]
    [('0', 8, True), ('3', 4, False)]
    """
    twin, inputs = twin_of(model, example_inputs)
    style = Style(
        dtype=_known_dtype(dtype) if dtype else _dtype(model), memory_format=_memory_format(model, example_inputs)
    )
    recording = record(twin, inputs)
    dependency = ChannelDependency(twin, graph=build_graph(twin, inputs))
    if not dependency.groups:
        raise TraceError(
            f"{type(model).__name__} has no convolution or linear layer that runs; there is nothing to prune."
        )
    calls = layers_of(recording, dependency, style)
    layers = merge_calls(calls.layers)
    reasons = {group.id: _obstacle(group, calls.gaps) for group in dependency.groups}
    widths = {group.id: group.width for group in dependency.groups}
    sound = [group for group in dependency.groups if not reasons[group.id]]
    reasons |= unfollowed(twin, inputs, sound, calls.layers, widths, recording.out_shapes, style)
    idle = list(_idle(twin, recording))
    return ModelGraph(
        model=name or type(model).__name__,
        layers=layers,
        groups=tuple(_channel_group(group, reasons[group.id], {layer.name for layer in layers}) for group in dependency.groups),
        input_shape=next(tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor)),
        dtype=style.dtype,
        memory_format=style.memory_format,
        untraced=tuple([f"{module}: it does not run in evaluation mode" for module in idle]
                       + [f"{label}: {why}" for label, why in calls.gaps.items()]),
        warnings=tuple(_warnings(recording, twin, idle)),
    )  # fmt: skip


def _channel_group(group: CoupledChannels, reason: str, layers: set[str]) -> ChannelGroup:
    return ChannelGroup(
        id=group.id,
        width=group.width,
        granule=group.granule,
        min_width=group.min_width,
        producers=tuple(module for module in group.producers if module in layers),
        consumers=tuple(module for module in group.consumers if module in layers),
        prunable=not reason,
        reason=reason,
    )


def _obstacle(group: CoupledChannels, gaps: Mapping[str, str]) -> str:
    """Why the group cannot be pruned, as far as its members tell: a layer without a latency must keep its widths."""
    modules = (member.module for member in group.members)
    return group.reason or next((f"{module}: {gaps[module]}" for module in modules if module in gaps), "")


def _idle(twin: nn.Module, recording: Recording) -> Iterator[str]:
    """The outermost modules with weights of which nothing ran."""
    idle: list[str] = []
    for name, module in twin.named_modules():
        ran = name == "" or any(called == name or called.startswith(f"{name}.") for called in recording.called)
        if (
            not ran
            and not any(name.startswith(f"{outer}.") for outer in idle)
            and any(True for _ in module.parameters())
        ):
            idle.append(name)
            yield name


def _warnings(recording: Recording, twin: nn.Module, idle: list[str]) -> Iterator[str]:
    copies = sorted({operation.function for operation in recording.operations if operation.kind == "other"})
    if copies:
        yield f"Counted as copies, since nothing closer is timed: {', '.join(copies)}."
    if not all(parameter.is_meta for parameter in twin.parameters()):
        yield "The forward pass reads values: the trace holds for data like these example inputs."
    if idle:
        yield (
            f"{', '.join(idle)} keeps its widths, since it does not run in evaluation mode: after pruning what feeds it, it "
            "cannot run in training mode either. Switch it off before fine-tuning."
        )


def _known_dtype(name: str) -> str:
    if name not in DTYPES:
        raise InvalidShape(f"Unknown dtype {name!r}; allowed: {', '.join(DTYPES)}.")
    return name


def _dtype(model: nn.Module) -> str:
    found = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    name = str(found).removeprefix("torch.")
    if name not in DTYPES:
        raise TraceError(
            f"Layers of {name} cannot be timed, only those of {', '.join(DTYPES)}; convert model and inputs first, with .float()."
        )
    return name


def _memory_format(model: nn.Module, example_inputs: Any) -> str:
    inputs: Inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    images = (
        tensor for tensor in (*inputs, *model.parameters()) if isinstance(tensor, torch.Tensor) and tensor.dim() == 4
    )
    channels_last = torch.channels_last
    strided = any(t.is_contiguous(memory_format=channels_last) and not t.is_contiguous() for t in images)
    return "channels_last" if strided else "contiguous"
