"""TensorRT's exported timings: made-up files in the format of trtexec, matched to a made-up network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailprune.core.environment import Environment
from tailprune.core.errors import FormatError, MissingLatency
from tailprune.core.graph import Layer, ModelGraph, WidthExpr
from tailprune.core.shapes import LayerShape
from tailprune.tables import LatencyTable, TrtexecImport, import_trtexec, merge
from tailprune.tables.trtexec import _module_names

T4 = Environment(device="Tesla T4", runtime="imported", fusion="TensorRT")


def conv(name: str, inputs: int, outputs: int, **changes: object) -> Layer:
    fields = dict(op="conv", batch=4, in_channels=inputs, out_channels=outputs, in_hw=(8, 8), kernel_hw=(3, 3), padding_hw=(1, 1),
                  dtype="int8", epilogue=("bias", "relu"))  # fmt: skip
    shape = LayerShape(**{**fields, **changes})
    return Layer(name=name, shape=shape, in_expr=WidthExpr(constant=inputs), out_expr=WidthExpr(constant=outputs))


STEM, TWICE, AGAIN, HEAD = conv("conv1", 3, 16), conv("layer1.0.conv1", 16, 16), conv("layer1.1.conv1", 16, 16), conv("head", 16, 24, stride_hw=(2, 2))  # fmt: skip
GRAPH = ModelGraph(model="tiny", layers=(STEM, TWICE, AGAIN, HEAD), groups=(), input_shape=(4, 3, 8, 8), dtype="int8")


def info(name: str, inputs: list[int], outputs: list[int], words: str = "Thirty-two wide channel vectorized row major Int8 format.", **more: object) -> dict:  # fmt: skip
    """A layer as the engine inspector describes it."""
    tensor = {"Location": "Device", "Format/Datatype": words}
    return {"Name": name, "LayerType": "CaskConvolution", "Inputs": [{"Name": "in", "Dimensions": inputs, **tensor}],
            "Outputs": [{"Name": "out", "Dimensions": outputs, **tensor}], "ParameterType": "Convolution", "Kernel": [3, 3],
            "Stride": [1, 1], "Dilation": [1, 1], "Groups": 1, **more}  # fmt: skip


@pytest.fixture
def read(tmp_path: Path):
    def run(rows: object, layers: list | None = None, graph: ModelGraph = GRAPH) -> TrtexecImport:
        profile, details = tmp_path / "profile.json", tmp_path / "layers.json"
        named = [{"name": n, "timeMs": 9.0, "averageMs": ms, "percentage": 1.0} for n, ms in rows.items()] if isinstance(rows, dict) else rows  # fmt: skip
        profile.write_text(json.dumps([{"count": 300}, *named] if isinstance(rows, dict) else named))
        if layers is not None:
            details.write_text(json.dumps({"Layers": layers, "Bindings": ["in", "out"]}))
        return import_trtexec(profile, graph, T4, layer_info=details if layers is not None else None)

    return run


def test_fused_names_of_users_and_of_the_exporter_match(read) -> None:
    found = read(
        {"conv1 + relu1": 0.025, "/layer1/layer1.0/conv1/Conv + /layer1/layer1.0/relu/Relu": 0.05, "/head/Conv": 0.0125}
    )
    assert set(found.matched) == {"conv1", "layer1.0.conv1", "head"}
    assert found.table.latency_us(STEM.shape) == 25.0
    assert found.table.latency_us(TWICE.shape) == 50.0
    assert found.unmatched == ()
    assert found.missing == (), "layer1.1.conv1 has the shape of layer1.0.conv1"
    assert found.total_us == found.matched_us == 87.5
    assert found.table.sample(STEM.shape).note == "trtexec, average of 300 iterations, conv1 + relu1"


def test_layers_of_one_shape_are_visits_of_one_entry(read) -> None:
    found = read({"/layer1/layer1.0/conv1/Conv": 0.05, "/layer1/layer1.1/conv1/Conv": 0.07})
    assert sorted(v.times_us for v in found.table.visits(TWICE.shape)) == [(50.0,), (70.0,)]
    assert found.table.latency_us(TWICE.shape) == 60.0


def test_rows_of_one_layer_are_added_up(read) -> None:
    found = read(
        {"a": 0.01, "b": 0.02},
        [{"Name": "a", "Metadata": "[ONNX Layer: /conv1/Conv]"}, {"Name": "b", "Metadata": "[ONNX Layer: /conv1/Act]\x1e[ONNX Layer: /x/Mul]"}],
    )  # fmt: skip
    assert found.matched == {"conv1": ("a", "b")}
    assert found.table.latency_us(STEM.shape) == pytest.approx(30.0)


def test_what_matches_nothing_is_listed_with_its_reason(read) -> None:
    copy = "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1"
    found = read({copy: 0.01, "conv1 + head": 0.02, "PWN(/act/Sigmoid, /Mul)": 0.03})
    assert dict(found.unmatched) == {
        copy: "names no layer of the network",
        "conv1 + head": "fuses several layers of the network (conv1, head), whose times cannot be told apart",
        "PWN(/act/Sigmoid, /Mul)": "names no layer of the network",
    }
    assert len(found.table) == 0
    assert found.missing == ("conv1", "layer1.0.conv1", "layer1.1.conv1", "head")
    assert found.summary().startswith(
        "0 layers of the network timed, 0.0 of 60.0 us; 3 TensorRT layers match none, 4 layers"
    )
    with pytest.raises(MissingLatency):
        found.table.latency_us(STEM.shape)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": [1, 3, 8, 8]}, "input is 1x3x8x8 in the profile and 4x3x8x8 in conv1"),
        ({"outputs": [4, 12, 8, 8]}, "output is 4x12x8x8 in the profile and 4x16x8x8 in conv1"),
        ({"Kernel": [5, 5]}, "kernel is 5x5 in the profile and 3x3 in conv1"),
        ({"Groups": 3}, "groups is 3 in the profile and 1 in conv1"),
        ({"words": "Row major linear FP16 format"}, "runs in float16, and conv1 was asked for in int8"),
        ({"words": "Half"}, "runs in float16, and conv1 was asked for in int8"),
    ],
)
def test_a_name_of_another_size_or_type_is_no_match(read, changes: dict, reason: str) -> None:
    right = {"name": "conv1", "inputs": [4, 3, 8, 8], "outputs": [4, 16, 8, 8]}
    assert read({"conv1": 0.01}, [info(**right)]).unmatched == ()
    assert read({"conv1": 0.01}, [info(**{**right, **changes})]).unmatched == (("conv1", reason),)


def test_names_that_say_nothing_match_by_size(read) -> None:
    layers = [
        info("node_conv2d_7", [4, 16, 8, 8], [4, 24, 4, 4], Stride=[2, 2]),
        info("node_x", [4, 5, 8, 8], [4, 5, 8, 8]),
    ]
    found = read({"node_conv2d_7": 0.04, "node_x": 0.01}, layers)
    assert found.matched == {"head": ("node_conv2d_7",)}
    assert found.unmatched == (("node_x", "no layer of the network has its sizes"),)


def test_sizes_that_two_shapes_have_decide_nothing(read) -> None:
    other = conv("tail", 16, 24, stride_hw=(2, 2), epilogue=("bias",))
    graph = ModelGraph(model="two", layers=(HEAD, other), groups=(), input_shape=(4, 16, 8, 8), dtype="int8")
    found = read({"node_1": 0.04}, [info("node_1", [4, 16, 8, 8], [4, 24, 4, 4], Stride=[2, 2])], graph)
    assert found.unmatched == (("node_1", "several shapes of the network have its sizes"),)


def test_medians_are_preferred_and_free_layers_left_out(read) -> None:
    rows = [{"name": "conv1", "averageMs": 0.03, "medianMs": 0.02}, {"name": "head", "averageMs": 0, "medianMs": 0}]
    found = read([{"count": 7}, *rows])
    assert found.table.latency_us(STEM.shape) == 20.0
    assert "median of 7 iterations" in found.table.sample(STEM.shape).note
    assert "head" not in found.matched


def test_reading_a_file_twice_adds_it_once(read, tmp_path: Path) -> None:
    with LatencyTable.open(tmp_path / "t4.db", environment=T4) as table:
        assert merge(table, read({"conv1": 0.01}).table).added == 1
        stamp = (tmp_path / "profile.json").stat().st_mtime
        found = import_trtexec(tmp_path / "profile.json", GRAPH, T4)
        assert (tmp_path / "profile.json").stat().st_mtime == stamp
        assert merge(table, found.table).added == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"count": 3}, {"name"', "is not valid JSON"),
        ("", "is not valid JSON"),
        ("{}", "is no trtexec profile: a list is expected"),
        ("[]", "is no trtexec profile"),
        ('[{"name": "a", "averageMs": 1}]', "is no trtexec profile"),
        ('[{"count": 3}]', "holds no timings: 3 iterations of 0 layers"),
        ('[{"count": 0}, {"name": "a", "averageMs": 1}]', "holds no timings: 0 iterations"),
        (
            '[{"count": 3}, {"name": "a"}]',
            "layer 1: a name and a averageMs of at least 0 are expected, got 'a' and None",
        ),
        ('[{"count": 3}, {"name": "a", "averageMs": 1}, 7]', "layer 2: "),
        ('[{"count": 3}, {"name": "a", "averageMs": NaN}]', "got 'a' and nan"),
        ('[{"count": 3}, {"name": "a", "averageMs": -1}]', "got 'a' and -1"),
        ('[{"count": 3}, {"name": 5, "averageMs": 1}]', "got 5 and 1"),
        ('[{"count": 3}, {"name": "a", "averageMs": "1"}]', "got 'a' and '1'"),
    ],
)
def test_malformed_profiles_are_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(FormatError) as refused:
        import_trtexec(path, GRAPH, T4)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_missing_binary_and_foreign_files_are_refused(tmp_path: Path, read) -> None:
    with pytest.raises(FormatError, match=r"Cannot read .*nowhere\.json: No such file"):
        import_trtexec(tmp_path / "nowhere.json", GRAPH, T4)
    with pytest.raises(FormatError, match="Cannot read"):
        import_trtexec(tmp_path, GRAPH, T4)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="is not valid JSON"):
        import_trtexec(tmp_path / "b.json", GRAPH, T4)
    read({"conv1": 0.01})
    with pytest.raises(FormatError, match="is no trtexec layer information"):
        import_trtexec(tmp_path / "profile.json", GRAPH, T4, layer_info=tmp_path / "profile.json")


def test_layer_information_without_details_changes_nothing(read) -> None:
    """Without --profilingVerbosity=detailed the inspector lists names only."""
    assert set(read({"conv1 + relu1": 0.01}, ["conv1 + relu1"]).matched) == {"conv1"}


JSON = st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["count", "name", "averageMs", "Layers", "Name", "Inputs", "Dimensions"]), inner, max_size=3))  # fmt: skip


@given(st.lists(JSON, max_size=3), JSON)
def test_no_json_ends_in_another_error(tmp_path_factory: pytest.TempPathFactory, rows: list, layers: object) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "p.json").write_text(json.dumps([{"count": 3}, *rows]))
    (folder / "l.json").write_text(json.dumps({"Layers": [layers, {"Name": "conv1", "Inputs": layers}]}))
    try:
        found = import_trtexec(folder / "p.json", GRAPH, T4, layer_info=folder / "l.json")
    except FormatError:
        return
    assert len(found.matched) + len(found.unmatched) <= len(rows)


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("/conv1/Conv", "conv1"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.1/conv/conv.0/conv.0.0/Conv", "features.1.conv.0.0"),
        ("/layer4/layer4.0/downsample/downsample.0/Conv", "layer4.0.downsample.0"),
        ("conv1", "conv1"),
    ],
)
def test_the_exporters_paths_are_module_names(node: str, module: str) -> None:
    assert module in tuple(_module_names(node))
