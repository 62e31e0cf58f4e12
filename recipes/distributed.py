"""Several processes, one training: what each of them sees, and how rank 0's plan reaches the others.

torchrun --nproc_per_node 8 -m recipes.road resnet50-imagenet --data imagenet:DIR --out runs/resnet50
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

from recipes.errors import RecipeError
from tailprune import WidthPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """This process among its peers. Alone, every method is the identity."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Rank 0 plans, measures and writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """Every n-th entry, so that all shares differ by one at most."""
        return batch if self.count == 1 else batch[self.rank :: self.count]

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with gradients averaged over the workers; norms keep rank 0's statistics."""
        if self.count == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def total(self, value: Tensor) -> Tensor:
        """The sum over the workers."""
        if self.count > 1:
            dist.all_reduce(value)
        return value

    def agree(self, model: nn.Module) -> None:
        """Rank 0's running statistics for everybody."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def broadcast_plan(self, plan: WidthPlan | None, device: torch.device) -> WidthPlan:
        """What rank 0 has planned, as text; the others pass None."""
        if self.count > 1:
            told = json.dumps(plan.to_dict()).encode() if plan else b""
            size = torch.tensor(len(told), device=device)
            dist.broadcast(size, src=0)
            text = torch.tensor(list(told or bytes(int(size))), dtype=torch.uint8, device=device)
            dist.broadcast(text, src=0)
            plan = WidthPlan.from_dict(json.loads(bytes(text.tolist())), origin="rank 0's plan")
        if plan is None:
            raise RecipeError("Rank 0 has no plan to share; it must plan before the others ask.")
        return plan

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


ALONE = Workers()


@contextmanager
def workers_of_torchrun(device: str) -> Iterator[tuple[Workers, torch.device]]:
    """The workers that torchrun started, NCCL between GPUs and gloo between CPUs; without torchrun one worker, alone."""
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            "There is no CUDA device here; use --device cpu, or install a PyTorch with CUDA and its driver."
        )
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, where
        return
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Workers(rank=dist.get_rank(), count=count), where
    finally:
        dist.destroy_process_group()
