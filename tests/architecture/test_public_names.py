"""The face: what a user may import, and that every way of asking for it agrees."""

import ast
from pathlib import Path

import pytest

import tailprune

INIT = Path(tailprune.__file__)
GUESSABLE = {
    "prune_model", "trace_model", "fill_table", "detect_steps", "score_channels", "plan_widths", "apply_plan", "measure_model",
    "save_pruned", "load_pruned", "TailAwarePruner", "LayerShape", "DeviceSpec", "WaveModel", "LatencyTable", "DeviceTimer", "Budget",
    "WidthPlan", "TailpruneError",
}  # fmt: skip


@pytest.mark.parametrize("name", tailprune.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(tailprune, name)
    assert value.__doc__ and not value.__doc__.startswith(f"{name}("), f"{name} has no docstring of its own"


def test_the_designs_verbs_and_nouns_are_there():
    assert set(tailprune.__all__) >= GUESSABLE


def test_unknown_names_fail_as_python_does():
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        tailprune.prune


def test_type_checkers_see_the_same_names():
    tree = ast.parse(INIT.read_text())
    under_type_checking = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        (alias.name, n.module) for n in under_type_checking.body if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    assert seen == set(tailprune._TORCH_SIDE.items())


def test_dir_and_all_agree():
    assert dir(tailprune) == sorted(tailprune.__all__)
