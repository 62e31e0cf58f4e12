"""Verdicts on made-up times, and a real run of tiny models without any claim on their speed."""

from __future__ import annotations

import dataclasses
import gc
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tailprune.core.environment import Environment
from tailprune.core.errors import InvalidShape, TailpruneError
from tailprune.timing import ModelTimings, measure_model
from tailprune.timing.host_clock import HostClock
from tailprune.timing.readings import Prepared, Reading
from tailprune.timing.whole_model import MOST_TURNS


def timings(**times: list[float]) -> ModelTimings:
    return ModelTimings(times_us={n: tuple(t) for n, t in times.items()}, environment=Environment(device="made up"),
                        input_shapes=((1, 3),), dtype="float32", memory_format="contiguous")  # fmt: skip


DRIFT = [100.0, 130.0, 90.0, 160.0, 105.0, 220.0, 95.0, 140.0]


def test_drift_common_to_both_cancels() -> None:
    measured = timings(a=[0.98 * t for t in DRIFT], b=DRIFT)
    verdict = measured.verdict("a", "b")
    assert verdict.outcome == "faster"
    assert verdict.ratio == pytest.approx(0.98)
    assert measured.verdict("b", "a").outcome == "slower"
    assert str(verdict) == "faster: 0.980 of the time (0.980 to 0.980)"


def test_a_ratio_around_one_is_ambiguous() -> None:
    factors = [0.97, 1.03, 0.99, 1.02, 0.98, 1.01, 1.0, 0.99]
    verdict = timings(a=[f * t for f, t in zip(factors, DRIFT, strict=True)], b=DRIFT).verdict("a", "b")
    assert verdict.outcome == "ambiguous"
    assert verdict.low < 1 < verdict.high


def test_a_model_is_never_faster_than_itself() -> None:
    assert timings(a=DRIFT).verdict("a", "a").outcome == "ambiguous"


def test_too_few_rounds_never_decide() -> None:
    assert timings(a=[1.0] * 5, b=[9.0] * 5).verdict("a", "b").outcome == "ambiguous"


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4)), min_size=6, max_size=30))
def test_verdicts_are_antisymmetric(pairs: list[tuple[float, float]]) -> None:
    measured = timings(a=[a for a, _ in pairs], b=[b for _, b in pairs])
    there, back = measured.verdict("a", "b"), measured.verdict("b", "a")
    opposite = {"faster": "slower", "slower": "faster", "ambiguous": "ambiguous"}
    assert back.outcome == opposite[there.outcome]
    assert there.low <= there.ratio <= there.high
    assert back.low == pytest.approx(1 / there.high)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidShape, match="No model named 'c' was measured; measured were a, b"):
        timings(a=DRIFT, b=DRIFT).median_us("c")


def test_a_pass_is_put_together_from_what_was_left_alone() -> None:
    """Every pass is hit once, each in another part: no pass is calm, every part nearly always."""
    parts = [tuple(15.0 if part == hit else 10.0 for part in range(8)) for hit in range(8)]
    passes = [sum(times) for times in parts]
    measured = dataclasses.replace(timings(a=passes, b=passes), parts_us={"a": tuple(parts)})
    assert measured.median_us("a") == 85.0
    assert measured.undisturbed_us("a") == 80.0
    assert measured.undisturbed_us("b") == 85.0  # no parts: its passes


def test_an_undisturbed_pass_is_the_pass() -> None:
    parts = tuple((10.0 + i / 10, 20.0 - i / 10, 5.0) for i in range(7))
    measured = dataclasses.replace(timings(a=[sum(times) for times in parts]), parts_us={"a": parts})
    assert measured.undisturbed_us("a") == pytest.approx(measured.median_us("a"))


def test_passes_cut_in_different_places_are_not_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = itertools.cycle([2, 3])
    parts = {"wavering": lambda: (1.0,) * next(lengths), "steady": lambda: (1.0, 2.0), "silent": lambda: (1.0,)}
    prepared = iter([Prepared(read=lambda p=p: Reading(3.0, parts_us=p()), warmups=1, calls=1) for p in parts.values()])
    monkeypatch.setattr(HostClock, "prepare", lambda *_: next(prepared))
    measured = measure_model({name: nn.ReLU() for name in parts}, torch.randn(4), rounds=6)
    assert set(measured.parts_us) == {"steady"}
    assert measured.undisturbed_us("wavering") == 3.0


@pytest.mark.usefixtures("calm_core")
def test_the_parts_of_a_long_pass_sum_to_it() -> None:
    long = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1) for _ in range(6)))
    measured = measure_model({"long": long, "short": nn.Identity()}, torch.randn(1, 64, 48, 48), rounds=6)
    assert set(measured.parts_us) == {"long"}
    assert len({len(parts) for parts in measured.parts_us["long"]}) == 1
    for us, parts in zip(measured.times_us["long"], measured.parts_us["long"], strict=True):
        assert sum(parts) == pytest.approx(us, rel=0.02)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


@pytest.mark.usefixtures("calm_core")
def test_measures_every_model_in_every_round_and_leaves_them_alone() -> None:
    models = {"one": net().train(), "two": net().train(), "three": net().train()}
    before = {name: [t.clone() for t in model.state_dict().values()] for name, model in models.items()}
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    measured = measure_model(models, torch.randn(2, 3, 8, 8), rounds=7)
    assert {len(times) for times in measured.times_us.values()} == {7}
    assert all(time > 0 for times in measured.times_us.values() for time in times)
    assert measured.input_shapes == ((2, 3, 8, 8),)
    assert measured.dtype == "float32"
    assert measured.environment.runtime == "eager"
    for name, model in models.items():
        assert model.training
        assert all(torch.equal(x, y) for x, y in zip(before[name], model.state_dict().values(), strict=True))
        assert model[0].weight.is_contiguous()
    assert (torch.get_num_threads(), gc.isenabled(), torch.is_grad_enabled()) == (threads, collecting, True)


@pytest.mark.usefixtures("calm_core")
def test_order_shifts_by_one_each_round() -> None:
    seen: list[str] = []

    class Noting(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(self.name)
            return x.sum()

    measure_model({name: Noting(name) for name in "abc"}, torch.randn(2**16), rounds=6)
    turns = "".join(name for name, before in zip(seen, ["", *seen], strict=False) if name != before)
    assert turns == "abc" + "abc" + "bca" + "cab" + "abc" + "bca" + "cab"  # prepared once, then six rounds


def test_zeros_are_replaced_by_numbers_and_layout_is_set() -> None:
    got: list[torch.Tensor] = []

    class Keeping(nn.Module):
        def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            got[:] = [x, index]
            return x + 1

    measure_model({"m": Keeping()}, [torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)], rounds=6)
    assert got[0].std() > 0.5
    assert got[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got[1], torch.zeros(2, dtype=torch.int64))


def test_refuses_in_one_sentence() -> None:
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(InvalidShape, match="at least one model and 6 rounds, got 0 models"):
        measure_model({}, x)
    with pytest.raises(InvalidShape, match="6 rounds, got 1 models and 5 rounds"):
        measure_model({"m": net()}, x, rounds=5)
    with pytest.raises(InvalidShape, match="Unknown memory_format 'nhwc'"):
        measure_model({"m": net()}, x, memory_format="nhwc")
    with pytest.raises(TailpruneError, match=r"Model 'm' does not run on .* with inputs of \(1, 5, 8, 8\): "):
        measure_model({"m": net()}, torch.randn(1, 5, 8, 8))


def test_models_run_in_the_dtype_they_are_deployed_in() -> None:
    seen = []

    class Spy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((x.dtype, self.weight.dtype))
            return super().forward(x)

    model = Spy(4, 4)
    measured = measure_model({"a": model}, torch.zeros(2, 4), rounds=6, dtype="bfloat16")
    assert measured.dtype == "bfloat16"
    assert set(seen) == {(torch.bfloat16, torch.bfloat16)}
    assert model.weight.dtype == torch.float32
    with pytest.raises(
        InvalidShape, match="PyTorch runs no model in 'int8'; allowed: float32, tf32, float16, bfloat16"
    ):
        measure_model({"a": model}, torch.zeros(2, 4), dtype="int8")


def test_rounds_in_which_other_work_took_the_core_are_left_out_once_enough_others_are_there() -> None:
    a, b = [10.0] * 6 + [99.0] * 8, [20.0] * 6 + [21.0] * 8
    calm = dataclasses.replace(timings(a=a, b=b), crowded={"a": tuple(range(6, 14)), "b": (13,)})
    assert (calm.median_us("a"), calm.median_us("b"), calm.interval_us("b")) == (10.0, 21.0, (20.0, 21.0))
    assert calm.verdict("a", "b").ratio == 0.5
    assert len(calm.times_us["a"]) == 14, "every raw time is kept"
    never = dataclasses.replace(timings(a=[10.0] * 3 + [99.0] * 11), crowded={"a": tuple(range(1, 14))})
    assert never.median_us("a") == 99.0, "too few others: then they are all there is"


def test_of_rounds_in_which_nobody_was_heard_those_that_took_longer_are_left_out_too() -> None:
    """A neighbour in the L3 prolongs a pass, and no canary in the core hears it."""
    found = timings(a=[10.0] * 6 + [12.0] * 8, b=[30.0, 20.0] * 7)
    assert (found.median_us("a"), found.median_us("b")) == (10.0, 20.0)
    few = timings(a=[10.0] * 3 + [12.0] * 11)
    assert few.median_us("a") == 12.0, "too few are calm"
    assert found.verdict("a", "b").ratio == pytest.approx(0.45), "in three rounds both were calm: too few, so all count"


def readings_of(monkeypatch: pytest.MonkeyPatch, disturbed: Callable[[int], bool]) -> None:
    turns = itertools.count()

    def prepare(self: HostClock, call: object, inputs: object, spare: object) -> Prepared:
        return Prepared(read=lambda: Reading(1.0, disturbed(next(turns))), warmups=1, calls=1)

    monkeypatch.setattr(HostClock, "prepare", prepare)


def test_crowded_rounds_are_those_with_a_disturbed_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    readings_of(monkeypatch, lambda turn: turn in (3, 8, 9))
    measured = measure_model({"a": net(), "b": net()}, torch.randn(2, 3, 8, 8), rounds=7)
    assert measured.crowded == {"a": (1, 4), "b": (4,)}
    assert len(measured.times_us["a"]) == len(measured.times_us["b"]) == 9, "until both have seven calm rounds"
    assert measured.notes == ("the core was taken or shared during 2 of 9 rounds",)


def test_a_host_that_is_never_calm_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    readings_of(monkeypatch, lambda turn: True)
    measured = measure_model({"a": net()}, torch.randn(2, 3, 8, 8), rounds=7)
    assert len(measured.times_us["a"]) == 7 * MOST_TURNS
    assert measured.median_us("a") == 1.0
