"""Which share is this process's, by hand and by launcher."""

from __future__ import annotations

import pytest

from tailprune.core.errors import InvalidShape
from tailprune.filling import launched_shard, shard_of


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        ({"RANK": "0", "WORLD_SIZE": "4"}, "1/4"),
        ({"RANK": "3", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "4/4"),  # torchrun inside a Slurm job
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2"}, "1/2"),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, "3/4"),
        (
            {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "4", "SLURM_ARRAY_TASK_COUNT": "3"},
            "3/3",
        ),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "2/2"),
    ],
)  # fmt: skip
def test_launchers_say_the_shard(environ: dict[str, str], shard: str) -> None:
    assert launched_shard(environ) == shard


@pytest.mark.parametrize("environ", [{}, {"RANK": "1"}, {"RANK": "first", "WORLD_SIZE": "2"}])
def test_without_a_launcher_the_shard_is_asked_for(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidShape, match=r"No launcher says which shard this is: .* Write the shard as i/n"):
        launched_shard(environ)


def test_an_array_with_holes_is_refused_where_it_is_used() -> None:
    holes = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "3"}
    with pytest.raises(InvalidShape, match="got '7/3'"):
        shard_of("abc", launched_shard(holes))
