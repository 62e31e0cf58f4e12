"""Which images does a recipe train on? Small sets, held whole in memory as one uint8 tensor.

`digits` needs no download; `cifar10:DIR` and `imagefolder:DIR` read what the user has. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.errors import RecipeError
from recipes.image_folder import read_image_folder

#: ImageNet's channel means and deviations on [0, 1]; what the published CIFAR-10 ResNets were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: CIFAR-10 binary version: one label byte, then 32x32 red, green and blue bytes (cs.toronto.edu/~kriz/cifar.html).
BINARY_RECORD = 1 + 3 * 32 * 32


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
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def side(self) -> int:
        return self.train_images.shape[-1]

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


def load_images(spec: str, *, side: int = 32, num_classes: int | None = None, skip_corrupt: bool = False) -> ImageSet:
    """The set that `spec` names: `digits`, `cifar10:DIR` or `imagefolder:DIR`.

    `num_classes` is what the network at hand distinguishes; another count is refused. With `skip_corrupt`,
    unreadable images are left out and counted in the note.
    """
    kind, _, folder = spec.partition(":")
    if kind == "digits" and not folder:
        images = load_digits_images(side=side)
    elif kind == "cifar10" and folder:
        images = load_cifar10(folder, skip_corrupt=skip_corrupt)
    elif kind == "imagefolder" and folder:
        images = load_image_folder(folder, side=side, skip_corrupt=skip_corrupt)
    else:
        raise RecipeError(f"Unknown data {spec!r}; allowed: digits, cifar10:DIR, imagefolder:DIR.")
    if num_classes is not None and images.num_classes != num_classes:
        raise RecipeError(
            f"{images.name} has {images.num_classes} classes, but the network distinguishes {num_classes}; "
            "use weights trained on this set, or train without weights."
        )
    return images


def load_digits_images(*, side: int = 32, seed: int = 0) -> ImageSet:
    """scikit-learn's 1,797 handwritten 8x8 digits, resized to side x side and grey in all three channels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RecipeError(
            "The digits come with scikit-learn, which is missing; pip install 'tailprune[demo]'."
        ) from error
    digits = load_digits()
    grey = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16  # the set's grey values are 0..16
    resized = F.interpolate(grey, size=(side, side), mode="bilinear", align_corners=False)
    images = (resized * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return _split(
        images,
        torch.tensor(digits.target, dtype=torch.int64),
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        flip=False,
        note=f"1,797 real images of 8x8 resized to {side}x{side}; accuracy saturates here, so it is a smoke test",
        seed=seed,
    )


def load_cifar10(folder: str | Path, *, skip_corrupt: bool = False) -> ImageSet:
    """CIFAR-10 from an image-folder tree with `train` and `test`, or from torchvision's folder in its binary version."""
    root = Path(folder)
    for place in (root, root / "cifar-10-batches-bin"):
        if (place / "test_batch.bin").is_file():
            return _read_binary(place)
    for place in (root, root / "cifar-10-batches-py"):
        if (place / "data_batch_1").is_file():
            raise RecipeError(
                f"{place} holds Python pickles, which can run code when read, so tailprune does not; take the binary "
                "version of CIFAR-10 (cifar-10-batches-bin) or an image folder with train and test."
            )
    images = load_image_folder(root, side=32, skip_corrupt=skip_corrupt)
    if images.num_classes != 10:
        raise RecipeError(
            f"{root} has {images.num_classes} classes, CIFAR-10 has 10; use imagefolder:{root} for others."
        )
    return dataclasses.replace(images, name="cifar10")


def load_image_folder(folder: str | Path, *, side: int = 32, skip_corrupt: bool = False, seed: int = 0) -> ImageSet:
    """One folder per class, under `train` and `test` (or `val`), or without these, then split 80 : 20 by `seed`."""
    root = Path(folder)
    if not root.is_dir():
        raise RecipeError(f"The image folder {root} does not exist; it should hold one folder per class.")
    name = f"imagefolder:{root.name}"
    train, test = root / "train", next((root / n for n in ("test", "val") if (root / n).is_dir()), None)
    if not train.is_dir() and test is None:
        all_images, labels, classes, skipped = read_image_folder(root, side=side, skip_corrupt=skip_corrupt)
        return _split(all_images, labels, name=name, classes=classes, flip=True, note=_skipped_note(skipped), seed=seed)
    if not train.is_dir() or test is None:
        raise RecipeError(
            f"{root} has only one of train and test; give it both, or neither and it will be split 80 : 20."
        )
    train_images, train_labels, classes, skipped = read_image_folder(train, side=side, skip_corrupt=skip_corrupt)
    test_images, test_labels, test_classes, more = read_image_folder(test, side=side, skip_corrupt=skip_corrupt)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise RecipeError(f"{train} and {test} have different classes: {odd[0]} is in only one of them.")
    return ImageSet(
        name=name,
        classes=classes,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        note=_skipped_note(skipped + more),
    )


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
    images: ImageSet, *, batch: int, shift: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled, augmented, normalised pass over the training images; the generator (on the CPU) decides all of it.

    A last batch of fewer than two images is left out, because batch norm cannot use it.
    """
    order = torch.randperm(len(images.train_images), generator=generator)
    for chosen in order.split(batch):
        if len(chosen) > 1:
            chosen = chosen.to(images.train_images.device)
            pixels = augment(images.train_images[chosen], flip=images.flip, shift=shift, generator=generator)
            yield normalize(pixels), images.train_labels[chosen]


def _split(
    images: Tensor, labels: Tensor, *, name: str, classes: tuple[str, ...], flip: bool, note: str, seed: int
) -> ImageSet:
    """Every fifth image of a seeded shuffle is for testing."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    test, train = order[::5], order[torch.arange(len(order)) % 5 != 0]
    return ImageSet(
        name=name,
        classes=classes,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        flip=flip,
        note=note,
    )


def _read_binary(folder: Path) -> ImageSet:
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for split, names in (("train", [f"data_batch_{n}.bin" for n in range(1, 6)]), ("test", ["test_batch.bin"])):
        content = b"".join((folder / name).read_bytes() for name in names if (folder / name).is_file())
        if not content or len(content) % BINARY_RECORD:
            raise RecipeError(
                f"The {split} batches in {folder} are incomplete; unpack CIFAR-10's binary version again."
            )
        records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, BINARY_RECORD)
        parts[split] = records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long()
    names_file = folder / "batches.meta.txt"
    classes = tuple(names_file.read_text().split()) if names_file.is_file() else tuple(str(n) for n in range(10))
    if max(int(labels.max()) for _, labels in parts.values()) >= len(classes):
        raise RecipeError(
            f"{folder} holds labels beyond its {len(classes)} classes; unpack CIFAR-10's binary version again."
        )
    (train_images, train_labels), (test_images, test_labels) = parts["train"], parts["test"]
    return ImageSet(
        name="cifar10",
        classes=classes,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def _skipped_note(skipped: int) -> str:
    return f"{skipped} corrupt image{'s' * (skipped > 1)} left out" if skipped else ""
