import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tailprune.core.artifact import read_artifact, write_artifact, write_text_atomically
from tailprune.core.errors import FormatError, InvalidShape, PlanMismatch
from tailprune.core.graph import ChannelGroup, ModelGraph
from tailprune.core.plan import Budget, GroupChoice, WidthPlan

GRAPH = ModelGraph(model="toy", layers=(), groups=(ChannelGroup(id="a", width=4),), input_shape=(1, 3, 8, 8))


def plan(**changes):
    choice = GroupChoice(group="a", original=4, host=3, width=2, kept=(0, 2), reason="edge below")
    values = dict(model="toy", fingerprint=GRAPH.fingerprint, input_shape=(1, 3, 8, 8), choices=(choice,), policy="snap", goal="faster",
                  reach=1, original_us=100.0, host_us=80.0, predicted_us=60.0, versions={"tailprune": "0"}, warnings=("w",))  # fmt: skip
    return WidthPlan(**{**values, **changes})


def test_a_plan_survives_its_file(tmp_path):
    plan().save(tmp_path / "p.json")
    assert WidthPlan.load(tmp_path / "p.json") == plan()
    assert not list(tmp_path.glob(".*"))


def test_saving_says_what_it_saves():
    assert plan().saving == pytest.approx(0.25)
    assert "-25.0% against the host" in plan().summary()
    assert "(estimated)" in plan(latency_kind="modelled").summary()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "its format is 'list'"),
        ('{"format": "other"}', "its format is 'other'"),
        ('{"format": "tailprune-plan", "version": 99}', "version 99; this tailprune reads up to 1. Upgrade"),
        ('{"format": "tailprune-plan", "version": 1}', "not a complete plan"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, content, message):
    file = tmp_path / "p.json"
    file.write_text(content)
    with pytest.raises(FormatError, match=message):
        WidthPlan.load(file)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        WidthPlan.load(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not UTF-8"):
        WidthPlan.load(tmp_path / "b.json")


def test_a_truncated_plan_is_refused_at_every_length(tmp_path):
    file = tmp_path / "p.json"
    plan().save(file)
    text = file.read_text()
    for length in range(0, len(text) - 2, 37):
        file.write_text(text[:length])
        with pytest.raises(FormatError):
            WidthPlan.load(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept": (0, 0)}, "distinct, ascending"),
        ({"kept": (0, 4)}, "below 4"),
        ({"kept": (0, 1, 2)}, "3 kept channels do not make a width of 2"),
        ({"width": 0, "kept": ()}, "width of 0"),
    ],
)
def test_inconsistent_choices_are_refused(changes, message):
    with pytest.raises(InvalidShape, match=message):
        dataclasses.replace(plan().choices[0], **changes)


def test_a_choice_may_grow():
    grown = GroupChoice(group="a", original=4, host=4, width=6, kept=(0, 1, 2, 3))
    assert grown.width == 6


def test_a_foreign_network_is_refused():
    plan().check(GRAPH)
    with pytest.raises(PlanMismatch, match="expects 4 channels in a, but toy has 5"):
        plan().check(dataclasses.replace(GRAPH, groups=(ChannelGroup(id="a", width=5),)))
    with pytest.raises(PlanMismatch, match="names the channel group a, which"):
        plan().check(dataclasses.replace(GRAPH, groups=(ChannelGroup(id="b", width=4),)))
    with pytest.raises(PlanMismatch, match="fingerprint"):
        plan(fingerprint="0").check(GRAPH)


@pytest.mark.parametrize(
    ("text", "us"), [("60%", 600.0), ("1800us", 1800.0), ("1.8 ms", 1800.0), ("host", 700.0), (" 5e2us", 500.0)]
)
def test_budgets_read_as_people_write_them(text, us):
    assert Budget.parse(text).resolve(original_us=1000.0, host_us=700.0) == pytest.approx(us)


@pytest.mark.parametrize("text", ["", "60", "-5us", "0%", "fast", "1..2us", "nan%"])
def test_nonsense_budgets_are_refused(text):
    with pytest.raises(InvalidShape, match=r"[Bb]udget"):
        Budget.parse(text)


def test_diff_names_what_differs():
    other = plan(choices=(dataclasses.replace(plan().choices[0], width=3, kept=(0, 1, 2)),))
    assert plan().diff(other) == {"a": (2, 3)}


def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "p.json"
    plan().save(target)
    before = target.read_text()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY));"
        "from tailprune.core.artifact import write_text_atomically\n"
        f"try: write_text_atomically({str(target)!r}, 'x' * 4096)\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "FormatError" in done.stdout
    assert "Nothing was changed" in done.stdout
    assert target.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 64


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="Cannot write"):
        write_text_atomically(tmp_path / "file" / "p.json", "x")


def test_infinities_never_reach_a_file(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_artifact(tmp_path / "p.json", format="f", version=1, body={"x": float("inf")})
    assert not list(Path(tmp_path).iterdir())
    write_artifact(tmp_path / "p.json", format="f", version=1, body={"x": 1})
    assert json.loads((tmp_path / "p.json").read_text()) == read_artifact(tmp_path / "p.json", format="f", version=1)
