"""Which channels hang together, and how to take some of them out. The only file that imports Torch-Pruning to trace."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import torch_pruning as tp
from torch import nn

from ..core.errors import TraceError
from .coupling import CoupledChannels, Member
from .obstacles import change_of_view, joined_sizes, limit_of, mixing_after, part_of, parts_of
from .twin import Inputs, one_line, running, twin_of

#: Where a group may begin: the layers whose output channels are rows of a weight.
PRODUCERS = (nn.modules.conv._ConvNd, nn.Linear)


class ChannelDependency:
    """Which channels of a model must leave together, and the means to remove them, exactly.

    Build it over a model (`ChannelDependency(model, example_inputs)`: the model is not run, a twin on the meta device
    is), or over the graph a host pruner holds already (`ChannelDependency(host.model, graph=host.DG)`), so that its
    groups get the same ids as everywhere else.
    Everything is said in **original** coordinates: those of the model when this object was made. `remove` keeps count of
    what has left, so it may be called again and again, in any order. Nothing else may prune the model meanwhile.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> dependency = ChannelDependency(net, torch.zeros(1, 3, 8, 8))
    >>> [(group.id, group.width, group.reason) for group in dependency.groups]
    [('0', 8, ''), ('3', 4, "it is the network's output")]
    >>> dependency.remove("0", [1, 5]); net[0].out_channels, net[1].num_features, net[3].in_channels
    (6, 6, 6)
    """

    def __init__(self, model: nn.Module, example_inputs: Any = None, *, graph: Any = None) -> None:
        self.model = model
        self._graph = _graph_of(model, example_inputs) if graph is None else graph
        self._name: dict[Any, str] = {**{m: n for n, m in model.named_modules()}, **self._graph._param_to_name}
        self._modules = dict(model.named_modules())
        self.groups: tuple[CoupledChannels, ...] = tuple(self._discover())
        self.by_id = {group.id: group for group in self.groups}
        self._left: dict[tuple[str, str], list[int]] = {}  # ends of modules -> their channels that are still there
        for name, side, indices in ((m.module, m.side, m.indices) for group in self.groups for m in group.members):
            inputs = _input_width(self._modules.get(name)) if side == "in" else None
            self._left[name, side] = list(range(inputs or 0)) or sorted({*self._left.get((name, side), ()), *indices})

    def group(self, group_id: str) -> CoupledChannels:
        if group_id not in self.by_id:
            raise TraceError(f"There is no channel group {group_id!r}; there are {', '.join(list(self.by_id)[:5])} ...")
        return self.by_id[group_id]

    def remaining(self, group_id: str) -> tuple[int, ...]:
        """The group's channels that are still there, ascending, in original coordinates."""
        group = self.group(group_id)
        present = set(self._left[group.root, "out"])
        return tuple(c for c in group.channels if c in present)

    def remove(self, group_id: str, channels: Iterable[int]) -> None:
        """Take exactly these channels (original coordinates) out of every member, in place, weights and norms alike.

        Refuses a group that is not prunable, channels that are not there, all of them, and a choice that leaves the
        blocks of a grouped convolution uneven. On refusal nothing has changed.
        """
        group, gone = self.group(group_id), sorted(set(channels))
        if not gone:
            return
        group.check_removal(gone, present=self.remaining(group.id))
        lost = group.ends(gone)
        _repair_splits(self._graph)
        places = [bisect_left(self._left[group.root, "out"], channel) for channel in gone]
        with _quiet():
            chosen = self._grouped(group.root, places)
        expected = {end: {bisect_left(self._left[end], i) for i in indices} for end, indices in lost.items() if indices}
        found: dict[tuple[str, str], set[int]] = {}
        for part in filter(None, (member for _, member in self._parts(chosen))):
            found.setdefault((part.module, part.side), set()).update(part.indices)
        if found != expected:
            raise TraceError(
                f"Torch-Pruning would take other channels out of group {group.id} than were traced; trace again."
            )
        chosen.prune()
        for end, indices in lost.items():
            self._left[end] = [i for i in self._left[end] if i not in indices]

    def locate(self, host_group: Any) -> dict[str, tuple[int, ...]]:
        """Group id -> original channels of a group that Torch-Pruning made on this graph, at today's widths.

        One entry, but for a producer whose outputs fall into several of our groups.
        """
        root = host_group[0]
        name = self._name.get(root.dep.target.module, "")
        if (name, "out") not in self._left:
            raise TraceError(
                f"Torch-Pruning's group at {name or root.dep.target.name} belongs to none of the groups known here."
            )
        present = self._left[name, "out"]
        original = {present[i] for i in root.idxs}
        outs = [(group.id, m) for group in self.groups for m in group.members if (m.module, m.side) == (name, "out")]
        found = {g: {c for i, c in zip(m.indices, m.channels, strict=True) if i in original} for g, m in outs}
        return {group_id: tuple(sorted(channels)) for group_id, channels in found.items() if channels}

    def _discover(self) -> Iterator[CoupledChannels]:
        """Every group once, rooted at its first producer."""
        covered: dict[str, dict[int, str]] = {}
        nodes = self._graph.module2node
        _repair_splits(self._graph)
        with _quiet():
            tp.dependency.index_mapping.update_index_mapping(self._graph)
        self._graph.module2node = _Settled(nodes)
        try:
            for name, module in self._modules.items():
                if isinstance(module, PRODUCERS) and module in nodes:
                    width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
                    yield from self._rooted_at(name, range(width), covered)
        finally:
            self._graph.module2node = nodes

    def _rooted_at(
        self, root: str, channels: Iterable[int], covered: dict[str, dict[int, str]], above: tuple[str, ...] = ()
    ) -> Iterator[CoupledChannels]:
        """The groups of these channels: one, but for a producer that is wider than its peers (they come first then)."""
        mine = covered.setdefault(root, {})
        rest = tuple(channel for channel in channels if channel not in mine)
        if not rest:
            return
        node = self._graph.module2node[self._modules[root]]
        items: list[tuple[Any, Member | None]] = [(node, Member(module=root, side="out", indices=rest, channels=rest))]
        failure = mixing_after(node)
        if not failure:
            try:
                items = list(self._parts(self._grouped(root, rest)))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                failure = f"Torch-Pruning cannot follow its channels ({one_line(error)})"
        members = tuple(member for _, member in items if member is not None)
        for peer in members:
            producer = peer.side == "out" and isinstance(self._modules.get(peer.module), PRODUCERS)
            narrower = len(peer.indices) < len(rest) + (bool(mine) and peer.module != root)
            if (
                producer
                and narrower
                and peer.module not in above
                and covered.get(peer.module, {}).keys().isdisjoint(peer.indices)
            ):
                yield from self._rooted_at(peer.module, peer.indices, covered, (*above, root))
                yield from self._rooted_at(root, rest, covered, above)
                return
        group_id = f"{root}:{len(set(mine.values())) + 1}" if mine else root
        for member in members:
            if member.side == "out":
                covered.setdefault(member.module, {}).update(dict.fromkeys(member.indices, group_id))
        mine.update(dict.fromkeys(rest, group_id))
        yield self._coupled(group_id, root, rest, items, failure)

    def _grouped(self, root: str, channels: Sequence[int]) -> Any:
        """Torch-Pruning's group of these channels of a producer, at today's widths."""
        module = self._modules[root]
        return self._graph.get_pruning_group(
            module, self._graph.get_pruner_of_module(module).prune_out_channels, list(channels)
        )

    def _parts(self, grouped: Any) -> Iterator[tuple[Any, Member | None]]:
        for item in grouped:
            name = self._name.get(item.dep.target.module)
            side: Literal["in", "out"] = "out" if self._graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            member = None
            if name is not None:
                member = Member(module=name, side=side, indices=tuple(item.idxs), channels=tuple(item.root_idxs))
            yield item.dep.target, member

    def _coupled(
        self, group_id: str, root: str, channels: tuple[int, ...], items: list[tuple[Any, Member | None]], failure: str
    ) -> CoupledChannels:
        limits = [limit_of(node, member, channels) for node, member in items]
        granule = math.lcm(*(limit.blocks for limit in limits))
        reason = next(filter(None, (failure, *(limit.obstacle for limit in limits))), "")
        least = granule * -(-max(limit.least for limit in limits) // granule)
        if len(channels) % granule:
            reason = reason or f"its {len(channels)} channels do not fill blocks of granule {granule}"
            granule = least = 1
        if not reason and least >= len(channels):
            reason = "its blocks are as narrow as they may be" if granule > 1 else "it has one channel"
        members = tuple(m for _, m in items if m is not None)
        return CoupledChannels(
            id=group_id, root=root, channels=channels, granule=granule, min_width=min(least, len(channels)),
            members=members, reason=reason,
        )  # fmt: skip


def _input_width(module: Any) -> int | None:
    return getattr(module, "in_channels", None) or getattr(module, "in_features", None)


def cut(model: nn.Module, removals: Iterable[tuple[CoupledChannels, Iterable[int]]]) -> None:
    """Take channels out of a twin that is thrown away, member by member, without a dependency graph."""
    lost: dict[tuple[str, str], set[int]] = {}
    for group, channels in removals:
        for end, indices in group.ends(channels).items():
            lost.setdefault(end, set()).update(indices)
    for (name, side), indices in lost.items():
        parent, _, leaf = name.rpartition(".")
        target = getattr(model.get_submodule(parent), leaf)
        pruner = tp.pruner.function.PrunerBox[tp.ops.module2type(target)]
        if isinstance(target, nn.Parameter):
            pruner.pruning_dim = max(range(target.dim()), key=lambda axis: target.shape[axis])
        prune = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
        pruned = prune(target, sorted(indices))
        if isinstance(target, nn.Parameter):
            setattr(model.get_submodule(parent), leaf, pruned)


def build_graph(twin: nn.Module, inputs: Inputs) -> Any:
    """Torch-Pruning's dependency graph of a twin, which it runs once."""
    graph = _Graph()
    try:
        with running(twin), _quiet():
            graph.build_dependency(twin, inputs, forward_fn=lambda net, args: net(*args), verbose=False)
    except Exception as error:
        raise TraceError(
            f"Torch-Pruning cannot follow the channels of {type(twin).__name__} ({one_line(error)}); "
            "none of its layers can be pruned through it."
        ) from None
    return graph


def _graph_of(model: nn.Module, example_inputs: Any) -> Any:
    """The graph of a twin, grafted onto the model's own modules and parameters."""
    twin, inputs = twin_of(model, example_inputs)
    graph = build_graph(twin, inputs)
    original: dict[Any, Any] = dict(zip(twin.modules(), model.modules(), strict=True))
    original.update(zip(twin.parameters(), model.parameters(), strict=True))
    graph.model = model
    for node in graph.module2node.values():
        node.module = original.get(node.module, node.module)
    graph.module2node = {node.module: node for node in graph.module2node.values()}
    for attribute in ("_module2name", "_param_to_name"):
        setattr(graph, attribute, {original.get(k, k): name for k, name in getattr(graph, attribute).items()})
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Torch-Pruning's warnings of what it guesses about flattened pixels: the trial checks that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Maximum recursive depth reached")
        yield


class _Settled(dict):
    """Nodes whose index mappings are up to date: Torch-Pruning makes all of them anew for each group it is asked for."""

    def items(self) -> Any:
        return ()


class _Graph(tp.DependencyGraph):
    """Torch-Pruning's graph, without its guess that any change of view multiplies channels.

    The guess divides by zero on channel shuffles and grows without bound on windows of tokens. It stays where a view does
    flatten pixels into channels; elsewhere channels pass as they are, or `limit_of` says that they cannot. It is told the
    sizes that a concatenation joins, too, whose search deep networks exhaust.
    """

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        nodes = super()._trace(*args, **kwargs)
        for node in nodes.values():
            if node.type == tp.ops.OPTYPE.RESHAPE and change_of_view(node) != "flatten":
                node.type = tp.ops.OPTYPE.ELEMENTWISE
            if node.type == tp.ops.OPTYPE.CONCAT:
                node.module.concat_sizes = joined_sizes(node)
        return nodes


def _repair_splits(graph: Any) -> None:
    """Say right which channels each reader of a split reads.

    Torch-Pruning 1.6.1 takes the readers as it happens to meet them, guesses the sizes of equal parts from them, and
    keeps the old offsets after a cut.
    """
    nodes, moved = graph.module2node.values(), False
    for split in (node for node in nodes if node.type == tp.ops.OPTYPE.SPLIT):
        ordered = sorted(split.outputs, key=partial(part_of, split))
        moved |= ordered != split.outputs
        split.outputs[:] = ordered
        if hasattr(split.grad_fn, "_saved_split_size") or None in (split.module.split_sizes or [None]):
            split.module.split_sizes = parts_of(split)
        split.module.offsets = [0, *accumulate(split.module.split_sizes)]
    for node in nodes if moved and not isinstance(graph, _Graph) else ():
        if node.type == tp.ops.OPTYPE.CONCAT:
            node.module.concat_sizes = None  # inferred from the wrong parts; inferred again on use
