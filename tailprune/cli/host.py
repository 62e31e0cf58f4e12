"""`--ratio`, `--widths` and `--from-zeros`: what the host keeps, said on the command line."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ..core.errors import FormatError, InvalidShape
from ..core.graph import ModelGraph
from ..core.scores import ChannelScores
from ..planning import Scope, choose_host
from .models import LoadedModel

PANEL = "Host pruner"
Seed = Annotated[int, typer.Option(help="Seed of random weights and scores.", rich_help_panel=PANEL)]


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """What the host keeps: by one of `ratio`, `widths` and `from_zeros`."""

    ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of channels the host removes; 0.5 for a plan if none of these is given.", rich_help_panel=PANEL
        ),
    ] = None
    widths: Annotated[
        Path | None,
        typer.Option(
            help="The host's own choice instead of a ratio: JSON of layer: channels kept, or share removed.",
            rich_help_panel=PANEL,
        ),
    ] = None
    from_zeros: Annotated[
        float | None,
        typer.Option(
            metavar="THRESHOLD",
            help="The host has zeroed channels in --weights: those with a norm of at most THRESHOLD (0 for exact zeros) go.",
            rich_help_panel=PANEL,
        ),
    ] = None
    scope: Annotated[str, typer.Option(help="Where the host ranks: global or local.", rich_help_panel=PANEL)] = "global"
    importance: Annotated[
        str, typer.Option(help="Score of a channel: magnitude, bn_scale or random.", rich_help_panel=PANEL)
    ] = "magnitude"
    seed: Seed = 0

    @property
    def given(self) -> tuple[str, ...]:
        """The options, of those that exclude each other, that were given."""
        options = {"--ratio": self.ratio, "--widths": self.widths, "--from-zeros": self.from_zeros}
        return tuple(option for option, value in options.items() if value is not None)


def choose(loaded: LoadedModel, graph: ModelGraph, host: HostOptions) -> ChannelScores:
    """What the host keeps: by widths from a file, by the zeros in the weights, or a share of the channels by their scores."""
    from ..pruning import check_ratio, host_from_widths, host_from_zeros, score_channels

    if len(host.given) > 1:
        raise InvalidShape(f"{' and '.join(host.given)} each say what the host keeps; give one of them.")
    module, importance = loaded.module, host.importance
    if host.widths is not None:
        return host_from_widths(module, graph, read_widths(host.widths), importance=importance, seed=host.seed)
    if host.from_zeros is not None:
        return host_from_zeros(module, graph, host.from_zeros, importance=importance)
    share = 0.5 if host.ratio is None else host.ratio
    check_ratio(share)
    return choose_host(score_channels(module, graph, importance, seed=host.seed), share, scope=cast(Scope, host.scope))


def read_widths(path: Path) -> dict[str, float]:
    """A JSON object of layer: channels kept or share removed. JSON would let the last of two entries win; here both are named."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = next((name for name, count in Counter(name for name, _ in pairs).items() if count > 1), None)
        if repeated is not None:
            values = " and ".join(str(value) for name, value in pairs if name == repeated)
            raise FormatError(f"{path} names {repeated} more than once, with {values}; keep one of them.")
        return dict(pairs)

    try:
        body = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise FormatError(f'{path} is not valid JSON ({error}); write {{"layer": channels, ...}}.') from error
    if not isinstance(body, dict):
        raise FormatError(
            f'{path} holds no widths by layer but a {type(body).__name__}; write {{"layer": channels, ...}}.'
        )
    return body
