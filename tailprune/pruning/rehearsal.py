"""One dry run of the host pruner: what it would remove from which group, by which scores, and nothing removed.

A host cannot be deep-copied (its dependency graph points into the model), so its own step is run once with pruning
left out, and every piece of its state that the run touches is put back or kept exactly as its own step would leave it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidShape

#: Torch-Pruning 1.6.1, pruner/algorithms/base_pruner.py: the scope of global ranking.
GLOBAL_SCOPE = "DEFAULT_SCOPE"


@dataclass(kw_only=True)
class HostGroup:
    """One group as the host ranked it. Channels are indices of `root`, the layer (and side) the host prunes it by.

    `kept` are the channels the host keeps. `heads` groups belong to attention: their channels are replayed as the host
    chose them, and `channel_groups` holds what the host then believes of their layers.
    """

    name: str
    root: nn.Module
    handler: Callable[..., Any]
    full: Any  # the host's group over all channels: what importances saw
    outputs: dict[nn.Module, dict[int, int]]  # layer -> its output channel -> the root's channel it leaves with
    width: int
    scores: tuple[float, ...]
    granule: int
    scope: str
    kept: tuple[int, ...]
    heads: tuple[nn.Module, ...] = ()
    spared: tuple[int, ...] = ()  # members the host itself leaves alone (shared key and value heads)

    @property
    def removed(self) -> tuple[int, ...]:
        kept = set(self.kept)
        return tuple(channel for channel in range(self.width) if channel not in kept)


@dataclass(kw_only=True)
class Rehearsal:
    """What the host's step would do. `undo` takes the step itself back: for a caller that fails before pruning."""

    groups: tuple[HostGroup, ...]
    report: tuple[str, ...]
    head_counts: dict[str, dict[nn.Module, int]]
    undo: Callable[[], None]


def rehearse(host: Any) -> Rehearsal:
    """Take the host's next step without pruning anything.

    Afterwards `current_step` and the channel counts of its ranking scopes are as its own step leaves them; `round_to`,
    `num_heads` and the channel-group dictionaries are as they were, and `head_counts` holds what the step would have
    made of the last three. If the host or its importance fails, everything is as before the call.
    """
    lines: list[str] = []
    if host.round_to:
        lines.append(f"round_to={host.round_to} of the host is ignored: widths are chosen from the staircase instead")
    recorder = _Recorder(host)
    undo = _bookkeeping(host)
    dicts = {name: getattr(host, name) for name in ("num_heads", "in_channel_groups", "out_channel_groups")}
    saved = {name: dict(value) for name, value in dicts.items()}
    round_to, host.round_to = host.round_to, None
    try:
        with recorder.listening():
            for group in host.step(interactive=True):
                recorder.chose(group)
        after = {name: {m: n for m, n in d.items() if saved[name].get(m) != n} for name, d in dicts.items()}
    except BaseException:
        undo()
        raise
    finally:
        host.round_to = round_to
        for name, value in dicts.items():  # in place: Torch-Pruning shares its default dictionaries between pruners
            value.clear()
            value.update(saved[name])
    return Rehearsal(groups=tuple(recorder.groups), report=(*lines, *recorder.lines), head_counts=after, undo=undo)


def _bookkeeping(host: Any) -> Callable[[], None]:
    """Puts the host's step counter and scope sizes back to what they are now."""
    step, scopes = host.current_step, dict(host._scope_initial_channels)

    def undo() -> None:
        host.current_step = step
        host._scope_initial_channels.clear()
        host._scope_initial_channels.update(scopes)

    return undo


class _Recorder:
    """Listens to the three questions a host asks while it steps."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.groups: list[HostGroup] = []
        self.lines: list[str] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        host = self.host
        with contextlib.ExitStack() as stack:
            for owner, name, listener in (
                (host, "estimate_importance", self._estimate),
                (host, "_check_pruning_ratio", self._check_ratio),
                (host.DG, "check_pruning_group", self._check_group),
            ):
                stack.enter_context(_replaced(owner, name, listener))
            if hasattr(host.importance, "adjust_fisher"):  # OBDC edits its own state for channels not removed yet
                stack.enter_context(_replaced(host.importance, "adjust_fisher", lambda original: lambda *_: None))
            yield

    def chose(self, group: Any) -> None:
        """The host yielded `group`: it would remove these channels of its root."""
        record = self._find(group)
        removed = set(group[0][1])
        record.kept = tuple(channel for channel in range(record.width) if channel not in removed)
        if removed:  # otherwise the host yields a group that removes nothing anywhere
            record.spared = tuple(i for i, (_, idxs) in enumerate(group.items) if not len(idxs))

    def _find(self, group: Any) -> HostGroup:
        dep = group[0][0]
        return next(r for r in self.groups if r.root is dep.target.module and r.handler == dep.handler)

    def _name(self, group: Any) -> str:
        return str(self.host.DG._module2name[group[0][0].target.module])

    def _estimate(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def estimate_importance(group: Any) -> Any:
            name = self._name(group)
            outputs = self._outputs(group)  # before the importance sees it: Taylor sorts a group's indices in place
            try:
                scores = original(group)
            except (AttributeError, TypeError) as error:
                if all(p.grad is None for p in self.host.model.parameters()):
                    raise InvalidShape(
                        f"{type(self.host.importance).__name__} cannot score {name}: no parameter has a gradient. "
                        "Call loss.backward() before step()."
                    ) from error
                raise
            if scores is None:
                self.lines.append(
                    f"{name}: left whole, the importance returned None (no gradients, or no scored layer)"
                )
                return None
            self.groups.append(self._record(group, name, outputs, scores))
            return scores

        return estimate_importance

    def _outputs(self, group: Any) -> dict[nn.Module, dict[int, int]]:
        is_out = self.host.DG.is_out_channel_pruning_fn
        items = [item for item in group if is_out(item.dep.handler)]
        return {item.dep.target.module: dict(zip(item.idxs, item.root_idxs, strict=False)) for item in items}

    def _record(
        self, group: Any, name: str, outputs: dict[nn.Module, dict[int, int]], scores: torch.Tensor
    ) -> HostGroup:
        host = self.host
        granule = int(host._get_channel_groups(group))
        width = len(group[0][1])
        values = scores.detach().double().cpu()
        if values.ndim != 1 or len(values) != width:
            raise InvalidShape(
                f"The importance of {name} has shape {tuple(values.shape)}; it must be one score for each of {width} channels."
            )
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            raise InvalidShape(
                f"The importance of layer {name} is {values[bad[0]].item()} at channel {bad[0].item()}; "
                "scores must be finite. Check its weights and gradients, or ignore the layer."
            )
        if granule > 1:  # the host ranks the mean over conv groups, and removes one offset from each of them
            values = values.view(granule, -1).mean(dim=0).repeat(granule)
        return HostGroup(
            name=name,
            root=group[0][0].target.module,
            handler=group[0][0].handler,
            full=group,
            outputs=outputs,
            width=width,
            scores=tuple(values.tolist()),
            granule=granule,
            scope=scope_of(host, group),
            kept=tuple(range(width)),
            heads=tuple(dict.fromkeys(host._is_atten_group(group)[1])),
        )

    def _check_ratio(self, original: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def _check_pruning_ratio(group: Any) -> bool:
            allowed = original(group)
            if not allowed:
                self.lines.append(
                    f"{self._name(group)}: left alone by the host, a layer of its group has one channel left or is past "
                    f"max_pruning_ratio={self.host.max_pruning_ratio}"
                )
            return allowed

        return _check_pruning_ratio

    def _check_group(self, original: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def check_pruning_group(group: Any) -> bool:
            allowed = original(group)
            if not allowed:
                self.lines.append(
                    f"{self._name(group)}: the host selects all its channels and therefore skips it; kept whole by the host"
                )
            return allowed

        return check_pruning_group


@contextlib.contextmanager
def _replaced(owner: Any, name: str, listener: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """`owner.name` wrapped on the instance; an instance attribute of the user's own is put back."""
    mine = vars(owner).get(name)
    setattr(owner, name, listener(getattr(owner, name)))
    try:
        yield
    finally:
        if mine is None:
            delattr(owner, name)
        else:
            setattr(owner, name, mine)


def scope_of(host: Any, group: Any) -> str:
    """The ranking scope `BasePruner._prune` (1.6.1) puts a group in: the user's own, its isomorphism class, the whole net or itself."""
    is_out = host.DG.is_out_channel_pruning_fn
    for dep, _ in group:
        for module, function in ((dep.source.module, dep.trigger), (dep.target.module, dep.handler)):
            if module in host._layer_to_scope and is_out(function):
                return str(host._layer_to_scope[module][0])
    if host.isomorphic:
        return "Isomorphic_" + "".join(
            "_".join(
                f"{type(node.module)}_{'out' if is_out(dep.handler) else 'in'}" for node in (dep.source, dep.target)
            )
            for dep, _ in group
        )
    return GLOBAL_SCOPE if host.global_pruning else str(host.DG._module2name[group[0][0].source.module])
