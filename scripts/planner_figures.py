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
    fifty = {ours: of(ours, network="resnet50 all") for ours in ("planner", "frontier", "frontier thinned")}
    deep = {ours: of(ours, network="resnet152") for ours in ("planner", "frontier")}
    candidates, more = fifty["frontier"][0]["candidates"], deep["frontier"][0]["candidates"]
    for ours, limit in (("planner", 1.0), ("frontier", 10.0)):
        label = "one budget" if ours == "planner" else "the frontier"
        figures |= {
            f"ResNet-50, {candidates} candidates: slowest {label}": figure(
                _most(fifty[ours], "seconds"), limit, unit="s"
            ),
            f"ResNet-50: peak memory of {label}": figure(_most(fifty[ours], "peak_mb") / 1024, 1.0, unit="GiB"),
            f"ResNet-50: largest gap of {label}, 90 to 40 %": figure(
                _most([row for row in fifty[ours] if row["budget"] >= 0.4], "gap"), 0.001
            ),
            f"ResNet-50: largest gap of {label}, 30 %": figure(
                _most([row for row in fifty[ours] if row["budget"] == 0.3], "gap"), 0.005
            ),
            f"ResNet-152, {more} candidates: slowest {label}, in proportion": figure(
                _most(deep[ours], "seconds"), limit * more / candidates, unit="s"
            ),
            f"all networks: slowest {label}": figure(_most(of(ours), "seconds"), unit="s"),
            f"all networks: largest gap of {label}": figure(_most(of(ours), "gap")),
        }
    thinned = fifty["frontier thinned"]
    few = [row["tried"] for row in thinned]
    lost = [
        methods["frontier"]["importance"] - methods["frontier thinned"]["importance"] for methods in at.values()
        if "frontier thinned" in methods and methods["frontier thinned"]["importance"] is not None
    ]  # fmt: skip
    figures |= {
        "all networks: largest gap of the frontier at any latency": figure(_most(of("frontier"), "worst_gap")),
        f"ResNet-50 thinned to {min(few)}-{max(few)} candidates: slowest frontier": figure(
            _most(thinned, "seconds"), 2.0, unit="s"
        ),
        "ResNet-50 thinned: largest gap against all candidates, at the budgets": figure(_most(thinned, "gap")),
        "ResNet-50 thinned: largest gap against all candidates, at any latency": figure(_most(thinned, "worst_gap")),
        "thinned: most importance kept less than by the full frontier": figure(max(lost)),
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


def _most(rows: Iterable[Row], field: str) -> float:
    return max((row[field] for row in rows if row[field] is not None), default=0.0)
