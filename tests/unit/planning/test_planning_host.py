"""The unrounded host, and the fixed multiples done fairly, against brute force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_worlds import FormulaSource, expr, layer, random_scores, staircase, tiny_graph

from tailprune.core.errors import InvalidShape, NoPlan
from tailprune.core.graph import ChannelGroup, ModelGraph
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.planning import choose_host, fixed_multiple, host_plan


def chain(*widths: int, granules: tuple[int, ...] = ()) -> ModelGraph:
    granules = granules or (1,) * len(widths)
    ids = {f"g{i}": w for i, w in enumerate(widths)}
    layers = [layer("l0", ids, expr(constant=3), expr("g0"))]
    layers += [layer(f"l{i}", ids, expr(f"g{i - 1}"), expr(f"g{i}")) for i in range(1, len(widths))]
    groups = tuple(ChannelGroup(id=g, width=w, granule=n) for (g, w), n in zip(ids.items(), granules, strict=True))
    return ModelGraph(model="chain", layers=tuple(layers), groups=groups, input_shape=(1, 3, 14, 14))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), ratio=st.floats(0, 1), scope=st.sampled_from(("global", "local")))
def test_the_lowest_units_go(seed: int, ratio: float, scope: str) -> None:
    graph = tiny_graph(seed)
    scores = random_scores(graph, seed)
    if not scores.groups:
        return
    host = choose_host(scores, ratio, scope=scope)  # type: ignore[arg-type]
    units = {}
    for g in scores.groups:
        block = g.width // g.granule
        units[g.group] = [sum(g.scores[o::block]) / g.granule for o in range(block)]
    pools = [list(units)] if scope == "global" else [[group] for group in units]
    for pool in pools:
        count = sum(len(units[g]) for g in pool)
        pruned = count - int(count * (1 - ratio))
        threshold = sorted(u for g in pool for u in units[g])[pruned - 1] if pruned else -1.0
        for name in pool:
            kept = host.by_group[name].host_kept
            assert kept is not None
            block = len(units[name])
            expected = [o for o in range(block) if units[name][o] > threshold]
            if not expected:
                expected = list(range(block))
                assert any(w.startswith(f"{name}:") for w in host.warnings)
            assert sorted({c % block for c in kept}) == expected
            assert len(kept) == len(expected) * host.by_group[name].granule


def test_ties_follow_the_hosts_own_rules() -> None:
    level = ChannelScores(groups=(GroupScores(group="a", scores=(1.0, 1.0, 1.0, 2.0)),))
    assert choose_host(level, 0.25, scope="global").by_group["a"].host_kept == (3,)  # at or below the threshold
    assert choose_host(level, 0.25, scope="local").by_group["a"].host_kept == (1, 2, 3)  # exactly so many


def test_peers_are_ranked_by_their_mean_and_go_together() -> None:
    scores = ChannelScores(groups=(
        GroupScores(group="a", scores=(9.0, 1.0, 1.0, 1.0), granule=2), GroupScores(group="b", scores=(4.0, 2.0)),
    ))  # fmt: skip
    host = choose_host(scores, 0.5)
    assert host.by_group["a"].host_kept == (0, 2)
    assert host.by_group["b"].host_kept == (0,)
    assert {g.scope for g in host.groups} == {"global"}
    assert {g.scope for g in choose_host(scores, 0.5, scope="local").groups} == {""}


def test_a_group_is_never_emptied() -> None:
    scores = ChannelScores(
        groups=(GroupScores(group="a", scores=(0.1, 0.2)), GroupScores(group="b", scores=(1.0, 2.0, 3.0)))
    )
    host = choose_host(scores, 0.6)
    assert host.host_widths == {"a": 2, "b": 2}
    assert host.warnings == ("a: all channels fell below the threshold, so it stays whole",)
    assert choose_host(scores, 0.6, keep_one=True).by_group["a"].host_kept == (1,)


@pytest.mark.parametrize(
    ("ratio", "scope"), [(1.1, "global"), (-0.1, "local"), (float("nan"), "global"), (0.5, "class")]
)
def test_bad_requests(ratio: float, scope: str) -> None:
    with pytest.raises(InvalidShape, match=r"0\.\.1|allowed: global, local"):
        choose_host(random_scores(chain(8), 0), ratio, scope=scope)  # type: ignore[arg-type]
    with pytest.raises(InvalidShape, match="no scored groups"):
        choose_host(ChannelScores(groups=()), 0.5)


def by_hand(graph: ModelGraph, scores: ChannelScores, source: FormulaSource, multiple: int, scope: str, target: float):
    """The slowest rounded host within the target, over every ratio there is."""
    best = None
    total = sum(g.width for g in scores.groups)
    for step in range(2 * total + 1):
        host = choose_host(scores, step / (2 * total), scope=scope, keep_one=True)  # type: ignore[arg-type]
        widths = {}
        for g in host.groups:
            if g.width < multiple:
                widths[g.group] = g.host_width
                continue
            choices = range(multiple, g.width + 1, multiple)
            widths[g.group] = min(choices, key=lambda w, h=g.host_width: (abs(w - h), -w))
        us = sum(la.calls * source.latency_us(shape) for la, shape in graph.shapes_at(widths))
        if us <= target and (best is None or us > best):
            best = us
    return best


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_fixed_multiples_equal_brute_force_on_rising_curves(scope: str, multiple: int) -> None:
    for seed in range(6):
        graph = chain(5, 24, 40, 33)
        scores = random_scores(graph, seed)
        source = FormulaSource(staircase(8, 4))
        dense = host_plan(graph, scores, source).predicted_us
        for share in (0.9, 0.6, 0.4):
            plan = fixed_multiple(graph, scores, source, multiple, target_us=share * dense, scope=scope)  # type: ignore[arg-type]
            assert plan.predicted_us == pytest.approx(by_hand(graph, scores, source, multiple, scope, share * dense))
            assert plan.predicted_us <= plan.budget_us == share * dense
            for choice in plan.choices:
                if choice.original >= multiple:
                    assert choice.width % multiple == 0
                    assert multiple <= choice.width <= choice.original
            assert plan.policy == f"multiple-{multiple}"
            assert any("below the target" in w for w in plan.warnings)
            assert any("left out: g0" in w for w in plan.warnings) == (multiple == 8)


def test_fixed_multiples_at_an_importance_are_the_fastest_that_keep_it() -> None:
    for seed in range(6):
        graph = chain(24, 40, 33)
        scores = choose_host(random_scores(graph, seed), 0.4)
        source = FormulaSource(staircase(8, 4))
        target = scores.importance_kept(scores.host_widths)
        plan = fixed_multiple(graph, scores, source, 8, target_importance=target)
        total = sum(g.width for g in scores.groups)
        tried = []
        for step in range(2 * total + 1):
            host = choose_host(scores, step / (2 * total), keep_one=True)
            widths = {
                g.group: min(range(8, g.width + 1, 8), key=lambda w, h=g.host_width: (abs(w - h), -w))
                for g in host.groups
            }
            if scores.importance_kept(widths) >= target:
                tried.append(sum(la.calls * source.latency_us(shape) for la, shape in graph.shapes_at(widths)))
        assert plan.importance >= target
        assert plan.predicted_us == pytest.approx(min(tried))
        assert any("above the target" in w for w in plan.warnings)


@pytest.mark.parametrize(
    "targets", [{}, {"target_us": 5.0, "target_importance": 0.5}, {"target_importance": float("nan")}]
)
def test_a_multiple_is_bisected_to_exactly_one_target(targets: dict[str, float]) -> None:
    graph = chain(16, 16)
    with pytest.raises(InvalidShape, match="exactly one target"):
        fixed_multiple(graph, random_scores(graph, 0), FormulaSource(staircase()), 8, **targets)


def test_a_multiple_respects_the_granule() -> None:
    graph = chain(24, 48, granules=(3, 1))
    scores = random_scores(graph, 0)
    plan = fixed_multiple(graph, scores, FormulaSource(staircase(8, 4)), 8, target_us=1e9)
    assert plan.widths == {"g0": 24, "g1": 48}
    plan = fixed_multiple(
        graph,
        scores,
        FormulaSource(staircase(8, 4)),
        4,
        target_us=host_plan(graph, scores, FormulaSource(staircase(8, 4))).predicted_us * 0.5,
    )
    assert plan.widths["g0"] % 12 == 0


def test_an_unreachable_target_states_what_is_reachable() -> None:
    graph = chain(16, 16)
    with pytest.raises(NoPlan, match=r"Multiples of 16 cannot reach 1\.0 us: at best, ratio 1, they cost 25\.2 us"):
        fixed_multiple(graph, random_scores(graph, 0), FormulaSource(staircase(8, 4)), 16, target_us=1.0)
    for multiple, target in ((0, 5.0), (True, 5.0), (8, float("nan")), (8, 0.0)):
        with pytest.raises(InvalidShape):
            fixed_multiple(graph, random_scores(graph, 0), FormulaSource(staircase()), multiple, target_us=target)


def test_the_host_as_a_plan() -> None:
    graph = chain(16, 32)
    host = choose_host(random_scores(graph, 0), 0.5)
    plan = host_plan(graph, host, FormulaSource(staircase(8, 4)))
    assert plan.widths == plan.host_widths == host.host_widths
    assert plan.predicted_us == plan.host_us < plan.original_us
    assert (plan.status, plan.moved) == ("host", ())
