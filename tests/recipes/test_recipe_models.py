"""Do the recipes' networks have the published form, load their weights, and prune where they say they can?"""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning
from safetensors.torch import save_file
from torch.nn import functional as F

from recipes.errors import RecipeError
from recipes.models import (
    CifarResNet,
    build_model,
    load_weights,
    mobilenet_v2_32,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
    resnet_from_weights,
    save_weights,
    slim_resnet,
    spell_out_shortcuts,
)

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("build", "parameters"), [(resnet20, 269_722), (resnet56, 853_018)])
def test_parameter_counts_are_the_papers(build, parameters):
    model = build()  # 0.27 M and 0.85 M in He et al. 2016, table 6
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert {"conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer3.2.bn2.weight", "linear.bias"} <= set(
        model.state_dict()
    )
    assert not any("shortcut" in key for key in model.state_dict())


def test_padded_shortcut_puts_a_quarter_of_the_new_width_on_each_side():
    x = torch.randn(1, 16, 8, 8)
    out = resnet20().layer2[0].shortcut(x)
    assert out.shape == (1, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


@pytest.mark.parametrize(("shortcut", "widths"), [("pad", (16, 33)), ("pad", (32, 16)), ("learned", (16, 32))])
def test_impossible_shortcuts_are_refused(shortcut, widths):
    with pytest.raises(RecipeError, match=r"shortcut"):
        CifarResNet((1, 1), widths, shortcut=shortcut)


def _prune(model: torch.nn.Module, ratio: float) -> dict[str, tuple[int, int]]:
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        IMAGES,
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=ratio,
        ignored_layers=[model.linear, *model.unprunable_layers()],
        round_to=None,
    )
    pruner.step()
    return {
        name: (m.in_channels, m.out_channels) for name, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)
    }


def test_padded_network_prunes_inside_its_blocks_only_and_still_runs():
    model = resnet20().eval()
    sizes = _prune(model, 0.5)
    assert sizes["layer2.0.conv1"] == (16, 16)
    assert sizes["layer2.0.conv2"] == (16, 32)
    assert sizes["conv1"] == (3, 16)
    assert model(IMAGES).shape == (2, 10)


def test_pruning_inside_a_block_of_the_padded_network_equals_zeroing():
    model = resnet20().eval()
    block = model.layer2[0]
    lost = [0, 3, 17]
    with torch.no_grad():
        for parameter in (block.bn1.weight, block.bn1.bias):
            parameter[lost] = 0
    wanted = model(IMAGES)
    graph = torch_pruning.DependencyGraph().build_dependency(model, IMAGES)
    graph.get_pruning_group(block.conv1, torch_pruning.prune_conv_out_channels, idxs=lost).prune()
    assert block.conv1.out_channels == 29
    torch.testing.assert_close(model(IMAGES), wanted, atol=1e-4, rtol=1e-4)


def test_every_group_of_the_slim_network_is_prunable():
    model = slim_resnet(2).eval()
    assert model.unprunable_layers() == []
    sizes = _prune(model, 0.25)
    assert sizes["conv1"] == (3, 24)
    assert sizes["layer3.1.conv2"] == (96, 96)
    assert model(IMAGES).shape == (2, 10)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_find_their_architecture(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    for model in (CifarResNet((1, 2), (8, 12), num_classes=3), CifarResNet((2, 1), (8, 12), shortcut="projection")):
        state = {f"module.{key}": value for key, value in model.state_dict().items()}
        save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
        again = resnet_from_weights(path)
        assert torch.equal(again.eval()(IMAGES), model.eval()(IMAGES))


def test_old_files_without_batch_counters_load(tmp_path):
    model = resnet20()
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pt")
    assert torch.equal(resnet_from_weights(tmp_path / "old.pt").linear.weight, model.linear.weight)


class _Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not a checkpoint", r"no file of plain tensors"),
        (_Surprise(), r"no file of plain tensors"),
        ({"a": 1}, r"every entry must be a tensor"),
        ({"fc.weight": torch.zeros(2)}, r"holds no CIFAR ResNet"),
    ],
)
def test_foreign_weight_files_are_refused_without_running_them(tmp_path, capsys, content, sentence):
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(RecipeError, match=sentence):
        resnet_from_weights(path)
    assert "code ran" not in capsys.readouterr().out


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save(resnet20().state_dict(), tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"layer1\.3\.conv1\.weight is missing"):
        load_weights(resnet56(), tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"linear\.weight is \(10, 64\), expected \(3, 64\)"):
        load_weights(resnet20(num_classes=3), tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"layer1\.1\.\S+ has no place in it"):
        load_weights(CifarResNet((1, 1, 1)), tmp_path / "w.pt")
    with pytest.raises(RecipeError, match=r"No such file"):
        load_weights(resnet20(), tmp_path / "absent.pt")


def test_logits_follow_the_formula_of_the_head():
    model = slim_resnet().eval()
    features = model.relu(model.bn1(model.conv1(IMAGES)))
    for stage in model.stages():
        features = stage(features)
    torch.testing.assert_close(F.linear(features.mean((2, 3)), model.linear.weight, model.linear.bias), model(IMAGES))


@pytest.mark.parametrize(("build", "parameters"), [(resnet32, 464_154), (resnet44, 658_586), (resnet110, 1_727_962)])
def test_deeper_networks_are_the_papers_too(build, parameters):
    assert sum(p.numel() for p in build().parameters()) == parameters  # 0.46 M, 0.66 M, 1.7 M


def test_spelled_out_shortcuts_change_nothing_but_what_can_be_pruned():
    padded = resnet20().eval()
    spelled = spell_out_shortcuts(copy.deepcopy(padded))
    assert torch.equal(spelled(IMAGES), padded(IMAGES))
    assert spelled.unprunable_layers() == []
    sizes = _prune(spelled, 0.5)
    assert sizes["conv1"] == (3, 8)
    assert sizes["layer3.2.conv2"] == (32, 32)


def test_mobilenet_for_small_images_keeps_its_resolution():
    model = mobilenet_v2_32().eval()
    assert sum(p.numel() for p in model.parameters()) == 2_236_682  # 2.2 M with ten classes
    assert model.features(IMAGES).shape == (2, 1280, 4, 4)


def test_models_are_built_by_name_and_wrong_names_are_refused(tmp_path):
    save_weights(resnet20(), tmp_path / "w.safetensors")
    model = build_model("resnet20-cifar", num_classes=10, weights=tmp_path / "w.safetensors")
    assert isinstance(model, CifarResNet)
    assert model.unprunable_layers() == []
    with pytest.raises(RecipeError, match=r"Unknown model 'vgg'; allowed: resnet20-cifar"):
        build_model("vgg", num_classes=10)
    with pytest.raises(RecipeError, match=r"no weights of resnet50 for 10 classes"):
        build_model("resnet50", num_classes=10, weights="torchvision")
