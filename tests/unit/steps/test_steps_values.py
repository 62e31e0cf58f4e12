"""Curves, staircases, dominance and agreement: the values around `detect_steps`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.steps import (
    LatencyCurve,
    Plateau,
    Staircase,
    detect_steps,
    dominated_widths,
    edge_agreement,
    group_curve,
    undominated_widths,
)


def exact(pairs: dict[int, float]) -> LatencyCurve:
    return LatencyCurve(widths=tuple(pairs), latency_us=tuple(pairs.values()), kind="modelled")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (), "latency_us": ()}, "at least one width"),
        ({"widths": (8, 16), "latency_us": (1.0,)}, "2 widths, 1 latencies"),
        ({"widths": (16, 8), "latency_us": (1.0, 1.0)}, "ascending"),
        ({"widths": (8,), "latency_us": (float("nan"),)}, "width 8 must be positive"),
        ({"widths": (8,), "latency_us": (0.0,)}, "positive"),
        ({"widths": (8,), "latency_us": (1.0,), "noise_us": (-1.0,)}, "noise"),
    ],
)
def test_a_curve_refuses_what_it_cannot_be(arguments: dict, message: str) -> None:
    with pytest.raises(InvalidShape, match=message):
        LatencyCurve(**arguments)


def test_a_curve_answers_only_at_its_widths() -> None:
    curve = exact({8: 1.0, 24: 2.0})
    assert curve.at(24) == 2.0
    assert 16 not in curve
    assert curve.granule == 16
    with pytest.raises(MissingLatency, match="Width 16 is not on this curve"):
        curve.at(16)


def stair() -> Staircase:
    curve = exact({w: float(10 + 5 * ((w - 1) // 16)) for w in range(1, 65)})
    return detect_steps(curve)


def test_places_on_a_staircase() -> None:
    s = stair()
    assert s.edge_widths == (16, 32, 48, 64)
    assert s.confirmed_edges == (16, 32, 48)
    assert s.usable
    assert s.plateau_at(17).low == 17
    assert s.headroom_at(17) == 15
    assert s.headroom_at(32) == 0
    assert s.steps_between(16, 17) == 1
    assert s.steps_between(17, 32) == 0
    assert s.steps_between(1, 64) == 3
    assert s.edges_near(20) == (16, 32)
    assert s.edges_near(32) == (16, 32, 48)
    assert s.edges_near(20, reach=2) == (16, 32, 48)
    assert s.edges_near(64) == (48, 64)
    with pytest.raises(InvalidShape, match=r"outside this staircase, which covers 1\.\.64"):
        s.plateau_at(65)


@given(width=st.integers(1, 64))
def test_every_width_lies_on_one_plateau(width: int) -> None:
    s = stair()
    assert sum(p.low <= width <= p.high for p in s.plateaus) == 1
    assert width + s.headroom_at(width) in s.edge_widths


def test_a_gap_with_an_edge_in_it_is_on_no_plateau() -> None:
    s = detect_steps(exact({8: 10.0, 16: 10.0, 24: 10.0, 48: 20.0, 56: 20.0, 64: 20.0}))
    assert [(p.low, p.high, p.verdict) for p in s.plateaus] == [(8, 24, "ambiguous"), (48, 64, "end")]
    assert s.plateau_at(13).high == 24
    assert s.covers(13)
    assert not s.covers(32)
    with pytest.raises(MissingLatency, match="edge lies somewhere below width 48"):
        s.plateau_at(32)


def test_slope_of_a_plateau() -> None:
    assert Plateau(low=8, high=16, low_us=10.0, high_us=12.0).slope_us == 0.25
    assert Plateau(low=8, high=8, low_us=10.0, high_us=10.0).slope_us == 0.0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_dominance_equals_its_definition(latencies: list[int]) -> None:
    curve = exact({8 * (i + 1): float(us) for i, us in enumerate(latencies)})
    expected = tuple(8 * (i + 1) for i, us in enumerate(latencies) if any(later <= us for later in latencies[i + 1 :]))
    assert dominated_widths(curve, sigmas=0) == expected
    assert set(undominated_widths(curve)) == set(curve.widths) - set(expected)


def test_dominance_knows_the_noise() -> None:
    curve = LatencyCurve(widths=(8, 16, 24), latency_us=(10.0, 10.1, 12.0), noise_us=(0.1, 0.1, 0.1))
    assert dominated_widths(curve) == (8,)
    assert dominated_widths(curve, sigmas=0) == ()
    with pytest.raises(InvalidShape, match="sigmas"):
        dominated_widths(curve, sigmas=-1)


def edges(*widths: int, verdict: str = "confirmed", riser: float = 0.1) -> Staircase:
    lows = [1, *(w + 1 for w in widths)]
    plateaus = [
        Plateau(low=low, high=high, low_us=1.0, high_us=1.0, verdict=verdict, riser=riser)  # type: ignore[arg-type]
        for low, high in zip(lows, widths, strict=False)
    ]
    last = Plateau(low=lows[-1], high=100, low_us=1.0, high_us=1.0)
    curve = exact(dict.fromkeys(range(1, 101), 1.0))
    return Staircase(curve=curve, plateaus=(*plateaus, last), noise_floor=0.0, min_riser=0.02)


def test_agreement_counts_each_edge_once() -> None:
    found = edge_agreement(edges(16, 32, 48), edges(15, 17, 49))
    assert (found.expected, found.found, found.claimed, found.true) == (3, 2, 3, 2)
    assert found.f1 == pytest.approx(2 / 3)
    assert edge_agreement(edges(16), edges(18)).f1 == 1
    assert edge_agreement(edges(16), edges(18), tolerance=1).f1 == 0
    assert edge_agreement(edges(), edges()).f1 == 1
    with pytest.raises(InvalidShape, match="tolerance"):
        edge_agreement(edges(16), edges(16), tolerance=-1)


def test_agreement_needs_the_direction_and_lets_doubt_count_as_found() -> None:
    assert edge_agreement(edges(16), edges(16, riser=-0.1)).f1 == 0
    doubtful = edges(16, verdict="ambiguous")
    assert edge_agreement(edges(16), doubtful).recall == 1
    assert edge_agreement(edges(16), doubtful, confirmed_only=True).recall == 0


class Source:
    """Latency 2 x in + 3 x out, except for widths it does not know."""

    origin = "a test source"

    def __init__(self, missing: tuple[int, ...] = (), kind: str = "modelled") -> None:
        self.missing, self._kind = missing, kind

    def latency_us(self, shape: LayerShape) -> float:
        if shape.out_channels in self.missing:
            raise MissingLatency("no", (shape,))
        return 2.0 * shape.in_channels + 3.0 * shape.out_channels

    def kind(self, shape: LayerShape) -> str:
        return self._kind


class NoisySource(Source):
    def noise_us(self, shape: LayerShape) -> float:
        return 3.0 if shape.in_channels == 3 else 4.0


def chain() -> ModelGraph:
    """3 -> a -> b, the second layer called twice."""
    first = LayerShape(op="conv", batch=1, in_channels=3, out_channels=32)
    a, b = WidthExpr(terms=(("a", 1),)), WidthExpr(terms=(("b", 1),))
    return ModelGraph(
        model="chain",
        layers=(
            Layer(name="one", shape=first, in_expr=WidthExpr(constant=3), out_expr=a),
            Layer(
                name="two",
                shape=first.with_channels(in_channels=32, out_channels=16),
                in_expr=a,
                out_expr=b,
                calls=2,
            ),
        ),
        groups=(ChannelGroup(id="a", width=32, granule=8, min_width=8), ChannelGroup(id="b", width=16, granule=8)),
        input_shape=(1, 3, 1, 1),
    )


def test_a_groups_curve_sums_all_its_layers() -> None:
    curve = group_curve(chain(), "a", Source())
    assert curve.widths == (8, 16, 24, 32)
    assert curve.at(8) == (2 * 3 + 3 * 8) + 2 * (2 * 8 + 3 * 16)
    assert curve.noise_us == (0.0,) * 4
    assert curve.kind == "modelled"
    narrowed = group_curve(chain(), "a", Source(), at={"b": 8}, widths=(16,))
    assert narrowed.widths == (16,)
    assert narrowed.at(16) == (6 + 48) + 2 * (32 + 24)


def test_a_groups_curve_leaves_out_what_is_unknown_and_adds_noise_in_squares() -> None:
    assert group_curve(chain(), "a", Source(missing=(24,))).widths == (8, 16, 32)
    assert group_curve(chain(), "a", Source(kind="measured")).noise_us == ()
    noisy = group_curve(chain(), "a", NoisySource(kind="held"))
    assert noisy.noise_us == pytest.approx(((3.0**2 + 8.0**2) ** 0.5,) * 4)
    assert noisy.kind == "held"
    with pytest.raises(MissingLatency, match=r"a test source knows no width of group a of chain"):
        group_curve(chain(), "a", Source(missing=(16,)), at={"b": 16})
