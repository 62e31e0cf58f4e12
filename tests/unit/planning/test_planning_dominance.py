"""A width is dropped only if another that stays is no worse for every width of its neighbours, by brute force."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailprune.planning.dominance import worthwhile

seeds = st.integers(0, 100_000)


def world(seed: int, *, most: int = 4):
    """Two to four variables, tables over one or two of them (values from a few, so that ties abound), falling losses."""
    r = np.random.default_rng(seed)
    sizes = r.integers(1, most + 1, r.integers(2, 5)).tolist()
    parts = {}
    for axes in [*((v,) for v in range(len(sizes))), *combinations(range(len(sizes)), 2)]:
        if r.random() < 0.6:
            drift = sum(np.arange(sizes[v]).reshape([-1 if v == w else 1 for w in axes]) for v in axes)
            parts[axes] = (drift * r.integers(0, 3) + r.integers(0, 4, [sizes[v] for v in axes])).astype(np.int64)
    losses = [np.sort(r.integers(0, 4, size))[::-1].astype(np.int64) for size in sizes]
    return parts, losses


def cost(parts, at) -> int:
    return sum(int(table[tuple(at[v] for v in axes)]) for axes, table in parts.items())


def front(parts, losses, kept) -> set[tuple[int, int]]:
    """The undominated (time, loss) of all plans over these positions."""
    points = {(cost(parts, at), sum(int(loss[p]) for loss, p in zip(losses, at, strict=True))) for at in product(*kept)}
    return {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}


def neighbourhood(parts, v, kept):
    """The tables that touch a variable, and all states of the other variables they see."""
    tables = {axes: table for axes, table in parts.items() if v in axes}
    seen = sorted({w for axes in tables for w in axes} - {v})
    return tables, [dict(zip(seen, state, strict=True)) for state in product(*(kept[w] for w in seen))]


@settings(max_examples=300, deadline=None)
@given(seed=seeds)
def test_no_best_plan_is_lost(seed: int) -> None:
    parts, losses = world(seed)
    everything = [np.arange(len(loss)) for loss in losses]
    kept = worthwhile(parts, losses)
    assert front(parts, losses, kept) == front(parts, losses, everything)
    assert all(len(positions) for positions in kept)


@settings(max_examples=300, deadline=None)
@given(seed=seeds, slack=st.sampled_from((0.0, 0.0, 0.1, 0.5)))
def test_what_is_dropped_has_a_replacement_that_stays(seed: int, slack: float) -> None:
    parts, losses = world(seed)
    v = seed % len(losses)
    others = set(range(len(losses))) - {v}
    kept = worthwhile(parts, losses, fixed=others, slack=slack)
    assert all(len(kept[w]) == len(losses[w]) for w in others)
    tables, states = neighbourhood(parts, v, kept)
    replaced = {
        p: any(
            losses[v][q] <= losses[v][p]
            and all(cost(tables, {**x, v: q}) <= (1 + slack) * cost(tables, {**x, v: p}) + 1e-9 for x in states)
            for q in kept[v]
        )
        for p in range(len(losses[v]))
    }
    assert all(replaced[p] for p in set(replaced) - set(kept[v].tolist()))
    for p in kept[v]:  # tables here share no neighbour, so that the rule is exact: what stays has no such rival
        rivals = [q for q in kept[v] if q != p and losses[v][q] <= losses[v][p]]
        assert slack or not any(
            all(cost(tables, {**x, v: q}) <= cost(tables, {**x, v: p}) for x in states) for q in rivals
        )


def test_one_neighbour_width_at_which_it_is_faster_saves_a_width() -> None:
    losses = [np.array([1, 0]), np.array([0, 0, 0])]
    table = np.array([[5, 5, 4], [5, 5, 5]])
    assert worthwhile({(0, 1): table}, losses, fixed={1})[0].tolist() == [0, 1]
    assert worthwhile({(0, 1): table + [[0, 0, 1], [0, 0, 0]]}, losses, fixed={1})[0].tolist() == [1]
    assert worthwhile({(0, 1): table}, losses, fixed={1}, slack=0.25)[0].tolist() == [1]


def test_of_equals_the_last_stays_and_slack_does_not_add_up() -> None:
    nothing = np.zeros(4, dtype=np.int64)
    assert worthwhile({(0,): np.full(4, 7)}, [nothing])[0].tolist() == [3]
    # each is within 10 % of the next, but the first is not within 10 % of the last: something near it stays
    kept = worthwhile({(0,): np.array([100, 109, 118, 127])}, [np.array([3, 2, 1, 0])], slack=0.1)[0]
    assert kept.tolist() == [1, 3]


@pytest.mark.parametrize("slack", [0.0, 0.3])
def test_the_least_loss_always_stays(slack: float) -> None:
    for seed in range(60):
        parts, losses = world(seed)
        kept = worthwhile(parts, losses, slack=slack)
        assert all(loss[positions].min() == loss.min() for loss, positions in zip(losses, kept, strict=True))
