"""Weights from files: tensors only, nothing in them is ever run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import FormatError

if TYPE_CHECKING:
    import torch


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from safetensors or torch.save; pickled objects are never run."""
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FormatError(f"Weights file {path} does not exist.") from error
    except Exception as error:
        raise FormatError(
            f"Weights file {path} cannot be read as tensors only ({type(error).__name__}); save a state dict or safetensors."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise FormatError(f"Weights file {path} holds no state dict; save `model.state_dict()`.")
    return {k.removeprefix("module."): v for k, v in state.items()}


def load_weights(module: torch.nn.Module, path: Path, spec: str) -> None:
    """Strictly: every key of the model, and no other."""
    state = read_state(path)
    own = module.state_dict()
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    wrong = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or wrong:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])})"
            for what, keys in (("missing", missing), ("unknown", extra), ("of another size", wrong))
            if keys
        ]
        raise FormatError(f"Weights file {path} is not of {spec}: keys {'; '.join(parts)}.")
    module.load_state_dict(state)
