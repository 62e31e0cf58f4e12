"""Which widths a policy allows, and which shapes that needs."""

from __future__ import annotations

import math

import pytest
from planning_worlds import FormulaSource, densenet, expr, layer, random_scores, resnet50, staircase

from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.graph import ChannelGroup, ModelGraph
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.planning import candidate_widths, choose_host, required_shapes


def stairs(shape):
    return 10.0 * math.ceil(shape.out_channels / 16)


def one(width: int, kept: int, *, prunable: bool = True) -> tuple[ModelGraph, ChannelScores]:
    graph = ModelGraph(
        model="one",
        layers=(layer("a", {"g": width}, expr(constant=3), expr("g")),),
        groups=(ChannelGroup(id="g", width=width, prunable=prunable),),
        input_shape=(1, 3, 14, 14),
    )
    scores = GroupScores(group="g", scores=tuple(float(width - i) for i in range(width)), host_kept=tuple(range(kept)))
    return graph, ChannelScores(groups=(scores,))


def seen(policy: str, kept: int, *edges: int) -> tuple[int, ...]:
    """Growing looks upwards only."""
    return tuple(edge for edge in edges if policy != "grow" or edge >= kept)


@pytest.mark.parametrize(
    ("policy", "reach", "kept", "expected"),
    [
        ("snap", 1, 40, (32, 40, 48)), ("snap", 2, 40, (32, 40, 48, 64)), ("snap", 1, 48, (32, 48, 64)), ("snap", 1, 44, (32, 44, 48)), ("snap", 1, 50, (48, 50, 64)),
        ("snap", 1, 7, (7, 16)), ("snap", 1, 98, (96, 98, 100)), ("snap", 1, 100, (96, 100)), ("snap", 9, 20, (16, 20, 32, 48, 64, 80, 96, 100)),
        ("shrink", 1, 40, (32,)), ("shrink", 1, 48, (48,)), ("shrink", 1, 7, (7,)),
        ("grow", 1, 40, (40, 48)), ("grow", 1, 48, (48, 64)), ("grow", 2, 41, (41, 48, 64)), ("grow", 1, 99, (99, 100)),
        ("nearest", 1, 37, (32,)), ("nearest", 1, 40, (48,)), ("nearest", 1, 3, (16,)),
        ("reallocate", 1, 70, (48, 64, 70, 80, 96, 100)),
    ],
)  # fmt: skip
def test_policies(policy: str, reach: int, kept: int, expected: tuple[int, ...]) -> None:
    graph, scores = one(100, kept)
    found = candidate_widths(graph, scores, FormulaSource(stairs), policy=policy, reach=reach)  # type: ignore[arg-type]
    assert found.widths == {"g": expected}
    assert found.edges == {"g": seen(policy, kept, 16, 32, 48, 64, 80, 96, 100)}
    assert found.warnings == ()


def notched(shape):  # type: ignore[no-untyped-def]
    """Stairs of 40 us every 16 channels, and a notch of 9 us behind every 5th channel that later widths keep paying."""
    return 100.0 + 40.0 * ((shape.out_channels - 1) // 16) + 9.0 * ((shape.out_channels - 1) // 5)


@pytest.mark.parametrize(
    ("policy", "kept", "expected"),
    [("snap", 42, (32, 35, 40, 42, 45, 48)), ("shrink", 42, (32,)), ("grow", 42, (42, 45, 48)), ("nearest", 41, (48,))],
)
def test_notches_are_candidates_but_use_up_no_reach(policy: str, kept: int, expected: tuple[int, ...]) -> None:
    graph, scores = one(96, kept)
    found = candidate_widths(graph, scores, FormulaSource(notched), policy=policy)  # type: ignore[arg-type]
    assert found.steps == {"g": seen(policy, kept, 16, 32, 48, 64, 80, 96)}
    assert set(found.edges["g"]) >= set(seen(policy, kept, 35, 40, 45, 50))
    assert found.widths == {"g": expected}


def test_what_may_not_move_stays_at_the_host() -> None:
    graph, scores = one(100, 40, prunable=False)
    assert candidate_widths(graph, scores, FormulaSource(stairs)).widths == {"g": (40,)}
    graph, scores = one(100, 40)
    assert candidate_widths(graph, scores, FormulaSource(stairs), frozen={"g"}).widths == {"g": (40,)}
    assert candidate_widths(graph, ChannelScores(groups=()), FormulaSource(stairs)).widths == {"g": (100,)}


def test_user_limits_bind_harder_than_the_policy() -> None:
    graph, scores = one(100, 40)
    for limits, expected in (
        ({"min_widths": {"g": 40}}, (40, 48)), ({"max_widths": {"g": 44}}, (32, 40)), ({"min_widths": {"g": 50}}, (50,)),
        ({"max_widths": {"g": 30}}, (30,)),
    ):  # fmt: skip
        assert candidate_widths(graph, scores, FormulaSource(stairs), **limits).widths == {"g": expected}
    with pytest.raises(InvalidShape, match="no channel group 'other'"):
        candidate_widths(graph, scores, FormulaSource(stairs), min_widths={"other": 4})


def test_unknown_widths_are_told_and_no_known_width_is_an_error() -> None:
    graph, scores = one(100, 40)
    inside = FormulaSource(
        stairs, lacking=lambda s: s.out_channels in (5, 6)
    )  # measured on both sides, no edge between
    assert candidate_widths(graph, scores, inside).warnings == ()
    holes = FormulaSource(stairs, lacking=lambda s: s.out_channels in (16, 17))
    assert candidate_widths(graph, scores, holes).warnings == (
        "g: 2 of 100 widths have no latency, edges there are not seen",
    )
    with pytest.raises(MissingLatency):
        candidate_widths(graph, scores, FormulaSource(stairs, lacking=lambda s: True))


def test_repeated_blocks_are_read_once() -> None:
    graph = resnet50()
    scores = choose_host(random_scores(graph, 0), 0.4)
    source = FormulaSource(staircase(32))
    found = candidate_widths(graph, scores, source)
    assert found.widths["s3b2a"][-1] in found.edges["s3b3a"]
    assert found.edges["s3b2a"] == found.edges["s3b4a"]
    assert set(found.edges) == set(graph.widths)


def test_required_shapes_are_those_of_every_combination() -> None:
    widths = {"a": 6, "b": 4, "c": 5}
    layers = (
        layer("x", widths, expr("a", "b", constant=1), expr("c")),
        layer("y", widths, expr("c"), expr("c"), depthwise=True, kernel=3),
        layer("z", widths, expr(("c", 4)), expr(constant=7), op="linear", hw=1),
    )
    graph = ModelGraph(
        model="cat",
        layers=layers,
        groups=tuple(ChannelGroup(id=g, width=w) for g, w in widths.items()),
        input_shape=(1, 3, 14, 14),
    )
    candidates = {"a": (2, 3), "b": (1, 2), "c": (4,)}
    expected = {s for _, s in graph.shapes_at()}
    for a in candidates["a"]:
        for b in candidates["b"]:
            expected |= {s for _, s in graph.shapes_at({"a": a, "b": b, "c": 4})}
    assert required_shapes(graph, candidates) == expected


def test_concatenations_beyond_counting_are_left_to_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = densenet((3, 4), growth=12)
    candidates = {g.id: (g.width // 2, g.width - 1, g.width) for g in graph.groups}
    everything = required_shapes(graph, candidates)
    monkeypatch.setattr("tailprune.planning.structure.MAX_SUM_CELLS", 10)
    some = required_shapes(graph, candidates)
    assert some < everything
    assert {s for _, s in graph.shapes_at()} <= some


def test_edges_that_a_larger_width_beats_are_no_choice() -> None:
    graph, scores = one(64, 21)
    zigzag = FormulaSource(lambda s: 10.0 * math.ceil(s.out_channels / 16) + (5.0 if s.out_channels % 4 else 0.0))
    found = candidate_widths(graph, scores, zigzag)
    assert found.edges == {"g": (16, 32, 48, 64)}
    assert found.widths == {"g": (16, 21, 32)}


def test_too_many_choices_are_thinned_with_a_word() -> None:
    graph, scores = one(300, 151)
    found = candidate_widths(
        graph, scores, FormulaSource(lambda s: 1.05 ** ((s.out_channels + 1) // 2)), policy="reallocate"
    )
    assert len(found.edges["g"]) > 80
    allowed = found.widths["g"]
    assert len(allowed) == 64
    assert {151, 300} <= set(allowed)
    assert allowed[0] == 76
    assert any("thinned to 64" in w for w in found.warnings)


@pytest.mark.parametrize(
    ("kept", "floor", "expected"),
    [(24, None, (16, 24, 32)), (25, None, (25, 32)), (24, 0.75, (24, 32)), (25, 0.5, (16, 25, 32)), (25, 0.0, (16, 25, 32)),
     (48, 1.0, (48, 64))],
)  # fmt: skip
def test_a_snapped_group_keeps_two_thirds_of_its_host_unless_told_otherwise(kept, floor, expected) -> None:
    graph, scores = one(100, kept)
    assert candidate_widths(graph, scores, FormulaSource(stairs), floor=floor).widths == {"g": expected}


def test_every_multiple_on_demand_down_to_any_floor() -> None:
    graph, scores = one(100, 40)
    source = FormulaSource(stairs)
    found = candidate_widths(graph, scores, source, policy="reallocate", every=8)
    assert found.widths == {"g": (24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 100)}
    found = candidate_widths(graph, scores, source, policy="reallocate", every=24, floor=0.0)
    assert found.widths == {"g": (24, 40, 48, 72, 96, 100)}
    assert candidate_widths(graph, scores, source, every=4).widths == {"g": (32, 36, 40, 44, 48)}
    for bad, text in (({"every": 0}, "every must be"), ({"floor": 1.5}, "floor must lie in 0..1")):
        with pytest.raises(InvalidShape, match=text):
            candidate_widths(graph, scores, source, **bad)


def test_widths_above_the_original_where_a_limit_allows_them() -> None:
    graph, scores = one(100, 90)
    source = FormulaSource(stairs)
    assert candidate_widths(graph, scores, source, policy="grow", reach=9).widths == {"g": (90, 96, 100)}
    found = candidate_widths(graph, scores, source, policy="grow", reach=9, max_widths={"g": 130})
    assert found.widths == {"g": (90, 96, 112, 128, 130)}
    found = candidate_widths(graph, scores, source, policy="reallocate", every=32, max_widths={"g": 130})
    assert found.widths == {"g": (64, 90, 96, 100, 128)}
