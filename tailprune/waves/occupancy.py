"""How many thread blocks of a tile does one SM hold at a time?"""

from __future__ import annotations

from ..core.device import DeviceSpec
from .tiles import Tile

#: Resident thread blocks per SM by compute capability (CUDA C++ Programming Guide, technical specifications).
MAX_BLOCKS_PER_SM = {"7.5": 16, "8.6": 16, "8.7": 16, "8.9": 24, "12.0": 24}
#: All others in the list: 5.x, 6.x, 7.0, 7.2, 8.0, 9.0, 10.0.
DEFAULT_MAX_BLOCKS_PER_SM = 32
#: Registers a thread needs besides its accumulators: volta_sgemm_128x128 has 64 accumulators and 120-odd registers.
OPERAND_REGISTERS = 56
#: No thread has more (same table).
MAX_REGISTERS_PER_THREAD = 255
#: Shared memory the driver keeps for itself per thread block from compute capability 8.0 on (same guide).
RESERVED_SHARED_BYTES = 1024


def blocks_per_sm(device: DeviceSpec, tile: Tile) -> int:
    """Thread blocks resident on one SM: the scarcest of shared memory, registers, threads and block slots.

    0 if the tile does not fit on this device at all. The wave size is num_sms x blocks_per_sm.
    """
    major = int(device.compute_capability.split(".")[0])
    shared = tile.shared_bytes + (RESERVED_SHARED_BYTES if major >= 8 else 0)
    # Blackwell's data-center cards keep accumulators in tensor memory, Hopper and older in registers.
    accumulators = 0 if major == 10 and tile.k_bytes == 128 else -(-tile.m * tile.n // tile.threads)
    registers = min(accumulators + OPERAND_REGISTERS, MAX_REGISTERS_PER_THREAD) * tile.threads
    return min(
        device.shared_bytes_per_sm // shared,
        device.registers_per_sm // registers,
        device.max_threads_per_sm // tile.threads,
        MAX_BLOCKS_PER_SM.get(device.compute_capability, DEFAULT_MAX_BLOCKS_PER_SM),
    )
