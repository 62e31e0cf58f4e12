"""`--model` and its companions: how a network is named on the command line, and what it is planned for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import InvalidShape, MissingDependency
from ..core.graph import ModelGraph
from .weights import load_weights

if TYPE_CHECKING:
    import torch

#: What torchvision's own preprocessing feeds its classifiers; other models say so with --input-shape.
DEFAULT_INPUT = (3, 224, 224)
PANEL = "Model"


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network, and what it is planned for."""

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="torchvision:NAME, timm:NAME or path/to/file.py:build.",
            rich_help_panel=PANEL,
            show_default=False,
        ),
    ]
    weights: Annotated[
        Path | None, typer.Option(help="Safetensors or a state dict; random weights otherwise.", rich_help_panel=PANEL)
    ] = None
    input_shape: Annotated[
        str | None,
        typer.Option(help="channels,rows,columns of one image; 3,224,224 if not given.", rich_help_panel=PANEL),
    ] = None
    batch: Annotated[int, typer.Option("--batch", "-b", help="Images per call.", rich_help_panel=PANEL)] = 1
    dtype: Annotated[str, typer.Option(help="float32, tf32, float16, bfloat16 or int8.", rich_help_panel=PANEL)] = (
        "float32"
    )
    memory_format: Annotated[str, typer.Option(help="channels_last or contiguous.", rich_help_panel=PANEL)] = (
        "channels_last"
    )


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A network ready to be traced: float32, eval mode, batch 1; its options say the batch, dtype and layout asked for."""

    options: NetworkOptions
    module: torch.nn.Module
    input_shape: tuple[int, ...]

    @property
    def weights(self) -> str:
        """A file's name, or "random"."""
        return self.options.weights.name if self.options.weights else "random"

    def example(self, batch: int = 1) -> torch.Tensor:
        import torch

        return torch.randn(batch, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def trace(self) -> ModelGraph:
        from ..tracing import trace_model

        asked = self.options
        graph = trace_model(self.module, self.example(), name=asked.model)
        return graph.at_batch(asked.batch, dtype=asked.dtype, memory_format=asked.memory_format)


def load_model(options: NetworkOptions, *, seed: int = 0) -> LoadedModel:
    """The network the options name: `torchvision:NAME`, `timm:NAME` or `path/to/file.py:build`."""
    import torch

    if options.batch < 1:
        raise InvalidShape(f"--batch must be at least 1, got {options.batch}.")
    torch.manual_seed(seed)
    module = _builder(options.model)().eval()
    if options.weights is not None:
        load_weights(module, options.weights, options.model)
    return LoadedModel(options=options, module=module, input_shape=_input_shape(options.input_shape, options.model))


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
