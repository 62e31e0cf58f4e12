"""Which channels hang together, and how to take some of them out. The only file that imports Torch-Pruning to trace."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch_pruning as tp
from torch import nn

from ..core.errors import TraceError
from .coupling import CoupledChannels, Member
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
        outs = [member for group in self.groups for member in group.members if member.side == "out"]
        self._left = {m.module: sorted(i for o in outs if o.module == m.module for i in o.indices) for m in outs}

    def group(self, group_id: str) -> CoupledChannels:
        if group_id not in self.by_id:
            raise TraceError(f"There is no channel group {group_id!r}; there are {', '.join(list(self.by_id)[:5])} ...")
        return self.by_id[group_id]

    def remaining(self, group_id: str) -> tuple[int, ...]:
        """The group's channels that are still there, ascending, in original coordinates."""
        group = self.group(group_id)
        present = set(self._left[group.root])
        return tuple(c for c in group.channels if c in present)

    def remove(self, group_id: str, channels: Iterable[int]) -> None:
        """Take exactly these channels (original coordinates) out of every member, in place, weights and norms alike.

        Refuses a group that is not prunable, channels that are not there, all of them, and a choice that leaves the
        blocks of a grouped convolution uneven. On refusal nothing has changed.
        """
        group, gone = self.group(group_id), sorted(set(channels))
        if not gone:
            return
        self._check_removal(group, gone)
        module = self._modules[group.root]
        position = {channel: i for i, channel in enumerate(self._left[group.root])}
        prune_out = self._graph.get_pruner_of_module(module).prune_out_channels
        self._graph.get_pruning_group(module, prune_out, [position[channel] for channel in gone]).prune()
        for member in group.members:
            if member.side == "out":
                lost = {i for i, channel in zip(member.indices, member.channels, strict=True) if channel in gone}
                self._left[member.module] = [i for i in self._left[member.module] if i not in lost]

    def locate(self, host_group: Any) -> dict[str, tuple[int, ...]]:
        """Group id -> original channels of a group that Torch-Pruning made on this graph, at today's widths.

        One entry, but for a producer whose outputs fall into several of our groups.
        """
        root = host_group[0]
        name = self._name.get(root.dep.target.module, "")
        if name not in self._left:
            raise TraceError(
                f"Torch-Pruning's group at {name or root.dep.target.name} belongs to none of the groups known here."
            )
        present = self._left[name]
        original = {present[i] for i in root.idxs}
        outs = [(group.id, m) for group in self.groups for m in group.members if (m.module, m.side) == (name, "out")]
        found = {g: {c for i, c in zip(m.indices, m.channels, strict=True) if i in original} for g, m in outs}
        return {group_id: tuple(sorted(channels)) for group_id, channels in found.items() if channels}

    def _check_removal(self, group: CoupledChannels, gone: list[int]) -> None:
        if group.reason:
            raise TraceError(f"Group {group.id} cannot be pruned: {group.reason}.")
        present = self.remaining(group.id)
        absent = sorted(set(gone) - set(present))
        if absent:
            raise TraceError(
                f"Group {group.id} has no channels {absent[:5]} (any more); it has {len(present)} channels."
            )
        if len(gone) == len(present):
            raise TraceError(
                f"Group {group.id} would lose all its {len(present)} channels; keep at least {group.granule}."
            )
        block = len(present) // group.granule
        offsets = Counter(present.index(channel) % block for channel in gone) if group.granule > 1 else {}
        if any(count != group.granule for count in offsets.values()):
            raise TraceError(
                f"Group {group.id} has granule {group.granule}: a channel leaves together with those at the same offset in "
                f"each block of {block} channels."
            )

    def _discover(self) -> Iterator[CoupledChannels]:
        """Every group once, rooted at its first producer."""
        covered: dict[str, set[int]] = {}
        nodes = self._graph.module2node
        tp.dependency.index_mapping.update_index_mapping(self._graph)
        self._graph.module2node = _Settled(nodes)
        try:
            for name, module in self._modules.items():
                if isinstance(module, PRODUCERS) and module in nodes:
                    width = module.out_features if isinstance(module, nn.Linear) else module.out_channels
                    yield from self._rooted_at(name, range(width), covered)
        finally:
            self._graph.module2node = nodes

    def _rooted_at(self, root: str, channels: Iterable[int], covered: dict[str, set[int]]) -> Iterator[CoupledChannels]:
        """The groups of these channels: one, but for a producer that is wider than its peers (they come first then)."""
        mine = covered.setdefault(root, set())
        rest = tuple(channel for channel in channels if channel not in mine)
        if not rest:
            return
        try:
            items, failure = self._items(root, rest), ""
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            alone = Member(module=root, side="out", indices=rest, channels=rest)
            items = [(self._graph.module2node[self._modules[root]], alone)]
            failure = f"Torch-Pruning cannot follow its channels ({one_line(error)})"
        members = tuple(member for _, member in items if member is not None)
        for peer in members:
            producer = peer.side == "out" and isinstance(self._modules.get(peer.module), PRODUCERS)
            narrower = len(peer.indices) < len(rest) + (bool(mine) and peer.module != root)
            if producer and narrower and not covered.get(peer.module, set()) & set(peer.indices):
                yield from self._rooted_at(peer.module, peer.indices, covered)
                yield from self._rooted_at(root, rest, covered)
                return
        group_id = f"{root}:{rest[0]}" if mine else root
        for member in members:
            if member.side == "out":
                covered.setdefault(member.module, set()).update(member.indices)
        mine.update(rest)
        yield self._coupled(group_id, root, rest, items, failure)

    def _items(self, root: str, channels: tuple[int, ...]) -> list[tuple[Any, Member | None]]:
        module = self._modules[root]
        prune_out = self._graph.get_pruner_of_module(module).prune_out_channels
        items = []
        for item in self._graph.get_pruning_group(module, prune_out, list(channels)):
            name = self._name.get(item.dep.target.module)
            side: Literal["in", "out"] = "out" if self._graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
            member = None
            if name is not None:
                member = Member(module=name, side=side, indices=tuple(item.idxs), channels=tuple(item.root_idxs))
            items.append((item.dep.target, member))
        return items

    def _coupled(
        self, group_id: str, root: str, channels: tuple[int, ...], items: list[tuple[Any, Member | None]], failure: str
    ) -> CoupledChannels:
        granule, reason = 1, failure
        for node, member in items:
            blocks, obstacle = _limits(node, member, channels)
            granule, reason = math.lcm(granule, blocks), reason or obstacle
        if len(channels) % granule:
            granule, reason = 1, reason or f"its {len(channels)} channels do not fill blocks of granule {granule}"
        if not reason and granule == len(channels):
            reason = "one channel per block is left" if granule > 1 else "it has one channel"
        members = tuple(m for _, m in items if m is not None)
        return CoupledChannels(
            id=group_id, root=root, channels=channels, granule=granule, members=members, reason=reason
        )


def cut(model: nn.Module, removals: Iterable[tuple[CoupledChannels, Iterable[int]]]) -> None:
    """Take channels out of a twin that is thrown away, member by member, without a dependency graph."""
    lost: dict[tuple[str, str], set[int]] = {}
    for group, channels in removals:
        gone = set(channels)
        for member in group.members:
            indices = {i for i, channel in zip(member.indices, member.channels, strict=True) if channel in gone}
            lost.setdefault((member.module, member.side), set()).update(indices)
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
        with running(twin):
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


class _Settled(dict):
    """Nodes whose index mappings are up to date: Torch-Pruning makes all of them anew for each group it is asked for."""

    def items(self) -> Any:
        return ()


class _Graph(tp.DependencyGraph):
    """Torch-Pruning's graph, without its guess that any change of view multiplies channels.

    The guess divides by zero on channel shuffles and grows without bound on windows of tokens. It stays where a view does
    flatten pixels into channels; elsewhere channels pass as they are, or `_limits` says that they cannot.
    """

    def _trace(self, *args: Any, **kwargs: Any) -> Any:
        nodes = super()._trace(*args, **kwargs)
        for node in nodes.values():
            if node.type == tp.ops.OPTYPE.RESHAPE and _view(node) != "flatten":
                node.type = tp.ops.OPTYPE.ELEMENTWISE
        return nodes


def _view(node: Any) -> Literal["flatten", "kept", "mixed", "unknown"]:
    """What a change of view does to channels, from the shapes that autograd keeps."""
    before = tuple(getattr(node.grad_fn, "_saved_self_sym_sizes", ()))
    after = tuple(node.grad_fn._input_metadata[0].shape)
    if not before:
        return "unknown"
    short, long = sorted((before, after), key=len)
    if len(short) == 2 and len(long) > 2 and short[0] == long[0] and short[1] == math.prod(long[1:]):
        return "flatten"
    return "kept" if before[:2] == after[:2] or before[-1] == after[-1] else "mixed"


def _limits(node: Any, member: Member | None, channels: tuple[int, ...]) -> tuple[int, str]:
    """(blocks that must stay even, what stands in the way) of one place that a group's channels pass through."""
    module, kind = node.module, node.type
    types = tp.ops.OPTYPE
    if kind == types.OUTPUT or (member and member.side == "out" and not node.outputs):
        return 1, "it is the network's output"
    if kind == types.CONCAT and any(function is None for function, _ in node.grad_fn.next_functions):
        return 1, "it is concatenated with a tensor that has no producer"
    if isinstance(module, tp.ops._ReshapeOp) and _view(node) == "mixed":
        return 1, "a change of view mixes its channels with other dimensions"
    if member is None:
        return 1, ""
    shares = Counter(member.channels)
    if len(member.indices) % len(channels) or set(shares) != set(channels) or len(set(shares.values())) > 1:
        return 1, f"its channels do not map one to one onto those of {member.module}"
    if kind == types.PARAMETER:
        held = module.numel() == module.shape[node.pruning_dim] == len(member.indices)
        return 1, "" if held else f"the bare parameter {member.module} of shape {tuple(module.shape)} holds it"
    if kind == types.LSTM:
        return 1, f"the recurrent layer {member.module} reads it"
    if kind == types.DEPTHWISE_CONV and module.in_channels != module.out_channels:
        return 1, f"{member.module} has one output channel per conv group and several inputs"
    if kind in (types.CONV, types.GN, types.MHA):
        blocks = module.groups if kind == types.CONV else module.num_groups if kind == types.GN else module.num_heads
        width = {types.GN: "num_channels", types.MHA: "embed_dim"}.get(kind, f"{member.side}_channels")
        if blocks > 1 and member.indices != tuple(range(getattr(module, width))):
            return 1, f"the blocks of {member.module} hold channels of several groups"
        return blocks, ""
    return 1, ""
