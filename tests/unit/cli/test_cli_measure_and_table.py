import json
import os
import signal
import subprocess
import sys
import time

import pytest

import tailprune
from tailprune.cli.latency import environment_of, make_timer

NET = ("--input-shape", "3,16,16", "--batch", "4")


@pytest.fixture
def measured(cli, tiny, tmp_path):
    path = tmp_path / "t.db"
    ran = cli("measure", "-m", tiny, "-t", path, "--simulate", "a100", *NET, "--dtype", "float16", "--json")
    assert ran.code == 0, ran.err
    return path, json.loads(ran.out)


def test_measuring_twice_measures_nothing_new(cli, tiny, measured):
    path, first = measured
    assert first["timed"] > 10
    again = json.loads(
        cli("measure", "-m", tiny, "-t", path, "--simulate", "a100", *NET, "--dtype", "float16", "--json").out
    )
    assert (again["timed"], again["shapes"]) == (0, first["shapes"])


def test_steps_reads_the_table_and_draws(cli, tiny, measured, tmp_path):
    path, _ = measured
    ran = cli("steps", "-m", tiny, "-t", path, *NET, "--dtype", "float16", "--json")
    groups = json.loads(ran.out)["groups"]
    assert set(groups) == {"0", "3"}
    assert all(g["edges"][-1] in (24, 40) and g["kind"] != "modelled" for g in groups.values())
    ran = cli("steps", "-m", tiny, "-t", path, *NET, "--dtype", "float16", "-g", "3", "--plot", tmp_path / "p.png")
    assert ran.code == 0, ran.err
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_another_batch_is_not_in_the_table(cli, tiny, measured):
    ran = cli("steps", "-m", tiny, "-t", measured[0], "--input-shape", "3,16,16", "-b", 8, "--dtype", "float16")
    assert ran.code == 1
    assert "tailprune measure" in ran.err


def test_a_table_of_another_device_is_refused(cli, tiny, measured):
    ran = cli("measure", "-m", tiny, "-t", measured[0], "--simulate", "h100", *NET)
    assert ran.code == 1
    assert "device is 'A100" in ran.err
    assert "H100" in ran.err


def test_info_check_export_import_merge_diff(cli, measured, tmp_path):
    path, first = measured
    info = json.loads(cli("table", "info", path, "--json").out)
    assert info["shapes"] == first["shapes"]
    assert "sound" in cli("table", "check", path).out
    assert cli("table", "export", path, tmp_path / "t.csv.gz").code == 0
    assert cli("table", "import", tmp_path / "t.csv.gz", tmp_path / "u.db").code == 0
    assert f"{first['shapes']} shapes in both, 0 differ" in cli("table", "diff", path, tmp_path / "u.db").out
    assert "0 visits added" in cli("table", "merge", path, tmp_path / "u.db").out


def test_shards_merge_into_the_whole(cli, tiny, measured, tmp_path):
    path, _ = measured
    for i in (1, 2):
        ran = cli(
            "measure",
            "-m",
            tiny,
            "-t",
            tmp_path / f"{i}.db",
            "--simulate",
            "a100",
            *NET,
            "--dtype",
            "float16",
            "--shard",
            f"{i}/2",
        )
        assert ran.code == 0, ran.err
    assert cli("table", "merge", tmp_path / "all.db", tmp_path / "1.db", tmp_path / "2.db").code == 0
    edges = []
    for table in (path, tmp_path / "all.db"):
        ran = cli("steps", "-m", tiny, "-t", table, *NET, "--dtype", "float16", "--min-riser", "0.1", "--json")
        edges.append({group: found["edges"] for group, found in json.loads(ran.out)["groups"].items()})
    assert edges[0] == edges[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"not a database at all, only some text" * 50, "not"), (b"SQLite format 3\0" + b"\0" * 40, "")],
)
def test_files_that_are_no_tables_are_refused_and_kept(cli, tmp_path, content, said):
    file = tmp_path / "x.db"
    file.write_bytes(content)
    ran = cli("table", "info", file)
    assert ran.code == 1
    assert said in ran.err
    assert file.read_bytes() == content


def test_devices_are_listed(cli):
    assert "H200 SXM" in {d["name"] for d in json.loads(cli("table", "devices", "--json").out)["wave_model"]}


#: Long enough to be interrupted: a few hundred shapes.
LONGER = """
from torch import nn

def build():
    convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 64), (64, 96), (96, 72))]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(72, 10))
"""


def start_measuring(model, path):
    """As a terminal would: a shell without job control starts what it runs in the background with Ctrl-C ignored, and
    children inherit that, so that these tests run in the background would press it in vain."""
    command = [sys.executable, "-m", "tailprune", "measure", "-m", model, "-t", str(path), "-d", "cpu", *NET]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_samples(path, process, count):
    for _ in range(600):
        if process.poll() is not None:
            return
        if path.exists():
            try:
                with tailprune.LatencyTable.open(path, create=False, read_only=True) as table:
                    if len(table) >= count:
                        return
            except tailprune.TableError:
                pass
        time.sleep(0.1)
    process.kill()
    raise AssertionError("nothing was measured in a minute")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_what_was_measured_survives_an_interruption(tmp_path, how, code):
    path = tmp_path / "t.db"
    (tmp_path / "longer.py").write_text(LONGER)
    longer = f"{tmp_path / 'longer.py'}:build"
    process = start_measuring(longer, path)
    wait_for_samples(path, process, 1)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.fail(f"the measurement ended before it could be interrupted; make the network larger; it said {err!r}")
    assert process.returncode == code
    assert "Traceback" not in err
    if how == signal.SIGINT:
        assert "what was measured is kept" in err
    with tailprune.LatencyTable.open(path, create=False, read_only=True) as table:
        kept = len(table)
    assert kept >= 1
    again = start_measuring(longer, path)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    with tailprune.LatencyTable.open(path, create=False, read_only=True) as table:
        assert len(table) > kept
        assert all(len(table.visits(sample.shape)) <= 3 for sample in table.samples())


def test_a_tensorrt_profile_becomes_a_table(cli, tiny, tmp_path):
    profile, table = tmp_path / "p.json", tmp_path / "t4.db"
    profile.write_text(
        '[{"count": 9}, {"name": "/0/Conv + /2/Relu", "averageMs": 0.02}, {"name": "Reformat", "averageMs": 0.01}]'
    )
    given = (
        "table",
        "import",
        "--trtexec",
        profile,
        table,
        *NET,
        "-m",
        tiny,
        "--dtype",
        "int8",
        "-d",
        "Tesla T4",
        "--json",
    )
    read = json.loads(cli(*given).out)
    assert read["matched"] == {"0": ["/0/Conv + /2/Relu"]}
    assert read["unmatched"] == {"Reformat": "names no layer of the network"}
    info = json.loads(cli("table", "info", table, "--json").out)
    assert (info["shapes"], info["environment"]["runtime"], info["environment"]["device"]) == (
        1,
        "imported",
        "Tesla T4",
    )
    profile.write_text('[{"count": 9}, {"name"')
    broken = cli(*given)
    assert (broken.code, "not valid JSON" in broken.err) == (1, True)
    assert json.loads(cli("table", "info", table, "--json").out)["shapes"] == 1, (
        "a malformed file leaves the table as it was"
    )
    assert "add --model and --device" in cli("table", "import", "--trtexec", profile, table).err


def test_the_whole_network_is_laid_beside_its_layers(cli, tiny, tmp_path):
    table = tmp_path / "cpu.db"
    given = ("measure", "-m", tiny, "-t", table, "--input-shape", "3,8,8", "--whole", "--runtime", "eager")
    found = json.loads(cli(*given, "--json").out)["whole"]
    assert [layer["name"] for layer in found["layers"]][:2] == ["0", "3"]
    assert found["gap"] == pytest.approx(found["predicted_us"] / found["measured_us"] - 1)
    assert "the sum of layers" in cli(*given).out
    again = make_timer("cpu", like=environment_of(table)).environment
    assert again == environment_of(table), "a table is gone on with in the runtime and cache state it was measured in"
    refused = cli("measure", "-m", tiny, "-t", table, "--input-shape", "3,8,8", "--runtime", "onnxruntime")
    assert "runtime is 'eager' in the table and 'onnxruntime' here" in refused.err
    assert "drop --whole" in cli("measure", "-m", tiny, "-t", table, "--simulate", "a100", "--whole").err
    assert (
        "allowed on cpu: eager, compile, onnxruntime" in cli("measure", "-m", tiny, "-t", table, "--runtime", "trt").err
    )
