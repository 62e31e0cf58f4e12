"""Who competes: the dense network, the unrounded host, fixed multiples in their fair form, and tailprune."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch_pruning as tp
from torch import nn

import tailprune
from recipes.errors import RecipeError
from recipes.hosts import build_host
from tailprune import ChannelScores, LatencyTable, ModelGraph, WidthPlan

Role = Literal["dense", "host", "rival", "ours"]
#: Rivals of rule: every width a multiple of these.
MULTIPLES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One network. `plan` is None for the dense one."""

    name: str
    role: Role
    model: nn.Module
    plan: WidthPlan | None = None
    note: str = ""

    @property
    def digest(self) -> str:
        """Names this network's channels: two runs that choose alike share a fine-tuned checkpoint."""
        kept = {c.group: c.kept for c in self.plan.choices} if self.plan else {}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True, kw_only=True)
class Tailored:
    """The host with one line more: the network, and what its widths were decided from."""

    model: nn.Module
    graph: ModelGraph
    scores: ChannelScores
    plan: WidthPlan


@dataclass(frozen=True, kw_only=True)
class Arena:
    """What every contestant is made from: one dense network, one table, one device, one criterion of `recipes.hosts`."""

    dense: nn.Module
    example: torch.Tensor
    table: LatencyTable
    timer: tailprune.DeviceTimer
    ignored: Callable[[nn.Module], list[nn.Module]]
    criterion: str = "magnitude"

    def host(self, ratio: float) -> tp.pruner.BasePruner:
        """A fresh pruner, global ranking, on a copy of the dense network: the pipeline a user already has."""
        model = copy.deepcopy(self.dense)
        return build_host(self.criterion, model, self.example, ratio, ignored=self.ignored)

    def tailored(self, ratio: float, goal: Literal["faster", "better"]) -> Tailored:
        pruner = tailprune.TailAwarePruner(self.host(ratio), latency=self.table, timer=self.timer, goal=goal)
        pruner.step()
        if pruner.graph is None or pruner.scores is None or pruner.plan is None:
            raise RecipeError(f"At ratio {ratio} the host prunes nothing; raise the ratio.")
        return Tailored(model=pruner.host.model, graph=pruner.graph, scores=pruner.scores, plan=pruner.plan)

    def multiple(
        self, start: Tailored, multiple: int, *, target_us: float | None = None, target_importance: float | None = None
    ) -> tuple[nn.Module, WidthPlan]:
        """The fair fixed multiple: the host's ratio bisected to the same latency, or to the same importance kept."""
        plan = tailprune.measure_while(
            self.table,
            self.timer,
            lambda: tailprune.fixed_multiple(
                start.graph,
                start.scores,
                self.table,
                multiple,
                target_us=target_us,
                target_importance=target_importance,
            ),
        )
        return tailprune.apply_plan(self.dense, plan), plan


def assemble(arena: Arena, ratio: float) -> tuple[list[Contestant], Tailored]:
    """All contestants at one ratio, the dense network first; and what is behind `faster`."""
    host = arena.host(ratio)
    host.step()
    faster, better = arena.tailored(ratio, "faster"), arena.tailored(ratio, "better")
    host_plan = tailprune.host_plan(faster.graph, faster.scores, arena.table)
    contestants = [
        Contestant(name="dense", role="dense", model=arena.dense),
        Contestant(name="host", role="host", model=host.model, plan=host_plan),
    ]
    for multiple in MULTIPLES:
        note = "at our latency"
        try:
            model, plan = arena.multiple(faster, multiple, target_us=faster.plan.predicted_us)
        except tailprune.NoPlan:
            note = "too slow; at the host's importance"
            model, plan = arena.multiple(faster, multiple, target_importance=faster.plan.host_importance)
        contestants.append(Contestant(name=f"multiple of {multiple}", role="rival", model=model, plan=plan, note=note))
    contestants.append(Contestant(name="tailprune faster", role="ours", model=faster.model, plan=faster.plan))
    contestants.append(Contestant(name="tailprune better", role="ours", model=better.model, plan=better.plan))
    return contestants, faster


def deployed(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The network as it would be served: eval mode, norms folded, channels last."""
    folded = tailprune.fold_norms(model, tailprune.trace_model(model, example))
    return folded.to(memory_format=torch.channels_last)


def kept_weights(folder: Path, contestant: Contestant) -> Path:
    slug = contestant.name.replace(" ", "-")
    return folder / f"finetuned-{slug}-{contestant.digest}.safetensors"
