"""What stands in the way of removing channels, at each place that they pass through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .coupling import Member


@dataclass(frozen=True, kw_only=True)
class Limit:
    """`blocks` must stay even, `least` channels must stay, and `obstacle`, if not empty, forbids any removal."""

    blocks: int = 1
    least: int = 1
    obstacle: str = ""


def limit_of(node: Any, member: Member | None, channels: tuple[int, ...]) -> Limit:
    """What one node of Torch-Pruning's graph asks of the group whose `channels` pass through it as `member`."""
    module, kind = node.module, node.type.name
    if kind == "OUTPUT" or (member and member.side == "out" and not node.outputs):
        return Limit(obstacle="it is the network's output")
    if kind == "CONCAT" and any(function is None for function, _ in node.grad_fn.next_functions):
        return Limit(obstacle="it is concatenated with a tensor that has no producer")
    if _mixes(node):
        return Limit(obstacle=MIXED)
    if kind == "SPLIT" and (split := _split_obstacle(node)):
        return Limit(obstacle=split)
    if member is None:
        return Limit()
    shares = Counter(member.channels)
    if len(member.indices) % len(channels) or set(shares) != set(channels) or len(set(shares.values())) > 1:
        return Limit(obstacle=f"its channels do not map one to one onto those of {member.module}")
    if kind == "PARAMETER":
        return Limit(obstacle=_held_by(node, member))
    if kind == "LSTM":
        return Limit(obstacle=f"the recurrent layer {member.module} reads it")
    if kind == "DEPTHWISE_CONV" and module.in_channels != module.out_channels:
        return Limit(obstacle=f"{member.module} has one output channel per conv group and several inputs")
    if kind == "DEPTHWISE_CONV":
        return Limit(least=2)  # of one channel it would be traced as an ordinary one from then on
    if kind in ("CONV", "GN", "MHA"):
        return _blocks(kind, module, member, len(channels))
    return Limit()


MIXED = "a change of view mixes its channels with other dimensions"


def change_of_view(node: Any) -> Literal["flatten", "kept", "mixed", "unknown"]:
    """What a change of view does to channels, from the shapes that autograd keeps."""
    before = tuple(getattr(node.grad_fn, "_saved_self_sym_sizes", ()))
    after = tuple(node.grad_fn._input_metadata[0].shape)
    if not before:
        return "unknown"
    short, long = sorted((before, after), key=len)
    if len(short) == 1 and short[0] == max(long) == math.prod(long):  # a scale, shaped to meet images
        return "kept"
    if len(short) == 2 and len(long) > 2 and short[0] == long[0] and short[1] == math.prod(long[1:]):
        return "mixed" if long[1] == 1 < short[1] else "flatten"  # mixed: channels as a sequence, to be filtered
    if (
        len(short) == 4 and short[0] == long[0] and long[3:] == short[2:]
    ):  # images whose channels are dealt out: a shuffle
        return "mixed"
    return "kept" if before[:2] == after[:2] or before[-1] == after[-1] else "mixed"


def mixing_after(node: Any) -> str:
    """The obstacle of a producer whose channels reach, past layers that keep them, a view that mixes them; else empty."""
    return MIXED if any(_mixes(following) for following in _following(node, until=("CONV", "LINEAR", "OUTPUT"))) else ""


def part_of(split: Any, reader: Any) -> int:
    """Which part of a split this node reads."""
    return next((part for function, part in reader.grad_fn.next_functions if function is split.grad_fn), -1)


def _axis(made: Any) -> int:
    """Autograd keeps an axis as an unsigned number of 64 bits, so that one counted from the end is a huge one."""
    axis: int = made._saved_dim
    return axis - 2**64 if axis >= 2**63 else axis


def _split_obstacle(split: Any) -> str:
    """Wherever Torch-Pruning takes a split to be one of channels, it counts readers as parts."""
    axis = _axis(split.grad_fn)
    if axis > 1 or axis == 0:
        return ""
    if hasattr(split.grad_fn, "_saved_split_size"):
        return "it is split into equal parts, which must stay equal"
    read = [part_of(split, reader) for reader in split.outputs]
    return "" if read == list(range(len(read))) else "it is split into parts that are not read once each"


def parts_of(split: Any) -> list[int]:
    """The sizes of a split's parts, as autograd keeps them."""
    made = split.grad_fn
    if hasattr(made, "_saved_split_sizes"):
        return list(made._saved_split_sizes)
    whole, size = made._saved_self_sym_sizes[_axis(made)], made._saved_split_size
    return [min(size, whole - start) for start in range(0, whole, size)]


def joined_sizes(concatenation: Any) -> list[int] | None:
    """The sizes of what a concatenation joins, as autograd keeps them; None where a part has no producer."""
    made = concatenation.grad_fn
    if any(function is None for function, _ in made.next_functions):
        return None
    return [function._input_metadata[part].shape[_axis(made)] for function, part in made.next_functions]


def _mixes(node: Any) -> bool:
    """Views inside MultiheadAttention deal channels out to heads and collect them again: that is the layer's own affair."""
    if type(node.module).__name__ != "_ReshapeOp" or change_of_view(node) != "mixed":
        return False
    ends = [
        following for following in _following(node, until=ENDS) if following.type.name in ENDS or not following.outputs
    ]
    return any(end.type.name != "MHA" for end in ends)


ENDS = ("MHA", "CONV", "LINEAR", "OUTPUT")


def _following(node: Any, *, until: tuple[str, ...]) -> Iterator[Any]:
    """Nodes that read this one, directly or through others, up to those of certain kinds."""
    seen, pending = {node}, list(node.outputs)
    while pending:
        following = pending.pop()
        if following not in seen:
            seen.add(following)
            yield following
            if following.type.name not in until:
                pending += following.outputs


def _held_by(node: Any, member: Member) -> str:
    """A bare parameter can only be cut where it has one number per channel."""
    parameter = node.module
    held: int = parameter.shape[node.pruning_dim]
    if parameter.numel() == held == len(member.indices):
        return ""
    if held == len(member.indices):
        return f"the bare parameter {member.module} of shape {tuple(parameter.shape)} holds it"
    return (
        f"Torch-Pruning ties it to the bare parameter {member.module} of shape {tuple(parameter.shape)}, "
        "which does not hold its channels"
    )


def _blocks(kind: str, module: Any, member: Member, width: int) -> Limit:
    """Grouped convolutions, group norms and attention heads: equally many channels in each block."""
    blocks = module.groups if kind == "CONV" else module.num_groups if kind == "GN" else module.num_heads
    attribute = {"GN": "num_channels", "MHA": "embed_dim"}.get(kind, f"{member.side}_channels")
    if blocks > 1 and member.indices != tuple(range(getattr(module, attribute))):
        return Limit(obstacle=f"the blocks of {member.module} hold channels of several groups")
    # with one channel a block, Torch-Pruning would take a grouped convolution for a depthwise one from then on
    grouped = kind == "CONV" and blocks > 1 and len(member.indices) == width
    return Limit(blocks=blocks, least=blocks + 1 if grouped else blocks)
