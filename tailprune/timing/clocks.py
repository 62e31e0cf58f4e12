"""What an NVIDIA device says of its own state: read through nvidia-ml-py where present, never set."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

#: Reasons to run below the asked clock that spoil a time: NVML's nvmlClocksEventReason bits.
SLOWDOWNS = {0x8: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
#: The board's power limit binds: how heavy kernels run in deployment too, so it is noted but spoils nothing.
POWER_CAP = 0x4


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """The device at one moment; empty strings and zeros where NVML is absent."""

    sm_clock_hz: float = 0.0
    memory_clock_hz: float = 0.0
    power_mode: str = ""
    driver: str = ""
    slowdowns: tuple[str, ...] = ()
    power_capped: bool = False
    other_processes: int = 0

    @property
    def throttled(self) -> bool:
        return bool(self.slowdowns)

    @property
    def note(self) -> str:
        """One line of everything unusual; empty for a device that runs undisturbed."""
        parts = list(self.slowdowns)
        if self.power_capped:
            parts.append("power limit binds")
        if self.other_processes:
            parts.append(f"{self.other_processes} other process{'es' * (self.other_processes > 1)} on the device")
        return ", ".join(parts)


def load_nvml() -> ModuleType | None:
    """NVML, initialised; None where the library or the driver is absent."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


class Clocks:
    """Reads one CUDA device's clocks, power limit, throttle reasons and other users."""

    def __init__(self, device: torch.device, nvml: ModuleType | None = None) -> None:
        self._nvml = nvml
        self._handle: Any = None
        if nvml is not None:
            uuid = str(torch.cuda.get_device_properties(device).uuid)  # indices differ under CUDA_VISIBLE_DEVICES
            prefixed = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            try:
                self._handle = nvml.nvmlDeviceGetHandleByUUID(prefixed)
            except nvml.NVMLError:
                self._nvml = None

    def read(self) -> ClockReading:
        nvml, handle = self._nvml, self._handle
        if nvml is None:
            return ClockReading()

        def ask(name: str, *arguments: Any, default: Any) -> Any:
            try:
                return getattr(nvml, name)(*arguments)
            except (nvml.NVMLError, AttributeError):  # not on this board, this partition, or this library version
                return default

        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle, default=0)
        limit_mw = ask("nvmlDeviceGetEnforcedPowerLimit", handle, default=0)
        return ClockReading(
            sm_clock_hz=ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM, default=0) * 1e6,
            memory_clock_hz=ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM, default=0) * 1e6,
            power_mode=f"{round(limit_mw / 1000)} W" if limit_mw else "",
            driver=str(ask("nvmlSystemGetDriverVersion", default="")),
            slowdowns=tuple(name for bit, name in SLOWDOWNS.items() if reasons & bit),
            power_capped=bool(reasons & POWER_CAP),
            other_processes=max(0, len(ask("nvmlDeviceGetComputeRunningProcesses", handle, default=())) - 1),
        )
