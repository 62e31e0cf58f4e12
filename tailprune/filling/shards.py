"""Which share of the work is this process's?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from ..core.errors import InvalidShape

Item = TypeVar("Item")


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
