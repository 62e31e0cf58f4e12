"""tailprune: measure where a network's latency jumps with its channel counts, and prune onto those steps.

The names below are the whole public face. Names that need torch load on first use, so that planning from a table, and
`tailprune --help`, need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .core.device import DeviceSpec
from .core.environment import Environment
from .core.errors import (
    EnvironmentMismatch,
    FormatError,
    InvalidShape,
    MissingDependency,
    MissingLatency,
    NoPlan,
    PlanMismatch,
    TableError,
    TailpruneError,
    TraceError,
    UnstableMeasurement,
)
from .core.graph import ModelGraph
from .core.plan import Budget, WidthPlan
from .core.protocols import FirstOf
from .core.sample import LatencySample
from .core.scores import ChannelScores
from .core.shapes import LayerShape
from .filling import fill_table, measure_while
from .planning import (
    Frontier,
    SearchResult,
    WidthSpace,
    choose_host,
    edge_space,
    fixed_multiple,
    full_space,
    host_plan,
    plan_frontier,
    plan_growth,
    plan_widths,
    search_widths,
)
from .steps import LatencyCurve, Staircase, detect_steps, group_curve
from .survey import Diagnosis, Survey, diagnose, survey_utilization
from .tables import LatencyTable
from .waves import SimulatedTimer, WaveModel, known_devices, load_device

if TYPE_CHECKING:
    from .pruning import (
        TailAwarePruner,
        apply_plan,
        export_onnx,
        export_pt2,
        grow_model,
        growable_groups,
        host_from_masks,
        host_from_scores,
        host_from_widths,
        host_from_zeros,
        load_pruned,
        prune_model,
        save_pruned,
        score_channels,
        verify_pruned,
        widen_model,
    )
    from .timing import DeviceTimer, ModelTimings, measure_model
    from .tracing import fold_norms, read_widths, trace_model

__version__ = "0.1.0"

#: Torch-side names and the package each lives in.
_TORCH_SIDE = {
    "trace_model": "tracing",
    "fold_norms": "tracing",
    "read_widths": "tracing",
    "DeviceTimer": "timing",
    "ModelTimings": "timing",
    "measure_model": "timing",
    "TailAwarePruner": "pruning",
    "prune_model": "pruning",
    "host_from_widths": "pruning",
    "host_from_masks": "pruning",
    "host_from_zeros": "pruning",
    "host_from_scores": "pruning",
    "score_channels": "pruning",
    "apply_plan": "pruning",
    "verify_pruned": "pruning",
    "grow_model": "pruning",
    "growable_groups": "pruning",
    "widen_model": "pruning",
    "save_pruned": "pruning",
    "load_pruned": "pruning",
    "export_onnx": "pruning",
    "export_pt2": "pruning",
}

__all__ = [
    "Budget",
    "ChannelScores",
    "DeviceSpec",
    "DeviceTimer",
    "Diagnosis",
    "Environment",
    "EnvironmentMismatch",
    "FirstOf",
    "FormatError",
    "Frontier",
    "InvalidShape",
    "LatencyCurve",
    "LatencySample",
    "LatencyTable",
    "LayerShape",
    "MissingDependency",
    "MissingLatency",
    "ModelGraph",
    "ModelTimings",
    "NoPlan",
    "PlanMismatch",
    "SearchResult",
    "SimulatedTimer",
    "Staircase",
    "Survey",
    "TableError",
    "TailAwarePruner",
    "TailpruneError",
    "TraceError",
    "UnstableMeasurement",
    "WaveModel",
    "WidthPlan",
    "WidthSpace",
    "apply_plan",
    "choose_host",
    "detect_steps",
    "diagnose",
    "edge_space",
    "export_onnx",
    "export_pt2",
    "fill_table",
    "fixed_multiple",
    "fold_norms",
    "full_space",
    "group_curve",
    "grow_model",
    "growable_groups",
    "host_from_masks",
    "host_from_scores",
    "host_from_widths",
    "host_from_zeros",
    "host_plan",
    "known_devices",
    "load_device",
    "load_pruned",
    "measure_model",
    "measure_while",
    "plan_frontier",
    "plan_growth",
    "plan_widths",
    "prune_model",
    "read_widths",
    "save_pruned",
    "score_channels",
    "search_widths",
    "survey_utilization",
    "trace_model",
    "verify_pruned",
    "widen_model",
]


def __getattr__(name: str) -> Any:
    if name in _TORCH_SIDE:
        return getattr(import_module(f".{_TORCH_SIDE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
