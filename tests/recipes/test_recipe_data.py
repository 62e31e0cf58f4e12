"""Are images read, split and shifted as promised, and is every unusable set refused in one sentence?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.data import BINARY_RECORD, load_images
from recipes.errors import RecipeError
from recipes.images import augment, normalize, training_batches
from recipes.packed import pack_images


@pytest.fixture
def tree(tmp_path):
    def plant(*folders: str, count: int = 5, size: tuple[int, int] = (32, 32)):
        for number, folder in enumerate(folders):
            (tmp_path / folder).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((size[1], size[0], 3), 10 * number + index, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
        return tmp_path

    return plant


def test_digits_are_all_there_and_split_alike_every_time():
    first, again = load_images("digits", num_classes=10), load_images("digits")
    assert len(first.train_images) + len(first.test_images) == 1797
    assert first.train_images.shape[1:] == (3, 32, 32)
    assert first.train_images.dtype == torch.uint8
    assert torch.equal(first.test_labels, again.test_labels)
    assert not first.flip
    assert torch.equal(first.train_images[:, 0], first.train_images[:, 2])
    assert first.example(400).shape == (400, 3, 32, 32)
    assert first.to("cpu").classes == first.classes


def test_image_folder_with_given_split_keeps_it(tree):
    images = load_images(f"imagefolder:{tree('train/cat', 'train/dog', 'val/cat', 'val/dog', size=(48, 64))}", side=16)
    assert images.classes == ("cat", "dog")
    assert images.train_images.shape == (10, 3, 16, 16)
    assert images.train_labels.tolist() == [0] * 5 + [1] * 5
    assert images.test_images[:, 0, 0, 0].tolist() == [20, 21, 22, 23, 24, 30, 31, 32, 33, 34]


def test_image_folder_without_split_is_split_by_seed(tree):
    images = load_images(f"imagefolder:{tree('a', 'b', 'c', count=10)}")
    assert (len(images.train_images), len(images.test_images)) == (24, 6)
    for pixels, labels in ((images.train_images, images.train_labels), (images.test_images, images.test_labels)):
        assert torch.equal(pixels[:, 0, 0, 0].long() // 10, labels) or set(
            (pixels[:, 0, 0, 0].long() - 10 * labels).tolist()
        ) <= set(range(10))


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (("train/cat", "test/cat"), r"only the class cat"),
        (("train/cat", "train/dog"), r"only one of train and test"),
        (("train/cat", "train/dog", "test/cat", "test/eel"), r"different classes: dog is in only one"),
        ((), r"no class folder"),
    ],
)
def test_unusable_folders_are_refused(tree, folders, sentence):
    with pytest.raises(RecipeError, match=sentence):
        load_images(f"imagefolder:{tree(*folders)}")


def test_an_empty_class_is_refused_by_name(tree):
    root = tree("a", "b")
    (root / "c").mkdir()
    with pytest.raises(RecipeError, match=r"class folder \S+c is empty"):
        load_images(f"imagefolder:{root}")


def test_a_corrupt_image_is_named_or_left_out(tree):
    root = tree("a", "b")
    whole = (root / "a" / "3.png").read_bytes()
    (root / "a" / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecipeError, match=r"3\.png is corrupt; .*--skip-corrupt"):
        load_images(f"imagefolder:{root}")
    images = load_images(f"imagefolder:{root}", skip_corrupt=True)
    assert len(images.train_images) + len(images.test_images) == 9
    assert images.note == "1 corrupt image left out"


def test_a_class_with_corrupt_images_only_is_refused_even_when_skipping(tree):
    root = tree("a", "b", count=1)
    (root / "b" / "0.png").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"class b in \S+ has no readable image left"):
        load_images(f"imagefolder:{root}", skip_corrupt=True)


def test_a_set_too_large_for_memory_is_refused_before_reading(tree):
    with pytest.raises(RecipeError, match=r"GiB at 30000x30000"):
        load_images(f"imagefolder:{tree('a', 'b')}", side=30_000)


@pytest.mark.parametrize("spec", ["mnist", "cifar10", "digits:/somewhere", "imagefolder:", ""])
def test_unknown_data_is_refused(spec):
    with pytest.raises(RecipeError, match=r"allowed: digits, cifar10:DIR, imagefolder:DIR"):
        load_images(spec)


def test_a_missing_folder_and_a_wrong_class_count_are_refused(tree, tmp_path):
    with pytest.raises(RecipeError, match=r"does not exist"):
        load_images(f"cifar10:{tmp_path / 'absent'}")
    with pytest.raises(RecipeError, match=r"10 classes, but the network distinguishes 7"):
        load_images("digits", num_classes=7)
    with pytest.raises(RecipeError, match=r"has 2 classes, CIFAR-10 has 10"):
        load_images(f"cifar10:{tree('train/a', 'train/b', 'test/a', 'test/b')}")


def test_torchvisions_pickles_are_not_read(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(RecipeError, match=r"pickles, which can run code"):
        load_images(f"cifar10:{tmp_path}")


def _binary(folder, *, labels: range, names: int = 10):
    folder.mkdir()
    records = np.zeros((len(labels), BINARY_RECORD), dtype=np.uint8)
    records[:, 0], records[:, 1] = list(labels), 200  # the first red pixel
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (folder / name).write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{n}" for n in range(names)) + "\n")


def test_torchvisions_folder_in_its_binary_version_is_read(tmp_path):
    _binary(tmp_path / "cifar-10-batches-bin", labels=range(10))
    images = load_images(f"cifar10:{tmp_path}")
    assert images.classes[9] == "class9"
    assert images.train_labels.tolist() == list(range(10))
    assert images.test_images[0, :, 0, 0].tolist() == [200, 0, 0]


def test_damaged_binary_batches_are_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    _binary(folder, labels=range(10), names=5)
    with pytest.raises(RecipeError, match=r"labels beyond its 5 classes"):
        load_images(f"cifar10:{tmp_path}")
    (folder / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(RecipeError, match=r"test batches in \S+ are incomplete"):
        load_images(f"cifar10:{tmp_path}")


def test_augmentation_shifts_and_mirrors_whole_images():
    images = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(200, 3, 8, 8)
    still = augment(images, flip=False, shift=0, generator=torch.Generator())
    assert torch.equal(still, images)
    mirrored = augment(images, flip=True, shift=0, generator=torch.Generator().manual_seed(0))
    same = (mirrored == images).flatten(1).all(1)
    assert 60 < int(same.sum()) < 140
    assert torch.equal(mirrored[~same], images.flip(3)[~same])
    moved = augment(images, flip=False, shift=2, generator=torch.Generator().manual_seed(0))
    for image in moved:
        rows, columns = (image[0] > 0).any(1), (image[0] > 0).any(0)
        assert rows.sum() >= 6
        assert columns.sum() >= 6
        inside = image[0][rows][:, columns].long()
        assert (inside.diff(dim=1) == 1).all()
        assert (inside.diff(dim=0) == 8).all()
    assert len({bytes(image.contiguous().numpy().tobytes()) for image in moved}) > 10


def test_normalised_images_are_centred_and_channels_last():
    pixels = normalize(torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4))
    assert pixels.abs().max() < 0.02
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_a_pass_shows_every_image_once_and_leaves_out_a_lone_last_one(tree):
    images = load_images(f"imagefolder:{tree('train/a', 'train/b', 'test/a', 'test/b', count=7)}", side=8)
    seen = [labels for _, labels in training_batches(images, batch=14, shift=1, generator=torch.Generator())]
    assert torch.bincount(torch.cat(seen)).tolist() == [7, 7]
    assert [len(p) for p, _ in training_batches(images, batch=13, shift=1, generator=torch.Generator())] == [13]


def test_packed_images_are_read_back_and_other_files_refused(tree, tmp_path):
    images = load_images(f"imagefolder:{tree('train/a', 'train/b', 'test/a', 'test/b')}", side=8)
    pack_images(images, tmp_path / "set.safetensors")
    again = load_images(f"packed:{tmp_path / 'set.safetensors'}")
    assert (again.name, again.classes, again.flip) == (images.name, images.classes, images.flip)
    assert torch.equal(again.train_images, images.train_images)
    assert torch.equal(again.test_labels, images.test_labels)
    (tmp_path / "other.safetensors").write_bytes(b"no images")
    with pytest.raises(RecipeError, match=r"no packed image set .*python -m recipes\.data cifar10:DIR"):
        load_images(f"packed:{tmp_path / 'other.safetensors'}")
    with pytest.raises(RecipeError, match=r"Cannot write the images"):
        pack_images(images, tmp_path / "absent" / "set.safetensors")


def test_a_part_is_the_same_every_time(tree):
    images = load_images(f"imagefolder:{tree('train/a', 'train/b', 'test/a', 'test/b', count=9)}", side=8)
    part = images.part(6).tested_on(4)
    assert (len(part.train_images), len(part.test_labels)) == (6, 4)
    assert torch.equal(part.train_images, images.part(6).train_images)
    assert set(part.train_labels.tolist()) <= {0, 1}
