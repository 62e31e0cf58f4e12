"""The examples in the docstrings run; those of the pages do in tests/unit/docs."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from tailprune.pruning import importance, prune, wrap


@pytest.mark.parametrize("module", [importance, prune, wrap])
def test_docstring_examples(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed
