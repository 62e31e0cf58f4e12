"""Images in memory, as one uint8 tensor, and the batches made from them: cropped, mirrored and normalised where they lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.distributed import ALONE, Workers

#: ImageNet's channel means and deviations on [0, 1]; what the published CIFAR-10 ResNets were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Images(Protocol):
    """What training needs of a data set, in memory or streamed from disk."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def num_training(self) -> int: ...

    def to(self, device: torch.device | str) -> Images: ...

    def example(self, batch: int) -> Tensor: ...

    def training_pass(
        self, *, batch: int, shift: int, seed: int, workers: Workers = ALONE
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

    def test_pass(self, *, batch: int, workers: Workers = ALONE) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images (uint8, N x 3 x side x side) and labels (int64), split into training and test."""

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    flip: bool = True  # a mirrored digit is another sign
    note: str = ""

    @property
    def num_training(self) -> int:
        return len(self.train_images)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def side(self) -> int:
        return self.train_images.shape[-1]

    def part(self, count: int) -> ImageSet:
        """Only the first `count` training images of a shuffle that never changes; for schedules shorter than an epoch."""
        chosen = torch.randperm(len(self.train_images), generator=torch.Generator().manual_seed(0))[:count]
        return dataclasses.replace(self, train_images=self.train_images[chosen], train_labels=self.train_labels[chosen])

    def tested_on(self, count: int) -> ImageSet:
        """Only `count` of the test images, of a shuffle that never changes."""
        chosen = torch.randperm(len(self.test_images), generator=torch.Generator().manual_seed(0))[:count]
        return dataclasses.replace(self, test_images=self.test_images[chosen], test_labels=self.test_labels[chosen])

    def to(self, device: torch.device | str) -> ImageSet:
        return dataclasses.replace(
            self,
            train_images=self.train_images.to(device),
            train_labels=self.train_labels.to(device),
            test_images=self.test_images.to(device),
            test_labels=self.test_labels.to(device),
        )

    def example(self, batch: int) -> Tensor:
        """A normalised batch of test images, for tracing and timing."""
        repeats = -(-batch // len(self.test_images))
        return normalize(self.test_images.repeat(repeats, 1, 1, 1)[:batch])

    def training_pass(
        self, *, batch: int, shift: int, seed: int, workers: Workers = ALONE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """This worker's share of one pass: `seed` decides order and augmentation, whatever the number of workers."""
        generator = torch.Generator().manual_seed(seed)
        return training_batches(self, batch=batch, shift=shift, generator=generator, workers=workers)

    def test_pass(self, *, batch: int, workers: Workers = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
        """This worker's share of the test images, normalised, in order."""
        pixels, labels = workers.share(self.test_images), workers.share(self.test_labels)
        for some, truth in zip(pixels.split(batch), labels.split(batch), strict=True):
            yield normalize(some), truth


def normalize(images: Tensor) -> Tensor:
    """uint8 images to float32, ImageNet mean and deviation removed, in channels_last memory."""
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, *, flip: bool, shift: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `shift` pixels over a black border and, with `flip`, mirrored with probability 1/2."""
    count, side = len(images), images.shape[-1]
    offset = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator).to(images.device)
    mirrored = torch.rand(count, generator=generator).to(images.device) < (0.5 if flip else 0.0)
    pixel = torch.arange(side, device=images.device)
    rows = offset[0] + pixel
    columns = offset[1] + torch.where(mirrored[:, None], side - 1 - pixel, pixel)
    padded = F.pad(images, (shift, shift, shift, shift))
    index = torch.arange(count, device=images.device)[:, None, None]
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def training_batches(
    images: ImageSet, *, batch: int, shift: int, generator: torch.Generator, workers: Workers = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled, augmented, normalised pass over the training images; the generator (on the CPU) decides all of it.

    `batch` counts the images of all workers together; each takes every n-th of them. A last batch of fewer than two images
    a worker is left out, because batch norm cannot use it.
    """
    order = torch.randperm(len(images.train_images), generator=generator)
    for chosen in order.split(batch):
        if len(chosen) >= 2 * workers.count:
            chosen = chosen.to(images.train_images.device)
            pixels = augment(images.train_images[chosen], flip=images.flip, shift=shift, generator=generator)
            yield normalize(workers.share(pixels)), workers.share(images.train_labels[chosen])
