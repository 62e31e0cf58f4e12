"""Cold L2: everything a block reads is pushed out of the device's cache before it runs."""

from __future__ import annotations

import torch

#: Written bytes per byte of L2. Twice its size leaves nothing behind under a replacement policy that is not quite LRU.
SIZES_OF_L2 = 2


class L2Flush:
    """Call it on the current stream; it writes a buffer twice the size of the device's L2."""

    def __init__(self, device: torch.device) -> None:
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        self._buffer = torch.empty(SIZES_OF_L2 * l2_bytes, dtype=torch.int8, device=device)

    def __call__(self) -> None:
        self._buffer.zero_()  # never read by a block, so its zeros cool nothing that is timed
