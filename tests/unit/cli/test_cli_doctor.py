import json
import runpy

import pytest
import torch

import tailprune

SHAPE = ("--input-shape", "3,16,16")
H200 = ("-d", "h200", "-b", "32", "--dtype", "float16")


def body(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def built(tiny):
    torch.manual_seed(0)
    return runpy.run_path(tiny.rpartition(":")[0])["build"]()


def shrunk(a, b):
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, a, 3, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
        nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(b, 10),
    )  # fmt: skip


def test_a_checkpoint_of_another_pruner_is_diagnosed(cli, tiny, tmp_path):
    torch.save(shrunk(17, 33).state_dict(), tmp_path / "small.pt")
    found = body(cli("doctor", "-m", tiny, "--pruned-weights", tmp_path / "small.pt", *H200, *SHAPE, "--json"))
    assert found["widths"] == {"0": 17, "3": 33, "8": 10}
    assert found["widths_from"] == "checkpoint small.pt"
    assert found["latency_kind"] == "modelled" and "wave model of H200" in found["latency_origin"]
    assert found["latency_us"] == pytest.approx(sum(layer["latency_us"] for layer in found["layers"]))
    assert found["wasted_us"] == pytest.approx(sum(group["wasted_us"] for group in found["groups"].values()))
    assert {layer["bound"] for layer in found["layers"]} <= {"launch", "memory", "wave", "compute"}
    assert found["payoff"]["tried"][0]["batch"] == 1
    assert found["changes"], "17 and 33 are on no edge of any GPU"
    for change in found["changes"]:
        assert change["saved_us"] >= 0
    assert found["warnings"] == []  # weights do not matter here


def test_the_suggested_widths_cost_what_the_doctor_says(cli, tiny, tmp_path):
    torch.save(shrunk(17, 33).state_dict(), tmp_path / "small.pt")
    found = body(cli("doctor", "-m", tiny, "--pruned-weights", tmp_path / "small.pt", *H200, *SHAPE, "--json"))
    better = {**found["widths"], **{change["group"]: change["to"] for change in found["changes"]}}
    torch.save(shrunk(better["0"], better["3"]).state_dict(), tmp_path / "better.pt")
    again = body(cli("doctor", "-m", tiny, "--pruned-weights", tmp_path / "better.pt", *H200, *SHAPE, "--json"))
    assert again["latency_us"] == pytest.approx(found["together_us"])
    assert again["latency_us"] <= found["latency_us"]


def test_a_plan_is_diagnosed_at_its_widths(cli, tiny, tmp_path):
    assert cli("plan", "-m", tiny, *H200, *SHAPE, "--ratio", "0.4", "-o", tmp_path / "p.json").code == 0
    found = body(cli("doctor", "-m", tiny, "-p", tmp_path / "p.json", *H200, *SHAPE, "--json"))
    plan = tailprune.WidthPlan.load(tmp_path / "p.json")
    assert {g: found["widths"][g] for g in plan.widths} == plan.widths
    assert found["latency_us"] == pytest.approx(plan.predicted_us)


def test_a_ratio_stands_for_an_unrounded_host_and_random_weights_are_said(cli, tiny):
    ran = cli("doctor", "-m", tiny, "--ratio", "0.4", *H200, *SHAPE, "--json")
    found = body(ran)
    assert sum(found["widths"].values()) < 74
    assert any("random" in warning for warning in found["warnings"])
    assert "weights are random" in ran.err


def test_without_pruned_widths_the_network_is_judged_as_it_stands(cli, tiny):
    found = body(cli("doctor", "-m", tiny, *H200, *SHAPE, "--json"))
    assert found["dense_us"] is None and found["gap_us"] is None
    assert "no dense network" in found["payoff"]["words"]


def test_the_words_on_the_terminal(cli, tiny, tmp_path):
    torch.save(shrunk(17, 33).state_dict(), tmp_path / "small.pt")
    ran = cli("doctor", "-m", tiny, "--pruned-weights", tmp_path / "small.pt", *H200, *SHAPE)
    assert ran.code == 0, ran.err
    text = " ".join(ran.out.split())
    assert "The pruned network is an estimated" in text
    assert "that would help most:" in text
    assert "wave model of H200" in text
    assert "(modelled)" in text


def test_the_page_is_written(cli, tiny, tmp_path):
    ran = cli("doctor", "-m", tiny, "--ratio", "0.4", *H200, *SHAPE, "--html", tmp_path / "why.html")
    assert ran.code == 0, ran.err
    page = (tmp_path / "why.html").read_text()
    assert "Where the time goes" in page and "host at ratio 0.4" in page
    assert "page written" in ran.err


def test_a_table_and_its_device_measure_what_is_lacking(cli, tiny, tmp_path):
    table = tmp_path / "t.db"
    torch.save(shrunk(17, 33).state_dict(), tmp_path / "small.pt")
    filled = cli("measure", "-m", tiny, "--simulate", "v100", "-b", "32", *SHAPE, "-t", table, "-q")
    assert filled.code == 0, filled.err
    args = ("doctor", "-m", tiny, "--pruned-weights", tmp_path / "small.pt", "-b", "32", *SHAPE, "-t", table)
    lacking = cli(*args)
    assert lacking.code == 1
    assert "shapes of" in lacking.err and "`tailprune doctor` with --table and the --device" in " ".join(
        lacking.err.split()
    )
    with tailprune.LatencyTable.open(table) as opened:
        graph = tailprune.trace_model(built(tiny).eval(), torch.zeros(1, 3, 16, 16)).at_batch(
            32, memory_format="channels_last"
        )
        timer = tailprune.SimulatedTimer(tailprune.load_device("v100"))
        tailprune.measure_while(opened, timer, lambda: tailprune.diagnose(graph, {"0": 17, "3": 33}, opened))
    found = body(cli(*args, "--json"))
    assert found["latency_kind"] in ("measured", "held")
    assert {layer["bound"] for layer in found["layers"]} <= {"launch", "unknown"}
    named = body(cli(*args, "-d", "v100", "--json"))
    assert named["latency_us"] == found["latency_us"]  # the device's model has opinions, but no latencies to give
    assert named["payoff"]["latency_kind"] == "modelled"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--ratio", "0.4", "--plan", "p.json", "-d", "h200"), 1, "got --plan and --ratio; give one"),
        (("--ratio", "0.4"), 1, "--table FILE, or from --device NAME"),
        (("--ratio", "1.4", "-d", "h200"), 1, "1.4"),
        (("--plan", "none.json", "-d", "h200"), 1, "none.json"),
        (("--pruned-weights", "none.pt", "-d", "h200"), 1, "none.pt does not exist"),
        (("--pruned-weights", "OTHER", "-d", "h200"), 1, "so it is not"),
        (("--ratio", "0.4", "-d", "h2000"), 1, "h2000"),
        (("--ratio", "0.4", "-d", "h200", "--html", "no/such/folder/p.html"), 1, "Cannot write"),
        (("--wrong",), 2, "No such option"),
    ],
)
def test_bad_input_gets_one_sentence_and_the_right_code(cli, tiny, tmp_path, args, code, said):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    ran = cli("doctor", "-m", tiny, *SHAPE, *(tmp_path / "other.pt" if a == "OTHER" else a for a in args))
    assert ran.code == code, ran.err
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_widths_of_another_pipeline_are_diagnosed_whatever_the_weights(cli, tiny, tmp_path):
    (tmp_path / "widths.json").write_text('{"0": 17, "3": 33}')
    ran = cli("doctor", "-m", tiny, "--widths", tmp_path / "widths.json", *H200, *SHAPE, "--json")
    found = body(ran)
    assert found["widths"] == {"0": 17, "3": 33, "8": 10}
    assert found["widths_from"] == "host's widths in widths.json, weights random"
    assert found["warnings"] == [] and ran.err == ""


def test_zeros_in_the_weights_are_diagnosed(cli, tiny, tmp_path):
    net = built(tiny)
    with torch.no_grad():
        net[0].weight[[1, 5, 7]] = 0
    torch.save(net.state_dict(), tmp_path / "w.pt")
    args = ("doctor", "-m", tiny, "--weights", tmp_path / "w.pt", *H200, *SHAPE)
    found = body(cli(*args, "--from-zeros", "0", "--json"))
    assert (found["widths"]["0"], found["widths"]["3"]) == (21, 40)
    assert found["widths_from"] == "zeros in the weights, at threshold 0, weights w.pt"
    both = cli(*args, "--from-zeros", "0", "--ratio", "0.5")
    assert both.code == 1 and "got --ratio and --from-zeros; give one" in " ".join(both.err.split())
