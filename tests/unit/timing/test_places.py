"""Places: outputs of successive readings lie in different memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailprune.timing.heap import keep_freed_memory
from tailprune.timing.places import MOST_BYTES, PLACES, Places


@pytest.mark.parametrize("numbers", [1_000, 20_000, 50_000, 100_000, 400_000])
def test_outputs_come_to_lie_in_many_places(numbers: int) -> None:
    """Also where earlier rows have left a hole behind that an output fits better, as in about half of all processes."""
    keep_freed_memory()  # as every timer does: else the kernel hands out pages of this size, and the same ones again
    output = torch.zeros(numbers)
    places, seen = Places(output), []
    del output
    for _ in range(64):
        with places.another():
            seen.append(torch.zeros(numbers).data_ptr())
    assert len(set(seen)) >= 12
    assert max(map(seen.count, seen)) <= 16, "no place is the usual one"


@pytest.mark.parametrize("written", [True, False])
def test_a_place_is_written_before_it_is_handed_out_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    places, zeroed, zero = Places(torch.zeros(50_000)), [], torch.Tensor.zero_
    monkeypatch.setattr(torch.Tensor, "zero_", lambda held: zeroed.append(held.nbytes) or zero(held))
    with places.another(written=written):
        assert zeroed == [200_000] * written


@given(st.integers(0, 10**9))
def test_large_outputs_take_no_more_memory_than_the_bound(count: int) -> None:
    places = Places(torch.empty(count, dtype=torch.int8, device="meta"))
    assert 1 <= places.count <= PLACES
    assert places.count == 1 or places.count * count <= MOST_BYTES


@pytest.mark.parametrize("output", [None, (torch.zeros(3),), torch.zeros(0)])
def test_what_is_no_tensor_is_left_where_it_is(output: object) -> None:
    with Places(output).another():
        pass


def test_memory_is_given_back_though_the_reading_fails() -> None:
    places = Places(torch.zeros(1000))
    with pytest.raises(RuntimeError, match="boom"), places.another():
        raise RuntimeError("boom")
    with places.another():
        pass
