"""Which images does a recipe train on? Small sets, read whole into memory.

    python -m recipes.data cifar10:DIR cifar10.safetensors        # decode once; then --data packed:cifar10.safetensors

`digits` needs no download; `cifar10:DIR` and `imagefolder:DIR` read what the user has, `packed:FILE` what was decoded
before. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import tailprune
from recipes.errors import RecipeError
from recipes.image_folder import read_image_folder
from recipes.images import Images, ImageSet
from recipes.packed import pack_images, unpack_images
from recipes.stream import open_stream

#: CIFAR-10 binary version: one label byte, then 32x32 red, green and blue bytes (cs.toronto.edu/~kriz/cifar.html).
BINARY_RECORD = 1 + 3 * 32 * 32


def open_images(spec: str, *, side: int = 32, skip_corrupt: bool = False, loaders: int = 8) -> Images:
    """`load_images`, or for `imagenet:DIR` a stream that decodes from disk while training."""
    kind, _, folder = spec.partition(":")
    if kind == "imagenet" and folder:
        return open_stream(Path(folder), side=side, skip_corrupt=skip_corrupt, loaders=loaders)
    return load_images(spec, side=side, skip_corrupt=skip_corrupt)


def load_images(spec: str, *, side: int = 32, num_classes: int | None = None, skip_corrupt: bool = False) -> ImageSet:
    """The set that `spec` names: `digits`, `cifar10:DIR`, `imagefolder:DIR` or `packed:FILE`.

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
    elif kind == "packed" and folder:
        images = unpack_images(folder)
    else:
        raise RecipeError(f"Unknown data {spec!r}; allowed: digits, cifar10:DIR, imagefolder:DIR, packed:FILE.")
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


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python -m recipes.data cifar10:DIR|imagefolder:DIR FILE.safetensors")
    try:
        images = load_images(sys.argv[1])
        pack_images(images, sys.argv[2])
    except tailprune.TailpruneError as error:
        sys.exit(f"error: {error}")
    print(f"{sys.argv[2]}: {len(images.train_images)} training and {len(images.test_images)} test images")


if __name__ == "__main__":
    main()
