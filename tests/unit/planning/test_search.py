"""Is a search never over budget, does it outlive failing evaluators and kills, and does utilization skip what it may?"""

from __future__ import annotations

import doctest
import json
import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailprune.core.errors import FormatError, InvalidShape, NoPlan
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.planning import WidthSpace, edge_space, full_space, search, search_widths, space
from tailprune.steps import dominated_widths, group_curve


class Steps:
    """Both channel counts cost as much as the next multiple of a tile; odd widths are slow."""

    origin = "steps"

    def __init__(self, tile: int = 8, odd: float = 1.0) -> None:
        self.tile, self.odd = tile, odd

    def latency_us(self, shape: LayerShape) -> float:
        ins, outs = (-(-n // self.tile) for n in (shape.in_channels, shape.out_channels))
        return 1.0 + ins * outs * (self.odd if shape.out_channels % 2 else 1.0)

    def kind(self, shape: LayerShape) -> str:
        return "modelled"


def chain(*widths: int, granule: int = 1) -> ModelGraph:
    layers, before, reads = [], 3, WidthExpr(constant=3)
    for i, width in enumerate((*widths, 10)):
        writes = WidthExpr(terms=((f"g{i}", 1),)) if i < len(widths) else WidthExpr(constant=10)
        shape = LayerShape(op="conv", batch=1, in_channels=before, out_channels=width, in_hw=(8, 8))
        layers.append(Layer(name=f"c{i}", shape=shape, in_expr=reads, out_expr=writes))
        before, reads = width, writes
    groups = tuple(ChannelGroup(id=f"g{i}", width=w, granule=granule) for i, w in enumerate(widths))
    return ModelGraph(model="chain", layers=tuple(layers), groups=groups, input_shape=(1, 3, 8, 8))


def cost(graph, source, widths):
    return math.fsum(source.latency_us(shape) for _, shape in graph.shapes_at(widths))


def worth(widths):
    """A score with one best network under a budget, and no ties to speak of."""
    return sum(math.sqrt(width) * (i + 1) for i, width in enumerate(widths.values()))


# The space


def test_the_full_space_is_every_width_on_the_granule():
    whole = full_space(chain(12, 8, granule=4))
    assert dict(whole.choices) == {"g0": (4, 8, 12), "g1": (4, 8)}
    assert whole.num_networks == whole.num_before == 6 and whole.reduction == 0
    assert full_space(chain(12, 8, granule=4), narrowest=0.5, widest=1.5, frozen=["g1"]).choices == {"g0": (8, 12, 16)}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(2, 12), st.floats(1.0, 1.5), st.floats(1.0, 2.0)
)
def test_the_edge_space_holds_undominated_edges_and_the_widest(widths, tile, odd, stretch):
    graph, source = chain(*widths), Steps(tile, odd)
    restricted, whole = edge_space(graph, source, widest=stretch), full_space(graph, widest=stretch)
    assert restricted.num_before == whole.num_networks
    for group, allowed in restricted.choices.items():
        grid = whole.choices[group]
        assert set(allowed) <= set(grid) and allowed[-1] == grid[-1]
        assert not set(allowed) & set(dominated_widths(group_curve(graph, group, source, widths=grid)))
    assert restricted.reduction == pytest.approx(math.log10(whole.num_networks / restricted.num_networks))


def test_samples_and_mutations_stay_in_the_space():
    room, draw = edge_space(chain(40, 24), Steps()), random.Random(0)
    widths = room.sample(draw)
    for _ in range(200):
        changed = room.mutate(widths, draw)
        assert changed.keys() == room.choices.keys()
        assert all(width in room.choices[group] for group, width in changed.items())
        widths = changed
    assert {tuple(room.sample(draw).values()) for _ in range(500)} == {
        (a, b) for a in (8, 16, 24, 32, 40) for b in (8, 16, 24)
    }


def test_neighbours_are_one_choice_away():
    room = edge_space(chain(40, 24), Steps())
    assert list(room.wider({"g0": 40, "g1": 8})) == [{"g0": 40, "g1": 16}]
    assert list(room.narrower({"g0": 40, "g1": 8})) == [{"g0": 32, "g1": 8}]


@pytest.mark.parametrize(
    ("choices", "told"),
    [({"g0": (8, 4)}, "ascending"), ({"g0": (3,)}, "granule 4"), ({"g0": ()}, "ascending"), ({}, "no channel group")],
)
def test_spaces_that_make_no_sense_are_refused(choices, told):
    with pytest.raises(InvalidShape, match=told):
        WidthSpace(graph=chain(8, granule=4), choices=choices, widths_before=dict.fromkeys(choices, 2))


def test_strange_arguments_of_a_space_are_refused():
    with pytest.raises(InvalidShape, match="no channel group 'nowhere'"):
        full_space(chain(8), frozen=["nowhere"])
    for narrowest, widest in ((0, math.nan), (0, math.inf), (0, 0), (2, 1), (-1, 1)):
        with pytest.raises(InvalidShape, match="A space runs from 0 or more"):
            full_space(chain(8), narrowest=narrowest, widest=widest)
    with pytest.raises(InvalidShape, match="nothing can be searched"):
        full_space(chain(8), frozen=["g0"])


# The search


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(4, 40), min_size=1, max_size=4), st.integers(2, 12), st.floats(0.2, 1.2), st.integers(0, 99),
    st.sampled_from(["off", "skip", "order"]), st.booleans(),
)  # fmt: skip
def test_no_trial_is_over_budget_or_evaluated_twice(widths, tile, share, seed, utilization, edges):
    graph, source = chain(*widths), Steps(tile, 1.3)
    room = edge_space(graph, source) if edges else full_space(graph)
    budget = max(share * cost(graph, source, {}), cost(graph, source, room.narrowest)) + 1e-6
    asked = []
    found = search_widths(
        room, lambda w: asked.append(tuple(w.values())) or worth(w), source, budget_us=budget, evaluations=25,
        seed=seed, utilization=utilization,
    )  # fmt: skip
    assert 1 <= len(found.trials) <= 25 and len(asked) == len(set(asked)) == len(found.trials)
    for trial in found.trials:
        assert trial.latency_us <= budget
        assert trial.latency_us == pytest.approx(cost(graph, source, trial.widths))
        assert all(width in room.choices[group] for group, width in trial.widths.items())
        if utilization != "off":  # what remains has no larger network at the same cost
            assert all(cost(graph, source, wider) > trial.latency_us - 1e-9 for wider in room.wider(trial.widths))
            assert all(
                round(cost(graph, source, wider), 5) > round(trial.latency_us, 5) for wider in room.wider(trial.widths)
            )
    assert found.best.score == max(trial.score for trial in found.trials) == found.best_after[-1]
    assert list(found.best_after) == sorted(found.best_after)
    front = found.front
    assert all(a.latency_us < b.latency_us and a.score < b.score for a, b in pairwise(front))
    assert front[-1].score == found.best.score


@pytest.mark.parametrize("utilization", ["off", "skip", "order"])
def test_the_best_of_a_small_space_is_found_when_all_of_it_is_tried(utilization):
    graph, source = chain(24, 24), Steps()
    room = edge_space(graph, source)
    best = max(
        (dict(zip(room.choices, pair, strict=True)) for pair in [(a, b) for a in (8, 16, 24) for b in (8, 16, 24)]),
        key=lambda w: worth(w) if cost(graph, source, w) <= 12 else -1,
    )
    found = search_widths(room, worth, source, budget_us=12, evaluations=50, utilization=utilization)
    assert len(found.trials) < 50, "the space is exhausted before"
    assert found.best.widths == best


def test_candidates_that_waste_a_step_give_way_to_larger_ones():
    graph, source = chain(32, 32), Steps()
    plain, helped = (
        search_widths(full_space(graph), worth, source, budget_us=20, evaluations=10, utilization=way)
        for way in ("off", "skip")
    )
    assert plain.skipped == 0 and helped.skipped >= 9
    assert all(width % 8 == 0 for trial in helped.trials for width in trial.widths.values())


def test_order_evaluates_what_uses_most_of_the_device_first():
    graph, source = chain(40, 40, 40), Steps()
    room = edge_space(graph, source)

    def used(utilization):
        runs = [
            search_widths(room, worth, source, budget_us=60, evaluations=6, seed=seed, utilization=utilization)
            for seed in range(8)
        ]
        return sum(graph.macs_at(trial.widths) for run in runs for trial in run.trials)

    assert used("order") > 1.1 * used("skip")


def test_evaluators_that_raise_or_return_nothing_usable_are_recorded_and_the_search_goes_on():
    answers = iter([ValueError("out of memory\nat step 3"), math.nan, math.inf, None, 0.0, -1.0])

    def evaluate(widths):
        answer = next(answers, 0.5)
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = search_widths(full_space(chain(16, 16)), evaluate, Steps(), budget_us=99, evaluations=20, utilization="off")
    assert len(found.trials) == 20
    assert [trial.error for trial in found.failed] == [
        "ValueError: out of memory", "the evaluator returned nan", "the evaluator returned inf",
        "TypeError: float() argument must be a string or a real number, not 'NoneType'",
    ]  # fmt: skip
    assert found.best_after[:6] == (-math.inf, -math.inf, -math.inf, -math.inf, 0.0, 0.0)
    assert found.best.score == 0.5


def test_when_every_evaluation_fails_there_is_no_best():
    found = search_widths(full_space(chain(16)), lambda widths: math.nan, Steps(), budget_us=99, evaluations=5)
    assert found.best is None and found.front == () and len(found.failed) == len(found.trials)


def test_a_killed_search_goes_on_to_the_same_result(tmp_path):
    room, source, log = full_space(chain(32, 32)), Steps(), tmp_path / "search.jsonl"
    asked = {"budget_us": 20, "evaluations": 18, "seed": 3, "utilization": "off"}
    undisturbed = search_widths(room, worth, source, **asked)
    count = 0

    def dies(widths):
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return worth(widths)

    with pytest.raises(KeyboardInterrupt):
        search_widths(room, dies, source, log=log, **asked)
    with log.open("a") as file:
        file.write('{"number": 7, "wid')  # the kill tore this line off
    again = []
    resumed = search_widths(room, lambda w: again.append(w) or worth(w), source, log=log, **asked)
    assert resumed.trials == undisturbed.trials and len(again) == 18 - 7
    assert search_widths(room, lambda w: 1 / 0, source, log=log, **asked).trials == undisturbed.trials
    more = search_widths(room, worth, source, log=log, **{**asked, "evaluations": 20})
    assert more.trials[:18] == undisturbed.trials and len(more.trials) == 20
    assert len(log.read_text().splitlines()) == 21


def test_failures_are_remembered_too(tmp_path):
    log = tmp_path / "search.jsonl"
    asked = {"budget_us": 99, "evaluations": 3, "log": log}
    first = search_widths(full_space(chain(16)), lambda w: 1 / 0, Steps(), **asked)
    assert search_widths(full_space(chain(16)), worth, Steps(), **asked).trials == first.trials


def test_logs_of_other_searches_and_other_files_are_refused(tmp_path):
    log, room = tmp_path / "search.jsonl", full_space(chain(16))
    search_widths(room, worth, Steps(), budget_us=9, evaluations=3, log=log)
    with pytest.raises(FormatError, match="is the log of another search"):
        search_widths(room, worth, Steps(), budget_us=8, evaluations=3, log=log)
    with pytest.raises(FormatError, match="latencies have changed"):
        search_widths(room, worth, Steps(tile=3), budget_us=9, evaluations=3, log=log)
    log.write_text(log.read_text() + json.dumps({"price": 3}) + "\n")
    with pytest.raises(FormatError, match="a line that is no trial"):
        search_widths(room, worth, Steps(), budget_us=9, evaluations=3, log=log)


def test_budgets_and_settings_that_cannot_be_are_refused():
    room = full_space(chain(16))
    with pytest.raises(NoPlan, match=r"Budget 1.0 us is below the narrowest network of the space, 5.0 us"):
        search_widths(room, worth, Steps(), budget_us=1, evaluations=3)
    for wrong in ({"budget_us": math.nan, "evaluations": 3}, {"budget_us": 9, "evaluations": 0}):
        with pytest.raises(InvalidShape, match="positive budget and evaluation"):
            search_widths(room, worth, Steps(), **wrong)
    with pytest.raises(InvalidShape, match="Unknown utilization 'on'; allowed: off, skip, order"):
        search_widths(room, worth, Steps(), budget_us=9, evaluations=3, utilization="on")


def test_progress_is_told():
    told = []
    search_widths(
        full_space(chain(64)), worth, Steps(), budget_us=99, evaluations=3, progress=lambda *said: told.append(said)
    )
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]


def test_docstring_examples_run():
    for module in (search, space):
        result = doctest.testmod(module)
        assert result.attempted > 6 and result.failed == 0


def test_the_worked_example_of_the_page_runs():
    result = doctest.testfile(str(Path(__file__).resolve().parents[3] / "docs" / "nas.md"), module_relative=False)
    assert result.attempted > 9 and result.failed == 0
