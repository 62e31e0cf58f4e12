"""Options that belong together, as one value: a verb takes a dataclass, the command line sees its fields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with every dataclass among its parameters spread into that dataclass' fields, one option each.

    A field's `Annotated[type, typer.Option(...)]` and default are the option's; a field without a default is required.
    Two options of one name are a ValueError when the verb is defined.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Sizes:
    ...     rows: int
    ...     columns: int = 2
    >>> @grouped
    ... def area(*, sizes: Sizes, unit: str = "px") -> None:
    ...     print(sizes.rows * sizes.columns, unit)
    >>> inspect.signature(area)
    <Signature (*, rows: int, columns: int = 2, unit: str = 'px')>
    >>> area(rows=3)
    6 px
    """
    taken = list(_parameters(verb))
    groups: dict[str, Any] = {p.name: p.annotation for p in taken if is_dataclass(p.annotation)}
    options = [option for p in taken for option in (_parameters(groups[p.name]) if p.name in groups else (p,))]

    @functools.wraps(verb)
    def spread(**values: Any) -> None:
        packed = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group) if field.name in values})
            for name, group in groups.items()
        }
        verb(**packed, **values)

    spread.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    spread.__annotations__ = {option.name: option.annotation for option in options}
    return spread


def _parameters(owner: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """With annotations evaluated: not by typing.get_type_hints, which up to Python 3.10 hides Annotated in an Optional."""
    for parameter in inspect.signature(owner, eval_str=True).parameters.values():
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
