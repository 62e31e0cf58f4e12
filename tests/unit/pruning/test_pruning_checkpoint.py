from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from pruning_nets import IMAGES, small_net
from safetensors.torch import save_file
from test_pruning_apply import planned

from tailprune.core.errors import FormatError, InvalidShape, PlanMismatch
from tailprune.pruning import apply_plan, load_pruned, save_pruned
from tailprune.pruning.checkpoint import PRUNED_FORMAT, read_pruned


@pytest.fixture
def saved(tmp_path: Path):
    net = small_net()
    plan = planned(net)
    pruned = apply_plan(net, plan)
    path = tmp_path / "net.safetensors"
    save_pruned(pruned, plan, path)
    return net, plan, pruned, path


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_round_trip_into_a_module_and_a_factory(saved) -> None:
    net, plan, pruned, path = saved
    other = small_net(seed=5)  # dense weights do not matter
    assert same(load_pruned(other, path), pruned)
    assert not same(other, net)
    assert other.inner[0].out_channels == 24, "the given model stays dense"
    assert same(load_pruned(lambda: small_net(seed=6), path), pruned)
    assert read_pruned(path)[0][0] == plan


def test_plans_of_several_steps_are_replayed_in_order(tmp_path: Path) -> None:
    net = small_net()
    first = planned(net, 0.3)
    once = apply_plan(net, first)
    second = planned(once, 0.3)
    twice = apply_plan(once, second)
    path = tmp_path / "twice.safetensors"
    save_pruned(twice, [first, second], path)
    assert same(load_pruned(small_net(seed=9), path), twice)


def test_another_models_weights_are_refused(saved) -> None:
    with pytest.raises(PlanMismatch):
        load_pruned(small_net(width=24), saved[3])


def test_weights_that_do_not_fit_the_plan_are_named(saved, tmp_path: Path) -> None:
    net, plan, _, _ = saved
    path = tmp_path / "dense.safetensors"
    save_pruned(net, plan, path)
    with pytest.raises(PlanMismatch, match=r"does not fit SmallNet: .* in the file and .* in the model"):
        load_pruned(small_net(), path)


@pytest.mark.parametrize("keep", [0, 3, 50, 0.5, -1])
def test_a_truncated_file_is_one_sentence(saved, keep: float) -> None:
    path = saved[3]
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(FormatError, match="it may be truncated"):
        load_pruned(small_net(), path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(small_net().state_dict(), path)
    with pytest.raises(FormatError, match="pickle, which is never read"):
        load_pruned(small_net(), path)
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(FormatError, match="holds weights but no pruning plan"):
        load_pruned(small_net(), tmp_path / "plain.safetensors")
    (tmp_path / "text").write_text("hello, this is no tensor file")
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        load_pruned(small_net(), tmp_path / "text")
    with pytest.raises(FormatError, match="Cannot read"):
        load_pruned(small_net(), tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has tailprune-pruned version 2; this tailprune reads up to 1"),
        ({"format": "other"}, "its format is 'other'"),
        ({"plans": []}, "holds no pruning plan"),
        ({"plans": [{"format": "tailprune-plan", "version": 9}]}, "has tailprune-plan version 9"),
        ({"plans": [{"format": "tailprune-plan", "version": 1}]}, "is not a complete plan"),
    ],
)
def test_changed_metadata_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "net.safetensors"
    body = {"format": PRUNED_FORMAT, "version": 1, "plans": [{}], **change}
    save_file({"a": torch.zeros(1)}, path, metadata={PRUNED_FORMAT: json.dumps(body)})
    with pytest.raises(FormatError, match=message):
        read_pruned(path)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan, pruned, path = saved
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FormatError, match="No space left on device"):
        save_pruned(pruned, plan, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_saving_needs_a_plan_and_a_folder(saved, tmp_path: Path) -> None:
    _, plan, pruned, _ = saved
    with pytest.raises(InvalidShape, match="got none"):
        save_pruned(pruned, [], tmp_path / "x.safetensors")
    with pytest.raises(FormatError, match="Choose a folder that exists"):
        save_pruned(pruned, plan, tmp_path / "missing" / "x.safetensors")


def test_images_are_not_needed_to_load(saved) -> None:
    assert load_pruned(small_net, saved[3])(IMAGES).shape == (2, 10)
