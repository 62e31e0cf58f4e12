"""What share of its datasheet does a GPU sustain?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, fields

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Shares of peak rate and bandwidth that kernels sustain, and what a launch costs.

    compute      share of the dense peak that a large tile approaches (can exceed 1: cards boost above the stated clock)
    bandwidth    share of the stated DRAM bandwidth
    l2_speedup   bandwidth of a working set that stays in L2, in units of DRAM bandwidth; 1 where no gain was seen
    overhead_us  one kernel: launch and drain
    split_us     the extra reduction of a split-K product
    origin       where these numbers come from
    """

    compute: float
    bandwidth: float
    overhead_us: float
    l2_speedup: float = 1.0
    split_us: float = 2.0
    origin: str = "given"

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "origin"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidShape(f"An efficiency's {name} must be positive and finite, got {value!r}.")


#: (architecture prefix, tensor cores) -> shares, first match wins: least squares on 400 rows of public GEMM recordings each.
#: docs/waves.md names the recordings and says how well the rest of them is met.
_SUSTAINED: tuple[tuple[str, bool, Efficiency], ...] = (
    ("Pascal", False, Efficiency(compute=0.93, bandwidth=0.46, overhead_us=5.0, origin="recordings of a P100, fp32")),
    ("Volta", False, Efficiency(compute=0.90, bandwidth=0.70, overhead_us=5.0, origin="recordings of a V100, fp32")),
    ("Ampere GA100", False, Efficiency(compute=0.90, bandwidth=0.70, overhead_us=3.7, origin="recordings of A100s, fp32")),
    ("Ampere GA100", True, Efficiency(compute=0.76, bandwidth=0.68, overhead_us=3.7, split_us=1.8, origin="recordings of an A100, bf16")),
    ("Ampere GA102", True, Efficiency(compute=0.94, bandwidth=0.97, overhead_us=5.2, split_us=0.5, origin="recordings of an RTX 3090, fp16")),
    ("Ada", True, Efficiency(compute=0.62, bandwidth=0.68, overhead_us=1.6, l2_speedup=2.0, split_us=0.75, origin="recordings of an L40S, bf16")),
    ("Blackwell GB202", True, Efficiency(compute=0.82, bandwidth=0.77, overhead_us=2.35, l2_speedup=1.8, split_us=0.8, origin="recordings of an RTX PRO 6000, bf16")),
)  # fmt: skip


def default_efficiency(device: DeviceSpec, *, tensor_cores: bool) -> Efficiency:
    """The shares seen on this architecture; on one without recordings, those of the A100, and `origin` says so."""
    for prefix, tensor, efficiency in _SUSTAINED:
        if device.architecture.startswith(prefix) and tensor == tensor_cores:
            return efficiency
    stand_in = next(e for prefix, tensor, e in _SUSTAINED if prefix == "Ampere GA100" and tensor == tensor_cores)
    return dataclasses.replace(stand_in, origin=f"assumed as on an A100, no recordings of {device.architecture}")
