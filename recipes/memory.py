"""Out of memory: which batch would have fitted?"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def batch_that_fits(model: nn.Module, pixels: Tensor, batch: int) -> str:
    """One sentence that names the largest halving of `batch` whose forward and backward pass fit."""
    share = len(pixels)
    while share > 2:
        share //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            model(pixels[:share]).float().sum().backward()
        except torch.OutOfMemoryError:
            continue
        finally:
            model.zero_grad(set_to_none=True)
        fits = batch * share // len(pixels)
        return f"A batch of {batch} does not fit into this device's memory; {fits} does. Set batch={fits}, and the learning rate by the same factor."
    return f"A batch of {batch} does not fit into this device's memory, nor does any smaller one; free memory or use a smaller network."
