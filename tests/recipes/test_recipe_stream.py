"""Do ImageNet trees stream the same images every time, whoever decodes them, and say what is wrong with them?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.configs import FinetuneConfig
from recipes.data import open_images
from recipes.distributed import Workers
from recipes.errors import RecipeError
from recipes.evaluate import evaluate
from recipes.finetune import finetune
from recipes.stream import open_stream


@pytest.fixture
def tree(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("cat", "dog", "eel")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(60 * label, 60 * label + 60, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path


def _pass(stream, **how):
    return [(pixels.sum().item(), labels.tolist()) for pixels, labels in stream.training_pass(batch=4, shift=4, **how)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_seed_decides_every_image_however_many_processes_decode(tree):
    alone, helped = (open_stream(tree, side=32, loaders=loaders) for loaders in (0, 2))
    assert alone.classes == ("cat", "dog", "eel")
    assert alone.num_training == 15
    first = _pass(alone, seed=1)
    torch.rand(3)
    assert first == _pass(helped, seed=1)
    assert first != _pass(alone, seed=2)
    shares = [_pass(alone, seed=1, workers=Workers(rank=rank, count=2)) for rank in (0, 1)]
    for (_, labels), (_, even), (_, odd) in zip(first[:3], *shares, strict=False):
        assert (even, odd) == (labels[0::2], labels[1::2])


def test_test_images_are_cut_from_the_middle_and_counted_once(tree):
    stream = open_stream(tree, side=32, loaders=0)
    labels = torch.cat([labels for _, labels in stream.test_pass(batch=4)])
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert stream.example(16).shape == (16, 3, 32, 32)


def test_a_network_trains_from_a_stream(tree):
    stream = open_images(f"imagenet:{tree}", side=16)
    stream = type(stream)(**{**stream.__dict__, "loaders": 0})
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(8, 3),
    )  # fmt: skip
    finetune(model, stream, FinetuneConfig(epochs=8, batch=5, learning_rate=0.1, recalibrate_batches=2))
    assert evaluate(model, stream).share > 0.6


def test_a_corrupt_image_is_named_or_left_out(tree):
    (tree / "train" / "dog" / "2.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(RecipeError, match=r"dog/2\.png is corrupt; .*--skip-corrupt"):
        _pass(open_stream(tree, side=32, loaders=0), seed=0)
    stream = open_stream(tree, side=32, loaders=0, skip_corrupt=True)
    assert sum(len(labels) for _, labels in _pass(stream, seed=0)) == 14


def test_trees_that_cannot_be_used_are_refused(tree, tmp_path_factory):
    with pytest.raises(RecipeError, match=r"has no folder train"):
        open_images(f"imagenet:{tmp_path_factory.mktemp('nothing')}")
    for image in (tree / "val" / "eel").iterdir():
        image.unlink()
    with pytest.raises(RecipeError, match=r"val cannot be used: Found no valid file for the classes eel"):
        open_stream(tree, side=32)
    (tree / "val" / "eel").rmdir()
    with pytest.raises(RecipeError, match=r"different classes: eel is in only one"):
        open_stream(tree, side=32)
    (tree / "val" / "dog" / "0.png").rename(tree / "val" / "cat" / "9.png")
    for index in (1, 2):
        (tree / "val" / "dog" / f"{index}.png").unlink()
    (tree / "val" / "dog").rmdir()
    with pytest.raises(RecipeError, match=r"has only the class cat"):
        open_stream(tree, side=32)
