"""Trained weights from a file, never by unpickling objects; wrong files are refused in one sentence."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.errors import RecipeError
from recipes.models.cifar_resnet import CifarResNet


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a torch checkpoint that holds plain tensors only.

    A checkpoint's `state_dict` entry and the `module.` prefix of DataParallel are unwrapped.
    """
    state: Any
    try:
        if Path(path).suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RecipeError(f"Cannot read the weights {path}: {error.strerror or error}.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise RecipeError(
            f"{path} is no file of plain tensors (or it is truncated); save it with "
            "safetensors.torch.save_file(model.state_dict(), ...) or torch.save(model.state_dict(), ...)."
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RecipeError(f"{path} holds no state dict: every entry must be a tensor.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `model` with the weights in `path`, all of them and nothing else."""
    _fill(model, read_state(path), path)


def resnet_from_weights(path: str | os.PathLike[str]) -> CifarResNet:
    """The CIFAR ResNet these weights belong to, read off their names and sizes."""
    state = read_state(path)
    places = [re.fullmatch(r"layer(\d+)\.(\d+)\.conv1\.weight", key) for key in state]
    blocks: dict[int, int] = {}
    for place in filter(None, places):
        blocks[int(place[1])] = max(blocks.get(int(place[1]), 0), int(place[2]) + 1)
    stages = range(1, len(blocks) + 1)
    wanted = [f"layer{stage}.0.conv2.weight" for stage in stages]
    if not blocks or set(blocks) != set(stages) or not {"linear.weight", *wanted} <= set(state):
        raise RecipeError(
            f"{path} holds no CIFAR ResNet: layers conv1, bn1, layerN.M.conv1 and linear are expected, "
            f"it starts with {', '.join(list(state)[:3]) or 'nothing'}."
        )
    model = CifarResNet(
        tuple(blocks[stage] for stage in stages),
        tuple(state[key].shape[0] for key in wanted),
        shortcut="projection" if any(".shortcut." in key for key in state) else "pad",
        num_classes=state["linear.weight"].shape[0],
    )
    _fill(model, state, path)
    return model


def _fill(model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    own = model.state_dict()
    counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}  # absent in files before torch 0.4.1
    state = {**counters, **state}
    missing, foreign = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or foreign:
        detail = f"{missing[0]} is missing" if missing else f"{foreign[0]} has no place in it"
        raise RecipeError(f"The weights {path} are of another model than {type(model).__name__}: {detail}.")
    for key, value in own.items():
        if value.shape != state[key].shape:
            raise RecipeError(
                f"The weights {path} are of another model than {type(model).__name__}: "
                f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}."
            )
    model.load_state_dict(state)


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Keep a network's tensors as safetensors: whole, or the file that was there before."""
    part = Path(f"{path}.part")
    try:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, part)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise RecipeError(f"Cannot write the weights {path} ({error}); is the disk full?") from error
