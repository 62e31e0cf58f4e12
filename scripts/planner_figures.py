"""What the planner's benchmark has shown: figures from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

from scripts.record import figure

Row = dict[str, Any]
#: Importances are equal up to this: sums of thousands of doubles.
SAME = 1e-7
LABELS = {"planner": "one budget", "frontier": "the frontier"}
#: What a budget and a frontier may take on ResNet-50 with every multiple of 8: so many candidates.
LIMITS_S, TARGETED = {"planner": 1.0, "frontier": 10.0}, 1432


def find_figures(rows: list[Row]) -> dict[str, dict[str, object]]:
    """Leads over the rivals at the same budget, violations, seconds, memory and gaps; misses stand beside hits."""
    at: dict[tuple, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        at[row["network"], row["device"], row["seed"], row["budget"]][row["method"]] = row

    def leads(ours: str, rival: Callable[[str], bool]) -> list[float]:
        """What ours keeps more than the best such rival, wherever both find a plan."""
        found = []
        for methods in at.values():
            rivals = [r["importance"] for m, r in methods.items() if rival(m) and r["importance"] is not None]
            if ours in methods and rivals:
                kept = methods[ours]["importance"]
                found.append(-max(rivals) if kept is None else kept - max(rivals))
        return [0.0 if abs(lead) < SAME else lead for lead in found]

    def greedy(method: str) -> bool:
        return method == "greedy"

    def multiple(method: str) -> bool:
        return method.startswith("multiple") and not method.endswith("no floor")

    def host(method: str) -> bool:
        return method.startswith("host") and not method.endswith("no floor")

    def free(method: str) -> bool:
        return method.endswith("no floor")

    def of(method: str, **wanted: object) -> list[Row]:
        return [row for row in rows if row["method"] == method and all(row[k] == v for k, v in wanted.items())]

    def unanswered(ours: str) -> int:
        """Budgets that some rival of the same floors meets, and ours does not."""
        answered = [
            {m for m, r in methods.items() if r["importance"] is not None} for methods in at.values() if ours in methods
        ]
        return sum(ours not in some and any(multiple(m) or greedy(m) for m in some) for some in answered)

    figures: dict[str, dict[str, object]] = {
        "plans over their budget": figure(sum(row["over_budget"] for row in rows), 0),
    }
    for ours in ("planner", "frontier"):
        over_greedy, over_multiples = leads(ours, greedy), leads(ours, multiple)
        figures |= {
            f"{ours}: budgets that only rivals meet": figure(unanswered(ours), 0),
            f"{ours}: least lead over greedy": figure(min(over_greedy), 0.0, at_most=False),
            f"{ours}: median lead over greedy": figure(median(over_greedy)),
            f"{ours}: budgets at which greedy keeps more, of {len(over_greedy)}": figure(
                sum(lead < 0 for lead in over_greedy), 0
            ),
            f"{ours}: budgets at which a fixed multiple keeps more, of {len(over_multiples)}": figure(
                sum(lead < 0 for lead in over_multiples), 0
            ),
            f"{ours}: least lead over the best fixed multiple": figure(min(over_multiples), 0.0, at_most=False),
            f"{ours}: median lead over the best fixed multiple": figure(median(over_multiples)),
            f"{ours}: median lead over the unrounded host": figure(median(leads(ours, host))),
            f"{ours}: least lead over multiples and hosts free of the floors": figure(min(leads(ours, free))),
        }
    for network in ("resnet50", "resnet50 all", "resnet152"):
        if any(row["network"] == network for row in rows):
            figures |= _costs(network, {ours: of(ours, network=network) for ours in ("planner", "frontier")})
    for ours in ("planner", "frontier"):
        figures |= {
            f"all networks: slowest {LABELS[ours]}": figure(_most(of(ours), "seconds"), unit="s"),
            f"all networks: largest gap of {LABELS[ours]}": figure(_most(of(ours), "gap")),
        }
    if thinned := of("frontier thinned"):
        few = [row["tried"] for row in thinned if row["network"] == "resnet50 all"]
        figures |= {
            "all networks: largest gap of the frontier at any latency": figure(_most(of("frontier"), "worst_gap")),
            f"resnet50 thinned to {min(few)} to {max(few)} candidates: slowest frontier": figure(
                _most(of("frontier thinned", network="resnet50 all"), "seconds"), 2.0, unit="s"
            ),
            "thinned: largest gap against all candidates, at the budgets": figure(_most(thinned, "gap")),
            "thinned: largest gap against all candidates, at any latency": figure(_most(thinned, "worst_gap")),
            "thinned: most importance kept less than by the full frontier": figure(
                max(-lead for lead in leads("frontier thinned", lambda method: method == "frontier"))
            ),
        }
    ratios = [
        methods["milp"]["seconds"] / methods["planner"]["seconds"] for methods in at.values()
        if "milp" in methods and methods["planner"]["importance"] is not None
    ]  # fmt: skip
    figures["seconds of the MILP over those of the planner, least"] = figure(min(ratios), 5.0, at_most=False)
    worse = [
        (m["milp"]["importance"] or 0.0) - m["planner"]["importance"] for m in at.values()
        if "milp" in m and m["planner"]["importance"] is not None
    ]  # fmt: skip
    figures["most that the MILP keeps more than the planner"] = figure(max(worse), SAME)
    return figures


def _costs(network: str, found: dict[str, list[Row]]) -> dict[str, dict[str, object]]:
    """Seconds, memory and gaps on one network; more candidates than the targets were set for may take longer in proportion."""
    figures: dict[str, dict[str, object]] = {}
    for ours, limit in LIMITS_S.items():
        label, candidates = LABELS[ours], found[ours][0]["candidates"]
        wide = [row for row in found[ours] if row["budget"] >= 0.4]
        narrow = [row for row in found[ours] if row["budget"] < 0.4]
        figures |= {
            f"{network}, {candidates} candidates: slowest {label}": figure(
                _most(found[ours], "seconds"), round(limit * max(1.0, candidates / TARGETED), 1), unit="s"
            ),
            f"{network}: peak memory of {label}": figure(_most(found[ours], "peak_mb") / 1024, 1.0, unit="GiB"),
            f"{network}: largest gap of {label}, 90 to 40 %": figure(_most(wide, "gap"), 0.001),
            f"{network}: largest gap of {label}, 30 %": figure(_most(narrow, "gap"), 0.005),
        }
    return figures


def _most(rows: Iterable[Row], field: str) -> float:
    return max((row[field] for row in rows if row[field] is not None), default=0.0)
