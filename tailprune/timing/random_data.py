"""Random numbers to compute on. Never zeros: power draw, and with it the clock, depends on the bits that toggle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.shapes import ceil_div

#: Views start on multiples of this many elements: at least the 64 bytes of a cache line for every dtype.
ALIGNMENT = 64


class RandomBank:
    """One flat tensor of standard normal numbers per dtype, handed out as views.

    Hundreds of timed blocks share their inputs this way; nothing may write into a view. The global random state is
    neither read nor changed.

    >>> bank = RandomBank("cpu")
    >>> bank.view((2, 3, 4, 4), torch.float32, channels_last=True).is_contiguous(memory_format=torch.channels_last)
    True
    """

    def __init__(self, device: torch.device | str, seed: int = 0) -> None:
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._flat: dict[torch.dtype, Tensor] = {}

    def view(self, size: tuple[int, ...], dtype: torch.dtype, *, channels_last: bool = False, place: int = 0) -> Tensor:
        """A view of `size`; views of equal size at different `place` share no memory."""
        count = math.prod(size)
        start = place * ceil_div(count, ALIGNMENT) * ALIGNMENT
        flat = self._at_least(start + count, dtype)[start : start + count]
        if channels_last and len(size) == 4:
            batch, channels, rows, columns = size
            return flat.view(batch, rows, columns, channels).permute(0, 3, 1, 2)
        return flat.view(size)

    def scratch(self, num_bytes: int) -> Tensor:
        """Float32 numbers to read, `num_bytes` of them."""
        return self.view((num_bytes // 4,), torch.float32)

    def fill(self, held: Tensor, std: float) -> None:
        """Write N(0, std^2) into a tensor, whose strides stay what they are."""
        channels_last = held.dim() == 4 and not held.is_contiguous()
        torch.mul(self.view(tuple(held.shape), held.dtype, channels_last=channels_last), std, out=held)

    def _at_least(self, count: int, dtype: torch.dtype) -> Tensor:
        held = self._flat.get(dtype)
        if held is None or held.numel() < count:
            held = torch.randn(count, generator=self._generator, device=self.device).to(dtype)
            self._flat[dtype] = held
        return held
