"""What a forward pass really does: each tensor operation with its module, its operands' producers and its geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .twin import Inputs, running

#: What a deployed block calls an operation (core.shapes.OPS and EPILOGUE_OPS) -> what PyTorch calls it.
_FUNCTIONS = {
    "conv": "conv1d conv2d conv3d",
    "conv_transpose": "conv_transpose1d conv_transpose2d conv_transpose3d",
    "linear": "linear",
    "attention": "multi_head_attention_forward",
    "product": "matmul __matmul__ __rmatmul__ mm bmm addmm baddbmm einsum bilinear scaled_dot_product_attention lstm gru rnn_tanh",
    "max_pool": "max_pool1d max_pool2d adaptive_max_pool1d adaptive_max_pool2d",
    "avg_pool": "avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d mean",
    "add": "add __add__ __radd__ __iadd__ sub __sub__ __rsub__ __isub__",
    "mul": "mul __mul__ __rmul__ __imul__ div __truediv__ __rtruediv__ __itruediv__",
    "cat": "cat concat concatenate stack",
    "copy": "clone contiguous",
    "softmax": "softmax log_softmax",
    "group_norm": "group_norm instance_norm",
    "relu6": "relu6 hardtanh clamp clip clamp_min clamp_max",  # one kernel; nn.ReLU6 calls hardtanh
    "leaky_relu": "leaky_relu prelu rrelu",
    "elu": "elu selu celu",
    **{n: n for n in ("relu", "silu", "gelu", "mish", "hardswish", "hardsigmoid", "sigmoid", "tanh",
                      "batch_norm", "layer_norm", "local_response_norm")},
}  # fmt: skip
KINDS = {function: kind for kind, functions in _FUNCTIONS.items() for function in functions.split()}
#: Kinds that carry multiply-adds; nothing of the sort may get lost.
PRODUCTS = ("conv", "conv_transpose", "linear", "attention", "product")
#: The arguments that geometry needs, in the order in which PyTorch's functions take them after the tensor itself.
_SIGNATURES = {
    "conv": ("weight", "bias", "stride", "padding", "dilation", "groups"),
    "linear": ("weight", "bias"),
    "attention": ("key", "value", "embed_dim", "num_heads", "weight", "bias"),
    "max_pool": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "avg_pool": ("kernel_size", "stride", "padding", "ceil_mode"),
    "cat": ("dim",),
}
INPUT = -1


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor that an operation reads, and which operation wrote it: INPUT for the network's, None for a weight."""

    writer: int | None
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call. `module` owns the weight it uses, else it is the innermost that was running; `label` is for people."""

    kind: str
    function: str
    module: str
    label: str
    operands: tuple[Operand, ...]
    out_shape: tuple[int, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recording:
    operations: tuple[Operation, ...]
    called: frozenset[str]  # modules that ran, or whose weights an operation used
    out_shapes: tuple[tuple[int, ...], ...]


class Interrupted(Exception):
    """The forward pass raised `error` while `module` was running."""

    def __init__(self, error: Exception, module: str) -> None:
        super().__init__(str(error))
        self.error, self.module = error, module


def record(twin: nn.Module, inputs: Inputs) -> Recording:
    """Run the twin once and write down what ran, in order. Views are looked through; copies are operations."""
    recorder = _Recorder(twin, inputs)
    with running(twin), _following(twin, recorder), recorder:
        try:
            outputs = twin(*inputs)
        except Exception as error:
            raise Interrupted(error, recorder.running[-1]) from error
    return Recording(
        operations=tuple(recorder.operations),
        called=frozenset(recorder.called),
        out_shapes=tuple(tuple(tensor.shape) for tensor in _tensors(outputs)),
    )


class _Recorder(TorchFunctionMode):
    def __init__(self, twin: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.called: set[str] = set()
        self.running = [""]
        self._leaves = {name for name, module in twin.named_modules() if not any(True for _ in module.children())}
        self._owners: dict[int, list[str]] = {}
        for name, module in twin.named_modules():
            for parameter in module._parameters.values():
                self._owners.setdefault(id(parameter), []).append(name)
        self._writer: dict[int, int | None] = {id(tensor): INPUT for tensor in _tensors(inputs)}
        self._alive: list[torch.Tensor] = []  # an id means something only while its tensor lives

    def __torch_function__(self, func: Callable, types: Any, args: Sequence = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = list(_tensors((args, kwargs)))
        operands = tuple(Operand(writer=self._writer.get(id(t)), shape=tuple(t.shape)) for t in read)
        versions = [tensor._version for tensor in read]
        result = func(*args, **kwargs)
        written = list(_tensors(result))
        if not read or not written:
            return result
        name = getattr(func, "__name__", "")
        kind = KINDS.get(name if name.startswith("__") else name.rstrip("_"), "other")
        if any(operand.writer is not None for operand in operands) or kind in PRODUCTS:
            storages = {tensor.untyped_storage()._cdata for tensor in read}
            fresh = any(tensor.untyped_storage()._cdata not in storages for tensor in written)
            in_place = any(tensor._version > version for tensor, version in zip(read, versions, strict=True))
            if fresh or in_place or kind not in ("other", "copy"):  # a view does no work
                self._note(kind, name, read, operands, written, _named(kind, name, args, kwargs))
                self._writer.update({id(tensor): len(self.operations) - 1 for tensor in written})
            else:
                seen = next(operand.writer for operand in operands if operand.writer is not None)
                for tensor in written:
                    self._writer.setdefault(id(tensor), seen)
        self._alive += [*read, *written]
        return result

    def _note(
        self, kind: str, name: str, read: list[torch.Tensor], operands: tuple[Operand, ...],
        written: list[torch.Tensor], arguments: Mapping[str, Any],
    ) -> None:  # fmt: skip
        owners = [owner for tensor in read for owner in self._owners.get(id(tensor), ())]
        innermost = self.running[-1]
        module = innermost if innermost in owners or not owners else owners[0]
        self.called.update(owners)
        whole = module in self._leaves or kind in ("conv", "linear", "attention")
        label = module if whole and module else ".".join(filter(None, (module, name.strip("_"))))
        self.operations.append(
            Operation(kind=kind, function=name, module=module, label=label, operands=operands,
                      out_shape=tuple(written[0].shape), arguments=arguments)
        )  # fmt: skip


@contextmanager
def _following(twin: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Tell the recorder which module is running."""
    handles = []
    for name, module in twin.named_modules():

        def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
            recorder.running.append(name)
            recorder.called.add(name)

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            recorder.running.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named(kind: str, name: str, args: Sequence, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name; a tensor is told by its presence alone."""
    names = (
        ("dim", "keepdim")
        if name == "mean"
        else ("output_size",)
        if name.startswith("adaptive")
        else _SIGNATURES.get(kind, ())
    )
    named = {**dict(zip(names, args[1:], strict=False)), **{n: kwargs[n] for n in names if n in kwargs}}
    return {n: value is not None if isinstance(value, torch.Tensor | None) else value for n, value in named.items()}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
