"""`measure --shard auto`: what torchrun and Slurm set, taken from the environment of real runs."""

from __future__ import annotations

import json

NET = ("--input-shape", "3,16,16", "--batch", "8", "--dtype", "float16")


def test_auto_follows_torchrun_and_names_a_table_for_each_process(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        table = tmp_path / "part-{shard}.db"
        ran = cli("measure", "-m", tiny, "-t", table, "--simulate", "a100", *NET, "--shard", "auto", "--json")
        assert ran.code == 0, ran.err
    names = [tmp_path / f"part-{i}-of-2.db" for i in (1, 2)]
    assert cli("table", "merge", tmp_path / "all.db", *names).code == 0
    whole = json.loads(cli("table", "info", tmp_path / "all.db", "--json").out)["shapes"]
    parts = [json.loads(cli("table", "info", name, "--json").out)["shapes"] for name in names]
    assert max(parts) < whole <= sum(parts)


def test_auto_without_a_launcher_is_one_sentence(cli, tiny, tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    ran = cli("measure", "-m", tiny, "-t", tmp_path / "t.db", "--simulate", "a100", *NET, "--shard", "auto")
    assert ran.code == 1 and "No launcher says which shard" in " ".join(ran.err.split())
    assert not (tmp_path / "t.db").exists()


def test_torchrun_gives_each_process_its_own_gpu(cli, tiny, tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "7"}.items():
        monkeypatch.setenv(name, value)
    ran = cli("measure", "-m", tiny, "-t", tmp_path / "t.db", "-d", "cuda", *NET, "--shard", "auto")
    assert ran.code == 1 and "There is no cuda:7 here" in " ".join(ran.err.split())
