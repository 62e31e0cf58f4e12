"""The page of covered networks is the one that the committed rows give, and holds for every torchvision classifier."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest
import torchvision

ROOT = Path(__file__).parents[3]
ROWS = ROOT / "benchmarks" / "coverage.csv"


def rows() -> list[dict[str, str]]:
    with ROWS.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_classification_family_has_a_member_that_works():
    measured = [row for row in rows() if row["model"].startswith("torchvision:")]
    release = f"torchvision {torchvision.__version__.split('+')[0]}"
    if not any(release in row["versions"] for row in measured):
        pytest.skip(f"the rows are not of {release}, whose list of models may be another one")
    known = {f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)}
    assert known <= {row["model"] for row in measured}
    families = {torchvision.models.get_model_builder(n.split(":")[1]).__module__.rpartition(".")[2] for n in known}
    assert families <= {row["family"] for row in measured if row["out_shape"] == "1x1000"}


def test_no_network_was_pruned_wrongly_or_ended_unexpectedly():
    for row in rows():
        assert not row["verified"].startswith("WRONG"), row["model"]
        assert not row["error"].startswith("unexpected"), row["model"]
        assert bool(row["error"]) != bool(row["verified"]), row["model"]


def test_the_page_is_rendered_from_the_rows():
    spec = importlib.util.spec_from_file_location("_make_coverage", ROOT / "scripts" / "make_coverage.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.render(script.read_rows()) == (ROOT / "docs" / "coverage.md").read_text()
