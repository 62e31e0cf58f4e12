from __future__ import annotations

import pytest

from tailprune.core.errors import InvalidShape
from tailprune.waves import blocks_per_sm, default_efficiency, known_devices, load_device, tile_menu


def test_every_known_device_loads_under_its_own_name_with_sources():
    assert len(known_devices()) == 27
    for name in known_devices():
        device = load_device(name)
        assert device.name == name
        for field in (
            "num_sms",
            "sm_clock_hz",
            "dram_bytes_per_s",
            "l2_bytes",
            "shared_bytes_per_sm",
            "peak_flops_per_s",
        ):
            assert device.sources[field], (name, field)
        assert device.peak("float32") > 0


@pytest.mark.parametrize(
    ("short", "full", "sms"),
    [
        ("h200", "H200 SXM", 132),
        ("H100", "H100 SXM5", 132),
        ("a100", "A100 80GB SXM", 108),
        ("rtx3090", "RTX 3090", 82),
        ("V100", "V100 SXM2", 80),
        ("t4", "T4", 40),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 128),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB SXM/PCIe", 108),
        ("Tesla V100-SXM2-16GB", "V100 SXM2", 80),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5", 132),
    ],
)
def test_short_names_and_driver_names_resolve(short, full, sms):
    device = load_device(short)
    assert (device.name, device.num_sms) == (full, sms)


@pytest.mark.parametrize("name", ["h300", "rtx9090", "", "cuda"])
def test_an_unknown_device_names_close_ones(name):
    with pytest.raises(InvalidShape, match=r"Unknown device .*known and close: .+Use one of those"):
        load_device(name)


def test_a_missing_unit_is_named_not_invented():
    with pytest.raises(InvalidShape, match=r"V100 SXM2 has no stated peak for bfloat16; known: float16, float32"):
        load_device("v100").peak("bfloat16")


def test_unconfirmed_figures_stay_visible():
    assert "unconfirmed" in load_device("titanv").sources["num_sms"]
    assert load_device("rtx a6000").sources["num_sms"].startswith("unconfirmed")
    assert "unconfirmed" in load_device("h200").sources["peak_flops_per_s[int8]"]


@pytest.mark.parametrize("name", known_devices())
def test_every_device_holds_at_least_one_tile_of_each_menu(name):
    device = load_device(name)
    for dtype in device.peak_flops_per_s:
        resident = [blocks_per_sm(device, tile) for tile in tile_menu(device, dtype)]
        assert max(resident) >= 1
        for tile, blocks in zip(tile_menu(device, dtype), resident, strict=True):
            assert blocks * tile.threads <= device.max_threads_per_sm
            assert blocks * tile.shared_bytes <= device.shared_bytes_per_sm


def test_volta_sgemm_has_two_large_blocks_per_sm():
    v100 = load_device("v100")
    assert [blocks_per_sm(v100, t) for t in tile_menu(v100, "float32") if (t.m, t.n) == (128, 128)] == [2]


def test_an_architecture_without_recordings_says_whose_shares_it_borrows():
    assert "no recordings of Hopper" in default_efficiency(load_device("h200"), tensor_cores=True).origin
    assert "L40S" in default_efficiency(load_device("l4"), tensor_cores=True).origin
