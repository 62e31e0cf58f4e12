"""How often is the network right, and how sure is that number?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recipes.data import ImageSet, normalize
from recipes.errors import RecipeError


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
def count_correct(model: nn.Module, images: Tensor, labels: Tensor, *, batch: int = 500) -> Accuracy:
    """Accuracy on uint8 images, on the device they lie on; the model's mode is restored afterwards."""
    if not len(images):
        raise RecipeError("There are no test images to evaluate on.")
    was_training = model.training
    model.eval()
    correct = 0
    for pixels, truth in zip(images.split(batch), labels.split(batch), strict=True):
        correct += int((model(normalize(pixels)).argmax(dim=1) == truth).sum())
    model.train(was_training)
    return Accuracy(correct=correct, total=len(images))


def evaluate(model: nn.Module, images: ImageSet, *, batch: int = 500) -> Accuracy:
    """Accuracy on the test images."""
    return count_correct(model, images.test_images, images.test_labels, batch=batch)
