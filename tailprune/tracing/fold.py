"""The model as it is deployed: evaluation mode, norms folded into the layers before them."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ..core.errors import TraceError
from ..core.graph import ModelGraph


def fold_norms(model: nn.Module, graph: ModelGraph) -> nn.Module:
    """A copy in evaluation mode with every norm that `graph` folds merged into its layer; `model` stays as it is.

    A batch norm in evaluation mode is affine per channel, y = a x + b with a = gamma / sqrt(var + eps), so that with a
    layer W x + c in front of it

        y = (a W) x + (a (c - mean) + beta).

    Outputs equal those of the model in evaluation mode but for rounding. `graph` may be that of the dense model: only the
    names of layers and norms are read, so that a pruned model folds by its dense trace. TraceError if they are not there.
    """
    deployed = copy.deepcopy(model).eval()
    modules = dict(deployed.named_modules())
    done: set[str] = set()
    for layer in graph.layers:
        if layer.norm is None or layer.norm in done:
            continue
        name = layer.name if layer.name in modules else layer.name.rpartition(":")[0]
        affine, norm = modules.get(name), modules.get(layer.norm)
        fused: nn.Module
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and isinstance(affine, nn.modules.conv._ConvNd):
            fused = fuse_conv_bn_eval(affine, norm)
        elif isinstance(norm, nn.modules.batchnorm._BatchNorm) and isinstance(affine, nn.Linear):
            fused = fuse_linear_bn_eval(affine, norm)
        else:
            raise TraceError(
                f"{type(model).__name__} has no layer {name} followed by a batch norm {layer.norm}; the graph is that of "
                f"{graph.model}. Trace this model first."
            )
        _replace(deployed, name, fused)
        _replace(deployed, layer.norm, nn.Identity())
        done.add(layer.norm)
    return deployed


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
