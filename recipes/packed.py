"""Decode once: a set of small images as one safetensors file, read back in a fraction of a second.

python -m recipes.packed cifar10:DIR cifar10.safetensors        # then --data packed:cifar10.safetensors
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recipes.errors import RecipeError
from recipes.images import ImageSet

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")
FORMAT = "tailprune-images"


def pack_images(images: ImageSet, path: str | os.PathLike[str]) -> None:
    """Write the set whole, or leave what was there."""
    about = {"name": images.name, "classes": images.classes, "flip": images.flip, "note": images.note}
    part = Path(f"{path}.part")
    try:
        save_file(
            {t: getattr(images, t).clone(memory_format=torch.contiguous_format) for t in TENSORS},
            part,
            metadata={FORMAT: json.dumps(about)},
        )
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise RecipeError(f"Cannot write the images {path} ({error}); is the disk full?") from error


def unpack_images(path: str | os.PathLike[str]) -> ImageSet:
    """The set in a file of `pack_images`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})[FORMAT])
            tensors = {name: file.get_tensor(name) for name in TENSORS}
        images = ImageSet(**{**about, "classes": tuple(about["classes"])}, **tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{path} is no packed image set ({error}); write one with python -m recipes.data cifar10:DIR {path}."
        ) from error
    for pixels, labels in ((images.train_images, images.train_labels), (images.test_images, images.test_labels)):
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or len(pixels) != len(labels):
            raise RecipeError(f"{path} is no packed image set: its images and labels do not belong together.")
    return images
