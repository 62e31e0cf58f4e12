"""A module as onnxruntime runs it on the CPU: exported in memory, in a session with its own pinned threads."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidShape, MissingDependency
from .readings import Call

#: What `export_onnx` writes, too: read by onnxruntime since 1.13.
OPSET = 17


def load_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "The onnxruntime runtime needs onnxruntime; run `pip install tailprune[onnx]`."
        ) from error
    return onnxruntime


def onnx_call(module: nn.Module, inputs: tuple[Tensor, ...], threads: int) -> Call:
    """Export, load, bind inputs and outputs, so that a call copies nothing.

    ONNX has no layout: inputs are contiguous, and onnxruntime reorders them within the call where its kernels want
    that. What it does not run is an InvalidShape with its reason.
    """
    onnxruntime = load_onnxruntime()
    if any(tensor.dtype is torch.bfloat16 for tensor in inputs):
        raise InvalidShape("onnxruntime runs no bfloat16 layers on a CPU; use float32.")
    inputs = tuple(tensor.contiguous() for tensor in inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors reach us as exceptions
    try:
        session = onnxruntime.InferenceSession(_exported(module, inputs), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for held, tensor in zip(session.get_inputs(), inputs, strict=True):
            binding.bind_ortvalue_input(held.name, onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy()))
        for output in session.get_outputs():
            binding.bind_output(output.name, "cpu")
        session.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime's own exceptions have no common base but this
        reason = str(error).strip().partition("\n")[0]
        raise InvalidShape(f"onnxruntime does not run this: {reason}") from error
    return lambda: session.run_with_iobinding(binding)


def _exported(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's age; the other one needs seconds a layer
        path = Path(folder) / "block.onnx"
        torch.onnx.export(module, inputs, str(path), opset_version=OPSET, dynamo=False)
        return path.read_bytes()
