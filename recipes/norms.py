"""Batch norms after surgery: what they saw of the dense network no longer holds."""

from __future__ import annotations

import torch
from torch import nn

from recipes.distributed import ALONE, Workers
from recipes.images import Images


def recalibrate_norms(
    model: nn.Module, images: Images, *, batches: int, batch: int = 128, seed: int = 0, workers: Workers = ALONE
) -> None:
    """Estimate every batch norm's running mean and variance afresh, over unmoved training images."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    device = next(model.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over all batches
    model.train()
    with torch.no_grad():
        for index, (pixels, _) in enumerate(images.training_pass(batch=batch, shift=0, seed=seed)):
            if index == batches:
                break
            model(pixels.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
    workers.agree(model)
