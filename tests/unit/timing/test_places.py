"""Places: outputs of successive readings lie in different memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailprune.timing.places import MOST_BYTES, PLACES, Places


def test_outputs_come_to_lie_in_many_places() -> None:
    output = torch.zeros(50_000)
    places, seen = Places(output), set()
    del output
    for _ in range(40):
        with places.another():
            seen.add(torch.zeros(50_000).data_ptr())
    assert len(seen) >= 4


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
