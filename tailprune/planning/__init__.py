"""Which widths should the channel groups of a network have? The joint problem over both ends of every layer, exact
solvers for it, the policies that say which widths are allowed, and the rivals every answer is compared with."""

from __future__ import annotations

from .candidates import Candidates, Policy, candidate_widths
from .costs import LayerCosts
from .explain import Explanation, GroupPrices, NextPlan, explain_plan
from .frontier import Frontier, FrontierPoint, plan_frontier
from .greedy import greedy_plan
from .growth import MACS_OF_A_CHANNEL, WIDEST, growth_scores, plan_growth, widest_graph
from .host import Scope, choose_host
from .planner import Goal, plan_widths
from .problem import Objective, Problem, Solution, build_problem
from .rivals import fixed_multiple, host_plan
from .search import search_widths
from .solve import Solver, solve
from .space import WidthSpace, edge_space, full_space
from .structure import required_shapes
from .trials import SearchResult, Trial

__all__ = [
    "MACS_OF_A_CHANNEL",
    "WIDEST",
    "Candidates",
    "Explanation",
    "Frontier",
    "FrontierPoint",
    "Goal",
    "GroupPrices",
    "LayerCosts",
    "NextPlan",
    "Objective",
    "Policy",
    "Problem",
    "Scope",
    "SearchResult",
    "Solution",
    "Solver",
    "Trial",
    "WidthSpace",
    "build_problem",
    "candidate_widths",
    "choose_host",
    "edge_space",
    "explain_plan",
    "fixed_multiple",
    "full_space",
    "greedy_plan",
    "growth_scores",
    "host_plan",
    "plan_frontier",
    "plan_growth",
    "plan_widths",
    "required_shapes",
    "search_widths",
    "solve",
    "widest_graph",
]
