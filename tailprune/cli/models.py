"""`--model` and its companions: how a network is named on the command line, and where its weights come from."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import FormatError, InvalidShape, MissingDependency
from ..core.graph import ModelGraph

if TYPE_CHECKING:
    import torch

#: What torchvision's own preprocessing feeds its classifiers; other models say so with --input-shape.
DEFAULT_INPUT = (3, 224, 224)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network ready to be traced: float32, eval mode, batch 1; batch, dtype and layout are those asked for."""

    name: str
    module: torch.nn.Module
    input_shape: tuple[int, ...]
    batch: int
    dtype: str
    memory_format: str
    weights: str  # a file's name, or "random"

    def example(self, batch: int = 1) -> torch.Tensor:
        import torch

        return torch.randn(batch, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def trace(self) -> ModelGraph:
        from ..tracing import trace_model

        graph = trace_model(self.module, self.example(), name=self.name)
        return graph.at_batch(self.batch, dtype=self.dtype, memory_format=self.memory_format)


def load_model(
    spec: str,
    *,
    weights: Path | None,
    input_shape: str | None,
    batch: int,
    dtype: str,
    memory_format: str,
    seed: int = 0,
) -> LoadedModel:
    """The network a spec names: `torchvision:NAME`, `timm:NAME` or `path/to/file.py:build`."""
    import torch

    if batch < 1:
        raise InvalidShape(f"--batch must be at least 1, got {batch}.")
    torch.manual_seed(seed)
    module = _builder(spec)().eval()
    if weights is not None:
        _load_weights(module, weights, spec)
    return LoadedModel(
        name=spec,
        module=module,
        input_shape=_input_shape(input_shape, spec),
        batch=batch,
        dtype=dtype,
        memory_format=memory_format,
        weights=weights.name if weights else "random",
    )


def _builder(spec: str) -> Callable[[], Any]:
    source, _, name = spec.rpartition(":")
    if source == "torchvision":
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise InvalidShape(f"torchvision has no classification model {name!r}; {_close(name, known)}")
        extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return lambda: torchvision.models.get_model(name, weights=None, **extra)
    if source == "timm":
        try:
            import timm
        except ImportError as error:
            raise MissingDependency(f"{spec} needs timm, which is not installed; run `pip install timm`.") from error
        if not timm.is_model(name):
            raise InvalidShape(f"timm has no model {name!r}; {_close(name, timm.list_models())}")
        return lambda: timm.create_model(name, pretrained=False)
    if source.endswith(".py"):
        return _from_file(Path(source), name)
    raise InvalidShape(f"Model {spec!r} is not understood; write torchvision:NAME, timm:NAME or path/to/file.py:build.")


def _from_file(path: Path, function: str) -> Callable[[], Any]:
    if not path.is_file():
        raise InvalidShape(
            f"Model file {path} does not exist; write path/to/file.py:build with a function that returns the model."
        )
    unique = f"_tailprune_model_{path.stem}"  # never shadows an installed module
    module_spec = importlib.util.spec_from_file_location(unique, path)
    assert module_spec is not None and module_spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[unique] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise InvalidShape(f"Model file {path} fails on import: {type(error).__name__}: {error}.") from error
    if not callable(getattr(module, function, None)):
        functions = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))
        raise InvalidShape(f"{path} has no function {function!r}; it has {', '.join(functions[:8]) or 'none'}.")
    build: Callable[[], Any] = getattr(module, function)
    return build


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


def _load_weights(module: torch.nn.Module, path: Path, spec: str) -> None:
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


def _input_shape(text: str | None, spec: str) -> tuple[int, ...]:
    if text is None:
        return (3, 299, 299) if spec.endswith(":inception_v3") else DEFAULT_INPUT
    try:
        sides = tuple(int(side) for side in text.replace("x", ",").split(","))
    except ValueError:
        sides = ()
    if not sides or min(sides) < 1:
        raise InvalidShape(
            f"--input-shape {text!r} is not understood; write channels,rows,columns without the batch, such as 3,224,224."
        )
    return sides


def _close(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, 4)
    return (
        f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(known[:5])} and {len(known) - 5} others."
    )
