"""The CPU's reading: what a network does between two calls of a layer, then the timed call; again where the core was taken away."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tailprune.core.errors import InvalidShape
from tailprune.core.graph import Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.timing import between, host_clock, l2_for
from tailprune.timing.between import NEIGHBOURS, OtherWork, other_work
from tailprune.timing.canary import Canary
from tailprune.timing.host_clock import TAKES, HostClock
from tailprune.timing.interludes import EVERY_US, Interludes
from tailprune.timing.random_data import RandomBank
from tailprune.timing.readings import MAX_CALLS, calls_per_reading
from tailprune.timing.runtimes import Runtime


class Noted:
    """Stands for anything that runs, and writes its name down."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def __call__(self, *_: object) -> None:
        self.log.append(self.name)

    sum = __call__


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(host_clock, "preemptions", lambda: 0)
    monkeypatch.setattr(host_clock, "calls_per_reading", lambda us, least: 3)
    monkeypatch.setattr(Canary, "is_slow", lambda self: False)
    return []


def noted_work(log: list[str], mib: int) -> SimpleNamespace:
    return SimpleNamespace(mib=mib, forget=Noted(log, "forget"), arrive=Noted(log, "arrive"))


def test_a_spare_brings_the_code_back_and_leaves_the_timed_weights_forgotten(log: list[str]) -> None:
    clock = HostClock(noted_work(log, 4))
    prepared = clock.prepare(Noted(log, "block"), [], Noted(log, "spare"))
    assert log == ["block"] * (prepared.warmups - 1)
    log.clear()
    reading = prepared.read()
    assert log == ["forget", "spare", "arrive", "block"], "a second timed call would find its weights warm"
    assert clock.wants_spare
    assert prepared.calls == 1
    assert reading.us > 0
    assert not reading.disturbed


def test_a_small_network_finds_its_weights_warm(log: list[str]) -> None:
    clock = HostClock(noted_work(log, 0))
    prepared = clock.prepare(Noted(log, "block"), [])
    log.clear()
    prepared.read()
    assert log == ["forget", "block", "arrive", "block"]
    assert not clock.wants_spare
    assert not HostClock().wants_spare


def test_the_spare_is_a_copy_with_weights_of_its_own() -> None:
    deployed: list[nn.Module] = []

    class Clock:
        wants_spare = True

        def prepare(self, call: object, inputs: object, spare: object = None) -> tuple[object, object]:
            return call, spare

    def deploy(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
        deployed.append(module)
        return id(module)

    module = nn.Linear(4, 4)
    runtime = Runtime(name="eager", l2="4 MiB", deploy=deploy, clock=Clock())
    call, spare = runtime.prepare(module, ())
    first, second = deployed
    assert {call, spare} == {id(first), id(second)}
    assert call == id(module)
    assert first.weight.data_ptr() != second.weight.data_ptr()
    assert torch.equal(first.weight, second.weight)
    assert runtime.copies == 2
    assert dataclasses.replace(runtime, clock=HostClock()).copies == 1


def test_warm_calls_follow_each_other_several_to_a_reading(log: list[str]) -> None:
    prepared = HostClock().prepare(Noted(log, "block"), [Noted(log, "input")])
    log.clear()
    prepared.read()
    assert log == ["block"] * (1 + prepared.calls)
    assert prepared.calls == 3


@pytest.mark.parametrize(
    ("counts", "takes", "disturbed"),
    [([0, 0], 1, False), ([0, 1, 1, 1], 2, False), ([0, 1, 1, 2, 2, 3], TAKES, True)],
)
def test_a_disturbed_reading_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, log: list[str], counts: list[int], takes: int, disturbed: bool
) -> None:
    answers = iter(counts)
    monkeypatch.setattr(host_clock, "preemptions", lambda: next(answers))
    prepared = HostClock(noted_work([], 0)).prepare(Noted(log, "block"), [])
    log.clear()
    assert prepared.read().disturbed is disturbed
    assert len(log) == 2 * takes


@pytest.mark.parametrize(
    ("slow", "takes", "disturbed"),
    [([False], 1, False), ([True, False], 2, False), ([True] * TAKES, TAKES, True)],
)
def test_a_reading_behind_which_the_core_is_slow_is_taken_again(
    log: list[str], slow: list[bool], takes: int, disturbed: bool
) -> None:
    answers = iter(slow)
    canary = SimpleNamespace(wait=Noted(log, "wait"), is_slow=lambda: log.append("listen") or next(answers))
    prepared = HostClock(noted_work(log, 4), canary).prepare(Noted(log, "block"), [], Noted(log, "spare"))
    log.clear()
    assert prepared.read().disturbed is disturbed
    assert log == ["forget", "spare", "wait", "arrive", "block", "listen"] * takes


def test_the_spares_output_and_the_blocks_lie_in_places_of_their_own(
    monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    class Places:
        def __init__(self, output: object) -> None:
            pass

        @contextlib.contextmanager
        def another(self) -> Iterator[None]:
            log.append("(")
            yield
            log.append(")")

    monkeypatch.setattr(host_clock, "Places", Places)
    prepared = HostClock(noted_work(log, 4)).prepare(Noted(log, "block"), [], Noted(log, "spare"))
    log.clear()
    prepared.read()
    assert log == ["forget", "(", "spare", ")", "(", "arrive", "block", ")"]


@pytest.mark.parametrize(("slow", "disturbed"), [(False, False), (True, True)])
def test_songs_inside_a_network_are_not_its_time_and_tell_of_a_slow_core(
    monkeypatch: pytest.MonkeyPatch, log: list[str], slow: bool, disturbed: bool
) -> None:
    now = itertools.count(0, 1_000_000)  # every look at the clock a millisecond
    monkeypatch.setattr(host_clock.time, "perf_counter_ns", lambda: next(now))
    monkeypatch.setattr(host_clock, "calls_per_reading", lambda us, least: 1)
    inside: list[bool] = []
    canary = SimpleNamespace(wait=lambda: None, is_slow=lambda: bool(inside) and slow)
    clock, net = HostClock(canary=canary), nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU(), nn.ReLU())
    net.register_forward_pre_hook(lambda *_: inside.append(True))
    net.register_forward_hook(lambda *_: inside.clear())
    assert clock.interludes.listen_in(net, pass_us=3 * EVERY_US) == 3
    reading = clock.prepare(lambda: net(torch.zeros(4)), []).read()
    assert reading.disturbed is disturbed
    assert reading.us == 1000 * (2 * 3 + 1 - 3), (
        "three songs of a millisecond each; behind them all a look at the clock"
    )


@pytest.mark.parametrize(
    ("pass_us", "songs"), [(0.0, []), (499.0, []), (500.0, [2]), (1100.0, [1, 3]), (1e6, [0, 1, 2, 3, 4])]
)
def test_songs_are_spread_over_the_pass(pass_us: float, songs: list[int]) -> None:
    net = nn.Sequential(*(nn.Sequential(nn.Identity()) for _ in range(5)))
    assert Interludes(Canary()).listen_in(net, pass_us) == len(songs)
    assert [i for i, stage in enumerate(net) if "forward" in vars(stage[0])] == songs
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_only_a_whole_eager_network_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interludes, "listen_in", lambda self, network, pass_us: heard.append(network) or 0)
    heard: list[nn.Module] = []
    net, images = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (torch.zeros(1, 4),)

    def prepare(name: str, **whole: bool) -> None:
        deploy = lambda module, inputs: lambda: module(*inputs)  # noqa: E731
        Runtime(name=name, l2="warm", deploy=deploy, clock=HostClock()).prepare(net, images, **whole)

    prepare("compile", whole=True)
    prepare("eager")
    assert heard == []
    prepare("eager", whole=True)
    assert heard == [net]


def test_short_calls_are_read_several_at_a_time() -> None:
    assert calls_per_reading(1e6, 20.0) == calls_per_reading(20.0, 20.0) == 1
    assert calls_per_reading(19.0, 20.0) == 2
    assert calls_per_reading(3.0, 300.0) == 100
    assert calls_per_reading(0.0, 20.0) == MAX_CALLS


def test_other_work_forgets_another_part_each_time_then_neighbours_run_and_inputs_arrive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Bank:
        def scratch(self, num_bytes: int) -> SimpleNamespace:
            assert num_bytes == between.RING_MIB * 2**20
            parts = [Noted(log, f"part {i}") for i in range(3)]
            return SimpleNamespace(split=lambda count: parts if count * 4 == 5 * 2**20 else [])

    monkeypatch.setattr(between, "build_block", lambda shape, bank: Noted(log, "neighbour"))
    work = OtherWork(5, Bank())
    for _ in range(4):
        work.forget()
        work.arrive([Noted(log, "input")])
    visits = [[part, *["neighbour"] * len(NEIGHBOURS), "input"] for part in ("part 0", "part 1", "part 2", "part 0")]
    assert log == [step for visit in visits for step in visit]


def test_the_state_says_how_much_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(between, "OtherWork", lambda mib, bank: asked.append(mib))
    assert other_work("warm", RandomBank("cpu")) is None
    other_work("3 MiB", RandomBank("cpu"))
    assert asked == [3]


def test_the_ring_is_longer_than_what_is_read() -> None:
    bank = RandomBank("cpu")
    work = OtherWork(between.RING_MIB, bank)
    first, second, third = (next(work._parts) for _ in range(3))
    assert first.numel() * 4 == between.RING_MIB * 2**20
    assert first.data_ptr() != second.data_ptr()
    assert first.data_ptr() == third.data_ptr()


@pytest.mark.parametrize("l2", ["cold", "hot", "00 MiB", "16", "16 MB", "-2 MiB", "99999 MiB", ""])
def test_no_other_state_is_known(l2: str) -> None:
    with pytest.raises(InvalidShape, match="allowed on a CPU: warm, or the MiB"):
        other_work(l2, RandomBank("cpu"))


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_larger_network_has_no_less_other_work(one: int, other: int) -> None:
    read = [int(l2_for(graph).split()[0]) for graph in map(perceptron, sorted((one, other)))]
    assert read == sorted(read)


def test_the_working_set_is_weights_and_every_activation_once() -> None:
    assert l2_for(perceptron(1000)) == "0 MiB"  # 3.8 MiB of weights
    assert l2_for(perceptron(1030)) == "16 MiB"  # 4.05 MiB
    assert l2_for(perceptron(6000)) == "16 MiB"
    assert l2_for(perceptron(500).at_batch(1500)) == "0 MiB"  # 1 MiB of weights, 2.9 in, as much out
    assert l2_for(perceptron(500).at_batch(1700)) == "16 MiB"  # 3.2 in, as much out


def test_reading_nothing_still_runs_neighbours_and_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(between, "build_block", lambda shape, bank: Noted(log, "neighbour"))
    work = OtherWork(0, RandomBank("cpu"))
    work.forget()
    work.arrive([Noted(log, "input")])
    assert log == ["neighbour"] * len(NEIGHBOURS) + ["input"]


def perceptron(width: int) -> ModelGraph:
    shape = LayerShape(op="linear", batch=1, in_channels=width, out_channels=width, epilogue=("bias",))
    layer = Layer(name="0", shape=shape, in_expr=WidthExpr(constant=width), out_expr=WidthExpr(constant=width))
    return ModelGraph(model="perceptron", layers=(layer,), groups=(), input_shape=(1, width))
