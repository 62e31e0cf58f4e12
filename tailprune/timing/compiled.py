"""A module as torch.compile runs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .readings import Call

#: Dynamo gives up on a function after 8 versions of it, and all blocks share one `forward`. Each gets its own version.
MOST_VERSIONS = 100_000


def compiled_call(module: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    """Compiled for exactly these shapes, as a server of fixed batches would. Compiles here, in the first call."""
    compiled = torch.compile(module, dynamic=False)
    limits = {"recompile_limit": MOST_VERSIONS, "accumulated_recompile_limit": MOST_VERSIONS}
    with torch._dynamo.config.patch(limits):
        compiled(*inputs)
    return lambda: compiled(*inputs)
