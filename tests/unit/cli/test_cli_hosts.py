"""`--widths` and `--from-zeros`: other pipelines' choices on the command line."""

import json
import runpy

import pytest
import torch

import tailprune

SHAPE = ("--input-shape", "3,16,16")


def body(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.fixture
def widths(tmp_path):
    def write(text):
        (tmp_path / "widths.json").write_text(text if isinstance(text, str) else json.dumps(text))
        return tmp_path / "widths.json"

    return write


def zeroed_weights(tiny, path, rows):
    torch.manual_seed(3)
    net = runpy.run_path(tiny.rpartition(":")[0])["build"]()
    with torch.no_grad():
        net[0].weight[rows] = 0
    torch.save(net.state_dict(), path)
    return net.eval()


def test_plan_takes_widths_and_ratios_by_layer(cli, tiny, widths):
    planned = body(cli("plan", "-m", tiny, "-d", "h200", *SHAPE, "--widths", widths({"0": 17, "4": 0.25}), "--json"))
    assert planned["host"]["widths"] == {"0": 17, "3": 30}
    assert planned["plan"]["predicted_us"] <= planned["host"]["latency_us"]
    assert planned["plan"]["importance"] >= planned["host"]["importance"]


def test_prune_takes_widths(cli, tiny, widths, tmp_path):
    out = tmp_path / "small.safetensors"
    ran = body(cli("prune", "-m", tiny, "-d", "h200", *SHAPE, "--widths", widths({"0": 17}), "-o", out, "--json"))
    assert ran["host"]["widths"]["0"] == 17
    small = tailprune.load_pruned(runpy.run_path(tiny.rpartition(":")[0])["build"], out)
    assert small[0].out_channels == ran["plan"]["widths"]["0"]


def test_zeros_in_the_weights_are_the_host(cli, tiny, tmp_path):
    dense = zeroed_weights(tiny, tmp_path / "w.pt", [1, 5, 7])
    out = tmp_path / "small.safetensors"
    model = ("-m", tiny, "--weights", tmp_path / "w.pt", *SHAPE)
    ran = body(cli("prune", *model, "-d", "h200", "--from-zeros", "0", "-o", out, "--json"))
    assert ran["host"]["widths"] == {"0": 21, "3": 40}
    small = tailprune.load_pruned(runpy.run_path(tiny.rpartition(":")[0])["build"], out).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(small(x), dense(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"0": 17, "0": 12}', "names 0 more than once, with 17 and 12"),
        ('{"0": 17, "1": 12}', "0: 17 and 1: 12 ask for two widths of one channel group"),
        ('{"0": 17', "is not valid JSON"),
        ("[17]", "holds no widths by layer but a list"),
        ('{"0": 1.0}', "a ratio of 1.0 would remove all 24"),
        ('{"0": "17"}', "'17' is neither a number of channels"),
        ('{"77": 17}', "has no layer '77'"),
    ],
)
def test_bad_widths_files_get_one_sentence(cli, tiny, widths, text, said):
    ran = cli("plan", "-m", tiny, "-d", "h200", *SHAPE, "--widths", widths(text))
    assert ran.code == 1
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err and ran.out == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--widths", "none.json"), "Cannot read none.json"),
        (("--widths", "none.json", "--ratio", "0.5"), "--ratio and --widths each say what the host keeps; give one"),
        (("--from-zeros", "0", "--ratio", "0.5"), "--ratio and --from-zeros each say"),
        (("--from-zeros", "0"), "is zero at threshold 0: the smallest norm is"),
        (("--from-zeros", "-1"), "must be finite and at least 0"),
        (("--ratio", "1"), "a ratio of 1 leaves no channel"),
    ],
)
def test_bad_hosts_get_one_sentence(cli, tiny, args, said):
    ran = cli("plan", "-m", tiny, "-d", "h200", *SHAPE, *args)
    assert ran.code == 1
    assert said in " ".join(ran.err.split())


def test_a_checkpoint_with_extra_keys_lists_the_first_few(cli, tiny, tmp_path):
    net = zeroed_weights(tiny, tmp_path / "w.pt", [])
    extra = {f"extra.{i}": torch.zeros(1) for i in range(5)}
    torch.save({**net.state_dict(), **extra}, tmp_path / "w.pt")
    ran = cli("plan", "-m", tiny, "-d", "h200", *SHAPE, "--weights", tmp_path / "w.pt")
    assert ran.code == 1
    assert "5 unknown (extra.0, extra.1, extra.2)" in " ".join(ran.err.split())
