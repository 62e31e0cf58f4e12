"""A page full of made-up numbers, shaped like a real run. It says so in its banner."""

from __future__ import annotations

import random

import pytest

from tailprune.core.plan import GroupChoice, WidthPlan
from tailprune.reports import Comparison, ComparisonRow, LayerTime, ReportPage, StaircaseView, SweepPoint
from tailprune.steps import LatencyCurve, Staircase, detect_steps

MOVES = (("conv1", 32, 23, 24), ("layer1.0.conv1", 32, 19, 24), ("layer2.0.conv1", 64, 37, 40), ("layer2.0.conv2", 64, 45, 48),
         ("layer3.0.conv1", 128, 66, 64), ("layer3.0.conv2", 128, 81, 80))  # fmt: skip


def make_staircase(width: int, *, step: int = 8, riser: float = 0.14, seed: int = 0) -> Staircase:
    noise = random.Random(seed)
    widths = tuple(range(1, width + 1))
    base = [60.0 + 14.0 * (-(-w // step)) * (1 + riser) + 0.35 * w for w in widths]
    us = tuple(level * (1 + noise.gauss(0, 0.004)) for level in base)
    return detect_steps(LatencyCurve(widths=widths, latency_us=us, noise_us=tuple(0.004 * level for level in base)))


def make_plan() -> WidthPlan:
    choices = tuple(
        GroupChoice(group=g, original=o, host=h, width=w, kept=tuple(range(w)), reason="edge" if h != w else "host")
        for g, o, h, w in MOVES
    )
    return WidthPlan(model="sample", fingerprint="0" * 16, input_shape=(32, 3, 32, 32), choices=choices, policy="snap",
                     goal="faster", reach=1, solver="milp", optimality_gap=0.0, original_us=21_400, host_us=12_950,
                     predicted_us=9_820, latency_origin="sample table", host_importance=0.713, importance=0.716)  # fmt: skip


def make_comparison() -> Comparison:
    def row(method, role, changed, macs, params, predicted, measured, spread, before, after, note=""):
        return ComparisonRow(method=method, role=role, groups_changed=changed, groups_total=6, macs=macs, params=params,
                             predicted_us=predicted, measured_us=measured, spread_us=spread, accuracy_before=before,
                             accuracy_after=after, accuracy_noise=0.008, note=note)  # fmt: skip

    return Comparison(
        rows=(
            row("dense", "dense", 0, 1_504_000_000, 305_000, 21_400, 21_930, 140, 0.9861, None),
            row(
                "host", "host", 0, 561_000_000, 118_000, 12_950, 13_240, 110, 0.6417, 0.9806, "magnitude, global, 0.45"
            ),
            row("multiples of 8", "rival", 5, 570_000_000, 121_000, 10_020, 10_180, 95, 0.6611, 0.9806),
            row("multiples of 16", "rival", 6, 566_000_000, 116_000, 10_460, 10_710, 120, 0.6306, 0.9778),
            row(
                "multiples of 32",
                "rival",
                4,
                590_000_000,
                127_000,
                11_530,
                11_640,
                100,
                0.5972,
                0.9750,
                "2 groups narrower than 32 left out",
            ),
            row("tailprune faster", "ours", 6, 552_000_000, 115_000, 9_820, 10_060, 90, 0.6583, 0.9833),
            row("tailprune better", "ours", 6, 803_000_000, 168_000, 12_710, 13_050, 105, 0.8944, 0.9861),
        )
    )


def make_page() -> ReportPage:
    sweep = []
    for index in range(7):
        ratio = 0.1 * (index + 1)
        host_us = 21_000 * (1 - ratio) ** 0.9 + (700 if index % 3 else 250)
        for method, role, factor in (
            ("host", "host", 1.0),
            ("multiples of 8", "rival", 0.81),
            ("multiples of 16", "rival", 0.84 + 0.02 * (index % 2)),
            ("tailprune faster", "ours", 0.775),
        ):
            sweep.append(
                SweepPoint(
                    ratio=ratio, method=method, measured_us=host_us * factor, spread_us=0.012 * host_us, role=role
                )
            )
    plan = make_plan()
    return ReportPage(
        title="tailprune quickstart: slim ResNet on digits",
        banner="Sample data: no number on this page was measured.",
        comparison=make_comparison(),
        plan=plan,
        staircases=tuple(
            StaircaseView(name=g, staircase=make_staircase(o, riser=0.1 + 0.05 * i, seed=i), marks={"host": h, "tailprune": w})
            for i, (g, o, h, w) in enumerate(MOVES[:4])
        ),
        sweep=tuple(sweep),
        layers=tuple(LayerTime(name=name, host_us=us, ours_us=us * share) for name, us, share in (
            ("conv1", 840, 0.94), ("layer1.0.conv1", 2310, 0.71), ("layer1.0.conv2", 2280, 0.73), ("layer2.0.conv1", 1190, 0.78),
            ("layer2.0.conv2", 1730, 0.80), ("layer2.0.shortcut.0", 310, 0.9), ("layer3.0.conv1", 1050, 0.72),
            ("layer3.0.conv2", 1420, 0.76), ("layer3.0.shortcut.0", 240, 0.88), ("pool", 62, 1.0), ("linear", 21, 1.0))),
        environment={"device": "sample CPU", "runtime": "eager, 1 thread", "batch": 32, "dtype": "float32", "layout": "channels_last"},
        provenance={"data": "digits, 1,797 images", "host": "magnitude, global, ratio 0.45", "seed": 0, "tailprune": "0.1.0"},
        warnings=("Accuracy on the digits saturates: read it as a smoke test.",),
    )  # fmt: skip


@pytest.fixture(scope="session")
def sample_page() -> ReportPage:
    return make_page()


@pytest.fixture
def comparison() -> Comparison:
    return make_comparison()


@pytest.fixture
def plan() -> WidthPlan:
    return make_plan()


@pytest.fixture(scope="session")
def staircase() -> Staircase:
    return make_staircase(64)
