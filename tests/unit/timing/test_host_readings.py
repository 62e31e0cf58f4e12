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
from tailprune.timing import between, host_clock
from tailprune.timing.between import RING_MIB, OtherWork, other_work
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


def noted_work(log: list[str]) -> SimpleNamespace:
    parts = {name: Noted(log, name) for name in ("come_round", "forget", "arrive")}
    return SimpleNamespace(read_mib=0, **parts)


def test_a_spare_brings_the_code_back_and_leaves_the_timed_weights_forgotten(log: list[str]) -> None:
    clock = HostClock(noted_work(log))
    prepared = clock.prepare(Noted(log, "block"), [], Noted(log, "spare"))
    assert log == ["block"] * (prepared.warmups - 1)
    log.clear()
    reading = prepared.read()
    assert log == ["come_round", "block", "forget", "spare", "arrive", "block"], (
        "a second timed call would find its weights warm"
    )
    assert clock.wants_spare
    assert prepared.calls == 1
    assert reading.us > 0
    assert not reading.disturbed


def test_without_other_work_no_spare_is_asked_for() -> None:
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
def test_a_disturbed_pass_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, log: list[str], counts: list[int], takes: int, disturbed: bool
) -> None:
    answers = iter(counts)
    monkeypatch.setattr(host_clock, "preemptions", lambda: next(answers))
    monkeypatch.setattr(host_clock, "calls_per_reading", lambda us, least: 1)
    prepared = HostClock().prepare(Noted(log, "network"), [])
    log.clear()
    assert prepared.read().disturbed is disturbed
    assert log == ["network", "network"] * takes


@pytest.mark.parametrize(
    ("slow", "takes", "disturbed"),
    [([False], 1, False), ([True, False], 2, False), ([True] * TAKES, TAKES, True)],
)
def test_a_pass_behind_which_the_core_is_slow_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, log: list[str], slow: list[bool], takes: int, disturbed: bool
) -> None:
    answers = iter(slow)
    monkeypatch.setattr(host_clock, "calls_per_reading", lambda us, least: 1)
    canary = SimpleNamespace(wait=Noted(log, "wait"), is_slow=lambda: log.append("listen") or next(answers))
    prepared = HostClock(canary=canary).prepare(Noted(log, "network"), [])
    log.clear()
    assert prepared.read().disturbed is disturbed
    assert log == ["wait", "network", "network", "listen"] * takes


@pytest.mark.parametrize("slow", [False, True])
def test_a_blocks_reading_is_not_taken_again_it_comes_round(log: list[str], slow: bool) -> None:
    canary = SimpleNamespace(wait=Noted(log, "wait"), is_slow=lambda: slow)
    prepared = HostClock(noted_work(log), canary).prepare(Noted(log, "block"), [], Noted(log, "spare"))
    log.clear()
    assert prepared.read().disturbed is slow
    assert log == ["come_round", "block", "forget", "spare", "wait", "arrive", "block"]


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
    prepared = HostClock(noted_work(log)).prepare(Noted(log, "block"), [], Noted(log, "spare"))
    log.clear()
    prepared.read()
    assert log == ["come_round", "block", "forget", "(", "spare", ")", "(", "arrive", "block", ")"]


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


class Numbers:
    """A bank whose numbers write down which MiB of the ring is read."""

    def __init__(self, log: list[int]) -> None:
        self.log = log

    def scratch(self, num_bytes: int) -> SimpleNamespace:
        parts = [SimpleNamespace(sum=lambda i=i: self.log.append(i)) for i in range(num_bytes // 2**20)]
        return SimpleNamespace(split=lambda count: parts if count * 4 == 2**20 else [])


@given(st.integers(1, 300), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_a_visit_reads_its_mib_and_no_block_comes_round_within_a_ring(mib: int, visits: list[int]) -> None:
    read: list[int] = []
    work = OtherWork(mib, Numbers(read))
    used_at = dict.fromkeys(range(4), 0)
    for block in visits:
        before = len(read)
        work.come_round(used_at[block])
        assert len(read) - used_at[block] >= RING_MIB
        assert len(read) == before or len(read) - used_at[block] == RING_MIB, "no more than needed"
        before = len(read)
        work.forget()
        assert len(read) - before == mib
        used_at[block] = work.read_mib
    ring = max(RING_MIB, 2 * mib)
    assert read == [i % ring for i in range(len(read))], "the ring is read part by part, each as long ago as can be"


def test_a_block_is_far_from_its_last_reading_alone_and_in_company(log: list[str]) -> None:
    read: list[int] = []
    clock = HostClock(OtherWork(16, Numbers(read)))
    alone, other = (clock.prepare(Noted(log, name), [], Noted(log, "spare")) for name in ("block", "other"))
    distances = []
    for prepared in (alone, alone, other, other, alone):
        before = len(read)
        prepared.read()
        distances.append(len(read) - before)
    assert distances == [RING_MIB + 16, RING_MIB + 16, 16, RING_MIB + 16, 16]


def test_inputs_arrive_last() -> None:
    log: list[str] = []
    OtherWork(1, RandomBank("cpu")).arrive([Noted(log, "input"), Noted(log, "operand")])
    assert log == ["input", "operand"]


def test_the_ring_is_made_when_first_read() -> None:
    bank = RandomBank("cpu")
    work = OtherWork(16, bank)
    assert not bank._flat
    work.come_round(-RING_MIB)
    assert not bank._flat
    work.forget()
    assert work.read_mib == 16
    assert bank.scratch(4).untyped_storage().nbytes() == RING_MIB * 2**20


def test_the_state_says_how_much_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(between, "OtherWork", lambda mib, bank: asked.append(mib))
    assert other_work("warm", RandomBank("cpu")) is None
    other_work("3 MiB", RandomBank("cpu"))
    assert asked == [3]


@pytest.mark.parametrize("l2", ["cold", "hot", "0 MiB", "00 MiB", "16", "16 MB", "-2 MiB", "99999 MiB", ""])
def test_no_other_state_is_known(l2: str) -> None:
    with pytest.raises(InvalidShape, match="allowed on a CPU: warm, or the MiB"):
        other_work(l2, RandomBank("cpu"))
