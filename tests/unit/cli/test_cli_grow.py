"""`tailprune plan --grow`: planned, written, applied by `prune`, loaded again; and refused where it contradicts pruning."""

import json
import runpy

import pytest
import torch

import tailprune

SMALL = ("--input-shape", "3,16,16", "-b", "64", "--dtype", "float16")


def test_a_grown_plan_is_written_applied_and_loaded_in_the_users_own_class(cli, tiny, tmp_path):
    build = runpy.run_path(tiny.rpartition(":")[0])["build"]
    torch.manual_seed(3)
    dense = build().eval()
    torch.save(dense.state_dict(), tmp_path / "w.pt")
    model = ("-m", tiny, "--weights", tmp_path / "w.pt", *SMALL)
    ran = cli("plan", *model, "-d", "h200", "--grow", "--budget", "105%", "-o", tmp_path / "p.json", "--json")
    assert ran.code == 0, ran.err
    body = json.loads(ran.out)
    assert body["policy"] == "grow" and body["plan"]["macs"] > body["original"]["macs"]
    assert body["plan"]["predicted_us"] <= 1.05 * body["original"]["latency_us"]
    ran = cli("prune", *model[:-4], "-p", tmp_path / "p.json", "-o", tmp_path / "wide.safetensors")
    assert ran.code == 0 and "output equals the original network" in ran.out, ran.err
    wide = tailprune.load_pruned(build(), tmp_path / "wide.safetensors").eval()
    assert wide[3].out_channels == body["plan"]["widths"]["3"] > 40
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(wide(images), dense(images), rtol=1e-4, atol=1e-5)


def test_random_weights_do_not_matter_to_growing(cli, tiny):
    ran = cli("plan", "-m", tiny, *SMALL, "-d", "h200", "--grow", "--json")
    assert ran.code == 0 and "random" not in ran.err
    assert not any("scores mean nothing" in warning for warning in json.loads(ran.out)["warnings"])
    said = cli("plan", "-m", tiny, *SMALL, "-d", "h200", "--grow", "--budget", "105%").out
    assert "grown: multiply-adds +" in said


def test_what_is_lacking_above_the_original_is_measured_with_the_device_and_refused_without(
    cli, tiny, tmp_path, monkeypatch
):
    timer = tailprune.SimulatedTimer(tailprune.load_device("h200"))
    monkeypatch.setattr("tailprune.cli.latency.make_timer", lambda device, **_: timer)
    asked = ("plan", "-m", tiny, "--input-shape", "3,16,16", "--grow", "--widest", "1.25", "-t", tmp_path / "t.db")
    assert (
        cli("measure", "-m", tiny, "--input-shape", "3,16,16", "--simulate", "h200", "-t", tmp_path / "t.db").code == 0
    )
    ran = cli(*asked, "-d", "cpu", "--json")
    assert ran.code == 0 and json.loads(ran.out)["latency_kind"] in ("measured", "held"), ran.err
    assert json.loads(cli(*asked, "--json").out)["plan"] == json.loads(ran.out)["plan"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--ratio", "0.5"), 1, "--grow starts from the whole network and only widens it, so --ratio have no say"),
        (("--policy", "snap", "--goal", "better"), 1, "so --goal have no say"),
        (("--explain",), 1, "--explain and --frontier are about pruning"),
        (("--widest", "0.5"), 1, "widest must be a finite multiple of the original widths, at least 1, got 0.5"),
        (("--budget", "50%"), 3, "was found within the budget, and growing only widens it"),
    ],
)
def test_what_contradicts_growing_is_refused_in_one_sentence(cli, tiny, args, code, said):
    ran = cli("plan", "-m", tiny, *SMALL, "-d", "h200", "--grow", *args)
    assert ran.code == code and said in " ".join(ran.err.split()), ran.err
