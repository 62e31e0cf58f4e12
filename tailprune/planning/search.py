"""Which network of a space is best within a latency budget, when only training tells how good one is?

Regularised evolution (Real et al., arXiv 1802.01548): the oldest network leaves, the best of a small random sample is mutated.
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from ..core.errors import InvalidShape, NoPlan
from ..core.protocols import LatencySource
from .costs import TICKS_PER_US, LayerCosts
from .space import WidthSpace
from .trials import SearchResult, Trial, TrialLog

#: What a user's function says of a network: larger is better.
Evaluator = Callable[[Mapping[str, int]], float]
#: `off`: candidates as they come. `skip`: a candidate gives way to a larger one that costs no more. `order`: that, and of
#: several candidates the one that uses most of the device within the budget comes first.
Utilization = Literal["off", "skip", "order"]

#: Networks drawn at random before evolution begins, and the sample whose best is mutated: the ratio of Real et al. (100 to 25),
#: for tens of evaluations instead of thousands.
POPULATION, SAMPLE = 12, 3
#: Candidates of which `order` takes the one that uses most of the device.
ORDERED = 4
#: Proposals in a row that were all seen before: the space within the budget is taken for exhausted.
EXHAUSTED_AFTER = 200


def search_widths(
    space: WidthSpace,
    evaluate: Evaluator,
    latency: LatencySource,
    *,
    budget_us: float,
    evaluations: int,
    utilization: Utilization = "order",
    seed: int = 0,
    log: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SearchResult:
    """The best of so many evaluated networks, none of them over the budget.

    `evaluate` takes the width of every group in the space and returns a score, larger is better; it is never asked twice
    about one network. One that raises, or returns no finite number, is recorded with its error and the search goes on.

    With L a candidate's latency and F its useful FLOP, its utilization within the budget is F / (budget x peak): peak and budget
    being the same for all, candidates are compared by F. `skip` raises a group to its next choice wherever L does not grow,
    until no group can: the larger network stands for the smaller one, which is not evaluated. `order` does that, and draws
    ORDERED candidates for each evaluation and takes the one with the largest F.

    With `log`, every evaluation is written to that file; called again with the same arguments (more evaluations, if you like),
    the search goes on from there to the same result as an undisturbed one. Raises NoPlan where even the narrowest network is
    over the budget, FormatError for a log of another search, MissingLatency where `latency` does not know a shape.

    >>> from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
    >>> from tailprune.core.shapes import LayerShape
    >>> from tailprune.planning.space import edge_space
    >>> from tailprune.waves import WaveModel, load_device
    >>> model, shape = WaveModel(load_device("h200")), LayerShape(op="linear", batch=4096, in_channels=512, out_channels=1024)
    >>> layer = Layer(name="fc", shape=shape, in_expr=WidthExpr(constant=512), out_expr=WidthExpr(terms=(("fc", 1),)))
    >>> graph = ModelGraph(model="one", layers=(layer,), groups=(ChannelGroup(id="fc", width=1024),), input_shape=(4096, 512))
    >>> space, budget_us = edge_space(graph, model), 0.6 * model.latency_us(shape)
    >>> found = search_widths(space, lambda widths: widths["fc"], model, budget_us=budget_us, evaluations=3)
    >>> found.best.widths["fc"] in space.choices["fc"], found.best.latency_us <= budget_us, len(found.trials)
    (True, True, 3)
    """
    if utilization not in get_args(Utilization):
        raise InvalidShape(f"Unknown utilization {utilization!r}; allowed: {', '.join(get_args(Utilization))}.")
    if evaluations < 1 or not (math.isfinite(budget_us) and budget_us > 0):
        raise InvalidShape(
            f"A search needs a positive budget and evaluation, got {budget_us!r} us and {evaluations!r}."
        )
    world = _World(space, LayerCosts.over(latency), int(budget_us * TICKS_PER_US), utilization)
    known = TrialLog.open(log, space, latency.origin, budget_us=budget_us, utilization=utilization, seed=seed)
    draw = random.Random(f"{seed}")
    population: deque[Trial] = deque(maxlen=POPULATION)
    trials: list[Trial] = []
    for widths in world.proposals(population, draw, seen={}):
        trial = known.get(len(trials), widths) or _evaluated(len(trials), widths, world.latency_us(widths), evaluate)
        known.add(trial)
        trials.append(trial)
        if trial.score is not None:
            population.append(trial)
        if progress is not None:
            progress(len(trials), evaluations, f"{trial.score:.4g}" if trial.score is not None else trial.error)
        if len(trials) == evaluations:
            break
    return SearchResult(trials=tuple(trials), budget_us=budget_us, skipped=world.skipped, utilization=utilization)


def _evaluated(number: int, widths: dict[str, int], latency_us: float, evaluate: Evaluator) -> Trial:
    error, score = "", None
    try:
        score = float(evaluate(dict(widths)))
        if not math.isfinite(score):
            error, score = f"the evaluator returned {score}", None
    except Exception as raised:  # whatever a user's training can fail with: the search outlives it
        error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    return Trial(number=number, widths=widths, latency_us=latency_us, score=score, error=error)


class _World:
    """Prices candidates and keeps them within the budget."""

    def __init__(self, space: WidthSpace, costs: LayerCosts, limit: int, utilization: Utilization) -> None:
        self.space, self.costs, self.limit, self.utilization = space, costs, limit, utilization
        self.skipped = 0
        if (floor := self._time(space.narrowest)) > limit:
            raise NoPlan(
                f"Budget {limit / TICKS_PER_US:,.1f} us is below the narrowest network of the space, "
                f"{floor / TICKS_PER_US:,.1f} us. Raise the budget, or allow narrower widths."
            )

    def latency_us(self, widths: Mapping[str, int]) -> float:
        return self._time(widths) / TICKS_PER_US

    def proposals(
        self, population: deque[Trial], draw: random.Random, *, seen: dict[tuple[int, ...], None]
    ) -> Iterator[dict[str, int]]:
        """Networks within the budget, each once; random ones first, then children of what `population` has come to hold."""
        born = 0
        while True:
            fresh: dict[tuple[int, ...], dict[str, int]] = {}
            wanted = ORDERED if self.utilization == "order" else 1
            for _ in range(EXHAUSTED_AFTER):
                widths = self._proposed(population if born >= POPULATION else deque(), draw)
                key = tuple(widths.values())
                if key not in seen:
                    fresh.setdefault(key, widths)
                if len(fresh) == wanted:
                    break
            if not fresh:
                return
            key = max(fresh, key=lambda key: (self.space.graph.macs_at(fresh[key]), key))
            seen[key] = None
            born += 1
            yield fresh[key]

    def _proposed(self, population: deque[Trial], draw: random.Random) -> dict[str, int]:
        if population:
            parents = draw.sample(list(population), min(SAMPLE, len(population)))
            widths = self.space.mutate(max(parents, key=lambda trial: trial.value).widths, draw)
        else:
            widths = self.space.sample(draw)
        while self._time(widths) > self.limit:
            widths = draw.choice(list(self.space.narrower(widths)))
        return widths if self.utilization == "off" else self._filled(widths, draw)

    def _filled(self, widths: dict[str, int], draw: random.Random) -> dict[str, int]:
        """The largest network reached by widening groups one choice at a time while that costs nothing."""
        time, grown = self._time(widths), widths
        while free := [wider for wider in self.space.wider(grown) if self._time(wider) <= time]:
            grown = draw.choice(free)
            time = min(time, self._time(grown))
        self.skipped += grown != widths
        return grown

    def _time(self, widths: Mapping[str, int]) -> int:
        return self.costs.total(self.space.graph, widths)
