import json

import pytest
import torch

import tailprune

SMALL = ("--input-shape", "3,16,16", "--ratio", "0.4")


def body(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_plan_prints_the_promised_keys(cli, tiny):
    planned = body(cli("plan", "-m", tiny, "-d", "h200", *SMALL, "--json"))
    assert set(planned["host"]) >= {"latency_us", "widths"}
    assert set(planned["plan"]) >= {"predicted_us", "widths"}
    assert planned["goal"] == "faster"
    assert planned["weights"] == "random"
    assert planned["latency_kind"] == "modelled"
    assert planned["plan"]["predicted_us"] <= planned["host"]["latency_us"]
    assert planned["plan"]["importance"] >= planned["host"]["importance"]
    assert any("random" in warning for warning in planned["warnings"])


def test_the_same_seed_gives_the_same_plan(cli, tiny):
    one, two, other = (body(cli("plan", "-m", tiny, "-d", "a100", *SMALL, "--seed", s, "--json")) for s in (1, 1, 2))
    assert one == two
    assert one["host"]["importance"] != other["host"]["importance"]


def test_random_weights_are_said_aloud_unless_quiet(cli, tiny):
    assert "weights are random" in cli("plan", "-m", tiny, "-d", "h200", *SMALL).err
    assert cli("plan", "-m", tiny, "-d", "h200", *SMALL, "-q").err == ""


def test_a_saved_plan_prunes_and_the_checkpoint_loads(cli, tiny, tmp_path):
    import runpy

    build = runpy.run_path(tiny.rpartition(":")[0])["build"]
    torch.manual_seed(3)
    dense = build().eval()
    torch.save(dense.state_dict(), tmp_path / "w.pt")
    model = ("-m", tiny, "--weights", tmp_path / "w.pt", "--input-shape", "3,16,16")
    assert cli("plan", *model, "-d", "h200", "--ratio", "0.4", "-o", tmp_path / "p.json").code == 0
    ran = body(cli("prune", *model, "-p", tmp_path / "p.json", "-o", tmp_path / "small.safetensors", "--json"))
    assert ran["weights"] == "w.pt"
    assert ran["relative_error"] < 1e-9
    plan = tailprune.WidthPlan.load(tmp_path / "p.json")
    small = tailprune.load_pruned(build(), tmp_path / "small.safetensors")
    assert small[0].out_channels == plan.widths["0"]
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(x), tailprune.apply_plan(dense, plan).eval()(x))


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("-m", "torchvision:resnet51", "-d", "h200"), 1, "no classification model 'resnet51'; did you mean resnet50"),
        (("-m", "resnet50", "-d", "h200"), 1, "write torchvision:NAME, timm:NAME or path/to/file.py:build"),
        (("-m", "none.py:build", "-d", "h200"), 1, "none.py does not exist"),
        (("-m", "TINY", "-d", "h2000"), 1, "h2000"),
        (("-m", "TINY"), 1, "--table FILE, or from --device NAME"),
        (("-m", "TINY", "-d", "cpu"), 1, "add --table FILE"),
        (("-m", "TINY", "-t", "none.db"), 1, "none.db does not exist; fill one with `tailprune measure`"),
        (("-m", "TINY", "-d", "h200", "--dtype", "float8"), 1, "float8"),
        (("-m", "TINY", "-d", "h200", "--policy", "jump"), 1, "Unknown policy 'jump'; allowed: snap"),
        (("-m", "TINY", "-d", "h200", "--goal", "best"), 1, "best"),
        (("-m", "TINY", "-d", "h200", "--ratio", "1.5"), 1, "1.5"),
        (("-m", "TINY", "-d", "h200", "--importance", "taste"), 1, "taste"),
        (("-m", "TINY", "-d", "h200", "--budget", "soon"), 1, "write 60%, 1800us"),
        (("-m", "TINY", "-d", "h200", "--budget", "0.001us"), 3, "below the cheapest plan"),
        (("-m", "TINY", "-d", "h200", "--batch", "0"), 1, "--batch must be at least 1"),
        (("-m", "TINY", "-d", "h200", "--input-shape", "big"), 1, "3,224,224"),
        (("-m", "TINY", "-d", "h200", "--weights", "none.pt"), 1, "none.pt does not exist"),
        (("-m", "TINY", "-d", "h200", "-o", "no/such/folder/p.json"), 1, "Cannot write"),
        (("-m", "BROKEN", "-d", "h200"), 1, "Sequential"),
        (("--wrong",), 2, "No such option"),
        ((), 2, "Missing option"),
    ],
)
def test_bad_input_gets_one_sentence_and_the_right_code(cli, tiny, args, code, said):
    names = {"TINY": tiny, "BROKEN": tiny.replace(":build", ":broken")}
    shape = () if "--input-shape" in args or code == 2 else SMALL[:2]
    ran = cli("plan", *(names.get(a, a) for a in args), *shape)
    assert ran.code == code, ran.err
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_weights_of_another_model_are_refused_with_the_first_keys(cli, tiny, tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    ran = cli("plan", "-m", tiny, "-d", "h200", *SMALL, "--weights", tmp_path / "w.pt")
    assert ran.code == 1
    assert "missing (0.weight" in ran.err


def test_a_pickle_is_never_run(cli, tiny, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "w.pt").write_bytes(pickle.dumps(Evil()))
    torch.save({"x": Evil()}, tmp_path / "w2.pt")
    for name in ("w.pt", "w2.pt"):
        ran = cli("plan", "-m", tiny, "-d", "h200", *SMALL, "--weights", tmp_path / name)
        assert ran.code == 1
        assert "tensors only" in ran.err
    assert not (tmp_path / "ran").exists()


def test_a_plan_of_another_model_is_refused(cli, tiny, tmp_path):
    assert cli("plan", "-m", tiny, "-d", "h200", *SMALL, "-o", tmp_path / "p.json").code == 0
    other = tiny.replace(":build", ":other")
    ran = cli("prune", "-m", other, *SMALL[:2], "-p", tmp_path / "p.json", "-o", tmp_path / "s.safetensors")
    assert ran.code == 1
    assert "This plan" in ran.err
    assert not (tmp_path / "s.safetensors").exists()


def test_a_plan_file_and_a_device_contradict(cli, tiny, tmp_path):
    ran = cli("prune", "-m", tiny, "-d", "h200", "-p", tmp_path / "p.json", "-o", tmp_path / "s.safetensors")
    assert ran.code == 1
    assert "drop --device" in ran.err


def test_what_the_table_lacks_is_measured_where_the_device_is_at_hand(cli, tiny, tmp_path, monkeypatch):
    timer = tailprune.SimulatedTimer(tailprune.load_device("h200"))
    monkeypatch.setattr("tailprune.cli.latency.make_timer", lambda device, **_: timer)
    args = ("plan", "-m", tiny, *SMALL, "-t", tmp_path / "t.db", "--json")
    planned = body(cli(*args, "-d", "cpu"))
    assert planned["latency_kind"] in ("measured", "held")
    with tailprune.LatencyTable.open(tmp_path / "t.db") as table:
        measured = len(table)
    assert measured > 10
    assert body(cli(*args)) == planned  # nothing is lacking any more, so no device is needed
    assert body(cli(*args, "-d", "cpu")) == planned
    with tailprune.LatencyTable.open(tmp_path / "t.db") as table:
        assert len(table) == measured
