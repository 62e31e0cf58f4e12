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
    overhead_us  one kernel: launch and drain
    slice_us     what a lone thread block waits for one slice of k
    split_us     the extra reduction of a split-K product
    l2_speedup   bandwidth of a working set that is found in L2, in units of DRAM bandwidth; 1 where no gain was seen
    l2_share     share of the L2 up to which a working set is found there
    spread       8 in 10 matrix products lie between estimate / spread and estimate x spread
    origin       where these numbers come from
    """

    compute: float
    bandwidth: float
    overhead_us: float
    slice_us: float = 0.085
    split_us: float = 2.0
    l2_speedup: float = 1.0
    l2_share: float = 0.5
    spread: float = 2.0
    origin: str = "given"

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "origin"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidShape(f"An efficiency's {name} must be positive and finite, got {value!r}.")


#: (architecture prefix, tensor cores) -> shares, first match wins. Tensor cores: `calibrate` with wide priors on 1,200 rows of each
#: recording's fitting half, rounded. CUDA cores: set by hand between such fits to linear layers and (Volta) to convolutions, with a bare
#: kernel's overhead in place of the framework's. `spread`: 80th percentile on the test half, rounded up. docs/waves.md has the errors.
_SUSTAINED: tuple[tuple[str, bool, Efficiency], ...] = (
    ("Pascal", False, Efficiency(compute=0.68, bandwidth=0.46, overhead_us=5.0, slice_us=0.1, spread=1.95, origin="recordings of a P100, fp32")),
    ("Volta", False, Efficiency(compute=0.95, bandwidth=0.75, overhead_us=5.0, slice_us=0.3, l2_speedup=1.5, l2_share=0.4, spread=1.2, origin="recordings of V100s, fp32")),
    ("Ampere GA100", False, Efficiency(compute=0.90, bandwidth=0.70, overhead_us=3.0, slice_us=0.4, spread=1.2, origin="recordings of A100s, fp32")),
    ("Ampere GA100", True, Efficiency(compute=0.82, bandwidth=0.73, overhead_us=3.0, slice_us=0.097, split_us=2.4, spread=1.2, origin="recordings of an A100, bf16")),
    ("Ampere GA102", True, Efficiency(compute=1.08, bandwidth=0.90, overhead_us=3.6, slice_us=0.2, split_us=0.35, l2_speedup=2.0, l2_share=0.16, spread=1.2, origin="recordings of an RTX 3090, fp16")),
    ("Ada", True, Efficiency(compute=0.70, bandwidth=0.82, overhead_us=1.4, slice_us=0.07, split_us=2.4, l2_speedup=6.0, l2_share=0.12, spread=1.3, origin="recordings of an L40S, bf16")),
    ("Blackwell GB202", True, Efficiency(compute=0.89, bandwidth=0.84, overhead_us=1.8, slice_us=0.066, split_us=2.0, l2_speedup=3.3, l2_share=0.18, spread=1.25, origin="recordings of an RTX PRO 6000, bf16")),
)  # fmt: skip


#: The same with the A100's shares in place of a card's own (`borrowed` in benchmarks/waves.csv), worst matrix product, rounded up.
BORROWED_SPREAD = 2.25


def is_recorded(device: DeviceSpec) -> bool:
    """Whether any recording of this architecture stands behind the defaults; where not, even the edges are guesses."""
    return any(device.architecture.startswith(prefix) for prefix, _, _ in _SUSTAINED)


def default_efficiency(device: DeviceSpec, *, tensor_cores: bool) -> Efficiency:
    """The shares seen on this architecture; on one without recordings, those of the A100, and `origin` says so."""
    for prefix, tensor, efficiency in _SUSTAINED:
        if device.architecture.startswith(prefix) and tensor == tensor_cores:
            return efficiency
    stand_in = next(e for prefix, tensor, e in _SUSTAINED if prefix == "Ampere GA100" and tensor == tensor_cores)
    return dataclasses.replace(
        stand_in, spread=BORROWED_SPREAD, origin=f"assumed as on an A100, no recordings of {device.architecture}"
    )
