"""The unrounded host, against the definition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_worlds import chain, random_scores, tiny_graph

from tailprune.core.errors import InvalidShape
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.planning import choose_host


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
