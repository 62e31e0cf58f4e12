import pytest

from tailprune.core.errors import InvalidShape
from tailprune.core.graph import ChannelGroup, Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape


def expr(*terms, constant=0):
    return WidthExpr(terms=tuple(terms), constant=constant)


@pytest.fixture
def graph():
    """3 -> a(16) -> b(8), then concat(a, b) -> linear over 4 pixels each."""
    a, b = ("a", 1), ("b", 1)
    common = dict(batch=1, in_hw=(2, 2), kernel_hw=(1, 1))
    return ModelGraph(
        model="toy",
        input_shape=(1, 3, 2, 2),
        groups=(ChannelGroup(id="a", width=16, granule=4, min_width=3), ChannelGroup(id="b", width=8)),
        layers=(
            Layer(name="one", shape=LayerShape(op="conv", in_channels=3, out_channels=16, **common), in_expr=expr(constant=3), out_expr=expr(a)),
            Layer(name="two", shape=LayerShape(op="conv", in_channels=16, out_channels=8, **common), in_expr=expr(a), out_expr=expr(b), calls=2),
            Layer(name="head", shape=LayerShape(op="linear", batch=1, in_channels=96, out_channels=10), in_expr=expr(("a", 4), ("b", 4)), out_expr=expr(constant=10)),
        ),
    )  # fmt: skip


def test_widths_move_every_layer_they_touch(graph):
    shapes = {layer.name: shape for layer, shape in graph.shapes_at({"a": 8})}
    assert [(s.in_channels, s.out_channels) for s in shapes.values()] == [(3, 8), (8, 8), (64, 10)]


def test_a_layer_called_twice_costs_twice(graph):
    assert graph.macs_at() == 4 * 3 * 16 + 2 * 4 * 16 * 8 + 96 * 10


def test_grid_honours_granule_and_floor(graph):
    assert list(graph.group("a").grid) == [4, 8, 12, 16]


def test_fingerprint_tells_structures_apart_but_not_batches(graph):
    import dataclasses

    bigger = dataclasses.replace(
        graph,
        input_shape=(8, 3, 2, 2),
        layers=tuple(dataclasses.replace(la, shape=dataclasses.replace(la.shape, batch=8)) for la in graph.layers),
    )
    other = dataclasses.replace(graph, groups=(graph.groups[0], dataclasses.replace(graph.groups[1], granule=2)))
    assert bigger.fingerprint == graph.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("widths", "message"),
    [({"a": 6}, "multiple of its granule 4"), ({"zz": 1}, "no channel group 'zz'"), ({"b": 0}, "cannot have width 0")],
)
def test_widths_off_the_grid_are_refused(graph, widths, message):
    with pytest.raises(InvalidShape, match=message):
        graph.check_widths(widths)


def test_a_layer_that_contradicts_its_expressions_is_refused(graph):
    import dataclasses

    wrong = dataclasses.replace(graph.layers[1], in_expr=expr(("b", 1)))
    with pytest.raises(InvalidShape, match="its widths give"):
        dataclasses.replace(graph, layers=(graph.layers[0], wrong))


def test_another_batch_and_dtype_need_no_second_trace(graph):
    larger = graph.at_batch(32, dtype="float16")
    assert larger.macs_at() == 32 * graph.macs_at()
    assert {la.shape.dtype for la in larger.layers} == {"float16"}
    assert larger.input_shape == (32, 3, 2, 2) and larger.fingerprint == graph.fingerprint


def test_a_batch_that_does_not_scale_is_refused(graph):
    import dataclasses

    odd = dataclasses.replace(graph, input_shape=(2, 3, 2, 2))  # layers ran at batch 1: half of it
    with pytest.raises(InvalidShape, match="one ran at batch 1, which does not scale from 2 to 3"):
        odd.at_batch(3)
