"""Which share of the work is this process's?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from ..core.errors import InvalidShape

Item = TypeVar("Item")
#: (count, index, first index, step between indices) as launchers set them: torchrun (PyTorch docs, "torchrun", environment
#: variables), Slurm's job arrays (sbatch, --array) and its parallel tasks (srun). What is never set counts as 0 and 1.
LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "(first)", "(step)"),
    ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("SLURM_NTASKS", "SLURM_PROCID", "(first)", "(step)"),
)


def launched_shard(environ: Mapping[str, str]) -> str:
    """The shard "i/n" of a process that torchrun, a Slurm job array or srun started; InvalidShape for any other.

    >>> launched_shard({"RANK": "1", "WORLD_SIZE": "8"})
    '2/8'
    """
    for count, index, first, step in LAUNCHERS:
        if count in environ and index in environ:
            names = {
                name: environ.get(name, default)
                for name, default in ((count, ""), (index, ""), (first, "0"), (step, "1"))
            }
            if not all(re.fullmatch(r"\d+", value) for value in names.values()):
                break
            number = {name: int(value) for name, value in names.items()}
            return f"{(number[index] - number[first]) // number[step] + 1}/{number[count]}"
    raise InvalidShape(
        "No launcher says which shard this is: torchrun sets RANK and WORLD_SIZE, a Slurm job array SLURM_ARRAY_TASK_ID "
        "and SLURM_ARRAY_TASK_COUNT. Write the shard as i/n."
    )


def shard_of(items: Sequence[Item], shard: str) -> tuple[Item, ...]:
    """Every n-th item from the i-th on, for a shard written "i/n" with i in 1..n.

    >>> shard_of("abcde", "2/3")
    ('b', 'e')
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    index, count = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise InvalidShape(f"A shard is written i/n with i from 1 to n, for example 2/8; got {shard!r}.")
    return tuple(items[index - 1 :: count])
