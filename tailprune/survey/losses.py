"""What does a layer's time go into, besides arithmetic at the peak rate? A split that adds up, by a device's datasheet and wave model."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..core.shapes import LayerShape
from ..waves import WaveModel, WaveProfile, tile_menu


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSplit:
    """Microseconds of one or more layers, in six parts that add up to their latency.

    With latency L, F useful FLOP, B bytes moved once, peak rate P, stated bandwidth D, the model's time t0 of an empty kernel
    and its grid of N tiles on S SMs, each part at most what the parts before it left over:

        useful = F / P                               arithmetic at the peak rate
        launch = t0                                  starting a kernel
        memory = B / D - F / P                       bytes that take longer to move than to compute on; all that is left
                                                     where that is so and the model does not hold arithmetic for the limit
        tail   = R (1 - N / (S ceil(N / S)))         SMs without a tile while the last ones work;  R = L - launch - memory
        tile   = R N / (S ceil(N / S)) (1 - e)       tiles that reach beyond the output; e is the tile efficiency
        rest                                         kernels below the peak rate, for reasons that are not told apart

    Tail and tile are counted only where the model holds arithmetic for the limit: what waits for bytes waits for no SM.
    """

    useful_us: float = 0.0
    launch_us: float = 0.0
    memory_us: float = 0.0
    tail_us: float = 0.0
    tile_us: float = 0.0
    rest_us: float = 0.0

    @property
    def total_us(self) -> float:
        return sum(getattr(self, part) for part in PARTS)

    def times(self, calls: int) -> TimeSplit:
        return TimeSplit(**{part: calls * getattr(self, part) for part in PARTS})

    def __add__(self, other: TimeSplit) -> TimeSplit:
        return TimeSplit(**{part: getattr(self, part) + getattr(other, part) for part in PARTS})


#: The parts, in the order in which they take their share.
PARTS: tuple[str, ...] = tuple(field.name for field in fields(TimeSplit))


def split_time(shape: LayerShape, latency_us: float, model: WaveModel) -> TimeSplit:
    """The parts of this latency of one call, whoever measured or modelled it."""
    device, profile = model.device, model.profile(shape)
    useful = 2e6 * shape.macs / device.peak(shape.dtype)
    moving = 1e6 * shape.num_bytes / device.dram_bytes_per_s
    left = latency_us

    def take(us: float) -> float:
        nonlocal left
        taken = min(max(us, 0.0), left)
        left -= taken
        return taken

    useful_us = take(useful)
    launch_us = take(empty_kernel_us(model, shape.dtype))
    by_arithmetic = profile.bound == "compute"
    memory_us = take(moving - useful if by_arithmetic or moving <= useful else left)
    arithmetic = latency_us - launch_us - memory_us if by_arithmetic else 0.0
    busy = sms_busy(profile, device.num_sms)
    tail_us = take(arithmetic * (1 - busy))
    tile_us = take(arithmetic * busy * (1 - profile.tile_efficiency))
    return TimeSplit(
        useful_us=useful_us, launch_us=launch_us, memory_us=memory_us, tail_us=tail_us, tile_us=tile_us, rest_us=left
    )


def sms_busy(profile: WaveProfile, num_sms: int) -> float:
    """Share of the SMs' time with a tile to work on, in (0, 1]: blocks that share an SM share its rate, so rounds count, not waves."""
    rounds = -(-profile.num_tiles // num_sms)
    return profile.num_tiles / (rounds * num_sms)


def empty_kernel_us(model: WaveModel, dtype: str) -> float:
    """What the model charges for a kernel that does next to nothing."""
    return model.latency_us(LayerShape(op="elementwise", batch=1, in_channels=1, out_channels=1, dtype=dtype))


def occupancy(profile: WaveProfile, model: WaveModel, dtype: str) -> float | None:
    """Resident warps over the most an SM holds, during a full wave; None for kernels whose threads the model does not state."""
    threads = next((t.threads for t in tile_menu(model.device, dtype) if (t.m, t.n) == profile.tile), None)
    if threads is None:
        return None
    return profile.wave_size / model.device.num_sms * threads / model.device.max_threads_per_sm
