from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
import torch_pruning as tp
from pruning_nets import IMAGES, Smooth, Stairs, shaken, small_net
from torch import nn

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, MissingLatency
from tailprune.core.sample import LatencySample
from tailprune.core.shapes import LayerShape
from tailprune.pruning import TailAwarePruner, load_pruned, save_pruned, verify_pruned
from tailprune.pruning.wrap import images_of
from tailprune.tables import LatencyTable


def make_host(net: nn.Module, images: torch.Tensor = IMAGES, **options):
    options = {"pruning_ratio": 0.45, "global_pruning": True, "ignored_layers": [net.head], **options}
    importance = options.pop("importance", tp.importance.GroupMagnitudeImportance())
    return tp.pruner.MagnitudePruner(
        net, images, importance=importance, in_channel_groups={}, out_channel_groups={}, num_heads={}, **options
    )


def output_widths(net: nn.Module) -> dict[str, int]:
    return {n: m.out_channels for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}


def test_one_step_lands_on_edges_and_equals_the_zeroed_network() -> None:
    dense = small_net()
    net = copy.deepcopy(dense)
    pruner = TailAwarePruner(make_host(net), latency=Stairs())
    assert pruner.step() is None
    plan = pruner.plan
    assert plan is not None
    assert len(plan.moved) >= 2
    assert plan.predicted_us < plan.host_us
    assert plan.importance >= plan.host_importance
    assert all(output_widths(net)[group] == width for group, width in plan.widths.items())
    verification = verify_pruned(dense, net, plan, IMAGES)
    assert verification.ok, str(verification)
    for choice in plan.moved:
        assert any(
            line.startswith(f"step 1: {choice.group}: host {choice.host}, planned {choice.width}")
            for line in pruner.report
        )


def test_a_source_without_steps_leaves_nothing_slower_than_the_host() -> None:
    net = small_net()
    pruner = TailAwarePruner(make_host(net), latency=Smooth())
    pruner.step()
    assert pruner.plan.predicted_us <= pruner.plan.host_us
    assert net(IMAGES).shape == (2, 10)


def test_interactive_groups_are_the_same_cut() -> None:
    one, two = small_net(), small_net()
    TailAwarePruner(make_host(one), latency=Stairs()).step()
    pruner = TailAwarePruner(make_host(two), latency=Stairs())
    groups = pruner.step(interactive=True)
    assert pruner.plan is not None, "planned before the first group is asked for"
    assert output_widths(two) == output_widths(small_net())
    for group in groups:
        assert isinstance(group, tp.dependency.Group)
        group.prune()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_iterative_steps_keep_the_hosts_schedule_and_can_be_saved(tmp_path) -> None:
    dense = small_net()
    net, twin = copy.deepcopy(dense), copy.deepcopy(dense)
    host, reference = make_host(net, iterative_steps=3), make_host(twin, iterative_steps=3)
    pruner = TailAwarePruner(host, latency=Stairs())
    for step in range(1, 4):
        pruner.step()
        reference.step()
        assert host.current_step == reference.current_step == step
        assert host._scope_initial_channels == reference._scope_initial_channels
        assert len(pruner.plans) == step
        assert pruner.plan.predicted_us <= pruner.plan.host_us
    path = tmp_path / "net.safetensors"
    save_pruned(net, pruner.plans, path)
    again = load_pruned(dense, path)
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(again(images), net(images))
    with pytest.warns(UserWarning, match="exceed the maximum"):
        pruner.step()
    assert len(pruner.plans) == 3
    assert pruner.report[-1] == "step 4: the host ranks no group, nothing was pruned"


def test_torch_prunings_own_loop_with_one_line_changed() -> None:
    """The loop of Torch-Pruning's README (iterative, interactive), on resnet18; the wrapping is the one line added."""
    import torchvision

    torch.manual_seed(0)
    model = shaken(torchvision.models.resnet18(num_classes=10))
    example_inputs = torch.randn(1, 3, 64, 64)
    imp = tp.importance.GroupMagnitudeImportance(p=2)
    ignored_layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 10]
    iterative_steps = 2
    pruner = tp.pruner.BasePruner(
        model, example_inputs, importance=imp, pruning_ratio=0.5, iterative_steps=iterative_steps,
        ignored_layers=ignored_layers, round_to=8,
    )  # fmt: skip
    pruner = TailAwarePruner(pruner, latency=Stairs())
    base_macs, base_nparams = tp.utils.count_ops_and_params(model, example_inputs)
    for _ in range(iterative_steps):
        for group in pruner.step(interactive=True):
            group.prune()
        macs, nparams = tp.utils.count_ops_and_params(model, example_inputs)
        assert macs < base_macs
        assert nparams < base_nparams
        base_macs, base_nparams = macs, nparams
    assert model(example_inputs).shape == (1, 10)
    assert sum("round_to=8" in line for line in pruner.report) == 2
    assert model.layer1[0].conv1.out_channels == pruner.plan.widths["layer1.0.conv1"]


def test_mobilenet_v2_keeps_depthwise_layers_whole() -> None:
    import torchvision

    torch.manual_seed(0)
    dense = shaken(torchvision.models.mobilenet_v2(num_classes=10))
    net = copy.deepcopy(dense)
    images = torch.zeros(1, 3, 64, 64)
    host = tp.pruner.MagnitudePruner(
        net,
        images,
        tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.3,
        global_pruning=True,
        ignored_layers=[net.classifier],
    )
    pruner = TailAwarePruner(host, latency=Stairs())
    pruner.step()
    assert all(
        m.in_channels == m.out_channels == m.groups for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups > 1
    )
    verification = verify_pruned(dense, net, pruner.plan, images)
    assert verification.ok, str(verification)


def test_the_goal_better_keeps_more_score_within_the_hosts_latency() -> None:
    net = small_net()
    pruner = TailAwarePruner(make_host(net), latency=Stairs(), goal="better")
    pruner.step()
    assert pruner.plan.predicted_us <= pruner.plan.host_us
    assert pruner.plan.importance > pruner.plan.host_importance


def test_negative_scores_are_raised_and_said() -> None:
    net = small_net()
    host = make_host(net, importance=lambda group: torch.arange(len(group[0][1])).float() - 5)
    pruner = TailAwarePruner(host, latency=Stairs())
    pruner.step()
    assert any("negative down to -5; raised" in line for line in pruner.report)


def test_nan_scores_name_the_layer_and_leave_the_host_alone() -> None:
    net = small_net()
    host = make_host(net, importance=lambda group: torch.full((len(group[0][1]),), float("nan")))
    pruner = TailAwarePruner(host, latency=Stairs())
    with pytest.raises(InvalidShape, match=r"importance of layer \S+ is nan at channel 0"):
        pruner.step()
    assert host.current_step == 0
    assert output_widths(net) == output_widths(small_net())


def test_failed_planning_takes_the_step_back() -> None:
    class Empty(Smooth):
        def latency_us(self, shape: LayerShape) -> float:
            raise MissingLatency(f"nothing known of {shape}", (shape,))

    net = small_net()
    host = make_host(net)
    pruner = TailAwarePruner(host, latency=Empty())
    with pytest.raises(MissingLatency):
        pruner.step()
    assert (host.current_step, host._scope_initial_channels) == (0, {})
    assert output_widths(net) == output_widths(small_net())
    pruner.latency = Stairs()
    pruner.step()
    assert host.current_step == 1


def test_groups_with_no_importance_are_reported_and_left() -> None:
    def only_the_inner(group):
        width = len(group[0][1])
        return torch.rand(width) if width == 24 else None

    net = small_net()
    pruner = TailAwarePruner(make_host(net, importance=only_the_inner, pruning_ratio=0.5), latency=Stairs())
    pruner.step()
    assert output_widths(net)["stem.0"] == 16
    assert sum("the importance returned None" in line for line in pruner.report) >= 2


def test_the_classifier_is_left_whole_when_the_host_forgets_to_ignore_it() -> None:
    net = small_net()
    pruner = TailAwarePruner(make_host(net, ignored_layers=[]), latency=Stairs())
    pruner.step()
    assert net(IMAGES).shape == (2, 10)
    assert any(line.startswith("step 1: head: left whole at 10") and "output" in line for line in pruner.report)


def test_max_pruning_ratio_bounds_the_plan() -> None:
    net = small_net()
    host = make_host(net, max_pruning_ratio=0.3, pruning_ratio=0.3, global_pruning=False)
    pruner = TailAwarePruner(host, latency=Stairs(), policy="shrink")
    pruner.step()
    for choice in pruner.plan.choices:
        assert choice.width >= min(choice.host, -(-choice.original * 7 // 10))


def test_bad_calls_are_one_sentence() -> None:
    with pytest.raises(InvalidShape, match=r"wraps a Torch-Pruning pruner .*, got SmallNet"):
        TailAwarePruner(small_net(), latency=Stairs())
    with pytest.raises(InvalidShape, match="A latency source or a timer is needed"):
        TailAwarePruner(make_host(small_net()))
    with pytest.raises(InvalidShape, match="with global_pruning=True as well"):
        TailAwarePruner(make_host(small_net(), isomorphic=True, global_pruning=False), latency=Stairs())
    pruner = TailAwarePruner(make_host(small_net()), latency=Stairs(), goal="best")
    with pytest.raises(InvalidShape, match="Unknown goal 'best'"):
        pruner.step()


def test_the_hosts_images_are_recovered() -> None:
    host = make_host(small_net(), torch.randn(4, 3, 20, 12))
    assert images_of(host).shape == (4, 3, 20, 12)
    TailAwarePruner(host, latency=Stairs()).step()
    assert images_of(host).shape == (4, 3, 20, 12), "and still after pruning"


class StairsTimer:
    """A device with the stairs above: what it is asked is noted."""

    environment = Environment(device="stairs", runtime="simulated")

    def __init__(self) -> None:
        self.asked: list[LayerShape] = []

    def time(self, shape: LayerShape) -> LatencySample:
        self.asked.append(shape)
        return LatencySample(shape=shape, times_us=(Stairs().latency_us(shape),) * 5)

    def time_many(self, shapes):
        return map(self.time, shapes)


def test_a_timer_alone_measures_what_is_needed() -> None:
    one, two = small_net(), small_net()
    timer = StairsTimer()
    measured = TailAwarePruner(make_host(one), timer=timer)
    measured.step()
    assert timer.asked
    assert max(Counter(timer.asked).values()) <= 2, "once to find out where to look, once beside its line"
    known = TailAwarePruner(make_host(two), latency=Stairs())
    known.step()
    assert measured.plan.predicted_us == pytest.approx(known.plan.predicted_us)
    assert measured.plan.latency_kind in ("measured", "held")


def test_a_table_is_filled_by_the_timer_only_where_it_lacks(tmp_path) -> None:
    timer = StairsTimer()
    with LatencyTable.open(tmp_path / "stairs.db", environment=timer.environment) as table:
        TailAwarePruner(make_host(small_net()), latency=table, timer=timer).step()
        before = len(timer.asked)
        assert before
        TailAwarePruner(make_host(small_net()), latency=table, timer=timer).step()
        assert len(timer.asked) == before
