"""ImageNet-size sets, decoded by worker processes while the device trains; every image's augmentation follows from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from recipes.distributed import ALONE, Workers
from recipes.errors import RecipeError
from recipes.images import MEAN, STD

#: Images are tested at 224 of 256 pixels, cut from the middle, as in the original papers.
TEST_CROP = 224 / 256


@dataclass(frozen=True, kw_only=True)
class ImageStream:
    """A folder tree train/CLASS/*, val/CLASS/* (torchvision's ImageFolder)."""

    name: str
    train: ImageFolder
    test: ImageFolder
    side: int
    skip_corrupt: bool = False
    loaders: int = 8  # worker processes

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.train.classes)

    @property
    def num_training(self) -> int:
        return len(self.train)

    def to(self, device: torch.device | str) -> ImageStream:
        """Batches go to the device one by one."""
        return self

    def example(self, batch: int) -> Tensor:
        """A normalised batch of test images, for tracing and timing."""
        seen = _Decoded(self.test, _testing(self.side), seed=0, skip_corrupt=True)
        pixels = [item[0] for item in (seen[i] for i in range(min(batch, len(self.test)))) if item is not None]
        repeated = torch.stack(pixels).repeat(-(-batch // len(pixels)), 1, 1, 1)[:batch]
        return repeated.contiguous(memory_format=torch.channels_last)

    def training_pass(
        self, *, batch: int, shift: int, seed: int, workers: Workers = ALONE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Random resized crops, mirrored; with `shift` 0 the images as they are tested, for recalibration."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        groups = [workers.share(some).tolist() for some in order.split(batch) if len(some) >= 2 * workers.count]
        how = _training(self.side) if shift else _testing(self.side)
        return self._load(self.train, groups, how, seed, least=2)  # batch norm cannot use a lone image

    def test_pass(self, *, batch: int, workers: Workers = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
        indices = workers.share(torch.arange(len(self.test)))
        return self._load(
            self.test, [some.tolist() for some in indices.split(batch)], _testing(self.side), seed=0, least=1
        )

    def _load(
        self, folder: ImageFolder, groups: list[list[int]], how: transforms.Compose, seed: int, least: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        decoded = _Decoded(folder, how, seed=seed, skip_corrupt=self.skip_corrupt)
        loader = DataLoader(
            decoded,
            batch_sampler=groups,
            num_workers=self.loaders,
            collate_fn=_stack,
            pin_memory=torch.cuda.is_available(),
        )
        for pixels, labels in loader:
            if len(labels) >= least:
                yield pixels.contiguous(memory_format=torch.channels_last), labels


def open_stream(root: Path, *, side: int, skip_corrupt: bool = False, loaders: int = 8) -> ImageStream:
    """The tree under `root`. Raises RecipeError where it is none."""
    parts: dict[str, ImageFolder] = {}
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise RecipeError(f"{root} has no folder {part}; an ImageNet tree holds train/CLASS/* and val/CLASS/*.")
        try:
            parts[part] = ImageFolder(str(root / part))
        except FileNotFoundError as error:
            raise RecipeError(f"{root / part} cannot be used: {str(error).splitlines()[0]}") from error
        if len(parts[part].classes) < 2:
            raise RecipeError(f"{root / part} has only the class {parts[part].classes[0]}; at least two are needed.")
    if parts["train"].classes != parts["val"].classes:
        odd = sorted(set(parts["train"].classes) ^ set(parts["val"].classes))[0]
        raise RecipeError(f"{root}: train and val have different classes: {odd} is in only one of them.")
    return ImageStream(
        name=f"imagenet:{root.name}", train=parts["train"], test=parts["val"], side=side,
        skip_corrupt=skip_corrupt, loaders=loaders,
    )  # fmt: skip


class _Decoded(Dataset[Any]):
    """Images by index; None for a corrupt one that is to be skipped."""

    def __init__(self, folder: ImageFolder, how: transforms.Compose, *, seed: int, skip_corrupt: bool) -> None:
        self.samples, self.how, self.seed, self.skip_corrupt = folder.samples, how, seed, skip_corrupt

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | None:
        path, label = self.samples[index]
        try:
            image = Image.open(path).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if self.skip_corrupt:
                return None
            raise RecipeError(
                f"The image {path} is corrupt; remove it, or leave such images out with --skip-corrupt."
            ) from error
        with torch.random.fork_rng(devices=[]):  # the same crop however many processes decode, and after a resume
            torch.manual_seed(self.seed * 2_000_003 + index)
            return self.how(image), label


def _stack(items: list[tuple[Tensor, int] | None]) -> tuple[Tensor, Tensor]:
    good = [item for item in items if item is not None]
    if not good:
        return torch.empty(0), torch.empty(0, dtype=torch.int64)
    return torch.stack([pixels for pixels, _ in good]), torch.tensor([label for _, label in good])


def _training(side: int) -> transforms.Compose:
    crop = partial(transforms.RandomResizedCrop, antialias=True)
    return transforms.Compose([crop(side), transforms.RandomHorizontalFlip(), *_to_tensor()])


def _testing(side: int) -> transforms.Compose:
    return transforms.Compose([transforms.Resize(round(side / TEST_CROP)), transforms.CenterCrop(side), *_to_tensor()])


def _to_tensor() -> list[Any]:
    return [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
