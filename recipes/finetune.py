"""One training loop that reads from top to bottom; deterministic by seed, resumable after any epoch.

python -m recipes.road resnet20-cifar10 --data cifar10:DIR --weights resnet20.pt --out runs/resnet20
torchrun --nproc_per_node 8 -m recipes.road resnet50-imagenet --data imagenet:DIR --out runs/resnet50
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.average import averaged_copy, follow
from recipes.configs import FinetuneConfig
from recipes.distill import distillation_loss
from recipes.distributed import ALONE, Workers
from recipes.errors import RecipeError
from recipes.evaluate import evaluate
from recipes.images import Images
from recipes.memory import batch_that_fits
from recipes.norms import recalibrate_norms
from recipes.progress import EpochReport, Progress


def finetune(
    model: nn.Module,
    images: Images,
    config: FinetuneConfig,
    *,
    teacher: nn.Module | None = None,
    regularize: Callable[[nn.Module], object] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    workers: Workers = ALONE,
) -> tuple[EpochReport, ...]:
    """Train `model` in place on the device its weights lie on; leaves it in eval mode and reports every epoch.

    Serves training from random weights as well. Equal seeds, devices and thread counts give equal weights. With
    `checkpoint`, the state after each epoch is kept in that file and a second call goes on from there, to the same
    weights as an undisturbed run. `regularize` is called between the backward pass and the step, as Torch-Pruning's
    sparse training wants it (`pruner.regularize`). Every one of `workers` calls this alike, with equal weights.

    A loss that is not a number, and a batch that does not fit into memory, stop at once with a RecipeError.
    """
    device = next(model.parameters()).device
    images = images.to(device)
    steps = sum(n >= 2 * workers.count for n in _batch_sizes(images.num_training, config.batch))
    if not steps:
        raise RecipeError(
            f"{images.name} has {images.num_training} training images; at least 2 for each of {workers.count} workers are needed."
        )
    if config.distill_weight and teacher is None:
        raise RecipeError("distill_weight is set but there is no teacher; pass the dense model as teacher.")
    if teacher is not None:
        teacher.eval()
    layout = training_layout(model, device)
    model.to(memory_format=layout)
    average = averaged_copy(model) if config.ema_decay else None
    optimizer = torch.optim.SGD(  # made here, after any surgery: it must hold the weights that are left
        decay_groups(model, config.weight_decay), lr=0.0, momentum=config.momentum, nesterov=config.momentum > 0
    )
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    progress = Progress(checkpoint, config, images.name, model, average, optimizer, scaler)
    reports = progress.resume()
    if not reports and config.recalibrate_batches:
        recalibrate_norms(model, images, batches=config.recalibrate_batches, seed=config.seed, workers=workers)
    if config.compile:
        model.compile()
    network = workers.wrap(model, device)

    for epoch in range(len(reports), config.epochs):
        model.train()
        total = torch.zeros((), device=device)
        seed = config.seed * 1_000_003 + epoch  # a resumed run sees the same batches
        batches = images.training_pass(batch=config.batch, shift=config.shift, seed=seed, workers=workers)
        for step, (pixels, labels) in enumerate(batches):
            pixels, labels = pixels.to(device, memory_format=layout), labels.to(device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch + step / steps)
            try:
                loss = _loss(network, pixels, labels, config, teacher)
                _refuse_nan(loss, config, epoch, step, progress)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
            except torch.OutOfMemoryError as error:
                raise RecipeError(batch_that_fits(model, pixels, config.batch)) from error
            scaler.unscale_(optimizer)
            if regularize is not None:
                regularize(model)
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            scaler.step(optimizer)
            scaler.update()
            total += loss.detach()
            if average is not None:
                follow(average, model, config.ema_decay, seen=epoch * steps + step)
        judged = model if average is None else average
        workers.agree(judged)
        accuracy = evaluate(judged, images, workers=workers)
        loss_seen = float(workers.total(total)) / steps / workers.count
        report = EpochReport(epoch=epoch + 1, epochs=config.epochs, loss=loss_seen, accuracy=accuracy)
        reports = (*reports, report)
        if workers.first:
            progress.keep(reports)
        if on_epoch:
            on_epoch(report)
    if average is not None:
        model.load_state_dict(average.state_dict())
    model.eval()
    return reports


def _loss(
    network: nn.Module, pixels: Tensor, labels: Tensor, config: FinetuneConfig, teacher: nn.Module | None
) -> Tensor:
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(config.precision)
    with torch.autocast(pixels.device.type, dtype, enabled=dtype is not None):
        logits = network(pixels)
        loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        if teacher is None or not config.distill_weight:
            return loss
        with torch.no_grad():
            wanted = teacher(pixels)
        agreement = distillation_loss(logits, wanted, config.distill_temperature)
        return (1 - config.distill_weight) * loss + config.distill_weight * agreement


def _refuse_nan(loss: Tensor, config: FinetuneConfig, epoch: int, step: int, progress: Progress) -> None:
    if not math.isfinite(loss.item()):
        kept = f" The state after epoch {epoch} is kept in {progress.path}." if progress.path and epoch else ""
        raise RecipeError(
            f"The loss became {loss.item()} in epoch {epoch + 1}, step {step + 1}; lower the learning rate "
            f"(peak {config.learning_rate}) or check the weights and the data.{kept}"
        )


def _batch_sizes(images: int, batch: int) -> list[int]:
    return [min(batch, images - start) for start in range(0, images, batch)]


def training_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last: what tensor cores want, and on CPUs up to twice as fast in bfloat16. But not on a CPU where a 1x1
    convolution strides: its backward pass on ragged channel counts wrote past its buffers (PyTorch 2.15, 7 to 7 channels
    with stride 2 at batch 25).
    """
    strided = any(isinstance(m, nn.Conv2d) and max(m.kernel_size) == 1 and max(m.stride) > 1 for m in model.modules())
    return torch.contiguous_format if device.type == "cpu" and strided else torch.channels_last


def learning_rate(config: FinetuneConfig, epoch: float) -> float:
    """Linear warm-up to the peak, then a half cosine to zero at the last epoch (Loshchilov & Hutter 2017)."""
    warmup = min(config.warmup_epochs, config.epochs)
    if epoch < warmup:
        return config.learning_rate * (epoch + 0.01) / (warmup + 0.01)  # the very first step moves a little
    share = (epoch - warmup) / max(config.epochs - warmup, 1e-9)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Norms and biases (one dimension) are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
