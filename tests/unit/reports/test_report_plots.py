"""Do plots show what they are given, in files and in SVG that a page can hold?"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

import pytest

from tailprune.core.errors import FormatError, InvalidShape
from tailprune.reports import (
    LayerTime,
    figure_svg,
    plot_latency_by_layer,
    plot_predicted_measured,
    plot_ratio_sweep,
    plot_staircase,
    plot_widths,
    save_figure,
)
from tailprune.reports.canvas import VARIABLES
from tailprune.steps import LatencyCurve, detect_steps


@pytest.fixture
def figures(sample_page):
    view = sample_page.staircases[2]
    return {
        "staircase": plot_staircase(view.staircase, marks=view.marks, title="layer"),
        "sweep": plot_ratio_sweep(sample_page.sweep),
        "widths": plot_widths(sample_page.plan),
        "predicted": plot_predicted_measured(sample_page.comparison.rows),
        "layers": plot_latency_by_layer(sample_page.layers),
    }


def test_every_plot_becomes_svg_and_png_without_pyplot(figures, tmp_path):
    for name, figure in figures.items():
        svg = save_figure(figure, tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        assert ET.fromstring(svg).tag.endswith("svg")
        assert save_figure(figure, tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


def test_inline_svg_has_no_address_own_ids_and_themed_colours(figures):
    svg = figure_svg(figures["staircase"], name="first one", alt='latency of "a" < b')
    assert svg.startswith("<svg")
    assert "http" not in svg
    assert 'aria-label="latency of &quot;a&quot; &lt; b"' in svg
    for used in ("ink", "host", "ours", "band"):
        assert f"var(--{used}, #" in svg
    assert not any(f": {color}" in svg for color in VARIABLES)
    assert all(part.startswith("first-one-") for part in svg.split(' id="')[1:])
    assert all(part.startswith("first-one-") for part in svg.split('href="#')[1:])


def test_equal_data_gives_equal_svg(staircase):
    one, two = (figure_svg(plot_staircase(staircase, marks={"host": 37, "tailprune": 40})) for _ in range(2))
    assert one == two


def test_landing_points_lie_on_the_curve_and_an_arrow_joins_them(staircase):
    axes = plot_staircase(staircase, marks={"host": 37, "tailprune": 40}).axes[0]
    landed = {line.get_label(): line.get_xydata()[0].tolist() for line in axes.lines if ": " in str(line.get_label())}
    assert landed == {"host: 37": [37, staircase.curve.at(37)], "tailprune: 40": [40, staircase.curve.at(40)]}
    (arrow,) = axes.texts
    assert (arrow.xyann[0], arrow.xy[0]) == (37, 40)


def test_every_edge_is_marked_by_its_verdict(staircase):
    axes = plot_staircase(staircase).axes[0]
    (dots,) = [line for line in axes.lines if line.get_label() == "confirmed edge"]
    assert tuple(dots.get_xdata()) == staircase.confirmed_edges


def test_an_unknown_landing_point_is_not_given_a_latency():
    curve = LatencyCurve(widths=(8, 16, 24, 32), latency_us=(10.0, 10.0, 20.0, 20.0), noise_us=(0.01,) * 4)
    axes = plot_staircase(detect_steps(curve), marks={"host": 20, "tailprune": 99}).axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert "host: 20 (latency unknown)" in labels
    assert "tailprune: 99 (latency unknown)" in labels
    assert not axes.texts


def test_a_single_width_can_be_drawn():
    curve = LatencyCurve(widths=(8,), latency_us=(10.0,), noise_us=(0.0,))
    assert "svg" in figure_svg(plot_staircase(detect_steps(curve), marks={"host": 8, "tailprune": 8}))


def test_quick_layers_are_summed_not_dropped():
    layers = [LayerTime(name=f"layer{i}", host_us=100.0 - i, ours_us=50.0) for i in range(20)]
    axes = plot_latency_by_layer(layers, largest=5).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["layer0", "layer1", "layer2", "layer3", "layer4", "15 quicker layers"]
    drawn = [bar.get_width() for bar in axes.patches]
    assert sum(drawn) == pytest.approx(sum(layer.host_us + layer.ours_us for layer in layers))


def test_names_are_never_formulas():
    layers = [
        LayerTime(name="a$b_{$c^", host_us=1.0, ours_us=1.0),
        LayerTime(name="<script>", host_us=1.0, ours_us=1.0),
    ]
    svg = figure_svg(plot_latency_by_layer(layers, title="$x_"))
    assert "a$b_{$c^" in svg
    assert "<script>" not in svg
    assert "&lt;script&gt;" in svg


def test_only_svg_and_png_are_written(figures, tmp_path):
    with pytest.raises(InvalidShape, match=r"saved as \.svg or \.png, got 'plot\.gif'"):
        save_figure(figures["sweep"], tmp_path / "plot.gif")
    for suffix in ("svg", "png"):
        with pytest.raises(FormatError, match=r"Cannot write"):
            save_figure(figures["sweep"], tmp_path / "absent" / f"plot.{suffix}")
