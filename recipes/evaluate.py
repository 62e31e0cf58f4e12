"""How often is the network right, and how sure is that number?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from recipes.distributed import ALONE, Workers
from recipes.errors import RecipeError
from recipes.images import Images


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Right answers out of all, with the binomial noise of a test set this small."""

    correct: int
    total: int

    @property
    def share(self) -> float:
        return self.correct / self.total

    @property
    def noise(self) -> float:
        """Standard error with one success and one failure added (Agresti & Coull 1998), so that 100 % is not certain."""
        share, total = (self.correct + 1) / (self.total + 2), self.total + 2
        return math.sqrt(share * (1 - share) / total)

    def within_noise_of(self, other: Accuracy) -> bool:
        """No difference at two standard errors of the difference (two test runs taken as independent)."""
        return abs(self.share - other.share) <= 2 * math.hypot(self.noise, other.noise)

    def __str__(self) -> str:
        return f"{self.share:.2%} ({self.correct} of {self.total})"


@torch.inference_mode()
def evaluate(model: nn.Module, images: Images, *, batch: int = 500, workers: Workers = ALONE) -> Accuracy:
    """Accuracy on the test images, over all workers; the model's mode is restored afterwards."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=device)
    for pixels, truth in images.test_pass(batch=batch, workers=workers):
        right = model(pixels.to(device)).argmax(dim=1) == truth.to(device)
        counts += torch.stack([right.sum(), torch.tensor(len(truth), device=device)])
    model.train(was_training)
    correct, total = workers.total(counts).tolist()
    if not total:
        raise RecipeError("There are no test images to evaluate on.")
    return Accuracy(correct=correct, total=total)
