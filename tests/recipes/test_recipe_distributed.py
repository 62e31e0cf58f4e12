"""Two processes, one training: do they plan alike, stay equal, and see together what one would see alone?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipes.distributed import ALONE, Workers, workers_of_torchrun
from recipes.errors import RecipeError
from recipes.images import ImageSet, training_batches

ROOT = Path(__file__).parents[2]
WORKER = """
import json, sys, torch, tailprune
from torch import distributed as dist
from recipes.configs import FinetuneConfig
from recipes.distributed import workers_of_torchrun
from recipes.finetune import finetune
from recipes.images import ImageSet
from recipes.models import CifarResNet

torch.set_num_threads(1)
pixels = torch.randint(0, 256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
labels = torch.arange(24) % 2
images = ImageSet(name="tiny", classes=("a", "b"), train_images=pixels, train_labels=labels, test_images=pixels[:13],
                  test_labels=labels[:13], flip=False)
torch.manual_seed(0)
dense = CifarResNet((1, 1), (8, 16), shortcut="projection", num_classes=2).eval()
with workers_of_torchrun("cpu") as (workers, device):
    plan = None
    if workers.first:
        graph = tailprune.trace_model(dense, images.example(2))
        scores = tailprune.choose_host(tailprune.score_channels(dense, graph), 0.4)
        plan = tailprune.plan_widths(graph, scores, latency=tailprune.WaveModel(tailprune.load_device("h200")))
    plan = workers.broadcast_plan(plan, device)
    model = tailprune.apply_plan(dense, plan)
    config = FinetuneConfig(epochs=2, batch=8, learning_rate=0.05, shift=1, ema_decay=0.9, distill_weight=0.5, recalibrate_batches=1)
    reports = finetune(model, images, config, teacher=dense, workers=workers)
    state = torch.cat([value.double().flatten() for value in model.state_dict().values()])
    json.dump({"rank": workers.rank, "widths": plan.widths, "sum": state.sum().item(), "norm": state.norm().item(),
               "total": reports[-1].accuracy.total, "losses": [r.loss for r in reports]}, open(f"{sys.argv[1]}/{workers.rank}.json", "w"))
"""


def test_two_gloo_processes_plan_alike_and_end_with_equal_weights(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first.pop("rank"), second.pop("rank")) == (0, 1)
    assert first == second
    assert first["total"] == 13
    assert min(first["widths"].values()) < 8


def _images(count: int) -> ImageSet:
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return ImageSet(
        name="tiny", classes=("a", "b"), train_images=pixels, train_labels=torch.arange(count), test_images=pixels,
        test_labels=torch.arange(count),
    )  # fmt: skip


def test_workers_together_see_exactly_what_one_would():
    images = _images(23)

    def seen(workers: Workers):
        return list(
            training_batches(images, batch=6, shift=2, generator=torch.Generator().manual_seed(3), workers=workers)
        )

    alone, shares = seen(ALONE), [seen(Workers(rank=rank, count=2)) for rank in (0, 1)]
    assert [len(batch) for batch, _ in alone] == [6, 6, 6, 5]
    for (pixels, labels), *parts in zip(alone, *shares, strict=True):
        for rank, (some, truth) in enumerate(parts):
            assert torch.equal(some, pixels[rank::2])
            assert torch.equal(truth, labels[rank::2])


def test_a_last_batch_too_small_for_every_worker_is_left_out():
    batches = training_batches(
        _images(15), batch=6, shift=0, generator=torch.Generator(), workers=Workers(rank=1, count=2)
    )
    assert [len(labels) for _, labels in batches] == [3, 3]


def test_no_cuda_where_it_is_asked_for_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"no CUDA device here; use --device cpu"), workers_of_torchrun("cuda"):
        pass


def test_one_process_is_alone_and_needs_a_plan_to_share(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with workers_of_torchrun("cpu") as (workers, device):
        assert workers == ALONE
        assert workers.first
        with pytest.raises(RecipeError, match=r"no plan to share"):
            workers.broadcast_plan(None, device)
