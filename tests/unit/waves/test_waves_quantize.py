from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.core.shapes import Gemm, ceil_div
from tailprune.waves import WaveProfile, quantize, widest_in_waves

SIZES = st.integers(1, 5000)
TILES = st.sampled_from((16, 32, 64, 128, 256))


@pytest.mark.parametrize(
    ("sms", "width", "waves", "fill_percent"),
    [(132, 256, 2, 48), (132, 129, 2, 48), (132, 512, 3, 97), (108, 512, 4, 63), (80, 512, 5, 90)],
)
def test_the_worked_layer_on_three_gpus(sms, width, waves, fill_percent):
    """3x3 at 14x14, batch 64: m = 12544, tile 128x128, one block per SM."""
    profile = quantize(Gemm(m=12544, n=width, k=4608), tile_m=128, tile_n=128, wave_size=sms)
    assert profile.num_waves == waves
    assert int(profile.tail_fill * 100 + 0.5) == fill_percent


@given(
    m=SIZES,
    n=SIZES,
    count=st.integers(1, 64),
    tile_m=TILES,
    tile_n=TILES,
    wave=st.integers(1, 2000),
    split=st.integers(1, 16),
)
def test_shares_are_shares_and_the_tail_completes_the_waves(m, n, count, tile_m, tile_n, wave, split):
    p = quantize(Gemm(m=m, n=n, k=64, count=count), tile_m=tile_m, tile_n=tile_n, wave_size=wave, split_k=split)
    assert 0 < p.tail_fill <= 1
    assert 0 < p.wave_efficiency <= 1
    assert 0 < p.tile_efficiency <= 1
    assert (p.num_waves - 1) * wave + p.tail_tiles == p.num_tiles
    assert p.num_tiles == ceil_div(m, tile_m) * ceil_div(n, tile_n) * count * split


@given(waves=st.integers(1, 6), m=SIZES, tile_m=TILES, tile_n=TILES, wave=st.integers(1, 300))
def test_the_widest_width_is_the_last_one_within_its_waves(waves, m, tile_m, tile_n, wave):
    def waves_at(n: int) -> int:
        return quantize(Gemm(m=m, n=n, k=1), tile_m=tile_m, tile_n=tile_n, wave_size=wave).num_waves

    widest = widest_in_waves(waves, m=m, tile_m=tile_m, tile_n=tile_n, wave_size=wave)
    assert widest >= 0
    if widest:
        assert waves_at(widest) <= waves
    assert waves_at(widest + 1) > waves
    near = range(max(1, widest - 2 * tile_n), widest + 2 * tile_n)
    assert max((n for n in near if waves_at(n) <= waves), default=0) == widest


@pytest.mark.parametrize(
    "bad", [{"num_tiles": 0}, {"wave_size": 0}, {"tile_efficiency": 0.0}, {"tile_efficiency": 1.5}]
)
def test_a_profile_refuses_the_impossible(bad):
    with pytest.raises(InvalidShape):
        WaveProfile(**({"num_tiles": 1, "wave_size": 1, "tile_efficiency": 1.0} | bad))
