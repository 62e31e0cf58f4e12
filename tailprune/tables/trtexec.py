"""Layer timings that TensorRT's `trtexec` exported, as a latency table: for devices that PyTorch does not run on.

`--exportProfile` writes a list: {"count": iterations}, then one object a layer with its name and its `averageMs` (newer
versions `medianMs`, too). `--exportLayerInfo` with `--profilingVerbosity=detailed` writes the same layers with the ONNX nodes
in each and the sizes of its tensors. Source: NVIDIA TensorRT's developer guide, "Engine Inspector", and its samples'
`sampleReporting.cpp`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..core.environment import Environment
from ..core.errors import FormatError
from ..core.graph import Layer, ModelGraph
from ..core.sample import LatencySample
from .table import LatencyTable

#: ONNX nodes of a fused layer, inside its `Metadata`.
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
#: How the inspector words the element type of a tensor.
_DTYPE_WORDS = {"int8": "int8", "fp16": "float16", "half": "float16", "bf16": "bfloat16", "bfloat16": "bfloat16",
                "fp32": "float32", "float": "float32"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedLayer:
    """One row of a profile: a TensorRT layer, the nodes fused into it, and what the inspector says of it (maybe nothing)."""

    name: str
    us: float
    nodes: tuple[str, ...]
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecImport:
    """What of a profile became latencies. `unmatched`: (name of a TensorRT layer, why it has none), `missing`: layers of the
    network that the profile does not time alone."""

    table: LatencyTable
    matched: Mapping[str, tuple[str, ...]]
    unmatched: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    matched_us: float
    total_us: float

    def summary(self) -> str:
        return (
            f"{len(self.matched)} layers of the network timed, {self.matched_us:,.1f} of {self.total_us:,.1f} us; "
            f"{len(self.unmatched)} TensorRT layers match none, {len(self.missing)} layers of the network have no time"
        )


def import_trtexec(
    profile: str | os.PathLike[str],
    graph: ModelGraph,
    environment: Environment,
    *,
    layer_info: str | os.PathLike[str] | None = None,
) -> TrtexecImport:
    """What did TensorRT take for each layer of this network?

    A row belongs to a layer of `graph` if the ONNX nodes fused into it name that layer and no other ("/layer1/layer1.0/conv1/Conv +
    /layer1/layer1.0/relu/Relu" is layer1.0.conv1; "conv1 + relu1" is conv1), and the inspector's sizes and types, where
    given, are that layer's. Rows whose names say nothing match by sizes, if one shape only has them. A layer's latency is
    the sum of its rows, in microseconds. Batch, dtype and layout are those of `graph`: `graph.at_batch(1, dtype="int8")`.

    The table is in memory and dated as the file; `merge` brings it into another, twice what it brings once. FormatError, in one sentence, where a file is not what trtexec
    writes.

    >>> import tempfile, tailprune
    >>> from tailprune.core.graph import WidthExpr
    >>> shape = tailprune.LayerShape(op="conv", batch=1, in_channels=3, out_channels=8, in_hw=(8, 8), dtype="float16")
    >>> graph = ModelGraph(model="tiny", groups=(), input_shape=(1, 3, 8, 8), layers=(
    ...     Layer(name="conv1", shape=shape, in_expr=WidthExpr(constant=3), out_expr=WidthExpr(constant=8)),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "profile.json"
    ...     _ = path.write_text('[{"count": 100}, {"name": "conv1 + relu1", "averageMs": 0.025, "percentage": 100}]')
    ...     read = import_trtexec(path, graph, Environment(device="Tesla T4", runtime="imported"))
    >>> read.table.latency_us(shape), read.unmatched
    (25.0, ())
    """
    rows, count, statistic = read_profile(profile, read_layer_info(layer_info) if layer_info is not None else {})
    by_name = {layer.name: layer for layer in graph.layers}
    rows_of: dict[str, list[TimedLayer]] = {}
    unmatched: list[tuple[str, str]] = []
    for row in rows:
        found, reason = _layer_of(row, by_name, graph)
        if found is None:
            unmatched.append((row.name, reason))
        else:
            rows_of.setdefault(found.name, []).append(row)
    table = LatencyTable.in_memory(environment)
    taken = datetime.fromtimestamp(Path(profile).stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
    for name, own in rows_of.items():
        note = f"trtexec, {statistic} of {count} iterations, {' and '.join(row.name for row in own)}"
        us = sum(row.us for row in own) / by_name[name].calls
        table.add(LatencySample(shape=by_name[name].shape, times_us=(us,), utc=taken, note=note))
    return TrtexecImport(
        table=table,
        matched={name: tuple(row.name for row in own) for name, own in rows_of.items()},
        unmatched=tuple(unmatched),
        missing=tuple(layer.name for layer in graph.layers if layer.shape not in table),
        matched_us=sum(row.us for own in rows_of.values() for row in own),
        total_us=sum(row.us for row in rows),
    )


def read_profile(
    path: str | os.PathLike[str], details: Mapping[str, Mapping[str, Any]]
) -> tuple[list[TimedLayer], int, str]:
    """The layers of an exported profile, over how many iterations, and which statistic of them was kept."""
    body = _json(path)
    if not isinstance(body, list) or not body or not isinstance(body[0], dict) or "count" not in body[0]:
        raise FormatError(
            f'{path} is no trtexec profile: a list is expected that starts with {{"count": ...}}. '
            "Write one with `trtexec --exportProfile=FILE --separateProfileRun`."
        )
    count, entries = body[0]["count"], body[1:]
    if not isinstance(count, int) or count < 1 or not entries:
        raise FormatError(f"{path} holds no timings: {count!r} iterations of {len(entries)} layers. Profile again.")
    statistic = "medianMs" if all(isinstance(e, dict) and "medianMs" in e for e in entries) else "averageMs"
    rows = []
    for place, entry in enumerate(entries, 1):
        name, ms = (entry.get("name"), entry.get(statistic)) if isinstance(entry, dict) else (None, None)
        sound = isinstance(ms, (int, float)) and not isinstance(ms, bool) and math.isfinite(ms) and ms >= 0
        if not isinstance(name, str) or not sound:
            raise FormatError(
                f"{path}, layer {place}: a name and a {statistic} of at least 0 are expected, got {name!r} and {ms!r}. "
                "Profile again."
            )
        own = details.get(name, {})
        nodes = tuple(_ONNX_LAYER.findall(str(own.get("Metadata", "")))) or tuple(name.split(" + "))
        if ms:  # a layer that takes no time was optimised away
            rows.append(TimedLayer(name=name, us=1e3 * ms, nodes=nodes, details=own))
    return rows, count, statistic.removesuffix("Ms")


def read_layer_info(path: str | os.PathLike[str]) -> dict[str, Mapping[str, Any]]:
    """Name -> what the inspector says of that layer."""
    body = _json(path)
    layers = body.get("Layers") if isinstance(body, dict) else None
    if not isinstance(layers, list):
        raise FormatError(
            f'{path} is no trtexec layer information: an object with "Layers" is expected. '
            "Write it with `trtexec --exportLayerInfo=FILE --profilingVerbosity=detailed`."
        )
    return {layer["Name"]: layer for layer in layers if isinstance(layer, dict) and isinstance(layer.get("Name"), str)}


def _json(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:  # also bytes that are no UTF-8
        raise FormatError(f"{path} is not valid JSON ({error}); it may be truncated. Profile again.") from error


def _layer_of(row: TimedLayer, by_name: Mapping[str, Layer], graph: ModelGraph) -> tuple[Layer | None, str]:
    """The one layer a row belongs to, or why there is none."""
    named = dict.fromkeys(name for node in row.nodes for name in _module_names(node) if name in by_name)
    if len(named) > 1:
        return None, f"fuses several layers of the network ({', '.join(named)}), whose times cannot be told apart"
    if named:
        layer = by_name[next(iter(named))]
        wrong = next(_contradictions(row.details, layer), "")
        return (None, wrong) if wrong else (layer, "")
    if "Kernel" in row.details:
        alike = [layer for layer in graph.layers if not any(_contradictions(row.details, layer))]
        if alike and len({layer.shape for layer in alike}) == 1:
            return alike[0], ""
        return (
            None,
            "several shapes of the network have its sizes" if alike else "no layer of the network has its sizes",
        )
    return None, "names no layer of the network"


def _module_names(node: str) -> Iterator[str]:
    """What an ONNX node's name says of its module: itself, and for PyTorch's exporter ("/a/a.0/conv1/Conv") the path "a.0.conv1"."""
    yield node.strip()
    path: list[str] = []
    for part in node.strip().strip("/").split("/")[:-1]:
        if path and part.startswith(f"{path[-1]}."):  # a Sequential's children repeat its name
            path[-1] = part
        else:
            path.append(part)
    yield ".".join(path)


def _contradictions(details: Mapping[str, Any], layer: Layer) -> Iterator[str]:
    """Where the inspector's sizes and types are not the layer's; nothing where it says nothing."""
    shape = layer.shape
    maps = shape.op in ("conv", "max_pool", "avg_pool", "elementwise")
    said = {
        "input": (_tensor(details, "Inputs").get("Dimensions"), (shape.batch, shape.in_channels, *shape.in_hw)),
        "output": (_tensor(details, "Outputs").get("Dimensions"), (shape.batch, shape.out_channels, *shape.out_hw)),
        "kernel": (details.get("Kernel"), shape.kernel_hw),
        "stride": (details.get("Stride"), shape.stride_hw),
        "dilation": (details.get("Dilation"), shape.dilation_hw),
    }
    if shape.op == "conv":
        groups = details.get("Groups")
        said["groups"] = ([groups] if groups is not None else None, (shape.conv_groups,))
    for what, (theirs, ours) in said.items():
        if maps and isinstance(theirs, Sequence) and tuple(theirs) != ours:
            yield f"{what} is {_times(theirs)} in the profile and {_times(ours)} in {layer.name}"
    words = str(_tensor(details, "Inputs").get("Format/Datatype", "")).lower().replace(".", " ").split()
    dtype = next((_DTYPE_WORDS[word] for word in words if word in _DTYPE_WORDS), None)
    if dtype is not None and dtype != shape.dtype and (dtype, shape.dtype) != ("float32", "tf32"):
        yield f"runs in {dtype}, and {layer.name} was asked for in {shape.dtype}"


def _tensor(details: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    tensors = details.get(key)
    first = tensors[0] if isinstance(tensors, list) and tensors else {}
    return first if isinstance(first, dict) else {}


def _times(sizes: Sequence[object]) -> str:
    return "x".join(map(str, sizes))
