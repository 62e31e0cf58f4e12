"""`--ratio`, `--widths` and `--from-zeros`: what the host keeps, said on the command line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

from ..core.errors import FormatError, InvalidShape
from ..core.graph import ModelGraph
from ..core.scores import ChannelScores
from ..planning import Scope, choose_host
from .models import LoadedModel


def choose(
    loaded: LoadedModel,
    graph: ModelGraph,
    *,
    ratio: float | None,
    widths: Path | None,
    from_zeros: float | None,
    importance: str,
    scope: str,
    seed: int,
) -> ChannelScores:
    """What the host keeps: by widths from a file, by the zeros in the weights, or a share of the channels by their scores."""
    from ..pruning import check_ratio, host_from_widths, host_from_zeros, score_channels

    options = {"--ratio": ratio, "--widths": widths, "--from-zeros": from_zeros}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        raise InvalidShape(f"{' and '.join(given)} each say what the host keeps; give one of them.")
    if widths is not None:
        return host_from_widths(loaded.module, graph, read_widths(widths), importance=importance, seed=seed)
    if from_zeros is not None:
        return host_from_zeros(loaded.module, graph, from_zeros, importance=importance)
    share = 0.5 if ratio is None else ratio
    check_ratio(share)
    return choose_host(score_channels(loaded.module, graph, importance, seed=seed), share, scope=cast(Scope, scope))


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
