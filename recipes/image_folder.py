"""How do images on disk become one tensor? One folder per class, every image cut to a square of one size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recipes.errors import RecipeError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
#: A set is held whole in memory; beyond this many bytes a streaming loader is the right tool.
LARGEST_SET_BYTES = 4 * 2**30


def read_image_folder(folder: Path, *, side: int, skip_corrupt: bool) -> tuple[Tensor, Tensor, tuple[str, ...], int]:
    """(images uint8 N x 3 x side x side, labels, class names in order, count of corrupt images left out)."""
    classes = tuple(
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    )
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no class folder"
        raise RecipeError(f"{folder} has {found}; it needs at least two folders with images, one per class.")
    paths = [(path, label) for label, name in enumerate(classes) for path in _images_in(folder / name)]
    if len(paths) * 3 * side * side > LARGEST_SET_BYTES:
        raise RecipeError(
            f"{folder} holds {len(paths):,} images, {len(paths) * 3 * side * side / 2**30:.1f} GiB at {side}x{side}; "
            f"recipes hold a set in memory, {LARGEST_SET_BYTES // 2**30} GiB at most. Use fewer or smaller images."
        )
    with ThreadPoolExecutor(max_workers=4) as pool:
        decoded = list(pool.map(lambda entry: _read_image(entry[0], side), paths))
    corrupt = [path for (path, _), pixels in zip(paths, decoded, strict=True) if pixels is None]
    if corrupt and not skip_corrupt:
        raise RecipeError(
            f"The image {corrupt[0]} is corrupt; remove it, or leave such images out with --skip-corrupt."
        )
    kept = [(pixels, label) for (_, label), pixels in zip(paths, decoded, strict=True) if pixels is not None]
    absent = set(range(len(classes))) - {label for _, label in kept}
    if absent:
        raise RecipeError(f"The class {classes[min(absent)]} in {folder} has no readable image left.")
    images = torch.from_numpy(np.stack([pixels for pixels, _ in kept])).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label in kept]), classes, len(corrupt)


def _images_in(folder: Path) -> list[Path]:
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise RecipeError(f"The class folder {folder} is empty; it needs images ({', '.join(SUFFIXES)}).")
    return images


def _read_image(path: Path, side: int) -> np.ndarray | None:
    """The image cut to its central square and resized; None if it cannot be decoded."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
            if image.size != (side, side):
                edge = min(image.size)
                left, top = (image.width - edge) // 2, (image.height - edge) // 2
                image = image.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + edge, top + edge))
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
