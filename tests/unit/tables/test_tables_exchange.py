"""Tables as CSV: exact round trips, plain columns, the line number of every fault; shipped tables."""

from __future__ import annotations

import csv
import gzip
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_strategies import CONV, DEPTHWISE, ENVIRONMENT, POOL, out, sample, samples

from tailprune.core.environment import Environment
from tailprune.core.errors import FormatError
from tailprune.core.sample import LatencySample
from tailprune.tables import LatencyTable, export_csv, import_csv, shipped, shipped_environments, shipped_table


def filled() -> LatencyTable:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many([sample(CONV, 10.0, 12.0, 11.0, note='a "quoted", note\nof two lines'), sample(out(96), 1 / 3)])
    table.hold(CONV, out(96), 10.5)
    wide = DEPTHWISE.with_channels(in_channels=96, out_channels=96)
    pool = POOL.with_channels(in_channels=80, out_channels=80)
    table.add_many(map(sample, (DEPTHWISE, wide, POOL, pool, CONV.with_channels(in_channels=128))))
    table.hold(DEPTHWISE, wide, 7.0)
    table.hold(POOL, pool, 8.0)
    table.hold(CONV, CONV.with_channels(in_channels=128), 9.0)
    table.add(LatencySample(shape=out(4096), times_us=(), flags=("out_of_memory",), note="# 3 GiB"))
    return table


@settings(max_examples=60, deadline=None)
@given(st.lists(samples(), max_size=8), st.sampled_from(["t.csv", "t.csv.gz"]))
def test_a_table_comes_back_from_csv_exactly(added: list[LatencySample], name: str) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add_many(added)
    with tempfile.TemporaryDirectory() as folder:
        export_csv(table, Path(folder) / name)
        again = import_csv(Path(folder) / name)
    assert again.environment == table.environment
    assert again.visits() == table.visits()


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_held_plateaus_come_back_too(tmp_path: Path, name: str) -> None:
    export_csv(filled(), tmp_path / name)
    again = import_csv(tmp_path / name)
    assert set(again.held) == set(filled().held)
    assert len(again.held) == 4
    assert again.visits() == filled().visits()
    assert again.kind(out(72)) == "held"
    first = (tmp_path / name).read_bytes()
    export_csv(again, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_the_csv_is_plain(tmp_path: Path) -> None:
    """As `pandas.read_csv(path, comment="#")` sees it: a header behind one comment line, numbers in numeric columns."""
    export_csv(filled(), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        assert file.readline().startswith('# {"format": "tailprune-table", "version": 1, "rows": 12, "environment": {')
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert (rows[0]["op"], int(rows[0]["out_channels"]), rows[0]["in_hw"]) == ("conv", 64, "14x14")
    assert float(rows[0]["latency_us"]) == 11.0
    assert [float(time) for time in rows[0]["times_us"].split()] == [10.0, 12.0, 11.0]
    assert {row["kind"] for row in rows} == {"measured", "held"}
    assert [row["held_to"] for row in rows if row["kind"] == "held" and row["op"] == "max_pool"] == ["80->80"]


def test_digits_make_a_shipped_table_smaller(tmp_path: Path) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    noise = random.Random(1)
    table.add_many(sample(out(i), *(noise.gauss(100 + i, 1) for _ in range(20))) for i in range(1, 50))
    export_csv(table, tmp_path / "exact.csv.gz")
    export_csv(table, tmp_path / "short.csv.gz", digits=5)
    assert 2 * (tmp_path / "short.csv.gz").stat().st_size < (tmp_path / "exact.csv.gz").stat().st_size
    short = import_csv(tmp_path / "short.csv.gz")
    for one in table.samples():
        assert short.latency_us(one.shape) == pytest.approx(one.median_us, rel=1e-4)


def test_a_long_visit_fits(tmp_path: Path) -> None:
    table = LatencyTable.in_memory(ENVIRONMENT)
    table.add(sample(CONV, *(1 / i for i in range(1, 20_000))))
    export_csv(table, tmp_path / "t.csv")
    assert import_csv(tmp_path / "t.csv").visits() == table.visits()
    assert csv.field_size_limit() == 131072


def test_what_spreadsheets_do_is_forgiven(tmp_path: Path) -> None:
    export_csv(filled(), tmp_path / "t.csv")
    head, _, body = (tmp_path / "t.csv").read_text().partition("\n")
    rows = [row[::-1] + ["mine"] for row in csv.reader(body.splitlines(keepends=True))]
    with (tmp_path / "t.csv").open("w", encoding="utf-8-sig", newline="") as file:
        file.write(head + "\r\n")
        csv.writer(file).writerows(rows)
        file.write("\r\n")
    assert import_csv(tmp_path / "t.csv").visits() == filled().visits()


def edit(line: int, old: str, new: str) -> Callable[[str], str]:
    def edited(text: str) -> str:
        lines = text.splitlines(keepends=True)
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new)
        return "".join(lines)

    return edited


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[: len(text) // 2], "is truncated: its last line has no end"),
        (lambda text: "".join(text.splitlines(keepends=True)[:-2]), "10 rows, but its first line states 12"),
        (lambda text: text.partition("\n")[2], "line 1: no environment"),
        (lambda text: text.partition("\n")[0] + "\n", "line 2: the columns kind, op, batch"),
        (lambda text: "", "line 1: no environment"),
        (edit(1, '"version": 1', '"version": 2'), "version 2; this tailprune reads up to 1. Upgrade"),
        (edit(1, "tailprune-table", "other"), "is not a tailprune-table file: its format is 'other'"),
        (edit(1, '"threads": 1', '"threads": "one"'), "states 'one' as the environment's threads"),
        (edit(1, "}}", "}"), "line 1, is not valid JSON"),
        (edit(2, "times_us", "times"), "line 2: the columns times_us are missing"),
        (edit(5, "conv,4,64", "conv,4,six"), "line 5: A layer's in_channels must be an integer, got 'six'. Mend"),
        (edit(5, "conv,4,64", "conv,4,-64"), "line 5: A layer's in_channels must be a positive integer, got -64"),
        (edit(5, "conv,", "convolution,"), "line 5: Unknown op 'convolution'"),
        (edit(5, "14x14", "14"), "line 5: A layer's in_hw must be two integers such as 3x3, got '14'. Mend"),
        (edit(5, "measured,", "guessed,"), "line 5: the kind is 'guessed', not measured or held"),
        (edit(5, "measured,conv", "conv"), "line 5: 20 cells where 21 belong"),
        (edit(5, ",0.333333", ",nan 0.333333"), "line 5: A sample"),
        (edit(5, ",0.333333", ",fast,0.333333"), "line 5: 23 cells"),
        (edit(12, "64->96", "64-96"), "line 12: held_to must be two channel counts such as 64->96, got '64-96'"),
        (edit(12, "10.5", "ten"), "line 12: could not convert string to float: 'ten'. Mend"),
        (edit(12, "64->96", "64->97"), "line 12: A plateau can be held only between measured ends"),
        (edit(5, "measured", '"measured'), "line "),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, change: Callable[[str], str], sentence: str) -> None:
    path = tmp_path / "t.csv"
    export_csv(filled(), path)
    path.write_text(change(path.read_text()))
    with pytest.raises(FormatError) as caught:
        import_csv(path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    export_csv(filled(), tmp_path / "t.csv.gz")
    whole = (tmp_path / "t.csv.gz").read_bytes()
    for damage in (whole[:-20], whole[:40] + b"\0" * 9 + whole[49:]):
        (tmp_path / "bad.csv.gz").write_bytes(damage)
        with pytest.raises(FormatError, match="is truncated or corrupt"):
            import_csv(tmp_path / "bad.csv.gz")
    (tmp_path / "latin.csv").write_bytes(b"# {\xff}")
    with pytest.raises(FormatError, match="is not UTF-8 text"):
        import_csv(tmp_path / "latin.csv")
    for place in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(FormatError, match=r"Cannot read .*: (Is a directory|No such file)"):
            import_csv(place)
    with pytest.raises(FormatError, match="Cannot write"):
        export_csv(filled(), tmp_path / "no" / "t.csv")


def test_a_shipped_table_is_found_by_the_names_people_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for name, device, runtime in (
        ("h200.csv.gz", "NVIDIA H200", "eager"),
        ("h200-graph.csv.gz", "NVIDIA H200", "cuda-graph"),
        ("jetson.csv.gz", "Orin", "eager"),
    ):
        table = LatencyTable.in_memory(Environment(device=device, runtime=runtime))
        table.add(sample(CONV, 5.0))
        export_csv(table, tmp_path / "data" / name)
    (tmp_path / "data" / "README.md").write_text("not a table")
    monkeypatch.setattr(shipped, "files", lambda package: tmp_path)
    for name in ("h200", "H200", "NVIDIA H200", "nvidia-h200"):
        table = shipped_table(name)  # type: ignore[assignment]
        assert table is not None
        assert table.environment.device == "NVIDIA H200"
        assert table.latency_us(CONV) == 5.0
    eager = shipped_table("h200", runtime="eager")
    assert eager is not None
    assert eager.environment.runtime == "eager"
    assert shipped_table("h200", runtime="compile") is None
    assert shipped_table("jetson") is not None
    assert shipped_table("h20") is None
    assert shipped_table("h2000") is None
    assert shipped_table("nvidia") is None
    assert {environment.device for environment in shipped_environments()} == {"NVIDIA H200", "Orin"}


def test_what_is_really_shipped_is_readable_and_small() -> None:
    for environment in shipped_environments():
        assert shipped_table(environment.device, runtime=environment.runtime)
    folder = Path(shipped.__file__).parents[1] / "data"
    for file in folder.glob("*.csv.gz"):
        assert file.stat().st_size <= 2**20
        assert gzip.decompress(file.read_bytes())[:3] == b"# {"
