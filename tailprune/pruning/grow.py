"""From a model to a wider one that takes no longer, in one call; with the device at hand, as measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource, LayerTimer
from ..core.shapes import LayerShape
from ..filling import Progress, fill_table, measure_while
from ..filling.lacking import time_shapes
from ..planning import WIDEST, growth_scores, host_plan, plan_growth, widest_graph
from ..tables import LatencyTable
from ..timing import DeviceTimer
from ..tracing import trace_model
from .confirm import confirm_plan
from .prune import source_for
from .widen import growable_groups, widen_model

#: Visits of every layer that a plan of growth compares: the median of three outvotes one that other work disturbed.
VISITS = 3


def grow_model(
    model: nn.Module,
    example_inputs: Any,
    *,
    latency: LatencySource | None = None,
    timer: LayerTimer | None = None,
    budget: Budget | None = None,
    widest: float = WIDEST,
    every: int | None = None,
    seed: int = 0,
) -> tuple[nn.Module, WidthPlan]:
    """What does this model look like with every channel that its latency pays for already?

    Traces, plans growth (`plan_growth`) at no more latency than now, or within `budget` (`Budget.fraction(1.05)`: 5 % more), and
    returns a copy that computes the same (`widen_model`), with its plan; `model` is untouched. `latency` is any source, `timer`
    measures what a table lacks (alone: into a table of this process). With a `DeviceTimer` original and plan are measured end to
    end against each other as well, and a plan that does not keep its limit is tightened, down to the original's widths.

    Raises InvalidShape without latency and timer.

    >>> import torch
    >>> from tailprune.waves import WaveModel, load_device
    >>> net = nn.Sequential(nn.Conv2d(3, 30, 3), nn.ReLU(), nn.Conv2d(30, 4, 3)).eval()
    >>> images = torch.randn(64, 3, 16, 16)
    >>> wide, plan = grow_model(net, images, latency=WaveModel(load_device("h200")), budget=Budget.fraction(1.1))
    >>> wide[0].out_channels == plan.widths["0"] > 30, torch.allclose(net(images), wide(images), atol=1e-5)
    (True, True)
    """
    graph = trace_model(model, example_inputs)
    source, timer = source_for(latency, timer)
    plan, _ = confirmed_growth(model, graph, example_inputs, source, timer, budget=budget, widest=widest, every=every)
    return widen_model(model, plan, example_inputs, seed=seed), plan


def confirmed_growth(
    model: nn.Module,
    graph: ModelGraph,
    example_inputs: Any,
    latency: LatencySource,
    timer: LayerTimer | None,
    *,
    budget: Budget | None = None,
    widest: float = WIDEST,
    every: int | None = None,
    progress: Progress | None = None,
) -> tuple[WidthPlan, list[str]]:
    """The plan of `grow_model`, and a line for each measurement end to end.

    With a table and a timer, the lines above the original widths are filled first, and everything planning asks for is measured. What
    a plan gains is a difference between its layers and the original's, and an optimiser finds the layer that was timed too slow
    in the original: both are timed side by side until each was visited VISITS times, and planned again.
    """
    growable = growable_groups(model, example_inputs)
    if isinstance(latency, LatencyTable) and timer is not None:
        wide = widest_graph(graph, growable=growable, widest=widest)
        fill_table(latency, wide, timer, widths=graph.widths, groups=growable, progress=progress)

    def decide(within: Budget | None) -> WidthPlan:
        def plan() -> WidthPlan:
            return plan_growth(graph, latency, growable=growable, budget=within, widest=widest, every=every)

        if not isinstance(latency, LatencyTable) or timer is None:
            return plan()
        while True:
            found = measure_while(latency, timer, plan, progress=progress)
            compared = {shape for widths in (graph.widths, found.widths) for _, shape in graph.shapes_at(widths)}
            if not _timed_again(latency, compared, timer, progress):
                return found

    plan = decide(budget)
    if not isinstance(timer, DeviceTimer):
        return plan, []
    original = host_plan(graph, growth_scores(graph), latency)
    return confirm_plan(model, graph, plan, original, decide, timer, example_inputs)


def _timed_again(
    table: LatencyTable, shapes: Iterable[LayerShape], timer: LayerTimer, progress: Progress | None
) -> bool:
    """Whether any of these shapes had been visited too seldom; they were once more now, side by side."""
    again = [shape for shape in shapes if len(table.visits(shape)) < VISITS]
    time_shapes(table, again, timer, lambda done, shape: progress and progress(done, len(again), str(shape)))
    return bool(again)
