"""Small and large worlds for the planner's tests: graphs, latency sources, scores, and the planner by brute force."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from itertools import product

from tailprune.core.errors import MissingLatency
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.core.shapes import LayerShape


class FormulaSource:
    """A latency source from a function of the shape; `lacking` says which shapes it does not know."""

    origin = "a formula"

    def __init__(
        self,
        formula: Callable[[LayerShape], float],
        *,
        lacking: Callable[[LayerShape], bool] = lambda shape: False,
        kind: Callable[[LayerShape], str] = lambda shape: "modelled",
    ) -> None:
        self.formula, self.lacking, self._kind = formula, lacking, kind
        self.asked = 0

    def latency_us(self, shape: LayerShape) -> float:
        self.asked += 1
        if self.lacking(shape):
            raise MissingLatency(f"no {shape}", (shape,))
        return self.formula(shape)

    def kind(self, shape: LayerShape) -> str:
        return self._kind(shape)


def staircase(tile: int = 16, in_tile: int = 8, floor: float = 3.0) -> Callable[[LayerShape], float]:
    """Steps in the out-width, smaller ones in the in-width."""

    def formula(shape: LayerShape) -> float:
        pixels = shape.in_hw[0] * shape.in_hw[1] / 196
        ins = 1 if shape.depthwise else math.ceil(shape.in_channels / in_tile) * in_tile
        return floor + pixels * math.ceil(shape.out_channels / tile) * tile * (0.5 + 0.01 * ins)

    return formula


def ragged(kind: str, seed: int) -> Callable[[LayerShape], float]:
    """Curves of one character: smooth, staircase, zigzag, or random with downward risers."""

    def formula(shape: LayerShape) -> float:
        i, o, h = shape.in_channels, shape.out_channels, shape.in_hw[0]
        if kind == "smooth":
            return 1.0 + 0.1 * i + 0.2 * o + 0.01 * i * o + h
        if kind == "staircase":
            return 2.0 + math.ceil(o / (2 + h % 3)) * 3 + math.ceil(i / 3) * (1 + h % 2)
        if kind == "zigzag":
            return 5.0 + o + 0.5 * i + (4 if o % 2 else 0) + (3 if i % 3 else 0)
        return random.Random(f"{seed}/{i}/{o}/{h}/{shape.op}").randint(1, 40) / 4

    return formula


CURVES = ("smooth", "staircase", "zigzag", "random")


def expr(*terms: str | tuple[str, int], constant: int = 0) -> WidthExpr:
    return WidthExpr(terms=tuple((t, 1) if isinstance(t, str) else t for t in terms), constant=constant)


def layer(
    name: str,
    widths: Mapping[str, int],
    ins: WidthExpr,
    outs: WidthExpr,
    *,
    hw: int = 14,
    kernel: int = 1,
    **more: object,
) -> Layer:
    calls = int(more.pop("calls", 1))  # type: ignore[call-overload]
    in_channels, out_channels = ins.at(widths), outs.at(widths)
    if more.pop("depthwise", False):
        more["conv_groups"] = out_channels
    shape = LayerShape(
        op=str(more.pop("op", "conv")),
        batch=1,
        in_channels=in_channels,
        out_channels=out_channels,
        in_hw=(hw, hw),
        kernel_hw=(kernel, kernel),
        padding_hw=(kernel // 2, kernel // 2),
        **more,  # type: ignore[arg-type]
    )
    return Layer(name=name, shape=shape, in_expr=ins, out_expr=outs, calls=calls)


def tiny_graph(seed: int, *, max_groups: int = 5, max_width: int = 9) -> ModelGraph:
    """A random little network: chains, residual joins, concatenations, depthwise layers, granules, fixed groups."""
    r = random.Random(seed)
    groups = []
    for i in range(r.randint(1, max_groups)):
        granule = r.choice((1, 1, 1, 2, 3))
        width = granule * r.randint(1, max(1, max_width // granule))
        groups.append(
            ChannelGroup(id=f"g{i}", width=width, granule=granule, min_width=granule, prunable=r.random() > 0.1)
        )
    ids = [g.id for g in groups]
    widths = {g.id: g.width for g in groups}
    layers = [layer("stem", widths, expr(constant=3), expr(ids[0]), hw=r.randint(3, 9), kernel=3)]
    for i in range(r.randint(1, 2 * len(ids) + 1)):
        style = r.random()
        out, hw = r.choice(ids), r.randint(3, 9)
        if style < 0.55:
            ins = expr(r.choice(ids))
        elif style < 0.8:
            ins = expr(
                *[(g, r.choice((1, 1, 2))) for g in r.sample(ids, r.randint(1, len(ids)))], constant=r.choice((0, 2))
            )
        elif style < 0.9:
            layers.append(
                layer(f"l{i}", widths, expr(out), expr(out), hw=hw, kernel=3, depthwise=True, calls=r.randint(1, 2))
            )
            continue
        else:
            cat = expr(*[(g, 1) for g in r.sample(ids, r.randint(1, len(ids)))])
            layers.append(layer(f"l{i}", widths, cat, cat, hw=hw, op="elementwise", epilogue=("batch_norm",)))
            continue
        layers.append(layer(f"l{i}", widths, ins, expr(out), hw=hw, calls=r.randint(1, 2)))
    layers.append(layer("head", widths, expr((ids[-1], 4)), expr(constant=5), hw=1, op="linear"))
    return ModelGraph(model=f"tiny-{seed}", layers=tuple(layers), groups=tuple(groups), input_shape=(1, 3, 9, 9))


def chain(*widths: int, granules: tuple[int, ...] = ()) -> ModelGraph:
    granules = granules or (1,) * len(widths)
    ids = {f"g{i}": w for i, w in enumerate(widths)}
    layers = [layer("l0", ids, expr(constant=3), expr("g0"))]
    layers += [layer(f"l{i}", ids, expr(f"g{i - 1}"), expr(f"g{i}")) for i in range(1, len(widths))]
    groups = tuple(ChannelGroup(id=g, width=w, granule=n) for (g, w), n in zip(ids.items(), granules, strict=True))
    return ModelGraph(model="chain", layers=tuple(layers), groups=groups, input_shape=(1, 3, 14, 14))


def random_scores(graph: ModelGraph, seed: int, *, coarse: bool = False, lognormal: bool = False) -> ChannelScores:
    r = random.Random(seed)

    def score() -> float:
        if lognormal:
            return r.lognormvariate(0, 1)
        return float(r.randint(0, 3)) if coarse else r.random()

    groups = tuple(
        GroupScores(group=g.id, scores=tuple(score() for _ in range(g.width)), granule=g.granule, scope="all")
        for g in graph.prunable_groups
    )
    return ChannelScores(groups=groups, method="random")


def brute_force(
    graph: ModelGraph, scores: ChannelScores, source: FormulaSource, candidates: Mapping[str, tuple[int, ...]]
) -> list[tuple[float, float, dict[str, int]]]:
    """Every choice of widths, (us, importance, widths), straight from the definition."""
    everything = []
    ids = [g.id for g in graph.groups]
    for widths in product(*(candidates[g] for g in ids)):
        chosen = dict(zip(ids, widths, strict=True))
        us = math.fsum(la.calls * source.latency_us(shape) for la, shape in graph.shapes_at(chosen))
        everything.append((us, scores.importance_kept(chosen), chosen))
    return everything


def resnet50(thinner: int = 4) -> ModelGraph:
    """ResNet-50's 53 convolutions and classifier in 37 groups: 4 shared stage widths, 33 others; all widths thinner."""
    groups = {"stem": 64 // thinner}
    layers: list[tuple[str, WidthExpr, WidthExpr, int, int, int]] = [
        ("conv1", expr(constant=3), expr("stem"), 224, 7, 2)
    ]
    before, hw = "stem", 56
    for stage, (blocks, inner) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        inner //= thinner
        groups[f"s{stage}"] = 4 * inner
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 1 else 1
            a, b = f"s{stage}b{block}a", f"s{stage}b{block}b"
            groups |= {a: inner, b: inner}
            layers.append((f"{a}.conv", expr(before), expr(a), hw, 1, 1))
            layers.append((f"{b}.conv", expr(a), expr(b), hw, 3, stride))
            if block == 0:
                layers.append((f"s{stage}.down", expr(before), expr(f"s{stage}"), hw, 1, stride))
                hw //= stride
            layers.append((f"s{stage}b{block}.out", expr(b), expr(f"s{stage}"), hw, 1, 1))
            before = f"s{stage}"
    built = [
        layer(name, groups, ins, outs, hw=hw, kernel=k, stride_hw=(s, s), epilogue=("bias",))
        for name, ins, outs, hw, k, s in layers
    ]
    built.append(layer("fc", groups, expr("s4"), expr(constant=1000), hw=1, op="linear"))
    return ModelGraph(
        model="resnet50-like",
        layers=tuple(built),
        groups=tuple(ChannelGroup(id=g, width=w) for g, w in groups.items()),
        input_shape=(32, 3, 224, 224),
        dtype="float16",
    )


def densenet(blocks: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32) -> ModelGraph:
    """A DenseNet: every layer sees the concatenation of all before it in its block."""
    groups, layers = {"stem": 2 * growth}, [("conv0", expr(constant=3), expr("stem"), 56, 3)]
    sources, hw = ["stem"], 56
    for i, count in enumerate(blocks):
        for j in range(count):
            narrow, new = f"d{i}.{j}a", f"d{i}.{j}b"
            groups |= {narrow: 4 * growth, new: growth}
            layers.append((narrow, expr(*sources), expr(narrow), hw, 1))
            layers.append((new, expr(narrow), expr(new), hw, 3))
            sources.append(new)
        if i + 1 < len(blocks):
            groups[f"t{i}"] = sum(groups[s] for s in sources) // 2
            layers.append((f"t{i}", expr(*sources), expr(f"t{i}"), hw, 1))
            sources, hw = [f"t{i}"], hw // 2
    layers.append(("fc", expr(*sources), expr(constant=1000), 1, 1))
    return ModelGraph(
        model="densenet-like",
        layers=tuple(layer(name, groups, ins, outs, hw=hw, kernel=k) for name, ins, outs, hw, k in layers),
        groups=tuple(ChannelGroup(id=g, width=w) for g, w in groups.items()),
        input_shape=(1, 3, 224, 224),
    )
