"""A stand-in for the user's model that may be run, switched and cut, so that the model itself never is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..core.errors import TraceError
from .masks import settle_masks

Inputs = tuple[Any, ...]


def twin_of(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Inputs]:
    """A copy of the model and of its inputs in evaluation mode, without hooks or masks, every parameter requiring a gradient.

    The copy lives on PyTorch's meta device, where a forward pass computes shapes and nothing else: the geometry of any
    batch costs milliseconds and no memory. A model whose forward reads values (control flow that depends on data) cannot
    run there; it is copied with its data instead, so that what is traced is what these inputs make it run.

    Raises TraceError, in one sentence, where the model does not run on these inputs at all.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    _check(model, inputs)
    twin, twin_inputs = _copy(model, inputs, meta=True)
    try:
        with running(twin):
            twin(*twin_inputs)
        return twin, twin_inputs
    except Exception:  # whatever a meta tensor cannot do: the run below decides whether the model itself is at fault
        twin, twin_inputs = _copy(model, inputs, meta=False)
    try:
        with running(twin):
            twin(*twin_inputs)
    except Exception as error:
        raise TraceError(
            f"{type(model).__name__} does not run on the example inputs {describe(inputs)}: {one_line(error)}. "
            "Pass inputs of the shape and device that its forward takes."
        ) from None
    return twin, twin_inputs


def duplicate(twin: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """Another twin of the same kind, to be cut without harm to the first."""
    return _copy(twin, inputs, meta=all(parameter.is_meta for parameter in twin.parameters()))


@contextmanager
def running(twin: nn.Module) -> Iterator[None]:
    """Autograd on, whatever the caller switched off; new tensors appear where the twin lives."""
    device = next((p.device for p in twin.parameters()), torch.device("cpu"))
    with ExitStack() as switches:
        for switch in (torch.inference_mode(False), torch.enable_grad(), device):
            switches.enter_context(switch)
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                switches.enter_context(torch.autocast(kind, enabled=False))
        yield


def describe(inputs: Inputs) -> str:
    return ", ".join(str(tuple(x.shape)) if isinstance(x, torch.Tensor) else type(x).__name__ for x in inputs)


def one_line(error: BaseException) -> str:
    """The first line of an error's text, short enough to stand inside a sentence."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    return text[:200].rstrip(".!: ")


def _check(model: nn.Module, inputs: Inputs) -> None:
    if not isinstance(model, nn.Module):
        raise TraceError(f"Only a torch.nn.Module can be traced, got {type(model).__name__}.")
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            "A scripted model cannot be traced: its layers cannot be changed. Pass the model it was made of."
        )
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    if not tensors:
        raise TraceError(
            f"The example inputs must be a tensor or a tuple with a tensor in it, got {describe(inputs) or 'none'}."
        )
    held = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())}
    given = {str(x.device) for x in tensors}
    if len(held | given) > 1:
        where = f"The model lies on {' and '.join(sorted(held))}, the example inputs on {' and '.join(sorted(given))}"
        raise TraceError(f"{where}; move them to one device, such as inputs.to({min(held or given)!r}).")
    for name, module in model.named_modules():
        if tool := _reparametrised(module):
            raise TraceError(
                f"Layer {name or type(module).__name__} computes its weight anew in each forward pass ({tool}), so its channels "
                f"cannot be taken out; make the weight an ordinary parameter first, with torch.nn.utils.{REMOVERS[tool]}."
            )


#: Reparametrisations by which PyTorch computes a weight -> what undoes them, keeping the weight as it is.
REMOVERS = {
    "weight_norm": "remove_weight_norm",
    "spectral_norm": "remove_spectral_norm",
    "parametrize": "parametrize.remove_parametrizations",
}


def _reparametrised(module: nn.Module) -> str:
    """The name of what computes a weight of this module; masks of `torch.nn.utils.prune` are settled, not refused."""
    if parametrize.is_parametrized(module):
        return "parametrize"
    hooks = {type(hook) for hook in module._forward_pre_hooks.values()}
    return "weight_norm" if WeightNorm in hooks else "spectral_norm" if SpectralNorm in hooks else ""


def _copy(model: nn.Module, inputs: Inputs, *, meta: bool) -> tuple[nn.Module, Inputs]:
    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        if meta:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return tensor.detach().clone()

    memo: dict[int, Any] = {}
    with torch.inference_mode(False):
        for module in model.modules():
            held = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
            for tensor in held:
                if isinstance(tensor, nn.Parameter):
                    trainable = tensor.is_floating_point() or tensor.is_complex()
                    memo[id(tensor)] = nn.Parameter(stand_in(tensor), requires_grad=trainable)
                elif isinstance(tensor, torch.Tensor):
                    memo[id(tensor)] = stand_in(tensor)
        twin_inputs = tuple(stand_in(x) if isinstance(x, torch.Tensor) else copy.deepcopy(x) for x in inputs)
        try:
            twin = copy.deepcopy(model, memo)
        except Exception as error:
            raise TraceError(f"{type(model).__name__} cannot be copied for tracing: {one_line(error)}.") from None
    settle_masks(twin)
    for module in twin.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    return twin.eval(), twin_inputs
