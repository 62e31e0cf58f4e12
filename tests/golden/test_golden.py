"""What people read stays as it is unless somebody looks at the change: TAILPRUNE_REWRITE_GOLDEN=1 rewrites the files."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

import tailprune
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.scores import ChannelScores, GroupScores
from tailprune.reports import plan_table, staircase_table

FOLDER = Path(__file__).parent


def chain() -> ModelGraph:
    """3 -> a(96) -> b(160) -> c(64), 3x3 convolutions at 28x28, float16 on a batch of 32."""
    widths = {"a": 96, "b": 160, "c": 64}
    ends = [WidthExpr(constant=3), *(WidthExpr(terms=((name, 1),)) for name in widths)]
    layers = []
    for i, name in enumerate(widths):
        shape = tailprune.LayerShape(
            op="conv", batch=32, in_channels=ends[i].at(widths), out_channels=widths[name], in_hw=(28, 28),
            kernel_hw=(3, 3), padding_hw=(1, 1), dtype="float16", epilogue=("bias", "relu"),
        )  # fmt: skip
        layers.append(Layer(name=name, shape=shape, in_expr=ends[i], out_expr=ends[i + 1]))
    groups = tuple(ChannelGroup(id=name, width=width) for name, width in widths.items())
    return ModelGraph(model="chain", layers=tuple(layers), groups=groups, input_shape=(32, 3, 28, 28), dtype="float16")


def planned() -> tailprune.WidthPlan:
    graph = chain()
    scores = ChannelScores(
        groups=tuple(GroupScores(group=g.id, scores=tuple(1 / (1 + i) for i in range(g.width))) for g in graph.groups),
        method="1 / rank",
    )
    host = tailprune.choose_host(scores, 0.45)
    return tailprune.plan_widths(graph, host, latency=tailprune.WaveModel(tailprune.load_device("a100")))


def shown(renderable) -> str:
    console = Console(file=io.StringIO(), width=110, color_system=None)
    console.print(renderable)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def plan_json() -> str:
    body = planned().to_dict()
    return json.dumps({k: v for k, v in body.items() if k != "versions"}, indent=1) + "\n"


def staircase() -> str:
    model = tailprune.WaveModel(tailprune.load_device("a100"))
    curve = tailprune.group_curve(chain(), "b", model, widths=range(8, 161, 8))
    return shown(staircase_table(tailprune.detect_steps(curve), title="b of chain on an A100, estimated"))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("plan.json", plan_json),
        ("plan-summary.txt", lambda: planned().summary() + "\n"),
        ("plan-table.txt", lambda: shown(plan_table(planned()))),
        ("staircase-table.txt", staircase),
    ],
)
def test_output_is_as_recorded(name, make):
    file, found = FOLDER / name, make()
    if os.environ.get("TAILPRUNE_REWRITE_GOLDEN"):
        file.write_text(found, encoding="utf-8")
    assert file.exists(), f"{name} was never recorded; run once with TAILPRUNE_REWRITE_GOLDEN=1 and read it"
    assert found == file.read_text(encoding="utf-8"), (
        "changed output: if it is meant, rewrite the golden files and read the diff"
    )
