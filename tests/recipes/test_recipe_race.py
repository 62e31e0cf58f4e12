"""Is everyone brought to the same measured latency, whatever the sum of layers predicts?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tailprune
from recipes.race import TOLERANCE, USED, Attempt, Course, better, bring_to, faster, host, multiple, next_aim

#: The toy device takes this share longer, for a network, than the sum of its layers.
BIAS = 1.08


class ToyCourse(Course):
    """Networks "measure" what their layers sum up to, times the bias; the dense one without."""

    def measure(self, plans, *, rounds):
        dense_us = tailprune.host_plan(
            self.graph, tailprune.score_channels(self.dense, self.graph), self.table
        ).predicted_us
        return SimpleNamespace(
            verdict=lambda name, _: SimpleNamespace(ratio=BIAS * plans[name].predicted_us / dense_us)
        )


@pytest.fixture(scope="module")
def course():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 3), nn.ReLU(), nn.Conv2d(96, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 3)
    )  # fmt: skip
    example = torch.zeros(32, 3, 32, 32)
    graph = tailprune.trace_model(net, example)
    timer = tailprune.SimulatedTimer(tailprune.load_device("v100"))
    table = tailprune.LatencyTable.in_memory(timer.environment)
    tailprune.fill_table(table, graph, timer)
    return ToyCourse(dense=net, example=example, graph=graph, table=table, timer=timer)


@pytest.mark.parametrize("scope", ["global", "local"])
def test_everyone_ends_at_the_asked_share_as_measured(course, scope):
    scores = tailprune.score_channels(course.dense, course.graph, "l1")
    planners = {
        "host": host(course, scores, scope), "better": better(course, scores, scope), "faster": faster(course, scores, scope),
        "multiple": multiple(course, scores, 8, scope),
    }  # fmt: skip
    told: list[str] = []
    found = bring_to(course, planners, [0.7], say=told.append)
    measured = course.measure({str(key): plan for key, plan in found.items()}, rounds=1)
    assert {name for _, name in found} == set(planners)
    assert all(measured.verdict(str(key), "dense").ratio <= 0.7 * (1 + TOLERANCE) for key in found)
    assert found[0.7, "better"].importance >= found[0.7, "host"].importance
    assert "round 0: host at 70%" in told[0]


def test_who_cannot_get_there_is_left_out_and_named(course):
    scores = tailprune.score_channels(course.dense, course.graph, "l1")
    told: list[str] = []
    planners = {"host": host(course, scores), "wide": multiple(course, scores, 64)}
    found = bring_to(course, planners, [0.3], say=told.append)
    assert (0.3, "wide") not in found
    assert any(line.startswith("wide at 30%: Multiples of 64 cannot reach") for line in told)


def attempt(aim_us: float, taken: float) -> Attempt:
    return Attempt(share=0.5, name="ours", aim_us=aim_us, plan=None, taken=taken)  # type: ignore[arg-type]


def test_an_aim_follows_what_was_measured_then_is_halved():
    assert next_aim([attempt(100.0, 0.52)]) == pytest.approx(100 * 0.5 / 0.52)
    assert next_aim([attempt(100.0, 0.9)]) == pytest.approx(100 / 1.15)
    assert next_aim([attempt(100.0, 0.6), attempt(87.0, 0.45)]) == pytest.approx((100 * 87) ** 0.5)
    assert next_aim([attempt(100.0, 0.45), attempt(111.0, 0.6), attempt(105.4, 0.48)]) == pytest.approx(
        (105.4 * 111) ** 0.5
    )


def plans_of_one_planner(taken) -> tuple[dict, list[str]]:
    """Where one planner ends that hits every aim exactly, on a device that takes `taken(aim)` of the dense 1000 us."""

    class Device(ToyCourse):
        def measure(self, plans, *, rounds):
            return SimpleNamespace(verdict=lambda name, _: SimpleNamespace(ratio=taken(plans[name].predicted_us)))

    class Source:
        origin = "500 us a layer"

        def latency_us(self, shape):
            return 500.0

        def kind(self, shape):
            return "modelled"

    net, example = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)), torch.zeros(1, 3, 8, 8)
    graph = tailprune.trace_model(net, example)
    device = Device(dense=net, example=example, graph=graph, table=Source(), timer=None)
    told: list[str] = []
    planner = {"any": lambda us: SimpleNamespace(predicted_us=us, importance=us)}
    return bring_to(device, planner, [0.5], say=told.append), told


def test_a_jump_in_what_an_aim_measures_is_closed_in_on():
    """The time jumps from 0.8 to 1.2 of what was aimed at: the plan ends just below the jump, not far below it."""
    found, _ = plans_of_one_planner(lambda us: us / 1000 * (0.8 if us < 560 else 1.2))
    assert 555 < found[0.5, "any"].predicted_us < 560


def test_who_is_there_is_not_planned_again():
    found, told = plans_of_one_planner(lambda us: us / 1000 * BIAS)
    assert 0.5 * USED <= BIAS * found[0.5, "any"].predicted_us / 1000 <= 0.5 * (1 + TOLERANCE)
    assert [line.partition(":")[0] for line in told] == ["round 0", "round 1"]
