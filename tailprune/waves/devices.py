"""Which GPU is meant by a name, and what is it made of?"""

from __future__ import annotations

import csv
import difflib
import re
from functools import cache
from importlib.resources import files

from ..core.device import DeviceSpec
from ..core.errors import InvalidShape

#: Words that vendors put before a product name and people leave out.
_DECORATION = re.compile(r"nvidia|geforce|tesla|quadro|[^a-z0-9]")
#: dtype -> columns that state its dense peak, first filled one wins.
_PEAK_COLUMNS = {
    "float32": ("fp32_tflops",),
    "tf32": ("tf32_tensor_tflops",),
    "float16": ("fp16_tensor_tflops", "fp16_packed_tflops"),
    "bfloat16": ("bf16_tensor_tflops",),
    "int8": ("int8_tensor_tops",),
}


def _key(name: str) -> str:
    return _DECORATION.sub("", name.lower())


@cache
def _rows() -> tuple[dict[str, str], ...]:
    text = files("tailprune").joinpath("data/devices.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def _by_key() -> dict[str, dict[str, str]]:
    return {_key(name): row for row in _rows() for name in (row["gpu"], *row["aliases"].split())}


def known_devices() -> tuple[str, ...]:
    """Full names of every GPU that `load_device` knows, oldest architecture first.

    >>> "H200 SXM" in known_devices()
    True
    """
    return tuple(row["gpu"] for row in _rows())


def load_device(name: str) -> DeviceSpec:
    """The GPU a name stands for: case, punctuation and "NVIDIA", "GeForce", "Tesla" do not matter.

    A short name stands for the most common variant ("a100" is the 80 GB SXM card), which the returned `name` spells out.
    Raises InvalidShape for a name that is not known, listing close ones.

    >>> load_device("h200").num_sms, load_device("NVIDIA A100-SXM4-40GB").name
    (132, 'A100 40GB SXM/PCIe')
    """
    key = _key(name)
    row = _by_key().get(key)
    if row is None:
        near = difflib.get_close_matches(key, _by_key(), n=5, cutoff=0.4)
        close = dict.fromkeys(_by_key()[match]["gpu"] for match in near) or known_devices()
        raise InvalidShape(
            f"Unknown device {name!r}; known and close: {', '.join(close)}. "
            "Use one of those (`tailprune table devices` lists all), or describe the card with a DeviceSpec."
        )
    return _spec(row)


def _spec(row: dict[str, str]) -> DeviceSpec:
    peaks = {}
    for dtype, columns in _PEAK_COLUMNS.items():
        stated = [row[column] for column in columns if row[column]]
        if stated:
            peaks[dtype] = float(stated[0]) * 1e12
    compiled = row["sources"] or "unconfirmed"
    if row["note"] not in ("", "ok"):
        compiled += f" ({row['note']})"
    guide = "CUDA C++ Programming Guide, technical specifications per compute capability"
    sources = dict.fromkeys(
        ("num_sms", "sm_clock_hz", "dram_bytes_per_s", "l2_bytes", "max_threads_per_sm", "peak_flops_per_s"), compiled
    )
    sources |= {"shared_bytes_per_sm": guide, "registers_per_sm": guide}
    if "int8" in peaks:
        sources["peak_flops_per_s[int8]"] = "unconfirmed (data sheet, half the sparse figure)"
    if row["fp16_packed_tflops"]:
        sources["peak_flops_per_s[float16]"] = "packed fp16 without tensor cores: twice fp32"
    return DeviceSpec(
        name=row["gpu"],
        architecture=row["arch"],
        compute_capability=row["compute_capability"],
        num_sms=int(row["sm"]),
        sm_clock_hz=float(row["clock_mhz"]) * 1e6,
        dram_bytes_per_s=float(row["mem_gb_s"]) * 1e9,
        l2_bytes=int(float(row["l2_mb"]) * 2**20),
        max_threads_per_sm=int(row["max_threads_per_sm"]),
        shared_bytes_per_sm=int(row["shared_kb_per_sm"]) * 1024,
        registers_per_sm=int(row["registers_per_sm"]),
        peak_flops_per_s=peaks,
        sources=sources,
    )
