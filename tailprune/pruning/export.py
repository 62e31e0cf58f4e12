"""Handing a pruned network to another runtime."""

from __future__ import annotations

import copy
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.artifact import write_bytes_atomically
from ..core.errors import MissingDependency, TailpruneError

#: ONNX operator set written: covers every layer of torchvision's CNNs, and read by onnxruntime since 1.13, TensorRT since 8.6.
OPSET = 17
#: Largest difference allowed between PyTorch and the exported network, relative to max(1, largest output), float32.
TOLERANCE = 1e-4


def export_onnx(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[Any, ...],
    path: str | os.PathLike[str],
    *,
    check: bool = True,
) -> float | None:
    """Write `model` as ONNX (operator set 17, batch size free) and compare it with PyTorch in onnxruntime on the CPU.

    Returns the largest difference of outputs over max(1, largest output), at most 1e-4, or None with `check=False`. The
    file appears only after the check has passed; the model is untouched.

    Raises MissingDependency without onnx (or, when checking, onnxruntime); TailpruneError where the export fails or differs.
    """
    _need("onnx")
    runtime = _need("onnxruntime") if check else None
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    net = copy.deepcopy(model).cpu().float().eval()
    images = tuple(
        x.detach().cpu().float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs
    )
    names = [f"input{i}" if i else "input" for i in range(len(images))]
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.onnx"
        try:
            with torch.no_grad():
                torch.onnx.export(
                    net, images, str(draft), input_names=names, opset_version=OPSET, dynamo=False,
                    dynamic_axes={name: {0: "batch"} for name in names},
                )  # fmt: skip
        except Exception as error:
            raise TailpruneError(
                f"PyTorch cannot export {type(model).__name__} to ONNX: {_first_line(error)}."
            ) from error
        difference = None if runtime is None else _difference(runtime, net, images, names, draft)
        if difference is not None and not difference <= TOLERANCE:
            raise TailpruneError(
                f"The ONNX export of {type(model).__name__} differs from PyTorch by {difference:.1e}; at most {TOLERANCE} is allowed. "
                "Nothing was written."
            )
        write_bytes_atomically(path, draft.read_bytes())
    return difference


def export_pt2(model: nn.Module, example_inputs: torch.Tensor | tuple[Any, ...], path: str | os.PathLike[str]) -> None:
    """Write `model` as a `torch.export` program (.pt2), for these input shapes. Raises TailpruneError where it cannot be exported."""
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "model.pt2"
        try:
            torch.export.save(torch.export.export(copy.deepcopy(model).eval(), inputs), str(draft))
        except Exception as error:
            raise TailpruneError(f"torch.export cannot export {type(model).__name__}: {_first_line(error)}.") from error
        write_bytes_atomically(path, draft.read_bytes())


def _difference(runtime: Any, net: nn.Module, images: tuple[Any, ...], names: list[str], draft: Path) -> float:
    session = runtime.InferenceSession(str(draft), providers=["CPUExecutionProvider"])
    random = [
        torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) if x.is_floating_point() else x for x in images
    ]
    got = session.run(None, {name: x.numpy() for name, x in zip(names, random, strict=True)})
    with torch.no_grad():
        out = net(*random)
    tensors = [out] if isinstance(out, torch.Tensor) else list(out.values() if isinstance(out, dict) else out)
    pairs = [(t.double(), torch.from_numpy(g).double()) for t, g in zip(tensors, got, strict=True)]
    return max(float((a - b).abs().max()) / max(1.0, float(a.abs().max())) for a, b in pairs)


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f"ONNX export needs {name}, which is not installed. Run: pip install 'tailprune[onnx]'."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
