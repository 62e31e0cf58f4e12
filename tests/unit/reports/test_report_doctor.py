"""Does the doctor's page hold all of the finding, escaped, self-contained, and nothing of the rest?"""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest
from rich.console import Console
from test_report_page import _read

from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.reports import diagnosis_table, render_doctor_page
from tailprune.survey import diagnose
from tailprune.waves import WaveModel, load_device


def graph_of(*widths):
    sizes = (3, *widths, 10)
    exprs = [WidthExpr(constant=3), *(WidthExpr(terms=((f"<g{i}>", 1),)) for i in range(len(widths))), WidthExpr(constant=10)]  # fmt: skip
    layers = tuple(
        Layer(
            name=f"<c{i}>",
            shape=LayerShape(op="conv", batch=32, in_channels=a, out_channels=b, in_hw=(28, 28), kernel_hw=(3, 3), padding_hw=(1, 1), dtype="float16"),
            in_expr=exprs[i],
            out_expr=exprs[i + 1],
        )
        for i, (a, b) in enumerate(pairwise(sizes))
    )  # fmt: skip
    groups = tuple(ChannelGroup(id=f"<g{i}>", width=w) for i, w in enumerate(widths))
    return ModelGraph(model="<net>", layers=layers, groups=groups, input_shape=(32, 3, 28, 28), dtype="float16")


@pytest.fixture(scope="module")
def found():
    return diagnose(graph_of(128, 128), {"<g0>": 65, "<g1>": 71}, WaveModel(load_device("h200")))


@pytest.fixture(scope="module")
def html(found):
    return render_doctor_page(found, provenance={"widths": "a <test>"})


def test_the_page_is_balanced_self_contained_and_escaped(html):
    reader = _read(html)
    ids = [value for name, value in reader.attributes if name == "id"]
    assert ids and len(ids) == len(set(ids))
    assert not re.search(r"https?:|//[a-z]|src=|@import|url\((?!#)", html)
    assert "script" not in reader.tags
    for raw in ("<net>", "<c0>", "<g0>", "a <test>"):
        assert raw not in html
        assert raw in "".join(reader.text)


def test_all_of_the_finding_is_there(html, found):
    text = "".join(_read(html).text)
    for sentence in (*found.verdict, *map(str, found.changes), found.origin):
        assert sentence in text
    assert html.count("<svg") == len(found.changes) + 2  # and the waste, and the batches
    assert all(layer.binding.evidence in text for layer in found.layers)


def test_what_is_not_known_is_left_out_or_said(found):
    alone = diagnose(graph_of(64, 128), None, WaveModel(load_device("h200")))
    text = "".join(_read(render_doctor_page(alone)).text)
    assert "no dense network to compare with" in text
    assert "dense" not in re.findall(r'<th scope="col">(\w+)', render_doctor_page(alone))
    warned = dataclasses.replace(found, warnings=("mind the <gap>",))
    assert "mind the &lt;gap&gt;" in render_doctor_page(warned)


def test_the_table_fits_a_terminal_and_leaves_the_rest_to_one_line(found):
    console = Console(width=80, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(diagnosis_table(found, most=1))
    lines = capture.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "… 2 more" in capture.get()
    worst = max(found.layers, key=lambda layer: layer.wasted_us)
    assert worst.name in capture.get()
    assert "wave model of H200" in capture.get()
