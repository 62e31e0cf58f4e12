"""Clocks through a made-up NVML: what it reports becomes flags and notes, what it lacks becomes empty."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tailprune.timing.clocks import ClockReading, Clocks, load_nvml


class NVMLError(Exception):
    pass


class Nvml:
    """The part of pynvml that is read; nothing that sets anything exists here, so a call to it would fail."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    def __init__(self, reasons: int = 0, processes: int = 1) -> None:
        self.reasons, self.processes = reasons, processes
        self.asked: list[str] = []

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return "handle"

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.reasons

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return {1: 1980, 2: 3201}[kind]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        raise NVMLError("not supported")

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.1"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[object]:
        return [object()] * self.processes


@pytest.fixture(autouse=True)
def one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))


def read(**state: Any) -> ClockReading:
    return Clocks(torch.device("cuda", 0), Nvml(**state)).read()


def test_reads_clocks_in_hertz_and_leaves_what_is_not_supported_empty() -> None:
    reading = read()
    assert (reading.sm_clock_hz, reading.memory_clock_hz) == (1.98e9, 3.201e9)
    assert (reading.power_mode, reading.driver, reading.note) == ("", "570.1", "")
    assert not reading.throttled


def test_finds_the_device_by_its_identity() -> None:
    nvml = Nvml()
    Clocks(torch.device("cuda", 0), nvml)
    assert nvml.asked == ["GPU-1234"]


@pytest.mark.parametrize(("bit", "name"), [(0x8, "hardware slowdown"), (0x20, "software thermal"), (0x40, "hardware thermal"), (0x80, "power brake")])  # fmt: skip
def test_slowdowns_throttle(bit: int, name: str) -> None:
    reading = read(reasons=bit)
    assert reading.throttled
    assert reading.note == name


@pytest.mark.parametrize("reasons", [0x1, 0x2, 0x10, 0x4])
def test_idle_and_power_limits_do_not(reasons: int) -> None:
    reading = read(reasons=reasons)
    assert not reading.throttled
    assert reading.note == ("power limit binds" if reasons == 0x4 else "")


def test_other_processes_are_noted() -> None:
    assert read(processes=3).note == "2 other processes on the device"


def test_without_nvml_everything_is_empty() -> None:
    assert Clocks(torch.device("cuda", 0), None).read() == ClockReading()
    assert ClockReading().power_mode == ClockReading().driver == ""


def test_an_absent_library_or_driver_is_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise NVMLError("driver not loaded")

    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert load_nvml() is None
    module = SimpleNamespace(NVMLError=NVMLError, nvmlInit=no_driver)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert load_nvml() is None
    module.nvmlInit = lambda: None
    assert load_nvml() is module


def test_a_device_that_nvml_does_not_know_reads_empty() -> None:
    nvml = Nvml()

    def unknown(uuid: str) -> str:
        raise NVMLError("not found")

    nvml.nvmlDeviceGetHandleByUUID = unknown
    assert Clocks(torch.device("cuda", 0), nvml).read() == ClockReading()
