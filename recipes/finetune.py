"""One training loop that reads from top to bottom; deterministic by seed, resumable after any epoch."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.configs import FinetuneConfig
from recipes.data import ImageSet, training_batches
from recipes.errors import RecipeError
from recipes.evaluate import evaluate
from recipes.progress import EpochReport, Progress


def finetune(
    model: nn.Module,
    images: ImageSet,
    config: FinetuneConfig,
    *,
    teacher: nn.Module | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[EpochReport, ...]:
    """Train `model` in place on the device its weights lie on; leaves it in eval mode and reports every epoch.

    Serves training from random weights as well. Equal seeds, devices and thread counts give equal weights. With
    `checkpoint`, the state after each epoch is kept in that file and a second call goes on from there, to the same
    weights as an undisturbed run. A loss that is not a number stops at once with a RecipeError.
    """
    device = next(model.parameters()).device
    images = images.to(device)
    steps = sum(len(part) > 1 for part in torch.arange(len(images.train_images)).split(config.batch))
    if not steps:
        raise RecipeError(f"{images.name} has {len(images.train_images)} training images; at least 2 are needed.")
    if config.distill_weight and teacher is None:
        raise RecipeError("distill_weight is set but there is no teacher; pass the dense model as teacher.")
    layout = training_layout(device)
    model.to(memory_format=layout)
    average = copy.deepcopy(model).requires_grad_(False).eval() if config.ema_decay else None
    optimizer = torch.optim.SGD(
        _parameter_groups(model, config.weight_decay), lr=0.0, momentum=config.momentum, nesterov=config.momentum > 0
    )
    progress = Progress(checkpoint, config, images.name, model, average, optimizer)
    reports = progress.resume()
    if not reports and config.recalibrate_batches:
        recalibrate_norms(model, images, batches=config.recalibrate_batches, seed=config.seed)
    if teacher is not None:
        teacher.eval()

    for epoch in range(len(reports), config.epochs):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)  # resuming sees the same batches
        batches = training_batches(images, batch=config.batch, shift=config.shift, generator=generator)
        model.train()
        total = torch.zeros((), device=device)
        for step, (pixels, labels) in enumerate(batches):
            pixels = pixels.contiguous(memory_format=layout)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch + step / steps)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                logits = model(pixels)
                loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
                if teacher is not None and config.distill_weight:
                    agreement = _distillation_loss(logits, _answers(teacher, pixels), config.distill_temperature)
                    loss = (1 - config.distill_weight) * loss + config.distill_weight * agreement
            if not math.isfinite(loss.item()):
                raise RecipeError(
                    f"The loss became {loss.item()} in epoch {epoch + 1}, step {step + 1}; lower the learning rate "
                    f"(peak {config.learning_rate}) or check the weights and the data."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            total += loss.detach()
            if average is not None:
                _follow(average, model, config.ema_decay, seen=epoch * steps + step)
        accuracy = evaluate(model if average is None else average, images)
        report = EpochReport(epoch=epoch + 1, epochs=config.epochs, loss=float(total) / steps, accuracy=accuracy)
        reports = (*reports, report)
        progress.keep(reports)
        if on_epoch:
            on_epoch(report)
    if average is not None:
        model.load_state_dict(average.state_dict())
    model.eval()
    return reports


def training_layout(device: torch.device) -> torch.memory_format:
    """Channels last on CUDA, where tensor cores want it. Not on CPUs: there the backward pass of a 1x1 convolution with
    stride 2 on ragged channel counts wrote past its buffers (PyTorch 2.15, 7 to 7 channels at batch 25), and contiguous
    training took no longer.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def learning_rate(config: FinetuneConfig, epoch: float) -> float:
    """Linear warm-up to the peak, then a half cosine to zero at the last epoch (Loshchilov & Hutter 2017)."""
    warmup = min(config.warmup_epochs, config.epochs)
    if epoch < warmup:
        return config.learning_rate * (epoch + 0.01) / (warmup + 0.01)  # the very first step moves a little
    share = (epoch - warmup) / max(config.epochs - warmup, 1e-9)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def recalibrate_norms(model: nn.Module, images: ImageSet, *, batches: int, batch: int = 128, seed: int = 0) -> None:
    """Estimate every batch norm's running mean and variance afresh: pruning upstream has shifted what they see."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    model.train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for index, (pixels, _) in enumerate(training_batches(images, batch=batch, shift=0, generator=generator)):
            if index == batches:
                break
            model(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Norms and biases (one dimension) are not decayed."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@torch.no_grad()
def _answers(teacher: nn.Module, pixels: Tensor) -> Tensor:
    return teacher(pixels)


def _distillation_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Hinton et al. 2015: cross entropy of softened answers, times T^2 so that its gradient keeps its size."""
    soft = F.log_softmax(logits / temperature, dim=1), F.log_softmax(wanted / temperature, dim=1)
    return F.kl_div(*soft, reduction="batchmean", log_target=True) * temperature**2


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float, *, seen: int) -> None:
    """Exponential average of the weights, quicker in the beginning; buffers are copied."""
    decay = min(decay, (1 + seen) / (10 + seen))  # TensorFlow's ExponentialMovingAverage(num_updates)
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for mine, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(buffer)
