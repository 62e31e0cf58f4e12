"""Is everyone brought to the same measured latency, whatever the sum of layers predicts?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tailprune
from recipes.race import TOLERANCE, Course, better, bring_to, faster, host, multiple

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
