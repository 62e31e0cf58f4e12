"""`plan --explain` and `plan --frontier`, as a shell sees them."""

import csv
import json

import pytest

SMALL = ("-d", "h200", "--input-shape", "3,16,16", "--ratio", "0.4", "--reach", "2")


def body(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_explain_names_every_group_and_the_neighbours(cli, tiny, monkeypatch):
    planned = body(cli("plan", "-m", tiny, *SMALL, "--explain", "--json"))
    groups = planned["explanation"]["groups"]
    assert {name: group["after"] for name, group in groups.items()} == planned["plan"]["widths"]
    assert {name: group["host"] for name, group in groups.items()} == planned["host"]["widths"]
    assert set(planned["explanation"]) == {"groups", "next_cheaper", "next_better"}
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        ran = cli("plan", "-m", tiny, *SMALL, "--explain")
        assert ran.code == 0, ran.err
        assert max(len(line.rstrip()) for line in ran.out.splitlines() if "│" in line or "─" in line) <= int(columns)
        for word in ("before", "host", "after", "saves", "costs", "why", "next cheaper plan:", "next better plan:"):
            assert word in ran.out
        for name in planned["plan"]["widths"]:
            assert name in ran.out


@pytest.mark.parametrize(("given", "plot"), [("f.csv", "f.png"), ("f.svg", "f.svg"), ("f.png", "f.png")])
def test_a_frontier_is_a_csv_and_a_plot(cli, tiny, tmp_path, given, plot):
    planned = body(cli("plan", "-m", tiny, *SMALL, "--frontier", tmp_path / given, "--json"))
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    said = planned["frontier"]
    assert (said["csv"], said["plot"]) == (str(tmp_path / "f.csv"), str(tmp_path / plot))
    assert (tmp_path / plot).stat().st_size > 1000
    assert len(rows) == said["plans"] >= 1
    assert set(planned["plan"]["widths"]) <= set(rows[0])
    us, kept = ([float(row[name]) for row in rows] for name in ("latency_us", "importance"))
    assert us == sorted(us)
    assert kept == sorted(kept)
    assert all(float(row["bound"]) >= float(row["importance"]) - 1e-9 for row in rows)
    # the plan itself is on it: none as fast keeps more
    within = [k for u, k in zip(us, kept, strict=True) if u <= planned["plan"]["predicted_us"] + 1e-5]
    assert max(within) == pytest.approx(planned["plan"]["importance"])
    methods = {rival["method"] for rival in said["rivals"]}
    assert {"host", "plan", "greedy"} <= methods
    assert any(method.startswith("multiple") for method in methods)


def test_both_write_their_plan_and_say_where(cli, tiny, tmp_path):
    files = ("--frontier", tmp_path / "f.csv", "-o", tmp_path / "p.json")
    ran = cli("plan", "-m", tiny, *SMALL, "--explain", *files)
    assert ran.code == 0, ran.err
    assert f"plans written to {tmp_path / 'f.csv'} and {tmp_path / 'f.png'}" in " ".join(ran.err.split())
    assert (tmp_path / "p.json").exists()
    assert cli("plan", "-m", tiny, *SMALL, "--explain", "-q").err == ""


def test_every_and_floor_shape_the_choice(cli, tiny, tmp_path):
    loose = ("--policy", "reallocate", "--every", "8", "--floor", "0.25", "--frontier", tmp_path / "f.csv", "--json")
    body(cli("plan", "-m", tiny, "-d", "h200", "--input-shape", "3,16,16", "--ratio", "0", *loose))
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["3"]) for row in rows} <= {16, 24, 32, 40}
    assert {int(row["0"]) for row in rows} <= {8, 16, 24}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("-d", "h200", "--frontier", "f.xlsx"), 1, "must end in .csv, .png or .svg"),
        (("-d", "h200", "--frontier", "no/such/folder/f.csv"), 1, "Cannot write"),
        (("-d", "h200", "--explain", "--budget", "0.01us"), 3, "is below the cheapest plan"),
        (("-d", "h200", "--every", "0"), 1, "every must be a whole number of at least 1"),
        (("-d", "h200", "--floor", "2"), 1, "floor must lie in 0..1"),
        (("-d", "h200", "--budget", "1%"), 3, "held up by groups at their narrowest allowed width"),
        (("-t", "TABLE", "--explain"), 1, "shapes are missing from latency table h200.db: "),
        (("-t", "TABLE", "--frontier", "f.csv"), 1, "Or give this command --device cpu or cuda"),
    ],
)
def test_bad_input(cli, tiny, tmp_path, args, code, said):
    shape = ("--input-shape", "3,16,16")
    if "TABLE" in args:  # lines alone: pairs of widths off the original's are not in it
        measured = cli("measure", "-m", tiny, *shape, "--simulate", "h200", "-t", tmp_path / "h200.db", "-q")
        assert measured.code == 0, measured.err
    ran = cli(
        "plan", "-m", tiny, *shape, "--ratio", "0.4", *(tmp_path / "h200.db" if a == "TABLE" else a for a in args)
    )
    assert ran.code == code, ran.err
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
