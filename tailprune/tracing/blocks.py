"""From operations to deployed blocks: a layer with the norm folded into it and the cheap operations that follow it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from .record import INPUT, PRODUCTS, Operand, Operation, Recording

#: Operations that never ride behind another layer. Norms are here too: where one can be folded it vanishes instead.
STARTS = (*PRODUCTS, "max_pool", "avg_pool", "cat", "batch_norm", "layer_norm", "group_norm", "local_response_norm")


@dataclass(kw_only=True)
class Block:
    """A deployed block while it is being put together; `head` and `tail` are operations, `sources` are blocks.

    `sources` are where the channels of an elementwise block or of a pool come from: one block, or all that a
    concatenation joins; `extra` are channels that come from the network's input.
    """

    head: int
    operation: Operation
    tail: int
    channels: int
    sources: tuple[int, ...] = ()
    extra: int = 0
    norm: str | None = None
    epilogue: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return self.operation.label

    @property
    def kind(self) -> str:
        return self.operation.kind


def form_blocks(recording: Recording) -> list[Block]:
    """Blocks in the order in which they run; each operation is in exactly one.

    An operation joins the block that ends in its latest operand, if that has its own size: a residual addition belongs
    to the layer that makes the sum possible, and a squeeze-excite product, whose latest operand is one number per
    channel, stands alone. A batch norm that reads one convolution, alone, is folded into it.
    """
    operations = recording.operations
    folded = _foldable(operations)
    blocks: list[Block] = []
    block_of: list[int] = []
    for index, operation in enumerate(operations):
        written = [o.writer for o in operation.operands if o.writer is not None and o.writer != INPUT]
        target: int | None = None
        if index in folded:
            target = block_of[folded[index]]
            blocks[target].norm = operation.module
            if "bias" not in blocks[target].epilogue:
                blocks[target].epilogue.insert(0, "bias")
        elif operation.kind not in STARTS and written:
            latest = max(written)
            if blocks[block_of[latest]].tail == latest and _size(operations[latest]) == _size(operation):
                target = block_of[latest]
                blocks[target].epilogue.append(_epilogue(operation))
        if target is None:
            target = len(blocks)
            blocks.append(_start(index, operation, blocks, block_of))
        blocks[target].tail = index
        block_of.append(target)
    return blocks


def _start(index: int, operation: Operation, blocks: list[Block], block_of: list[int]) -> Block:
    sources: tuple[int, ...] = ()
    extra = 0
    if operation.kind in ("conv", "conv_transpose", "linear", "attention", "product"):
        axis = 1 if operation.kind.startswith("conv") and len(operation.out_shape) > 2 else -1
        channels = operation.out_shape[axis]
        epilogue = ["bias"] if operation.arguments.get("bias") else []
    else:
        sources, extra, channels = _channels(operation, blocks, block_of)
        epilogue = [] if operation.kind in ("max_pool", "avg_pool") else [_epilogue(operation)]
    return Block(
        head=index, operation=operation, tail=index, channels=channels, sources=sources, extra=extra, epilogue=epilogue
    )


def _channels(operation: Operation, blocks: list[Block], block_of: list[int]) -> tuple[tuple[int, ...], int, int]:
    """(blocks whose channels it has, channels that are of no block as a whole, channels in all)."""
    flowing = [o for o in operation.operands if o.writer is not None]
    if operation.kind == "cat" and not _joins_channels(operation, blocks, block_of):
        flowing = flowing[:1]
    elif operation.kind != "cat":
        flowing = [max(flowing, key=lambda o: (math.prod(o.shape), o.writer))]
    parts = [o for o in flowing if operation.kind == "cat" and not _whole(o, operation, blocks, block_of)]
    sources = tuple(block_of[o.writer] for o in flowing if o.writer not in (None, INPUT) and o not in parts)
    extra = sum(o.shape[1] if len(o.shape) > 1 else 1 for o in flowing if o.writer == INPUT or o in parts)
    channels, shape = extra + sum(blocks[source].channels for source in sources), operation.out_shape or (1,)
    if channels in (shape[-1], shape[min(1, len(shape) - 1)]):
        return sources, extra, channels
    return (), 0, shape[1] if len(shape) == 4 else shape[-1]  # a slice, or a change of view: whatever it has now


def _joins_channels(operation: Operation, blocks: list[Block], block_of: list[int]) -> bool:
    """Images may be joined from parts of blocks; of anything else, all must be whole for the axis to be that of channels."""
    images = len(operation.out_shape) == 4 and operation.arguments.get("dim", 0) in (1, -3)
    whole = [_whole(o, operation, blocks, block_of) for o in operation.operands]
    return operation.function != "stack" and (all(whole) or (images and any(whole)))


def _whole(operand: Operand, operation: Operation, blocks: list[Block], block_of: list[int]) -> bool:
    """Does a concatenation read all channels of the block that wrote this? Weights and the network's input are whole."""
    if operand.writer in (None, INPUT):
        return True
    return operand.shape[operation.arguments.get("dim", 0)] == blocks[block_of[operand.writer]].channels


def _epilogue(operation: Operation) -> str:
    if operation.kind in ("add", "mul"):  # with a constant of one value per channel, or one in all, it is a scale
        large = sum(o.writer is not None or sum(side > 1 for side in o.shape) > 1 for o in operation.operands)
        return operation.kind if large > 1 else "scale"
    return "copy" if operation.kind == "other" else operation.kind


def _size(operation: Operation) -> int:
    return math.prod(operation.out_shape)


def _foldable(operations: tuple[Operation, ...]) -> dict[int, int]:
    """Batch norm operation -> the convolution or linear operation it can be folded into.

    It must be the only reader; and where modules are shared, each call of the one must go with a call of the other.
    """
    readers = Counter(o.writer for operation in operations for o in operation.operands if o.writer is not None)
    calls = Counter(operation.module for operation in operations)
    before: dict[int, int] = {}
    partners: dict[str, set[str]] = {}
    for index, operation in enumerate(operations):
        if operation.kind != "batch_norm":
            continue
        writer = operation.operands[0].writer
        if writer is None or writer == INPUT:
            continue
        layer = operations[writer]
        alone = readers[writer] == 1 and layer.out_shape == operation.out_shape
        if alone and (layer.kind == "conv" or (layer.kind == "linear" and len(layer.out_shape) == 2)):
            before[index] = writer
            partners.setdefault(operation.module, set()).add(layer.module)
            partners.setdefault(layer.module, set()).add(operation.module)
    return {
        norm: layer
        for norm, layer in before.items()
        if len(partners[operations[norm].module]) == len(partners[operations[layer].module]) == 1
        and calls[operations[norm].module] == calls[operations[layer].module]
    }
