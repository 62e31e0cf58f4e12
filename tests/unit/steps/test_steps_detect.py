"""`detect_steps` on curves whose steps are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape
from tailprune.steps import LatencyCurve, Staircase, detect_steps, edge_agreement


def curve_of(
    widths: np.ndarray, us: np.ndarray, noise: float = 0.0, *, known: bool = True, seed: int = 0
) -> LatencyCurve:
    """The curve with normal noise of this share; `known` says whether the detector is told."""
    noisy = us * (1 + noise * np.random.default_rng(seed).standard_normal(len(us)))
    return LatencyCurve(
        widths=tuple(int(w) for w in widths),
        latency_us=tuple(float(v) for v in noisy),
        noise_us=tuple(float(v) for v in noise * us) if known else (),
    )


def inner(staircase: Staircase) -> list[int]:
    return [edge.high for edge in staircase.edges]


def waves(widths: np.ndarray, period: int, slope: float = 0.0) -> np.ndarray:
    return 50 + 20.0 * -(-widths // period) + slope * widths


@pytest.mark.parametrize("period", [8, 16, 32, 100])
@pytest.mark.parametrize("slope", [0.0, 0.05])
@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_wave_steps_are_found_at_the_exact_width(period: int, slope: float, noise: float) -> None:
    w = np.arange(1, 257)
    found = detect_steps(curve_of(w, waves(w, period, slope), noise))
    assert inner(found) == list(range(period, 256, period))
    sure = sum(edge.verdict == "confirmed" for edge in found.edges)
    assert sure >= 0.97 * len(found.edges)


def test_a_slope_is_no_step() -> None:
    w = np.arange(8, 1025, 8)
    for noise in (0.0, 0.005, 0.02):
        for us in (w * 1.0, 20 + w * 0.5, np.full(len(w), 30.0)):
            assert inner(detect_steps(curve_of(w, us, noise))) == []


def test_short_and_tiny_curves() -> None:
    one = detect_steps(LatencyCurve(widths=(8,), latency_us=(5.0,)))
    assert one.edge_widths == (8,)
    assert not one.usable
    proportional = detect_steps(
        LatencyCurve(widths=(8, 16, 24, 32), latency_us=(5.0, 10.0, 15.0, 20.0), kind="modelled")
    )
    assert proportional.edge_widths == (32,)


def test_downward_steps_are_steps() -> None:
    w = np.arange(8, 513, 8)
    us = np.where(w > 128, 60.0, 90.0) + np.where(w > 320, 40.0, 0.0)
    found = detect_steps(curve_of(w, us, 0.005))
    assert [(e.high, e.verdict) for e in found.edges] == [(128, "confirmed"), (320, "confirmed")]
    assert found.edges[0].riser == pytest.approx(-1 / 3, abs=0.02)
    assert found.edges[1].riser == pytest.approx(2 / 3, abs=0.03)


def test_riser_is_what_exceeds_the_slope() -> None:
    w = np.arange(1, 129)
    us = 100 + 0.2 * w + np.where(w > 64, 30.0, 0.0)
    (edge,) = detect_steps(curve_of(w, us)).edges
    assert edge.high == 64
    assert edge.riser == pytest.approx(30 / us[63], rel=0.02)


def test_alignment_zig_zags_are_kept_where_the_noise_is_low() -> None:
    w = np.arange(65, 129)
    us = np.where(w % 2, 110.0, 100.0)
    found = detect_steps(curve_of(w, us, 0.003))
    assert inner(found) == list(range(65, 128))
    assert {edge.verdict for edge in found.edges} == {"confirmed"}


@pytest.mark.parametrize("period", [2, 4, 8])
def test_alignment_is_kept_though_the_noise_is_unknown(period: int) -> None:
    w = np.arange(1, 513)
    us = np.where(w % period, 130.0, 100.0) * np.where(w > 256, 1.5, 1.0)
    found = detect_steps(curve_of(w, us, 0.003, known=False))
    assert len(found.confirmed_edges) >= 0.94 * 2 * (512 // period)


def test_a_lone_notch_counts_where_the_noise_is_that_of_the_curve() -> None:
    """Recorded curves have one number per width: what sticks out of all their scatter would stick out of a second recording."""
    rng = np.random.default_rng(3)
    w = np.arange(1, 401)
    us = 100.0 * (1 + 0.004 * rng.standard_normal(len(w)))
    us[200] += 8.0
    unknown = LatencyCurve(widths=tuple(w.tolist()), latency_us=tuple(us.tolist()))
    assert detect_steps(unknown).confirmed_edges == (200, 201)
    stated = LatencyCurve(widths=unknown.widths, latency_us=unknown.latency_us, noise_us=(1.0,) * len(w))
    assert detect_steps(stated).confirmed_edges == ()


def test_a_lone_outlier_is_no_pair_of_edges() -> None:
    w = np.arange(8, 257, 8)
    us = np.full(len(w), 100.0)
    us[10] = 104.0
    curve = curve_of(w, us, 0.0)
    loud = [1.0] * len(w)
    loud[10] = 4.0  # its own raw times say that it is not to be trusted
    assert (
        inner(detect_steps(LatencyCurve(widths=curve.widths, latency_us=curve.latency_us, noise_us=tuple(loud)))) == []
    )
    quiet = LatencyCurve(widths=curve.widths, latency_us=curve.latency_us, noise_us=(0.6,) * len(w))
    assert not detect_steps(quiet).usable


def test_a_jump_by_a_factor_is_no_slope_though_plateaus_are_single_points() -> None:
    """A real line (MobileNetV2 features.2, 8 channels in, a CPU): its second width takes little more than half of the first, and less
    than half of the third. Three plateaus of one point each have no slope of their own, and passed for one falling plateau."""
    us = (158.1, 90.3, 209.4, 181.3, 314.7, 300.3, 412.8, 454.3, 549.0, 557.6, 657.0, 653.6)
    noise = (0.41, 3.01, 1.7, 0.49, 3.54, 4.0, 4.48, 3.49, 5.45, 3.76, 4.07, 8.28)
    found = detect_steps(LatencyCurve(widths=tuple(range(8, 97, 8)), latency_us=us, noise_us=noise, kind="measured"))
    assert {8, 16} <= set(inner(found))
    up = next(edge for edge in found.edges if edge.high == 16)
    assert up.verdict == "confirmed"
    assert up.riser > 0.5


def test_an_edge_inside_a_gap_is_ambiguous_and_beside_it_confirmed() -> None:
    w = np.array([*range(8, 65, 8), *range(96, 161, 8)])
    (edge,) = detect_steps(curve_of(w, np.where(w > 64, 130.0, 100.0))).edges
    assert (edge.high, edge.verdict) == (64, "ambiguous")
    w = np.array(sorted({*range(8, 65, 8), 72, *range(96, 161, 8)}))
    (edge,) = detect_steps(curve_of(w, np.where(w > 64, 130.0, 100.0))).edges
    assert (edge.high, edge.verdict) == (64, "confirmed")


def test_false_edges_are_as_rare_as_promised() -> None:
    w = np.arange(8, 1025, 8)
    us = 30 + w * 0.1
    false = sum(
        len(detect_steps(curve_of(w, us, 0.02, known=known, seed=s)).confirmed_edges)
        for s in range(60)
        for known in (True, False)
    )
    assert false <= 6  # 1.2 expected at 99 % confidence; a Poisson variable of that mean exceeds 6 once in 4,000 runs


@pytest.mark.parametrize(("noise", "riser", "share"), [(0.005, 0.03, 0.98), (0.02, 0.08, 0.9)])
def test_recall_on_noisy_staircases(noise: float, riser: float, share: float) -> None:
    rng = np.random.default_rng(1)
    true = sure = found = false = 0
    w = np.arange(8, 1025, 8)
    for seed in range(30):
        places = np.arange(15, len(w) - 8, 16)
        us = np.full(len(w), 100.0)
        for place in places:
            us[place + 1 :] *= 1 + riser * (1 + rng.random()) * rng.choice([1, 1, -1])
        staircase = detect_steps(curve_of(w, us, noise, seed=seed))
        expected = {int(w[p]) for p in places}
        true += len(expected)
        sure += len(expected & set(staircase.confirmed_edges))
        found += len(expected & set(inner(staircase)))
        false += len(set(staircase.confirmed_edges) - expected)
    assert sure >= share * true
    assert found >= sure
    assert false <= 0.03 * true


def test_chatter_without_known_noise_is_not_mistaken_for_steps() -> None:
    """Where a library wavers between two kernels at random, single numbers prove nothing; real steps beside it stay."""
    rng = np.random.default_rng(3)
    w = np.arange(1, 513)
    us = np.where(w > 256, 150.0, 100.0) * np.where((w < 128) & (rng.random(512) < 0.5), 1.1, 1.0)
    found = detect_steps(curve_of(w, us, 0.001, known=False))
    assert 256 in found.confirmed_edges
    told = detect_steps(curve_of(w, us, 0.001))
    wavering = [sum(edge < 120 for edge in staircase.confirmed_edges) for staircase in (found, told)]
    assert wavering[1] > 30
    assert wavering[0] <= 0.1 * wavering[1]


def test_replicates_agree() -> None:
    w = np.arange(1, 1025)
    us = waves(w, 64) * np.where((w > 300) & (w <= 420), 0.85, 1.0)
    a, b = (detect_steps(curve_of(w, us, 0.005, known=False, seed=s)) for s in (1, 2))
    assert edge_agreement(a, b).f1 >= 0.95
    assert any(edge.riser < 0 for edge in a.edges)


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 3), min_size=1, max_size=60),
    levels=st.lists(st.floats(1.0, 1e4), min_size=60, max_size=60),
    scale=st.sampled_from([2.0**-10, 0.5, 2.0**10]),
)
def test_whatever_the_curve(gaps: list[int], levels: list[float], scale: float) -> None:
    """Plateaus cover every width once, in order; the verdict does not depend on the unit of time (powers of two: rounding alike)."""
    widths = np.cumsum(gaps)
    us = np.array(levels[: len(gaps)])
    found = detect_steps(curve_of(widths, us))
    covered = [w for p in found.plateaus for w in found.curve.widths if p.low <= w <= p.high]
    assert covered == list(found.curve.widths)
    assert found.plateaus[-1].verdict == "end"
    assert all(p.verdict != "end" and abs(p.riser) >= found.min_riser for p in found.edges)
    assert detect_steps(curve_of(widths, us * scale)).edge_widths == found.edge_widths


def test_arguments_are_checked() -> None:
    curve = LatencyCurve(widths=(8,), latency_us=(1.0,))
    with pytest.raises(InvalidShape, match="min_riser"):
        detect_steps(curve, min_riser=0.0)
    with pytest.raises(InvalidShape, match="confidence"):
        detect_steps(curve, confidence=1.0)


def test_a_curve_over_many_decades_breaks_nothing() -> None:
    widths = tuple(range(1, 201))
    curve = LatencyCurve(widths=widths, latency_us=tuple(1.2 ** (w / 2) for w in widths), kind="modelled")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        staircase = detect_steps(curve)
    assert staircase.edge_widths[-1] == 200
    assert all(np.isfinite(p.riser) for p in staircase.plateaus)


def test_a_flat_start_before_a_slope_is_no_fall() -> None:
    """Latencies of a simulated V100 at multiples of 8: they only rise, so no edge may go down."""
    us = [
        207.9,
        209.0,
        210.7,
        216.7,
        275.7,
        283.1,
        290.4,
        297.8,
        345.0,
        352.4,
        359.7,
        367.0,
        414.3,
        421.6,
        429.0,
        436.3,
    ]
    curve = LatencyCurve(widths=tuple(range(8, 129, 8)), latency_us=tuple(us), noise_us=tuple(0.001 * t for t in us))
    edges = detect_steps(curve).edges
    assert edges
    assert all(edge.riser > 0 for edge in edges)
