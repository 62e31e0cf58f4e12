"""`--whole`: the sum of a table's layers beside the whole network, and where they differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.graph import ModelGraph
from ..core.protocols import LayerTimer
from ..filling import measure_missing
from ..tables import LatencyTable
from .models import LoadedModel

if TYPE_CHECKING:
    from ..timing import ModelCheck

#: Layers shown, those furthest off first.
MOST_SHOWN = 10


def compare_whole(
    table: LatencyTable, timer: LayerTimer, model: LoadedModel, graph: ModelGraph, device: str, *, progress: Callable[[int, int, str], None]
) -> ModelCheck:  # fmt: skip
    """The network as deployed, at the batch, dtype and layout of its trace, against the table; what it lacks is timed first."""
    import torch

    from ..timing import check_model
    from ..timing.blocks import TORCH_DTYPES
    from ..tracing import fold_norms

    measure_missing(table, (shape for _, shape in graph.shapes_at()), timer, progress=progress)
    dtype = TORCH_DTYPES[graph.dtype]
    layout = torch.channels_last if graph.memory_format == "channels_last" else torch.contiguous_format
    images = model.example(batch=graph.input_shape[0]).to(dtype)
    if images.dim() == 4:
        images = images.contiguous(memory_format=layout)
    deployed = fold_norms(model.module, graph).to(dtype)
    return check_model(table, graph, deployed, images, timer.environment, device=device)


def print_whole(checked: ModelCheck) -> None:
    print(checked.summary())
    for layer in sorted(checked.layers, key=lambda layer: -abs(layer.residual_us))[:MOST_SHOWN]:
        print(f"  {layer.residual_us:+9,.1f} us  {layer.table_us:9,.1f} in the table, {layer.inside_us:9,.1f} inside  {layer.name}: {layer.shape}")  # fmt: skip


def whole_json(checked: ModelCheck) -> dict[str, Any]:
    return {
        "predicted_us": checked.predicted_us,
        "measured_us": checked.measured_us,
        "gap": checked.gap,
        "holds": checked.holds,
        "layers": [
            {
                "name": layer.name,
                "table_us": layer.table_us,
                "inside_us": layer.inside_us,
                "residual_us": layer.residual_us,
            }
            for layer in checked.layers
        ],
    }
