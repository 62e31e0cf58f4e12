"""What a GPU is made of, as far as waves are concerned. Every number carries its source."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import InvalidShape


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One device, or one partition of it.

    Rates are per second for the whole device, `peak_flops_per_s` per dtype with two FLOP per multiply-add, dense.
    `sources` names, per field, where the number comes from; "unconfirmed" is a legal source and stays visible.
    """

    name: str
    architecture: str
    compute_capability: str
    num_sms: int
    sm_clock_hz: float
    dram_bytes_per_s: float
    l2_bytes: int
    max_threads_per_sm: int
    shared_bytes_per_sm: int
    registers_per_sm: int = 65536  # CUDA C programming guide, compute capabilities 5.x to 12.x
    peak_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    partition: str = ""

    def __post_init__(self) -> None:
        for name in (
            "num_sms",
            "sm_clock_hz",
            "dram_bytes_per_s",
            "l2_bytes",
            "max_threads_per_sm",
            "shared_bytes_per_sm",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidShape(f"A device's {name} must be positive and finite, got {value!r} for {self.name}.")
        for dtype, peak in self.peak_flops_per_s.items():
            if not (math.isfinite(peak) and peak > 0):
                raise InvalidShape(f"The peak rate of {dtype} on {self.name} must be positive, got {peak!r}.")

    def peak(self, dtype: str) -> float:
        """Peak dense FLOP/s of a dtype; never invented where the datasheet is silent."""
        if dtype not in self.peak_flops_per_s:
            known = ", ".join(sorted(self.peak_flops_per_s)) or "none"
            raise InvalidShape(
                f"{self.name} has no stated peak for {dtype}; known: {known}. Use one of those, or add it with its source."
            )
        return self.peak_flops_per_s[dtype]

    def with_sms(self, num_sms: int, *, partition: str) -> DeviceSpec:
        """The same chip with fewer SMs (MIG, MPS, green contexts): every wave edge moves."""
        share = num_sms / self.num_sms
        peaks = {dtype: peak * share for dtype, peak in self.peak_flops_per_s.items()}
        return dataclasses.replace(self, num_sms=num_sms, peak_flops_per_s=peaks, partition=partition)
