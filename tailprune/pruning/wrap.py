"""An existing pruning pipeline, with one line changed: the host decides which channels, tailprune how many."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, overload

import torch
import torch_pruning as tp

from ..core.errors import InvalidShape, TraceError
from ..core.graph import ModelGraph
from ..core.plan import Budget, WidthPlan
from ..core.protocols import LatencySource, LayerTimer
from ..core.scores import ChannelScores
from ..filling import fill_table, measure_chosen, plan_shapes
from ..planning import Goal, Policy, host_plan, plan_widths
from ..tables import LatencyTable
from ..timing import DeviceTimer
from ..tracing import trace_model
from .confirm import confirm_plan
from .layout import layouts_kept
from .matching import Match, match_groups
from .prune import source_for
from .rehearsal import HostGroup, Rehearsal, rehearse


class TailAwarePruner:
    """Wraps any Torch-Pruning pruner: `step()` prunes `host.model` in place, on the right step edges.

    Each step is rehearsed once with the host (its ranking scopes, importance, ignored layers, ratios and iterative
    schedule apply as they are), planned against `latency` with both ends of every layer in view, and cut. With the
    default policy `snap` every group stays at the host's width or moves to one of the `reach` edges below and above;
    goal `faster` is the least latency at no less kept score, `better` the most kept score at no more than the host's
    latency. By the latency source, the plan is never slower than the host and never scores less.

    `latency` is any `LatencySource`; `timer` any `LayerTimer`. With a timer, shapes that a `LatencyTable` lacks are
    measured into it (without `latency`, into a table of this process). With a `DeviceTimer`, host
    and plan are measured end to end as well, and a plan that does not hold as measured is tightened, or dropped for the
    host's own widths.

    Batch, layout and image size planned for are those the host was built with, unless `example_inputs` says otherwise;
    `dtype` is what the pruned network will run in (a float32 pipeline's float16, say), by default the model's.
    Weights keep their memory format, which the host alone would lose (`layout.layouts_kept`).
    `round_to` of the host is ignored. Negative scores are raised by their scope's minimum; NaN is refused.

    `graph` and `scores` are what the last step was planned from, `plan` is its plan, `plans` one per step (what
    `save_pruned` takes), `report` one line per change and per group that the host or the plan left alone.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3))
    >>> host = tp.pruner.MagnitudePruner(net, torch.zeros(1, 3, 16, 16), tp.importance.GroupMagnitudeImportance(),
    ...                                  pruning_ratio=0.45, ignored_layers=[net[4]])
    >>> from tailprune.waves import WaveModel, load_device
    >>> pruner = TailAwarePruner(host, latency=WaveModel(load_device("h200")))
    >>> pruner.step()
    >>> pruner.plan.widths["0"] == net[0].out_channels, pruner.plan.predicted_us <= pruner.plan.host_us
    (True, True)
    """

    def __init__(
        self,
        host: Any,
        latency: LatencySource | None = None,
        timer: LayerTimer | None = None,
        goal: Goal = "faster",
        reach: int = 1,
        policy: Policy = "snap",
        budget: Budget | None = None,
        *,
        example_inputs: Any = None,
        dtype: str | None = None,
    ) -> None:
        if not isinstance(host, tp.pruner.BasePruner):
            raise InvalidShape(
                f"TailAwarePruner wraps a Torch-Pruning pruner (tp.pruner.BasePruner), got {type(host).__name__}."
            )
        if host.isomorphic and not host.global_pruning:
            raise InvalidShape(
                "Torch-Pruning 1.6.1 ranks isomorphic groups globally only: with isomorphic=True alone it cuts one group by "
                "another's indices. Build the host with global_pruning=True as well."
            )
        self.host = host
        self.goal, self.reach, self.policy, self.budget = goal, reach, policy, budget
        self.example_inputs = images_of(host) if example_inputs is None else example_inputs
        self.dtype = dtype
        self.latency, self.timer = source_for(latency, timer)
        self.graph: ModelGraph | None = None
        self.scores: ChannelScores | None = None
        self.plan: WidthPlan | None = None
        self.plans: list[WidthPlan] = []
        self.report: list[str] = []

    @overload
    def step(self, interactive: Literal[False] = False) -> None: ...

    @overload
    def step(self, interactive: Literal[True]) -> Iterator[Any]: ...

    def step(self, interactive: bool = False) -> Iterator[Any] | None:
        """The host's next step, at planned widths. Interactive: a generator of groups to `.prune()`, as the host's.

        Planning is done when this returns. If anything fails before the first cut, the host is as before the call.
        """
        rehearsal = rehearse(self.host)
        self.report += [f"step {self.host.current_step}: {line}" for line in rehearsal.report]
        if not rehearsal.groups:
            self.report.append(f"step {self.host.current_step}: the host ranks no group, nothing was pruned")
            return iter(()) if interactive else None
        try:
            with torch.enable_grad():
                graph = self._trace()
                match = match_groups(self.host, rehearsal, graph)
                plan = self._decide(match)
        except BaseException:
            rehearsal.undo()
            raise
        self.plan = plan
        self.plans.append(plan)
        lines = [*match.report, *(_line(choice) for choice in plan.moved), plan.summary()]
        self.report += [f"step {self.host.current_step}: {line}" for line in lines]
        cuts = match.removed_by({choice.group: choice.kept for choice in plan.choices})
        groups = self._groups(cuts, rehearsal)
        if interactive:
            return groups
        for group in groups:
            group.prune()
        return None

    def _trace(self) -> ModelGraph:
        return trace_model(self.host.model, self.example_inputs, dtype=self.dtype)

    def _groups(self, cuts: list[tuple[HostGroup, tuple[int, ...]]], rehearsal: Rehearsal) -> Iterator[Any]:
        """Fresh groups to prune, each made when the one before is done."""
        host = self.host
        with layouts_kept(host.model):
            for record, channels in cuts:
                if hasattr(host.importance, "adjust_fisher"):  # OBDC keeps a Fisher matrix per layer, cut along with it
                    host.importance.adjust_fisher(record.full, list(channels))
                for name, counts in rehearsal.head_counts.items():
                    getattr(host, name).update({m: n for m, n in counts.items() if m in record.heads})
                with torch.no_grad():
                    group = host.DG.get_pruning_group(record.root, record.handler, list(channels))
                if set(group[0][1]) != set(channels):
                    raise TraceError(
                        f"Torch-Pruning would remove other channels of {record.name} than planned; nothing of it was pruned."
                    )
                for i in record.spared:
                    group[i] = (group[i][0], [])
                yield group

    def _decide(self, match: Match) -> WidthPlan:
        self.graph, self.scores = match.graph, match.scores
        lines: list[str] = []
        if isinstance(self.latency, LatencyTable) and self.timer is not None:
            movable = [group for group in match.scores.by_group if group not in match.frozen]
            lines.append(fill_table(self.latency, match.graph, self.timer, groups=movable).summary())
        plan = self._plan(match, self.budget)
        if isinstance(self.timer, DeviceTimer) and (match.replayed or match.frozen):
            lines.append("not measured end to end: attention groups are replayed by the host only")
        elif isinstance(self.timer, DeviceTimer):
            host = self._own(match, host_plan(match.graph, match.scores, self.latency))
            plan, measured = confirm_plan(
                self.host.model, match.graph, plan, host, lambda budget: self._plan(match, budget), self.timer,
                self.example_inputs,
            )  # fmt: skip
            lines += measured
        self.report += [f"step {self.host.current_step}: {line}" for line in lines]
        return plan

    def _own(self, match: Match, plan: WidthPlan) -> WidthPlan:
        return dataclasses.replace(plan, fingerprint=match.fingerprint)

    def _plan(self, match: Match, budget: Budget | None) -> WidthPlan:
        """The plan; what the table lacks for it is measured, or proposed where it is not chosen."""

        def decide(latency: LatencySource) -> WidthPlan:
            return plan_widths(
                match.graph, match.scores, latency=latency, policy=self.policy, goal=self.goal, reach=self.reach,
                budget=budget, min_widths=match.min_widths, frozen=match.frozen,
            )  # fmt: skip

        if isinstance(self.latency, LatencyTable) and self.timer is not None:
            return self._own(match, measure_chosen(self.latency, self.timer, decide, partial(plan_shapes, match.graph)))
        return self._own(match, decide(self.latency))


def _line(choice: Any) -> str:
    return f"{choice.group}: host {choice.host}, planned {choice.width} of {choice.original}" + (
        f" ({choice.reason})" if choice.reason else ""
    )


def images_of(host: Any) -> torch.Tensor:
    """Images like those the host was built with: its dependency graph holds what its first layer saw.

    Raises InvalidShape where that is not to be had (several inputs, a first layer that is no convolution and no linear
    layer, or one that saw something else than the image); then `example_inputs=` must be given.
    """
    seen = {}
    for node in host.DG.module2node.values():
        if not node.inputs:  # the autograd node behind it keeps what it read
            image = getattr(node.grad_fn, "_saved_input", getattr(node.grad_fn, "_saved_mat1", None))
            if image is not None:
                seen[image.data_ptr()] = image
    image = next(iter(seen.values()), None) if len(seen) == 1 else None
    if image is None:
        raise InvalidShape(
            "What images the host was built with cannot be told from it; pass example_inputs= as you gave them to the host."
        )
    return torch.zeros_like(image).detach()
