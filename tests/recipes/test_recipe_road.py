"""The whole road in one command: does it survive a kill, ship what it says, and refuse what it cannot use?"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import tailprune
from recipes import road
from recipes.configs import MOBILENET_IMAGENET, RESNET50_IMAGENET, FinetuneConfig, RunConfig
from recipes.distributed import ALONE
from recipes.errors import RecipeError
from recipes.images import ImageSet
from recipes.journal import Journal
from recipes.models import build_model, resnet20, save_weights, spell_out_shortcuts
from recipes.packed import pack_images
from recipes.road import travel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny CIFAR-like set and random dense weights."""
    folder = tmp_path_factory.mktemp("road")
    generator = torch.Generator().manual_seed(0)
    pixels, labels = (
        torch.randint(0, 256, (96, 3, 32, 32), generator=generator, dtype=torch.uint8),
        torch.arange(96) % 10,
    )
    pack_images(
        ImageSet(
            name="tiny", classes=tuple("abcdefghij"), train_images=pixels, train_labels=labels, test_images=pixels[:20],
            test_labels=labels[:20],
        ),
        folder / "tiny.safetensors",
    )  # fmt: skip
    torch.manual_seed(0)
    save_weights(resnet20(), folder / "dense.safetensors")
    return folder


#: The road at toy size: a wave model of a GPU instead of a timer, so that the plan does not hang on this machine's noise.
ROAD = """
import dataclasses, sys, time, torch, tailprune
from pathlib import Path
from recipes import road
from recipes.configs import RUNS, FinetuneConfig, RunConfig
from recipes.distributed import ALONE
torch.set_num_threads(1)
road._plan = lambda config, model, images, out, device: tailprune.prune_model(
    model, images.example(2), latency=tailprune.WaveModel(tailprune.load_device("h200")), ratio=config.ratio_of_step())[1]
road._ship = lambda *rest: "shipped"
slow = float(sys.argv[4])
told = road._told
def dawdling(journal, stage, step):
    write = told(journal, stage, step)
    return lambda report: (write(report), time.sleep(slow))
road._told = dawdling
config = RunConfig(name="toy", model="resnet20-cifar", steps=2, ratio=0.5,
                   tune=FinetuneConfig(epochs=3, batch=32, ema_decay=0.9, distill_weight=0.5, recalibrate_batches=1))
road.travel(config, "packed:" + sys.argv[1], sys.argv[2], Path(sys.argv[3]), ALONE, torch.device("cpu"))
"""


def _start(files: Path, out: Path, *, dawdle: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ROAD, files / "tiny.safetensors", files / "dense.safetensors", out, str(dawdle)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_killed_road_ends_with_the_weights_of_an_undisturbed_one(files, tmp_path):
    undisturbed = _start(files, tmp_path / "whole", dawdle=0)
    killed = _start(files, tmp_path / "killed", dawdle=20)
    told = undisturbed.communicate(timeout=300)[0]
    assert undisturbed.returncode == 0, told
    metrics = tmp_path / "killed" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert metrics.exists()
    assert not (tmp_path / "killed" / "pruned.safetensors").exists()
    again = _start(files, tmp_path / "killed", dawdle=0)
    told = again.communicate(timeout=300)[0]
    assert again.returncode == 0, told
    whole, resumed = (load_file(tmp_path / name / "pruned.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    _check_what_is_left(tmp_path / "whole")


def _check_what_is_left(out: Path) -> None:
    """The record, and a pruned network that loads into the user's own class."""
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        (f"finetune {step}", str(epoch)) for step in (1, 2) for epoch in (1, 2, 3)
    ]
    about = json.loads((out / "run.json").read_text())
    assert about["config"]["tune"]["seed"] == 0
    assert torch.__version__.startswith(about["versions"]["torch"])
    assert {"commit", "command"} <= about.keys()
    load = (
        "import sys, torch, tailprune; from recipes.models import resnet20, spell_out_shortcuts; "
        "m = tailprune.load_pruned(spell_out_shortcuts(resnet20()), sys.argv[1]).eval(); "
        "print(m(torch.zeros(1, 3, 32, 32)).shape[1], m.layer1[0].conv1.out_channels)"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", load, out / "pruned.safetensors"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert fresh.returncode == 0, fresh.stderr
    classes, width = map(int, fresh.stdout.split())
    assert classes == 10
    assert width < 16


@pytest.fixture
def tree(tmp_path):
    """A tiny ImageNet tree."""
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for name in ("cat", "dog", "eel"):
            folder = tmp_path / "tree" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "tree"


def _plan_by_model(config, model, images, out, device):
    h200 = tailprune.WaveModel(tailprune.load_device("h200"))
    return tailprune.prune_model(model, images.example(2), latency=h200, ratio=config.ratio_of_step())[1]


BRIEF = FinetuneConfig(epochs=1, batch=8, learning_rate=0.01, recalibrate_batches=1)


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (dataclasses.replace(MOBILENET_IMAGENET, tune=dataclasses.replace(BRIEF, distill_weight=0.5)), True),
        (dataclasses.replace(RESNET50_IMAGENET, importance="bn_scale", dense=BRIEF, sparse=BRIEF, tune=BRIEF), False),
    ],
    ids=["mobilenet from weights", "resnet50 trained and made sparse here"],
)
def test_imagenet_roads_run_on_a_tree(tree, tmp_path, monkeypatch, config, given):
    monkeypatch.setattr(road, "_plan", _plan_by_model)
    monkeypatch.setattr(road, "_ship", lambda *_: "not measured")
    config = dataclasses.replace(config, side=32)
    weights = None
    if given:
        weights = tmp_path / "mobilenet.safetensors"
        save_weights(build_model(config.model, num_classes=3), weights)
    model = travel(config, f"imagenet:{tree}", weights, tmp_path / "out", ALONE, torch.device("cpu"), loaders=0)
    dense = build_model(config.model, num_classes=3)
    assert sum(p.numel() for p in model.parameters()) < 0.9 * sum(p.numel() for p in dense.parameters())
    loaded = tailprune.load_pruned(dense, tmp_path / "out" / "pruned.safetensors").eval()
    images = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(loaded(images), model(images))
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert stages == (["finetune 1"] if given else ["dense", "sparse", "finetune 1"])


def test_a_road_plans_with_its_host_measures_and_exports(files, tmp_path, monkeypatch):
    timer = tailprune.SimulatedTimer(tailprune.load_device("h200"))
    monkeypatch.setattr(tailprune, "DeviceTimer", lambda *_, **__: timer, raising=False)
    config = RunConfig(name="toy", model="resnet20-cifar", tune=BRIEF, latency_batch=2, score_batches=1)
    weights, data = files / "dense.safetensors", f"packed:{files / 'tiny.safetensors'}"
    travel(config, data, weights, tmp_path, ALONE, torch.device("cpu"), export="pt2")
    plan = tailprune.WidthPlan.load(tmp_path / "1.plan.json")
    assert (plan.goal, plan.reach, plan.policy) == ("better", 1, "snap")
    assert plan.predicted_us <= plan.host_us
    assert sum(plan.host_widths.values()) < 0.6 * sum(choice.original for choice in plan.choices)
    program = torch.export.load(tmp_path / "pruned.pt2").module()
    assert program(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_folder_holds_one_run(tmp_path):
    about = {"config": {"ratio": 0.5, "steps": 1}}
    Journal(tmp_path / "run", about)
    Journal(tmp_path / "run", about)
    with pytest.raises(RecipeError, match=r"another ratio \(0\.5, now 0\.4\); name another folder"):
        Journal(tmp_path / "run", {"config": {"ratio": 0.4, "steps": 1}})
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(RecipeError, match=r"run\.json is damaged"):
        Journal(tmp_path / "run", about)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match=r"Cannot write to \S+file"):
        Journal(tmp_path / "file" / "run", about)


class _Surprise:
    def __reduce__(self):
        return (os.system, ("echo code ran",))


def test_a_malicious_pickle_is_no_checkpoint(tmp_path, capfd):
    path = tmp_path / "pruned.safetensors"
    path.write_bytes(pickle.dumps(_Surprise()))
    with pytest.raises(tailprune.FormatError, match=r"pickle, which is never read"):
        tailprune.load_pruned(spell_out_shortcuts(resnet20()), path)
    assert "code ran" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resnet19-cifar10"], "Unknown run 'resnet19-cifar10'; allowed: resnet20-cifar10"),
        (["resnet50-imagenet"], "a network of 10 classes|starts from trained weights"),
        (["resnet20-cifar10", "--ratio", "1.5"], "ratio must lie in 0..0.99"),
        (["resnet20-cifar10", "--weights", "absent.pt"], "Cannot read the weights absent.pt"),
        (["resnet56-cifar10", "--weights", "DENSE"], "layer1.3.conv1.weight is missing"),
        (["resnet20-cifar10", "--weights", "torchvision"], "torchvision has no weights of resnet20-cifar"),
    ],
)
def test_what_a_road_cannot_use_is_refused_in_one_sentence(files, tmp_path, arguments, sentence):
    app = typer.Typer()
    app.command()(road.main)
    given = [str(files / "dense.safetensors") if a == "DENSE" else a for a in arguments]
    result = CliRunner().invoke(app, [*given, "--data", f"packed:{files / 'tiny.safetensors'}", "--out", str(tmp_path)])
    assert isinstance(result.exception, tailprune.TailpruneError), result.output
    assert re.search(sentence, str(result.exception))
