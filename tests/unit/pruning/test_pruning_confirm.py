from __future__ import annotations

import dataclasses
from statistics import median

import pytest
import torch
from pruning_nets import IMAGES, Stairs, small_net
from test_pruning_wrap import make_host

from tailprune.core.errors import NoPlan
from tailprune.core.plan import Budget, WidthPlan
from tailprune.planning import choose_host, host_plan, plan_widths
from tailprune.pruning import TailAwarePruner, confirm, score_channels
from tailprune.timing import DeviceTimer
from tailprune.timing.whole_model import ModelTimings
from tailprune.tracing import trace_model

TIMER = DeviceTimer("cpu", max_visits=6, max_seconds=0.05)


@pytest.fixture
def case():
    net = small_net()
    graph = trace_model(net, IMAGES)
    scores = choose_host(score_channels(net, graph), 0.45)
    return net, graph, plan_widths(graph, scores, latency=Stairs()), host_plan(graph, scores, Stairs())


def pretend(monkeypatch: pytest.MonkeyPatch, *plan_over_host: float) -> list[dict[str, torch.nn.Module]]:
    """measure_model answers with these ratios, one a call; the models it was given are kept."""
    given: list[dict[str, torch.nn.Module]] = []
    ratios = iter(plan_over_host)

    def measure_model(models, images, **settings) -> ModelTimings:
        given.append(dict(models))
        times = {"host": (100.0,) * 8, "plan": (100.0 * next(ratios),) * 8}
        return ModelTimings(
            times_us=times, environment=TIMER.environment, input_shapes=((2, 3, 16, 16),), dtype="float32",
            memory_format="channels_last",
        )  # fmt: skip

    monkeypatch.setattr(confirm, "measure_model", measure_model)
    return given


def test_a_plan_that_holds_is_kept(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, plan, host = case
    given = pretend(monkeypatch, 0.8)
    kept, lines = confirm.confirm_plan(net, graph, plan, host, pytest.fail, TIMER, IMAGES)
    assert kept is plan
    assert lines[0].startswith("measured end to end: host 100 us")
    widths = {name: model.inner[0].out_channels for name, model in given[0].items()}
    assert widths == {"host": host.widths["inner.0"], "plan": plan.widths["inner.0"]}
    assert net.inner[0].out_channels == 24, "measured on copies"


def test_a_slower_plan_is_tightened_by_what_was_measured(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, plan, host = case
    pretend(monkeypatch, 1.25, 0.9)
    budgets: list[Budget] = []

    def replan(budget: Budget) -> WidthPlan:
        budgets.append(budget)
        return dataclasses.replace(plan, budget_us=budget.us)

    kept, lines = confirm.confirm_plan(net, graph, plan, host, replan, TIMER, IMAGES)
    assert [b.us for b in budgets] == [pytest.approx(plan.predicted_us / 1.25)]
    assert kept.budget_us == budgets[0].us
    assert len(lines) == 2


def test_the_host_stands_after_three_tightenings_or_when_nothing_is_left(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, plan, host = case
    given = pretend(monkeypatch, *[1.2] * 9)
    kept, lines = confirm.confirm_plan(net, graph, plan, host, lambda budget: plan, TIMER, IMAGES)
    assert kept is host
    assert len(given) == 4
    assert lines[-1] == "no plan holds as measured: the host's own widths are used"

    def impossible(budget: Budget) -> WidthPlan:
        raise NoPlan("below the floor")

    kept, lines = confirm.confirm_plan(net, graph, plan, host, impossible, TIMER, IMAGES)
    assert kept is host
    assert any(line.startswith("no plan keeps the score within") for line in lines)


def test_room_that_the_sum_does_not_see_is_used_once(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, plan, host = case
    plan = dataclasses.replace(plan, goal="better", predicted_us=plan.host_us, importance=0.6)
    budgets: list[Budget] = []

    def replan(budget: Budget) -> WidthPlan:
        budgets.append(budget)
        return dataclasses.replace(plan, budget_us=budget.us, predicted_us=budget.us, importance=0.7)

    pretend(monkeypatch, 0.8, 0.97)
    kept, lines = confirm.confirm_plan(net, graph, plan, host, replan, TIMER, IMAGES)
    assert [b.us for b in budgets] == [pytest.approx(plan.host_us / 0.8)]
    assert (kept.importance, len(lines)) == (0.7, 2)
    assert "ratio off by -20.0%" in lines[0]
    pretend(monkeypatch, 0.8, 1.1)
    kept, _ = confirm.confirm_plan(net, graph, plan, host, replan, TIMER, IMAGES)
    assert kept is plan, "the better one did not hold, the first one did"
    pretend(monkeypatch, 0.99)
    assert confirm.confirm_plan(net, graph, plan, host, pytest.fail, TIMER, IMAGES)[0] is plan


def test_a_budget_is_kept_as_measured_too(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, plan, host = case
    tight = 0.9 * plan.host_us
    plan = dataclasses.replace(plan, goal="better", budget_us=tight, predicted_us=tight)
    pretend(monkeypatch, 0.95, 0.9)
    budgets: list[Budget] = []

    def replan(budget: Budget) -> WidthPlan:
        budgets.append(budget)
        return dataclasses.replace(plan, predicted_us=budget.us)

    confirm.confirm_plan(net, graph, plan, host, replan, TIMER, IMAGES)
    assert [b.us for b in budgets] == [pytest.approx(tight * 0.9 / 0.95)]


def test_a_plan_that_is_the_host_is_not_measured(case, monkeypatch: pytest.MonkeyPatch) -> None:
    net, graph, _, host = case
    given = pretend(monkeypatch)
    assert confirm.confirm_plan(net, graph, host, host, pytest.fail, TIMER, IMAGES)[0] is host
    assert given == []


def test_wrapping_with_a_device_timer_measures_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = confirm.measure_model
    calls: list[float] = []

    def quick(models, images, **settings) -> ModelTimings:
        timings = measure(models, images, **settings, rounds=6)
        calls.append(median(timings.times_us["plan"]))
        return timings

    monkeypatch.setattr(confirm, "measure_model", quick)
    net = small_net()
    pruner = TailAwarePruner(make_host(net), latency=Stairs(), timer=TIMER)
    pruner.step()
    assert calls
    assert sum("measured end to end" in line for line in pruner.report) == len(calls)
    assert net.inner[0].out_channels == pruner.plan.widths["inner.0"]


def test_the_host_is_cut_where_no_plan_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, *[1.5] * 4)
    net, twin = small_net(), small_net()
    pruner = TailAwarePruner(make_host(net), latency=Stairs(), timer=TIMER)
    pruner.step()
    make_host(twin).step()
    assert pruner.plan.moved == ()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))


def test_a_float32_pipeline_is_planned_and_measured_in_the_dtype_it_is_deployed_in() -> None:
    net = small_net()
    pruner = TailAwarePruner(make_host(net), timer=TIMER, dtype="bfloat16")
    pruner.step()
    assert pruner.plan is not None
    assert pruner.plan.dtype == "bfloat16"
    assert {sample.shape.dtype for sample in pruner.latency.samples()} == {"bfloat16"}
    assert next(net.parameters()).dtype == torch.float32
    assert any("measured end to end" in line or "nothing to measure end to end" in line for line in pruner.report)
